"""Baked shadow: how much of the sky and of the key light each vertex sees, from depth maps of the resting figure.

The maps are splatted from the vertices, which lie closer together than a map's pixels: that takes a tenth of the time
of drawing the triangles and is as good for light that is blurred anyway.
"""

from __future__ import annotations

import math

import numpy as np

from ...kernels import numba

SKY_DIRECTIONS = 40
MAP_SIZE = 112
_EXTENT = 1.75  # world units that a map spans
_OFFSET = 0.016  # the probe starts this far off the surface, about a map's pixel
_BIAS = 0.010
_CENTER = np.array([0.0, 0.20, 0.0])


def sphere_directions(count: int) -> np.ndarray:
    """Directions [count, 3] spread evenly over the sphere (Fibonacci lattice)."""
    step = np.arange(count) + 0.5
    height = 1 - 2 * step / count
    angle = np.pi * (1 + math.sqrt(5)) * step
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


def _frames(directions: np.ndarray) -> np.ndarray:
    """Rotations [D, 3, 3] whose third row is the direction: map coordinates x, y and height above the map's plane."""
    up = np.where(np.abs(directions[:, 1:2]) < 0.95, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    right = np.cross(up, directions)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(directions, right), directions], axis=1)


@numba.njit(cache=True, fastmath=True, forceinline=True)
def _splat(points, casts, frame, scale, heights):
    """Highest point over each pixel of a map [S, S]; a point covers the four pixels around it."""
    size = heights.shape[0]
    heights[:] = -1e9
    for v in range(points.shape[0]):
        if not casts[v]:
            continue
        x, y, z = points[v, 0], points[v, 1], points[v, 2]
        px = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z) * scale + 0.5 * size - 0.5
        py = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z) * scale + 0.5 * size - 0.5
        h = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z
        ix, iy = int(math.floor(px)), int(math.floor(py))
        if ix < 0 or iy < 0 or ix + 1 >= size or iy + 1 >= size:
            continue
        for dy in range(2):
            for dx in range(2):
                if h > heights[iy + dy, ix + dx]:
                    heights[iy + dy, ix + dx] = h


@numba.njit(cache=True, fastmath=True, forceinline=True)
def _share_seen(heights, px, py, height):
    """Share of the four nearest map pixels that nothing higher covers (percentage closer filtering)."""
    size = heights.shape[0]
    ix, iy = int(math.floor(px)), int(math.floor(py))
    if ix < 0 or iy < 0 or ix + 1 >= size or iy + 1 >= size:
        return 1.0
    tx, ty = px - ix, py - iy
    total = 0.0
    for dy in range(2):
        for dx in range(2):
            if heights[iy + dy, ix + dx] < height:
                total += (tx if dx else 1.0 - tx) * (ty if dy else 1.0 - ty)
    return total


@numba.njit(cache=True, fastmath=True)
def _gather(points, normals, casts, frames, scale, bias, out):
    """out [V, 3]: sky seen and sky possible, both cosine weighted; share of the light of the last frame."""
    heights = np.empty((MAP_SIZE, MAP_SIZE))
    out[:] = 0.0
    for d in range(frames.shape[0]):
        frame = frames[d]
        _splat(points, casts, frame, scale, heights)
        last = d == frames.shape[0] - 1
        for v in range(points.shape[0]):
            nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
            cosine = nx * frame[2, 0] + ny * frame[2, 1] + nz * frame[2, 2]
            if cosine < 0.02 and not last:
                continue
            x, y, z = points[v, 0] + _OFFSET * nx, points[v, 1] + _OFFSET * ny, points[v, 2] + _OFFSET * nz
            px = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z) * scale + 0.5 * MAP_SIZE - 0.5
            py = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z) * scale + 0.5 * MAP_SIZE - 0.5
            h = frame[2, 0] * x + frame[2, 1] * y + frame[2, 2] * z
            # On a slope the pixels beside a point are higher by up to a pixel times the slope.
            slope = math.sqrt(max(0.0, 1.0 - cosine * cosine)) / max(cosine, 0.25)
            share = _share_seen(heights, px, py, h + bias * (1.0 + slope))
            if last:
                out[v, 2] = share
            else:
                out[v, 0] += share * cosine
                out[v, 1] += cosine


def bake_occlusion(
    vertices: np.ndarray, normals: np.ndarray, casts: np.ndarray, key: np.ndarray, directions: int = SKY_DIRECTIONS
) -> tuple[np.ndarray, np.ndarray]:
    """(open_sky [V], key_light [V]) in 0..1 of world vertices [V, 3] with unit normals [V, 3].

    casts: [V] bool, which vertices throw shadow.  key: [3] unit direction toward the key light.
    """
    frames = _frames(np.concatenate([sphere_directions(directions), key[None]]))
    out = np.empty((len(vertices), 3))
    _gather(vertices - _CENTER, normals, casts, frames, MAP_SIZE / _EXTENT, _BIAS, out)
    return out[:, 0] / np.maximum(out[:, 1], 1e-6), out[:, 2]
