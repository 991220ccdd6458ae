"""Noise evaluated on arrays of points."""

from __future__ import annotations

import numpy as np

from ...kernels import numba
from .noise import fractal3


@numba.njit(cache=True, fastmath=True)
def _evaluate(points, octaves, seed, out):
    for i in range(points.shape[0]):
        out[i] = fractal3(points[i, 0], points[i, 1], points[i, 2], octaves, seed)


def fractal_field(points: np.ndarray, octaves: int, seed: int) -> np.ndarray:
    """Fractal value noise 0..1 at points [..., 3], unit wavelength; returns [...]."""
    flat = np.ascontiguousarray(points.reshape(-1, 3), dtype=np.float64)
    out = np.empty(len(flat))
    _evaluate(flat, octaves, seed, out)
    return out.reshape(points.shape[:-1])
