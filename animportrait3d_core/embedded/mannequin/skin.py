"""The skin of one identity: rays cast into the sculpture, smoothed, and details too fine for the rays pressed in.

The result is the closed state (lids down, lips together); `open_lids` turns it into the open state. Millimetres, local
frame of `distance`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...body.shape_grids import smoothstep
from . import distance
from .layout import FRONT_COLUMNS, LAST_COLUMN, cast
from .topology import SkinTopology, Slit, skin_topology

BOTTOM_Y = -380.0  # the bust ends in a level cut
UPPER_LID_ROWS, LOWER_LID_ROWS = 10, 7
UPPER_LID_DEGREES, LOWER_LID_DEGREES = 39.5, 10.0
UPPER_FOLD_DEGREES, LOWER_FOLD_DEGREES = 58.0, -62.0


def mirrored(points: np.ndarray, side: int) -> np.ndarray:
    """Points of the left half carried to one side (+1 left, -1 right)."""
    return points * np.array([side, 1.0, 1.0])


@lru_cache(maxsize=1)
def _smoothing_weight() -> np.ndarray:
    """How much each point of the half grid [rows, columns] may be smoothed: not on slits, little where detail is."""
    grid = skin_topology().grid
    marks = grid.marks
    rows, columns = np.meshgrid(np.arange(grid.rows), np.arange(LAST_COLUMN + 1), indexing="ij")
    # Where the grid is coarse, smoothing would flatten the form.
    fine = (1 - smoothstep(FRONT_COLUMNS - 16, FRONT_COLUMNS, columns)) * smoothstep(2, marks["hairline"] + 4, rows)
    weight = 0.1 + 0.4 * fine
    detail = (rows > marks["nose_tip"] - 2) & (rows < marks["lip_bottom"]) & (columns < 26)
    weight[detail] = 0.12
    inner, outer = grid.eye_columns
    weight[marks["eye"], inner : outer + 1] = 0.0
    weight[marks["mouth"], : grid.mouth_column + 1] = 0.0
    return weight[..., None]


def _smoothed_grid(half: np.ndarray) -> np.ndarray:
    """Three rounds of smoothing of the half grid [rows, columns, 3], continued by mirroring across the middle."""
    mirror = np.array([-1.0, 1.0, 1.0])
    weight = _smoothing_weight()
    for _ in range(3):
        wide = np.concatenate([half[:, 1:2] * mirror, half, half[:, -2:-1] * mirror], axis=1)
        tall = np.concatenate([half[:1], half, half[-1:]], axis=0)
        mean = 0.25 * (wide[:, :-2] + wide[:, 2:] + tall[:-2] + tall[2:])
        half = half + weight * (mean - half)
    return half


def closed_skin(sculpt: np.ndarray) -> np.ndarray:
    """Skin vertices [n, 3] in mm for SCULPT parameters; mirror symmetric, both sides of every slit coincide."""
    topology = skin_topology()
    grid = topology.grid
    half = grid.origins + grid.directions * cast(grid.origins, grid.directions, sculpt)[..., None]
    half[:, [0, -1], 0] = 0.0
    half = _smoothed_grid(half)
    points = half[topology.keys[:, 0], np.abs(topology.keys[:, 1])]
    points[topology.keys[:, 1] < 0, 0] *= -1.0
    points[topology.pole] = half[0].mean(axis=0) * np.array([0.0, 1.0, 1.0])
    points = _press_details(points)
    points[topology.keys[:, 0] == grid.rows - 1, 1] = BOTTOM_Y
    return _keep_lids_outside(points)


def _press_details(points: np.ndarray) -> np.ndarray:
    """Deepen the seam between the lips, which the rays meet at a grazing angle."""
    topology = skin_topology()
    slit = topology.slits["mouth"]
    points = points.copy()
    share = np.abs(slit.columns) / slit.columns[-1]
    for offset, depth in ((0, 2.6), (1, 0.9), (2, 0.1)):
        for side in (-1, 1):
            for position, column in enumerate(slit.columns):
                vertex = topology.at(slit.row + side * offset, int(column))
                press = depth * (1.0 - 0.6 * share[position] ** 3)
                points[vertex, 2] -= press if offset or side > 0 else 0.0
    points[slit.lower] = points[slit.upper]
    return points


def _keep_lids_outside(points: np.ndarray) -> np.ndarray:
    for side in (-1, 1):
        center = mirrored(np.array(distance.EYE_CENTER), side)
        relative = points - center
        radius = np.linalg.norm(relative, axis=1)
        low = (radius < distance.LID_RADIUS) & (relative[:, 2] > 0)
        points[low] = center + relative[low] * (distance.LID_RADIUS / radius[low])[:, None]
    return points


def opening_profile(slit: Slit, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of full opening of the upper and of the lower lid per slit column [m]; zero at the corners."""
    along = np.linspace(-1.0, 1.0, len(slit.columns))
    inward = -along * side  # +1 at the nose
    upper = np.clip(1 - np.abs(along) ** 2.3, 0, 1) ** 0.72 * (1 + 0.06 * inward)
    lower = np.clip(1 - np.abs(along) ** 2.2, 0, 1) ** 0.85 * (1 - 0.12 * inward)
    return upper, lower


