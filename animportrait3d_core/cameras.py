"""Pinhole cameras in OpenCV axes, and the view presets of the method.

World: y up, the face looks to +z, the subject's left is +x; one unit is three 3DPortraitGAN units. Cameras orbit the
world *origin* at radius 2.65 and look at (0, 0.228, 0), as the authors' code does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .devices import Device, moved
from .errors import InvalidInput, check_all_finite, check_shape
from .head_frame import FACE_CENTER, FACE_FOV_DEGREES, FOV_DEGREES, LOOK_AT, ORBIT_RADIUS


@dataclasses.dataclass(frozen=True)
class Cameras:
    """A batch of B pinhole cameras that share one image size.

    world_to_camera: [B, 4, 4] float32, OpenCV axes (x right, y down, z forward).  K: [B, 3, 3] float32 intrinsics in
    pixels; pixel centres lie at +0.5.  width, height: image size in pixels. On the CPU values are checked
    here, on a GPU when something is drawn.
    """

    world_to_camera: Tensor
    K: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        check_shape("Cameras", "world_to_camera", self.world_to_camera, ["B", 4, 4])
        check_shape("Cameras", "K", self.K, [len(self.world_to_camera), 3, 3])
        # On a GPU each look at a value waits for it; there the rasterisers look once per picture.
        if self.K.device.type == "cpu":
            check_all_finite("Cameras", {"world_to_camera": self.world_to_camera, "K": self.K})
        if self.width < 1 or self.height < 1:
            raise InvalidInput(f"Cameras: image size {self.width} x {self.height} is empty; both must be at least 1.")

    def __len__(self) -> int:
        return len(self.world_to_camera)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Cameras:
        """A batch of the chosen cameras; an integer gives a batch of one."""
        if isinstance(index, int):
            index = [index]
        return dataclasses.replace(self, world_to_camera=self.world_to_camera[index], K=self.K[index])

    def same_as(self, other: Cameras) -> bool:
        """Whether the other cameras take the same pictures, number for number."""
        sizes = (self.width, self.height) == (other.width, other.height)
        return sizes and torch.equal(self.world_to_camera, other.world_to_camera) and torch.equal(self.K, other.K)

    @property
    def camera_centers(self) -> Tensor:
        """Positions [B, 3] of the cameras in the world."""
        rotation, translation = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -(rotation.transpose(1, 2) @ translation[..., None]).squeeze(-1)

    @property
    def camera_to_world(self) -> Tensor:
        """Inverse [B, 4, 4] of `world_to_camera`."""
        inverse = self.world_to_camera.clone()
        inverse[:, :3, :3] = self.world_to_camera[:, :3, :3].transpose(1, 2)
        inverse[:, :3, 3] = self.camera_centers
        return inverse

    def resized(self, width: int, height: int) -> Cameras:
        """The same views at another image size."""
        scale = self.K.new_tensor([[width / self.width], [height / self.height], [1.0]])
        return dataclasses.replace(self, K=self.K * scale, width=width, height=height)

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> Cameras:
        """The same cameras on another device or in another floating-point type."""
        return moved(self, device, dtype)


def concatenate_cameras(parts: Sequence[Cameras]) -> Cameras:
    """One batch of all cameras, which must share an image size."""
    sizes = {(part.width, part.height) for part in parts}
    if len(sizes) != 1:
        raise InvalidInput(f"concatenate_cameras: image sizes {sorted(sizes)} differ; resize the cameras first.")
    return dataclasses.replace(
        parts[0],
        world_to_camera=torch.cat([part.world_to_camera for part in parts]),
        K=torch.cat([part.K for part in parts]),
    )


def project(cameras: Cameras, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [B, N, 2] and depths [B, N] (camera z) of world points [N, 3] or [B, N, 3].

    Points at or behind the camera have meaningless pixels: look at the depth first.
    """
    if points.ndim == 2:
        points = points.expand(len(cameras), *points.shape)
    check_shape("project", "points", points, [len(cameras), "N", 3])
    rotation, translation = cameras.world_to_camera[:, :3, :3], cameras.world_to_camera[:, :3, 3]
    in_camera = points @ rotation.transpose(1, 2) + translation[:, None]
    homogeneous = in_camera @ cameras.K.transpose(1, 2)
    return homogeneous[..., :2] / homogeneous[..., 2:], in_camera[..., 2]


