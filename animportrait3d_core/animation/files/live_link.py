"""ARKit shapes as CSV: Live Link Face, and tables whose columns are named alike."""

from __future__ import annotations

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
_TIMECODE = re.compile(r"(\d{1,4}):(\d{1,2}):(\d{1,2})[:;](\d{1,3}(?:\.\d+)?)$")


def read_csv(path: Path, fps: float | None) -> ArkitTrack:
    """The track of a table with a column for each shape.

    fps: None reads it off the time codes (`HH:MM:SS:frame.part`), else 60. Frames that the recorder dropped are filled
    by their time codes. The columns of the eyes' rotations are not needed: the shapes say where the eyes look.
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
    _check_widths(path, rows)
    weights, notes = track_weights(
        f"read_motion: '{path.name}'", [{shape: row[index] for shape, index in shapes} for row in frames]
    )
    head = _head(path, frames, {name.strip().lower(): index for name, index in columns.items()})
    places, rate = _places(frames, columns.get("Timecode"), fps)
    if places is not None:
        lost = places[-1] + 1 - len(places)
        notes += (f"{lost} dropped frames were filled by their time codes.",) if lost else ()
        weights = _spread(weights, places)
        head = None if head is None else _spread(head, places)
    return ArkitTrack(weights, rate, head, notes)


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


def _check_widths(path: Path, rows: list[list[str]]) -> None:
    for number, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):
            raise InvalidInput(
                f"read_motion: '{path}': frame {number} has {len(row)} columns, the header {len(rows[0])}; the file is "
                "cut short or damaged."
            )


def _head(path: Path, frames: list[list[str]], columns: dict[str, int]) -> Tensor | None:
    """Rotations [T, 3] as axis-angle, or None where the table has none."""
    if not all(name in columns for name in HEAD_COLUMNS):
        return None
    try:
        angles = torch.tensor([[float(row[columns[name]]) for name in HEAD_COLUMNS] for row in frames])
    except ValueError as error:
        raise InvalidInput(f"read_motion: '{path}': the head's rotation is no number ({error}).") from error
    if not bool((angles.abs() <= 2 * math.pi).all()):
        raise InvalidInput(f"read_motion: '{path}': the head's rotation leaves +-2 pi, expected radians.")
    pitch, yaw, roll = (axis_angle_to_matrix(angles * torch.eye(3)[k]) for k in range(3))
    return matrix_to_axis_angle(yaw @ pitch @ roll)


def _places(frames: list[list[str]], column: int | None, fps: float | None) -> tuple[list[int] | None, float]:
    """The frame number of each row counted from 0, or None where rows have no rising time codes; and the frame rate."""
    codes = [_TIMECODE.match(row[column].strip()) for row in frames] if column is not None else []
    if not codes or not all(codes):
        return None, fps or LIVE_LINK_FPS
    parts = [[float(part) for part in code.groups()] for code in codes if code is not None]
    seconds = [3600 * hours + 60 * minutes + second for hours, minutes, second, _ in parts]
    rate = fps or _rate([frame for *_, frame in parts], seconds[-1] - seconds[0])
    numbers = [round(second * rate + frame) for second, (*_, frame) in zip(seconds, parts)]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    if any(not 1 <= step <= MOST_FILLED for step in steps):
        return None, rate
    return [number - numbers[0] for number in numbers], rate


def _rate(frames: list[float], seconds: float) -> float:
    """The usual frame rate whose numbers these are; a clip of less than two seconds need not have shown the last."""
    fitting = [rate for rate in (24.0, 25.0, 30.0, 60.0) if max(frames) < rate]
    return fitting[0] if seconds >= 2 and fitting else LIVE_LINK_FPS


def _spread(values: Tensor, places: list[int]) -> Tensor:
    spread = values.new_zeros(places[-1] + 1, values.shape[1])
    spread[places] = values
    return filled(spread, places)
