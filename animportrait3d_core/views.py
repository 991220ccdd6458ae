"""Views: pictures of one subject with their mattes and cameras, the currency between portrait and avatar."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .cameras import Cameras, concatenate_cameras, view_word, yaw_of
from .depths import normals_of_depth
from .devices import Device, moved
from .errors import InvalidInput, check_finite, check_shape
from .socket_values import SocketValue

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Views(SocketValue):
    """B pictures of one subject.

    images: [B, H, W, 3] float32 in 0..1, composited over `background` [3].  masks: [B, H, W] float32 coverage in 0..1.
    cameras: B cameras of size W x H.  body: [B, n] parameters of the body by name (`BodyParameters.to_tensors`), the
    pose of each picture of a moving avatar; None where all show the rest pose.  depth: [B, H, W] float32 along the view
    axis in world units, 0 where nothing is seen; None where the subject has no surface that is known.
    """

    images: Tensor
    masks: Tensor
    cameras: Cameras
    background: Tensor
    body: Mapping[str, Tensor] | None = None
    depth: Tensor | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        batch, height, width = len(self.cameras), self.cameras.height, self.cameras.width
        check_shape("Views", "images", self.images, [batch, height, width, 3])
        check_shape("Views", "masks", self.masks, [batch, height, width])
        check_shape("Views", "background", self.background, [3])
        if self.depth is not None:
            check_shape("Views", "depth", self.depth, [batch, height, width])
        for name, values in (self.body or {}).items():
            check_shape("Views", f"body['{name}']", values, [batch, "n"])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> Views:
        """Views of the chosen cameras; an integer gives a batch of one."""
        if isinstance(index, int):
            index = [index]
        body = None if self.body is None else {name: values[index] for name, values in self.body.items()}
        depth = None if self.depth is None else self.depth[index]
        images, masks, cameras = self.images[index], self.masks[index], self.cameras[index]
        return dataclasses.replace(self, images=images, masks=masks, cameras=cameras, body=body, depth=depth)

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> Views:
        """The same views on another device or in another floating-point type."""
        return moved(self, device, dtype)

    @property
    def normals(self) -> Tensor | None:
        """Camera-space OpenGL normals [B, H, W, 3] of the surface that is seen, 0 where none is; None without depth."""
        return None if self.depth is None else normals_of_depth(self.depth, self.cameras)

    @property
    def view_words(self) -> tuple[str, ...]:
        """'front view', 'side view' or 'back view' per picture."""
        return tuple(view_word(float(yaw)) for yaw in yaw_of(self.cameras))


def concatenate_views(parts: Sequence[Views]) -> Views:
    """One batch of all views, which must share image size and background."""
    backgrounds = {tuple(part.background.tolist()) for part in parts}
    if len(backgrounds) != 1:
        raise InvalidInput(f"concatenate_views: backgrounds {sorted(backgrounds)} differ; render all over one colour.")
    cameras = concatenate_cameras([part.cameras for part in parts])
    images, masks = torch.cat([part.images for part in parts]), torch.cat([part.masks for part in parts])
    depths = [part.depth for part in parts]
    depth = None if any(values is None for values in depths) else torch.cat([d for d in depths if d is not None])
    body = _concatenate_bodies([part.body for part in parts])
    return Views(images, masks, cameras, parts[0].background, body, depth)


def _concatenate_bodies(bodies: Sequence[Mapping[str, Tensor] | None]) -> dict[str, Tensor] | None:
    moving = [body for body in bodies if body is not None]
    if not moving:
        return None
    if len(moving) < len(bodies) or len({tuple(body) for body in moving}) != 1:
        raise InvalidInput(
            f"concatenate_views: {len(moving)} of {len(bodies)} parts carry the pose of each picture; "
            "join views of one kind."
        )
    return {name: torch.cat([body[name] for body in moving]) for name in moving[0]}


def replace_images(views: Views, images: Tensor, masks: Tensor | None = None) -> Views:
    """The same cameras with other pictures [B, H', W', 3 or 4] and masks [B, H', W'], at the pictures' size.

    The cameras are scaled to the new size, whose proportions must be the old ones. Without `masks` the old ones are
    resampled, and so is the depth, by the nearest pixel. A fourth channel of the pictures is ignored: hosts disagree on
    whether it is alpha or its inverse.
    """
    where = "replace_images"
    if images.ndim != 4 or len(images) != len(views) or images.shape[-1] not in (3, 4):
        raise InvalidInput(
            f"{where}: pictures have shape {list(images.shape)}, expected [{len(views)}, H, W, 3]: one per view."
        )
    height, width = images.shape[1:3]
    old = views.cameras
    if abs(width * old.height - height * old.width) > max(old.width, old.height):
        raise InvalidInput(
            f"{where}: pictures are {width} x {height}, the views {old.width} x {old.height}; "
            "crop or pad them to the same proportions first."
        )
    check_finite(where, "images", images)
    if masks is None:
        channels = torch.nn.functional.interpolate(
            views.masks[:, None], size=(height, width), mode="bilinear", align_corners=False
        )
        masks = channels[:, 0]
    check_shape(where, "masks", masks, [len(views), height, width])
    check_finite(where, "masks", masks)
    depth = views.depth
    if depth is not None:
        depth = torch.nn.functional.interpolate(depth[:, None], size=(height, width), mode="nearest-exact")[:, 0]
    return dataclasses.replace(
        views,
        images=images[..., :3].clamp(0, 1).clone(),
        masks=masks.clamp(0, 1).clone(),
        cameras=old.resized(width, height),
        depth=depth,
    )
