"""The pieces of the bust beside the skin are grids; this file says what a piece is and triangulates grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LABELS = ("skin", "lid_rim", "mouth_bag", "teeth", "gum", "tongue", "eyeball", "ear")


@dataclass(frozen=True)
class Part:
    """One piece: n own vertices, faces over all vertices of the bust, and how it is textured and carried.

    closed, opened: [n, 3] mm, lids down and lids open.  faces: [F, 3] indices into the whole bust, wound outward.
    corner_uvs: [F, 3, 2] in the chart's own 0..1.  jaw: [n] weight of the jaw joint.  joint: 'blend' (head with jaw
    weights), 'head', 'jaw', 'left_eye' or 'right_eye'.  follows: [n] skin vertex whose expression it copies, and
    follow_share: [n] how much of it (0 = none).
    """

    name: str
    label: str
    chart: str
    joint: str
    closed: np.ndarray
    opened: np.ndarray
    faces: np.ndarray
    corner_uvs: np.ndarray
    jaw: np.ndarray
    follows: np.ndarray
    follow_share: np.ndarray


def still_part(
    name: str, label: str, chart: str, joint: str, points: np.ndarray, grid: tuple[np.ndarray, np.ndarray]
) -> Part:
    """A part that no expression moves: rigid to one joint. `grid` is (faces, corner_uvs)."""
    count = len(points)
    zeros = np.zeros(count)
    jaw = np.ones(count) if joint == "jaw" else zeros
    return Part(name, label, chart, joint, points, points, *grid, jaw, zeros.astype(np.int64), zeros)


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
