"""mp4 files through PyAV."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch
from ..files import atomic_write

logger = logging.getLogger("animportrait3d")

ENCODERS = ("libx264", "h264", "mpeg4")
"""Tried in this order: the first plays everywhere; the last is in every build of FFmpeg."""

QUALITY = {"libx264": {"crf": "18", "preset": "medium"}, "mpeg4": {"qscale": "2"}}


def choose_encoder() -> str:
    """The best encoder that this build of FFmpeg has; says so once per film if it is not H.264."""
    import av

    for name in ENCODERS:
        try:
            av.Codec(name, "w")
        except (av.codec.codec.UnknownCodecError, ValueError):
            continue
        if name == "mpeg4":
            logger.warning(
                "write_mp4: this PyAV has no H.264 encoder; the film is MPEG-4 part 2, which browsers refuse."
            )
        return name
    raise InvalidInput(f"write_mp4: this PyAV has none of the encoders {ENCODERS}; reinstall it with `pip install av`.")


def write_mp4(frames: Iterable[Tensor], path: str | Path, fps: float = 25.0) -> str:
    """Write frames [H, W, 3] in 0..1 (a tensor [T, H, W, 3] or any iterable) as one mp4, in one piece.

    Taken one at a time, so a generator is never held in memory. Odd sizes lose their last row or column, as yuv420p
    needs even ones. Returns the name of the encoder. Raises `InvalidInput` when there are no frames.
    """
    import av

    if not fps > 0:
        raise InvalidInput(f"write_mp4: {fps} frames per second, expected more than 0.")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InvalidInput("write_mp4: 0 frames, expected at least 1.")
    height, width = _even_size(first)
    encoder = choose_encoder()
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = QUALITY.get(encoder, {})
        for frame in chain([first], iterator):
            if tuple(frame.shape) != tuple(first.shape):
                raise ShapeMismatch(f"write_mp4: a frame has shape {list(frame.shape)}, the first {list(first.shape)}.")
            pixels = (frame[:height, :width].detach().cpu().clamp(0, 1) * 255).round().byte().contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return encoder


def _even_size(frame: Tensor) -> tuple[int, int]:
    """Height and width rounded down to even numbers."""
    if frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < 2:
        raise ShapeMismatch(f"write_mp4: a frame has shape {list(frame.shape)}, expected [H, W, 3] of at least 2 x 2.")
    return frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
