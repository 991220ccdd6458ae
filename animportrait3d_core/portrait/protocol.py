"""What every static portrait can do, whatever it is made of."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..cameras import Cameras
from ..errors import check_shape
from ..meshes import Mesh

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class PortraitImage:
    """Pictures of a portrait from B cameras.

    images: [B, H, W, 3] float32 in 0..1, composited over the background.  masks: [B, H, W] float32 coverage in 0..1.
    depth: [B, H, W] float32 camera z in world units, 0 where the mask is 0.
    """

    images: Tensor
    masks: Tensor
    depth: Tensor

    def __post_init__(self) -> None:
        check_shape("PortraitImage", "images", self.images, ["B", "H", "W", 3])
        check_shape("PortraitImage", "masks", self.masks, list(self.images.shape[:3]))
        check_shape("PortraitImage", "depth", self.depth, list(self.images.shape[:3]))


@runtime_checkable
class Portrait(Protocol):
    """A static 3D portrait in the head frame: y up, face to +z, eyes near y = 0.42, as the standard cameras see it."""

    @property
    def kind(self) -> str:
        """What it is made of: 'mesh', 'trigrid'."""
        ...

    @property
    def prompt(self) -> str:
        """Words that describe the subject; empty if unknown."""
        ...

    @property
    def schema_version(self) -> int:
        """Version of the value's layout."""
        ...

    def render(self, cameras: Cameras, background: Tensor | None = None) -> PortraitImage:
        """Pictures from the cameras over a colour [3] in 0..1, or over the portrait's own background."""
        ...

    def mesh(self) -> Mesh:
        """The portrait's surface, with colours, in the same frame."""
        ...
