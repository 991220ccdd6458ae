"""Shells: sheets of hair and cloth sampled on a fixed ray grid around the template's skin, and bands swept along them.

All lengths are millimetres in the mannequin's local frame (origin between the eyes, y up, z out of the face). A shell
is built around the *template*; `figure` carries it to an identity by the displacement of the skin underneath.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from ..mannequin import distance
from ..mannequin.parameters import SCULPT_COUNT
from .clipping import Clipped, border_chains, clip_faces
from .geometry import welded_normals


@dataclasses.dataclass(frozen=True)
class ShellGrid:
    """Rays of a shell: origins, directions [R, C + 1, 3] and the distance [R, C + 1] at which each leaves the skin.

    Columns run once round from the back (-180 degrees) over the subject's right, the face (0) and the left to the back
    again; the first and last column coincide in space and differ in texture coordinates.
    """

    origins: np.ndarray
    directions: np.ndarray
    skin_length: np.ndarray
    azimuth: np.ndarray  # [C + 1] degrees

    @property
    def shape(self) -> tuple[int, int]:
        return self.skin_length.shape  # type: ignore[return-value]

    def points(self, length: np.ndarray) -> np.ndarray:
        """Points [R, C + 1, 3] at a distance along the rays."""
        return self.origins + self.directions * length[..., None]

    @property
    def skin_points(self) -> np.ndarray:
        return self.points(self.skin_length)


# height of the ray origin (mm), elevation (degrees) at front, back and side, rows to the next knot
HAIR_KNOTS = (
    (20, 88, 88, 88, 48),
    (20, -8, -8, -8, 6),
    (0, -12, -10, -12, 22),
    (-150, -12, -8, -6, 10),
    (-225, -8, 0, 0, 0),
)
CLOTH_KNOTS = (
    (-60, -46, -22, -38, 10), (-112, -36, -12, -20, 13), (-185, -14, 3, 0, 12), (-240, 3, 12, 16, 10),
    (-300, -4, -4, 3, 6), (-345, -18, -18, -10, 3), (-385, -18, -18, -10, 0),
)  # fmt: skip
HAIR_COLUMNS, CLOTH_COLUMNS = 192, 152


def _ray_grid(knots: tuple[tuple[float, ...], ...], columns: int) -> ShellGrid:
    rows = []
    for start, end in zip(knots[:-1], knots[1:]):
        for step in range(int(start[4])):
            rows.append(np.asarray(start[:4]) + (np.asarray(end[:4]) - np.asarray(start[:4])) * step / start[4])
    table = np.array([*rows, knots[-1][:4]], dtype=np.float64)
    for _ in range(4):
        table[1:-1] = 0.25 * table[:-2] + 0.5 * table[1:-1] + 0.25 * table[2:]
    azimuth = np.linspace(-180.0, 180.0, columns + 1)
    angle = np.deg2rad(azimuth)[None]
    front, back, side = (np.deg2rad(table[:, k : k + 1]) for k in (1, 2, 3))
    cosine = np.cos(angle)
    elevation = side + 0.5 * (front - back) * cosine + (0.5 * (front + back) - side) * cosine**2
    directions = np.stack([np.sin(angle) * np.cos(elevation), np.sin(elevation), cosine * np.cos(elevation)], axis=-1)
    origins = np.zeros_like(directions)
    origins[..., 1] = table[:, :1]
    origins[..., 2] = -12.0 - 18.0 * np.clip((-40 - table[:, :1]) / 60.0, 0, 1)
    lengths = distance.cast_rays(
        np.ascontiguousarray(origins.reshape(-1, 3)), np.ascontiguousarray(directions.reshape(-1, 3)),
        np.zeros(SCULPT_COUNT),
    ).reshape(directions.shape[:2])  # fmt: skip
    lengths[:, -1] = lengths[:, 0]
    directions[:, -1], origins[:, -1] = directions[:, 0], origins[:, 0]
    return ShellGrid(origins, directions, lengths, azimuth)


@lru_cache(maxsize=1)
def hair_grid() -> ShellGrid:
    """Rays from the crown down to the shoulders."""
    return _ray_grid(HAIR_KNOTS, HAIR_COLUMNS)


@lru_cache(maxsize=1)
def cloth_grid() -> ShellGrid:
    """Rays from under the chin down to the lower end of the bust."""
    return _ray_grid(CLOTH_KNOTS, CLOTH_COLUMNS)


@dataclasses.dataclass(frozen=True)
class GridSource:
    """Places on the flattened grid: value = grid[first] * (1 - share) + grid[second] * share, all [V]."""

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Values [R * C, ...] of the grid carried over to the places [V, ...]."""
        share = self.share.reshape((-1,) + (1,) * (values.ndim - 1))
        return values[self.first] * (1 - share) + values[self.second] * share

    def take(self, index: np.ndarray) -> GridSource:
        """The places at `index`."""
        return GridSource(self.first[index], self.second[index], self.share[index])


