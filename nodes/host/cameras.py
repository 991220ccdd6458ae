"""Cameras of the host's own 3D nodes (LOAD3D_CAMERA: a dictionary, or in newer hosts a list of them), from and to ours.

Both worlds are right-handed with y up, so that positions are the same; a camera of the host looks along its -z, y up.
As the host's render nodes do, the field of view is taken over the smaller side of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from animportrait3d_core.errors import InvalidInput

if TYPE_CHECKING:
    from animportrait3d_core.cameras import Cameras

LOAD3D_CAMERA = "LOAD3D_CAMERA"

HostCamera = Mapping[str, Any]
HostCameras = HostCamera | Sequence[HostCamera]

_FOV = 35.0
"""Degrees, where the host says none."""
_SHORT = 1e-6


def host_cameras(cameras: Cameras, target: Sequence[float]) -> dict[str, Any] | list[dict[str, Any]]:
    """Cameras with the principal point in the middle as the host's: one as a dictionary, more as a list.

    target: the point around which the host's viewers turn them.
    """
    import torch

    from animportrait3d_core.cameras import OPENGL_AXES
    from animportrait3d_core.rotations import matrix_to_quaternion

    axes = cameras.camera_to_world[:, :3, :3] * torch.tensor(OPENGL_AXES)
    made = []
    for eye, turn, K in zip(cameras.camera_centers.tolist(), matrix_to_quaternion(axes).tolist(), cameras.K.tolist()):
        fov = 2 * math.degrees(math.atan(0.5 * min(cameras.width, cameras.height) / K[1][1]))
        made.append(
            {
                "position": _named(eye), "target": _named(target), "zoom": 1.0, "cameraType": "perspective",
                "quaternion": dict(zip("wxyz", turn)), "fov": fov, "aspect": cameras.width / cameras.height,
            }
        )  # fmt: skip
    return made[0] if len(made) == 1 else made


def cameras_of_host(where: str, value: HostCameras, width: int, height: int) -> Cameras:
    """The host's camera, or all of its list, for pictures of this size. Raises `InvalidInput` for what is none."""
    import torch

    from animportrait3d_core.cameras import Cameras

    told = [value] if isinstance(value, Mapping) else list(value)
    if not told:
        raise InvalidInput(f"{where}: the list of cameras is empty, expected at least one.")
    matrices = torch.stack([_world_to_camera(where, camera) for camera in told])
    K = torch.zeros(len(told), 3, 3)
    K[:, 0, 0] = K[:, 1, 1] = torch.tensor([_focal(where, camera, min(width, height)) for camera in told])
    K[:, :, 2] = torch.tensor([width / 2, height / 2, 1.0])
    return Cameras(matrices, K, width, height)


def _named(place: Sequence[float]) -> dict[str, float]:
    return dict(zip("xyz", (float(value) for value in place)))


def _number(where: str, name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InvalidInput(f"{where}: `{name}` of the camera is {str(value)[:40]}, expected {low:g} to {high:g}.")
    return float(value)


def _numbers(where: str, name: str, value: Any, letters: str) -> list[float]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where}: `{name}` of the camera is {str(value)[:40]}, expected {', '.join(letters)}.")
    return [_number(where, f"{name}.{letter}", value.get(letter), -1e6, 1e6) for letter in letters]


def _focal(where: str, camera: HostCamera, pixels: int) -> float:
    if str(camera.get("cameraType", "perspective")).lower().startswith("ortho"):
        raise InvalidInput(f"{where}: the camera is orthographic; choose a perspective one.")
    fov = _number(where, "fov", camera.get("fov") or _FOV, 1, 170)
    zoom = _number(where, "zoom", camera.get("zoom") or 1.0, 1e-3, 1e3)
    return 0.5 * pixels / math.tan(math.radians(fov) / 2) * zoom


def _world_to_camera(where: str, camera: Any) -> Any:
    """[4, 4], OpenCV axes: by the quaternion, which may roll, or by the target."""
    import torch

    from animportrait3d_core.cameras import OPENGL_AXES, look_at
    from animportrait3d_core.rotations import normalize_quaternion, quaternion_to_matrix

    if not isinstance(camera, Mapping):
        raise InvalidInput(f"{where}: got a {type(camera).__name__}, expected a camera of ComfyUI's 3D nodes.")
    eye = torch.tensor(_numbers(where, "position", camera.get("position"), "xyz"))
    if not camera.get("quaternion"):
        target = torch.tensor(_numbers(where, "target", camera.get("target"), "xyz"))
        return look_at(eye[None], target)[0]
    quaternion = torch.tensor(_numbers(where, "quaternion", camera["quaternion"], "wxyz"))
    if float(quaternion.norm()) < _SHORT:
        raise InvalidInput(f"{where}: `quaternion` of the camera is zero, expected a rotation.")
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor(OPENGL_AXES)[:, None] * quaternion_to_matrix(normalize_quaternion(quaternion)).mT
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix
