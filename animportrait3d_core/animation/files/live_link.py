"""ARKit shapes as CSV: Live Link Face, and tables whose columns are named alike."""

from __future__ import annotations

import cmath
import csv
import io
import itertools
import math
import re
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...files import require_file
from ...rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..arkit.frames import filled, shape_name, track_weights
from ..arkit.track import ArkitTrack

LIVE_LINK_FPS = 60.0
HEAD_COLUMNS = ("headpitch", "headyaw", "headroll")
"""Radians about x (to the subject's left), y (up) and z (forward)."""

MOST_BYTES = 1 << 28
MOST_FILLED = 60  # frames in a row
DAY = 86400.0  # seconds
_TIMECODE = re.compile(r"(\d{1,4}):(\d{1,2}):(\d{1,2})[:;](\d{1,3}(?:\.\d+)?)$")


def read_csv(path: Path, fps: float | None) -> ArkitTrack:
    """The track of a table with a column for each shape.

    fps: None reads it off the time codes (`HH:MM:SS:frame.part`), else 60. Frames that the recorder dropped are filled
    by their time codes, and rows without numbers, where no face was seen, between their neighbours. The columns of the
    eyes' rotations are not needed: the shapes say where the eyes look.
    """
    rows = _rows(path)
    columns = {name: index for index, name in enumerate(rows[0])}
    shapes = [(shape, index) for name, index in columns.items() if (shape := shape_name(name.strip()))]
    if not shapes:
        raise InvalidInput(
            f"read_motion: '{path}' has no column of an ARKit shape (its columns: {', '.join(rows[0][:6])[:200]}); "
            "expected a header as Live Link Face writes it: Timecode, BlendShapeCount, EyeBlinkLeft, ..."
        )
    frames = rows[1:]
    seen = [any(row[index].strip() for _, index in shapes if index < len(row)) for row in frames]
    _check_widths(path, rows, seen)
    faces = [{shape: row[index] for shape, index in shapes} if face else None for row, face in zip(frames, seen)]
    weights, notes = track_weights(f"read_motion: '{path.name}'", faces)
    head = _head(path, frames, seen, {name.strip().lower(): index for name, index in columns.items()})
    places, rate, told = _places(frames, columns.get("Timecode"), fps)
    weights, head = _spread(weights, places), None if head is None else _spread(head, places)
    return ArkitTrack(weights, rate, head, notes + told)


def _rows(path: Path) -> list[list[str]]:
    path = require_file("read_motion", path)
    if path.stat().st_size > MOST_BYTES:
        raise InvalidInput(f"read_motion: '{path}' has {path.stat().st_size >> 20} MiB, expected at most 256.")
    try:
        rows = [row for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))) if any(row)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InvalidInput(
            f"read_motion: '{path}' is not a table ({error}); expected CSV of Live Link Face."
        ) from error
    if len(rows) < 2:
        raise InvalidInput(
            f"read_motion: '{path}' has {max(0, len(rows) - 1)} frames below its header, expected 1 or more."
        )
    return rows


def _check_widths(path: Path, rows: list[list[str]], seen: list[bool]) -> None:
    for number, (row, face) in enumerate(zip(rows[1:], seen)):
        if face and len(row) != len(rows[0]):
            raise InvalidInput(
                f"read_motion: '{path}': frame {number} has {len(row)} columns, the header {len(rows[0])}; the file is "
                "cut short or damaged."
            )


def _head(path: Path, frames: list[list[str]], seen: list[bool], columns: dict[str, int]) -> Tensor | None:
    """Rotations [T, 3] as axis-angle, or None where the table has none; filled where no face was seen."""
    if not all(name in columns for name in HEAD_COLUMNS):
        return None
    present = [index for index, face in enumerate(seen) if face]
    angles = torch.zeros(len(frames), 3)
    try:
        known = [[float(frames[index][columns[name]]) for name in HEAD_COLUMNS] for index in present]
        angles[present] = torch.tensor(known)
    except ValueError as error:
        raise InvalidInput(f"read_motion: '{path}': the head's rotation is no number ({error}).") from error
    if not bool((angles.abs() <= 2 * math.pi).all()):
        raise InvalidInput(f"read_motion: '{path}': the head's rotation leaves +-2 pi, expected radians.")
    pitch, yaw, roll = (axis_angle_to_matrix(angles * torch.eye(3)[k]) for k in range(3))
    return filled(matrix_to_axis_angle(yaw @ pitch @ roll), present)


def _places(frames: list[list[str]], column: int | None, fps: float | None) -> tuple[list[int], float, tuple[str, ...]]:
    """The frame number of each row counted from 0, the frame rate, and notes about both."""
    by_row = list(range(len(frames)))
    codes = [_TIMECODE.match(row[column].strip()) for row in frames] if column is not None else []
    if not codes or not all(codes):
        return by_row, fps or LIVE_LINK_FPS, ()
    parts = [[float(part) for part in code.groups()] for code in codes if code is not None]
    seconds = _unwrapped([3600 * hours + 60 * minutes + second for hours, minutes, second, _ in parts])
    rate = fps or _rate([frame for *_, frame in parts], seconds[-1] - seconds[0])
    places = _numbered([second * rate + frame for second, (*_, frame) in zip(seconds, parts)])
    if places is None:
        return by_row, rate, ("The time codes jump or run back: each row was taken for one frame.",)
    lost = places[-1] + 1 - len(places)
    return places, rate, (f"{lost} dropped frames were filled by their time codes.",) if lost else ()


def _unwrapped(seconds: list[float]) -> list[float]:
    """Times of day that go on rising past midnight."""
    days = itertools.accumulate(float(after < before - DAY / 2) for before, after in itertools.pairwise(seconds))
    return [seconds[0], *(second + DAY * day for second, day in zip(seconds[1:], days))]


def _numbered(counts: list[float]) -> list[int] | None:
    """Times in frames to numbers of frames from 0 on, each its own; None where times jump or run back.

    Recorders stamp parts of frames, which shake: they are rounded about the part that is usual.
    """
    usual = cmath.phase(sum(cmath.exp(2j * math.pi * count) for count in counts)) / (2 * math.pi)
    numbers = [math.floor(count - usual + 0.5) for count in counts]
    if any(not 0 <= after - before <= MOST_FILLED for before, after in itertools.pairwise(numbers)):
        return None
    return list(itertools.accumulate((number - numbers[0] for number in numbers), lambda last, own: max(last + 1, own)))


def _rate(frames: list[float], seconds: float) -> float:
    """The usual frame rate whose numbers these are; a clip of less than two seconds need not have shown the last."""
    fitting = [rate for rate in (24.0, 25.0, 30.0, 60.0) if max(frames) < rate]
    return fitting[0] if seconds >= 2 and fitting else LIVE_LINK_FPS


def _spread(values: Tensor, places: list[int]) -> Tensor:
    spread = values.new_zeros(places[-1] + 1, values.shape[1])
    spread[places] = values
    return filled(spread, places)
