"""Joint transforms of a figure from body parameters: the forward kinematics of SMPL-X on the joints that bend here."""

from __future__ import annotations

import numpy as np

from ...body.parameters import BodyParameters
from ...rotations import axis_angle_to_matrix

_PELVIS, _SPINE, _NECK, _HEAD, _JAW, _LEFT_EYE, _RIGHT_EYE = 0, 9, 12, 15, 22, 23, 24
_PARAMETER = {
    _PELVIS: "global_orient", _NECK: "neck_pose", _HEAD: "head_pose", _JAW: "jaw_pose", _LEFT_EYE: "left_eye_pose",
    _RIGHT_EYE: "right_eye_pose",
}  # fmt: skip
_PARENT = {_NECK: _SPINE, _HEAD: _NECK, _JAW: _HEAD, _LEFT_EYE: _HEAD, _RIGHT_EYE: _HEAD}


def joint_transforms(joints: np.ndarray, parameters: BodyParameters, state: int) -> np.ndarray:
    """Transforms [6, 3, 4] from template space to the world of spine3, neck, head, jaw, left and right eye.

    joints: [55, 3] of the shaped template, metres. World = scale * skinned + translation.
    """
    rotations = {
        joint: axis_angle_to_matrix(getattr(parameters, name)[state].double()).numpy()
        for joint, name in _PARAMETER.items()
    }
    scale = float(parameters.scale[state, 0])
    translation = parameters.translation[state].double().numpy()
    world = {_PELVIS: _about(rotations[_PELVIS], joints[_PELVIS])}
    # Between pelvis and spine3 nothing bends, so that spine3 moves as the pelvis does.
    world[_SPINE] = world[_PELVIS]
    for joint, parent in _PARENT.items():
        world[joint] = world[parent] @ _about(rotations[joint], joints[joint])
    placed = np.stack([world[joint] for joint in (_SPINE, _NECK, _HEAD, _JAW, _LEFT_EYE, _RIGHT_EYE)])[:, :3]
    placed = placed * scale
    placed[:, :, 3] += translation
    return placed


def _about(rotation: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Rotation about a point as a matrix [4, 4]."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = center - rotation @ center
    return matrix
