"""Regions of a head's skin from its landmarks and skinning weights: no list of vertices of any particular body.

Heights are those of landmarks, azimuths are about the vertical axis through the eyes' depth (0 = front, 180 = back).
"""

from __future__ import annotations

import numpy as np

from ..landmarks import CHIN, LEFT_OUTER_EYE, RIGHT_OUTER_EYE
from .reader import JOINTS

HAIRLINE_SHARE = 0.8  # of the distance from nose base to chin, above the brows
FACE_AZIMUTH = 77.0  # degrees; behind it are temples and ears
LIP_DEPTH = 0.045  # of the outer-eye distance: how far the lips' red reaches in behind their border
LID_HALF_AXES = (0.78, 0.5)  # of the eye's width: ellipse of the lids' skin
CHEEK_HALF_AXES = (0.17, 0.25)  # of the outer-eye distance: ellipse between mouth corner and jaw
HEAD_JOINTS = [JOINTS[name] for name in ("neck", "head", "jaw", "left_eye", "right_eye")]
NECK_SHARE = 0.7  # of the weight that these joints have, down to where the neck ends


def skin_regions(
    vertices: np.ndarray, weights: np.ndarray, landmarks: np.ndarray, mouth_gap: np.ndarray
) -> dict[str, np.ndarray]:
    """Vertex masks [V] bool of scalp, body, face, lips, eye_region and inner_cheek; for the outside skin alone.

    vertices: [V, 3] metres.  weights: [V, 55].  landmarks: [68 or 70, 3] on the template.  mouth_gap: [V] distance to
    the border of the mouth's opening, metres, for what lies behind it.
    """
    unit = float(np.linalg.norm(landmarks[LEFT_OUTER_EYE] - landmarks[RIGHT_OUTER_EYE]))
    middle = 0.5 * (landmarks[LEFT_OUTER_EYE] + landmarks[RIGHT_OUTER_EYE])
    y = vertices[:, 1]
    azimuth = _azimuth(vertices, middle, unit)
    head = weights[:, HEAD_JOINTS].sum(axis=1)
    scalp = (y > _hairline(azimuth, landmarks, middle)) & (head > 0.5)
    # The jaw line sinks from the ears to the chin.
    line = np.argsort(_azimuth(landmarks[:17], middle, unit) * np.sign(landmarks[:17, 0] - middle[0]))
    side = azimuth * np.sign(vertices[:, 0] - middle[0])
    jaw_azimuth = (_azimuth(landmarks[:17], middle, unit) * np.sign(landmarks[:17, 0] - middle[0]))[line]
    above_jaw = y > np.interp(side, jaw_azimuth, landmarks[:17, 1][line]) - 0.06 * unit
    front = vertices[:, 2] > landmarks[[0, 16], 2].mean() - 0.05 * unit
    face = ~scalp & (azimuth < FACE_AZIMUTH) & above_jaw & front & (head > 0.5)
    lips = _inside(vertices, landmarks[48:60]) & (vertices[:, 2] > landmarks[[48, 54], 2].min() - 0.1 * unit)
    return {
        "scalp": scalp & ~face,
        "body": (head < NECK_SHARE) & ~face,
        "face": face,
        "lips": (lips & face) | (mouth_gap < LIP_DEPTH * unit),
        "eye_region": _lids(vertices, landmarks, middle, unit),
        "inner_cheek": _cheeks(vertices, landmarks, unit) & face & ~lips,
    }


def _azimuth(points: np.ndarray, middle: np.ndarray, unit: float) -> np.ndarray:
    """Degrees from the front, 0..180, about an axis that lies 0.6 outer-eye distances behind the eyes' corners."""
    return np.degrees(np.arctan2(np.abs(points[:, 0] - middle[0]), points[:, 2] - middle[2] + 0.6 * unit))


def _hairline(azimuth: np.ndarray, landmarks: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Height above which the skin is scalp: over the forehead, down before the ear, over it and down to the nape.

    Ears reach from the height of the brows to that of the nose's base (a rule of portrait drawing).
    """
    brow, nose = landmarks[17:27, 1].max(), landmarks[33, 1]
    hairline, eyes = brow + HAIRLINE_SHARE * (nose - landmarks[CHIN, 1]), middle[1]
    heights = (hairline, hairline, 0.5 * (hairline + brow), brow, eyes, brow, brow, 0.5 * (eyes + nose), nose)
    return np.interp(azimuth, (0, 30, 55, 75, 88, 94, 128, 132, 180), heights)


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Whether points [n, 3] lie inside a polygon [m, 3], both seen from the front (even-odd rule)."""
    x, y = points[:, :1], points[:, 1:2]
    ax, ay = polygon[:, 0], polygon[:, 1]
    bx, by = np.roll(ax, -1), np.roll(ay, -1)
    crosses = (ay > y) != (by > y)
    at = ax + (y - ay) / np.where(by == ay, 1.0, by - ay) * (bx - ax)
    return (crosses & (x < at)).sum(axis=1) % 2 == 1


def _ellipse(points: np.ndarray, center: np.ndarray, half_axes: tuple[float, float]) -> np.ndarray:
    return (((points[:, :2] - center[:2]) / half_axes) ** 2).sum(axis=1) < 1


def _lids(vertices: np.ndarray, landmarks: np.ndarray, middle: np.ndarray, unit: float) -> np.ndarray:
    mask = np.zeros(len(vertices), dtype=bool)
    for eye in (landmarks[36:42], landmarks[42:48]):
        width = float(np.linalg.norm(eye[3] - eye[0]))
        mask |= _ellipse(vertices, 0.5 * (eye[0] + eye[3]), (LID_HALF_AXES[0] * width, LID_HALF_AXES[1] * width))
    return mask & (vertices[:, 2] > middle[2] - 0.2 * unit)


def _cheeks(vertices: np.ndarray, landmarks: np.ndarray, unit: float) -> np.ndarray:
    mask = np.zeros(len(vertices), dtype=bool)
    for corner, jaw in ((48, 4), (54, 12)):
        center = 0.5 * (landmarks[corner] + landmarks[jaw])
        center = np.array([center[0], landmarks[corner, 1] + CHEEK_HALF_AXES[0] * 0.6 * unit])
        mask |= _ellipse(vertices, center, (CHEEK_HALF_AXES[0] * unit, CHEEK_HALF_AXES[1] * unit))
    return mask
