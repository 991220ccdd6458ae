"""3D Gaussians as stored: unconstrained parameters, activated only at the renderer's door."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .devices import Device, moved
from .errors import ShapeMismatch, check_all_finite, check_shape

SH_C0 = 0.28209479177387814
"""Constant term of the real spherical harmonics, 1 / (2 sqrt(pi))."""

MAX_SH_DEGREE = 3


@dataclasses.dataclass(frozen=True)
class Gaussians:
    """A set of N anisotropic 3D Gaussians (Kerbl et al. 2023), float32.

    means: [N, 3] centres.  quats: [N, 4] wxyz rotations, need not be unit.  log_scales: [N, 3] natural logarithms of
    the standard deviations along the local axes.  logit_opacities: [N].  sh: [N, K, 3] spherical harmonics
    coefficients with K = 1, 4, 9 or 16.
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    logit_opacities: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        count = len(self.means)
        shapes: dict[str, list[int | str]] = {
            "means": [count, 3],
            "quats": [count, 4],
            "log_scales": [count, 3],
            "logit_opacities": [count],
            "sh": [count, "K", 3],
        }
        for name, shape in shapes.items():
            check_shape("Gaussians", name, getattr(self, name), shape)
        sh_degree(self.sh)

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, rows: Tensor) -> Gaussians:
        """Some of the Gaussians: rows [M] int64, which may repeat, or [N] bool.

        >>> both = Gaussians(torch.eye(2, 3), torch.ones(2, 4), torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 1, 3))
        >>> both[torch.tensor([False, True])].means.tolist(), len(both[torch.tensor([1, 1, 0])])
        ([[0.0, 1.0, 0.0]], 3)
        """
        return Gaussians(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> Gaussians:
        """The same Gaussians on another device or in another floating-point type."""
        return moved(self, device, dtype)

    @property
    def scales(self) -> Tensor:
        """Standard deviations [N, 3]."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities [N] in 0..1."""
        return self.logit_opacities.sigmoid()

    def check_finite(self, where: str) -> None:
        """Raise `InvalidInput` naming the first field that holds a non-finite number."""
        check_all_finite(where, {field.name: getattr(self, field.name) for field in dataclasses.fields(self)})


def sh_degree(sh: Tensor) -> int:
    """Degree 0..3 of spherical harmonics coefficients [N, K, 3].

    >>> import torch
    >>> sh_degree(torch.zeros(2, 9, 3))
    2
    """
    count = int(sh.shape[-2])
    degree = math.isqrt(count) - 1
    if (degree + 1) ** 2 != count or not 0 <= degree <= MAX_SH_DEGREE:
        raise ShapeMismatch(f"sh_degree: `sh` has {count} coefficients, expected 1, 4, 9 or 16.")
    return degree


def rgb_to_sh0(rgb: Tensor) -> Tensor:
    """Constant coefficients [..., 3] that show the colour `rgb` [..., 3] (0..1) from every side.

    >>> import torch
    >>> rgb_to_sh0(torch.tensor([0.5, 0.5, 0.5])).tolist()
    [0.0, 0.0, 0.0]
    """
    return (rgb - 0.5) / SH_C0


def sh0_to_rgb(sh0: Tensor) -> Tensor:
    """Colours [..., 3] of constant coefficients [..., 3], the inverse of `rgb_to_sh0`; not clamped."""
    return sh0 * SH_C0 + 0.5