OPENGL_AXES = (1.0, -1.0, -1.0)
"""Signs that turn OpenCV camera axes into OpenGL's (x right, y up, z towards the viewer), and back."""


def normals_to_opengl(cameras: Cameras, normals: Tensor) -> Tensor:
    """World normals [B, H, W, 3] of the pixels of B cameras in the OpenGL axes that networks see them in.

    >>> level = orbit_cameras([90], [0], 8, target=(0, 0, 0))  # looks along -x
    >>> normals_to_opengl(level, torch.tensor([1.0, 0, 0]).expand(1, 1, 1, 3)).round().tolist()
    [[[[0.0, 0.0, 1.0]]]]
    """
    check_shape("normals_to_opengl", "normals", normals, [len(cameras), "H", "W", 3])
    rotation = cameras.world_to_camera[:, :3, :3].to(normals)
    to_opengl = rotation * rotation.new_tensor(OPENGL_AXES)[:, None]
    return torch.einsum("brc,bhwc->bhwr", to_opengl, normals)


def intrinsics(fov_degrees: float, width: int, height: int) -> Tensor:
    """K [3, 3] of square pixels with the vertical field of view and the principal point in the middle."""
    if not 0 < fov_degrees < 180:
        raise InvalidInput(f"intrinsics: field of view {fov_degrees} degrees, expected more than 0 and less than 180.")
    focal = 0.5 * height / math.tan(math.radians(fov_degrees) / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)


