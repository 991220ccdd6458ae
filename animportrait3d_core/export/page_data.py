"""What the page knows of an avatar: splats, the part of the body that carries them, clips; quantised.

Precision: positions, the body's shape and its weights are floats of 32 bits, because far Gaussians turn with small
triangles; scales and constant colours are halves; rotations, opacities and the body's directions have 16 bits,
harmonics above the constant 8 bits with a step per coefficient. Measured: docs/page.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..animation.arkit import ARKIT_NAMES
from ..animation.files.timing import plain_name
from ..animation.motion import Motion
from ..avatar import RiggedAvatar
from ..body.parameters import BodyParameters
from ..body.reader import JOINTS, SHOULDERS
from ..errors import InvalidInput, check_shape
from ..head_frame import FOV_DEGREES, LOOK_AT, ORBIT_RADIUS
from ..rotations import normalize_quaternion
from .quantized import Quantized, half, stepped, whole

POSE_FIELDS = (
    "expression", "global_orient", "neck_pose", "head_pose", "jaw_pose", "left_eye_pose", "right_eye_pose",
    "eyelids", "translation", "scale",
)  # fmt: skip
"""Order of a pose vector: E + 24 numbers."""

ARKIT_SHAPES, ARKIT_EXTRA = 52, 8

SAME_SHAPE = 1e-4
"""Betas that differ by less are those of the avatar."""


def pose_vectors(parameters: BodyParameters) -> Tensor:
    """States [T] as the page's pose vectors [T, E + 24]."""
    return torch.cat([getattr(parameters, name) for name in POSE_FIELDS], dim=1)


def page_content(
    avatar: RiggedAvatar, motions: Mapping[str, Motion], arkit: Tensor | None
) -> tuple[dict[str, Any], dict[str, Quantized]]:
    """Header (numbers and names) and arrays of a page.

    arkit: [52, E + 8], what ARKit's shapes (in the order of Live Link Face) do at full strength: expression, jaw (down,
    left), gaze (left and up of the left eye, then of the right one), lids; radians. Raises `InvalidInput` and
    `ShapeMismatch` for motions of another body or shape.
    """
    carriers, binding = torch.unique(avatar.binding, return_inverse=True)
    vertices, faces = torch.unique(avatar.body.faces[carriers], return_inverse=True)
    arrays = _splats(avatar) | {"binding": whole(_numpy(binding)), "faces": whole(_numpy(faces))}
    arrays |= _body(avatar, vertices)
    clips = []
    for index, (name, motion) in enumerate(motions.items()):
        _check_motion(name, motion, avatar)
        values = _numpy(pose_vectors(motion.parameters))
        arrays[f"clip{index}"] = stepped(values, "i16", per_column=True)
        clips.append({"name": name, "fps": motion.fps, "frames": len(motion), "values": f"clip{index}"})
    expressions = avatar.body.num_expression
    if arkit is not None:
        check_shape("page_content", "arkit", arkit, [ARKIT_SHAPES, expressions + ARKIT_EXTRA])
        arrays["arkit"] = Quantized("f32", _numpy(arkit).astype("<f4"))
    header = {
        "splats": len(avatar), "faces": len(carriers), "vertices": len(vertices), "expressions": expressions,
        "coefficients": avatar.gaussians.sh.shape[1], "legacy": avatar.quaternion_order == "legacy", "clips": clips,
        "shapes": [plain_name(name) for name in ARKIT_NAMES],
        "camera": {
            "yaw": 0.0, "elevation": 0.0, "radius": ORBIT_RADIUS, "fov": FOV_DEGREES, "target": list(LOOK_AT),
        },
    }  # fmt: skip
    return header | _skeleton(avatar), arrays


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _splats(avatar: RiggedAvatar) -> dict[str, Quantized]:
    stored = avatar.gaussians
    stored.check_finite("write_avatar_page")
    arrays = {
        "means": Quantized("f32", _numpy(stored.means).astype("<f4")),
        "quats": stepped(_numpy(normalize_quaternion(stored.quats)), "i16"),
        "log_scales": half("log_scales", _numpy(stored.log_scales)),
        "opacities": stepped(_numpy(stored.opacities), "u16"),
        "sh0": half("sh", _numpy(stored.sh[:, 0])),
    }
    if stored.sh.shape[1] > 1:
        arrays["sh"] = stepped(_numpy(stored.sh[:, 1:]), "i8", per_column=True)
    return arrays


def _body(avatar: RiggedAvatar, vertices: Tensor) -> dict[str, Quantized]:
    """The kept vertices [n] of the body in the avatar's shape, and what moves them."""
    body, tensors = avatar.body, avatar.body.to_tensors()[0]
    shape = body.shape(avatar.parameters.betas)
    directions = torch.cat(
        [tensors["expression_directions"].movedim(2, 0), body.assets.eyelid_offsets.to(tensors["template"])]
    )
    arrays = {
        "template": Quantized("f32", _numpy(shape.vertices[0, vertices]).astype("<f4")),
        "directions": stepped(_numpy(directions[:, vertices]), "i16"),
        "weights": Quantized("f32", _numpy(tensors["skinning_weights"][vertices]).astype("<f4")),
        "joints": Quantized("f32", _numpy(shape.joints[0]).astype("<f4")),
        "joint_directions": Quantized(
            "f32", _numpy(tensors["joint_expression_directions"].movedim(2, 0)).astype("<f4")
        ),
    }
    correctives = tensors["pose_directions"]
    if len(correctives):
        kept = correctives.unflatten(1, (-1, 3))[:, vertices]
        arrays["correctives"] = half("pose_directions", _numpy(kept))
    return arrays


def _skeleton(avatar: RiggedAvatar) -> dict[str, Any]:
    body, tensors = avatar.body, avatar.body.to_tensors()[0]
    with torch.no_grad():
        joints = body(avatar.parameters).joints[0]
    angle = math.radians(body.assets.arm_angle_degrees)
    return {
        "joints": len(tensors["skinning_joints"]),
        "skinningJoints": tensors["skinning_joints"].tolist(),
        "parents": tensors["parents"].tolist(),
        "shoulders": {str(joint): sign * angle for joint, sign in SHOULDERS.items()},
        "lidsLast": body.eyelid_mode == "paper",
        "correctives": len(tensors["pose_directions"]) > 0,
        "rest": pose_vectors(avatar.parameters)[0].tolist(),
        "awake": pose_vectors(avatar.parameters.awake())[0].tolist(),
        "eyes": joints[[JOINTS["left_eye"], JOINTS["right_eye"]]].mean(dim=0).tolist(),
    }


def _check_motion(name: str, motion: Motion, avatar: RiggedAvatar) -> None:
    found, own = motion.parameters, avatar.parameters
    if found.expression.shape[1] != own.expression.shape[1] or found.betas.shape[1] != own.betas.shape[1]:
        raise InvalidInput(
            f"write_avatar_page: the motion '{name}' has {found.expression.shape[1]} expression coefficients and "
            f"{found.betas.shape[1]} betas, the avatar {own.expression.shape[1]} and {own.betas.shape[1]}; load the "
            "motion for the avatar's own body."
        )
    apart = float((found.betas - own.betas).abs().max()) if own.betas.shape[1] else 0.0
    if apart > SAME_SHAPE:
        raise InvalidInput(
            f"write_avatar_page: the motion '{name}' is of a body of another shape (betas differ by {apart:.3g}); load "
            "it for this avatar's fit."
        )
