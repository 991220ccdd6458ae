"""What things are parts of: three vocabularies, each with numbers of its own that lie in files, and the ways between.

`AvatarPart` is what a Gaussian or a face of a portrait stands for. `FigurePart` is what a picture of a person of the
embedded world shows, in the label maps of data sets. `PART_CLASSES` are what a parts network tells apart.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

import torch
from torch import Tensor

from .errors import InvalidInput, check_shape
from .meshes import Mesh
from .socket_values import SocketValue

SCHEMA_VERSION = 1


class AvatarPart(enum.IntEnum):
    """Parts of an avatar. The numbers are stored in files: append, never reorder."""

    HAIR = 0
    CLOTHES = 1
    SKIN = 2
    LIPS = 3
    EYELIDS = 4
    EYES = 5
    TEETH = 6
    MOUTH_INTERIOR = 7


AVATAR_PARTS = tuple(part.name.lower() for part in AvatarPart)
"""Names by part number."""


class FigurePart(enum.IntEnum):
    """Parts of a person of the embedded world and of its label maps, background included."""

    BACKGROUND = 0
    SKIN = 1
    HAIR = 2
    CLOTHES = 3
    EYES = 4
    TEETH = 5
    LIPS = 6
    MOUTH_INTERIOR = 7
    EARS = 8
    LASHES = 9
    WORN = 10


FIGURE_PARTS = tuple(part.name.lower() for part in FigurePart)
"""Names by part number, as the manifest of a data set lists them."""

PART_CLASSES = ("background", "face", "hair", "clothes", "eyes", "lips", "mouth")
"""Classes of every parts network, in order. `face` is all skin with ears and neck, `mouth` its inside with teeth."""

CLASS_OF_FIGURE_PART = {
    "background": "background", "skin": "face", "ears": "face", "hair": "hair", "clothes": "clothes", "eyes": "eyes",
    "lashes": "eyes", "lips": "lips", "teeth": "mouth", "mouth_interior": "mouth", "worn": "hair",
}  # fmt: skip
"""What the parts of a data set's label map are to a parts network. What is worn on the head (glasses, hats, earrings)
is hair: it keeps points of its own and rides on the head, while skin is replaced by the body's and clothes stay."""

SKIN_CLASSES = ("face", "eyes", "lips", "mouth")
"""Classes that the fitted body stands for: a portrait's surface with one of them is `AvatarPart.SKIN`."""

PART_OF_CLASS = {"hair": AvatarPart.HAIR, "clothes": AvatarPart.CLOTHES, **dict.fromkeys(SKIN_CLASSES, AvatarPart.SKIN)}
"""What a portrait's surface of a class is before the body is fitted."""

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
    ("lips", AvatarPart.LIPS),
    ("eye_region", AvatarPart.EYELIDS),
    ("left_eyeball", AvatarPart.EYES),
    ("right_eyeball", AvatarPart.EYES),
    ("mouth_interior", AvatarPart.MOUTH_INTERIOR),
    ("teeth", AvatarPart.TEETH),
)
"""Regions of the body assets and the part they make; a later one wins where regions overlap."""


def part_of_faces(face_regions: Mapping[str, Tensor]) -> Tensor:
    """Part id [F] uint8 of each body face, from the assets' region masks [F] bool; faces of no such region are skin.

    >>> lips = torch.tensor([True, False])
    >>> part_of_faces({"lips": lips, "teeth": ~lips}).tolist() == [AvatarPart.LIPS, AvatarPart.TEETH]
    True
    """
    count = len(next(iter(face_regions.values())))
    parts = torch.full((count,), AvatarPart.SKIN, dtype=torch.uint8)
    for region, part in _REGION_PARTS:
        if region in face_regions:
            parts[face_regions[region]] = part
    return parts


def upstream_masks(part_id: Tensor) -> Tensor:
    """The authors' five masks [N, 5] bool of part ids [N]: exactly one per row is set."""
    column = torch.tensor([UPSTREAM_MASKS.index(UPSTREAM_MASK_OF_PART[name]) for name in AVATAR_PARTS])
    return torch.nn.functional.one_hot(column[part_id.long()], len(UPSTREAM_MASKS)).bool()


@dataclasses.dataclass(frozen=True)
class MeshParts(SocketValue):
    """A portrait's mesh with the part each face belongs to: `part_of_face` [F] uint8 of `AvatarPart`, HAIR, CLOTHES
    or SKIN."""

    mesh: Mesh
    part_of_face: Tensor
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_shape("MeshParts", "part_of_face", self.part_of_face, [len(self.mesh.faces)])
        if len(self.part_of_face) and int(self.part_of_face.max()) >= len(AVATAR_PARTS):
            raise InvalidInput(
                f"MeshParts: `part_of_face` goes up to {int(self.part_of_face.max())}, "
                f"expected less than {len(AVATAR_PARTS)}."
            )
