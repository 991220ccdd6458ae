"""What each ARKit shape moves, as data: the wanted displacement of landmarks at full strength.

Written for the subject's left; the right is its mirror image. Landmarks are the 68 of iBUG (`landmarks.py`), the pupils
and four places on the cheeks. Displacements are (to the subject's left, up, forward) in percent of the distance between
the outer corners of the eyes, which is about 92 mm; what is not named is to stay where it is.
"""

from __future__ import annotations

from ...landmarks import MIRRORED_LANDMARKS
from .names import mirrored_name

Displacements = dict[tuple[int, ...], tuple[float, float, float]]

LEFT_CHEEK, RIGHT_CHEEK, LEFT_APPLE, RIGHT_APPLE = 70, 71, 72, 73
"""Places on the skin after the 70 landmarks of a body."""

CHEEK_PLACES: tuple[tuple[int, int], ...] = ((54, 13), (48, 3), (54, 46), (48, 41))
"""Each is the skin nearest to the middle of two landmarks: mouth corner and jaw, mouth corner and lower lid."""

NUM_POINTS = 74

_UPPER, _LOWER = (50, 51, 52, 61, 62, 63), (56, 57, 58, 65, 66, 67)
_MOUTH = tuple(range(48, 68))
_LEFT_CORNER, _RIGHT_CORNER, _CHIN = (54, 64), (48, 60), (7, 8, 9)

_LEFT_AND_MIDDLE: dict[str, Displacements] = {
    "browDownLeft": {(22,): (-4, -4, 1), (23,): (-2, -4, 1), (24,): (0, -2, 0), (25,): (0, -1, 0)},
    "browInnerUp": {(21, 22): (0, 6, 0), (20, 23): (0, 5, 0), (19, 24): (0, 2, 0)},
    "browOuterUpLeft": {(23,): (0, 3, 0), (24, 25): (0, 6, 0), (26,): (0, 3, 0)},
    "cheekPuff": {(LEFT_CHEEK,): (6, 0, 6), (RIGHT_CHEEK,): (-6, 0, 6), _MOUTH: (0, 0, 2)},
    "cheekSquintLeft": {(LEFT_APPLE,): (0, 3, 2), (46, 47): (0, 1, 0)},
    "eyeSquintLeft": {(LEFT_APPLE,): (0, 2, 1)},
    "jawOpen": {
        (66, 57): (0, -28, -18), (56, 58, 65, 67): (0, -26, -17), (55, 59): (0, -20, -13),
        _LEFT_CORNER: (0, -9, -6), _RIGHT_CORNER: (0, -9, -6), _CHIN: (0, -22, -26),
    },
    "jawForward": {_CHIN: (0, 0, 6), _LOWER: (0, 0, 5)},
    "jawLeft": {_CHIN: (7, 0, 0), _LOWER: (8, 0, 0), (55, 59): (6, 0, 0), _LEFT_CORNER: (3, 0, 0),
                _RIGHT_CORNER: (3, 0, 0)},
    "mouthClose": {_LOWER: (0, 12, 5), (55, 59): (0, 8, 3), _UPPER: (0, -5, 0)},
    "mouthFunnel": {_LEFT_CORNER: (-5, 0, 2), _RIGHT_CORNER: (5, 0, 2), _UPPER: (0, 2, 5), _LOWER: (0, -3, 5)},
    "mouthPucker": {_LEFT_CORNER: (-9, 0, 3), _RIGHT_CORNER: (9, 0, 3), _UPPER: (0, 0, 7), _LOWER: (0, 0, 7)},
    "mouthLeft": {_MOUTH: (7, 0, -1)},
    "mouthSmileLeft": {_LEFT_CORNER: (7, 7, -6), (53, 55): (4, 4, -3), (63, 65): (2, 1, -1),
                       (LEFT_APPLE,): (0, 2, 2)},
    "mouthFrownLeft": {_LEFT_CORNER: (1, -7, -1), (53, 55): (1, -4, 0)},
    "mouthDimpleLeft": {_LEFT_CORNER: (4, 1, -4), (53, 55): (2, 0, -2)},
    "mouthStretchLeft": {_LEFT_CORNER: (6, -4, -3), (53, 55): (3, -2, -1)},
    "mouthRollLower": {(56, 57, 58): (0, 3, -4), (65, 66, 67): (0, -1, -3)},
    "mouthRollUpper": {(50, 51, 52): (0, -3, -4), (61, 62, 63): (0, 1, -3)},
    "mouthShrugLower": {_LOWER: (0, 4, 2), _CHIN: (0, 3, 1)},
    "mouthShrugUpper": {_UPPER: (0, 4, 2)},
    "mouthPressLeft": {(52, 53, 63): (0, -1.5, -1), (55, 56, 65): (0, 1.5, -1)},
    "mouthLowerDownLeft": {(55, 56, 65): (0, -6, 1), (57, 66): (0, -4, 1)},
    "mouthUpperUpLeft": {(52, 53, 63): (0, 6, 1), (51, 62): (0, 4, 1)},
    "noseSneerLeft": {(34, 35): (0, 3.5, 0.5), (33,): (0, 1, 0), (52, 53, 63): (0, 2.5, 0), (27, 28): (0, 1, 0)},
}  # fmt: skip

GAZE_DEGREES: dict[str, tuple[float, float]] = {
    "eyeLookInLeft": (-28.0, 0.0),
    "eyeLookOutLeft": (28.0, 0.0),
    "eyeLookUpLeft": (0.0, 20.0),
    "eyeLookDownLeft": (0.0, -24.0),
}
"""The left eye's turn to the subject's left and up: as far as people look before they turn the head."""

LID_SHARES: dict[str, float] = {"eyeBlinkLeft": 1.0, "eyeSquintLeft": 0.25, "eyeWideLeft": -0.3}
"""Closing of the left eye: 1 is closed, below 0 wide open."""

MIRRORED_POINTS = (*MIRRORED_LANDMARKS, RIGHT_CHEEK, LEFT_CHEEK, RIGHT_APPLE, LEFT_APPLE)
"""For each of the 74 points, its mirror image."""


def _mirrored(displacements: Displacements) -> Displacements:
    return {
        tuple(MIRRORED_POINTS[point] for point in points): (-left, up, forward)
        for points, (left, up, forward) in displacements.items()
    }


def wanted_displacements(name: str) -> Displacements:
    """What the shape moves on the face; nothing for shapes that turn eyes, close lids or put out the tongue."""
    if name in _LEFT_AND_MIDDLE:
        return _LEFT_AND_MIDDLE[name]
    return _mirrored(_LEFT_AND_MIDDLE.get(mirrored_name(name), {}))


def gaze_degrees(name: str) -> dict[str, tuple[float, float]]:
    """Eye ('left', 'right') -> its turn to the subject's left and up; empty for other shapes."""
    if name in GAZE_DEGREES:
        return {"left": GAZE_DEGREES[name]}
    left, up = GAZE_DEGREES.get(mirrored_name(name), (0.0, 0.0))
    return {"right": (-left, up)} if mirrored_name(name) in GAZE_DEGREES else {}


def lid_shares(name: str) -> dict[str, float]:
    """Eye -> how far its lids close."""
    if name in LID_SHARES:
        return {"left": LID_SHARES[name]}
    return {"right": LID_SHARES[mirrored_name(name)]} if mirrored_name(name) in LID_SHARES else {}
