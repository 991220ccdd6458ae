"""Eyelashes: curved blades rooted on the lid margins; they travel with the lids. Metres, template space."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..mannequin import Mannequin

_STEPS = (0.0, 0.38, 0.72, 1.0)
_WIDTHS = (1.0, 0.85, 0.5, 0.0)
UPPER_COUNT, LOWER_COUNT = 40, 22


@dataclasses.dataclass(frozen=True)
class Lashes:
    """opened, closed: [V, 3], lids up and lids down.  faces: [F, 3].  follows: [V] skin vertex whose shape, expression
    and skinning each vertex shares.  left: [V] bool, whether the left lid carries it."""

    opened: np.ndarray
    closed: np.ndarray
    faces: np.ndarray
    follows: np.ndarray
    left: np.ndarray


def build_lashes(body: Mannequin, length_mm: float, thickness_mm: float, generator: np.random.Generator) -> Lashes:
    """Lashes of both eyes; `length_mm` of the longest upper ones, `thickness_mm` at their roots."""
    pieces = []
    for side, name in ((1, "left_eye"), (-1, "right_eye")):
        points = body.vertices[body.part_vertices[name]]
        center = 0.5 * (points.min(axis=0) + points.max(axis=0))
        for upper, count, share in ((True, UPPER_COUNT, 1.0), (False, LOWER_COUNT, 0.5)):
            border = body.slits[name][0 if upper else 1]
            jitter = generator.uniform(-0.35, 0.35, (3, count))
            along = (np.arange(count) + 0.5 + jitter[0]) / count
            lengths = 1e-3 * length_mm * share * (0.62 + 0.38 * np.sin(np.pi * _outward(along, side)) ** 0.8)
            lengths = lengths * (0.85 + 0.25 * _outward(along, side)) * (1 + 0.3 * jitter[1])
            blades = _Blades(border, along, lengths, 1e-3 * thickness_mm * (1.0 if upper else 0.7), jitter[2])
            opened = _blades(body.vertices, blades, center, side, upper)
            closed = _blades(body.closed_vertices, blades, center, side, upper, lowered=True)
            nearest = border[np.clip(np.round(along * (len(border) - 1)).astype(int), 0, len(border) - 1)]
            pieces.append((opened, closed, np.repeat(nearest, opened.shape[1]), side))
    opened = np.concatenate([piece[0].reshape(-1, 3) for piece in pieces])
    closed = np.concatenate([piece[1].reshape(-1, 3) for piece in pieces])
    follows = np.concatenate([piece[2] for piece in pieces])
    left = np.concatenate([np.full(len(piece[2]), piece[3] > 0) for piece in pieces])
    return Lashes(opened, closed, _blade_faces(len(opened) // 7), follows, left)


@dataclasses.dataclass(frozen=True)
class _Blades:
    border: np.ndarray
    along: np.ndarray
    lengths: np.ndarray
    thickness: float
    lean: np.ndarray


def _outward(along: np.ndarray, side: int) -> np.ndarray:
    """Position between the inner (0) and outer (1) corner; borders run from the subject's right to the left."""
    return along if side > 0 else 1 - along


def _blades(
    vertices: np.ndarray, blades: _Blades, center: np.ndarray, side: int, upper: bool, lowered: bool = False
) -> np.ndarray:
    """Blades [count, 7, 3]: three pairs and a tip, curving away from the eye."""
    rim = vertices[blades.border]
    position = 0.04 + 0.92 * blades.along
    at = position * (len(rim) - 1)
    low = np.minimum(at.astype(int), len(rim) - 2)
    root = rim[low] + (rim[low + 1] - rim[low]) * (at - low)[:, None]
    tangent = _unit(rim[low + 1] - rim[low])
    radial = _unit(root - center)
    fan = 0.55 * (2 * _outward(blades.along, side) - 1) * side + 0.25 * blades.lean
    rise = (0.30 if upper else -0.42) if not lowered else (-0.30 if upper else -0.42)
    curl = (0.95 if upper else -0.25) if not lowered else (0.55 if upper else -0.25)
    up = np.array([0.0, 1.0, 0.0])
    start = _unit(radial + rise * up + fan[:, None] * tangent)
    root = root + 0.0002 * radial
    steps = np.array(_STEPS)[None, :, None] * blades.lengths[:, None, None]
    bend = curl * np.array(_STEPS)[None, :, None] ** 2 * blades.lengths[:, None, None] * 0.55
    middle = root[:, None] + steps * start[:, None] + bend * up
    half = 0.5 * blades.thickness * np.array(_WIDTHS)[None, :, None] * tangent[:, None]
    left, right = middle - half, middle + half
    return np.concatenate(
        [np.stack([left[:, :3], right[:, :3]], axis=2).reshape(len(root), 6, 3), middle[:, 3:]], axis=1
    )


def _blade_faces(count: int) -> np.ndarray:
    pattern = np.array([[0, 1, 2], [2, 1, 3], [2, 3, 4], [4, 3, 5], [4, 5, 6]])
    return (pattern[None] + 7 * np.arange(count)[:, None, None]).reshape(-1, 3)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
