"""Clothes: a sheet over neck and shoulders that ends at a neckline, and a collar swept along it. Millimetres."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
from scipy import ndimage

from .noise_fields import fractal_field
from .shells import Band, Sheet, ShellGrid, clipped_sheet, cloth_grid, smooth_ramp, sweep_border, used_rows


@dataclasses.dataclass(frozen=True)
class Garment:
    """One cut: distance to the skin, height of the neckline over the azimuth, and the profile of its collar.

    front, side, back: height of the neckline.  vee: how far it dips in front, vee_width: over how many degrees.
    folds: height of the drapery.
    collar: profile (outward, across; mm) swept along the neckline; across > 0 leads off the cloth.
    """

    thickness: float
    front: float
    side: float
    back: float
    collar: tuple[tuple[float, float], ...]
    vee: float = 0.0
    vee_width: float = 20.0
    folds: float = 1.5
    leaf_fold: int = 0  # profile step at which a shirt collar folds down; 0: the collar is a closed band


_RIB = (
    (-0.3, -3.0),
    (1.0, -1.2),
    (1.9, 1.5),
    (2.2, 5.0),
    (1.9, 9.0),
    (0.8, 11.2),
    (-1.2, 11.4),
    (-2.6, 9.0),
    (-3.0, 3.0),
)
_SEAM = ((-0.2, -2.5), (0.7, -1.0), (1.1, 1.0), (1.1, 5.0), (0.8, 8.5), (0.0, 9.6), (-1.2, 8.8), (-1.6, 3.0))
_ROLL = (
    (-0.5, -1.0), (0.5, 4.0), (2.2, 7.6), (5.0, 8.8), (7.8, 7.0), (9.0, 2.5), (9.2, -8.0), (9.0, -18.0), (8.4, -27.0),
    (7.0, -29.5), (4.6, -28.5), (3.5, -24.0),
)  # fmt: skip
_LEAF = (
    (-0.5, -1.5), (0.0, 4.0), (0.4, 9.0), (1.2, 13.0), (2.8, 14.8), (4.8, 13.6), (6.2, 9.0), (7.6, 2.0), (9.4, -7.0),
    (11.0, -15.0), (11.6, -18.0), (10.4, -18.6), (8.8, -16.0), (7.0, -8.0), (5.0, 2.0),
)  # fmt: skip
GARMENTS: dict[str, Garment] = {
    "sweater": Garment(5.0, -184, -154, -148, _RIB, folds=2.2),
    "t-shirt": Garment(3.0, -194, -158, -149, _SEAM, folds=1.5),
    "turtleneck": Garment(4.2, -142, -128, -124, _ROLL, folds=2.0),
    "v-neck": Garment(4.0, -188, -153, -148, _SEAM, vee=64.0, vee_width=24.0, folds=1.6),
    "shirt": Garment(3.2, -166, -146, -141, _LEAF, vee=12.0, vee_width=16.0, folds=1.6, leaf_fold=4),
}


@dataclasses.dataclass(frozen=True)
class ClothShell:
    """The sheet, its collar bands, and what the texture needs: points [R, C + 1, 3] and rows that the chart spans."""

    sheet: Sheet
    collar: list[Band]
    points: np.ndarray
    rows: tuple[int, int]


def neckline(garment: Garment, azimuth: np.ndarray) -> np.ndarray:
    """Height (mm) of the neckline at azimuths in degrees."""
    cosine = np.cos(np.deg2rad(azimuth))
    level = garment.side + 0.5 * (garment.front - garment.back) * cosine
    level = level + (0.5 * (garment.front + garment.back) - garment.side) * cosine**2
    share = np.abs(azimuth) / garment.vee_width
    # A dip with straight flanks and a point that is only slightly rounded.
    dip = np.clip(1 - (np.sqrt(share**2 + 0.006) - 0.0775), 0, None)
    return level - garment.vee * np.minimum(dip, 1.0)


@lru_cache(maxsize=1)
def _bridged_skin() -> np.ndarray:
    """Ray length [R, C] of the skin with its hollows spanned, without the repeated last column."""
    pad = 16
    skin = np.pad(cloth_grid().skin_length[:, :-1], ((0, 0), (pad, pad)), mode="wrap")
    # Rays that graze the collar bones jump from their shelf to their front; cloth spans both.
    closed = ndimage.grey_closing(skin, size=(13, 25), mode="nearest")
    smooth = ndimage.gaussian_filter(closed, sigma=(3.0, 4.0), mode="nearest")
    bridged = ndimage.gaussian_filter(np.maximum(smooth, skin), sigma=(1.6, 2.4), mode="nearest")
    bridged = np.maximum(bridged, skin - 1.0)
    return ndimage.gaussian_filter(bridged, sigma=0.8, mode="nearest")[:, pad:-pad]


@lru_cache(maxsize=1)
def _along_ray() -> np.ndarray:
    """Length [R, C + 1] along each ray that makes a unit of thickness across the cloth: more where rays graze."""
    grid = cloth_grid()
    bridged = _bridged_skin()
    points = grid.points(np.concatenate([bridged, bridged[:, :1]], axis=1))
    down, across = np.gradient(points, axis=0), np.gradient(points, axis=1)
    across[:, [0, -1]] = 0.5 * (across[:, [0]] + across[:, [-1]])
    normal = np.cross(down, across)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    cosine = np.abs(np.sum(normal * grid.directions, axis=-1))
    return ndimage.gaussian_filter(1 / np.clip(cosine, 0.3, 1.0), sigma=1.5, mode="nearest")


def _draped_length(grid: ShellGrid, garment: Garment, seed: int) -> np.ndarray:
    """Ray length of the outer side: off the skin, bridging its hollows, with a few soft folds."""
    bridged = _bridged_skin()
    length = np.concatenate([bridged, bridged[:, :1]], axis=1) + garment.thickness * _along_ray()
    points = grid.points(length)
    height = points[..., 1]
    low = smooth_ramp(-190, -250, height)
    stretch = np.array([1 / 70.0, 1 / 42.0, 1 / 70.0])
    tilted = points + 0.35 * np.abs(points[..., :1]) * np.array([0.0, 1.0, 0.0])
    field = fractal_field(tilted * stretch, 3, seed) - 0.5
    ridges = 1 - np.abs(fractal_field(tilted * stretch * 1.7 + 9.0, 2, seed + 7) - 0.5) * 4
    return length + garment.folds * low * (2.2 * field + 0.7 * np.clip(ridges, 0, 1))


def build_cloth_shell(name: str, seed: int) -> ClothShell:
    """The garment on the template."""
    garment, grid = GARMENTS[name], cloth_grid()
    azimuth = np.broadcast_to(grid.azimuth, grid.shape)
    length = _draped_length(grid, garment, seed)
    height = grid.skin_points[..., 1]
    line = neckline(garment, azimuth)
    slope = np.gradient(line, axis=1) / 1.1
    mask = (line - height) / np.sqrt(1 + np.minimum(slope**2, 6.0))
    mask[0] = -5.0
    # The hem of the neckline lies close; a loose garment would show its inside.
    near = smooth_ramp(0.0, 14.0, mask)
    length = grid.skin_length + (length - grid.skin_length) * (0.75 + 0.25 * near) + 0.5
    points = grid.points(length)
    sheet = clipped_sheet(grid, points, mask)
    profile = np.array(garment.collar)
    bands = [band for band in sweep_border(sheet, profile) if band.points.shape[1] > 40]
    if garment.leaf_fold:
        bands = [_collar_leaf(band, garment.leaf_fold, grid.azimuth) for band in bands]
    return ClothShell(sheet, bands, points, used_rows(mask))


def _collar_leaf(band: Band, fold: int, azimuth: np.ndarray) -> Band:
    """Open a closed collar at the front and let its leaf grow longer towards the two points."""
    count = band.points.shape[1] - 1
    degrees = azimuth[band.source.first[:count] % len(azimuth)]
    start = int(np.argmin(np.abs(degrees)))
    order = np.roll(np.arange(count), -start)
    order = order[np.abs(degrees[order]) > 3.5]
    near_front = np.clip(1 - np.abs(degrees[order]) / 58.0, 0, 1)
    grow = (1 + 0.75 * near_front**1.6)[None, :, None]
    points = band.points[:, order].copy()
    points[fold:] = points[fold : fold + 1] + (points[fold:] - points[fold : fold + 1]) * grow
    along = np.linspace(0, 1, len(order))
    chart = np.stack([np.broadcast_to(along, points.shape[:2]), band.chart[:, order, 1]], axis=-1)
    return dataclasses.replace(band, points=points, chart=chart, source=band.source.take(order), closed=False)


def thread_lengths(points: np.ndarray) -> np.ndarray:
    """Coordinates (mm) [R, C, 3] of grid points [R, C, 3]: threads across and down, and the row's own arc length.

    Threads across have one width for all rows, which keeps wales vertical; arc lengths start at the middle of front and
    back.
    """
    step = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    arc = np.concatenate([np.zeros((len(points), 1)), step.cumsum(axis=1)], axis=1)
    front = arc - arc[:, arc.shape[1] // 2 :][:, :1]
    side = arc.shape[1] // 4
    threads = np.broadcast_to(front.mean(axis=0), arc.shape)
    # Patterns start at the middle of the front and at that of the back, and meet under the arms.
    arc = np.where(
        np.arange(arc.shape[1]) < side, arc, np.where(np.arange(arc.shape[1]) > 3 * side, arc - arc[:, -1:], front)
    )
    down = np.concatenate([np.zeros((1, points.shape[1])), np.linalg.norm(np.diff(points, axis=0), axis=-1).cumsum(0)])
    return np.stack([threads, down, arc], axis=-1)
