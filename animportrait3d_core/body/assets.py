"""What the method needs beside a body file: the head crop, eyelids, landmarks, regions and condition-map labels.

One safetensors file per body model; every index counts the *kept* vertices, in the stored ("asset") order. Triangle
frames, and with them the Gaussians of an avatar, depend on the vertex order inside `faces`: it is never changed here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..devices import Device, moved
from ..errors import IncompatibleCheckpoint, InvalidInput, ShapeMismatch, check_finite, check_shape
from ..files import parse_json, read_safetensors, write_safetensors
from ..landmarks import NUM_BODY_LANDMARKS
from ..regions import BODY_REGIONS
from .mouth_pieces import PIECE_FIELDS, PIECE_TENSORS, MouthPieces

SCHEMA_VERSION = 1
TEETH_WORDS = {
    "made": "The file has no teeth: teeth, gums and tongue of our own were added behind the lips.",
    "authors": "Its teeth are those of the authors' assets.",
    "file": "Its teeth are those of the body file.",
    "none": "It has no teeth, so that the avatar's mouth will have none.",
}
_TENSORS = ("vertex_ids", "faces", "eyelid_offsets", "landmark_faces", "landmark_barycentric", "vertex_labels")


_FIELDS: dict[str, tuple[type, ...]] = {
    "schema_version": (int,),
    "name": (str,),
    "redistributable": (bool,),
    "winding_outward": (bool,),
    "arm_angle_degrees": (int, float),
}


@dataclasses.dataclass(frozen=True)
class BodyAssets:
    """Head crop of a body template with its lids, landmarks, regions and labels.

    vertex_ids: [V'] int64, kept vertices of the template, without repeats.  faces: [F, 3] int64 into the kept vertices.
    eyelid_offsets: [2, V', 3] float32, template space, left and right lid from open to closed.  landmark_faces: [70]
    int64 and landmark_barycentric: [70, 3] float32, 68 iBUG landmarks and the centres of the left and right eye.
    face_regions: name -> [F] bool, the names of `BODY_REGIONS`; 'condition_face' are the faces whose normals a
    condition map shows.  vertex_labels: [V'] float32 condition-map labels in 0..1.  winding_outward: whether `faces`
    are counter-clockwise from outside.  name: the body's name, in messages and metadata.  redistributable: whether
    an avatar file may contain what posing needs of this body.  arm_angle_degrees: the A-pose of the arms under the
    shoulders that the crop was made in; upstream bends SMPL-X's arms by 60 degrees.  mouth: vertices that are added
    to those of the body file, numbered after them in `vertex_ids`; None: all are the file's.
    """

    vertex_ids: Tensor
    faces: Tensor
    eyelid_offsets: Tensor
    landmark_faces: Tensor
    landmark_barycentric: Tensor
    face_regions: Mapping[str, Tensor]
    vertex_labels: Tensor
    winding_outward: bool = True
    name: str = "smplx"
    redistributable: bool = False
    arm_angle_degrees: float = 0.0
    mouth: MouthPieces | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        vertices, faces = len(self.vertex_ids), len(self.faces)
        check_shape("BodyAssets", "vertex_ids", self.vertex_ids, ["V"])
        check_shape("BodyAssets", "faces", self.faces, ["F", 3])
        check_shape("BodyAssets", "eyelid_offsets", self.eyelid_offsets, [2, vertices, 3])
        check_shape("BodyAssets", "landmark_faces", self.landmark_faces, [NUM_BODY_LANDMARKS])
        check_shape("BodyAssets", "landmark_barycentric", self.landmark_barycentric, [NUM_BODY_LANDMARKS, 3])
        check_shape("BodyAssets", "vertex_labels", self.vertex_labels, [vertices])
        if self.vertex_ids.dtype != torch.int64:
            raise InvalidInput(f"BodyAssets: `vertex_ids` has type {self.vertex_ids.dtype}, expected torch.int64.")
        if len(torch.unique(self.vertex_ids)) != vertices or (vertices and int(self.vertex_ids.min()) < 0):
            raise InvalidInput("BodyAssets: `vertex_ids` repeats a vertex or is negative.")
        _check_indices("faces", self.faces, vertices)
        _check_indices("landmark_faces", self.landmark_faces, faces)
        _check_values(self)
        self._check_regions(faces)

    @property
    def teeth_origin(self) -> str:
        """Where the teeth come from, a key of `TEETH_WORDS`."""
        if self.mouth is not None:
            return self.mouth.origin
        return "file" if bool(self.face_regions["teeth"].any()) else "none"

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> BodyAssets:
        """The same assets on another device or in another floating-point type."""
        return moved(self, device, dtype)

    def _check_regions(self, num_faces: int) -> None:
        missing, unknown = set(BODY_REGIONS) - set(self.face_regions), set(self.face_regions) - set(BODY_REGIONS)
        if missing or unknown:
            raise InvalidInput(f"BodyAssets: regions missing {sorted(missing)}, unknown {sorted(unknown)}.")
        for name, mask in self.face_regions.items():
            if mask.dtype != torch.bool or mask.shape != (num_faces,):
                raise ShapeMismatch(
                    f"BodyAssets: region '{name}' is {mask.dtype} {list(mask.shape)}, expected bool [{num_faces}]."
                )


def _check_indices(name: str, indices: Tensor, limit: int) -> None:
    if indices.dtype != torch.int64:
        raise InvalidInput(f"BodyAssets: `{name}` has type {indices.dtype}, expected torch.int64.")
    if not len(indices) or not 0 <= int(indices.min()) <= int(indices.max()) < limit:
        found = f"{int(indices.min())}..{int(indices.max())}" if len(indices) else "nothing"
        raise InvalidInput(f"BodyAssets: `{name}` holds {found}, expected indices in 0..{limit - 1}.")


def _check_values(assets: BodyAssets) -> None:
    for name in ("eyelid_offsets", "landmark_barycentric", "vertex_labels"):
        if not getattr(assets, name).is_floating_point():
            raise InvalidInput(f"BodyAssets: `{name}` has type {getattr(assets, name).dtype}, expected torch.float32.")
        check_finite("BodyAssets", name, getattr(assets, name))
    sums = assets.landmark_barycentric.sum(1)
    if float((sums - 1).abs().max()) > 1e-3:
        raise InvalidInput(
            f"BodyAssets: `landmark_barycentric` sums to {float(sums.min()):.4f}..{float(sums.max()):.4f}, expected 1."
        )
    low, high = float(assets.vertex_labels.min()), float(assets.vertex_labels.max())
    if low < 0 or high > 1:
        raise InvalidInput(f"BodyAssets: `vertex_labels` ranges over {low:.3g}..{high:.3g}, expected 0..1.")


def assets_to_tensors(assets: BodyAssets) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and string metadata that `assets_from_tensors` turns back into the same value."""
    tensors = {name: getattr(assets, name) for name in _TENSORS}
    # Regions as bytes: safetensors knows bool, but few readers of other languages do.
    tensors |= {f"face_regions.{name}": mask.to(torch.uint8) for name, mask in assets.face_regions.items()}
    fields = {name: getattr(assets, name) for name in _FIELDS}
    if assets.mouth is not None:
        tensors |= {f"mouth.{name}": getattr(assets.mouth, name) for name in PIECE_TENSORS}
        fields["mouth"] = {name: getattr(assets.mouth, name) for name in PIECE_FIELDS}
    return tensors, {"body_assets": json.dumps(fields)}


def assets_from_tensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str = "assets_from_tensors"
) -> BodyAssets:
    """Body assets from what `assets_to_tensors` made; other tensors beside them are ignored."""
    try:
        fields = parse_json(metadata["body_assets"])
        version = fields["schema_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise IncompatibleCheckpoint(f"{where}: no `body_assets` metadata; this is no body assets file.") from error
    if version != SCHEMA_VERSION:
        raise IncompatibleCheckpoint(f"{where}: body assets of version {version}, expected {SCHEMA_VERSION}.")
    added = fields.pop("mouth", None)
    _check_fields(where, fields)
    missing = [name for name in (*_TENSORS, *(f"face_regions.{r}" for r in BODY_REGIONS)) if name not in tensors]
    if missing:
        raise IncompatibleCheckpoint(f"{where}: body assets lack {missing}.")
    with torch.inference_mode(False):
        regions = {name: ordinary_tensor(tensors[f"face_regions.{name}"]).bool() for name in BODY_REGIONS}
    arrays: dict[str, Any] = {name: ordinary_tensor(tensors[name]) for name in _TENSORS}
    mouth = _mouth_from(tensors, added, where)
    return BodyAssets(**arrays, face_regions=regions, mouth=mouth, **fields)


def _mouth_from(tensors: Mapping[str, Tensor], fields: dict[str, Any] | None, where: str) -> MouthPieces | None:
    """The added vertices, if the metadata name any; files made before there were added ones do not."""
    if fields is None:
        return None
    kinds = {name: type(value) for name, value in fields.items()} if isinstance(fields, dict) else {}
    if kinds != PIECE_FIELDS:
        raise InvalidInput(f"{where}: `mouth` of the body assets is {str(fields)[:40]!r}; the file is damaged.")
    missing = [name for name in PIECE_TENSORS if f"mouth.{name}" not in tensors]
    if missing:
        raise IncompatibleCheckpoint(f"{where}: body assets name added teeth but lack their {missing}.")
    arrays: dict[str, Any] = {name: ordinary_tensor(tensors[f"mouth.{name}"]) for name in PIECE_TENSORS}
    return MouthPieces(**arrays, **fields)


def _check_fields(where: str, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if type(value) not in _FIELDS.get(name, ()) or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidInput(
                f"{where}: `{str(name)[:40]}` of the body assets is {str(value)[:40]!r}; the file is damaged."
            )


def ordinary_tensor(tensor: Tensor) -> Tensor:
    """A tensor that autograd accepts even if it was read inside `torch.inference_mode()`."""
    with torch.inference_mode(False):
        return tensor.clone() if tensor.is_inference() else tensor


def save_body_assets(assets: BodyAssets, path: str | Path) -> None:
    """Write the assets as one safetensors file."""
    write_safetensors(path, *assets_to_tensors(assets))


def load_body_assets(path: str | Path) -> BodyAssets:
    """Read and check a body assets file; see `BodyAssets` for what is checked."""
    tensors, metadata = read_safetensors(path, "load_body_assets")
    return assets_from_tensors(tensors, metadata, f"load_body_assets: '{path}'")
