"""Buns and ponytails: closed forms of gathered hair behind the head. Millimetres."""

from __future__ import annotations

import dataclasses

import numpy as np

from .hair_styles import KNOT_CENTERS, HairStyle
from .noise_fields import fractal_field
from .shells import grid_triangles

_COLUMNS = 40


@dataclasses.dataclass(frozen=True)
class Knot:
    """points [V, 3], faces [F, 3] outward, chart [V, 2] (around, along), weld [V], and the centre at the head [3]."""

    points: np.ndarray
    faces: np.ndarray
    chart: np.ndarray
    weld: np.ndarray
    center: np.ndarray


def build_knot(style: HairStyle, generator: np.random.Generator) -> Knot | None:
    """The knot of a style, None if it has none."""
    if style.knot == "none":
        return None
    center = np.array(KNOT_CENTERS[style.knot])
    rings = _bun(center, generator) if style.knot == "bun" else _tail(center, generator)
    rows = len(rings)
    points = rings.reshape(-1, 3)
    around, along = np.meshgrid(np.linspace(0, 1, _COLUMNS + 1), np.linspace(0, 1, rows))
    column = np.tile(np.arange(_COLUMNS + 1), rows)
    weld = np.repeat(np.arange(rows), _COLUMNS + 1) * (_COLUMNS + 1) + column % _COLUMNS
    chart = np.stack([around.ravel(), along.ravel()], axis=1)
    return Knot(points, grid_triangles(rows, _COLUMNS + 1), chart, weld, center)


def _frame(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across an axis: the subject's left, and the third."""
    side = np.array([1.0, 0.0, 0.0])
    side = side - axis * (side @ axis)
    side /= np.linalg.norm(side)
    return side, np.cross(axis, side)


def _bun(center: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A coiled ball: rings [R, C + 1, 3] from its outer pole to the head."""
    axis = center - np.array([0.0, 20.0, -12.0])
    axis /= np.linalg.norm(axis)
    side, third = _frame(axis)
    polar = np.linspace(0.02, 2.75, 30)[:, None]
    angle = np.linspace(0, 2 * np.pi, _COLUMNS + 1)[None]
    radius = 33.0 * (1 + 0.06 * np.sin(angle + 2.2 * polar * 2.0) + 0.03 * np.sin(3 * angle - 5 * polar))
    radius = radius * (1 + 0.03 * np.sin(9 * (angle / 3 + polar * 1.3)))
    flat = 0.80
    twist = angle - 1.1 * polar
    return center + radius[..., None] * (
        np.sin(polar)[..., None] * (np.cos(twist)[..., None] * side + np.sin(twist)[..., None] * third)
        + flat * (np.cos(polar) + 0 * angle)[..., None] * axis
    )


def _tail(center: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A ponytail: rings [R, C + 1, 3] from the band at the head to the tip."""
    steps = np.linspace(0, 1, 44)[:, None]
    path = np.concatenate(
        [0 * steps, 10.0 + 16.0 * np.sin(np.pi * np.minimum(steps * 2.2, 1.0)) - 205.0 * steps**1.25,
         18.0 - 52.0 * np.sin(np.pi * np.minimum(steps * 1.15, 1.0)) ** 0.8 - 16.0 * steps], axis=1
    )  # fmt: skip
    path = path + center
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.tile([1.0, 0.0, 0.0], (len(path), 1))
    third = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, _COLUMNS + 1)[None]
    grow = np.minimum(steps / 0.12, 1.0)
    radius = (9.0 + 15.0 * grow * (2 - grow)) * np.clip(1 - steps**5.0, 0.0, 1) ** 0.6 * (1 - 0.30 * steps) + 0.5
    radius = radius * (1 + 0.10 * np.sin(5 * angle + 1.3 + steps * 2) * grow)
    ripple = fractal_field(np.stack(np.broadcast_arrays(np.cos(angle) * 3, np.sin(angle) * 3, steps * 4), -1), 2, 5)
    radius = radius * (0.9 + 0.2 * ripple)
    return path[:, None] + radius[..., None] * (
        np.cos(angle)[..., None] * side[:, None] * 1.12 - np.sin(angle)[..., None] * third[:, None]
    )
