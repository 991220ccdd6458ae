"""The terms of the paper's equation A2, the silhouette term that its code adds, and our distance to the raw surface."""

from __future__ import annotations

import torch
from torch import Tensor

from ..meshes import face_normals


def normal_loss(rendered: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of 1 - cos between rendered [..., 3] (any length) and unit target normals [..., 3], weights [...].

    Zero weight everywhere gives zero.
    """
    cosine = torch.nn.functional.cosine_similarity(rendered, target, dim=-1, eps=1e-8)
    return ((1 - cosine) * weights).sum() / weights.sum().clamp_min(1e-8)


def silhouette_loss(coverage: Tensor, masks: Tensor) -> Tensor:
    """Mean squared difference of rendered coverage and mattes, both [B, H, W]."""
    return torch.nn.functional.mse_loss(coverage, masks)


def distance_loss(vertices: Tensor, anchors: Tensor) -> Tensor:
    """Mean squared distance of vertices [V, 3] to points [V, 3], world units squared."""
    return (vertices - anchors).square().sum(-1).mean()


def consistency_loss(vertices: Tensor, faces: Tensor, pairs: Tensor) -> Tensor:
    """Mean of 1 - cos between the normals of the faces of each pair [P, 2] that share an edge; vertices [V, 3]."""
    if not len(pairs):
        return vertices.sum() * 0
    normals = torch.nn.functional.normalize(face_normals(vertices, faces), dim=-1, eps=1e-30)
    first, second = normals.index_select(0, pairs[:, 0]), normals.index_select(0, pairs[:, 1])
    return (1 - (first * second).sum(-1)).mean()
