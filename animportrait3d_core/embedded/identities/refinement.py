"""Splitting chosen triangles of a mesh without cracks, for exports whose colours lie at the vertices."""

from __future__ import annotations

import numpy as np


def split_faces(
    vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split every chosen face into four at its edges' midpoints; neighbours are split along the shared edges.

    vertices [V, 3], faces [F, 3], uvs [F, 3, 2], chosen [F] bool. Returns new vertices, faces, uvs, and the
    face that each new one lies in [F'].
    """
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1), axis=-1)
    key = edges[..., 0] * np.int64(len(vertices)) + edges[..., 1]
    split_keys = np.unique(key[chosen])
    is_split = np.isin(key, split_keys)
    middle = len(vertices) + np.searchsorted(split_keys, key)
    ends = np.stack([split_keys // len(vertices), split_keys % len(vertices)], axis=1)
    points = np.concatenate([vertices, vertices[ends].mean(axis=1)])
    half = 0.5 * (uvs + np.roll(uvs, -1, axis=1))
    count = is_split.sum(axis=1)
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(rows: np.ndarray, start: np.ndarray, pattern: tuple[tuple[int, int, int], ...]) -> None:
        # Corners 0..2 are the face's own from `start` on, 3..5 the midpoints of the edges that follow them.
        turn = (start[:, None] + np.arange(3)) % 3
        ids = np.concatenate([np.take_along_axis(a[rows], turn, 1) for a in (faces, middle)], axis=1)
        places = [np.take_along_axis(a[rows], turn[..., None], 1) for a in (uvs, half)]
        spots = np.concatenate(places, axis=1)
        for triangle in pattern:
            pieces.append((ids[:, triangle], spots[:, triangle], rows))

    add(np.flatnonzero(count == 0), np.zeros((count == 0).sum(), int), ((0, 1, 2),))
    rows = np.flatnonzero(count == 1)
    add(rows, np.argmax(is_split[rows], axis=1), ((0, 3, 2), (3, 1, 2)))
    rows = np.flatnonzero(count == 2)
    add(rows, (np.argmin(is_split[rows], axis=1) + 1) % 3, ((0, 3, 2), (3, 4, 2), (3, 1, 4)))
    rows = np.flatnonzero(count == 3)
    add(rows, np.zeros(len(rows), int), ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)))
    new_faces, new_uvs, parent = (np.concatenate([piece[k] for piece in pieces]) for k in range(3))
    return points, new_faces, new_uvs, parent