def join_sources(parts: list[GridSource]) -> GridSource:
    """All places in order."""
    return GridSource(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("first", "second", "share")))


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A clipped piece of shell: points [V, 3], faces [F, 3] outward, chart coordinates [V, 2] in 0..1 (across, down),
    skin points underneath [V, 3], directed cut edges [E, 2], for each vertex the one that stands for all copies at the
    same place [V], and where it lies on the flattened grid."""

    points: np.ndarray
    faces: np.ndarray
    chart: np.ndarray
    anchors: np.ndarray
    border: np.ndarray
    weld: np.ndarray
    source: GridSource


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Triangles [F, 3] of a rows x columns vertex grid seen from outside: rows go down, columns to the left side."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def clipped_sheet(grid: ShellGrid, points: np.ndarray, mask: np.ndarray) -> Sheet:
    """The part of a shell [R, C + 1, 3] where mask [R, C + 1] (mm to the border, roughly) is positive.

    Chart coordinates are spread over the rows that are used.
    """
    rows, columns = grid.shape
    clipped = clip_faces(grid_triangles(rows, columns), mask.reshape(-1))
    row, column = np.divmod(np.arange(rows * columns), columns)
    low, high = used_rows(mask)
    down = np.interp(np.arange(rows), np.arange(low, high + 1), chart_rows(points, (low, high)))
    chart = np.stack([column / (columns - 1), down[row]], axis=1)
    same = np.where(column == columns - 1, row * columns, row * columns + column)
    return Sheet(
        clipped.gather(points.reshape(-1, 3)), clipped.faces, clipped.gather(chart),
        clipped.gather(grid.skin_points.reshape(-1, 3)), clipped.border, _weld(clipped, same),
        GridSource(clipped.first, clipped.second, clipped.share),
    )  # fmt: skip


def chart_rows(points: np.ndarray, rows: tuple[int, int]) -> np.ndarray:
    """Chart coordinate (0..1, down) of the rows low..high of a shell [R, C + 1, 3]: their mean distance along it, so
    that texels are about equally dense everywhere."""
    steps = np.linalg.norm(np.diff(points[rows[0] : rows[1] + 1], axis=0), axis=-1).mean(axis=1)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    return length / length[-1]


def used_rows(mask: np.ndarray) -> tuple[int, int]:
    """First and last row (inclusive) of the grid that a clip along `mask` [R, C] touches."""
    rows = np.flatnonzero((mask > 0).any(axis=1))
    return max(int(rows[0]) - 1, 0), min(int(rows[-1]) + 1, len(mask) - 1)


def smooth_ramp(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Cubic ramp from 0 at `low` to 1 at `high` (which may be the smaller one)."""
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def _weld(clipped: Clipped, same: np.ndarray) -> np.ndarray:
    """Representative of every new vertex, given that of the old ones: copies on the chart's seam become one."""
    first, second = same[clipped.first], same[clipped.second]
    key = np.minimum(first, second) * (len(same) + 1) + np.maximum(first, second)
    _, position, inverse = np.unique(key, return_index=True, return_inverse=True)
    return position[inverse.reshape(-1)]


@dataclasses.dataclass(frozen=True)
class Band:
    """A band swept along a border: points [K, M, 3] (K profile steps, M chain vertices), chart [K, M, 2] (along, across
    in 0..1), source of the M chain vertices, whether it is a ring (the last vertex repeats the first), and length in
    mm. Faces are those of `grid_triangles`, turned over if `flipped`."""

    points: np.ndarray
    chart: np.ndarray
    source: GridSource
    closed: bool
    flipped: bool
    length: float


def sweep_border(sheet: Sheet, profile: np.ndarray, smooth_rounds: int = 6) -> list[Band]:
    """Sweep a profile [K, 2] (outward from the surface, across the border; mm) along every border of a sheet.

    `across` is positive away from the sheet. The path is welded at the chart's seam and smoothed a little, so that the
    band is rounder than the triangles it is cut from.
    """
    border = np.unique(sheet.weld[sheet.border], axis=0)
    border = border[border[:, 0] != border[:, 1]]
    normals = welded_normals(sheet.points, sheet.faces, sheet.weld)
    # Shoelace formula: a profile that folds outwards runs the other way round than one that folds inwards.
    turn = np.sum(profile[:-1, 0] * profile[1:, 1] - profile[1:, 0] * profile[:-1, 1])
    bands = []
    for chain in border_chains(border):
        closed = bool(chain[0] == chain[-1])
        path = _spread(sheet.points[chain], closed, smooth_rounds)
        if len(path) < 6:
            continue
        forward = _central(path, closed)
        outward = _spread(normals[chain], closed, 10)
        outward = _unit(outward - forward * np.sum(outward * forward, axis=1, keepdims=True))
        across = np.cross(forward, outward)
        points = path[None] + profile[:, :1, None] * outward[None] + profile[:, 1:, None] * across[None]
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
        reach = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
        chart = np.stack(np.meshgrid(length / length[-1], reach / reach[-1]), axis=-1)
        bands.append(Band(points, chart, sheet.source.take(chain), closed, turn < 0, float(length[-1])))
    return bands


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _central(path: np.ndarray, closed: bool) -> np.ndarray:
    """Unit tangents of a path; a closed path repeats its first point at the end."""
    if closed:
        ring = np.concatenate([path[-2:-1], path, path[1:2]])
    else:
        ring = np.concatenate([2 * path[:1] - path[1:2], path, 2 * path[-1:] - path[-2:-1]])
    return _unit(ring[2:] - ring[:-2])


def _spread(path: np.ndarray, closed: bool, rounds: int) -> np.ndarray:
    """Binomial smoothing along a path that keeps open ends in place."""
    path = path.copy()
    for _ in range(rounds):
        if closed:
            ring = np.concatenate([path[-2:-1], path, path[1:2]])
            path = 0.25 * ring[:-2] + 0.5 * ring[1:-1] + 0.25 * ring[2:]
        else:
            path[1:-1] = 0.25 * path[:-2] + 0.5 * path[1:-1] + 0.25 * path[2:]
    return path
