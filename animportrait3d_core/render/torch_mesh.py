"""Z-buffer in plain torch, on any device: the twin of `numba_mesh.py` and what runs where Numba is missing.

Every (face, pixel in its box) pair is tested at once, in chunks of a bounded number of pairs; each pixel keeps the
nearest hit, ties going to the lower face id.
"""

from __future__ import annotations

import torch

from .images import MeshImage
from .scene import NEAR_PLANE

_MAX_PAIRS = 1 << 21
_SLACK = 1e-6


def edge_products(corners: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """Unnormalised perspective-correct barycentrics [P, 3] of rays [P, 2] (at depth 1) in triangles [P, 3, 3]."""
    offsets = corners[..., :2] - rays[:, None] * corners[..., 2:]
    u, v = offsets.unbind(-1)
    return u.roll(-1, 1) * v.roll(-2, 1) - v.roll(-1, 1) * u.roll(-2, 1)


def pixel_rays(x: torch.Tensor, y: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Rays [P, 2] at depth 1 through the centres of integer pixels x, y [P]; K is [3, 3] or [P, 3, 3]."""
    ray_x = (x + 0.5 - K[..., 0, 2]) / K[..., 0, 0]
    return torch.stack([ray_x, (y + 0.5 - K[..., 1, 2]) / K[..., 1, 1]], dim=-1)


def _bounds(corners: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Pixel bounds [F, 4] = (x0, y0, x1, y1) of what lies beyond the near plane of triangles [F, 3, 3]."""
    following = corners.roll(-1, 1)
    here, there = corners[..., 2] - NEAR_PLANE, following[..., 2] - NEAR_PLANE
    crossing = here * there < 0
    t = torch.where(crossing, here / torch.where(crossing, here - there, 1.0), 0.0)
    points = torch.cat([corners, corners + t[..., None] * (following - corners)], dim=1)
    valid = torch.cat([here >= 0, crossing], dim=1)
    z = points[..., 2:].clamp_min(NEAR_PLANE)
    pixels = points[..., :2] * torch.stack([K[0, 0], K[1, 1]]) / z + K[:2, 2]
    low = torch.where(valid[..., None], pixels, torch.inf).amin(1)
    high = torch.where(valid[..., None], pixels, -torch.inf).amax(1)
    return torch.cat([low, high], dim=-1)


def _boxes(corners: torch.Tensor, K: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Top-left pixels [F, 2] and extents [F, 2] of the faces' boxes; extents are 0 where nothing is covered."""
    bounds = _bounds(corners, K)
    limit = bounds.new_tensor([size[0] - 1, size[1] - 1])
    low = torch.ceil(bounds[:, :2].clamp_min(-1.0) - 0.5 - _SLACK).clamp_min(0)
    high = torch.minimum(torch.floor(bounds[:, 2:].clamp_max(1e9) - 0.5 + _SLACK), limit)
    covered = (low <= high).all(-1, keepdim=True)
    return torch.where(covered, low, 0).long(), torch.where(covered, high - low + 1, 0).long()


def _draw_camera(corners: torch.Tensor, K: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """face_id [H * W], barycentric [H * W, 3], depth [H * W] of camera-space triangles [F, 3, 3]."""
    width, height = size
    face_id = torch.full((height * width,), -1, dtype=torch.long, device=corners.device)
    barycentric = corners.new_zeros(height * width, 3)
    depth = corners.new_full((height * width,), torch.inf)
    low, extent = _boxes(corners, K, size)
    pairs = extent.prod(-1)
    ends = torch.cumsum(pairs, 0)
    start = 0
    while start < len(pairs):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, done + _MAX_PAIRS, right=True)))
        counts = pairs[start:stop]
        face = torch.repeat_interleave(torch.arange(start, stop, device=corners.device), counts)
        local = torch.arange(len(face), device=corners.device) - (torch.cumsum(counts, 0) - counts)[face - start]
        x = low[face, 0] + local % extent[face, 0].clamp_min(1)
        y = low[face, 1] + local // extent[face, 0].clamp_min(1)
        weights = edge_products(corners[face], pixel_rays(x, y, K))
        total = weights.sum(-1)
        inside = ((weights >= 0).all(-1) | (weights <= 0).all(-1)) & (total != 0)
        face, pixel, weights = face[inside], (y * width + x)[inside], weights[inside] / total[inside][:, None]
        z = (weights * corners[face][..., 2]).sum(-1).float().to(corners.dtype)  # float32, like the Numba twin
        keep = z > NEAR_PLANE
        face, pixel, weights, z = face[keep], pixel[keep], weights[keep], z[keep]
        nearest = depth.scatter_reduce(0, pixel, z, "amin")
        winner = (z == nearest[pixel]) & (z < depth[pixel])
        first = torch.full_like(face_id, len(corners)).scatter_reduce(0, pixel[winner], face[winner], "amin")
        winner &= face == first[pixel]
        face_id[pixel[winner]] = face[winner]
        barycentric[pixel[winner]] = weights[winner]
        depth = nearest
        start = stop
    return face_id, barycentric, torch.where(face_id >= 0, depth, 0.0)


def draw_mesh(points: torch.Tensor, faces: torch.Tensor, K: torch.Tensor, size: tuple[int, int]) -> MeshImage:
    """Rasterises camera-space points [B, V, 3] with faces [F, 3] and intrinsics K [B, 3, 3]."""
    width, height = size
    drawn = [_draw_camera(view[faces].double(), camera.double(), size) for view, camera in zip(points, K)]
    face_id, barycentric, depth = (torch.stack(parts) for parts in zip(*drawn))
    shape = (len(points), height, width)
    return MeshImage(face_id.view(shape), barycentric.view(*shape, 3).float(), depth.view(shape).float())
