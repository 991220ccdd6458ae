"""Edge-based antialiasing of mesh images: blends colours across silhouettes, which gives vertices a gradient there.

The blending rule is that of Laine et al., "Modular primitives for high-performance differentiable rendering", section
3.6, but *all* silhouette edges are walked, not only the edges of visible faces: where triangles are smaller than pixels
the visible face near the limb rarely owns the silhouette edge, and that rule loses most of the gradient (measured: 6 to
18 % left at 200k faces and 256 pixels). Of several edges that cross between the same two pixels the outermost counts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..cameras import Cameras
from ..errors import InvalidInput, check_shape
from .images import MeshImage
from .mesh import camera_points, check_mesh
from .scene import NEAR_PLANE

# A crossing counts where the depth jumps by more than half of this share of the distance, and the edge itself is at
# most that much in front of or behind the nearer surface.
_DEPTH_TOLERANCE = 0.02


class _Crossings(NamedTuple):
    """Silhouette edges crossing between two neighbouring pixels, one per pixel pair.

    first, second: flat indices of the two pixels (left/upper, right/lower); near_first: the nearer surface covers the
    first; reach: how far from the near pixel's centre the edge lies, in 0..1 pixels, differentiable.
    """

    first: torch.Tensor
    second: torch.Tensor
    near_first: torch.Tensor
    reach: torch.Tensor


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


def _silhouette_edges(pixels: torch.Tensor, depth: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """End vertices [S, 2] of the edges whose faces lie on one side of them in the image, or that have one face only."""
    u, v, a, b = edges.unbind(1)
    origin, along = pixels[u], pixels[v] - pixels[u]

    def side(vertex: torch.Tensor) -> torch.Tensor:
        offset = pixels[vertex] - origin
        return along[:, 0] * offset[:, 1] - along[:, 1] * offset[:, 0]

    silhouette = (b < 0) | (side(a) * side(b.clamp_min(0)) >= 0)
    # An edge that passes the camera plane has no straight image; it is left as it is.
    return edges[silhouette & (depth[u] > NEAR_PLANE) & (depth[v] > NEAR_PLANE), :2]


def _crossings(
    pixels: torch.Tensor, depth: torch.Tensor, ends: torch.Tensor, image: tuple[torch.Tensor, torch.Tensor], axis: int
) -> _Crossings:
    """Where silhouette edges cross between horizontal (axis 0) or vertical (axis 1) pixel neighbours.

    Steep edges are intersected with rows of pixel centres, flat ones with columns.
    """
    face_id, z_image = image
    height, width = face_id.shape
    across = 1 - axis
    with torch.no_grad():
        extent = (pixels[ends[:, 1]] - pixels[ends[:, 0]]).abs()
        chosen = extent[:, across] >= extent[:, axis] if axis == 0 else extent[:, across] > extent[:, axis]
        ends = ends[chosen]
        span = pixels[ends][..., across]
        limit = height if axis == 0 else width
        begin = torch.ceil(span.amin(1) - 0.5).clamp(0, limit).long()
        stop = torch.ceil(span.amax(1) - 0.5).clamp(0, limit).long()
        counts = (stop - begin).clamp_min(0)
        edge = torch.repeat_interleave(torch.arange(len(ends), device=ends.device), counts)
        line = begin[edge] + torch.arange(len(edge), device=ends.device) - (torch.cumsum(counts, 0) - counts)[edge]
    u, v = ends[edge].unbind(1)
    start, end = pixels[u], pixels[v]
    t = (line + 0.5 - start[:, across]) / (end[:, across] - start[:, across])
    position = start[:, axis] + t * (end[:, axis] - start[:, axis])
    with torch.no_grad():
        z_edge = 1.0 / ((1.0 - t) / depth[u] + t / depth[v])
        cell = torch.floor(position - 0.5)
        inside = (cell >= 0) & (cell + 1 < (width if axis == 0 else height))
        cell = torch.where(inside, cell, 0.0).long()
        first = line * width + cell if axis == 0 else cell * width + line
        second = torch.where(inside, first + (1 if axis == 0 else width), first)
        flat_id, flat_z = face_id.reshape(-1), z_image.reshape(-1)
        z_first = torch.where(flat_id[first] >= 0, flat_z[first], torch.inf)
        z_second = torch.where(flat_id[second] >= 0, flat_z[second], torch.inf)
        near, far = torch.minimum(z_first, z_second), torch.maximum(z_first, z_second)
        keep = inside & (flat_id[first] != flat_id[second]) & (far - near > 0.5 * _DEPTH_TOLERANCE * near)
        keep &= (z_edge >= near * (1.0 - _DEPTH_TOLERANCE)) & (z_edge <= far * (1.0 - 0.25 * _DEPTH_TOLERANCE))
        keep = torch.nonzero(keep).squeeze(1)
        near_first = (z_first < z_second)[keep]
    offset = position[keep] - (cell[keep] + 0.5)
    reach = torch.where(near_first, offset, 1.0 - offset)
    outermost = _outermost(first[keep], reach.detach())
    kept = keep[outermost]
    return _Crossings(first[kept], second[kept], near_first[outermost], reach[outermost])


def _outermost(pixel: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
    """Index of the entry of largest reach for each distinct pixel; of equal ones the first."""
    order = torch.argsort(reach, descending=True, stable=True)
    order = order[torch.argsort(pixel[order], stable=True)]
    sorted_pixel = pixel[order]
    is_first = torch.ones(len(order), dtype=torch.bool, device=order.device)
    is_first[1:] = sorted_pixel[1:] != sorted_pixel[:-1]
    return order[is_first]


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
    check_mesh("antialias", vertices, faces, len(cameras))
    if (len(cameras), cameras.height, cameras.width) != (batch, height, width):
        raise InvalidInput(
            f"antialias: the image is {batch} x {width} x {height}, the cameras {len(cameras)} x {cameras.width} x "
            f"{cameras.height}; pass the cameras of the rasterising call, resized with `Cameras.resized`."
        )
    if len(faces) == 0:
        return color
    edges = mesh_edges(faces) if edges is None else edges
    points = camera_points(vertices, cameras)
    blended = []
    for view in range(batch):
        z = points[view, :, 2]
        safe = torch.where(z > NEAR_PLANE, z, 1.0)
        K = cameras.K[view].to(points)
        pixels = points[view, :, :2] / safe[:, None] * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
        blended.append(_blend(color[view], (pixels, z.detach()), edges, mesh_image, view))
    return torch.stack(blended)


def _blend(
    color: torch.Tensor,
    projected: tuple[torch.Tensor, torch.Tensor],
    edges: torch.Tensor,
    mesh_image: MeshImage,
    view: int,
) -> torch.Tensor:
    """One view of `antialias`: adds to each pixel what the edges that cross next to it move into it."""
    pixels, depth = projected
    with torch.no_grad():
        ends = _silhouette_edges(pixels, depth, edges)
    flat = color.reshape(-1, color.shape[-1])
    image = (mesh_image.face_id[view], mesh_image.depth[view])
    for axis in (0, 1):
        crossing = _crossings(pixels, depth, ends, image, axis)
        near = torch.where(crossing.near_first, crossing.first, crossing.second)
        far = torch.where(crossing.near_first, crossing.second, crossing.first)
        # Past the middle between the centres the near surface enters the far pixel; before it, the far one the near.
        share = (crossing.reach - 0.5)[:, None].to(color.dtype)
        source = color.reshape(-1, color.shape[-1])
        difference = source.index_select(0, near) - source.index_select(0, far)
        flat = flat.index_add(0, torch.where(crossing.reach > 0.5, far, near), share * difference)
    return flat.view(color.shape)
