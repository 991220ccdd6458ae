"""ARKit shapes as CSV: Live Link Face, and tables whose columns are named alike."""

from __future__ import annotations

import codecs
import collections
import csv
import io
import math
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...files import require_file
from ...rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..arkit.frames import filled, shape_name, track_weights
from ..arkit.track import ArkitTrack
from .timing import LIVE_LINK_FPS, Timing, by_rows, by_timecodes, by_times, is_time, plain_name

HEAD_COLUMNS = ("headpitch", "headyaw", "headroll")
"""Radians about x (to the subject's left), y (up) and z (forward)."""

MOST_BYTES = 1 << 28
SEPARATORS = ",;\t"
"""Spreadsheets write semicolons where decimals have commas, and tabs as text."""


def read_csv(path: Path, fps: float | None) -> ArkitTrack:
    """The track of a table with a column for each shape.

    fps: None reads it off the time codes (`HH:MM:SS:frame.part`) or a column of times, else 60. Frames that the
    recorder dropped are filled by these, and rows without numbers, where no face was seen, between their neighbours.
    Columns stand in any order, between commas, semicolons or tabs; decimals have a point or a comma. Those of the eyes'
    rotations are not needed: the shapes say where the eyes look.
    """
    rows = _rows(path)
    shapes = _shapes(path, rows[0])
    frames = rows[1:]
    seen = [any(row[index].strip() for index in shapes.values() if index < len(row)) for row in frames]
    _check_widths(path, rows, seen)
    faces = [
        {shape: row[index].replace(",", ".") for shape, index in shapes.items()} if face else None
        for row, face in zip(frames, seen)
    ]
    weights, notes = track_weights(f"read_motion: '{path.name}'", faces)
    columns = {plain_name(name): index for index, name in enumerate(rows[0])}
    head = _head(path, frames, seen, columns)
    timing = _timing(frames, columns, fps)
    head = None if head is None else timing.spread(head)
    return ArkitTrack(timing.spread(weights), timing.fps, head, notes + timing.notes)


def _rows(path: Path) -> list[list[str]]:
    path = require_file("read_motion", path)
    if path.stat().st_size > MOST_BYTES:
        raise InvalidInput(f"read_motion: '{path}' has {path.stat().st_size >> 20} MiB, expected at most 256.")
    try:
        data = path.read_bytes()
        # Spreadsheets write "Unicode text" in 16 bits.
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=_separator(text)) if any(row)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InvalidInput(
            f"read_motion: '{path}' is not a table ({error}); expected CSV of Live Link Face."
        ) from error
    if len(rows) < 2:
        raise InvalidInput(
            f"read_motion: '{path}' has {max(0, len(rows) - 1)} frames below its header, expected 1 or more."
        )
    return rows


def _separator(text: str) -> str:
    """What stands most often in the first line."""
    header = text.lstrip().partition("\n")[0]
    return max(SEPARATORS, key=header.count)


def _shapes(path: Path, header: list[str]) -> dict[str, int]:
    """The column of each shape."""
    found = [(shape, index) for index, name in enumerate(header) if (shape := shape_name(name.strip()))]
    if not found:
        raise InvalidInput(
            f"read_motion: '{path}' has no column of an ARKit shape (its columns: {', '.join(header[:6])[:200]}); "
            "expected a header as Live Link Face writes it: Timecode, BlendShapeCount, EyeBlinkLeft, ..."
        )
    twice = [shape for shape, count in collections.Counter(shape for shape, _ in found).items() if count > 1]
    if twice:
        names = ", ".join(twice[:6])
        raise InvalidInput(f"read_motion: '{path}' has more than one column of {names}; take out what is not meant.")
    return dict(found)


def _check_widths(path: Path, rows: list[list[str]], seen: list[bool]) -> None:
    for number, (row, face) in enumerate(zip(rows[1:], seen)):
        if face and len(row) != len(rows[0]):
            why = "the file is cut short or damaged"
            if len(row) > len(rows[0]):
                why = "if its decimals have commas, save it with semicolons between the columns"
            raise InvalidInput(
                f"read_motion: '{path}': frame {number} has {len(row)} columns, the header {len(rows[0])}; {why}."
            )


def _head(path: Path, frames: list[list[str]], seen: list[bool], columns: dict[str, int]) -> Tensor | None:
    """Rotations [T, 3] as axis-angle, or None where the table has none; filled where no face was seen. Turns that it
    lacks are 0."""
    found = {axis: columns[name] for axis, name in enumerate(HEAD_COLUMNS) if name in columns}
    if not found:
        return None
    present = [index for index, face in enumerate(seen) if face]
    angles = torch.zeros(len(frames), 3)
    try:
        for axis, column in found.items():
            known = [float(frames[index][column].replace(",", ".")) for index in present]
            angles[present, axis] = torch.tensor(known)
    except ValueError as error:
        raise InvalidInput(f"read_motion: '{path}': the head's rotation is no number ({error}).") from error
    if not bool((angles.abs() <= 2 * math.pi).all()):
        raise InvalidInput(f"read_motion: '{path}': the head's rotation leaves +-2 pi, expected radians.")
    pitch, yaw, roll = (axis_angle_to_matrix(angles * torch.eye(3)[k]) for k in range(3))
    return filled(matrix_to_axis_angle(yaw @ pitch @ roll), present)


def _timing(frames: list[list[str]], columns: dict[str, int], fps: float | None) -> Timing:
    """By time codes, or by times, or by the rows."""

    def cells(column: int) -> list[str]:
        return [row[column] if column < len(row) else "" for row in frames]

    timing = None
    if "timecode" in columns:
        timing = by_timecodes(cells(columns["timecode"]), fps)
    times = next((index for name, index in columns.items() if is_time(name)), None)
    if timing is None and times is not None and fps is None:
        timing = _by_times(cells(times))
    return timing or by_rows(len(frames), fps, LIVE_LINK_FPS)


def _by_times(cells: list[str]) -> Timing | None:
    try:
        return by_times([float(cell.replace(",", ".")) for cell in cells])
    except ValueError:
        return None
