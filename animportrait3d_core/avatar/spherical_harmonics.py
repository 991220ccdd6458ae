"""Rotation of spherical-harmonics colours, so that highlights turn with the head."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..gaussians import sh_degree
from ..render.torch_projection import spherical_harmonics_basis


@functools.lru_cache(maxsize=1)
def _probes() -> Tensor:
    """Directions [32, 3] spread over the sphere (Fibonacci lattice), float64: full rank for every degree's basis."""
    index = torch.arange(32, dtype=torch.float64)
    z = 1 - (2 * index + 1) / 32
    angle = index * torch.pi * (3 - 5**0.5)
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)


def rotate_spherical_harmonics(sh: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients [N, K, 3] of the colours turned by `rotation` [N, 3, 3]: the new colour at d is the old at R^-1 d.

    Each degree turns within itself; its matrix follows exactly from the basis at a few directions before and after the
    turn. The constant term does not change. Differentiable in both inputs.
    """
    degree = sh_degree(sh)
    probes = _probes().to(sh)
    turned = probes @ rotation  # row d R = (R^-1 d)^T, [N, 32, 3]
    before, after = spherical_harmonics_basis(probes, sh.shape[1]), spherical_harmonics_basis(turned, sh.shape[1])
    parts = [sh[:, :1]]
    for order in range(1, degree + 1):
        band = slice(order**2, (order + 1) ** 2)
        matrix = torch.linalg.pinv(before[:, band]) @ after[..., band]
        parts.append(matrix @ sh[:, band])
    return torch.cat(parts, dim=1)
