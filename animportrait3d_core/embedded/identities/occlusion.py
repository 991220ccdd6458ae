"""Baked shadow: how much of the sky and of the key light each vertex sees, from depth maps of the resting figure."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch

from ...cameras import Cameras
from ...render import rasterize_mesh

SKY_DIRECTIONS = 28
MAP_SIZE = 144
_DISTANCE = 12.0  # far enough that a pinhole camera is nearly a parallel projection
_EXTENT = 1.75  # world units that a map spans
_OFFSET = 0.012  # the probe starts this far off the surface, about a map's pixel


def sphere_directions(count: int) -> np.ndarray:
    """Directions [count, 3] spread evenly over the sphere (Fibonacci lattice)."""
    step = np.arange(count) + 0.5
    height = 1 - 2 * step / count
    angle = np.pi * (1 + math.sqrt(5)) * step
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


def _cameras_from(directions: np.ndarray, center: np.ndarray) -> Cameras:
    """Cameras that look along -directions at the centre from far away."""
    matrices = np.tile(np.eye(4), (len(directions), 1, 1))
    for matrix, direction in zip(matrices, directions):
        forward = -direction
        up = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.95 else np.array([0.0, 0.0, 1.0])
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        matrix[:3, :3] = rotation
        matrix[:3, 3] = -rotation @ (center + _DISTANCE * direction)
    focal = MAP_SIZE * _DISTANCE / _EXTENT
    K = np.array([[focal, 0, MAP_SIZE / 2], [0, focal, MAP_SIZE / 2], [0, 0, 1]])
    return Cameras(
        torch.from_numpy(matrices).float(), torch.from_numpy(np.tile(K, (len(directions), 1, 1))).float(), MAP_SIZE,
        MAP_SIZE,
    )  # fmt: skip


@numba.njit(cache=True, fastmath=True)
def _visible(depth, x, y, z):
    """Share of the four nearest map pixels from which a point at depth z is seen (percentage closer filtering)."""
    size = depth.shape[0]
    fx, fy = x - 0.5, y - 0.5
    ix, iy = int(math.floor(fx)), int(math.floor(fy))
    tx, ty = fx - ix, fy - iy
    total = 0.0
    for dy in range(2):
        for dx in range(2):
            px, py = ix + dx, iy + dy
            weight = (tx if dx else 1.0 - tx) * (ty if dy else 1.0 - ty)
            if px < 0 or py < 0 or px >= size or py >= size:
                total += weight
                continue
            near = depth[py, px]
            if near <= 0.0 or z < near + 0.006:
                total += weight
    return total


@numba.njit(cache=True, fastmath=True, parallel=True)
def _gather(points, normals, matrices, focal, depth, directions, out):
    """out [V, 2]: share of the sky seen, cosine weighted; share of the light of the last direction."""
    half = 0.5 * depth.shape[1]
    count = matrices.shape[0]
    for v in numba.prange(points.shape[0]):
        seen, norm = 0.0, 1e-6
        for d in range(count):
            cosine = (
                normals[v, 0] * directions[d, 0] + normals[v, 1] * directions[d, 1] + normals[v, 2] * directions[d, 2]
            )
            if cosine < 0.02 and d < count - 1:
                continue
            m = matrices[d]
            x, y, z = points[v, 0], points[v, 1], points[v, 2]
            cz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
            cx = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / cz * focal + half
            cy = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / cz * focal + half
            share = _visible(depth[d], cx, cy, cz)
            if d < count - 1:
                seen += share * cosine
                norm += cosine
            else:
                out[v, 1] = share
        out[v, 0] = seen / norm


def bake_occlusion(
    vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, key: np.ndarray, directions: int = SKY_DIRECTIONS
) -> tuple[np.ndarray, np.ndarray]:
    """(open_sky [V], key_light [V]) in 0..1 of world vertices [V, 3] with unit normals [V, 3]; key: [3] unit."""
    center = np.array([0.0, 0.25, 0.0])
    toward = np.concatenate([sphere_directions(directions), key[None]])
    cameras = _cameras_from(toward, center)
    image = rasterize_mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces), cameras)
    out = np.empty((len(vertices), 2))
    focal = float(cameras.K[0, 0, 0])
    probes = vertices + _OFFSET * normals
    _gather(probes, normals, cameras.world_to_camera.double().numpy(), focal, image.depth.numpy(), toward, out)
    return out[:, 0], out[:, 1]
