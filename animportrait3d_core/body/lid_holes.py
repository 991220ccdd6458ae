"""Lids of surfaces whose eyes are holes.

Eyeballs are often meshes of their own, or missing. Then the skin ends along the lids, and the border of the hole says
where they are better than any picture of it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..landmarks import LEFT_EYE, RIGHT_EYE
from ..meshes import Mesh
from .landmarks import outer_eye_distance
from .surface_parts import border_loops

_NEAR = 0.35  # of the outer-eye distance: how far from the lids' middle a border is looked for
_WIDTH = (0.18, 0.45)  # of an eye's hole, over the outer-eye distance
_LEAST_HEIGHT, _MOST_HEIGHT = 0.12, 0.85  # over the hole's width
_MOST_OFF = 0.10  # of the outer-eye distance: mean distance of detected lids from the border that is theirs
_UNEVEN = 1.3  # how many times as wide as the other eye's a hole may be
_LEAST_VERTICES = 8
_MOST_COMPARED = 400
_FACING = 0.3  # cosine above which faces at a border count as lying inside of it
_SAME_PLACE = 1e-4  # of the outer-eye distance


@dataclasses.dataclass(frozen=True)
class _Border:
    """points: [n, 3], one after the other around the hole.  width, height: of the hole, world units."""

    points: np.ndarray
    width: float
    height: float


def lids_at_holes(mesh: Mesh, points: Tensor) -> Tensor | None:
    """Lids [12, 3] (landmarks 36 to 47) on the borders of two holes of the mesh near those of `points` [68, 3].

    None unless there is such a hole for each eye, both about equally wide. The corners are the two places of a border
    that are farthest apart, the others lie at thirds of the way between them.
    """
    unit = float(outer_eye_distance(points))
    found = []
    for part in (RIGHT_EYE, LEFT_EYE):
        lids = points[part].double().cpu().numpy()
        borders = [border for border in _borders_near(mesh, lids.mean(0), unit) if _is_like_an_eye(border, unit)]
        off = [_distances(border.points, lids).mean() for border in borders]
        if not off or min(off) > _MOST_OFF * unit:
            return None
        found.append((borders[int(np.argmin(off))], lids))
    widths = [border.width for border, _ in found]
    if max(widths) > _UNEVEN * min(widths):
        return None
    return torch.from_numpy(np.concatenate([_lids_on(border.points, lids) for border, lids in found])).to(points)


def _is_like_an_eye(border: _Border, unit: float) -> bool:
    """Whether an eye may be as wide and high."""
    low, high = _WIDTH
    flat = border.height / border.width
    return low * unit < border.width < high * unit and _LEAST_HEIGHT < flat < _MOST_HEIGHT


def _borders_near(mesh: Mesh, center: np.ndarray, unit: float) -> list[_Border]:
    """Borders of holes of the mesh about a point, each a single loop; those of cards and other pieces are none."""
    vertices, faces = mesh.vertices.double().cpu().numpy(), mesh.faces.cpu().numpy()
    near = np.linalg.norm(vertices - center, axis=1) < _NEAR * unit
    some = faces[near[faces].any(axis=1)]
    kept, places = np.unique(some, return_inverse=True)
    # Vertices at one place are one: textures cut surfaces apart.
    cells = np.round(vertices[kept] / (_SAME_PLACE * unit)).astype(np.int64)
    _, first, same = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    welded, positions = same.reshape(-1)[places.reshape(some.shape)], vertices[kept[first]]
    welded = welded[(welded != np.roll(welded, 1, axis=1)).all(axis=1)]
    normals = np.cross(*(positions[welded[:, corner]] - positions[welded[:, 0]] for corner in (1, 2)))
    found = []
    for loop in border_loops(welded):
        points = positions[loop]
        inside = (np.linalg.norm(points - center, axis=1) < _NEAR * unit).all()
        beside = np.isin(welded, loop).sum(axis=1) >= 2
        if len(loop) >= _LEAST_VERTICES and inside and not _is_a_patch(points, normals[beside]):
            found.append(_border_of(points))
    return found


def _is_a_patch(loop: np.ndarray, normals: np.ndarray) -> bool:
    """Whether a border [n, 3], directed as the edges of its faces are, has them inside of it, as a card's has.

    normals: [m, 3], of these faces. Seen from where it faces, a surface lies to the left of its border; where the skin
    turns inward at a hole, it faces across.
    """
    offset = loop - loop.mean(axis=0)
    area = np.cross(offset, np.roll(offset, -1, axis=0)).sum(axis=0)
    facing = normals.sum(axis=0) / max(float(np.linalg.norm(normals, axis=1).sum()), 1e-18)
    return bool(area @ facing > _FACING * np.linalg.norm(area))


def _corners(points: np.ndarray) -> tuple[int, int]:
    """Which two of the points [n, 3] are farthest apart, of a fine border about."""
    step = -(-len(points) // _MOST_COMPARED)
    some = points[::step]
    apart = np.linalg.norm(some[:, None] - some[None], axis=-1)
    first, second = np.unravel_index(int(apart.argmax()), apart.shape)
    return int(first) * step, int(second) * step


def _border_of(points: np.ndarray) -> _Border:
    first, second = _corners(points)
    chord = points[second] - points[first]
    width = float(np.linalg.norm(chord))
    along = ((points - points[first]) @ chord / width**2)[:, None]
    across = points - points[first] - along * chord
    low, high = _corners(across)
    return _Border(points, width, float(np.linalg.norm(across[high] - across[low])))


def _distances(loop: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances [m] of points [m, 3] to a closed line [n, 3]."""
    edges = np.roll(loop, -1, axis=0) - loop
    along = np.einsum("mnk,nk->mn", points[:, None] - loop, edges) / np.maximum((edges**2).sum(1), 1e-18)
    nearest = loop + np.clip(along, 0, 1)[..., None] * edges
    return np.linalg.norm(nearest - points[:, None], axis=-1).min(axis=1)


def _lids_on(loop: np.ndarray, lids: np.ndarray) -> np.ndarray:
    """Six landmarks [6, 3] on a border, in the order of `lids` [6, 3]: corner, two above, corner, two below."""
    ends = list(_corners(loop))
    if np.linalg.norm(loop[ends[0]] - lids[0]) > np.linalg.norm(loop[ends[1]] - lids[0]):
        ends.reverse()
    first, second = ends
    ways = [_way(loop, first, second), _way(loop[::-1], len(loop) - 1 - first, len(loop) - 1 - second)]
    up = lids[1:3].mean(0) - lids[4:6].mean(0)
    upper, lower = sorted(ways, key=lambda way: -float(way.mean(0) @ up))
    return np.stack([
        loop[first], _at(upper, 1 / 3), _at(upper, 2 / 3), loop[second], _at(lower, 2 / 3), _at(lower, 1 / 3)
    ])  # fmt: skip


def _way(loop: np.ndarray, first: int, second: int) -> np.ndarray:
    """The part of a closed line from one of its points to another."""
    turned = np.roll(loop, -first, axis=0)
    return turned[: (second - first) % len(loop) + 1]


def _at(way: np.ndarray, share: float) -> np.ndarray:
    """Where a way is a share of the distance from its first to its last point along the straight line between them."""
    chord = way[-1] - way[0]
    along = np.maximum.accumulate((way - way[0]) @ chord / (chord @ chord))
    return np.stack([np.interp(share, along, way[:, axis]) for axis in range(3)])
