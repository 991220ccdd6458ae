"""Eyes unlike the mannequin's: lids of another slant, width and height, no lashes, sockets without eyeballs."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...parts import FigurePart
from ..identities.figure import Figure
from ..mannequin import build_mannequin

_LEFT_EYE, _RIGHT_EYE = 23, 24
_SLANT = 0.26
"""Radians by which the outer corners go up or down at most."""
_WIDTH, _HEIGHT = 0.2, 0.45
"""Logarithms of the greatest factors of the lids' width and opening."""
_NARROW = 0.15
"""Logarithm by which the opening is smaller on average: the mannequin's eyes are wide open."""
_UNEVEN = 0.15
"""By which share of these the two eyes differ at most."""
_REACH = (0.020, 0.036)
"""Metres from an eye's centre within which everything goes with the lids, and beyond which nothing does."""


def with_other_lids(figure: Figure, generator: np.random.Generator) -> Figure:
    """The figure with skin, rims and lashes around its eyes slid over the eyeballs, lids that close included.

    Every point keeps its distance from the eye's centre, so that lids stay on the eyeball.
    """
    moves = np.flatnonzero(_around_eyes(figure))
    common, rest = generator.uniform(-1, 1, 3), figure.rest.copy()
    opened, closed = figure.rest[moves], figure.rest[moves] + figure.lids[:, moves]
    for joint, side in ((_LEFT_EYE, 1), (_RIGHT_EYE, -1)):
        own = common + _UNEVEN * generator.uniform(-1, 1, 3)
        linear = _slanted(side * _SLANT * own[0], np.exp([_WIDTH * own[1], _HEIGHT * own[2] - _NARROW, 0.0]))
        center = figure.joints[joint]
        opened, closed = (_slid(points, center, linear) for points in (opened, closed))
    rest[moves] = opened
    lids = figure.lids.copy()
    lids[:, moves] = closed - opened
    return dataclasses.replace(figure, rest=rest, lids=lids)


def _around_eyes(figure: Figure) -> np.ndarray:
    """Vertices [V] bool of the bust and its lashes, without the eyeballs, which are round."""
    moves = (np.arange(len(figure.rest)) < figure.num_body) & ~_eyeballs(figure)
    moves[figure.faces[figure.face_parts == FigurePart.LASHES]] = True
    return moves


def _eyeballs(figure: Figure) -> np.ndarray:
    """Vertices [V] bool."""
    body, found = build_mannequin(), np.zeros(len(figure.rest), dtype=bool)
    found[: figure.num_body] = body.vertex_parts == body.part_names.index("eyeball")
    return found


def _slanted(angle: float, scale: np.ndarray) -> np.ndarray:
    """[3, 3]: scaled along x and y, then turned about z by an angle in radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) * scale


def _slid(points: np.ndarray, center: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Points [..., 3] whose directions from the centre are changed by a matrix, less with the distance."""
    offset = points - center
    length = np.linalg.norm(offset, axis=-1, keepdims=True)
    direction = offset @ linear.T
    direction *= length / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
    low, high = _REACH
    share = np.clip((length - low) / (high - low), 0, 1)
    return points + (1 - share**2 * (3 - 2 * share)) * (direction - offset)


def without_eyeballs(figure: Figure) -> Figure:
    """The figure with holes between its lids, as many meshes from elsewhere have them."""
    return figure.without_faces(_eyeballs(figure)[figure.faces].all(axis=1))


def without_lashes(figure: Figure) -> Figure:
    """The figure without eyelashes."""
    return figure.without_faces(figure.face_parts == FigurePart.LASHES)
