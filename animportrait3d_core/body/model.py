"""The posed body: SMPL-X through the `smplx` package's own building blocks, on the kept vertices of the head crop.

Order of a forward pass, as upstream's `SMPLXModel`: shape and expression directions -> eyelids (`fixed`: here, in
template space, so that the lids turn with the head; `paper`: after skinning, along world axes) -> pose correctives ->
linear blend skinning -> x scale + translation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..devices import Device, moved
from ..errors import IncompatibleCheckpoint, InvalidInput, ShapeMismatch, check_shape
from ..files import temporary_directory
from ..socket_values import SocketValue
from .assets import BodyAssets, assets_from_tensors, assets_to_tensors, load_body_assets, ordinary_tensor
from .landmark_embedding import with_left_eye_first
from .mouth_pieces import with_mouth
from .parameters import BodyParameters
from .personal import PersonalOffsets
from .reader import JOINTS, NUM_JOINTS, SHAPE_FLAVOURS, SHOULDERS, read_body_file
from .tensors import MODEL_TENSORS, BodyTensors, check_body_tensors

_POSED_JOINTS = {  # parameter -> joint
    "global_orient": JOINTS["pelvis"],
    "neck_pose": JOINTS["neck"],
    "head_pose": JOINTS["head"],
    "jaw_pose": JOINTS["jaw"],
    "left_eye_pose": JOINTS["left_eye"],
    "right_eye_pose": JOINTS["right_eye"],
}
# Joints whose pose moves correctives; those of the pelvis do not exist, and the rest never bends.
_CORRECTIVE_JOINTS = (12, 15, 22, 23, 24)
EYELID_MODES = ("fixed", "paper")


@dataclasses.dataclass(frozen=True)
class BodyShape:
    """The part of a body that depends on betas alone: vertices [B, V', 3] and joints [B, 55, 3] in template space."""

    vertices: Tensor
    joints: Tensor

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> BodyShape:
        """The same shape on another device or in another floating-point type."""
        return moved(self, device, dtype)


@dataclasses.dataclass(frozen=True)
class BodyOutput:
    """Posed body in the world.

    vertices: [B, V', 3] of the kept vertices.  landmarks: [B, 70, 3].  joints: [B, 55, 3].  joint_transforms:
    [B, 55, 4, 4], from template space to the world: a point that follows joint j alone goes to joint_transforms[:, j].
    """

    vertices: Tensor
    landmarks: Tensor
    joints: Tensor
    joint_transforms: Tensor


class BodyModel(SocketValue):
    """A body that poses batches of `BodyParameters`; immutable, differentiable in every parameter.

    eyelid_mode: 'fixed' or 'paper' (see the module).  personal: the offsets that tensors and assets hold already, see
    `personalized`.  base: fingerprint of the body without them, where the offsets themselves are not known.  The
    instance may be shared between threads and used inside `torch.inference_mode()`: its own tensors are always
    ordinary ones.
    """

    def __init__(
        self,
        tensors: BodyTensors,
        assets: BodyAssets,
        eyelid_mode: str = "fixed",
        personal: PersonalOffsets | None = None,
        base: str | None = None,
    ) -> None:
        if eyelid_mode not in EYELID_MODES:
            raise InvalidInput(f"BodyModel: eyelid mode '{eyelid_mode}', expected one of {', '.join(EYELID_MODES)}.")
        if len(tensors.template) != len(assets.vertex_ids):
            raise ShapeMismatch(
                f"BodyModel: {len(tensors.template)} vertices, but the assets keep {len(assets.vertex_ids)}."
            )
        self._tensors = tensors
        with torch.inference_mode(False):
            self._eyelid_offsets = assets.eyelid_offsets.to(tensors.template)
            self._landmark_corners = assets.faces[assets.landmark_faces].to(tensors.template.device)
            self._landmark_weights = assets.landmark_barycentric.to(tensors.template)
            angle = math.radians(assets.arm_angle_degrees)
            self._shoulders = {
                joint: tensors.template.new_tensor([0.0, 0.0, sign * angle]) for joint, sign in SHOULDERS.items()
            }
        self._assets = assets
        self._eyelid_mode = eyelid_mode
        self._personal = personal
        self._base = personal.body if personal is not None else base

    @property
    def assets(self) -> BodyAssets:
        """Crop, lids, landmarks, regions and labels."""
        return self._assets

    @property
    def eyelid_mode(self) -> str:
        """'fixed' or 'paper'."""
        return self._eyelid_mode

    @property
    def faces(self) -> Tensor:
        """Faces [F, 3] int64 in asset order, which triangle frames need."""
        return self._assets.faces

    @property
    def faces_outward(self) -> Tensor:
        """Faces [F, 3] int64 wound counter-clockwise from outside, for normals and rasterising."""
        return self._assets.faces if self._assets.winding_outward else self._assets.faces[:, [0, 2, 1]]

    @property
    def num_vertices(self) -> int:
        """Number of kept vertices."""
        return len(self._tensors.template)

    @property
    def num_betas(self) -> int:
        """Number of shape coefficients: 10, or 300 for the large SMPL-X."""
        return self._tensors.shape_directions.shape[2]

    @property
    def num_expression(self) -> int:
        """Number of expression coefficients: 10, or 100 for the large SMPL-X."""
        return self._tensors.expression_directions.shape[2]

    @property
    def label_values(self) -> Tensor:
        """Condition-map labels [V'] in 0..1."""
        return self._assets.vertex_labels

    @property
    def redistributable(self) -> bool:
        """Whether an avatar file may contain what posing needs of this body; false for licensed bodies."""
        return self._assets.redistributable

    @property
    def personal(self) -> PersonalOffsets | None:
        """The offsets of the person whose body this is, if it is one person's."""
        return self._personal

    @property
    def base_fingerprint(self) -> str | None:
        """Fingerprint of the body that personal offsets made one person's; None for a body without."""
        return self._base

    def personalized(self, offsets: PersonalOffsets) -> BodyModel:
        """The body of one person. Raises `IncompatibleCheckpoint` if the offsets were made for another body."""
        own = self.fingerprint
        if own != offsets.body:
            raise IncompatibleCheckpoint(
                f"BodyModel.personalized: the offsets belong to the body {offsets.body[:12]}, this is "
                f"'{self._assets.name}' ({own[:12]})."
            )
        check_shape("BodyModel.personalized", "offsets.vertices", offsets.vertices, [self.num_vertices, 3])
        with torch.inference_mode(False):
            base = self._tensors
            tensors = dataclasses.replace(
                base,
                template=base.template + offsets.vertices.to(base.template),
                joint_template=base.joint_template + offsets.joints.to(base.joint_template),
            )
            lids = self._assets.eyelid_offsets
            assets = dataclasses.replace(self._assets, eyelid_offsets=lids + offsets.eyelids.to(lids))
            return BodyModel(tensors, assets, self._eyelid_mode, offsets)

    def neutral_parameters(self, batch: int = 1) -> BodyParameters:
        """The template's parameters with this model's numbers of coefficients."""
        return BodyParameters.neutral(batch, self.num_betas, self.num_expression)

    def region_faces(self, name: str) -> Tensor:
        """Indices [n] int64 of the faces of a region of `assets.FACE_REGIONS`."""
        if name not in self._assets.face_regions:
            raise InvalidInput(f"BodyModel: no region '{name}', expected one of {sorted(self._assets.face_regions)}.")
        return torch.nonzero(self._assets.face_regions[name]).squeeze(1)

    def region_vertices(self, name: str) -> Tensor:
        """Indices [n] int64 of the vertices that touch a face of the region."""
        return torch.unique(self.faces[self.region_faces(name)])

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> BodyModel:
        """The same body on another device or in another floating-point type, faces and regions included."""
        with torch.inference_mode(False):
            tensors = dataclasses.replace(moved(self._tensors, device, dtype), parents=self._tensors.parents)
            personal = None if self._personal is None else self._personal.to(device, dtype)
            return BodyModel(tensors, self._assets.to(device, dtype), self._eyelid_mode, personal, self._base)

    def shape(self, betas: Tensor) -> BodyShape:
        """The shaped template of betas [B, nb]; pass it to `__call__` to pose many frames of one person."""
        from smplx.lbs import blend_shapes

        tensors = self._tensors
        return BodyShape(
            tensors.template + blend_shapes(betas, tensors.shape_directions),
            tensors.joint_template + blend_shapes(betas, tensors.joint_shape_directions),
        )

    def __call__(self, parameters: BodyParameters, shape: BodyShape | None = None) -> BodyOutput:
        """Pose the body. `shape`, if given, stands for `parameters.betas` and has batch 1 or B.

        Raises `ShapeMismatch` if the parameters were made for another number of coefficients.
        """
        from smplx.lbs import batch_rigid_transform, blend_shapes

        self._check(parameters)
        tensors = self._tensors
        shape = self.shape(parameters.betas) if shape is None else shape
        rest = shape.vertices + blend_shapes(parameters.expression, tensors.expression_directions)
        joints = shape.joints + blend_shapes(parameters.expression, tensors.joint_expression_directions)
        lids = torch.einsum("bl,lvc->bvc", parameters.eyelids, self._eyelid_offsets)
        if self._eyelid_mode == "fixed":
            rest = rest + lids
        rotations = self._rotations(parameters)
        posed_joints, transforms = batch_rigid_transform(rotations, joints, tensors.parents, dtype=rest.dtype)
        vertices = self._skin(self._correct(rest, rotations), transforms)
        if self._eyelid_mode == "paper":
            vertices = vertices + lids
        return self._place(parameters, vertices, posed_joints, transforms)

    def rest_to_world(self, parameters: BodyParameters) -> Tensor:
        """How posed vertices move with those at rest: [B, V', 3, 3], the derivatives of the ones by the others."""
        from smplx.lbs import batch_rigid_transform

        self._check(parameters)
        joints = self.shape(parameters.betas).joints.expand(len(parameters), -1, -1)
        rotations = self._rotations(parameters)
        _, transforms = batch_rigid_transform(rotations, joints, self._tensors.parents, dtype=joints.dtype)
        return self._blended(transforms)[..., :3] * parameters.scale[:, None, None]

    def _rotations(self, parameters: BodyParameters) -> Tensor:
        """Rotations [B, 55, 3, 3] of all joints, each relative to its parent."""
        from smplx.lbs import batch_rodrigues

        pose = self._full_pose(parameters)
        return batch_rodrigues(pose.reshape(-1, 3)).reshape(len(parameters), NUM_JOINTS, 3, 3)

    def _check(self, parameters: BodyParameters) -> None:
        found = parameters.betas.shape[1], parameters.expression.shape[1]
        if found != (self.num_betas, self.num_expression):
            raise ShapeMismatch(
                f"BodyModel: parameters with {found[0]} betas and {found[1]} expression coefficients, but the body "
                f"'{self._assets.name}' has {self.num_betas} and {self.num_expression}: fit or load for this body."
            )

    def _full_pose(self, parameters: BodyParameters) -> Tensor:
        """Axis-angle vectors [B, 55, 3] of all joints, with the arms in the A-pose of the crop."""
        pose = [torch.zeros_like(parameters.global_orient)] * NUM_JOINTS
        for name, joint in _POSED_JOINTS.items():
            pose[joint] = getattr(parameters, name)
        for joint, turn in self._shoulders.items():
            pose[joint] = pose[joint] + turn
        return torch.stack(pose, dim=1)

    def _correct(self, rest: Tensor, rotations: Tensor) -> Tensor:
        """Vertices [B, V', 3] with the pose correctives of the joints that can bend."""
        directions = self._tensors.pose_directions
        if not len(directions):
            return rest
        identity = torch.eye(3, dtype=rest.dtype, device=rest.device)
        # Not by a list of numbers, which a GPU would be sent each time.
        bending = torch.stack([rotations[:, joint] for joint in _CORRECTIVE_JOINTS], dim=1)
        feature = (bending - identity).reshape(len(rotations), -1)
        return rest + (feature @ directions).reshape(len(rotations), -1, 3)

    def _skin(self, rest: Tensor, transforms: Tensor) -> Tensor:
        """Linear blend skinning [B, V', 3] by transforms [B, 55, 4, 4]."""
        blended = self._blended(transforms)
        return (blended[..., :3] @ rest[..., None]).squeeze(-1) + blended[..., 3]

    def _blended(self, transforms: Tensor) -> Tensor:
        """Transforms [B, 55, 4, 4] of joints as each vertex follows them: [B, V', 3, 4], three rows are enough."""
        rows = transforms[:, self._tensors.skinning_joints, :3].flatten(2)
        return (self._tensors.skinning_weights @ rows).unflatten(-1, (3, 4))

    def _place(self, parameters: BodyParameters, vertices: Tensor, joints: Tensor, transforms: Tensor) -> BodyOutput:
        scale, translation = parameters.scale[:, None], parameters.translation[:, None]
        vertices, joints = vertices * scale + translation, joints * scale + translation
        top = transforms[:, :, :3] * scale[..., None]
        top = torch.cat([top[..., :3], top[..., 3:] + translation[..., None]], dim=-1)
        world = torch.cat([top, transforms[:, :, 3:]], dim=2)
        landmarks = torch.einsum("blkc,lk->blc", vertices[:, self._landmark_corners], self._landmark_weights)
        return BodyOutput(vertices, landmarks, joints, world)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that posing depends on: avatars of licensed bodies name the body they need by it."""
        digest = hashlib.sha256()
        tensors, metadata = self.to_tensors()
        for name in sorted(tensors):
            digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
            digest.update(tensors[name].contiguous().cpu().numpy().tobytes())
        digest.update(json.dumps(metadata, sort_keys=True).encode())
        return digest.hexdigest()

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and string metadata of the whole body, for an avatar file; see `redistributable` first."""
        tensors, metadata = assets_to_tensors(self._assets)
        tensors |= {name: getattr(self._tensors, name) for name in MODEL_TENSORS}
        return tensors, metadata | {"body_eyelid_mode": self._eyelid_mode}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> BodyModel:
        """Inverse of `to_tensors`; other tensors beside them are ignored."""
        assets = assets_from_tensors(tensors, metadata, "BodyModel.from_tensors")
        missing = [name for name in MODEL_TENSORS if name not in tensors]
        if missing:
            raise IncompatibleCheckpoint(f"BodyModel.from_tensors: missing {missing}.")
        parts = BodyTensors(**{name: ordinary_tensor(tensors[name]) for name in MODEL_TENSORS})
        check_body_tensors("BodyModel.from_tensors", parts)
        base = metadata.get("base_fingerprint")
        return cls(parts, assets, metadata.get("body_eyelid_mode", "fixed"), base=base)


def load_body_model(
    path: str | Path,
    assets_path: str | Path | None = None,
    eyelid_mode: str = "fixed",
    arm_angle_degrees: float | None = None,
) -> BodyModel:
    """A posable body from a SMPL-X file and its body assets.

    path: .npz, .pkl or .zip (see `read_body_file`).  assets_path: safetensors file of `save_body_assets`; None makes
    them from the body file (`make_body_assets`).  eyelid_mode: 'fixed' or 'paper'.  arm_angle_degrees: A-pose of the
    arms; None takes the assets' own value (upstream: 60).

    Raises what `read_body_file` and `load_body_assets` or `make_body_assets` raise.
    """
    with torch.inference_mode(False), torch.no_grad():
        arrays = read_body_file(path)
        assets = _assets_of(arrays, assets_path)
        if arm_angle_degrees is not None:
            assets = dataclasses.replace(assets, arm_angle_degrees=float(arm_angle_degrees))
        if assets.mouth is not None:
            arrays = with_mouth(arrays, assets.mouth)
        last = int(assets.vertex_ids.max())
        if last >= len(arrays["v_template"]):
            raise IncompatibleCheckpoint(
                f"load_body_model: '{assets_path}' (body '{assets.name}') keeps vertex {last}, but '{path}' has "
                f"{len(arrays['v_template'])} vertices: body file and assets belong to different models."
            )
        return BodyModel(_tensors_of_layer(arrays, assets), assets, eyelid_mode)


def _assets_of(arrays: Mapping[str, Any], assets_path: str | Path | None) -> BodyAssets:
    if assets_path is not None:
        return with_left_eye_first("load_body_model", load_body_assets(assets_path))
    from .asset_making import make_body_assets  # brings scipy, which few need

    return make_body_assets(arrays)


def make_smplx_layer(arrays: Mapping[str, Any]) -> Any:
    """The `smplx` package's own model of checked arrays, through a clean temporary file.

    Zero pose correctives, 486 numbers per coordinate, are replaced by a single zero column, as nothing reads them.
    """
    import numpy as np
    import smplx

    num_betas, num_expression = SHAPE_FLAVOURS[arrays["shapedirs"].shape[2]]

    class Layer(smplx.SMPLX):  # type: ignore[misc]
        # smplx would warn on stdout about each file of the small flavour, which is a legitimate one.
        SHAPE_SPACE_DIM = num_betas
        EXPRESSION_SPACE_DIM = num_expression

    clean = dict(arrays)
    if not np.any(clean["posedirs"]):
        clean["posedirs"] = np.zeros((*clean["posedirs"].shape[:2], 1), dtype=np.float32)
    with temporary_directory() as folder:
        path = folder / "SMPLX_NEUTRAL.npz"
        np.savez(path, **clean)
        return Layer(
            str(path),
            ext="npz",
            use_pca=False,
            flat_hand_mean=True,
            num_betas=num_betas,
            num_expression_coeffs=num_expression,
        )


def _tensors_of_layer(arrays: Mapping[str, Any], assets: BodyAssets) -> BodyTensors:
    """The crop of a smplx layer's buffers, with joints regressed in float64."""
    layer = make_smplx_layer(arrays)
    kept = assets.vertex_ids

    def regressed(values: Tensor) -> Tensor:
        return torch.stack([_weighted_sum(row, values) for row in layer.J_regressor])

    weights = layer.lbs_weights[kept]
    used = torch.nonzero((weights != 0).any(0)).squeeze(1)
    template, pose_directions = _crop_pose_correctives(layer, assets)
    return BodyTensors(
        template=template,
        shape_directions=layer.shapedirs[kept].clone(),
        expression_directions=layer.expr_dirs[kept].clone(),
        joint_template=regressed(layer.v_template),
        joint_shape_directions=regressed(layer.shapedirs),
        joint_expression_directions=regressed(layer.expr_dirs),
        pose_directions=pose_directions,
        skinning_weights=weights[:, used].contiguous(),
        skinning_joints=used,
        parents=layer.parents.clone(),
    )


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Sum over n of weights [n] x values [n, ...] in float64, as float32.

    Row after row: a product of matrices rounds as the number of threads and the processor have it, and the body's
    fingerprint, by which an avatar knows it again, must not depend on either.
    """
    used = torch.nonzero(weights).squeeze(1)
    terms = weights[used].double().numpy()[:, None] * values[used].double().flatten(1).numpy()
    return torch.from_numpy(terms.sum(axis=0)).reshape(values.shape[1:]).float()


def _crop_pose_correctives(layer: Any, assets: BodyAssets) -> tuple[Tensor, Tensor]:
    """Template [V', 3] and corrective directions [45 or 0, V' * 3] of the crop.

    Only five joints can bend, and the arms' fixed A-pose adds constant correctives: those go into the template.
    """
    kept, count = assets.vertex_ids, len(layer.v_template)
    template = layer.v_template[kept].clone()
    if not bool(layer.posedirs.any()):
        return template, torch.zeros(0, 3 * len(kept))
    directions = layer.posedirs.reshape(NUM_JOINTS - 1, 9, count, 3)[:, :, kept]
    angle = math.radians(assets.arm_angle_degrees)
    for joint, sign in SHOULDERS.items():
        sine, cosine = sign * math.sin(angle), math.cos(angle)
        turn = torch.tensor([cosine - 1, -sine, 0, sine, cosine - 1, 0, 0, 0, 0])  # less the identity
        template = template + _weighted_sum(turn, directions[joint - 1])
    rows = directions[[joint - 1 for joint in _CORRECTIVE_JOINTS]]
    return template, rows.reshape(9 * len(_CORRECTIVE_JOINTS), 3 * len(kept)).contiguous()
