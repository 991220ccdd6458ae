"""Names of the identity parameters of the mannequin, and how they are paired into the ten shape directions.

Every parameter is a standardised offset: 0 is the template, about +-2 the far ends of the population.
SCULPT parameters change the signed distance function (the large forms: skull, jaw, cheeks, neck); WARP parameters move
the vertices afterwards by smooth fields, so that fine forms (nostrils, lips, ears) keep their vertices and lids, lips,
mouth cavity and teeth travel together.
"""

from __future__ import annotations

SCULPT_PARAMETERS: tuple[str, ...] = (
    "head_width", "head_height", "head_depth", "jaw_width", "chin_height", "chin_projection", "cheek_fullness",
    "cheekbone", "brow_ridge", "socket_depth", "muzzle", "neck_width", "shoulder_width", "shoulder_height",
    "forehead_bulge", "temple_hollow", "nasolabial_fold", "chin_width", "jaw_angle", "neck_muscle",
)  # fmt: skip
WARP_PARAMETERS: tuple[str, ...] = (
    "nose_width", "nose_length", "nose_projection", "nose_bridge", "nose_hump", "nose_tip_size", "nose_tip_height",
    "alar_flare", "lip_fullness", "upper_lip_share", "mouth_width", "mouth_height", "eye_spacing", "eye_height",
    "eye_tilt", "brow_height", "face_length", "lower_face_width", "ear_size", "ear_angle", "ear_lobe",
    "nose_shift", "chin_shift", "mouth_slant", "cheek_asymmetry",
)  # fmt: skip
PARAMETER_NAMES: tuple[str, ...] = SCULPT_PARAMETERS + WARP_PARAMETERS
SCULPT_COUNT = len(SCULPT_PARAMETERS)

# Each shape direction is one unit of a small, anatomically sensible mixture of parameters.
SHAPE_DIRECTIONS: tuple[tuple[str, dict[str, float]], ...] = (
    ("broad head", {"head_width": 1.0, "jaw_width": 0.8, "neck_width": 0.5}),
    ("long face", {"head_height": 0.8, "face_length": 1.0, "chin_height": 0.8}),
    ("deep head, chin forward", {"head_depth": 1.0, "chin_projection": 1.0}),
    ("full cheeks", {"cheek_fullness": 1.0, "cheekbone": -0.5, "lower_face_width": 0.6}),
    ("heavy brow", {"brow_ridge": 1.0, "socket_depth": 0.9, "brow_height": -0.9}),
    ("wide nose", {"nose_width": 1.0, "alar_flare": 0.8, "nose_tip_size": 0.6}),
    ("long nose", {"nose_length": 1.0, "nose_projection": 0.7, "nose_bridge": 0.6}),
    ("full wide mouth", {"lip_fullness": 1.0, "mouth_width": 0.7, "muzzle": 0.5}),
    ("wide-set eyes", {"eye_spacing": 1.0, "eye_tilt": 0.7, "eye_height": 0.3}),
    ("strong neck and shoulders", {"neck_width": 1.0, "shoulder_width": 1.0, "neck_muscle": 0.5}),
)


def parameter_index(name: str) -> int:
    """Position of a named parameter in a parameter vector [len(PARAMETER_NAMES)]."""
    return PARAMETER_NAMES.index(name)
