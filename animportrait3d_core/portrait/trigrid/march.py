"""Quadrature along rays in plain torch: weights, importance samples, the two passes of a ray."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from .data import Trigrids
from .field import crop_density, query_field
from .rays import coarse_depths

TRANSMITTANCE_FLOOR = 1e-10


@dataclasses.dataclass(frozen=True)
class RaySamples:
    """Explicit places of the samples, instead of the middle of every step and evenly spaced quantiles.

    jitter: [N, depth_samples] in 0..1, fraction of a step.  quantiles: [N, importance_samples] in 0..1.
    """

    jitter: Tensor | None = None
    quantiles: Tensor | None = None

    def rows(self, start: int, stop: int) -> RaySamples:
        """The samples of a range of rays."""
        jitter = None if self.jitter is None else self.jitter[start:stop]
        return RaySamples(jitter, None if self.quantiles is None else self.quantiles[start:stop])


@dataclasses.dataclass(frozen=True)
class RayResult:
    """What N rays saw: features [N, 32] in front of the background, coverage [N] and depth [N] (Euclidean).

    Depth is the weighted mean of the interval's middles; 0 where the coverage is 0.
    """

    features: Tensor
    coverage: Tensor
    depth: Tensor


def interval_weights(depths: Tensor, raw_density: Tensor) -> tuple[Tensor, Tensor]:
    """(weights [N, S - 1], middles [N, S - 1]) of sorted depths [N, S].

    The raw densities of neighbours are averaged *before* softplus(. - 1) (MipNeRF's ray marcher as used by EG3D).
    """
    step = depths[:, 1:] - depths[:, :-1]
    middles = 0.5 * (depths[:, 1:] + depths[:, :-1])
    density = functional.softplus(0.5 * (raw_density[:, 1:] + raw_density[:, :-1]) - 1)
    alpha = 1 - torch.exp(-density * step)
    passed = torch.cumprod(1 - alpha + TRANSMITTANCE_FLOOR, dim=1)
    before = torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
    return alpha * before, middles


def importance_depths(depths: Tensor, weights: Tensor, quantiles: Tensor) -> Tensor:
    """Depths [N, n] at `quantiles` [N, n] of the blurred coarse weights [N, S - 1] over the middles of depths [N, S].

    Kept from upstream: the first and last weight are left out, and the weight of interval k + 1 acts on the stretch
    between the middles k and k + 1, so that the last middle is never reached.
    """
    blurred = functional.max_pool1d(weights[:, None], 2, 1, padding=1)
    blurred = functional.avg_pool1d(blurred, 2, 1)[:, 0] + 0.01
    middles = 0.5 * (depths[:, 1:] + depths[:, :-1])
    share = blurred[:, 1:-1] + 1e-5
    share = share / share.sum(dim=1, keepdim=True)
    cumulative = torch.cat([torch.zeros_like(share[:, :1]), torch.cumsum(share, dim=1)], dim=1)
    above = torch.searchsorted(cumulative, quantiles.contiguous(), right=True)
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=share.shape[1])
    middles = middles.expand(len(weights), -1)
    low, high = cumulative.gather(1, below), cumulative.gather(1, above)
    span = torch.where(high - low < 1e-5, torch.ones_like(low), high - low)
    start, stop = middles.gather(1, below), middles.gather(1, above)
    return start + (quantiles - low) / span * (stop - start)


def march_rays(
    portrait: Trigrids,
    origin: Tensor,
    directions: Tensor,
    interval: tuple[float, float],
    samples: RaySamples | None = None,
) -> RayResult:
    """Both passes of rays from one origin [3], or [N, 3], along unit directions [N, 3], every sample evaluated.

    `interval`: see `ray_interval`. Deterministic: without `samples`, mid-step jitter and quantiles from 0 to 1 with
    both ends, which is upstream's own deterministic switch.
    """
    samples = samples or RaySamples()
    count, settings = len(directions), portrait.rendering
    coarse = coarse_depths(interval, settings.depth_samples, samples.jitter).to(directions.dtype).expand(count, -1)
    density, features = _evaluate(portrait, origin, directions, coarse)
    weights, _ = interval_weights(coarse, density)
    quantiles = samples.quantiles
    if quantiles is None:
        quantiles = torch.linspace(0, 1, settings.importance_samples, dtype=directions.dtype).expand(count, -1)
    fine = importance_depths(coarse, weights, quantiles)
    fine_density, fine_features = _evaluate(portrait, origin, directions, fine)

    depths, order = torch.cat([coarse, fine], dim=1).sort(dim=1)
    density = torch.cat([density, fine_density], dim=1).gather(1, order)
    features = torch.cat([features, fine_features], dim=1)
    features = features.gather(1, order[..., None].expand(-1, -1, features.shape[-1]))
    weights, middles = interval_weights(depths, density)
    between = 0.5 * (features[:, 1:] + features[:, :-1])
    coverage = weights.sum(dim=1)
    depth = (weights * middles).sum(dim=1) / coverage.clamp(min=1e-12)
    return RayResult((weights[..., None] * between).sum(dim=1), coverage, depth)


def _evaluate(portrait: Trigrids, origin: Tensor, directions: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """(raw density [N, S], cropped, and features [N, S, 32]) at depths [N, S]."""
    points = (origin.reshape(-1, 1, 3) + depths[..., None] * directions[:, None]).reshape(-1, 3)
    density, features = query_field(portrait, points)
    shape = depths.shape
    return crop_density(portrait.field, points, density).reshape(shape), features.reshape(*shape, -1)
