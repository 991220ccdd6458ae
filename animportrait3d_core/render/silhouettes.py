"""Finds where silhouette edges cross between pixel centres: the torch twin, and what it shares with the Numba one.

Nothing in here carries gradients; `antialias` recomputes the positions of the few crossings that are found.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .scene import NEAR_PLANE

# A crossing counts where the depth jumps by more than half of this share of the distance, and the edge itself is at
# most that much in front of the nearer surface and clearly before the farther one.
DEPTH_TOLERANCE = 0.02


class Crossings(NamedTuple):
    """Silhouette edges that cross between two neighbouring pixels, the outermost one per pixel pair.

    u, v [P]: end vertices of the edge. first [P]: flat index of the left or upper pixel. near_first [P] bool: whether
    the nearer surface is the one in the first pixel.
    """

    u: torch.Tensor
    v: torch.Tensor
    first: torch.Tensor
    near_first: torch.Tensor


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


def _outermost(pixel: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
    """Index of the entry of largest reach for each distinct pixel, in the order of pixels; of equal ones the first."""
    order = torch.argsort(reach, descending=True, stable=True)
    order = order[torch.argsort(pixel[order], stable=True)]
    sorted_pixel = pixel[order]
    is_first = torch.ones(len(order), dtype=torch.bool, device=order.device)
    is_first[1:] = sorted_pixel[1:] != sorted_pixel[:-1]
    return order[is_first]


def _find_along(
    pixels: torch.Tensor, depth: torch.Tensor, ends: torch.Tensor, image: tuple[torch.Tensor, torch.Tensor], axis: int
) -> Crossings:
    """Crossings between horizontal (axis 0) or vertical (axis 1) neighbours.

    Steep edges are intersected with rows of pixel centres, flat ones with columns.
    """
    face_id, z_image = image
    height, width = face_id.shape
    across = 1 - axis
    lines, cells = (height, width) if axis == 0 else (width, height)
    extent = (pixels[ends[:, 1]] - pixels[ends[:, 0]]).abs()
    chosen = extent[:, across] >= extent[:, axis] if axis == 0 else extent[:, across] > extent[:, axis]
    ends = ends[chosen]
    span = pixels[ends][..., across]
    begin = torch.ceil(span.amin(1) - 0.5).clamp(0, lines).long()
    stop = torch.ceil(span.amax(1) - 0.5).clamp(0, lines).long()
    counts = (stop - begin).clamp_min(0)
    edge = torch.repeat_interleave(torch.arange(len(ends), device=ends.device), counts)
    line = begin[edge] + torch.arange(len(edge), device=ends.device) - (torch.cumsum(counts, 0) - counts)[edge]
    u, v = ends[edge].unbind(1)
    start, end = pixels[u], pixels[v]
    t = (line + 0.5 - start[:, across]) / (end[:, across] - start[:, across])
    position = start[:, axis] + t * (end[:, axis] - start[:, axis])
    z_edge = 1.0 / ((1.0 - t) / depth[u] + t / depth[v])
    cell = torch.floor(position - 0.5)
    inside = (cell >= 0) & (cell + 1 < cells)
    cell = torch.where(inside, cell, 0.0).long()
    first = line * width + cell if axis == 0 else cell * width + line
    second = torch.where(inside, first + (1 if axis == 0 else width), first)
    flat_id, flat_z = face_id.reshape(-1), z_image.reshape(-1)
    z_first = torch.where(flat_id[first] >= 0, flat_z[first], torch.inf)
    z_second = torch.where(flat_id[second] >= 0, flat_z[second], torch.inf)
    near, far = torch.minimum(z_first, z_second), torch.maximum(z_first, z_second)
    keep = inside & (flat_id[first] != flat_id[second]) & (far - near > 0.5 * DEPTH_TOLERANCE * near)
    keep &= (z_edge >= near * (1.0 - DEPTH_TOLERANCE)) & (z_edge <= far * (1.0 - 0.25 * DEPTH_TOLERANCE))
    keep = torch.nonzero(keep).squeeze(1)
    near_first = (z_first < z_second)[keep]
    offset = position[keep] - (cell[keep] + 0.5)
    outermost = _outermost(first[keep], torch.where(near_first, offset, 1.0 - offset))
    kept = keep[outermost]
    return Crossings(u[kept], v[kept], first[kept], near_first[outermost])


def find_crossings(
    pixels: torch.Tensor, depth: torch.Tensor, edges: torch.Tensor, face_id: torch.Tensor, z_image: torch.Tensor
) -> tuple[Crossings, Crossings]:
    """Crossings between horizontal and between vertical neighbours of one view.

    pixels [V, 2] and depth [V]: projected vertices (pixels are meaningless where depth is not beyond the near plane);
    edges [E, 4] as from `mesh_edges`; face_id, z_image [H, W] as in `MeshImage`.
    """
    with torch.no_grad():
        ends = _silhouette_edges(pixels, depth, edges)
        image = (face_id, z_image)
        return _find_along(pixels, depth, ends, image, 0), _find_along(pixels, depth, ends, image, 1)
