"""The rough density of real fields: band-limited noise on the texels of a fitted portrait, that moves its surface.

Portraits distilled from diffusion models look right but have lumpy surfaces, since no picture of theirs was ever
consistent with another. A fit to an identity's consistent renders lacks these lumps, so they are added.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...portrait.trigrid import TrigridPortrait, density_grid, query_density
from ...portrait.trigrid.field import sample_trigrids
from ...surface import SurfaceSettings, mesh_from_density

_POINTS = 8192
_GRID = 128
_REACH = 0.004  # half the distance over which the density's slope is measured, world units
_FARTHEST = 0.05  # displacements beyond this are of places without a surface
_RIDGE = 1e-3
_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Roughness:
    """displacement: root mean square of the surface's shift along its normal, world units.  level: the resolution whose
    texels carry the noise, which sets its finest wavelength (two texels of 2.1 / level world units)."""

    displacement: float = 0.004
    level: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.displacement <= 0.02:
            raise InvalidInput(f"Roughness: displacement is {self.displacement}, expected 0 to 0.02 world units.")


def roughened(portrait: TrigridPortrait, roughness: Roughness, generator: torch.Generator) -> TrigridPortrait:
    """The portrait with noise on the texels of one level, along the feature that moves density most and colour least.

    Raises `InvalidInput` if the portrait lacks the level.
    """
    if roughness.displacement == 0:
        return portrait
    if roughness.level not in portrait.levels:
        raise InvalidInput(f"roughened: the portrait has no level {roughness.level}, only {sorted(portrait.levels)}.")
    points = _surface_points(portrait, generator)
    grid = portrait.levels[roughness.level]
    shape = (grid.shape[0], 1, *grid.shape[2:])
    noise = torch.randn(shape, generator=generator) * _density_feature(portrait, points)[None, :, None, None, None]
    density, slope = query_density(portrait, points), _slopes(portrait, points)
    amount = 0.1
    for _ in range(_ROUNDS):  # nearly linear: each round multiplies by wanted over found
        changed = _with_level(portrait, roughness.level, grid.float() + amount * noise)
        shift = ((query_density(changed, points) - density) / slope).abs().clamp(max=_FARTHEST)
        amount *= float((roughness.displacement / shift.square().mean().sqrt()).clamp(0.2, 5))
    return _with_level(portrait, roughness.level, grid.float() + amount * noise)


def _with_level(portrait: TrigridPortrait, level: int, values: Tensor) -> TrigridPortrait:
    levels = dict(portrait.levels)
    levels[level] = values.to(levels[level].dtype)
    return dataclasses.replace(portrait, levels=levels)


def _surface_points(portrait: TrigridPortrait, generator: torch.Generator) -> Tensor:
    """Up to 8192 points [N, 3] on the raw surface."""
    grid = density_grid(portrait, _GRID)
    vertices = mesh_from_density(grid.values, grid.start, grid.spacing, SurfaceSettings(smoothing_steps=0)).vertices
    return vertices[torch.randperm(len(vertices), generator=generator)[:_POINTS]]


def _density_feature(portrait: TrigridPortrait, points: Tensor) -> Tensor:
    """Unit direction [C] in feature space with the most change of density per change of colour at the points.

    With d the mean gradient of the density and Q the mean of the colours' squared Jacobian, it is Q^-1 d.
    """
    features = sample_trigrids(portrait.levels, points / portrait.field.half_cube)
    weight, bias, output_weight, _ = portrait.decoder.layers()
    matrix, _ = portrait.to_rgb.matrix(portrait.ws[-1])
    active = torch.sigmoid(features @ weight.T + bias)
    rows = torch.cat([output_weight[:1], matrix @ output_weight[1:]])
    jacobian = torch.einsum("oh,nh,hc->noc", rows, active, weight)
    colors = torch.einsum("noc,nod->cd", jacobian[:, 1:], jacobian[:, 1:]) / len(points)
    ridge = _RIDGE * colors.trace() / len(colors) * torch.eye(len(colors))
    return torch.nn.functional.normalize(torch.linalg.solve(colors + ridge, jacobian[:, 0].mean(dim=0)), dim=0)


def _slopes(portrait: TrigridPortrait, points: Tensor) -> Tensor:
    """Length [N] of the density's gradient, at least 1 per world unit."""
    offsets = _REACH * torch.eye(3)
    differences = [query_density(portrait, points + step) - query_density(portrait, points - step) for step in offsets]
    return (torch.stack(differences, dim=-1) / (2 * _REACH)).norm(dim=-1).clamp(min=1)
