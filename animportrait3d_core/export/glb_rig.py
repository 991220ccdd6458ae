"""The body as glTF skins it: bind pose, joints, four weights a vertex, morph targets; and how far that is from it.

glTF moves a vertex as v = sum_j w_j W_j B_j^-1 (p + sum_k m_k d_k): p the bind position, d_k morph targets, W_j the
world transform of a joint, B_j where it stood when bound. The body's own skinning is the same formula, so that the bind
pose is the unbent body in the world's place and size, the expression at rest included, but with open eyes: a lid that
is closed at rest is a morph weight of 1, so that those who drive the morphs can open it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch

if TYPE_CHECKING:
    from ..avatar.model import RiggedAvatar
    from ..body.model import BodyModel, BodyOutput
    from ..body.parameters import BodyParameters

BENDING = (0, 12, 15, 22, 23, 24)
"""Joints that a pose turns: pelvis, neck, head, jaw and eyes."""

JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "jaw", "left_eye", "right_eye",
)  # fmt: skip
"""SMPL-X's names of its first joints; those of the fingers have numbers here."""

WEIGHTS_PER_VERTEX = 4
LID_NAMES = ("left_eyelid", "right_eyelid")


class FaceShapes(Protocol):
    """Named shapes of a face as poses of a body, such as ARKit's 52."""

    @property
    def names(self) -> Sequence[str]:
        """One name per shape."""

    def poses(self, rest: BodyParameters) -> BodyParameters:
        """One pose per shape: `rest` (a batch of one) with that shape fully on and all others off."""


@dataclasses.dataclass(frozen=True)
class HeadRig:
    """A body in glTF's terms, float64, world units.

    positions: [V, 3] in the bind pose.  joints: the body's numbers of the J joints, parents before children.  parents:
    [J] index into `joints`, -1 for the root.  joint_positions: [J, 3] in the bind pose; joints are not turned there.
    vertex_joints: [V, 4] index into `joints` and vertex_weights: [V, 4], sum 1.  morphs: [K, V, 3] by `morph_names`:
    `expressions` of them are the body's first expression coefficients, then the lids, then named face shapes.
    awake: the avatar's rest pose with open eyes, in which all morph weights are 0.  dropped_weight: the largest sum of
    weights of a vertex beyond its four largest.
    """

    positions: np.ndarray
    joints: tuple[int, ...]
    parents: tuple[int, ...]
    joint_positions: np.ndarray
    vertex_joints: np.ndarray
    vertex_weights: np.ndarray
    morphs: np.ndarray
    morph_names: tuple[str, ...]
    expressions: int
    awake: BodyParameters
    dropped_weight: float

    def joint_worlds(self, posed: BodyOutput) -> np.ndarray:
        """World transforms [B, J, 4, 4] of the joints' nodes in a posed body."""
        skin = posed.joint_transforms[:, list(self.joints)].double().numpy() @ _unplace(self.awake)
        return skin @ _translations(self.joint_positions)

    def morph_weights(self, parameters: BodyParameters) -> np.ndarray:
        """Weights [B, K] that show expressions and lids of poses; those of named face shapes stay 0."""
        weights = np.zeros((len(parameters), len(self.morph_names)))
        expression = (parameters.expression - self.awake.expression).double().numpy()
        weights[:, : self.expressions] = expression[:, : self.expressions]
        lids = slice(self.expressions, self.expressions + len(LID_NAMES))
        weights[:, lids] = (parameters.eyelids - self.awake.eyelids).double().numpy()
        return weights

    def vertices(self, joint_worlds: np.ndarray, morph_weights: np.ndarray) -> np.ndarray:
        """Vertices [B, V, 3] that a glTF viewer shows at joint transforms [B, J, 4, 4] and morph weights [B, K]."""
        moved = self.positions + np.einsum("bk,kvc->bvc", morph_weights, self.morphs)
        return _apply(self._blended(joint_worlds), moved)

    def _blended(self, joint_worlds: np.ndarray) -> np.ndarray:
        skin = joint_worlds @ _translations(-self.joint_positions)
        return (skin[:, self.vertex_joints] * self.vertex_weights[None, :, :, None, None]).sum(axis=2)


def make_head_rig(avatar: RiggedAvatar, expressions: int, face_shapes: FaceShapes | None = None) -> HeadRig:
    """The avatar's body with its first `expressions` coefficients, both lids and the face shapes as morph targets."""
    body, rest = avatar.body.to(dtype=torch.float64), avatar.parameters.awake().to(dtype=torch.float64)
    tensors = body.to_tensors()[0]
    with torch.no_grad():
        posed = body(rest)
        resting = body.shape(rest.betas).joints[0] + tensors["joint_expression_directions"] @ rest.expression[0]
    joints, parents = _joint_tree(tensors["skinning_joints"].tolist(), tensors["parents"].tolist())
    weights, vertex_joints, dropped = _four_weights(tensors, joints)
    expressions = min(expressions, body.num_expression)
    rig = HeadRig(
        positions=posed.vertices[0].numpy(),
        joints=joints,
        parents=parents,
        joint_positions=(rest.scale * resting[list(joints)] + rest.translation).numpy(),
        vertex_joints=vertex_joints,
        vertex_weights=weights,
        morphs=np.zeros((0, body.num_vertices, 3)),
        morph_names=(),
        expressions=expressions,
        awake=rest,
        dropped_weight=dropped,
    )
    # The bind pose is what the skinning takes to the rest pose exactly, whatever the body did beside skinning.
    unbend = np.linalg.inv(rig._blended(rig.joint_worlds(posed))[0])
    rig = dataclasses.replace(rig, positions=_apply(unbend, rig.positions))
    morphs, names = _morphs(body, rest, expressions, unbend)
    if face_shapes is not None:
        morphs = np.concatenate([morphs, _shape_morphs(body, rest, face_shapes, unbend)])
        names = (*names, *face_shapes.names)
    return dataclasses.replace(rig, morphs=morphs, morph_names=names)


