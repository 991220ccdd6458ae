"""Landmarks as places on the faces of a body, in the order of this project."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_shape
from ..landmarks import LEFT_PUPIL, NUM_BODY_LANDMARKS, RIGHT_PUPIL


def from_upstream_embedding(faces: Tensor, barycentric: Tensor) -> tuple[Tensor, Tensor]:
    """`landmark_faces` [70] int64 and `landmark_barycentric` [70, 3] float32 of body assets from the authors' arrays.

    faces: [1, 70], `full_lmk_faces_idx`.  barycentric: [1, 70, 3], `full_lmk_bary_coords`, both of
    `flame_landmark_embedding_with_eyes_in_smplx_order.npy`. There the right eye (x < 0) is 68 and the left one 69, here
    it is the other way round: the two change places.
    """
    where = "from_upstream_embedding"
    check_shape(where, "full_lmk_faces_idx", faces, [1, NUM_BODY_LANDMARKS])
    check_shape(where, "full_lmk_bary_coords", barycentric, [1, NUM_BODY_LANDMARKS, 3])
    order = list(range(NUM_BODY_LANDMARKS))
    order[LEFT_PUPIL], order[RIGHT_PUPIL] = RIGHT_PUPIL, LEFT_PUPIL
    return faces[0, order].to(torch.int64), barycentric[0, order].to(torch.float32)
