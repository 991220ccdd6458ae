"""Rotation of spherical-harmonics colours, so that highlights turn with the head."""

from __future__ import annotations

import functools
from collections.abc import Sequence

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


def harmonic_turns(rotation: Tensor, degree: int) -> list[Tensor]:
    """Matrices [N, 2 l + 1, 2 l + 1] that turn coefficients of degree l = 1 to `degree` by `rotation` [N, 3, 3].

    Each degree turns within itself; its matrix follows exactly from the basis at a few directions before and after the
    turn. Differentiable.
    """
    probes, count = _probes().to(rotation), (degree + 1) ** 2
    turned = probes @ rotation  # row d R = (R^-1 d)^T, [N, 32, 3]
    before, after = spherical_harmonics_basis(probes, count), spherical_harmonics_basis(turned, count)
    bands = [slice(order**2, (order + 1) ** 2) for order in range(1, degree + 1)]
    return [torch.linalg.pinv(before[:, band]) @ after[..., band] for band in bands]


def turn_harmonics(sh: Tensor, turns: Sequence[Tensor]) -> Tensor:
    """Coefficients [N, K, 3] of the turned colours: the new colour at d is the old at R^-1 d. turns: `harmonic_turns`
    of the degree of `sh`. The constant term does not change. Differentiable in both inputs."""
    parts = [sh[:, :1]]
    for order, turn in enumerate(turns, start=1):
        parts.append(turn @ sh[:, order**2 : (order + 1) ** 2])
    return torch.cat(parts, dim=1)


def rotate_spherical_harmonics(sh: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients [N, K, 3] of the colours turned by `rotation` [N, 3, 3], one for each of the N Gaussians."""
    return turn_harmonics(sh, harmonic_turns(rotation, sh_degree(sh)))
