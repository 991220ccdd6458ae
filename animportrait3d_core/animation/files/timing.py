"""When the rows of a recording were taken, by time codes or times: numbers of frames, and frames per second."""

from __future__ import annotations

import cmath
import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from statistics import median_high

from torch import Tensor

from ..arkit.frames import filled

RATES = (10.0, 12.0, 15.0, 20.0, 24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 90.0, 100.0, 120.0, 240.0)
LIVE_LINK_FPS = 60.0
MOST_FILLED = 60  # frames in a row
DAY = 86400.0  # seconds
UNITS = (1.0, 1e3, 1e6, 1e9)
"""Of times: how many are a second."""
SLOWEST, FASTEST = 4.0, 300.0
"""Frames per second that a recording may have. No two units fit the same steps."""
SAME_RATE = 0.03
TIME_NAME = re.compile(r"(media)?(time|timestamp|t|seconds|milliseconds)(s|sec|seconds|ms|milliseconds|us|ns)?")
"""Of a column or an entry, in small letters and digits alone."""
_TIMECODE = re.compile(r"(\d{1,4}):(\d{1,2}):(\d{1,2})[:;](\d{1,3}(?:\.\d+)?)")


@dataclasses.dataclass(frozen=True)
class Timing:
    """places: number of the frame of each row, from 0, each its own.  fps: frames per second.  notes: for the user."""

    places: list[int]
    fps: float
    notes: tuple[str, ...] = ()

    def spread(self, values: Tensor) -> Tensor:
        """Rows [R, n] as frames [T, n]; those that were dropped lie on straight lines between their neighbours."""
        spread = values.new_zeros(self.places[-1] + 1, values.shape[1])
        spread[self.places] = values
        return filled(spread, self.places)


def plain_name(name: str) -> str:
    """A name in small letters and digits alone.

    >>> plain_name(" Time_Code")
    'timecode'
    """
    return re.sub("[^a-z0-9]", "", name.lower())


def is_time(name: str) -> bool:
    """Whether a column or entry of that name holds times.

    >>> is_time("timestamp_ms"), is_time("Timecode")
    (True, False)
    """
    return TIME_NAME.fullmatch(plain_name(name)) is not None


def by_rows(rows: int, fps: float | None, usual: float) -> Timing:
    """Each row is a frame. fps: None if nobody knows; then the usual rate of the format is taken, and told."""
    told = f"The file does not say its frames per second: {usual:g} were taken; set them where that is wrong."
    return Timing(list(range(rows)), fps or usual, () if fps else (told,))


def by_timecodes(codes: Sequence[str], fps: float | None) -> Timing | None:
    """Of time codes `HH:MM:SS:frame.part`; None where one of them is none. fps: None reads it off them."""
    found = [_TIMECODE.fullmatch(code.strip().replace(",", ".")) for code in codes]
    if not found or not all(found):
        return None
    parts = [[float(part) for part in code.groups()] for code in found if code is not None]
    seconds = _unwrapped([3600 * hours + 60 * minutes + second for hours, minutes, second, _ in parts])
    base = _numbers_per_second([number for *_, number in parts], seconds[-1] - seconds[0], fps)
    rows = _rows_per_number(seconds, base)
    counts = [rows * (second * base + number) for second, (*_, number) in zip(seconds, parts)]
    return _placed(counts, fps or rows * base, "time codes")


def by_times(times: Sequence[float]) -> Timing | None:
    """Of times from anywhere on, in seconds or thousandths, millionths, billionths of them; None where they are of no
    use."""
    steps = [after - before for before, after in itertools.pairwise(times)]
    step = median_high(steps) if steps and all(math.isfinite(value) for value in times) else 0.0
    unit = next((unit for unit in UNITS if step > 0 and SLOWEST <= unit / step <= FASTEST), None)
    if unit is None:
        return None
    rate = _usual_rate(unit / step)
    return _placed([(time - times[0]) / unit * rate for time in times], rate, "times")


def _usual_rate(found: float) -> float:
    """The usual rate that is about as large, or else a round one: times are rounded, to whole milliseconds mostly."""
    near = min(RATES, key=lambda rate: abs(rate - found))
    return near if abs(near / found - 1) < SAME_RATE else round(found, 2)


def _placed(counts: list[float], fps: float, what: str) -> Timing:
    places = _numbered(counts)
    if places is None:
        told = f"The {what} jump or run back: each row was taken for one frame."
        return Timing(list(range(len(counts))), fps, (told,))
    lost = places[-1] + 1 - len(places)
    return Timing(places, fps, (f"{lost} dropped frames were filled by their {what}.",) if lost else ())


def _unwrapped(seconds: list[float]) -> list[float]:
    """Times of day that go on rising past midnight."""
    days = itertools.accumulate(float(after < before - DAY / 2) for before, after in itertools.pairwise(seconds))
    return [seconds[0], *(second + DAY * day for second, day in zip(seconds[1:], days))]


def _numbers_per_second(numbers: list[float], seconds: float, fps: float | None) -> float:
    """How many numbers a time code has in a second: the usual rate that these show, once a second was ended; before
    that what the user says, or the rate of Live Link Face."""
    fitting = [rate for rate in RATES if max(numbers) < rate]
    if fps is not None and max(numbers) < fps:
        return fps
    return fitting[0] if fitting and (seconds >= 1 or fitting[0] > LIVE_LINK_FPS) else LIVE_LINK_FPS


def _rows_per_number(seconds: list[float], base: float) -> int:
    """Rows that share a number, where time codes are coarser than the recording; by its whole seconds."""
    counts = collections.Counter(seconds)
    whole = [counts[second] for second in sorted(counts)[1:-1]]
    return max(1, round(median_high(whole) / base)) if whole else 1


def _numbered(counts: list[float]) -> list[int] | None:
    """Times in frames to numbers of frames from 0 on, each its own; None where times jump or run back.

    Recorders stamp parts of frames, which shake: they are rounded about the part that is usual.
    """
    usual = cmath.phase(sum(cmath.exp(2j * math.pi * count) for count in counts)) / (2 * math.pi)
    numbers = [math.floor(count - usual + 0.5) for count in counts]
    if any(not 0 <= after - before <= MOST_FILLED for before, after in itertools.pairwise(numbers)):
        return None
    return list(itertools.accumulate((number - numbers[0] for number in numbers), lambda last, own: max(last + 1, own)))
