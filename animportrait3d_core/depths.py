"""Depth maps: what the distance of every pixel says about the way its surface faces."""

from __future__ import annotations

import torch
from torch import Tensor

from .cameras import Cameras
from .errors import check_shape
from .progress import may_stop


def normals_of_depth(depth: Tensor, cameras: Cameras) -> Tensor:
    """Unit normals [B, H, W, 3] of the surface that depth maps [B, H, W] show, in camera space with OpenGL axes.

    depth: along the view axis in world units, 0 where nothing is seen.  cameras: B cameras of size W x H.  Axes: x
    right, y up, z towards the camera. The normal is 0 where nothing is seen, or where a pixel has no neighbour in a row
    or column. Of the two neighbours in a row (column) the one of more similar depth counts, so that a normal belongs
    to one side of an edge.
    """
    check_shape("normals_of_depth", "depth", depth, [len(cameras), cameras.height, cameras.width])
    normals = depth.new_zeros(*depth.shape, 3)
    for index in range(len(cameras)):
        may_stop()
        normals[index] = _normals_of(depth[index : index + 1], cameras[index : index + 1])[0]
    return normals


def _normals_of(depth: Tensor, cameras: Cameras) -> Tensor:
    points = _camera_points(depth, cameras)
    across, has_across = _step(points, depth, 2)
    down, has_down = _step(points, depth, 1)
    # With x right, y down and z forward, right x down points away from the camera.
    away = torch.nn.functional.normalize(torch.linalg.cross(across, down, dim=-1), dim=-1)
    known = has_across & has_down & (depth > 0)
    return torch.where(known[..., None], away * away.new_tensor([-1.0, 1.0, 1.0]), 0.0)


def _camera_points(depth: Tensor, cameras: Cameras) -> Tensor:
    """Points [B, H, W, 3] in OpenCV camera space of the pixels' centres."""
    columns = torch.arange(cameras.width, device=depth.device) + 0.5
    rows = torch.arange(cameras.height, device=depth.device) + 0.5
    pixels = torch.stack([columns.expand(cameras.height, -1), rows[:, None].expand(-1, cameras.width)], -1)
    focal = cameras.K[:, [0, 1], [0, 1]][:, None, None]
    center = cameras.K[:, :2, 2][:, None, None]
    flat = (pixels - center) / focal * depth[..., None]
    return torch.cat([flat, depth[..., None]], -1)


def _step(points: Tensor, depth: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Way [B, H, W, 3] to the next pixel along an axis of the picture, and whether [B, H, W] there is one."""
    forward = points.roll(-1, axis) - points
    after, before = depth.roll(-1, axis) > 0, depth.roll(1, axis) > 0
    last = depth.shape[axis] - 1
    after.narrow(axis, last, 1).fill_(False)
    before.narrow(axis, 0, 1).fill_(False)
    backward = forward.roll(1, axis)
    nearer = forward[..., 2].abs() <= backward[..., 2].abs()
    use_forward = after & (nearer | ~before)
    return torch.where(use_forward[..., None], forward, backward), after | before
