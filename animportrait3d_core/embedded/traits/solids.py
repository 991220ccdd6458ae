"""Closed forms of what is worn: tubes, plates, balls and shells over the skin. Millimetres from between the eyes."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..identities.clipping import clip_faces
from ..identities.geometry import welded_normals
from ..identities.shells import grid_triangles


@dataclasses.dataclass(frozen=True)
class Solid:
    """points: [V, 3].  faces: [F, 3] outward.  follows: [V] vertex of the bust that a point moves with, or None where
    all move with the head."""

    points: np.ndarray
    faces: np.ndarray
    follows: np.ndarray | None = None


def joined(solids: list[Solid]) -> Solid:
    """Several solids that move with the head as one."""
    starts = np.cumsum([0, *(len(solid.points) for solid in solids[:-1])])
    faces = np.concatenate([solid.faces + start for solid, start in zip(solids, starts)])
    return Solid(np.concatenate([solid.points for solid in solids]), faces)


def tube(path: np.ndarray, radius: float, closed: bool = False, sides: int = 8) -> Solid:
    """A tube along points [n, 3]; closed: the last is followed by the first."""
    ahead, behind = (np.roll(path, shift, axis=0) for shift in (-1, 1))
    if not closed:
        ahead[-1], behind[0] = path[-1], path[0]
    tangent = ahead - behind
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    reference = np.where(np.abs(tangent[:, 2:]) < 0.8, [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(tangent, reference)
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(tangent, first)
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = np.cos(angle)[None, :, None] * first[:, None] + np.sin(angle)[None, :, None] * second[:, None]
    return _skinned(path[:, None] + radius * ring, wraps=closed)


def _skinned(rings: np.ndarray, wraps: bool) -> Solid:
    """Rings [n, s, 3] of points joined to a surface, its ends covered unless the last ring is followed by the first."""
    count, sides = rings.shape[:2]
    row, side = np.meshgrid(np.arange(count if wraps else count - 1), np.arange(sides), indexing="ij")
    a, b = row * sides + side, row * sides + (side + 1) % sides
    c, d = (row + 1) % count * sides + side, (row + 1) % count * sides + (side + 1) % sides
    faces = [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)]
    points = rings.reshape(-1, 3)
    if not wraps:
        ends = np.arange(sides)
        following = (ends + 1) % sides
        last = (count - 1) * sides
        faces.append(np.stack([following, ends, np.full(sides, len(points))], -1))
        faces.append(np.stack([last + ends, last + following, np.full(sides, len(points) + 1)], -1))
        points = np.concatenate([points, rings[0].mean(0)[None], rings[-1].mean(0)[None]])
    return outward(Solid(points, np.concatenate(faces)))


def outward(solid: Solid) -> Solid:
    """The closed solid with its faces turned outward: its volume is positive."""
    corners = (solid.points - solid.points.mean(0))[solid.faces]
    volume = np.einsum("fc,fc->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    return solid if volume >= 0 else dataclasses.replace(solid, faces=solid.faces[:, ::-1])


def ball(center: np.ndarray, radius: float) -> Solid:
    """A sphere."""
    polar = np.linspace(0.15, np.pi - 0.15, 9)
    path = center + radius * np.stack([0 * polar, np.cos(polar), 0 * polar], -1)
    angle = 2 * np.pi * np.arange(12) / 12
    ring = np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1)
    return _skinned(path[:, None] + radius * np.sin(polar)[:, None, None] * ring, wraps=False)


def plate(middle: np.ndarray, thickness: float) -> Solid:
    """A sheet [r, c, 3] of points with a thickness along its own normals, closed at its rim; its last column may be the
    first."""
    rows, columns = middle.shape[:2]
    sheet = grid_triangles(rows, columns)
    points = middle.reshape(-1, 3)
    count = len(points)
    index = np.arange(count).reshape(rows, columns)
    weld = index.copy()
    if np.allclose(middle[:, 0], middle[:, -1]):
        weld[:, -1] = weld[:, 0]
    normals = welded_normals(points, sheet, weld.reshape(-1))
    rim = np.concatenate([index[0], index[1:, -1], index[-1, -2::-1], index[-2:0:-1, 0]])
    after = np.roll(rim, -1)
    # The rim runs clockwise as seen from the side of the normals.
    faces = [sheet, sheet[:, ::-1] + count, np.stack([rim, after, rim + count], -1)]
    faces.append(np.stack([after, after + count, rim + count], -1))
    off = 0.5 * thickness * normals
    return Solid(np.concatenate([points + off, points - off]), np.concatenate(faces))


def shell(
    points: np.ndarray, normals: np.ndarray, faces: np.ndarray, inside: np.ndarray, thickness: np.ndarray
) -> Solid:
    """A layer over that part of faces [F, 3] of the bust where `inside` [V] is positive, cut along its zero line.

    Its outside lies `thickness` [V] off the bust's points along their normals (both [V, 3]), its border reaches down to
    them.
    """
    cut = clip_faces(faces, inside)
    base, up, height = (cut.gather(values) for values in (points, normals, thickness))
    follows = np.where(cut.share < 0.5, cut.first, cut.second)
    count = len(base)
    edges = np.concatenate([cut.faces[:, [0, 1]], cut.faces[:, [1, 2]], cut.faces[:, [2, 0]]]).astype(np.int64)
    border = edges[~np.isin(edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0])]
    rim = np.unique(border)
    lower = np.full(count, -1)
    lower[rim] = count + np.arange(len(rim))
    start, end = border.T
    skirt = [[end, start, lower[start]], [end, lower[start], lower[end]]]
    raised, sunk = base + height[:, None] * up, base[rim] - 1.0 * up[rim]
    all_faces = np.concatenate([cut.faces, *(np.stack(corners, -1) for corners in skirt)])
    return Solid(np.concatenate([raised, sunk]), all_faces, np.concatenate([follows, follows[rim]]))
