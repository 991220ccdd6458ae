"""Edge-based antialiasing of mesh images: blends colours across silhouettes, which gives vertices a gradient there.

The blending rule is that of Laine et al., "Modular primitives for high-performance differentiable rendering", section
3.6, but *all* silhouette edges are walked, not only the edges of visible faces: where triangles are smaller than pixels
the visible face near the limb rarely owns the silhouette edge, and that rule loses most of the gradient (measured: 6 to
18 % left at 200k faces and 256 pixels). Of several edges that cross between the same two pixels the outermost counts.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch

from ..cameras import Cameras
from ..errors import InvalidInput, check_shape
from .backends import choose_backend
from .images import MeshImage
from .inputs import usable_tensor
from .mesh import camera_points, check_mesh
from .scene import NEAR_PLANE
from .silhouettes import Crossings


def mesh_edges(faces: torch.Tensor) -> torch.Tensor:
    """Edges [E, 4] int64 of faces [F, 3]: two end vertices and the opposite vertex of up to two faces (-1 if absent).

    Costs more than an antialiasing call on a large mesh: compute it once and hand it to `antialias`.
    """
    check_shape("mesh_edges", "faces", faces, ["F", 3])
    faces = faces.long()
    ends = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
    opposite = torch.cat([faces[:, 2], faces[:, 0], faces[:, 1]])
    count = int(faces.max()) + 1 if len(faces) else 0
    keys, order = torch.sort(ends[:, 0] * count + ends[:, 1], stable=True)
    starts = torch.ones(len(keys), dtype=torch.bool, device=faces.device)
    starts[1:] = keys[1:] != keys[:-1]
    start = torch.nonzero(starts).squeeze(1)
    length = torch.diff(start, append=start.new_tensor([len(keys)]))
    partner = torch.where(length > 1, opposite[order[(start + 1).clamp_max(max(len(keys) - 1, 0))]], -1)
    return torch.cat([ends[order[start]], opposite[order[start]][:, None], partner[:, None]], dim=1)


def _finder(device: torch.device) -> Callable[..., tuple[Crossings, Crossings]]:
    """`find_crossings` of the Numba back-end for CPU tensors where there is one, else of the torch back-end."""
    numba = device.type == "cpu" and choose_backend("mesh", "auto", device, torch.float32) == "numba"
    return import_module(".numba_silhouettes" if numba else ".silhouettes", __package__).find_crossings


def _reach(pixels: torch.Tensor, crossings: Crossings, width: int, axis: int) -> torch.Tensor:
    """How far from the near pixel's centre the edge crosses, in 0..1 pixels [P]; differentiable in pixels [V, 2]."""
    row = torch.div(crossings.first, width, rounding_mode="floor")
    column = crossings.first - row * width
    line, cell = (row, column) if axis == 0 else (column, row)
    across = 1 - axis
    start, end = pixels.index_select(0, crossings.u), pixels.index_select(0, crossings.v)
    t = (line + 0.5 - start[:, across]) / (end[:, across] - start[:, across])
    offset = start[:, axis] + t * (end[:, axis] - start[:, axis]) - (cell + 0.5)
    return torch.where(crossings.near_first, offset, 1.0 - offset)


def antialias(
    color: torch.Tensor,
    mesh_image: MeshImage,
    vertices: torch.Tensor,
    faces: torch.Tensor,
    cameras: Cameras,
    edges: torch.Tensor | None = None,
) -> torch.Tensor:
    """Blends color [B, H, W, C] across the silhouettes of a mesh image: [B, H, W, C].

    vertices, faces and cameras are those of the rasterising call (cameras resized likewise). Differentiable in color
    and vertices. edges: `mesh_edges(faces)`, to be computed once where faces stay the same over many calls.
    Raises ShapeMismatch and InvalidInput.
    """
    batch, height, width = mesh_image.face_id.shape
    check_shape("antialias", "color", color, [batch, height, width, "C"])
    check_mesh("antialias", vertices, faces, cameras)
    if (len(cameras), cameras.height, cameras.width) != (batch, height, width):
        raise InvalidInput(
            f"antialias: the image is {batch} x {width} x {height}, the cameras {len(cameras)} x {cameras.width} x "
            f"{cameras.height}; pass the cameras of the rasterising call, resized with `Cameras.resized`."
        )
    if len(faces) == 0:
        return color
    edges = mesh_edges(faces) if edges is None else edges
    points = camera_points(vertices, cameras)
    source = color.reshape(batch * height * width, -1)
    moves = []
    for view in range(batch):
        z = points[view, :, 2]
        safe = torch.where(z > NEAR_PLANE, z, 1.0)
        K = usable_tensor(cameras.K)[view].to(points)
        pixels = points[view, :, :2] / safe[:, None] * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
        crossings = _finder(points.device)(
            pixels.detach(), z.detach(), edges, mesh_image.face_id[view], mesh_image.depth[view]
        )
        for axis, found in enumerate(crossings):
            moves.append(_moved(source, pixels, found, (width, view * height * width), axis))
    targets, amounts = (torch.cat(parts) for parts in zip(*moves))
    return source.index_add(0, targets, amounts).view(color.shape)


def _moved(
    source: torch.Tensor, pixels: torch.Tensor, found: Crossings, layout: tuple[int, int], axis: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which flat pixels [P] of source [B * H * W, C] receive what [P, C] from the edges that cross next to them.

    layout: the image's width, and the flat index of the view's first pixel.
    """
    width, origin = layout
    second = found.first + (1 if axis == 0 else width)
    near = torch.where(found.near_first, found.first, second) + origin
    far = torch.where(found.near_first, second, found.first) + origin
    reach = _reach(pixels, found, width, axis)
    # Past the middle between the centres the near surface enters the far pixel; before it, the far one the near.
    share = (reach - 0.5)[:, None].to(source.dtype)
    difference = source.index_select(0, near) - source.index_select(0, far)
    return torch.where(reach > 0.5, far, near), share * difference
