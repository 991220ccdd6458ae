"""Ambient openness of the rest pose: how much light from all around reaches each vertex, for shading and textures."""

from __future__ import annotations

import math

import numpy as np

from ...body.shape_grids import smoothstep
from ...kernels import numba
from ...render.threads import run_parallel
from .bust import Bust
from .distance import signed_distance
from .fields import smoothed
from .parameters import SCULPT_COUNT
from .topology import skin_topology

RAYS = 20
REACH = 32.0  # mm; what is farther away takes no light


@numba.njit(cache=True, fastmath=True, nogil=True)
def _openness(points, normals, lobe, shape, result, begin, end):
    """Unoccluded share of a cosine lobe [RAYS, 3] around each normal, by marching through the sculpture."""
    for i in range(begin, end):
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        # A tangent frame without branches near the poles (Duff et al. 2017).
        sign = math.copysign(1.0, nz)
        a = -1.0 / (sign + nz)
        b = nx * ny * a
        # Facets lie a little inside the sculpture: start above it, or they would shade themselves.
        lift = max(0.0, -1.3 * signed_distance(points[i, 0], points[i, 1], points[i, 2], shape)) + 0.1
        px, py, pz = points[i, 0] + lift * nx, points[i, 1] + lift * ny, points[i, 2] + lift * nz
        lost = 0.0
        for ray in range(len(lobe)):
            u, v, w = lobe[ray, 0], lobe[ray, 1], lobe[ray, 2]
            dx = u * (1.0 + sign * nx * nx * a) + v * b + w * nx
            dy = u * sign * b + v * (sign + ny * ny * a) + w * ny
            dz = -u * sign * nx - v * ny + w * nz
            along = 1.2
            while along < REACH:
                value = signed_distance(px + along * dx, py + along * dy, pz + along * dz, shape)
                if value < -0.15:
                    lost += 1.0 - along / REACH
                    break
                along += max(0.8 * value, 1.5)
        result[i] = 1.0 - lost / len(lobe)


def _cosine_lobe() -> np.ndarray:
    """Directions [RAYS, 3] around +z, distributed as the cosine of the angle (Fibonacci spiral)."""
    share = (np.arange(RAYS) + 0.5) / RAYS
    around = np.pi * (1 + 5**0.5) * np.arange(RAYS)
    radius = np.sqrt(share)
    return np.stack([radius * np.cos(around), radius * np.sin(around), np.sqrt(1 - share)], axis=1)


def _vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = points[faces]
    normals = np.zeros_like(points)
    of_face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for k in range(3):
        np.add.at(normals, faces[:, k], of_face)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _skin_openness(skin: np.ndarray) -> np.ndarray:
    """Openness [n] of the skin [n, 3] in mm; the left half is computed, the right half mirrored."""
    topology = skin_topology()
    number = {tuple(key): i for i, key in enumerate(topology.keys.tolist())}
    source = np.array([number.get((r, abs(c), b), i) for i, (r, c, b) in enumerate(topology.keys.tolist())])
    source[topology.pole] = topology.pole
    left = np.unique(source)
    normals = _vertex_normals(skin, topology.faces)
    values = np.ones(len(skin))
    openness = np.empty(len(left))
    lobe, shape = _cosine_lobe(), np.zeros(SCULPT_COUNT)
    run_parallel(_openness, len(left), skin[left], normals[left], lobe, shape, openness)
    values[left] = openness
    values = values[source]
    return smoothed(topology.adjacency, values[:, None], 2, np.full(len(skin), 0.6))[:, 0]


def ambient_openness(bust: Bust) -> np.ndarray:
    """Openness [V] in 0..1 of the rest pose: 1 in the open, dark in nostrils, behind lips and deep in mouth and ear."""
    pieces = [_skin_openness(bust.closed[: skin_topology().count])]
    for part in bust.parts:
        points = part.opened
        if part.label in ("mouth_bag", "tongue", "gum", "teeth"):
            depth = smoothstep(92.0, 40.0, points[:, 2])
            floor = {"mouth_bag": 0.25, "tongue": 0.4, "gum": 0.4, "teeth": 0.55}[part.label]
            pieces.append(1.0 - (1.0 - floor) * depth)
        elif part.label == "ear":
            rim = np.abs(points[:, 0]) + 0.25 * np.abs(points[:, 1] + 18.0)
            pieces.append(0.5 + 0.45 * smoothstep(69.0, 84.0, rim))
        else:
            pieces.append(np.ones(len(points)))
    return np.clip(np.concatenate(pieces), 0.0, 1.0)
