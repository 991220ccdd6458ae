"""Upper bounds of the density per block of the cube, by which empty stretches of rays are skipped.

The bounds are rigorous. In a plane every level is piecewise bilinear, with creases at multiples of 1 / r for the
finest resolution r; hence the extremes of a hidden unit's input over a block lie at such multiples, and in depth at the
block's ends or at a slice's centre. The inputs of the three planes add up, softplus rises, and the output weights'
signs decide which end counts. So a block with a low bound is empty everywhere, not only where somebody looked.
"""

from __future__ import annotations

import numpy as np

from ...kernels import numba
from ...render.threads import run_parallel
from .fast_kernels import CROPPED, HIDDEN, LANES, FieldArrays, depth_slices, plane_corners, pre_activation, softplus

BLOCKS_PER_UNIT = 64  # blocks per unit of cube coordinates
MARGIN = 0.01  # added to a bound, for rounding

_jit = numba.njit(cache=True, fastmath=True, error_model="numpy", nogil=True)


@_jit
def plane_ranges(field, plane, extent, steps, low, high, begin, end):
    """Fill rows begin..end of low and high [N, N, D, 32]: the range of every hidden unit's input over plane blocks."""
    side = low.shape[0]
    spacing = np.float32(1.0 / (BLOCKS_PER_UNIT * steps))
    weight = field.hidden_weight
    features = np.empty(LANES, np.float32)
    for row in range(begin, end):
        for column in range(side):
            low[row, column] = np.inf
            high[row, column] = -np.inf
            for corner in range((steps + 1) * (steps + 1)):
                v = np.float32(row * steps + corner // (steps + 1)) * spacing - extent
                u = np.float32(column * steps + corner % (steps + 1)) * spacing - extent
                for k in range(field.slices):
                    _slice_features(field, plane, u, v, k, features)
                    for j in range(HIDDEN):
                        value = pre_activation(features, weight, j)
                        low[row, column, k, j] = min(low[row, column, k, j], value)
                        high[row, column, k, j] = max(high[row, column, k, j], value)


@numba.njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _slice_features(field, plane, u, v, k, features):
    """Features [16] of slice k of a plane at (u, v), summed over the grids."""
    slices = field.slices
    for c in range(LANES):
        features[c] = np.float32(0)
    for grid in range(field.tables.shape[0]):
        corners = plane_corners(field.tables[grid, plane], field.scales[grid], slices, u, v)
        a, stride, w0, w1, w2, w3 = corners
        a += k
        b = a + stride
        for c in range(LANES):
            upper = w0 * field.texels[a, c] + w1 * field.texels[a + slices, c]
            features[c] += upper + w2 * field.texels[b, c] + w3 * field.texels[b + slices, c]


@numba.njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _add_range(low, high, slices, depths, total_low, total_high, least, most):
    """Add one plane's range at a block, over the candidate depths [3], to the totals [32]; least, most are scratch."""
    for candidate in range(depths.shape[0]):
        k, first, second = depth_slices(slices, depths[candidate])
        for j in range(HIDDEN):
            lowest = first * low[k, j] + second * low[k + 1, j]
            highest = first * high[k, j] + second * high[k + 1, j]
            least[j] = lowest if candidate == 0 else min(least[j], lowest)
            most[j] = highest if candidate == 0 else max(most[j], highest)
    for j in range(HIDDEN):
        total_low[j] += least[j]
        total_high[j] += most[j]


@_jit
def block_bounds(field, low, high, depths, inside, bounds, begin, end):
    """Fill bounds [N, N, N] for x in begin..end; low, high [3, N, N, D, 32] per plane, inside [N] = not cropped."""
    side = bounds.shape[0]
    output = field.density_weight
    total_low, total_high = np.empty(HIDDEN, np.float32), np.empty(HIDDEN, np.float32)
    least, most = np.empty(HIDDEN, np.float32), np.empty(HIDDEN, np.float32)
    slices = field.slices
    for x in range(begin, end):
        for y in range(side):
            for z in range(side):
                if not (inside[x] and inside[z]):
                    bounds[x, y, z] = CROPPED
                    continue
                for j in range(HIDDEN):
                    total_low[j] = field.hidden_bias[j]
                    total_high[j] = field.hidden_bias[j]
                _add_range(low[0, y, x], high[0, y, x], slices, depths[z], total_low, total_high, least, most)
                _add_range(low[1, z, x], high[1, z, x], slices, depths[y], total_low, total_high, least, most)
                _add_range(low[2, z, y], high[2, z, y], slices, depths[x], total_low, total_high, least, most)
                bound = field.density_bias
                for j in range(HIDDEN):
                    bound += max(output[j], np.float32(0)) * softplus(total_high[j])
                    bound += min(output[j], np.float32(0)) * softplus(total_low[j])
                bounds[x, y, z] = bound + np.float32(MARGIN)


def density_bounds(field: FieldArrays, coarsest: int, finest: int, crop: float) -> tuple[np.ndarray, float]:
    """(bounds [N, N, N] float32 over x, y, z, extent) of the raw density in blocks that span -extent to extent.

    coarsest, finest: resolutions of the levels.  crop: |x| and |z| beyond it are empty, in cube coordinates. Beyond the
    extent every feature is zero, as it is on its border: the outermost blocks hold there too.
    """
    outside = int(np.ceil(BLOCKS_PER_UNIT * max(1 / coarsest, 1 / field.slices)))
    side = 2 * (BLOCKS_PER_UNIT + outside)
    extent = side / 2 / BLOCKS_PER_UNIT
    steps = max(1, finest // BLOCKS_PER_UNIT)
    low = np.empty((3, side, side, field.slices, HIDDEN), np.float32)
    high = np.empty_like(low)
    for plane in range(3):
        run_parallel(plane_ranges, side, field, plane, np.float32(extent), steps, low[plane], high[plane])
    edges = np.linspace(-extent, extent, side + 1).astype(np.float32)
    begin, end = edges[:-1], edges[1:]
    inside = (end >= -crop) & (begin <= crop)
    bounds = np.empty((side, side, side), np.float32)
    depths = _candidate_depths(begin, end, field.slices)
    run_parallel(block_bounds, side, field, low, high, depths, inside, bounds)
    return bounds, extent


def _candidate_depths(begin: np.ndarray, end: np.ndarray, slices: int) -> np.ndarray:
    """Depths [N, 3] at which a block's extremes lie: both ends, and a slice's centre between them (else the end again).

    The zero slices that pad the grid count as slices: a crease lies there too.
    """
    centers = (2 * np.arange(-1, slices + 1) + 1) / slices - 1
    middle = end.copy()
    for center in centers:
        middle = np.where((begin < center) & (center < end), center, middle)
    return np.stack([begin, end, middle], axis=1).astype(np.float32)
