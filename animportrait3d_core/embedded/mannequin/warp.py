"""Smooth displacement fields that move whole features: eyes, nose, lips, lower face, ears, small asymmetries."""

from __future__ import annotations

import numpy as np

from ...body.shape_grids import smoothstep
from . import distance
from .layout import mouth_line
from .parameters import WARP_PARAMETERS

_INDEX = {name: position for position, name in enumerate(WARP_PARAMETERS)}


def _bump(points: np.ndarray, center: tuple[float, float, float], width: tuple[float, float, float]) -> np.ndarray:
    return np.exp(-np.sum(((points - np.array(center)) / np.array(width)) ** 2, axis=-1))


def _eyes(points: np.ndarray, amount: dict[str, float]) -> np.ndarray:
    move = np.zeros_like(points)
    ex, ey, ez = distance.EYE_CENTER
    x, y = points[:, 0], points[:, 1]
    for side in (-1, 1):
        eye = _bump(points, (side * ex, ey, ez + 10), (24.0, 22.0, 34.0))
        move[:, 0] += side * 1.7 * amount["eye_spacing"] * eye
        move[:, 1] += 1.1 * amount["eye_height"] * eye
        turn = np.deg2rad(3.0) * amount["eye_tilt"] * side * _bump(points, (side * ex, ey, ez + 10), (20.0, 16.0, 30.0))
        move[:, 1] += turn * (x - side * ex)
        move[:, 0] -= turn * (y - ey)
        brow = _bump(points, (side * 30.0, 21.0, 76.0), (22.0, 9.0, 30.0))
        move[:, 1] += 1.6 * amount["brow_height"] * brow
    return move


def _nose(points: np.ndarray, amount: dict[str, float]) -> np.ndarray:
    move = np.zeros_like(points)
    x = points[:, 0]
    lower = _bump(points, (0.0, -47.0, 98.0), (24.0, 17.0, 30.0))
    move[:, 0] += (0.10 * amount["nose_width"] * x + 1.1 * amount["nose_shift"]) * lower
    move[:, 1] -= 2.2 * amount["nose_length"] * lower
    move[:, 2] += 2.8 * amount["nose_projection"] * _bump(points, (0.0, -42.0, 106.0), (15.0, 20.0, 20.0))
    move[:, 2] += 1.9 * amount["nose_bridge"] * _bump(points, (0.0, 0.0, 87.0), (11.0, 18.0, 18.0))
    move[:, 2] += 1.7 * amount["nose_hump"] * _bump(points, (0.0, -14.0, 96.0), (9.0, 9.0, 16.0))
    move[:, 1] += 1.9 * amount["nose_tip_height"] * _bump(points, (0.0, -44.0, 109.0), (14.0, 12.0, 13.0))
    tip = _bump(points, (0.0, -43.0, 104.0), (12.0, 11.0, 12.0))
    move += 0.10 * amount["nose_tip_size"] * tip[:, None] * (points - np.array([0.0, -43.0, 101.0]))
    for side in (-1, 1):
        wing = _bump(points, (side * 16.0, -47.0, 94.0), (7.0, 8.0, 11.0))
        move[:, 0] += side * 1.3 * amount["alar_flare"] * wing
        move[:, 1] += 0.5 * amount["alar_flare"] * wing
    return move


def _mouth(points: np.ndarray, amount: dict[str, float]) -> np.ndarray:
    move = np.zeros_like(points)
    x = points[:, 0]
    mouth = _bump(points, (0.0, -75.0, 84.0), (38.0, 24.0, 60.0))
    move[:, 0] += 0.075 * amount["mouth_width"] * mouth * x
    move[:, 1] += (1.5 * amount["mouth_height"] + 0.025 * amount["mouth_slant"] * x) * mouth
    above_seam = points[:, 1] - mouth_line(x)
    # Only the outside of the lips swells: the sack behind them stays, and the seam itself does not move apart.
    outside = smoothstep(-4.0, 0.0, points[:, 2] - (94.0 - 13.0 * np.clip(np.abs(x) / 25.0, 0, 1.2) ** 2))
    for sign, depth in ((1.0, 5.5), (-1.0, 6.5)):
        full = amount["lip_fullness"] + 0.7 * sign * amount["upper_lip_share"]
        height = np.clip(sign * above_seam / depth, 0.0, None)
        swell = height * np.exp(1.0 - height) * np.clip(1 - (x / 27.0) ** 2, 0, 1) * outside
        move[:, 1] += sign * 1.2 * full * swell
        move[:, 2] += 0.9 * full * swell
    return move


def _lower_face(points: np.ndarray, amount: dict[str, float]) -> np.ndarray:
    move = np.zeros_like(points)
    x, y = points[:, 0], points[:, 1]
    front = smoothstep(-20.0, 40.0, points[:, 2])
    below = smoothstep(-25.0, -115.0, y) * (1 - smoothstep(-125.0, -185.0, y)) * front
    move[:, 1] -= 3.0 * amount["face_length"] * below
    move[:, 0] += 0.030 * amount["lower_face_width"] * below * x
    move[:, 0] += 1.3 * amount["chin_shift"] * _bump(points, (0.0, -106.0, 80.0), (30.0, 20.0, 40.0))
    for side in (-1, 1):
        move[:, 0] += 1.1 * amount["cheek_asymmetry"] * _bump(points, (side * 40.0, -45.0, 55.0), (24.0, 26.0, 34.0))
    return move


def _ears(points: np.ndarray, amount: dict[str, float]) -> np.ndarray:
    """Only what stands out beyond the side of the head."""
    move = np.zeros_like(points)
    cx, cy, cz = distance.EAR_CENTER
    near = np.exp(-(((points[:, 1] - cy) / 42.0) ** 4) - ((points[:, 2] - cz) / 34.0) ** 4)
    for side in (-1, 1):
        free = smoothstep(cx, cx + 11.0, side * points[:, 0]) * near
        center = np.array([side * cx, cy, cz])
        move += 0.07 * amount["ear_size"] * free[:, None] * (points - center)
        move[:, 0] += side * 2.4 * amount["ear_angle"] * free
        move[:, 1] -= 1.8 * amount["ear_lobe"] * free * smoothstep(cy - 8.0, cy - 30.0, points[:, 1])
    return move


def warp(points: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Displacement (mm) [n, 3] of points [n, 3] in the local frame for WARP parameters [len(WARP_PARAMETERS)]."""
    amount = {name: float(amounts[k]) for name, k in _INDEX.items()}
    return np.sum([field(points, amount) for field in (_eyes, _nose, _mouth, _lower_face, _ears)], axis=0)
