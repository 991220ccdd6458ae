"""The parts of an avatar: what each Gaussian stands for, and the authors' five masks made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InvalidInput, check_shape
from ..meshes import Mesh

SCHEMA_VERSION = 1

PARTS = ("hair", "clothes", "skin", "lips", "eyelids", "eyes", "teeth", "mouth_interior")
"""Names by part id. Ids are stored in files: append, never reorder."""

HAIR, CLOTHES, SKIN, LIPS, EYELIDS, EYES, TEETH, MOUTH_INTERIOR = range(len(PARTS))

UPSTREAM_MASKS = ("hair", "clothes", "smplx", "teeth", "eye_region")
"""Mask columns of the authors' PLY files, in file order."""

UPSTREAM_MASK_OF_PART: dict[str, str] = {
    "hair": "hair",
    "clothes": "clothes",
    "skin": "smplx",
    "lips": "smplx",
    "eyelids": "eye_region",
    "eyes": "eye_region",
    "teeth": "teeth",
    "mouth_interior": "teeth",
}

PART_OF_UPSTREAM_MASK: dict[str, str] = {
    "hair": "hair",
    "clothes": "clothes",
    "smplx": "skin",
    "teeth": "mouth_interior",
    "eye_region": "eyelids",
}
"""The coarse way back, where no body tells the finer part of a face."""

_REGION_PARTS = (
    ("lips", LIPS),
    ("eye_region", EYELIDS),
    ("left_eyeball", EYES),
    ("right_eyeball", EYES),
    ("mouth_interior", MOUTH_INTERIOR),
    ("teeth", TEETH),
)
"""Regions of the body assets and the part they make; a later one wins where regions overlap."""


def part_of_faces(face_regions: Mapping[str, Tensor]) -> Tensor:
    """Part id [F] uint8 of each body face, from the assets' region masks [F] bool; faces of no such region are skin.

    >>> lips = torch.tensor([True, False])
    >>> part_of_faces({"lips": lips, "teeth": ~lips}).tolist() == [LIPS, TEETH]
    True
    """
    count = len(next(iter(face_regions.values())))
    parts = torch.full((count,), SKIN, dtype=torch.uint8)
    for region, part in _REGION_PARTS:
        if region in face_regions:
            parts[face_regions[region]] = part
    return parts


def upstream_masks(part_id: Tensor) -> Tensor:
    """The authors' five masks [N, 5] bool of part ids [N]: exactly one per row is set."""
    column = torch.tensor([UPSTREAM_MASKS.index(UPSTREAM_MASK_OF_PART[name]) for name in PARTS])
    return torch.nn.functional.one_hot(column[part_id.long()], len(UPSTREAM_MASKS)).bool()


@dataclasses.dataclass(frozen=True)
class MeshParts:
    """A portrait's mesh with the part each face belongs to: `part_of_face` [F] uint8, HAIR, CLOTHES or SKIN."""

    mesh: Mesh
    part_of_face: Tensor
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_shape("MeshParts", "part_of_face", self.part_of_face, [len(self.mesh.faces)])
        if len(self.part_of_face) and int(self.part_of_face.max()) >= len(PARTS):
            raise InvalidInput(
                f"MeshParts: `part_of_face` goes up to {int(self.part_of_face.max())}, expected less than {len(PARTS)}."
            )
