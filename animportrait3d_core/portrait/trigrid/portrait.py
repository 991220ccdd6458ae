"""The trigrid portrait: trigrids with what every portrait can do."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...cameras import Cameras
from ...meshes import Mesh
from ...progress import Progress
from ...socket_values import SocketValue
from ..protocol import MeshSettings, PortraitImage
from .data import Trigrids
from .rays import camera_rays
from .render import render_trigrid
from .settings import SAMPLING_PRESETS
from .surface import trigrid_mesh


@dataclasses.dataclass(frozen=True, eq=False)
class TrigridPortrait(Trigrids, SocketValue):
    """A static 3D portrait made of `Trigrids`, whose fields it has."""

    @property
    def kind(self) -> str:
        """The kind of portrait: 'trigrid'."""
        return "trigrid"

    def summary(self) -> str:
        """One line for people: levels, channels and samples."""
        levels = ", ".join(str(level) for level in sorted(self.levels))
        samples = f"{self.rendering.depth_samples} + {self.rendering.importance_samples}"
        return f"trigrids of {levels}; {self.channels} channels x {self.depth} slices; {samples} samples per ray"

    def render(self, cameras: Cameras, background: Tensor | None = None) -> PortraitImage:
        """Pictures as every portrait makes them, over the portrait's own background or a plain colour [3] in 0..1."""
        image = render_trigrid(self, cameras, background)
        _, directions = camera_rays(cameras)
        forward = torch.einsum("bnc,bc->bn", directions, cameras.world_to_camera[:, 2, :3]).reshape(image.depth.shape)
        images = (0.5 * image.rgb + 0.5).clamp(0, 1)
        masks = image.mask.clamp(0, 1)
        return PortraitImage(images, masks, torch.where(masks > 0, image.depth * forward, 0.0))

    def at_full_quality(self) -> TrigridPortrait:
        """The same portrait with the samples per ray of the `paper` preset."""
        finest = SAMPLING_PRESETS["paper"]
        samples = {name: getattr(finest, name) for name in ("depth_samples", "importance_samples")}
        return dataclasses.replace(self, rendering=dataclasses.replace(self.rendering, **samples))

    def mesh(self, settings: MeshSettings | None = None, progress: Progress | None = None) -> Mesh:
        """The surface of the density field with vertex colours (`trigrid_mesh`)."""
        return trigrid_mesh(self, settings, progress)
