"""Detected landmarks on the portrait's surface.

Rays that nearly agree leave the depth of a point open, and detectors see a lid a little elsewhere from the side. Where
there is a surface, a ray of a view from the front says where on it the point lies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras
from ..landmarks import LEFT_EYE, MOUTH, RIGHT_EYE
from ..meshes import Mesh
from .landmarks import degrees_from_front, outer_eye_distance, viewing_rays

_MOST_DEGREES = 35.0  # from the front of the face
_MOST_MOVED = 0.06  # of the outer-eye distance: farther off, the ray met something before or behind the feature
_LEAST_VIEWS = 3


def landmarks_on_surface(
    mesh: Mesh, covering: Tensor, cameras: Cameras, pixels: Tensor, weights: Tensor, points: Tensor
) -> Tensor:
    """Points [68, 3] moved to where the surface is seen at the detections of the views from the front.

    mesh, covering: the surface and which of its faces [F] bool hide a face.  pixels, weights: detections [B, 68, 2] and
    [B, 68] in 0..1, 0 for wrong ones.  points: [68, 3], what the views agree on. The median of the views' hits; a point
    that fewer than three views meet within 0.06 of the outer-eye distance stays.
    """
    features = (points[part].mean(0) for part in (RIGHT_EYE, LEFT_EYE, MOUTH))
    chosen = torch.nonzero(degrees_from_front(cameras, *features) <= _MOST_DEGREES).squeeze(1)
    if len(chosen) < _LEAST_VIEWS:
        return points
    hits, faces = _hits(mesh, cameras[chosen], pixels[chosen])
    near = (hits - points).norm(dim=-1) < _MOST_MOVED * float(outer_eye_distance(points))
    meets = (weights[chosen] > 0) & (faces >= 0) & ~covering[faces.clamp(min=0)] & near
    median = torch.where(meets[..., None], hits, torch.nan).nanmedian(0).values
    return torch.where((meets.sum(0) >= _LEAST_VIEWS)[:, None], median, points.float())


def _hits(mesh: Mesh, cameras: Cameras, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Where the rays through pixels [B, N, 2] first meet the mesh [B, N, 3], and its faces [B, N], -1 for none."""
    from ..render import rasterize_mesh

    image = rasterize_mesh(mesh.vertices, mesh.faces, cameras)
    inside = ((pixels >= 0) & (pixels < pixels.new_tensor([cameras.width, cameras.height]))).all(-1)
    column, row = (torch.where(inside[..., None], pixels, 0.0)[..., axis].floor().long() for axis in range(2))
    place = row * cameras.width + column
    faces, depth = (values.flatten(1).gather(1, place) for values in (image.face_id, image.depth))
    origins, directions = viewing_rays(cameras, pixels)
    forward = cameras.world_to_camera[:, None, 2, :3].double()
    length = depth.double() / (directions * forward).sum(-1)
    return (origins[:, None] + length[..., None] * directions).float(), torch.where(inside, faces, -1)
