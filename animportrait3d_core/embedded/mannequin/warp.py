"""Smooth displacement fields that move whole features: eyes, mouth, nose, lower face, and small asymmetries."""

from __future__ import annotations

import numpy as np

from . import distance
from .fields import smoothstep
from .parameters import WARP_PARAMETERS

_INDEX = {name: position for position, name in enumerate(WARP_PARAMETERS)}


def _bump(points: np.ndarray, center: tuple[float, float, float], width: tuple[float, float, float]) -> np.ndarray:
    return np.exp(-np.sum(((points - np.array(center)) / np.array(width)) ** 2, axis=-1))


def warp(points: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Displacement (mm) [n, 3] of points [n, 3] in the local frame for WARP parameters [len(WARP_PARAMETERS)]."""
    amount = {name: float(amounts[k]) for name, k in _INDEX.items()}
    move = np.zeros_like(points)
    ex, ey, ez = distance.EYE_CENTER
    front = smoothstep(-20.0, 40.0, points[:, 2])
    x, y = points[:, 0], points[:, 1]
    for side in (-1, 1):
        eye = _bump(points, (side * ex, ey, ez + 10), (24.0, 22.0, 34.0))
        move[:, 0] += side * 1.5 * amount["eye_spacing"] * eye
        move[:, 1] += (1.1 * amount["eye_height"] + side * 0.0) * eye
        turn = np.deg2rad(3.0) * amount["eye_tilt"] * side * _bump(points, (side * ex, ey, ez + 10), (20.0, 16.0, 30.0))
        move[:, 1] += turn * (x - side * ex)
        move[:, 0] -= turn * (y - ey)
        brow = _bump(points, (side * 30.0, 21.0, 76.0), (22.0, 9.0, 30.0))
        move[:, 1] += 1.6 * amount["brow_height"] * brow
        cheek = _bump(points, (side * 40.0, -45.0, 55.0), (24.0, 26.0, 34.0))
        move[:, 0] += 1.1 * amount["cheek_asymmetry"] * cheek
    mouth = _bump(points, (0.0, -75.0, 84.0), (38.0, 24.0, 60.0))
    move[:, 0] += 0.06 * amount["mouth_width"] * mouth * x
    move[:, 1] += (1.5 * amount["mouth_height"] + 0.025 * amount["mouth_slant"] * x) * mouth
    nose = _bump(points, (0.0, -47.0, 98.0), (26.0, 17.0, 34.0))
    move[:, 1] -= 2.2 * amount["nose_length"] * nose
    move[:, 0] += 1.1 * amount["nose_shift"] * nose
    below = smoothstep(-25.0, -115.0, y) * (1 - smoothstep(-125.0, -185.0, y)) * front
    move[:, 1] -= 3.0 * amount["face_length"] * below
    move[:, 0] += 0.030 * amount["lower_face_width"] * below * x
    chin = _bump(points, (0.0, -106.0, 80.0), (30.0, 20.0, 40.0))
    move[:, 0] += 1.3 * amount["chin_shift"] * chin
    return move
