"""The tensors of a posable body, as a body model holds them and an avatar file stores them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import InvalidInput, check_all_finite, check_shape
from .reader import NUM_JOINTS

MODEL_TENSORS = (
    "template", "shape_directions", "expression_directions", "joint_template", "joint_shape_directions",
    "joint_expression_directions", "pose_directions", "skinning_weights", "skinning_joints", "parents",
)  # fmt: skip

CORRECTIVE_ROWS = 45
"""Features of the five joints that can bend, nine each."""


@dataclasses.dataclass(frozen=True)
class BodyTensors:
    """What posing needs, for V' kept vertices, nb betas, ne expression coefficients, J' joints with any weight.

    Since the joint regressor is linear, joints are stored regressed and the vertices outside the crop are not needed.
    """

    template: Tensor  # [V', 3]
    shape_directions: Tensor  # [V', 3, nb]
    expression_directions: Tensor  # [V', 3, ne]
    joint_template: Tensor  # [55, 3]
    joint_shape_directions: Tensor  # [55, 3, nb]
    joint_expression_directions: Tensor  # [55, 3, ne]
    pose_directions: Tensor  # [45, V' * 3], rows of the joints that bend; [0, V' * 3] if the model has none
    skinning_weights: Tensor  # [V', J']
    skinning_joints: Tensor  # [J'] int64
    parents: Tensor  # [55] int64, -1 at the root; always on the CPU, which follows the tree joint by joint


def check_body_tensors(where: str, tensors: BodyTensors) -> None:
    """Raise `ShapeMismatch` or `InvalidInput` unless tensors from a file are those of a body: sizes, types, a tree."""
    free: dict[str, list[int | str]] = {"template": ["V", 3], "pose_directions": ["R", "C"], "skinning_joints": ["J"]}
    free |= {"shape_directions": ["V", 3, "N"], "expression_directions": ["V", 3, "N"]}
    for name, shape in free.items():
        check_shape(where, name, getattr(tensors, name), shape)
    vertices, betas = len(tensors.template), tensors.shape_directions.shape[2]
    expressions = tensors.expression_directions.shape[2]
    shapes: dict[str, list[int | str]] = {
        "template": [vertices, 3],
        "shape_directions": [vertices, 3, betas],
        "expression_directions": [vertices, 3, expressions],
        "joint_template": [NUM_JOINTS, 3],
        "joint_shape_directions": [NUM_JOINTS, 3, betas],
        "joint_expression_directions": [NUM_JOINTS, 3, expressions],
        "pose_directions": [CORRECTIVE_ROWS if len(tensors.pose_directions) else 0, 3 * vertices],
        "skinning_weights": [vertices, len(tensors.skinning_joints)],
        "skinning_joints": [len(tensors.skinning_joints)],
        "parents": [NUM_JOINTS],
    }
    for name, shape in shapes.items():
        check_shape(where, name, getattr(tensors, name), shape)
        wanted = torch.int64 if name in ("skinning_joints", "parents") else torch.float32
        if getattr(tensors, name).dtype != wanted:
            raise InvalidInput(f"{where}: `{name}` has type {getattr(tensors, name).dtype}, expected {wanted}.")
    check_all_finite(
        where, {name: getattr(tensors, name) for name in shapes if name not in ("skinning_joints", "parents")}
    )
    joints, parents = tensors.skinning_joints, tensors.parents[1:]
    if len(joints) and not 0 <= int(joints.min()) <= int(joints.max()) < NUM_JOINTS:
        raise InvalidInput(f"{where}: `skinning_joints` leaves 0..{NUM_JOINTS - 1}.")
    if bool((parents < 0).any() | (parents >= torch.arange(1, NUM_JOINTS)).any()):
        raise InvalidInput(f"{where}: `parents` is no tree: a joint's parent must come before it.")
