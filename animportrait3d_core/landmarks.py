"""The landmarks of a face by number: the 68 of iBUG, counted from 0 and from the subject's right, and the two eyes.

Detectors find the 68; a body has 70 of them, the last two being the centres of the eyes (in pictures: the pupils).
Left and right are the subject's.
"""

from __future__ import annotations

NUM_FACE_LANDMARKS = 68
"""iBUG landmarks, what a detector finds."""

NUM_BODY_LANDMARKS = 70
"""iBUG landmarks and the two eyes, what a body and the samples of a data set have."""

JAWLINE, RIGHT_BROW, LEFT_BROW = slice(0, 17), slice(17, 22), slice(22, 27)
NOSE, RIGHT_EYE, LEFT_EYE, MOUTH = slice(27, 36), slice(36, 42), slice(42, 48), slice(48, 68)
INNER_FACE = slice(17, 68)
"""Without the jawline, which is the silhouette of a turned head."""
CHIN, RIGHT_OUTER_EYE, LEFT_OUTER_EYE = 8, 36, 45
OUTER_EYE_CORNERS = (RIGHT_OUTER_EYE, LEFT_OUTER_EYE)
MOUTH_CORNERS = (48, 54)
"""Right, left."""

LEFT_PUPIL, RIGHT_PUPIL = 68, 69
"""The left eye comes first, unlike in the 68 and in the authors' embedding of SMPL-X."""
EYES = slice(NUM_FACE_LANDMARKS, NUM_BODY_LANDMARKS)

MIRRORED_LANDMARKS = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
    RIGHT_PUPIL, LEFT_PUPIL,
)  # fmt: skip
"""For each of the 70, the one that it is called in the mirrored picture; the first 68 are those of iBUG."""

LANDMARK_NAMES = {
    "right_jaw": 0,
    "chin": CHIN,
    "left_jaw": 16,
    "nose_bridge": 27,
    "nose_tip": 30,
    "nose_base": 33,
    "right_eye_outer": RIGHT_OUTER_EYE,
    "right_eye_inner": 39,
    "left_eye_inner": 42,
    "left_eye_outer": LEFT_OUTER_EYE,
    "mouth_right": 48,
    "upper_lip": 51,
    "mouth_left": 54,
    "lower_lip": 57,
    "left_eye": LEFT_PUPIL,
    "right_eye": RIGHT_PUPIL,
}
"""Landmarks that a user can point at."""
