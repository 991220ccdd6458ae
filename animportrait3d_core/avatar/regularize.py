"""Regularisers that keep Gaussians near their triangle and small (GaussianAvatars, in the authors' variant)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class RegularizerSettings:
    """Weights and thresholds; all lengths are in triangle units."""

    position_weight: float = 10.0
    """1e5 in `paper`. There one violation leaves a gradient in Adam's second moment that is thousands of times the
    picture's, and freezes the Gaussian for the rest of a short run; this weight is a firm pull without that."""
    position_threshold: float = 1.0
    """Free way from the starting point, in triangle units."""
    position_measure: Literal["displacement", "norm"] = "displacement"
    """`displacement`: |x - x0|, how far the Gaussian went. `norm`: the authors' | |x| - |x0| |, which lets it wander to
    the other side of its triangle unseen."""
    scale_weight: float = 10.0
    """1e4 in `paper`; the reason is that of `position_weight`."""
    scale_threshold: float = 2.5
    """Free growth of a scale, as a multiple of its start (`relative`) or in triangle units (`absolute`, 0.2)."""
    scale_measure: Literal["relative", "absolute"] = "relative"
    """`relative` to the start, which already closes the surface with few points; 0.2 triangle units would shrink 30,000
    Gaussians until holes open. `absolute` in `paper`."""

    @classmethod
    def paper(cls) -> RegularizerSettings:
        """The authors' weights and measures."""
        return cls(1e5, 1.0, "norm", 1e4, 0.2, "absolute")


def position_penalty(means: Tensor, anchors: Tensor, visible: Tensor, settings: RegularizerSettings) -> Tensor:
    """Mean over the visible Gaussians of the way beyond the threshold; zero where none is visible.

    means, anchors: [N, 3] local positions, now and at the start.  visible: [N] bool.
    """
    if settings.position_measure == "norm":
        way = (means.norm(dim=-1) - anchors.norm(dim=-1)).abs()
    else:
        way = (means - anchors).norm(dim=-1)
    excess = torch.relu(way - settings.position_threshold)
    return (excess * visible).sum() / visible.sum().clamp_min(1)


def scale_penalty(log_scales: Tensor, anchors: Tensor, settings: RegularizerSettings) -> Tensor:
    """Mean over all Gaussians of the norm of what each axis [N, 3] exceeds the threshold by.

    anchors: [N, 3] log scales at the start. `relative` measures against the largest starting axis, so that a flat disc
    may become round.
    """
    if settings.scale_measure == "relative":
        log_scales = log_scales - anchors.amax(dim=-1, keepdim=True)
    excess = torch.relu(log_scales.exp() - settings.scale_threshold)
    squared = excess.square().sum(-1)
    outside = squared > 0
    # The root has no derivative at zero: take it only where it is needed.
    return torch.where(outside, torch.where(outside, squared, 1.0).sqrt(), 0.0).mean()