def look_at(eyes: Tensor, target: Tensor, up: Tensor | None = None) -> Tensor:
    """world_to_camera [B, 4, 4] of cameras at `eyes` [B, 3] that look at `target` [3] or [B, 3].

    Computed in float64. `up` [3] is (0, 1, 0) if not given; a view along it is refused.
    """
    eyes, target = eyes.double(), target.double().expand(len(eyes), 3)
    up = (torch.tensor([0.0, 1.0, 0.0]) if up is None else up).double().expand(len(eyes), 3)
    forward = torch.nn.functional.normalize(target - eyes, dim=-1)
    right = torch.linalg.cross(forward, up)
    if bool((right.norm(dim=-1) < 1e-9).any()):
        raise InvalidInput("look_at: a camera looks along its up vector; tilt it a little or pass another `up`.")
    right = torch.nn.functional.normalize(right, dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    matrix = torch.eye(4, dtype=torch.float64).repeat(len(eyes), 1, 1)
    matrix[:, :3, :3] = rotation
    matrix[:, :3, 3] = -(rotation @ eyes[..., None]).squeeze(-1)
    return matrix.float()


def orbit_cameras(
    yaw_degrees: Sequence[float] | Tensor,
    elevation_degrees: Sequence[float] | Tensor,
    size: int,
    radius: float = ORBIT_RADIUS,
    target: Sequence[float] = LOOK_AT,
    fov_degrees: float = FOV_DEGREES,
) -> Cameras:
    """Square cameras on a sphere around the world origin that look at `target`.

    yaw 0 looks at the face from the front, +90 from the subject's left (+x); elevation above 0 looks down from above.
    Both are true angles of the camera's position, in degrees, one per camera.

    >>> orbit_cameras([90], [0], 64, radius=2.0).camera_centers.round(decimals=3).abs().tolist()
    [[2.0, 0.0, 0.0]]
    """
    yaw = torch.deg2rad(torch.as_tensor(yaw_degrees, dtype=torch.float64))
    elevation = torch.deg2rad(torch.as_tensor(elevation_degrees, dtype=torch.float64))
    check_shape("orbit_cameras", "elevation_degrees", elevation, [len(yaw)])
    horizontal = torch.cos(elevation)
    directions = torch.stack([torch.sin(yaw) * horizontal, torch.sin(elevation), torch.cos(yaw) * horizontal], dim=-1)
    matrices = look_at(radius * directions, torch.tensor(list(target)))
    return Cameras(matrices, intrinsics(fov_degrees, size, size).repeat(len(yaw), 1, 1), size, size)


def upstream_orbit_cameras(
    upstream_yaw_degrees: Sequence[float],
    upstream_pitch_degrees: Sequence[float],
    size: int,
    radius: float = ORBIT_RADIUS,
    target: Sequence[float] = LOOK_AT,
) -> Cameras:
    """Cameras by the authors' angles: yaw 90 is the front, 180 the subject's left; pitch 90 is level, more is below.

    Their pitch v is not an angle: the polar angle is arccos(1 - 2 v / 180), with v / 180 kept 1e-5 away from the poles.
    """
    turns = [min(max(math.radians(pitch), 1e-5), math.pi - 1e-5) / math.pi for pitch in upstream_pitch_degrees]
    elevation = [90.0 - math.degrees(math.acos(1 - 2 * turn)) for turn in turns]
    yaw = [angle - 90.0 for angle in upstream_yaw_degrees]
    return orbit_cameras(yaw, elevation, size, radius=radius, target=target)


MESH_VIEW_YAWS = (90, 180, 270, 0, 135, 225, 315, 45)
MESH_VIEW_PITCHES = (120, 90, 60)
TRAINING_VIEW_PITCHES = (60, 75, 90, 105, 120)


def _upstream_grid(yaws: Sequence[float], pitches: Sequence[float], size: int) -> Cameras:
    return upstream_orbit_cameras(
        [yaw for _ in pitches for yaw in yaws], [pitch for pitch in pitches for _ in yaws], size
    )


def _spiral(count: int, size: int, offset: float) -> Cameras:
    """`count` cameras spread evenly in yaw (golden-angle order) and over elevations between -20 and 40 degrees."""
    index = torch.arange(count, dtype=torch.float64)
    yaw = (offset + index * 360.0 * 0.6180339887498949) % 360.0
    elevation = -20.0 + 60.0 * (index + 0.5) / count
    return orbit_cameras(yaw, elevation, size)


def _face_cameras(size: int) -> Cameras:
    """24 close views of the face: yaws from -72 to 72 degrees at three elevations."""
    yaw = torch.linspace(-72.0, 72.0, 8, dtype=torch.float64).repeat(3)
    elevation = torch.tensor([-15.0, 5.0, 25.0], dtype=torch.float64).repeat_interleave(8)
    return orbit_cameras(yaw, elevation, size, target=FACE_CENTER, fov_degrees=FACE_FOV_DEGREES)


VIEW_PRESETS = ("quickstart", "mesh24", "train120", "heldout", "turntable", "face")


def view_preset(name: str, size: int) -> Cameras:
    """Named camera sets.

    quickstart: 60 cameras all around for small machines.  mesh24: the paper's views for mesh refinement, in the
    authors' order.  train120: the paper's views for training the Gaussians.  heldout: 12 cameras that lie in none of
    the others, for evaluation.  turntable: 90 level cameras in one turn that starts at the front.  face: 24 close views
    of the face, for eyes and lips that are a few pixels large in the others.
    """
    if name == "quickstart":
        return _spiral(60, size, offset=0.0)
    if name == "mesh24":
        return _upstream_grid(MESH_VIEW_YAWS, MESH_VIEW_PITCHES, size)
    if name == "train120":
        return _upstream_grid([(90 + 15 * i) % 360 for i in range(24)], TRAINING_VIEW_PITCHES, size)
    if name == "heldout":
        return _spiral(12, size, offset=13.0)
    if name == "turntable":
        return orbit_cameras([4.0 * i for i in range(90)], [0.0] * 90, size)
    if name == "face":
        return _face_cameras(size)
    raise InvalidInput(f"view_preset: '{name}' is unknown, expected one of {', '.join(VIEW_PRESETS)}.")


def yaw_of(cameras: Cameras) -> Tensor:
    """Yaw [B] of the cameras in degrees in (-180, 180]: 0 in front of the face, +90 on the subject's left."""
    centers = cameras.camera_centers
    return torch.rad2deg(torch.atan2(centers[:, 0], centers[:, 2]))


def view_word(yaw_degrees: float) -> str:
    """The word that text-to-image prompts use for a view: 'front view', 'side view' or 'back view'.

    The borders are those of the authors' training views (30 and 105 degrees), with both edges of the front counted in.

    >>> [view_word(yaw) for yaw in (0, -30, 31, 104, 180)]
    ['front view', 'front view', 'side view', 'side view', 'back view']
    """
    turn = abs((yaw_degrees + 180.0) % 360.0 - 180.0)
    if turn <= 30.0:
        return "front view"
    return "side view" if turn < 105.0 else "back view"
