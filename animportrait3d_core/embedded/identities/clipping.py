"""Cutting a triangle mesh along the zero line of a scalar, so that a border is a smooth curve and not a saw.

Every cut edge gets exactly one new vertex that its triangles share, so a cut leaves no cracks.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Clipped:
    """The part of a mesh where a scalar is positive.

    faces: [F, 3] int64 into the new vertices.  first, second: [V] int64 old vertices, share: [V] float64 in 0..1; new
    vertex = old[first] * (1 - share) + old[second] * share, kept vertices have share 0.
    border: [E, 2] int64, directed edges along the cut, the kept side on their left as seen from outside.
    """

    faces: np.ndarray
    first: np.ndarray
    second: np.ndarray
    share: np.ndarray
    border: np.ndarray

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Per-vertex values [old V, ...] carried over to the new vertices."""
        share = self.share.reshape((-1,) + (1,) * (values.ndim - 1))
        return values[self.first] * (1 - share) + values[self.second] * share


def clip_faces(faces: np.ndarray, scalar: np.ndarray) -> Clipped:
    """Keep the side of the mesh where `scalar` [V] > 0; triangles that the zero line crosses are cut (marching
    triangles). faces: [F, 3] int. The kept vertices are renumbered; unused ones are dropped.
    """
    scalar = np.where(scalar == 0, -1e-12, scalar.astype(np.float64))
    inside = scalar[faces] > 0
    count = inside.sum(1)
    whole = faces[count == 3]
    one = _rotate_first(faces[count == 1], inside[count == 1], wanted=True)
    two = _rotate_first(faces[count == 2], inside[count == 2], wanted=False)
    a, b, c = one.T
    p, q, r = two.T  # p outside, q and r inside
    cut_edges = np.concatenate([_edges(a, b), _edges(a, c), _edges(p, q), _edges(p, r)])
    unique, inverse = np.unique(cut_edges, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    parts = [len(scalar) + part for part in np.split(inverse, np.cumsum([len(one), len(one), len(two)]))]
    ab, ac, pq, pr = parts
    kept = np.concatenate([whole, np.stack([a, ab, ac], 1), np.stack([pq, q, r], 1), np.stack([pq, r, pr], 1)])
    border = np.concatenate([np.stack([ab, ac], 1), np.stack([pr, pq], 1)])
    low, high = unique.T if len(unique) else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    share = scalar[low] / (scalar[low] - scalar[high])
    first = np.concatenate([np.arange(len(scalar)), low])
    second = np.concatenate([np.arange(len(scalar)), high])
    shares = np.concatenate([np.zeros(len(scalar)), share])
    used = np.zeros(len(first), dtype=bool)
    used[kept.reshape(-1)] = True
    renumber = np.cumsum(used) - 1
    return Clipped(renumber[kept], first[used], second[used], shares[used], renumber[border])


def _edges(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Undirected edges [N, 2], smaller index first, so that both triangles of an edge find the same cut vertex."""
    return np.stack([np.minimum(start, end), np.maximum(start, end)], axis=1)


def _rotate_first(faces: np.ndarray, inside: np.ndarray, wanted: bool) -> np.ndarray:
    """Turn each triangle so that its single corner with `inside` == `wanted` comes first; winding is kept."""
    first = np.argmax(inside == wanted, axis=1)
    order = (first[:, None] + np.arange(3)) % 3
    return np.take_along_axis(faces, order, axis=1)


def border_chains(border: np.ndarray) -> list[np.ndarray]:
    """Directed border edges [E, 2] joined into chains of vertex indices; a closed chain repeats its first vertex."""
    following = {int(start): int(end) for start, end in border}
    ends = set(following.values())
    chains = []
    while following:
        open_starts = [start for start in following if start not in ends]
        start = min(open_starts) if open_starts else min(following)
        chain = [start]
        while chain[-1] in following:
            chain.append(following.pop(chain[-1]))
        ends.difference_update(chain[1:])
        chains.append(np.array(chain))
    return chains
