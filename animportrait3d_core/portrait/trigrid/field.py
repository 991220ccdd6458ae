"""The field in plain torch, every term written out: the reference that the fast kernels are measured against."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from .data import PLANES, Trigrids
from .settings import FieldSettings

PLANE_AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # which of x, y, z is each plane's width, height and depth
CROPPED_DENSITY = -1000.0


def sample_trigrids(levels: Mapping[int, Tensor], positions: Tensor) -> Tensor:
    """Features [M, C] at positions [M, 3] in cube coordinates (-1 to 1): mean over planes and levels.

    Trilinear, texel centres at half integers, zero outside (so features fade near the border, most on coarse levels).
    """
    total = torch.zeros(())
    for grid in levels.values():
        grid = grid.to(positions.dtype)
        for plane, axes in enumerate(PLANE_AXES):
            where = positions[:, list(axes)].reshape(1, 1, 1, -1, 3)
            sampled = functional.grid_sample(grid[plane : plane + 1], where, padding_mode="zeros", align_corners=False)
            total = total + sampled.reshape(grid.shape[1], -1)
    return (total / (PLANES * len(levels))).T


def query_field(portrait: Trigrids, points: Tensor) -> tuple[Tensor, Tensor]:
    """(raw density [M], features [M, 32]) at world points [M, 3]; density before softplus, nothing cropped."""
    features = sample_trigrids(portrait.levels, points / portrait.field.half_cube)
    weight, bias, output_weight, output_bias = (part.to(points.dtype) for part in portrait.decoder.layers())
    output = functional.softplus(features @ weight.T + bias) @ output_weight.T + output_bias
    return output[:, 0], output[:, 1:]


def crop_density(field: FieldSettings, points: Tensor, raw_density: Tensor) -> Tensor:
    """Raw density [...] at points [..., 3] with the sides of the cube, |x| or |z| beyond the limit, emptied."""
    limit = field.crop_limit
    native = points / field.global_scale
    outside = (native[..., 0].abs() > limit) | (native[..., 2].abs() > limit)
    return torch.where(outside, torch.full_like(raw_density, CROPPED_DENSITY), raw_density)
