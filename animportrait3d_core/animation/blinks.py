"""Blinks at random times, as people do: quick to close, slower to open, never two at once."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..errors import InvalidInput


@dataclasses.dataclass(frozen=True)
class BlinkSettings:
    """How often and how fast."""

    per_minute: float = 15.0
    """Mean number; people at rest blink 10 to 20 times."""
    closing_seconds: float = 0.08
    closed_seconds: float = 0.04
    opening_seconds: float = 0.16
    rest_seconds: float = 0.6
    """Least time between the end of one and the start of the next."""

    def __post_init__(self) -> None:
        times = (self.closing_seconds, self.closed_seconds, self.opening_seconds, self.rest_seconds)
        most = 60 / sum(times) if min(times) >= 0 and sum(times) > 0 else 0.0
        if not 0 <= self.per_minute < most:
            raise InvalidInput(
                f"BlinkSettings: {self.per_minute} blinks per minute with times of {times} seconds; expected 0 to "
                f"below {most:.0f}, and times of at least 0."
            )


def blink_curve(frames: int, fps: float, generator: torch.Generator, settings: BlinkSettings) -> Tensor:
    """How far the lids close [frames], 0 open to 1 closed, with pauses drawn from an exponential distribution.

    Each blink is closed in at least one frame, however few frames there are per second.
    """
    amount = torch.zeros(frames)
    if settings.per_minute == 0:
        return amount
    length = settings.closing_seconds + settings.closed_seconds + settings.opening_seconds
    mean_pause = 60 / settings.per_minute - length - settings.rest_seconds
    times = torch.arange(frames, dtype=torch.float64) / fps
    start = 0.0
    while True:
        drawn = float(torch.rand((), generator=generator, dtype=torch.float64))
        start += settings.rest_seconds - mean_pause * math.log1p(-drawn)
        closed = start + settings.closing_seconds + settings.closed_seconds / 2
        if closed > frames / fps:
            return amount
        amount = torch.maximum(amount, _blink(times - start, settings).float())
        amount[min(frames - 1, round(closed * fps))] = 1.0
        start += length


def _blink(since: Tensor, settings: BlinkSettings) -> Tensor:
    """One blink at times since its start, in seconds."""
    closing = since / max(settings.closing_seconds, 1e-9)
    opening = (since - settings.closing_seconds - settings.closed_seconds) / max(settings.opening_seconds, 1e-9)
    share = torch.minimum(closing, 1 - opening).clamp(0, 1)
    return 3 * share**2 - 2 * share**3
