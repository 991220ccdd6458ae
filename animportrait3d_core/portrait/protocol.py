"""What every static portrait can do, whatever it is made of."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput, check_shape
from ..meshes import Mesh
from ..progress import Progress
from ..surface import SurfaceSettings

SCHEMA_VERSION = 1
MIN_RESOLUTION, MAX_RESOLUTION = 16, 1024


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """How finely a surface is taken from a portrait that has none of its own; one that is a mesh already needs none.

    resolution: points per side of the density grid over the cube of 2.1 world units.  surface: level, border, smoothing
    and cleaning.
    """

    resolution: int = 256
    surface: SurfaceSettings = SurfaceSettings()

    def __post_init__(self) -> None:
        if not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION:
            raise InvalidInput(
                f"MeshSettings: resolution is {self.resolution}, expected {MIN_RESOLUTION} to {MAX_RESOLUTION}."
            )


# Raw surfaces, steps of the grid and all, as the authors' are: mesh refinement smooths them first.
MESH_PRESETS: dict[str, MeshSettings] = {
    "draft": MeshSettings(96),
    "standard": MeshSettings(160),
    "paper": MeshSettings(256),
}


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
        """What it is made of: 'mesh', 'splats', 'trigrid'."""
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

    def at_full_quality(self) -> Portrait:
        """The same portrait, rendered as exactly as its format says, however coarsely this one is: for measuring."""
        ...

    def mesh(self, settings: MeshSettings | None = None, progress: Progress | None = None) -> Mesh:
        """The portrait's surface, with colours, in the same frame; a mesh portrait gives its own, as it is.

        progress: called as (steps done, steps in all, None); what it raises ends the work.
        """
        ...
