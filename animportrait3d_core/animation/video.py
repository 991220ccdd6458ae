"""Films through PyAV: mp4, and webm with alpha, both with a sound track if there is one; frames as PNG files."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch
from ..files import atomic_folder, atomic_write
from ..progress import may_stop
from .sound import Sound, SoundTrack

logger = logging.getLogger("animportrait3d")

QUALITY = {
    "libx264": {"crf": "18", "preset": "medium"},
    "mpeg4": {"qscale": "2"},
    # Frames of a film with alpha may not refer to hidden ones: the encoder refuses it.
    "libvpx-vp9": {"crf": "20", "b:v": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"},
}


@dataclasses.dataclass(frozen=True)
class FilmFormat:
    """encoders: of the pictures, the first that is there.  sound: encoder of the sound.  options: of the container."""

    encoders: tuple[str, ...]
    pixels: str
    channels: int
    sound: str
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)


FILMS = {
    # H.264 plays everywhere; MPEG-4 part 2 is in every build of FFmpeg. The index comes before the pictures: browsers
    # begin to play before they have all of the file.
    ".mp4": FilmFormat(("libx264", "h264", "mpeg4"), "yuv420p", 3, "aac", {"movflags": "+faststart"}),
    ".webm": FilmFormat(("libvpx-vp9",), "yuva420p", 4, "libopus", tags={"alpha_mode": "1"}),
}
"""By the suffix of the file."""


def film_format(path: str | Path) -> FilmFormat:
    """The format that a file has by its name; raises `InvalidInput` where there is none."""
    suffix = Path(path).suffix.lower()
    if suffix not in FILMS:
        raise InvalidInput(f"write_film: '{path}' ends in '{suffix}', expected {' or '.join(FILMS)}.")
    return FILMS[suffix]


def choose_encoder(suffix: str = ".mp4") -> str:
    """The best encoder that this build of FFmpeg has; says so once per film if an mp4's is not H.264."""
    encoders = FILMS[suffix].encoders
    name = next(filter(_is_there, encoders), None)
    if name is None:
        raise InvalidInput(
            f"write_film: this PyAV has none of the encoders {encoders}; reinstall it with `pip install av`."
        )
    if name == "mpeg4":
        logger.warning("write_film: this PyAV has no H.264 encoder; the film is MPEG-4 part 2, which browsers refuse.")
    return name


def _is_there(encoder: str) -> bool:
    import av

    try:
        av.Codec(encoder, "w")
    except (av.codec.codec.UnknownCodecError, ValueError):
        return False
    return True


def write_film(frames: Iterable[Tensor], path: str | Path, fps: float = 25.0, sound: Sound | None = None) -> str:
    """Write frames in 0..1 (a tensor [T, H, W, C] or any iterable of [H, W, C]) as one film, in one piece.

    The suffix says the format: `.mp4` takes C = 3, `.webm` C = 4 with straight alpha. Frames are taken one at a time,
    so a generator is never held in memory. Odd sizes lose their last row or column, as colours are stored at half the
    size. A sound longer than the film is cut, a shorter one ends in silence (`sound.length_words` tells). Returns the
    name of the pictures' encoder. Raises `InvalidInput` when there are no frames.
    """
    import av

    form, suffix = film_format(path), Path(path).suffix.lower()
    if not fps > 0:
        raise InvalidInput(f"write_film: {fps} frames per second, expected more than 0.")
    first, frames = _first_of(frames, "write_film")
    encoder = choose_encoder(suffix)
    if sound is not None and not _is_there(form.sound):
        raise InvalidInput(f"write_film: this PyAV has no encoder {form.sound}; reinstall it with `pip install av`.")
    height, width = _even_size(first, form.channels)
    with atomic_write(path) as temporary:
        with av.open(str(temporary), "w", format=suffix[1:], options=form.options) as container:
            stream: Any = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1000))
            stream.width, stream.height, stream.pix_fmt = width, height, form.pixels
            stream.options = QUALITY.get(encoder, {})
            stream.metadata.update(form.tags)
            track = SoundTrack(container, form.sound, sound) if sound is not None else None
            for count, frame in enumerate(frames, start=1):
                may_stop()
                pixels = _bytes(_checked(frame, first, "write_film")[:height, :width])
                image = av.VideoFrame.from_ndarray(pixels, format="rgb24" if form.channels == 3 else "rgba")
                container.mux(stream.encode(image))
                if track is not None:
                    track.fill(count / fps)
            container.mux(stream.encode())
            if track is not None:
                track.finish()
    return encoder


_FRAME_NAME = re.compile(r"\d{5,}\.png")


def write_png_frames(frames: Iterable[Tensor], folder: str | Path, overwrite: bool = False) -> list[Path]:
    """Write frames [H, W, C] in 0..1 (C = 3, or 4 with straight alpha) as `00000.png`, `00001.png`, ... into a folder
    of their own, all or none.

    overwrite: replace an older folder, if it holds nothing else; without it one that is there is refused. Returns the
    paths. Raises `InvalidInput` when there are no frames.
    """
    from PIL import Image

    folder, names = Path(folder), []
    first, frames = _first_of(frames, "write_png_frames")
    with atomic_folder("write_png_frames", folder, _FRAME_NAME, overwrite) as temporary:
        for index, frame in enumerate(frames):
            may_stop()
            names.append(f"{index:05}.png")
            image = Image.fromarray(_bytes(_checked(frame, first, "write_png_frames")))
            image.save(temporary / names[-1], compress_level=4)
    return [folder / name for name in names]


def _first_of(frames: Iterable[Tensor], where: str) -> tuple[Tensor, Iterator[Tensor]]:
    """The first frame, and all of them."""
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InvalidInput(f"{where}: 0 frames, expected at least 1.")
    return first, chain([first], iterator)


def _checked(frame: Tensor, first: Tensor, where: str) -> Tensor:
    if tuple(frame.shape) != tuple(first.shape):
        raise ShapeMismatch(f"{where}: a frame has shape {list(frame.shape)}, the first {list(first.shape)}.")
    return frame


def _bytes(frame: Tensor) -> Any:
    """Array [H, W, C] of bytes."""
    return (frame.detach().cpu().clamp(0, 1) * 255).round().byte().contiguous().numpy()


def _even_size(frame: Tensor, channels: int) -> tuple[int, int]:
    """Height and width rounded down to even numbers."""
    if frame.ndim != 3 or frame.shape[2] != channels or min(frame.shape[:2]) < 2:
        raise ShapeMismatch(
            f"write_film: a frame has shape {list(frame.shape)}, expected [H, W, {channels}] of at least 2 x 2."
        )
    return frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
