"""Who touches whom on a triangle mesh: edges with their faces, and the faces around each vertex. Arrays of numpy."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class EdgeTable:
    """The E edges of faces [F, 3].

    ends: [E, 2] vertices, the smaller first.  of_corner: [F, 3], the edge from each corner of a face to its next.
    faces: [E, 2], the face in which the edge runs from ends[0] to ends[1], and the one where it runs back; -1 unless
    `regular`.  opposite: [E, 2], the third corner of each of them.  regular: [E] bool, exactly two faces meet at the
    edge and run along it in opposite directions.  count: number of vertices.
    """

    ends: np.ndarray
    of_corner: np.ndarray
    faces: np.ndarray
    opposite: np.ndarray
    regular: np.ndarray
    count: int

    def keys(self) -> np.ndarray:
        """One ascending integer per edge [E], `edge_keys` of its ends."""
        return edge_keys(self.ends[:, 0], self.ends[:, 1], self.count)

    def irregular_vertices(self) -> np.ndarray:
        """[V] bool: vertices at a border or where more than two faces meet at an edge."""
        flags = np.zeros(self.count, dtype=bool)
        flags[self.ends[~self.regular].reshape(-1)] = True
        return flags


def edge_keys(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """One integer [N] per undirected pair first [N], second [N] of `count` vertices."""
    return np.minimum(first, second) * count + np.maximum(first, second)


def edge_table(faces: np.ndarray, count: int) -> EdgeTable:
    """The edges of faces [F, 3] int64 over `count` vertices."""
    start = faces.reshape(-1)
    end = faces[:, [1, 2, 0]].reshape(-1)
    third = faces[:, [2, 0, 1]].reshape(-1)
    keys, inverse, uses = np.unique(edge_keys(start, end, count), return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    side = (start > end).astype(np.int64)
    per_side = np.bincount(inverse * 2 + side, minlength=2 * len(keys)).reshape(-1, 2)
    regular = (uses == 2) & (per_side == 1).all(axis=1)
    two_faces = np.full((len(keys), 2), -1, dtype=np.int64)
    opposite = np.full((len(keys), 2), -1, dtype=np.int64)
    used = np.nonzero(regular[inverse])[0]
    two_faces[inverse[used], side[used]] = used // 3
    opposite[inverse[used], side[used]] = third[used]
    ends = np.stack([keys // count, keys % count], axis=1)
    return EdgeTable(ends, inverse.reshape(-1, 3), two_faces, opposite, regular, count)


def faces_around(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces that touch each vertex: vertex v has those in listing[starts[v] : starts[v + 1]]."""
    order = np.argsort(faces.reshape(-1), kind="stable")
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(faces.reshape(-1), minlength=count), out=starts[1:])
    return starts, order // 3


def neighbour_matrix(faces: np.ndarray, count: int):  # noqa: ANN201 - scipy is imported only here
    """Sparse symmetric [V, V] matrix with a one for each pair of vertices that share an edge."""
    from scipy import sparse

    start, end = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    rows, columns = np.concatenate([start, end]), np.concatenate([end, start])
    matrix = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    matrix.data[:] = 1.0
    return matrix
