"""What the rasterisers return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class GaussianImage:
    """A batch of rendered Gaussian images.

    color:    [B, H, W, 3], composited over the background.
    alpha:    [B, H, W] in 0..1, one minus the transmittance.
    depth:    [B, H, W], expected view depth sum(w z) / sum(w) in world units (gsplat's "ED"); 0 where alpha is 0.
    features: [B, H, W, F] accumulated over a background of zero, or None when none were given.
    info:     "means2d" [B, N, 2] pixels, "radii" [B, N] int32 pixels (0 = culled), "visible" [B, N] bool,
              "backend" str. `means2d` is part of the graph: call `info["means2d"].retain_grad()` before the
              backward pass and read its `.grad` after it (what densification wants). Culled entries are 0.
              (gsplat's own tensor is [B, 1, N, 2]; everything else is the same for all back-ends.)
    """

    color: torch.Tensor
    alpha: torch.Tensor
    depth: torch.Tensor
    features: torch.Tensor | None
    info: dict[str, Any]


@dataclass(frozen=True)
class MeshImage:
    """A batch of rasterised mesh images; no entry carries a gradient.

    face_id:     [B, H, W] int64, -1 where no face covers the pixel centre.
    barycentric: [B, H, W, 3] float32, perspective-correct weights of the face's three vertices; 0 where empty.
    depth:       [B, H, W] float32, view depth in world units; 0 where empty.
    """

    face_id: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """[B, H, W] bool, where a face was hit."""
        return self.face_id >= 0
