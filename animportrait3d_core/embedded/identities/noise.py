"""Deterministic lattice noise for procedural textures and relief, compiled; no state, no tables.

Value noise on an integer lattice with a quintic fade (Perlin, "Improving noise", 2002) and cellular noise (Worley,
1996). The hash is the finaliser of MurmurHash3. All functions are pure: equal arguments, equal values on every machine.
"""

from __future__ import annotations

import math

import numpy as np

from ...kernels import numba

compiled = numba.njit(cache=True, fastmath=True, forceinline=True)


@numba.njit(cache=True)
def lattice_hash(x: int, y: int, z: int, seed: int) -> float:
    """Uniform number in 0..1 belonging to one integer lattice point."""
    h = np.uint32(x * 73856093) ^ np.uint32(y * 19349663) ^ np.uint32(z * 83492791) ^ np.uint32(seed * 374761393)
    h ^= h >> np.uint32(16)
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h ^= h >> np.uint32(13)
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    h ^= h >> np.uint32(16)
    return h * (1.0 / 4294967296.0)


@compiled
def smoothstep(low: float, high: float, value: float) -> float:
    """Cubic ramp from 0 at `low` to 1 at `high`; `low` may lie above `high`."""
    t = (value - low) / (high - low)
    t = min(1.0, max(0.0, t))
    return t * t * (3.0 - 2.0 * t)


@compiled
def bump(value: float) -> float:
    """A smooth hat: 1 at 0, 0 from |value| = 1 on."""
    v = value * value
    return (1.0 - v) * (1.0 - v) if v < 1.0 else 0.0


@compiled
def noise2(x: float, y: float, seed: int) -> float:
    """Value noise in 0..1 with unit wavelength in the plane."""
    fx, fy = math.floor(x), math.floor(y)
    ix, iy = int(fx), int(fy)
    tx, ty = x - fx, y - fy
    tx = tx * tx * tx * (tx * (tx * 6.0 - 15.0) + 10.0)
    ty = ty * ty * ty * (ty * (ty * 6.0 - 15.0) + 10.0)
    a = lattice_hash(ix, iy, 0, seed) * (1.0 - tx) + lattice_hash(ix + 1, iy, 0, seed) * tx
    b = lattice_hash(ix, iy + 1, 0, seed) * (1.0 - tx) + lattice_hash(ix + 1, iy + 1, 0, seed) * tx
    return a * (1.0 - ty) + b * ty


@compiled
def noise3(x: float, y: float, z: float, seed: int) -> float:
    """Value noise in 0..1 with unit wavelength in space."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    ix, iy, iz = int(fx), int(fy), int(fz)
    tx, ty, tz = x - fx, y - fy, z - fz
    tx = tx * tx * (3.0 - 2.0 * tx)
    ty = ty * ty * (3.0 - 2.0 * ty)
    tz = tz * tz * (3.0 - 2.0 * tz)
    total = 0.0
    for dz in range(2):
        wz = tz if dz else 1.0 - tz
        for dy in range(2):
            wy = wz * (ty if dy else 1.0 - ty)
            left = lattice_hash(ix, iy + dy, iz + dz, seed)
            right = lattice_hash(ix + 1, iy + dy, iz + dz, seed)
            total += wy * (left * (1.0 - tx) + right * tx)
    return total


@compiled
def fractal3(x: float, y: float, z: float, octaves: int, seed: int) -> float:
    """Sum of `octaves` of value noise, each of half the wavelength and half the weight; in 0..1, mean 0.5."""
    total, weight, scale, norm = 0.0, 1.0, 1.0, 0.0
    for octave in range(octaves):
        total += weight * noise3(x * scale, y * scale, z * scale, seed + octave)
        norm += weight
        weight *= 0.5
        scale *= 2.03
    return total / norm


@compiled
def cells3(x: float, y: float, z: float, seed: int) -> tuple[float, float]:
    """Distance to the nearest of one random point per lattice cell, and that point's own uniform number."""
    fx, fy, fz = int(math.floor(x)), int(math.floor(y)), int(math.floor(z))
    best, number = 9.0, 0.0
    for dz in range(-1, 2):
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                cx, cy, cz = fx + dx, fy + dy, fz + dz
                px = cx + lattice_hash(cx, cy, cz, seed) - x
                py = cy + lattice_hash(cx, cy, cz, seed + 101) - y
                pz = cz + lattice_hash(cx, cy, cz, seed + 202) - z
                squared = px * px + py * py + pz * pz
                if squared < best:
                    best = squared
                    number = lattice_hash(cx, cy, cz, seed + 303)
    return math.sqrt(best), number
