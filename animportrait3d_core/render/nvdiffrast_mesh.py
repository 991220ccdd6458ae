"""Adapter to nvdiffrast's CUDA rasteriser (Laine et al., "Modular primitives for
high-performance differentiable rendering", 2020).

nvdiffrast is under the Nvidia Source Code License: non-commercial use only. It is therefore never chosen by itself,
only with backend="nvdiffrast". Run with nvdiffrast 0.4.0 on an H100: it rounds the corners of faces to 1/16 of a pixel
and gives pixels of two equal faces to the later one: coverage, barycentrics and depth differ a little from ours.
"""

from __future__ import annotations

import torch

from .images import MeshImage
from .scene import NEAR_PLANE

_FAR_PLANE = 1000.0
_SIZE_MULTIPLE = 8  # what the CUDA rasteriser asks of an image's sides


def clip_positions(points: torch.Tensor, K: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """OpenGL clip coordinates [B, V, 4] of camera-space points [B, V, 3], row 0 of the image at y = -1."""
    x, y, z = points.unbind(-1)
    focal_x, focal_y, center_x, center_y = (K[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    span = _FAR_PLANE - NEAR_PLANE
    return torch.stack(
        [
            (2.0 * focal_x * x + (2.0 * center_x - width) * z) / width,
            (2.0 * focal_y * y + (2.0 * center_y - height) * z) / height,
            (_FAR_PLANE + NEAR_PLANE) / span * z - 2.0 * _FAR_PLANE * NEAR_PLANE / span,
            z,
        ],
        dim=-1,
    )


def draw_mesh(points: torch.Tensor, faces: torch.Tensor, K: torch.Tensor, size: tuple[int, int]) -> MeshImage:
    """Rasterises camera-space points [B, V, 3] with faces [F, 3] and intrinsics K [B, 3, 3]."""
    import nvdiffrast.torch as nvdiffrast

    width, height = size
    padded_width, padded_height = (-(-side // _SIZE_MULTIPLE) * _SIZE_MULTIPLE for side in size)
    device = points.device
    points, K = points.to("cuda", torch.float32), K.to("cuda", torch.float32)
    clip = clip_positions(points, K, padded_width, padded_height).contiguous()
    triangles = faces.to("cuda", torch.int32).contiguous()
    context = nvdiffrast.RasterizeCudaContext()
    raster, _ = nvdiffrast.rasterize(context, clip, triangles, (padded_height, padded_width), grad_db=False)
    raster = raster[:, :height, :width]
    face_id = raster[..., 3].long() - 1
    first, second = raster[..., 0], raster[..., 1]
    barycentric = torch.stack([first, second, 1.0 - first - second], dim=-1)
    corners = triangles.long()[face_id.clamp_min(0)]
    view = torch.arange(len(points), device=points.device)[:, None, None, None]
    depth = (barycentric * points[..., 2][view, corners]).sum(-1)
    hit = face_id >= 0
    return MeshImage(
        face_id.to(device),
        torch.where(hit[..., None], barycentric, 0.0).to(device),
        torch.where(hit, depth, 0.0).to(device),
    )
