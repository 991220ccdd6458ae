"""Teeth, gums, tongue and the sack behind the lips as shapes in millimetres, in the place of the mannequin's mouth.

x to the subject's left, y up, z to the front; the lips meet near y = -75. The mannequin takes the shapes as they are,
other bodies are given them by `mouth_making`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shape_grids import fan_faces, grid_faces, smoothstep

ARCH_HALF_WIDTH, ARCH_DEPTH, ARCH_BACK, ARCH_POWER = 25.5, 46.0, 41.0, 2.25
UPPER_WIDTHS = (8.4, 6.7, 7.6, 7.0, 6.8, 9.6, 9.2)
LOWER_WIDTHS = (5.6, 6.0, 6.9, 7.1, 7.3, 10.4, 9.6)
UPPER_HEIGHTS = (10.4, 9.3, 10.0, 8.4, 7.8, 6.8, 6.0)
LOWER_HEIGHTS = (8.8, 9.0, 9.8, 8.4, 7.6, 6.6, 5.8)
UPPER_NECK_Y, LOWER_NECK_Y = -66.8, -87.2
LOWER_INSET = 2.6
# Of the mannequin's lips: from corner to corner, height where they meet, least distance of their border to the arch
MOUTH_WIDTH, SEAM_Y, LIP_GAP = 48.8, -74.3, 9.1
# Across one tooth: share of its width, outward bulge (mm), shortening of the crown (mm)
TOOTH_COLUMNS = ((0.0, -1.0, 1.5), (0.13, -0.1, 0.25), (0.5, 0.3, 0.0), (0.87, -0.1, 0.25))
# From the neck over the edge to the inner side: share of the height, depth outward as (mm, share of thickness)
TOOTH_ROWS = (
    (-0.12, -0.2, 0.0),
    (0.12, 0.4, 0.0),
    (0.5, 0.55, 0.0),
    (0.84, 0.2, 0.0),
    (0.98, -0.3, -0.15),
    (1.0, -0.2, -0.45),
    (0.9, 0.0, -0.8),
    (-0.05, 0.0, -1.0),
)
# Profile of the gum: depth outward (mm, share of thickness), height beyond the tooth neck (mm)
GUM_ROWS = (
    (-1.5, 0.0, 9.0),
    (0.5, 0.0, 5.0),
    (0.8, 0.0, 0.9),
    (-0.3, 0.0, -1.0),
    (0.0, -0.95, -0.8),
    (-0.6, -1.0, 1.0),
    (-1.0, -1.0, 8.0),
)
SACK_RINGS = 7
TONGUE_ROWS, TONGUE_SEGMENTS = 10, 16


@dataclass(frozen=True)
class GridShape:
    """points: [n, 3] mm.  faces: [F, 3] int64, wound outward.  corner_uvs: [F, 3, 2] in the chart's own 0..1."""

    points: np.ndarray
    faces: np.ndarray
    corner_uvs: np.ndarray


