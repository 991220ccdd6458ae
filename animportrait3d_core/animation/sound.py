"""Sound tracks of films."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput

LAYOUTS = {1: "mono", 2: "stereo"}
FILM_RATE = 48000
"""Samples per second in a film: both AAC and Opus have it, and every browser plays it."""
HEARD = 0.01
"""Seconds. Differences of length below it are those of rounding."""


@dataclasses.dataclass(frozen=True)
class Sound:
    """waveform: [C, T] float32 in -1..1, C = 1 or 2 channels.  rate: samples per second."""

    waveform: Tensor
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.waveform.shape[1] / self.rate

    def cut(self, begin: int, end: int) -> Tensor:
        """Samples [C, end - begin] from `begin` to `end`; silence beyond its end."""
        part = self.waveform[:, begin:end]
        return torch.nn.functional.pad(part, (0, end - begin - part.shape[1]))


def sound_of_audio(audio: Mapping[str, Any]) -> Sound:
    """The sound of ComfyUI's AUDIO, {"waveform": [1, C, T] float, "sample_rate": int}; values beyond 1 are clipped.

    Raises `InvalidInput` for anything else, for more than two channels, and for values that are not finite.
    """
    keys = ", ".join(sorted(map(str, audio))) if isinstance(audio, Mapping) else type(audio).__name__
    if not isinstance(audio, Mapping) or not {"waveform", "sample_rate"} <= set(audio):
        raise InvalidInput(f"sound_of_audio: found {keys}, expected an AUDIO with waveform and sample_rate.")
    waveform, rate = audio["waveform"], audio["sample_rate"]
    if not (isinstance(waveform, Tensor) and waveform.is_floating_point() and waveform.ndim == 3):
        found = f"{waveform.dtype} {list(waveform.shape)}" if isinstance(waveform, Tensor) else type(waveform).__name__
        raise InvalidInput(f"sound_of_audio: the waveform is {found}, expected floats [1, channels, samples].")
    batch, channels, samples = waveform.shape
    if batch != 1 or channels not in LAYOUTS or samples < 1 or not int(rate) > 0:
        raise InvalidInput(
            f"sound_of_audio: {batch} sounds of {channels} channels with {samples} samples at {rate} per second, "
            "expected one sound of 1 or 2 channels with at least one sample. Choose one of a batch, and mix channels "
            "down, before the film is made."
        )
    if not bool(torch.isfinite(waveform).all()):
        raise InvalidInput("sound_of_audio: the waveform holds values that are not finite.")
    return Sound(waveform[0].detach().cpu().float().clamp(-1, 1), int(rate))


def length_words(sound: Sound, seconds: float) -> list[str]:
    """A sentence if the sound has another length than a film of so many seconds: what is done about it."""
    more = sound.seconds - seconds
    if abs(more) < HEARD:
        return []
    lengths = f"The sound lasts {sound.seconds:.2f} s, the film {seconds:.2f} s"
    return [
        f"{lengths}: the last {more:.2f} s are cut." if more > 0 else f"{lengths}: it ends {-more:.2f} s in silence."
    ]


class SoundTrack:
    """The sound of a film that is being written, as a stream of its container."""

    def __init__(self, container: Any, codec: str, sound: Sound) -> None:
        self._container, self._sound, self._done = container, sound, 0
        self._stream = container.add_stream(codec, rate=FILM_RATE)
        self._stream.codec_context.layout = LAYOUTS[len(sound.waveform)]

    def fill(self, seconds: float) -> None:
        """Write it up to this time of the film: what is longer is cut, what is shorter ends in silence."""
        import av

        end = round(seconds * self._sound.rate)
        if end <= self._done:
            return
        samples = self._sound.cut(self._done, end).contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=LAYOUTS[len(samples)])
        frame.sample_rate, frame.pts = self._sound.rate, self._done  # the stream resamples it
        self._container.mux(self._stream.encode(frame))
        self._done = end

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))
