"""ARKit shapes as JSON, in the layouts of trackers and of audio-driven faces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...files import json_of_file, require_file
from ..arkit.face_landmarks import rotation_of_matrix
from ..arkit.frames import filled, track_weights
from ..arkit.track import ArkitTrack
from .timing import Timing, by_rows, by_times, is_time

JSON_FPS = 30.0
MOST_TIME = 1e20
MOST_BYTES = 1 << 28
LAYOUT = (
    'Expected a list of frames {"jawOpen": 0.3, ...}, or {"fps": 30, "frames": [...]} with such frames, with '
    '"blendshapes" or "faceBlendshapes" as MediaPipe has them, or with "weights" in the order of "names".'
)


CATEGORY_KEYS = ("categoryName", "category_name")
FACE_KEYS = ("blendshapes", "blendShapes", "faceBlendshapes", "face_blendshapes", "categories")
MATRIX_KEYS = ("facialTransformationMatrixes", "facial_transformation_matrixes")
"""MediaPipe's names in JavaScript and in Python: what they hold is a list with an entry per face."""


def read_json(path: Path, fps: float | None) -> ArkitTrack:
    """The track of a JSON file; fps: None takes the file's own ("fps", or in "metadata"), or that of the times of its
    frames ("timestamp", "time"), else 30."""
    where = f"read_motion: '{path}'"
    path = require_file("read_motion", path)
    if path.stat().st_size > MOST_BYTES:
        raise InvalidInput(f"{where} has {path.stat().st_size >> 20} MiB, expected at most 256.")
    try:
        content = json_of_file(path)
    except (ValueError, OSError) as error:
        raise InvalidInput(f"{where} is not JSON ({error}). {LAYOUT}") from error
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list) or not frames:
        raise InvalidInput(f"{where} holds no list of frames. {LAYOUT}")
    names = content.get("names") if isinstance(content, dict) else None
    weights, notes = track_weights(where, [_shapes(where, frame, names) for frame in frames])
    timing = _timing(frames, fps or _own_rate(where, content))
    head = _head(where, frames)
    head = None if head is None else timing.spread(head)
    return ArkitTrack(timing.spread(weights), timing.fps, head, notes + timing.notes)


def _shapes(where: str, frame: Any, names: Any) -> Mapping[str, object] | None:
    """Strengths by name of one frame, whatever the program; None without a face."""
    if isinstance(frame, list):  # the host's faces of a frame, or MediaPipe's categories
        for key in CATEGORY_KEYS:
            if all(isinstance(entry, dict) and key in entry for entry in frame):
                return {str(entry[key]): entry.get("score") for entry in frame}
        return _shapes(where, frame[0] if frame else None, names)
    if not isinstance(frame, dict):
        if frame is None:
            return None
        raise InvalidInput(f"{where}: a frame is a {type(frame).__name__}. {LAYOUT}")
    if isinstance(names, list) and isinstance(frame.get("weights"), list):
        values = frame["weights"]
        if len(values) != len(names):
            raise InvalidInput(f"{where}: a frame has {len(values)} weights for {len(names)} names, expected as many.")
        return dict(zip((str(name) for name in names), values))
    for key in FACE_KEYS:
        if key in frame:
            return _shapes(where, frame[key], names)
    return frame


def _timing(frames: list[Any], fps: float | None) -> Timing:
    """By the rate, or by the times of the frames, or by the usual rate."""
    times = [_time(frame) for frame in frames] if fps is None else [None]
    known = [time for time in times if time is not None]
    return (by_times(known) if len(known) == len(frames) else None) or by_rows(len(frames), fps, JSON_FPS)


def _time(frame: Any) -> float | None:
    """Of the entry that holds a time."""
    if not isinstance(frame, dict):
        return None
    values = (value for name, value in frame.items() if is_time(name))
    return next((value for value in values if isinstance(value, int | float) and abs(value) < MOST_TIME), None)


def _own_rate(where: str, content: Any) -> float | None:
    metadata = content.get("metadata") if isinstance(content, dict) else None
    found = content.get("fps") if isinstance(content, dict) else None
    found = metadata.get("fps") if found is None and isinstance(metadata, dict) else found
    if found is None:
        return None
    if not isinstance(found, int | float) or not 0 < found <= 1000:
        raise InvalidInput(f"{where}: its fps are {str(found)[:40]!r}, expected a number of 0 to 1000.")
    return float(found)


def _head(where: str, frames: list[Any]) -> Tensor | None:
    """Rotations [T, 3] of the frames that carry a matrix of the head, the others filled; None if none does."""
    faces = [frame[0] if isinstance(frame, list) and frame else frame for frame in frames]
    matrices = [_matrix(face) if isinstance(face, dict) else None for face in faces]
    present = [index for index, matrix in enumerate(matrices) if matrix is not None]
    if not present:
        return None
    head = torch.zeros(len(frames), 3)
    for index in present:
        head[index] = rotation_of_matrix(where, matrices[index])
    return filled(head, present)


def _matrix(face: Mapping[str, Any]) -> Any:
    """The host's `transformation_matrix`, or MediaPipe's of the first face, by rows; None without one."""
    found = face.get("transformation_matrix")
    for key in MATRIX_KEYS:
        if found is None and isinstance(face.get(key), list) and face[key]:
            found = face[key][0]
    if not isinstance(found, dict):
        return found
    values = found.get("data")  # of JavaScript: by columns
    return [values[row::4] for row in range(4)] if isinstance(values, list) and len(values) == 16 else values or []