def _joint_tree(skinning: list[int], parents: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Joints that carry skin or bend, and the nearest of them above each; no other moves against its parent."""
    joints = sorted({*skinning, *BENDING})  # a body's joints are numbered from the root down
    found = []
    for joint in joints:
        above = parents[joint]
        while above >= 0 and above not in joints:
            above = parents[above]
        found.append(joints.index(above) if above >= 0 else -1)
    return tuple(joints), tuple(found)


def _four_weights(tensors: dict[str, Tensor], joints: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights [V, 4] that sum to 1, largest first, their joints [V, 4], and the largest sum that was left out."""
    weights = tensors["skinning_weights"].double().numpy()
    columns = np.array([joints.index(joint) for joint in tensors["skinning_joints"].tolist()])
    if weights.shape[1] < WEIGHTS_PER_VERTEX:
        weights = np.pad(weights, ((0, 0), (0, WEIGHTS_PER_VERTEX - weights.shape[1])))
        columns = np.pad(columns, (0, WEIGHTS_PER_VERTEX - len(columns)))
    order = np.argsort(-weights, axis=1, kind="stable")[:, :WEIGHTS_PER_VERTEX]
    kept = np.take_along_axis(weights, order, axis=1)
    dropped = float((weights.sum(axis=1) - kept.sum(axis=1)).max())
    chosen = np.where(kept > 0, columns[order], 0)
    return kept / kept.sum(axis=1, keepdims=True), chosen, max(dropped, 0.0)


def _morphs(
    body: BodyModel, rest: BodyParameters, expressions: int, unbend: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Targets [K, V, 3] of one unit of each expression coefficient and of closed lids, in the bind pose."""
    tensors, scale = body.to_tensors()[0], float(rest.scale)
    directions = tensors["expression_directions"][..., :expressions].permute(2, 0, 1).numpy()
    lids = body.assets.eyelid_offsets.numpy()
    if body.eyelid_mode == "paper":  # there they move along the world's axes, after skinning
        lids = np.einsum("vij,lvj->lvi", unbend[:, :3, :3], lids)
    names = tuple(f"expression_{index:02}" for index in range(expressions)) + LID_NAMES
    return scale * np.concatenate([directions, lids]), names


def _shape_morphs(body: BodyModel, rest: BodyParameters, shapes: FaceShapes, unbend: np.ndarray) -> np.ndarray:
    """Targets [n, V, 3] whose full weight shows each shape in the rest pose, turns of jaw and eyes included."""
    poses = shapes.poses(rest)
    if len(poses) != len(shapes.names):
        found = f"{len(poses)} poses of {len(shapes.names)} face shapes"
        raise ShapeMismatch(f"write_avatar_glb: {found}, expected as many.")
    with torch.no_grad():
        resting = body(rest).vertices[0]
        each = (poses[index].to(dtype=torch.float64) for index in range(len(poses)))
        offsets = torch.cat([body(pose).vertices - resting for pose in each])
    return np.einsum("vij,kvj->kvi", unbend[:, :3, :3], offsets.numpy())


def _unplace(rest: BodyParameters) -> np.ndarray:
    """[4, 4] from the rest pose's place and size in the world to template space."""
    scale = float(rest.scale)
    matrix = np.diag([1 / scale, 1 / scale, 1 / scale, 1.0])
    matrix[:3, 3] = -rest.translation[0].double().numpy() / scale
    return matrix


def _translations(offsets: np.ndarray) -> np.ndarray:
    """[J, 4, 4] of offsets [J, 3]."""
    matrices = np.tile(np.eye(4), (len(offsets), 1, 1))
    matrices[:, :3, 3] = offsets
    return matrices


def _apply(matrices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., V, 3] moved by [..., V, 4, 4]."""
    return (matrices[..., :3, :3] @ points[..., None])[..., 0] + matrices[..., :3, 3]


def local_transforms(rig: HeadRig, worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Translation [B, J, 3], rotation [B, J, 3, 3] and scale [B, J] of the joints' nodes against their parents."""
    local = worlds.copy()
    for joint, parent in enumerate(rig.parents):
        if parent >= 0:
            local[:, joint] = np.linalg.inv(worlds[:, parent]) @ worlds[:, joint]
    scale = np.cbrt(np.linalg.det(local[..., :3, :3]))
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise InvalidInput("write_avatar_glb: a pose turns the skeleton inside out; check the motion.")
    return local[..., :3, 3], local[..., :3, :3] / scale[..., None, None], scale
