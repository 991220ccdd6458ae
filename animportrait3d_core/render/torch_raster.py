"""Alpha compositing of projected Gaussians in plain torch: tile by tile, gradients by autograd.

The twin of `numba_raster.py`. A tile is recomputed in the backward pass (gradient checkpointing), so memory stays at
one tile's pixels times its Gaussians.
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from .scene import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TILE, Composite, GaussianScene, Projection


def _bin(depths: torch.Tensor, boxes: torch.Tensor, columns: int, tiles: int) -> tuple[torch.Tensor, list[int]]:
    """Flat Gaussian indices b * N + i sorted by (tile, depth), and how many each tile of each camera has."""
    num_cameras, num_gaussians = depths.shape
    order = torch.argsort(depths, dim=1, stable=True)
    order = (order + torch.arange(num_cameras, device=order.device)[:, None] * num_gaussians).reshape(-1)
    boxes = boxes.reshape(-1, 4)[order]
    order, boxes = order[boxes[:, 2] >= 0], boxes[boxes[:, 2] >= 0] // TILE
    wide = boxes[:, 2] - boxes[:, 0] + 1
    touched = wide * (boxes[:, 3] - boxes[:, 1] + 1)
    entry = torch.repeat_interleave(torch.arange(len(order), device=order.device), touched)
    local = torch.arange(len(entry), device=order.device) - (torch.cumsum(touched, 0) - touched)[entry]
    tile = (boxes[entry, 1] + local // wide[entry]) * columns + boxes[entry, 0] + local % wide[entry]
    tile = tile + order[entry] // num_gaussians * tiles
    tile, position = torch.sort(tile, stable=True)
    return order[entry[position]], torch.bincount(tile, minlength=num_cameras * tiles).tolist()


def _composite_tile(
    means2d: torch.Tensor, conics: torch.Tensor, opacities: torch.Tensor, channels: torch.Tensor, pixels: torch.Tensor
) -> torch.Tensor:
    """Pixels [P, 2] covered by depth-sorted Gaussians [G, ...]: [P, C + 1], the channels and the transmittance."""
    dx = pixels[:, 0] - means2d[:, 0:1]
    dy = pixels[:, 1] - means2d[:, 1:2]
    sigma = 0.5 * (conics[:, 0:1] * dx * dx + conics[:, 2:3] * dy * dy) + conics[:, 1:2] * dx * dy
    alpha = (opacities[:, None] * torch.exp(-sigma)).clamp_max(MAX_ALPHA)
    alpha = torch.where((alpha < MIN_ALPHA) | (sigma < 0), 0.0, alpha)
    with torch.no_grad():
        alive = torch.cumprod(1.0 - alpha, dim=0) > MIN_TRANSMITTANCE
    alpha = torch.where(alive, alpha, 0.0)
    after = torch.cumprod(1.0 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    return torch.cat([(alpha * before).T @ channels, after[-1][:, None]], dim=-1)


def composite_gaussians(scene: GaussianScene, projection: Projection, colors: torch.Tensor) -> Composite:
    """Composites colours [1|B, N, 3], depth and the scene's features; see `Composite`."""
    num_cameras, num_gaussians = projection.depths.shape
    columns, rows = -(-scene.width // TILE), -(-scene.height // TILE)
    channels = torch.cat(
        [
            colors.expand(num_cameras, -1, -1),
            projection.depths[..., None],
            scene.features.expand(num_cameras, -1, -1),
        ],
        dim=-1,
    ).flatten(0, 1)
    with torch.no_grad():
        ids, counts = _bin(projection.depths, projection.boxes.long(), columns, columns * rows)
    opacities = scene.opacities.expand(num_cameras, -1).flatten()
    sources = [projection.means2d.flatten(0, 1), projection.conics.flatten(0, 1), opacities, channels]
    parts = [source.index_select(0, ids).split(counts) for source in sources]
    steps = torch.arange(TILE, device=ids.device, dtype=channels.dtype) + 0.5
    pixels = torch.cartesian_prod(steps, steps).flip(-1)  # row by row: (x, y)
    empty = torch.cat([channels.new_zeros(TILE * TILE, channels.shape[1]), channels.new_ones(TILE * TILE, 1)], dim=-1)
    blocks = []
    for tile, count in enumerate(counts):
        if count == 0:
            blocks.append(empty)
            continue
        row, column = divmod(tile % (columns * rows), columns)
        shifted = pixels + pixels.new_tensor([column * TILE, row * TILE])
        arguments = [part[tile] for part in parts]
        blocks.append(checkpoint(_composite_tile, *arguments, shifted, use_reentrant=False, preserve_rng_state=False))
    image = torch.stack(blocks).view(num_cameras, rows, columns, TILE, TILE, -1).transpose(2, 3)
    image = image.reshape(num_cameras, rows * TILE, columns * TILE, -1)[:, : scene.height, : scene.width]
    transmittance = image[..., -1]
    color = image[..., :3] + transmittance[..., None] * scene.background[:, None, None]
    return Composite(color, image[..., 3], image[..., 4:-1], 1.0 - transmittance)
