"""Numba kernels of one sample: lookup in the grids, hidden layer of the decoder, raw density.

Features are padded to 16 channels: a texel is one cache line and one vector register, and every inner loop has a fixed
length that the compiler turns into vector instructions. Nothing here depends on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...kernels import numba

LANES = 16  # channels of a stored texel, padded with zeros
HIDDEN = 32
CROPPED = -1000.0


class FieldArrays(NamedTuple):
    """A field as flat arrays. Cube coordinates run from -1 to 1 across the cube.

    texels: [T, 16] float32, all grids one after the other as [plane, v, u, slice, channel].  tables: [G, 3, 2] int64,
    of each grid and plane its first row in texels and its side.  scales: [G, 2] float32, texel position = a q + b.
    slices: depth slices.  hidden_weight [16, 32], hidden_bias [32], density_weight [32], density_bias: the decoder.
    """

    texels: np.ndarray
    tables: np.ndarray
    scales: np.ndarray
    slices: int
    hidden_weight: np.ndarray
    hidden_bias: np.ndarray
    density_weight: np.ndarray
    density_bias: np.float32


_LOG2_E = np.float32(1.4426950408889634)
# 2^f for f in -0.5 .. 0.5, and log(1 + y) / y for y in 0 .. 1: least squares on Chebyshev nodes, error under 1e-7.
_EXP2 = np.array(
    [1.0000000001, 0.6931471806, 0.2402264895, 0.0555041085, 0.0096184198, 0.0013333631, 0.0001540353], np.float32
)


def _log1p_coefficients() -> np.ndarray:
    nodes = 0.5 + 0.5 * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    fitted = np.polynomial.Polynomial.fit(nodes, np.log1p(nodes) / nodes, 9, domain=[0, 1], window=[0, 1])
    return fitted.coef.astype(np.float32)


_LOG1P = _log1p_coefficients()
_E0, _E1, _E2, _E3, _E4, _E5, _E6 = (np.float32(value) for value in _EXP2)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9 = (np.float32(value) for value in _LOG1P)
_ONE, _HALF, _ZERO, _TOP = np.float32(1), np.float32(0.5), np.float32(0), np.float32(80)

kernel = numba.njit(cache=True, fastmath=True, error_model="numpy", inline="always")


@kernel
def exp_negative(a):
    """exp(-a) in float32 for a >= 0 (0 beyond 80), without calls that would stop vectorisation."""
    a = min(a, _TOP) * _LOG2_E
    whole = np.floor(_HALF - a)
    f = -a - whole
    power = _E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
    return power * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@kernel
def softplus(x):
    """log(1 + exp(x)) in float32, error under 1e-6."""
    y = exp_negative(abs(x))
    low = _L0 + y * (_L1 + y * (_L2 + y * (_L3 + y * (_L4 + y * (_L5 + y * (_L6 + y * (_L7 + y * (_L8 + y * _L9))))))))
    return max(x, _ZERO) + y * low


@kernel
def plane_corners(table, scale, slices, u, v):
    """(row of the first of four texels, rows from one texel row to the next, the four weights) at (u, v) in a plane."""
    row, side = table[0], table[1]
    last = np.float32(side - 1)
    pu = min(max(scale[0] * u + scale[1], _ZERO), last)
    pv = min(max(scale[0] * v + scale[1], _ZERO), last)
    iu, iv = min(np.int64(pu), side - 2), min(np.int64(pv), side - 2)
    fu, fv = pu - np.float32(iu), pv - np.float32(iv)
    gu, gv = _ONE - fu, _ONE - fv
    return row + (iv * side + iu) * slices, side * slices, gv * gu, gv * fu, fv * gu, fv * fu


@kernel
def depth_slices(slices, d):
    """(first of two slices, its weight, weight of the next) at depth d; the weights fade to zero outside."""
    position = (d + _ONE) * _HALF * np.float32(slices) - _HALF
    k = min(max(np.int64(np.floor(position)), 0), slices - 2)
    first = max(_ZERO, _ONE - abs(position - np.float32(k)))
    second = max(_ZERO, _ONE - abs(position - np.float32(k + 1)))
    return k, first, second


@kernel
def add_plane(field, grid, plane, u, v, d, features):
    """Add one plane of one grid at (u, v) in the plane and d in depth, in cube coordinates, to features [16]."""
    texels, slices = field.texels, field.slices
    a, stride, w0, w1, w2, w3 = plane_corners(field.tables[grid, plane], field.scales[grid], slices, u, v)
    k, near, far = depth_slices(slices, d)
    a += k
    b = a + stride
    for c in range(LANES):
        first = w0 * texels[a, c] + w1 * texels[a + slices, c] + w2 * texels[b, c] + w3 * texels[b + slices, c]
        a1, b1 = a + 1, b + 1
        second = w0 * texels[a1, c] + w1 * texels[a1 + slices, c] + w2 * texels[b1, c] + w3 * texels[b1 + slices, c]
        features[c] += near * first + far * second


@kernel
def lookup(field, x, y, z, features):
    """Features [16] at a point in cube coordinates; the factor of the mean lies in the texels."""
    for c in range(LANES):
        features[c] = _ZERO
    for grid in range(field.tables.shape[0]):
        add_plane(field, grid, 0, x, y, z, features)
        add_plane(field, grid, 1, x, z, y, features)
        add_plane(field, grid, 2, y, z, x, features)


@kernel
def pre_activation(features, weight, j):
    """Sum over the 16 channels for hidden unit j: written out, so that the loop over j is what gets vectorised."""
    f, w = features, weight
    low = f[0] * w[0, j] + f[1] * w[1, j] + f[2] * w[2, j] + f[3] * w[3, j]
    middle = f[4] * w[4, j] + f[5] * w[5, j] + f[6] * w[6, j] + f[7] * w[7, j]
    high = f[8] * w[8, j] + f[9] * w[9, j] + f[10] * w[10, j] + f[11] * w[11, j]
    top = f[12] * w[12, j] + f[13] * w[13, j] + f[14] * w[14, j] + f[15] * w[15, j]
    return (low + middle) + (high + top)


@kernel
def query(field, x, y, z, features, hidden):
    """Raw density at a point in cube coordinates; leaves the hidden layer in hidden [32], features [16] is scratch."""
    lookup(field, x, y, z, features)
    weight, bias, output = field.hidden_weight, field.hidden_bias, field.density_weight
    for j in range(HIDDEN):
        hidden[j] = softplus(bias[j] + pre_activation(features, weight, j))
    total = field.density_bias
    for j in range(HIDDEN):
        total += hidden[j] * output[j]
    return total


@numba.njit(cache=True, fastmath=True, error_model="numpy", nogil=True)
def density_of_points(field, points, densities, begin, end):
    """Fill densities [M] with the raw, uncropped density at points [M, 3] in cube coordinates, for begin..end."""
    features, hidden = np.empty(LANES, np.float32), np.empty(HIDDEN, np.float32)
    for i in range(begin, end):
        densities[i] = query(field, points[i, 0], points[i, 1], points[i, 2], features, hidden)


@numba.njit(cache=True, fastmath=True, error_model="numpy", nogil=True)
def density_of_grid(field, xs, ys, zs, densities, begin, end):
    """Fill densities [X, Y, Z] at the points of a grid with coordinates xs, ys, zs, for begin..end of xs."""
    features, hidden = np.empty(LANES, np.float32), np.empty(HIDDEN, np.float32)
    for i in range(begin, end):
        for j in range(ys.shape[0]):
            for k in range(zs.shape[0]):
                densities[i, j, k] = query(field, xs[i], ys[j], zs[k], features, hidden)
