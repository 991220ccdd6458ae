"""Normals in pictures: their value class, and the turn from camera space into the world."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..cameras import OPENGL_AXES, Cameras
from ..errors import InvalidInput, ShapeMismatch, check_finite, check_shape
from ..socket_values import SocketValue
from ..views import Views, replace_images

SCHEMA_VERSION = 1
CODINGS = ("OpenGL", "DirectX", "OpenCV")
_AXES = {"OpenGL": (1.0, 1.0, 1.0), "DirectX": (1.0, -1.0, 1.0), "OpenCV": OPENGL_AXES}
FLAT = 0.2  # a coded normal shorter than this means nothing: background, or the mean of opposite directions
ROTATIONS = ("camera_to_world", "legacy")


@dataclasses.dataclass(frozen=True)
class ViewNormals(SocketValue):
    """Normals of B views in camera space, OpenGL axes: x right, y up, z towards the camera.

    normals: [B, H, W, 3] float32 of unit length where the mask is above 0, else 0.  masks: [B, H, W] float32 in 0..1,
    how far the normals can be used there.
    """

    normals: Tensor
    masks: Tensor
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_shape("ViewNormals", "normals", self.normals, ["B", "H", "W", 3])
        check_shape("ViewNormals", "masks", self.masks, list(self.normals.shape[:3]))

    def __len__(self) -> int:
        return len(self.normals)

    def __getitem__(self, index: slice | list[int] | Tensor) -> ViewNormals:
        """The normals of the chosen views."""
        return dataclasses.replace(self, normals=self.normals[index], masks=self.masks[index])


def normals_from_images(images: Tensor, masks: Tensor, coding: str = "OpenGL") -> ViewNormals:
    """Normals of pictures [B, H, W, 3] that hold n / 2 + 1/2 in 0..1, and masks [B, H, W].

    coding: "OpenGL" (y up, z towards the viewer), "DirectX" (y down), "OpenCV" (y down, z away from the viewer).
    Pixels that hold no direction (grey, black borders of a resampled picture) leave the mask.
    Raises `InvalidInput` for another coding or values outside 0..1, `ShapeMismatch` for other shapes.
    """
    where = "normals_from_images"
    if coding not in _AXES:
        raise InvalidInput(f"{where}: coding is {coding!r}, expected one of {', '.join(CODINGS)}.")
    check_shape(where, "images", images, ["B", "H", "W", 3])
    check_shape(where, "masks", masks, list(images.shape[:3]))
    check_finite(where, "images", images)
    low, high = (float(images.min()), float(images.max())) if images.numel() else (0.0, 1.0)
    if low < -1e-3 or high > 1 + 1e-3:
        raise InvalidInput(
            f"{where}: values run from {low:.3g} to {high:.3g}, expected 0 to 1; code a normal n as n / 2 + 1/2."
        )
    directions = (2 * images - 1) * images.new_tensor(_AXES[coding])
    length = directions.norm(dim=-1, keepdim=True)
    usable = torch.where(length[..., 0] > FLAT, masks, 0.0)
    unit = directions / length.clamp_min(FLAT)
    return ViewNormals(torch.where(usable[..., None] > 0, unit, 0.0), usable)


def normals_for_views(images: Tensor, views: Views, coding: str = "OpenGL") -> ViewNormals:
    """Normals of `views` from coded pictures [B, H', W', 3 or 4], one per view in their order, at the views' size.

    As `normals_from_images`; pictures of another size are resampled, their proportions must be those of the views.
    """
    coded = replace_images(views, images)
    normals = normals_from_images(coded.images, coded.masks, coding)
    return resized_normals(normals, views.cameras.width, views.cameras.height)


def normal_images_of(normals: ViewNormals) -> Tensor:
    """Pictures [B, H, W, 3] of normals, n / 2 + 1/2, over white."""
    visible = normals.masks[..., None].clamp(0, 1)
    return ((0.5 * normals.normals + 0.5) * visible + (1 - visible)).clamp(0, 1)


def world_normals(view_normals: ViewNormals, cameras: Cameras, rotation: str = "camera_to_world") -> Tensor:
    """World normals [B, H, W, 3] of camera-space ones: R_camera_to_world diag(1, -1, -1) n; 0 outside of the masks.

    rotation: "camera_to_world", or "legacy" for the authors' transposed matrix (train_mesh.py), which is right only for
    cameras that look level along an axis: their cameras look up by 4.9 degrees, and their targets are off by twice
    that. Raises `ShapeMismatch` unless there is one camera per view and their pictures have one size.
    """
    check_cameras("world_normals", view_normals, cameras)
    if rotation not in ROTATIONS:
        raise InvalidInput(f"world_normals: rotation is {rotation!r}, expected one of {', '.join(ROTATIONS)}.")
    to_camera = cameras.world_to_camera[:, :3, :3].to(view_normals.normals)
    in_camera = view_normals.normals * view_normals.normals.new_tensor(OPENGL_AXES)
    # As rows: n R_world_to_camera is the column form R_camera_to_world n.
    matrix = to_camera if rotation == "camera_to_world" else _legacy_matrix(to_camera)
    return torch.einsum("bhwi,bij->bhwj", in_camera, matrix)


def _legacy_matrix(to_camera: Tensor) -> Tensor:
    """The authors' row-vector product with the camera-to-world matrix instead of its transpose."""
    return to_camera.transpose(1, 2)


def check_cameras(where: str, view_normals: ViewNormals, cameras: Cameras) -> None:
    """Raises `ShapeMismatch` unless there is one camera per view and their pictures have one size."""
    found = list(view_normals.normals.shape[:3])
    expected = [len(cameras), cameras.height, cameras.width]
    if found != expected:
        raise ShapeMismatch(
            f"{where}: the normals are {found[0]} pictures of {found[2]} x {found[1]}, expected {expected[0]} of "
            f"{expected[2]} x {expected[1]}, as the views; estimate them from these views, or resize both alike."
        )


def check_view_normals(where: str, view_normals: ViewNormals, views: Views) -> None:
    """Raises unless the normals belong to the views and are finite."""
    check_cameras(where, view_normals, views.cameras)
    check_finite(where, "normals", view_normals.normals)
    check_finite(where, "masks", view_normals.masks)


def resized_normals(view_normals: ViewNormals, width: int, height: int) -> ViewNormals:
    """The same normals at another size: weighted means over the masks, made unit again."""
    if (view_normals.normals.shape[2], view_normals.normals.shape[1]) == (width, height):
        return view_normals
    weighted = torch.cat([view_normals.normals * view_normals.masks[..., None], view_normals.masks[..., None]], dim=-1)
    channels = torch.nn.functional.interpolate(
        weighted.permute(0, 3, 1, 2), size=(height, width), mode="bilinear", align_corners=False, antialias=True
    ).permute(0, 2, 3, 1)
    masks = channels[..., 3].clamp(0, 1)
    length = channels[..., :3].norm(dim=-1)
    usable = torch.where(length > FLAT * masks.clamp_min(1e-6), masks, 0.0)
    unit = channels[..., :3] / length[..., None].clamp_min(1e-12)
    return ViewNormals(torch.where(usable[..., None] > 0, unit, 0.0), usable)
