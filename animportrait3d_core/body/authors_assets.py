"""Body assets from the authors' own folder `smplx_model/assets`: their crop, faces, lids, landmarks, regions, teeth.

With them an avatar's triangles are numbered as in the authors' files. The folder is licensed and is the user's own.
Their numbering: the vertices of SMPL-X, then those of the upper and of the lower teeth; lists in FLAME's order name the
vertices of SMPL-X through `SMPL-X__FLAME_vertex_ids.npy` and count the teeth after them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import IncompatibleCheckpoint, InvalidInput
from ..files import json_of_file, require_file
from ..mesh_files.obj import obj_vertices
from ..torch_checkpoints import read_torch_checkpoint
from .assets import BodyAssets
from .landmark_embedding import from_upstream_embedding, with_left_eye_first
from .mouth_pieces import AUTHORS, MouthPieces

_WHERE = "authors_assets"
HINT = (
    "Expected the folder `smplx_model/assets` of the authors' second stage (gaussian_splatting_avatar), which comes "
    "with their repository and its downloads, under their licences."
)
CROP, LANDMARKS = "seg_in_cropped_mesh.pkl", "flame_landmark_embedding_with_eyes_in_smplx_order.npy"
FLAME_IDS, FLAME_MASKS = "SMPL-X__FLAME_vertex_ids.npy", "FLAME_masks_v2.pkl"
LIDS = ("l_eyelid.npy", "r_eyelid.npy")
TEETH = ("upper_teeth.obj", "lower_teeth.obj")
LABELS, EYES, SHOWN = "verts_seg.npy", "verts_seg_idxs.json", "face_region_verts_mask.npy"
IRIS_COLOR = 85
REGIONS_OF_CROP = {
    "scalp": "hair_faces_id",
    "body": "clothes_faces_id",
    "eye_region": "eye_region_faces_id",
    "lips": "lips_faces_id",
    "teeth": "all_teeth_faces_id",
    "mouth_interior": "inner_mouth_faces_id",
    "inner_cheek": "inner_cheek_faces_id",
}
ARM_ANGLE_DEGREES = 60.0


@dataclasses.dataclass(frozen=True)
class TeethPlacement:
    """How a row of teeth is put behind a ring of lip vertices: the authors' numbers.

    anchor: vertex of the file that is put on the middle of the ring.  up, back: then moved by these shares of the
    lips' width.
    """

    anchor: int
    up: float
    back: float


# Those of the stage that renders; the copy for the first stage has back = 0.45 above and up = -0.40 below.
UPPER_TEETH, LOWER_TEETH = TeethPlacement(1188, 0.45, 0.38), TeethPlacement(1490, -0.45, 0.35)
WIDTH_VERTICES = (97, 0)  # of the upper teeth: they are so far apart as the row is wide
TEETH_WIDTH = 1.2  # of the lips' width


def authors_body_assets(arrays: Mapping[str, np.ndarray], folder: str | Path, name: str = "smplx") -> BodyAssets:
    """The assets of a body from its checked arrays (`read_body_file`) and the authors' folder.

    Teeth follow the mean shape of the lips, which the authors' own do not.

    Raises `MissingModelFile` (a file is not there), `InvalidInput` (damaged) and `IncompatibleCheckpoint` (files that
    do not belong together or to this body).
    """
    files = _Files(Path(folder), arrays)
    crop = files.crop
    faces = crop["valid_face"]
    face_places = files.face_places()
    landmark_faces, landmark_weights = files.landmarks(face_places)
    regions = {region: _mask(crop[key], len(faces)) for region, key in REGIONS_OF_CROP.items()}
    regions |= files.regions_of_vertices()
    assets = BodyAssets(
        vertex_ids=torch.from_numpy(crop["valid_vert_id"]),
        faces=torch.from_numpy(faces),
        eyelid_offsets=torch.from_numpy(files.eyelid_offsets()),
        landmark_faces=landmark_faces,
        landmark_barycentric=landmark_weights,
        face_regions={region: torch.from_numpy(mask) for region, mask in regions.items()},
        vertex_labels=torch.from_numpy(files.labels()),
        winding_outward=files.winding_outward(face_places),
        name=name,
        redistributable=False,
        arm_angle_degrees=ARM_ANGLE_DEGREES,
        mouth=files.teeth(),
    )
    return with_left_eye_first(_WHERE, assets)


def _mask(ids: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    mask[ids] = True
    return mask


class _Files:
    """The folder's contents in the numbers of this project.

    crop: tensors of the crop file as int64 arrays.  positions: [V + teeth] of each vertex in the crop, -1 if dropped.
    flame: [n] vertices of SMPL-X in FLAME's order, then the teeth.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
        self._folder, self._arrays = folder, arrays
        self._template = arrays["v_template"].astype(np.float64)
        teeth = [obj_vertices(self._path(file)) for file in TEETH]
        self._teeth = [np.asarray(points, dtype=np.float64) for points in teeth]
        self._count = len(self._template) + sum(map(len, self._teeth))
        self.crop = self._read_crop()
        self.positions = np.full(self._count, -1)
        self.positions[self.crop["valid_vert_id"]] = np.arange(len(self.crop["valid_vert_id"]))
        ids = self._numbers(FLAME_IDS).astype(np.int64).ravel()
        self._check_ids(FLAME_IDS, ids, len(self._template))
        self._flame_vertices = len(ids)
        self.flame = np.concatenate([ids, np.arange(len(self._template), self._count)])

    def _path(self, name: str) -> Path:
        return require_file(_WHERE, self._folder / name, HINT)

    def _read(self, name: str) -> Any:
        return read_torch_checkpoint(self._path(name), HINT)

    def _numbers(self, name: str) -> np.ndarray:
        value = self._read(name)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise IncompatibleCheckpoint(f"{_WHERE}: '{self._folder / name}' holds no array of numbers. {HINT}")
        return value

    def _table(self, name: str, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Arrays of a dictionary of tensors or arrays."""
        value = self._read(name)
        missing = [key for key in keys if not isinstance(value, dict) or key not in value]
        if missing:
            raise IncompatibleCheckpoint(f"{_WHERE}: '{self._folder / name}' lacks {missing}. {HINT}")
        return {key: np.asarray(value[key]) for key in keys}

    def _check_ids(self, name: str, ids: np.ndarray, limit: int) -> None:
        if ids.size and not 0 <= ids.min() <= ids.max() < limit:
            raise IncompatibleCheckpoint(
                f"{_WHERE}: '{self._folder / name}' names {int(ids.min())}..{int(ids.max())}, expected 0..{limit - 1}: "
                "it belongs to another body or to other teeth."
            )

    def _read_crop(self) -> dict[str, np.ndarray]:
        keys = ("valid_vert_id", "valid_face", "mapping_faces_from_original_to_masked", *REGIONS_OF_CROP.values())
        crop = {key: value.astype(np.int64) for key, value in self._table(CROP, keys).items()}
        self._check_ids(CROP, crop["valid_vert_id"], self._count)
        self._check_ids(CROP, crop["valid_face"], len(crop["valid_vert_id"]))
        for key in REGIONS_OF_CROP.values():
            self._check_ids(CROP, crop[key], len(crop["valid_face"]))
        mapping = crop["mapping_faces_from_original_to_masked"]
        self._check_ids(CROP, mapping[mapping >= 0], len(crop["valid_face"]))
        if len(mapping) < len(self._arrays["f"]):
            raise IncompatibleCheckpoint(
                f"{_WHERE}: '{self._folder / CROP}' maps {len(mapping)} faces, but the body has "
                f"{len(self._arrays['f'])}: it belongs to another body."
            )
        return crop

    def face_places(self) -> np.ndarray:
        """Corners [F, 3] of the body's faces as columns of their rows in the crop, -1 where a face is dropped."""
        faces = self._arrays["f"].astype(np.int64)
        mapping = self.crop["mapping_faces_from_original_to_masked"][: len(faces)]
        kept = mapping >= 0
        same = self.crop["valid_face"][mapping[kept]][:, None, :] == self.positions[faces[kept]][:, :, None]
        if not (same.sum(axis=2) == 1).all():
            raise IncompatibleCheckpoint(
                f"{_WHERE}: the faces of '{self._folder / CROP}' are not those of the body file: it is of another body."
            )
        places = np.full(faces.shape, -1)
        places[kept] = same.argmax(axis=2)
        return places

    def winding_outward(self, places: np.ndarray) -> bool:
        """Whether the crop's faces are counter-clockwise from outside: by the volume of the whole body."""
        a, b, c = (self._template[self._arrays["f"][:, k].astype(np.int64)] for k in range(3))
        outward = np.einsum("fc,fc->", a, np.cross(b, c)) > 0
        kept = places[places[:, 0] >= 0]
        same_turn = (kept[:, 1] - kept[:, 0]) % 3 == 1
        return bool(outward == (same_turn.mean() > 0.5))

    def landmarks(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Faces of the crop [70] and barycentric coordinates [70, 3] in the order of their corners."""
        table = self._table(LANDMARKS, ("full_lmk_faces_idx", "full_lmk_bary_coords"))
        faces, weights = from_upstream_embedding(*(torch.from_numpy(table[key].copy()) for key in table))
        self._check_ids(LANDMARKS, faces.numpy(), len(places))
        corners = torch.from_numpy(places)[faces]
        if bool((corners < 0).any()):
            lost = torch.nonzero(corners[:, 0] < 0).flatten()[:6].tolist()
            raise InvalidInput(f"{_WHERE}: landmarks {lost} of '{LANDMARKS}' lie on faces that '{CROP}' drops.")
        mapping = torch.from_numpy(self.crop["mapping_faces_from_original_to_masked"])
        return mapping[faces], torch.zeros_like(weights).scatter(1, corners, weights)

    def eyelid_offsets(self) -> np.ndarray:
        """Offsets [2, V', 3] float32; vertices that the crop drops have none."""
        offsets = np.zeros((2, len(self.crop["valid_vert_id"]), 3), dtype=np.float32)
        places = self.positions[self.flame[: self._flame_vertices]]
        for side, name in enumerate(LIDS):
            values = self._numbers(name)
            if values.shape != (self._flame_vertices, 3):
                raise IncompatibleCheckpoint(
                    f"{_WHERE}: '{self._folder / name}' has shape {list(values.shape)}, expected "
                    f"[{self._flame_vertices}, 3] as '{FLAME_IDS}' has entries."
                )
            offsets[side, places[places >= 0]] = values[places >= 0]
        return offsets

    def _colors(self) -> np.ndarray:
        """Grey values [n] of the segmentation map in FLAME's order, teeth included."""
        colors = self._numbers(LABELS)
        if colors.shape != (1, len(self.flame), 3):
            raise IncompatibleCheckpoint(
                f"{_WHERE}: '{self._folder / LABELS}' has shape {list(colors.shape)}, expected [1, {len(self.flame)}, "
                f"3]: '{FLAME_IDS}' and both files of teeth together."
            )
        return colors[0, :, 0]

    def labels(self) -> np.ndarray:
        """Condition-map labels [V'] float32 in 0..1."""
        labels = np.zeros(len(self.crop["valid_vert_id"]), dtype=np.float32)
        places = self.positions[self.flame]
        labels[places[places >= 0]] = self._colors()[places >= 0] / 255
        return labels

    def regions_of_vertices(self) -> dict[str, np.ndarray]:
        """Masks [F'] of the regions that are lists of vertices: a face belongs to one if all its vertices do."""
        try:
            eyes = json_of_file(self._path(EYES))
            sides = {"left_eyeball": np.array(eyes["left_eye"]), "right_eyeball": np.array(eyes["right_eye"])}
        except (KeyError, TypeError, ValueError) as error:
            raise IncompatibleCheckpoint(
                f"{_WHERE}: '{self._folder / EYES}' holds no `left_eye` and `right_eye` ({error}). {HINT}"
            ) from error
        shown = self._numbers(SHOWN).astype(np.int64).ravel()
        lists = {**sides, "condition_face": shown, "iris": np.flatnonzero(self._colors() == IRIS_COLOR)}
        masks = {}
        for region, ids in lists.items():
            self._check_ids(SHOWN if region == "condition_face" else EYES, ids, len(self.flame))
            places = self.positions[self.flame[ids]]
            masks[region] = _mask(places[places >= 0], len(self.crop["valid_vert_id"]))[self.crop["valid_face"]].all(1)
        return {**masks, "face": masks["condition_face"].copy()}

    def teeth(self) -> MouthPieces:
        """Both rows, placed on the template as the authors do."""
        keys = ("lip_outside_ring_upper", "lip_outside_ring_lower")
        table = self._table(FLAME_MASKS, keys)
        for ids in table.values():
            self._check_ids(FLAME_MASKS, ids, self._flame_vertices)
        rings = [self.flame[table[key].astype(np.int64)] for key in keys]
        upper, lower = (self._template[ring] for ring in rings)
        width = lower[:, 0].max() - min(upper[:, 0].min(), lower[:, 0].min())
        for name, points, place in zip(TEETH, self._teeth, (UPPER_TEETH, LOWER_TEETH)):
            if len(points) <= max(place.anchor, *WIDTH_VERTICES):
                raise IncompatibleCheckpoint(
                    f"{_WHERE}: '{self._folder / name}' has {len(points)} vertices, expected 1493. {HINT}"
                )
        first, last = self._teeth[0][list(WIDTH_VERTICES)]
        scale = TEETH_WIDTH * width / np.linalg.norm(first - last)
        rows = []
        for points, ring, place in zip(self._teeth, (upper, lower), (UPPER_TEETH, LOWER_TEETH)):
            moved = scale * (points - points[place.anchor]) + ring.mean(axis=0)
            rows.append(moved + width * np.array([0.0, place.up, -place.back]))
        count = self._count - len(self._template)
        return MouthPieces(
            vertices=torch.from_numpy(np.concatenate(rows).astype(np.float32)),
            jaw=torch.cat([torch.zeros(len(rows[0])), torch.ones(len(rows[1]))]),
            anchors=torch.zeros(count, dtype=torch.int64),
            anchor_share=torch.zeros(count),
            lips=torch.from_numpy(np.concatenate(rings)),
            file_vertices=len(self._template),
            origin=AUTHORS,
        )
