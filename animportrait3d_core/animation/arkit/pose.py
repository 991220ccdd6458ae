"""Poses of a body from strengths of ARKit's shapes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...body.parameters import BodyParameters
from ...errors import ShapeMismatch, check_finite, check_shape
from ...rotations import turned
from ..clips import move_lids, rotate_head
from ..motion import Motion
from .names import ARKIT_NAMES
from .track import ArkitTrack

WIDEST_OPEN = -0.5
"""Of the lids, which several shapes move."""


@dataclasses.dataclass(frozen=True)
class ArkitMap:
    """What each of the 52 shapes does to a body at full strength; shapes add up.

    expression: [52, ne].  jaw: [52, 2] radians, down and to the subject's left.  gaze: [52, 4] radians, to the
    subject's left and up, of the left eye and of the right one.  lids: [52, 2], closing of the left and right lids.
    """

    expression: Tensor
    jaw: Tensor
    gaze: Tensor
    lids: Tensor

    @property
    def matrix(self) -> Tensor:
        """All of it [52, ne + 8], in this order."""
        return torch.cat([self.expression, self.jaw, self.gaze, self.lids], dim=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the shapes."""
        return ARKIT_NAMES

    def poses(self, rest: BodyParameters) -> BodyParameters:
        """One pose per shape: `rest` (a batch of one) with that shape fully on and all others off."""
        return arkit_parameters(torch.eye(len(ARKIT_NAMES)), rest, self)


def arkit_parameters(weights: Tensor, rest: BodyParameters, arkit: ArkitMap) -> BodyParameters:
    """Poses of strengths [T, 52], each on top of the rest pose (a batch of one).

    Raises `ShapeMismatch` for other sizes and `InvalidInput` where a strength is not finite.
    """
    check_shape("arkit_parameters", "weights", weights, ["T", len(ARKIT_NAMES)])
    check_finite("arkit_parameters", "weights", weights)
    if rest.expression.shape[1] != arkit.expression.shape[1]:
        raise ShapeMismatch(
            f"arkit_parameters: the rest pose has {rest.expression.shape[1]} expression coefficients, the map was "
            f"fitted to a body with {arkit.expression.shape[1]}; fit it to the body of the pose."
        )
    rest = rest[0]
    weights = weights.to(rest.expression)
    parts = (arkit.expression, arkit.jaw, arkit.gaze, arkit.lids)
    expression, jaw, gaze, lids = (weights @ part.to(weights) for part in parts)
    zero = torch.zeros_like(jaw[:, 0])
    left_eye, right_eye = (torch.stack([-gaze[:, k + 1], gaze[:, k], zero], dim=1) for k in (0, 2))
    return move_lids(rest, lids.clamp(WIDEST_OPEN, 1.0)).replace(
        expression=rest.expression + expression,
        jaw_pose=turned(rest.jaw_pose, torch.cat([jaw, zero[:, None]], dim=1)),
        left_eye_pose=turned(rest.left_eye_pose, left_eye),
        right_eye_pose=turned(rest.right_eye_pose, right_eye),
    )


def arkit_motion(track: ArkitTrack, rest: BodyParameters, arkit: ArkitMap) -> Motion:
    """The body in the motion of a track: its shapes, and its head's rotations shared between neck and head."""
    poses = arkit_parameters(track.weights, rest.awake(), arkit)
    if track.head is not None:
        poses = rotate_head(poses, track.head.to(poses.neck_pose))
    return Motion(poses, track.fps)
