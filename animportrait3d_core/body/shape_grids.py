"""Pieces that are grids of vertices: their triangles and chart coordinates, and the ramp that blends their shapes."""

from __future__ import annotations

import numpy as np


def smoothstep(low: float, high: float, value: np.ndarray | float) -> np.ndarray:
    """Cubic ramp from 0 at `low` to 1 at `high` (which may be the smaller one)."""
    share = np.clip((np.asarray(value) - low) / (high - low), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def grid_faces(ids: np.ndarray, wrap: bool, flip: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of a grid of vertex ids [rows, columns] and their chart coordinates (column, row) in 0..1.

    Unflipped, triangles are counter-clockwise for an observer who sees rows going down and columns going right.
    """
    rows, columns = ids.shape
    right = columns if wrap else columns - 1
    row_grid, column_grid = np.meshgrid(np.arange(rows - 1), np.arange(right), indexing="ij")
    i, j = row_grid.ravel(), column_grid.ravel()
    corners = {"a": (i, j), "b": (i, j + 1), "c": (i + 1, j), "d": (i + 1, j + 1)}
    ends = columns if wrap else columns - 1
    triangles, uvs = [], []
    for order in ("acb", "bcd"):
        points = [corners[k] for k in (reversed(order) if flip else order)]
        triangles.append(np.stack([ids[r, c % columns] for r, c in points], axis=1))
        uvs.append(np.stack([np.stack([c / ends, 1 - r / (rows - 1)], axis=-1) for r, c in points], axis=1))
    faces, corner_uvs = np.concatenate(triangles), np.concatenate(uvs)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return faces[whole], corner_uvs[whole]


def fan_faces(center: int, ring: np.ndarray, flip: bool = False) -> np.ndarray:
    """Triangles from a centre to a closed ring of ids [m]."""
    following = np.roll(ring, -1)
    columns = [np.full(len(ring), center), following, ring] if flip else [np.full(len(ring), center), ring, following]
    return np.stack(columns, axis=1)
