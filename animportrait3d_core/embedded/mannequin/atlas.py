"""Where each piece lies in the texture: rectangles (u0, v0, u1, v1) in 0..1, v up.

The skin is unwrapped from its ray grid, which is dense on the face, so the face gets most of the texture.
"""

from __future__ import annotations

import numpy as np

from .bust import Bust
from .layout import LAST_COLUMN
from .topology import skin_topology

_GAP = 0.004
CHARTS: dict[str, tuple[float, float, float, float]] = {
    "skin": (0.0, 0.25, 1.0, 1.0),
    "right_eye": (0.0, 0.10, 0.15, 0.25),
    "left_eye": (0.15, 0.10, 0.30, 0.25),
    "right_ear": (0.30, 0.0, 0.48, 0.25),
    "left_ear": (0.48, 0.0, 0.66, 0.25),
    "mouth_bag": (0.66, 0.14, 0.86, 0.25),
    "tongue": (0.86, 0.14, 1.0, 0.25),
    "upper_teeth": (0.66, 0.09, 1.0, 0.14),
    "lower_teeth": (0.66, 0.045, 1.0, 0.09),
    "upper_gum": (0.66, 0.02, 1.0, 0.045),
    "lower_gum": (0.66, 0.0, 1.0, 0.02),
    "right_eye_rim": (0.0, 0.05, 0.30, 0.10),
    "left_eye_rim": (0.0, 0.0, 0.30, 0.05),
}


def _placed(corner_uvs: np.ndarray, chart: str) -> np.ndarray:
    u0, v0, u1, v1 = CHARTS[chart]
    low, high = np.array([u0, v0]) + _GAP, np.array([u1, v1]) - _GAP
    return low + corner_uvs * (high - low)


def _skin_corner_uvs() -> np.ndarray:
    """Chart coordinates [F, 3, 2] of the skin: signed column across, row down; the seam runs down the back."""
    topology = skin_topology()
    keys, cells = topology.keys, topology.face_cell
    columns = keys[topology.faces, 1].astype(np.float64)
    rows = keys[topology.faces, 0].astype(np.float64)
    last = columns == LAST_COLUMN
    columns = np.where(last & (cells < 0)[:, None], -LAST_COLUMN, columns)
    at_pole = topology.faces == topology.pole
    rows = np.where(at_pole, -1.0, rows)
    beside = np.where(at_pole, 0.0, columns).sum(axis=1) / np.maximum(1, (~at_pole).sum(axis=1))
    columns = np.where(at_pole, beside[:, None], columns)
    across = (columns + LAST_COLUMN) / (2 * LAST_COLUMN)
    down = (rows + 1) / topology.grid.rows
    return np.stack([across, 1 - down], axis=-1)


def corner_uvs(bust: Bust) -> np.ndarray:
    """Texture coordinates [F, 3, 2] of every face corner of the bust, v up."""
    pieces = [_placed(_skin_corner_uvs(), "skin")]
    pieces += [_placed(part.corner_uvs, part.chart) for part in bust.parts]
    return np.concatenate(pieces)
