"""The eyeballs' paint: pupil, iris with fibres and limbal ring, sclera with veins; colours are sRGB-coded 0..1."""

from __future__ import annotations

import math

import numpy as np

from ...kernels import numba
from .noise import noise2, smoothstep

CHART_DEGREES = 80.0  # angle from the pole of the cornea at the edge of the inscribed circle of the chart
PUPIL_DEGREES, IRIS_DEGREES = 9.5, 26.5

_jit = numba.njit(cache=True, fastmath=True, forceinline=True)


def eye_chart(directions: np.ndarray) -> np.ndarray:
    """Chart coordinates [..., 2] in 0..1 of directions [..., 3] from the eye's centre, gaze along +z."""
    unit = directions / np.maximum(np.linalg.norm(directions, axis=-1, keepdims=True), 1e-12)
    degrees = np.rad2deg(np.arccos(np.clip(unit[..., 2], -1, 1)))
    radius = 0.5 * np.minimum(degrees / CHART_DEGREES, 1.0)
    across = np.hypot(unit[..., 0], unit[..., 1])
    around = unit[..., :2] / np.maximum(across, 1e-12)[..., None]
    return 0.5 + radius[..., None] * around


@_jit
def _iris(texel, degrees, around, iris, seed):
    depth = (degrees - PUPIL_DEGREES) / (IRIS_DEGREES - PUPIL_DEGREES)
    turn = around / (2.0 * math.pi)
    wave = 0.6 * math.sin(around * 7.0 + seed) + 0.4 * math.sin(around * 17.0 + 2.0 * seed)
    fine = noise2(turn * 150.0 + 0.4 * wave, depth * 2.2, seed)
    coarse = noise2(turn * 46.0, depth * 1.6, seed + 1)
    fibres = 0.55 * fine + 0.45 * coarse
    light = 0.62 + 0.62 * fibres + 0.18 * smoothstep(0.2, 0.65, depth)
    collar = math.exp(-(((depth - 0.20 - 0.04 * wave) / 0.13) ** 2))
    limbal = smoothstep(0.70, 1.0, depth)
    inner = smoothstep(0.16, 0.0, depth)
    for k in range(3):
        warm = (0.50, 0.33, 0.16)[k]
        value = iris[k] * light
        value = value + (warm * light - value) * 0.42 * collar
        texel[k] = value * (1.0 - 0.72 * limbal) * (1.0 - 0.55 * inner)


@_jit
def _sclera(texel, degrees, around, x, y, seed, age):
    texel[0], texel[1], texel[2] = 0.905, 0.885, 0.865
    away = smoothstep(28.0, 72.0, degrees)
    bend = 5.0 * (noise2(x * 5.0, y * 5.0, seed + 20) - 0.5)
    line = abs(noise2(around * 2.6 + bend, degrees / 15.0, seed + 21) - 0.5)
    second = abs(noise2(around * 5.5 + bend, degrees / 10.0, seed + 22) - 0.5)
    vein = smoothstep(0.050, 0.008, line) + 0.6 * smoothstep(0.045, 0.008, second)
    strength = min(1.0, vein) * (0.10 + 0.40 * away) * smoothstep(30.0, 45.0, degrees)
    texel[1] *= (1.0 - 0.09 * away) * (1.0 - 0.36 * strength)
    texel[2] *= (1.0 - 0.11 * away - 0.05 * age) * (1.0 - 0.34 * strength)
    # the lids' own shadow: darker above and towards the corners
    shade = (
        1.0
        - 0.26 * smoothstep(0.08, 0.34, y)
        - 0.13 * smoothstep(0.05, 0.34, -y)
        - 0.16 * smoothstep(0.30, 0.50, abs(x))
    )
    for k in range(3):
        texel[k] *= shade


@numba.njit(cache=True, fastmath=True)
def paint_eye(iris, seed, age, out):
    """Paint a chart out [H, W, 5] (red, green, blue, relief, gloss), row 0 at the top."""
    height, width = out.shape[0], out.shape[1]
    for row in range(height):
        for column in range(width):
            x, y = (column + 0.5) / width - 0.5, 0.5 - (row + 0.5) / height
            degrees = min(1.0, 2.0 * math.sqrt(x * x + y * y)) * CHART_DEGREES
            around = math.atan2(y, x)
            texel = out[row, column]
            iris_color = np.empty(3)
            _sclera(texel, degrees, around, x, y, seed, age)
            if degrees < IRIS_DEGREES + 2.0:
                _iris(iris_color, min(degrees, IRIS_DEGREES), around, iris, seed)
                share = smoothstep(IRIS_DEGREES + 1.3, IRIS_DEGREES - 0.7, degrees)
                lid_shadow = 1.0 - 0.42 * smoothstep(0.02, 0.17, y)
                for k in range(3):
                    texel[k] += (iris_color[k] * lid_shadow - texel[k]) * share
                dark = smoothstep(PUPIL_DEGREES + 0.7, PUPIL_DEGREES - 0.5, degrees)
                for k in range(3):
                    texel[k] += (0.012 - texel[k]) * dark
            texel[3] = 0.0
            texel[4] = 1.0
