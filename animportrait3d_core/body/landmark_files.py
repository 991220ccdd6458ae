"""Landmark files: 68 points of a mesh, as JSON beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import InvalidInput
from ..files import json_of_file, require_file
from ..landmarks import NUM_FACE_LANDMARKS
from .landmarks import Landmarks

LAYOUT = f'{{"landmarks": [[x, y, z], ...]}} with {NUM_FACE_LANDMARKS} points in iBUG order'


def read_landmarks(path: str | Path) -> Landmarks:
    """Landmarks in space [68, 3], in the coordinates of the mesh file they belong to.

    Raises `MissingModelFile` without the file and `InvalidInput` if it does not hold 68 finite points.
    """
    where = "read_landmarks"
    path = require_file(where, path, f"Expected a JSON file {LAYOUT}, named like the mesh.")
    try:
        content = json_of_file(path)
    except ValueError as error:
        raise InvalidInput(f"{where}: '{path}' is not JSON ({error}); expected {LAYOUT}.") from error
    if not isinstance(content, dict) or "landmarks" not in content:
        keys = ", ".join(repr(str(key)[:40]) for key in list(content)[:6]) if isinstance(content, dict) else ""
        raise InvalidInput(
            f"{where}: '{path}' has no 'landmarks'{f' (its keys: {keys})' if keys else ''}: it seems to be of another "
            f"program; expected {LAYOUT}."
        )
    rows = content["landmarks"]
    try:
        points = torch.tensor(rows, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InvalidInput(f"{where}: '{path}' does not hold numbers as {LAYOUT} ({error}).") from error
    if list(points.shape) != [NUM_FACE_LANDMARKS, 3]:
        raise InvalidInput(f"{where}: '{path}' holds landmarks of shape {list(points.shape)}, expected {LAYOUT}.")
    return Landmarks(points_3d=points)
