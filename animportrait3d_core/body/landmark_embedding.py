"""Landmarks as places on the faces of a body, in the order of this project."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import check_shape
from ..files import LOGGER
from ..landmarks import LEFT_PUPIL, NUM_BODY_LANDMARKS, RIGHT_PUPIL
from .assets import BodyAssets

_OTHER_ORDER = [*range(LEFT_PUPIL), RIGHT_PUPIL, LEFT_PUPIL]


def from_upstream_embedding(faces: Tensor, barycentric: Tensor) -> tuple[Tensor, Tensor]:
    """`landmark_faces` [70] int64 and `landmark_barycentric` [70, 3] float32 of body assets from the authors' arrays.

    faces: [1, 70], `full_lmk_faces_idx`.  barycentric: [1, 70, 3], `full_lmk_bary_coords`, both of
    `flame_landmark_embedding_with_eyes_in_smplx_order.npy`. There the right eye (x < 0) is 68 and the left one 69, here
    it is the other way round: the two change places.
    """
    where = "from_upstream_embedding"
    check_shape(where, "full_lmk_faces_idx", faces, [1, NUM_BODY_LANDMARKS])
    check_shape(where, "full_lmk_bary_coords", barycentric, [1, NUM_BODY_LANDMARKS, 3])
    return faces[0, _OTHER_ORDER].to(torch.int64), barycentric[0, _OTHER_ORDER].to(torch.float32)


def with_left_eye_first(where: str, assets: BodyAssets) -> BodyAssets:
    """The assets, their eyes turned where 68 lies on the right eyeball and 69 on the left one; that is told."""
    right, left = assets.landmark_faces[[LEFT_PUPIL, RIGHT_PUPIL]].tolist()
    regions = assets.face_regions
    if not (bool(regions["right_eyeball"][right]) and bool(regions["left_eyeball"][left])):
        return assets
    LOGGER.warning(
        "%s: the eye landmarks of '%s' stand the other way round (68 is the right one, 69 the left one); they were "
        "turned.", where, assets.name,
    )  # fmt: skip
    return dataclasses.replace(
        assets,
        landmark_faces=assets.landmark_faces[_OTHER_ORDER],
        landmark_barycentric=assets.landmark_barycentric[_OTHER_ORDER],
    )
