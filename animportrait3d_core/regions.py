"""Names of regions: of the faces of a body, and of what the pictures of a data set show."""

from __future__ import annotations

BODY_REGIONS = (
    "scalp",
    "body",
    "face",
    "eye_region",
    "left_eyeball",
    "right_eyeball",
    "iris",
    "lips",
    "teeth",
    "mouth_interior",
    "inner_cheek",
    "condition_face",
)
"""Regions of a body's faces, which overlap; a body assets file has them all."""

INNER_REGIONS = ("left_eyeball", "right_eyeball", "iris", "teeth", "mouth_interior", "inner_cheek")
"""Body regions inside of the head, which say nothing about its outside."""

SHOWN_FACE_REGIONS = ("face", "eye_region", "left_eyeball", "right_eyeball", "lips", "teeth", "mouth_interior")
"""Body regions of the face as it is seen: lids, eyes and mouth included; scalp, ears, neck and torso not."""

IMAGE_REGIONS = ("bust", "face", "eyes", "mouth")
"""What a picture of a data set shows, by the number that its samples store."""

LABEL_SCLERA, LABEL_TEETH, LABEL_IRIS = 1.0, 125 / 255, 85 / 255
"""What the label channel of a condition map holds at those regions; elsewhere 0."""