def rotate_about_eye(points: np.ndarray, center: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate points [..., 3] about the eye's left-right axis; positive angles (radians) lift the front."""
    relative = points - center
    cosine, sine = np.cos(angle), np.sin(angle)
    turned = relative.copy()
    turned[..., 1] = relative[..., 1] * cosine + relative[..., 2] * sine
    turned[..., 2] = -relative[..., 1] * sine + relative[..., 2] * cosine
    return turned + center


def _soft_ends(count: int) -> np.ndarray:
    along = np.linspace(-1.0, 1.0, count)
    return np.clip(1 - along**2, 0, 1) ** 0.6


def _crease(points: np.ndarray, center: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Press the fold of the open upper lid into its rows [k, m, 3] and let the skin above hang over it."""
    relative = points - center
    angle = np.degrees(np.arctan2(relative[..., 1], relative[..., 2]))
    above = angle - angle[:1]
    dip = -1.25 * np.exp(-(((above - 14.0) / 4.5) ** 2))
    overhang = 1.1 * np.exp(-(((above - 25.0) / 7.5) ** 2))
    unit = relative / np.linalg.norm(relative, axis=-1, keepdims=True)
    return points + unit * ((dip + overhang) * share)[..., None]


def _lid_band(topology: SkinTopology, slit: Slit, upper: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [k, m] from the slit border outward (first row = border) and the row distance [k]."""
    count = UPPER_LID_ROWS if upper else LOWER_LID_ROWS
    border = slit.upper if upper else slit.lower
    step = -1 if upper else 1
    band = [border] + [
        np.array([topology.at(slit.row + step * k, int(c)) for c in slit.columns]) for k in range(1, count)
    ]
    return np.stack(band), np.arange(count)


def open_lids(closed: np.ndarray) -> np.ndarray:
    """Rotate the lids of the closed skin [n, 3] open about the eyeballs; the tissue piles up into a crease."""
    topology = skin_topology()
    opened = closed.copy()
    for side, name in ((-1, "right_eye"), (1, "left_eye")):
        slit = topology.slits[name]
        center = mirrored(np.array(distance.EYE_CENTER), side)
        shares = opening_profile(slit, side)
        for upper, share, full, fold in (
            (True, shares[0], UPPER_LID_DEGREES, UPPER_FOLD_DEGREES),
            (False, shares[1], -LOWER_LID_DEGREES, LOWER_FOLD_DEGREES),
        ):
            band, distance_rows = _lid_band(topology, slit, upper)
            points = closed[band]
            relative = points - center
            angle = np.degrees(np.arctan2(relative[..., 1], relative[..., 2]))
            start = angle[:1]
            remaining = np.clip((fold - angle) / (fold - start), 0, 1)
            fade = 1 - smoothstep(0.7 * len(band), len(band), distance_rows)[:, None]
            wide = smoothstep(0, 5, distance_rows)[:, None]
            softened = share[None] * (1 - wide) + (share[None] * _soft_ends(len(share))) * wide
            turn = np.deg2rad(full * softened * remaining**1.1 * fade)
            interior = slice(None) if upper else slice(1, -1)
            moved = rotate_about_eye(points, center, turn)
            if upper:
                moved = _crease(moved, center, softened * fade)
            opened[band[:, interior]] = moved[:, interior]
    return opened
