"""Rays of cameras, and the depths at which they are sampled."""

from __future__ import annotations

import torch
from torch import Tensor

from ...cameras import Cameras
from .settings import FieldSettings

MIN_DEPTH = 1e-3


def camera_rays(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """(origins [B, 3], unit directions [B, H * W, 3], row-major) in the world, through the pixel centres."""
    inverse = torch.linalg.inv(cameras.K.double())
    x = torch.arange(cameras.width, dtype=torch.float64) + 0.5
    y = torch.arange(cameras.height, dtype=torch.float64) + 0.5
    pixels = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x)), torch.ones(len(y), len(x)).double()], -1)
    in_camera = pixels.reshape(1, -1, 3) @ inverse.transpose(1, 2)
    rotation = cameras.world_to_camera[:, :3, :3].double()
    directions = in_camera @ rotation
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return cameras.camera_centers, directions.float()


def ray_interval(field: FieldSettings, origin: Tensor) -> tuple[float, float]:
    """Nearest and farthest depth, as Euclidean distance along the ray, for a camera at `origin` [3]."""
    radius = float(origin.double().norm())
    return max(radius - field.near_offset, MIN_DEPTH), radius + field.far_offset


def coarse_depths(interval: tuple[float, float], count: int, jitter: Tensor | None = None) -> Tensor:
    """Depths [1 or N, count]: evenly spaced from end to end, each moved on by jitter [N, count] of a step (or 0.5).

    The last one may so lie beyond the far end.
    """
    near, far = interval
    step = (far - near) / (count - 1)
    depths = torch.linspace(near, far, count)[None]
    return depths + step * (0.5 if jitter is None else jitter)