def arch_curve(inset: float) -> tuple[np.ndarray, np.ndarray]:
    """Dense half arch from the middle line back: points (x, z) [k, 2] in mm and outward normals [k, 2]."""
    t = np.linspace(0, np.pi / 2, 400)
    x = (ARCH_HALF_WIDTH - 0.7 * inset) * np.sin(t) ** (2 / ARCH_POWER)
    z = ARCH_BACK + (ARCH_DEPTH - inset) * np.cos(t) ** (2 / ARCH_POWER)
    curve = np.stack([x, z], axis=1)
    tangent = np.gradient(curve, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal[0] = (0.0, 1.0)
    return curve, normal


def arch_front(x: np.ndarray) -> np.ndarray:
    """z (mm) of the outer face of the upper arch at |x|."""
    share = np.clip(np.abs(x) / ARCH_HALF_WIDTH, 0, 1)
    return ARCH_BACK + ARCH_DEPTH * (1 - share**ARCH_POWER) ** (1 / ARCH_POWER)


def _tooth_columns(widths: tuple[float, ...], heights: tuple[float, ...]) -> np.ndarray:
    """Columns of the half row from the middle back: arc position, bulge, shortening, height, thickness [c, 5]."""
    columns, start = [], 0.0
    for number, (width, height) in enumerate(zip(widths, heights, strict=True)):
        thickness = float(np.interp(number, [0, 2, 3, 5], [4.2, 5.5, 6.8, 8.5]))
        for share, bulge, short in TOOTH_COLUMNS:
            columns.append((start + share * width, bulge, short, height, thickness))
        start += width
    columns.append((start, -1.0, 1.5, heights[-1], 8.5))
    table = np.array(columns)
    between = np.arange(0, len(table), len(TOOTH_COLUMNS))[1:-1]
    table[between, 3] = 0.5 * (table[between - 1, 3] + table[between + 1, 3])
    return table


def _arch_frames(table: np.ndarray, inset: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and normals (x, z) of all columns right to left, and the table in the same order."""
    curve, normal = arch_curve(inset)
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    position = np.minimum(table[:, 0] * arc[-1] / max(arc[-1], table[-1, 0]), arc[-1])
    points = np.stack([np.interp(position, arc, curve[:, k]) for k in (0, 1)], axis=1)
    normals = np.stack([np.interp(position, arc, normal[:, k]) for k in (0, 1)], axis=1)
    points[0, 0], normals[0] = 0.0, (0.0, 1.0)
    flip = np.array([-1.0, 1.0])
    return (
        np.concatenate([points[:0:-1] * flip, points]),
        np.concatenate([normals[:0:-1] * flip, normals]),
        np.concatenate([table[:0:-1], table]),
    )


def teeth_row(upper: bool) -> GridShape:
    """Fourteen teeth as one modulated strip."""
    table = _tooth_columns(UPPER_WIDTHS, UPPER_HEIGHTS) if upper else _tooth_columns(LOWER_WIDTHS, LOWER_HEIGHTS)
    points, normals, table = _arch_frames(table, 0.0 if upper else LOWER_INSET)
    neck, toward_edge = (UPPER_NECK_Y, -1.0) if upper else (LOWER_NECK_Y, 1.0)
    rows = []
    for share, depth, thick in TOOTH_ROWS:
        outside = thick > -0.5
        bulge = table[:, 1] * (1.0 if outside else -1.0) * (1.0 if share > 0 else 0.4)
        outward = depth + thick * table[:, 4] + bulge
        height = share * table[:, 3] - table[:, 2] * smoothstep(0.6, 1.0, share)
        plane = points + normals * outward[:, None]
        rows.append(np.stack([plane[:, 0], neck + toward_edge * height, plane[:, 1]], axis=1))
    vertices = np.stack(rows)
    ids = np.arange(vertices.shape[0] * vertices.shape[1]).reshape(vertices.shape[:2])
    return GridShape(vertices.reshape(-1, 3), *grid_faces(ids, False, flip=not upper))


def gum_row(upper: bool) -> GridShape:
    """Gum under one row of teeth, with papillae between the teeth."""
    table = _tooth_columns(UPPER_WIDTHS, UPPER_HEIGHTS) if upper else _tooth_columns(LOWER_WIDTHS, LOWER_HEIGHTS)
    points, normals, table = _arch_frames(table[::2], 0.0 if upper else LOWER_INSET)
    neck, away = (UPPER_NECK_Y, 1.0) if upper else (LOWER_NECK_Y, -1.0)
    gap = smoothstep(0.5, 1.5, table[:, 2])
    rows = []
    for depth, thick, beyond in GUM_ROWS:
        plane = points + normals * (depth + thick * table[:, 4] - 0.4 * gap)[:, None]
        papilla = 2.2 * gap * (abs(beyond) < 1.5)
        rows.append(np.stack([plane[:, 0], neck + away * (beyond - papilla), plane[:, 1]], axis=1))
    vertices = np.stack(rows)
    ids = np.arange(vertices.shape[0] * vertices.shape[1]).reshape(vertices.shape[:2])
    return GridShape(vertices.reshape(-1, 3), *grid_faces(ids, False, flip=not upper))


def tongue() -> GridShape:
    """A tongue with a groove, resting inside the lower arch."""
    along = np.linspace(0, 1, TONGUE_ROWS)[:, None]
    around = np.linspace(0, 2 * np.pi, TONGUE_SEGMENTS, endpoint=False)[None]
    round_ends = np.sqrt(np.clip(1 - np.abs(2 * (0.06 + 0.88 * along) - 1) ** 3.5, 0, 1))
    cosine, sine = np.cos(around), np.sin(around)
    width = 15.5 * round_ends * (1 - 0.18 * along)
    groove = 1.7 * round_ends * np.exp(-((cosine / 0.30) ** 2)) * (sine > 1e-9)
    x = width * np.sign(cosine) * np.abs(cosine) ** 0.85
    y = -82.6 + 4.2 * (1 - along) + 5.2 * round_ends * sine - groove
    z = 30.0 + 48.5 * along + 0 * around
    rings = np.stack([x, y, z], axis=-1)
    ends = np.stack([[0.0, -78.4, 28.0], [0.0, -82.6, 79.3]])
    points = np.concatenate([rings.reshape(-1, 3), ends])
    ids = np.arange(TONGUE_ROWS * TONGUE_SEGMENTS).reshape(TONGUE_ROWS, TONGUE_SEGMENTS)
    sheet, sheet_uvs = grid_faces(ids, wrap=True, flip=True)
    back, tip = len(points) - 2, len(points) - 1
    faces = np.concatenate([sheet, fan_faces(back, ids[0], flip=True), fan_faces(tip, ids[-1])])
    column = np.arange(TONGUE_SEGMENTS) / TONGUE_SEGMENTS
    step = 1 / TONGUE_SEGMENTS

    def cap(v: float, flip: bool) -> np.ndarray:
        first = np.stack([column + 0.5 * step, np.full_like(column, v)], axis=1)
        ring = np.stack([column, np.full_like(column, v)], axis=1)
        following = ring + [step, 0.0]
        return np.stack([first, following, ring] if flip else [first, ring, following], axis=1)

    uvs = np.concatenate([sheet_uvs, cap(1.0, True), cap(0.0, False)])
    return GridShape(points, faces, uvs)


def even_border(count: int) -> tuple[np.ndarray, np.ndarray]:
    """`along` and `side` of `sack_rings` for a border whose upper and lower half have `count` vertices each."""
    position = np.concatenate([np.arange(count), np.arange(count - 2, 0, -1)])
    side = np.where(np.arange(2 * count - 2) < count, 1.0, -1.0)
    side[[0, count - 1]] = 0.0
    return 2.0 * position / (count - 1) - 1.0, side


@dataclass(frozen=True)
class SackRings:
    """The sack behind the lips, as rings from the border of the opening to the throat.

    points: [SACK_RINGS * m, 3] mm, ring by ring.  jaw: [SACK_RINGS * m], how much of it follows the jaw; the rest
    follows the head.  border_share: [SACK_RINGS * m], how much of the border's own motion each vertex copies.
    """

    points: np.ndarray
    jaw: np.ndarray
    border_share: np.ndarray


def sack_rings(border: np.ndarray, along: np.ndarray, side: np.ndarray, border_jaw: np.ndarray) -> SackRings:
    """The sack of a border [m, 3]: over the vestibule, around the teeth, back to a narrow throat.

    The border goes from the subject's right corner along the upper lip to the left one and back along the lower lip.
    along: [m] from -1 (right corner) to 1.  side: [m] 1 above, -1 below, 0 at the corners.  border_jaw: [m] jaw weight.
    """
    rounded = np.clip(1 - along**2, 0, 1) ** 0.5
    full = np.clip(1 - along**4, 0, 1) ** 0.5
    x, y, z = border.T
    vestibule = np.minimum(np.maximum(arch_front(x) + 1.6, z - 14.0), z - 4.6)
    back = np.minimum(vestibule - 8.0, 60.0 * full + 50.0 * (1 - full))
    rings = [
        (x, y + side * rounded * 0.8, z - 1.7),
        (x * 1.0, y + side * rounded * 2.6, z - 3.2),
        (x * 1.08, y + side * full * 8.0, vestibule),
        (x * 1.16, y + side * full * 14.5, np.minimum(vestibule - 1.0, z - 6.5)),
        (x * 1.18, y + side * full * 18.5, back),
        (x * 1.02, y + side * full * 17.0, 38.0 + 0 * x),
        (x * 0.6, -72.0 + side * full * 9.0, 22.0 + 0 * x),
    ]
    depth = np.linspace(0, 1, SACK_RINGS + 1)[1:]
    own = np.where(side > 0, 0.0, np.where(side < 0, 1.0, 0.45))
    own = 0.45 + (own - 0.45) * full
    inner = smoothstep(0.05, 0.45, depth)[:, None]
    jaw = border_jaw[None] * (1 - inner) + own[None] * inner
    throat_share = smoothstep(0.65, 1.0, depth)[:, None]
    jaw = jaw * (1 - throat_share) + 0.4 * throat_share
    share = np.repeat(1 - smoothstep(0.12, 0.6, depth), len(border))
    return SackRings(np.concatenate([np.stack(ring, axis=1) for ring in rings]), jaw.ravel(), share)
