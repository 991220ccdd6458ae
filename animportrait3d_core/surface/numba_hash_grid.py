"""Numba kernels of the hash-grid encoding: trilinear look-up in every level, and the gradient to the table.

Each level owns its slice of the table, so the backward pass runs levels in parallel without races, and adds up the
points of a level in their order: the result does not depend on the number of threads. The twin is in `hash_grid.py`.
"""

from __future__ import annotations

import numpy as np

from ..kernels import numba
from ..render.threads import run_parallel

_PRIME_Y, _PRIME_Z = np.int64(2654435761), np.int64(805459861)
_HALF, _ONE = np.float32(0.5), np.float32(1)


@numba.njit(error_model="numpy", inline="always")
def _line(y, z, resolution, hashed):
    """What a row of grid vertices along x shares: to be combined with x by `_row`."""
    if hashed:
        return (y * _PRIME_Y) ^ (z * _PRIME_Z)
    return resolution * (y + resolution * z)


@numba.njit(error_model="numpy", inline="always")
def _row(x, line, rows, hashed):
    """Row of a grid vertex within its level: dense where the level fits, else the spatial hash (`hash_grid.py`)."""
    if hashed:
        return (x ^ line) & (rows - 1)
    row = x + line
    return row - rows if row >= rows else row


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _encode(points, table, levels, scales, encoded, begin, end):
    """Fills encoded[begin:end] [N, 2 L]; levels [L, 4] holds resolution, first row, rows and whether it is hashed."""
    for level in range(levels.shape[0]):
        resolution, start, rows = levels[level, 0], levels[level, 1], levels[level, 2]
        hashed, scale = levels[level, 3] == 1, scales[level]
        for i in range(begin, end):
            px, py, pz = points[i, 0] * scale + _HALF, points[i, 1] * scale + _HALF, points[i, 2] * scale + _HALF
            x, y, z = np.int64(px), np.int64(py), np.int64(pz)
            wx, wy, wz = px - np.float32(x), py - np.float32(y), pz - np.float32(z)
            first, second = np.float32(0), np.float32(0)
            for dz in range(2):
                for dy in range(2):
                    line = _line(y + dy, z + dz, resolution, hashed)
                    left, right = start + _row(x, line, rows, hashed), start + _row(x + 1, line, rows, hashed)
                    weight = (wy if dy else _ONE - wy) * (wz if dz else _ONE - wz)
                    first += weight * (table[left, 0] * (_ONE - wx) + table[right, 0] * wx)
                    second += weight * (table[left, 1] * (_ONE - wx) + table[right, 1] * wx)
            encoded[i, 2 * level], encoded[i, 2 * level + 1] = first, second


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _scatter(points, gradient, levels, scales, table_gradient, begin, end):
    """Adds gradient [N, 2 L] of the encoding to the rows of levels begin..end of table_gradient."""
    for level in range(begin, end):
        resolution, start, rows = levels[level, 0], levels[level, 1], levels[level, 2]
        hashed, scale = levels[level, 3] == 1, scales[level]
        for i in range(points.shape[0]):
            px, py, pz = points[i, 0] * scale + _HALF, points[i, 1] * scale + _HALF, points[i, 2] * scale + _HALF
            x, y, z = np.int64(px), np.int64(py), np.int64(pz)
            wx, wy, wz = px - np.float32(x), py - np.float32(y), pz - np.float32(z)
            first, second = gradient[i, 2 * level], gradient[i, 2 * level + 1]
            for dz in range(2):
                for dy in range(2):
                    line = _line(y + dy, z + dz, resolution, hashed)
                    left, right = start + _row(x, line, rows, hashed), start + _row(x + 1, line, rows, hashed)
                    weight = (wy if dy else _ONE - wy) * (wz if dz else _ONE - wz)
                    table_gradient[left, 0] += weight * (_ONE - wx) * first
                    table_gradient[left, 1] += weight * (_ONE - wx) * second
                    table_gradient[right, 0] += weight * wx * first
                    table_gradient[right, 1] += weight * wx * second


def encode(points: np.ndarray, table: np.ndarray, levels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Encoding [N, 2 L] float32 of float32 points [N, 3] in 0..1."""
    encoded = np.empty((len(points), 2 * len(levels)), np.float32)
    run_parallel(_encode, len(points), points, table, levels, scales, encoded)
    return encoded


def table_gradient(
    points: np.ndarray, gradient: np.ndarray, levels: np.ndarray, scales: np.ndarray, rows: int
) -> np.ndarray:
    """Gradient [rows, 2] float32 to the table, of the gradient [N, 2 L] to the encoding."""
    result = np.zeros((rows, 2), np.float32)
    run_parallel(_scatter, len(levels), points, gradient, levels, scales, result)
    return result
