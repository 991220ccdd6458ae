"""The Numba back-end: projection, colours and compositing tied into autograd."""

from __future__ import annotations

import numpy as np
import torch

from .numba_harmonics import shade_gaussians
from .numba_projection import project_gaussians
from .numba_raster import GEOMETRY_COLUMNS, bin_gaussians, composite_backward, composite_forward, sum_rows
from .scene import Composite, GaussianScene, Projection
from .threads import run_parallel

__all__ = ["composite_gaussians", "project_gaussians", "shade_gaussians"]


def _stack_channels(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenates [1|B, N, C] arrays along the channels, broadcasting cameras only if one of them needs it."""
    parts = [part for part in parts if part.shape[2]]
    cameras = max(part.shape[0] for part in parts)
    return np.concatenate([np.broadcast_to(part, (cameras, *part.shape[1:])) for part in parts], axis=2)


class _CompositeGaussians(torch.autograd.Function):
    """Inputs as in `GaussianScene` and `Projection`; outputs (color, depth_sum, features, alpha)."""

    @staticmethod
    def forward(ctx, means2d, conics, depths, opacities, colors, features, background, boxes, size):
        ctx.set_materialize_grads(False)
        geometry = tuple(tensor.detach().numpy() for tensor in (means2d, conics, opacities))
        depth_array, box_array = depths.detach().numpy(), boxes.numpy()
        channels = _stack_channels([colors.detach().numpy(), depth_array[..., None], features.detach().numpy()])
        backdrop = np.zeros((len(depths), channels.shape[2]), np.float32)
        backdrop[:, :3] = background.detach().numpy()
        width, height = size
        image = np.empty((len(depths), height, width, channels.shape[2]), np.float32)
        remaining = np.empty((len(depths), height, width), np.float32)
        tile_starts, ids, row_starts = bin_gaussians(depth_array, box_array, size)
        bins = (tile_starts, ids, box_array)
        run_parallel(composite_forward, len(tile_starts) - 1, geometry, channels, backdrop, bins, (image, remaining))
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(means2d, conics, opacities)
            ctx.state = (channels, (*bins, row_starts), image, remaining, colors.shape, features.shape)
        # Copies: the saved image must not change when a caller writes into what it was handed.
        return (
            torch.from_numpy(image[..., :3].copy()),
            torch.from_numpy(image[..., 3].copy()),
            torch.from_numpy(image[..., 4:].copy()),
            torch.from_numpy(1.0 - remaining),
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_color, grad_depth, grad_features, grad_alpha):
        geometry = tuple(tensor.detach().numpy() for tensor in ctx.saved_tensors)
        channels, bins, image, remaining, color_shape, feature_shape = ctx.state
        grads = [
            (slice(0, 3), grad_color),
            (slice(3, 4), None if grad_depth is None else grad_depth[..., None]),
            (slice(4, channels.shape[2]), grad_features),
        ]
        used = [(part, grad.numpy()) for part, grad in grads if grad is not None and grad.shape[-1]]
        columns = [column for part, _ in used for column in range(part.start, part.stop)]
        grad_image = np.concatenate([grad for _, grad in used], axis=-1) if used else image[..., :0]
        grad_opaque = np.zeros_like(remaining) if grad_alpha is None else grad_alpha.contiguous().numpy()
        if len(columns) < channels.shape[2]:  # channels that the loss does not use cost nothing
            channels, image = channels[..., columns], image[..., columns]
        rendered = (np.ascontiguousarray(image), remaining)
        rows = np.zeros((len(bins[1]), GEOMETRY_COLUMNS + len(columns)), np.float32)
        run_parallel(
            composite_backward,
            len(bins[0]) - 1,
            geometry,
            np.ascontiguousarray(channels),
            bins,
            rendered,
            (np.ascontiguousarray(grad_image), grad_opaque),
            rows,
        )
        sums = np.zeros((len(bins[3]) - 1, rows.shape[1]), np.float32)
        run_parallel(sum_rows, len(sums), rows, bins[3], sums)
        summed = torch.from_numpy(sums).view(*geometry[1].shape[:2], rows.shape[1])
        grad_channels = dict(zip(columns, summed[..., GEOMETRY_COLUMNS:].unbind(-1)))
        return _split_gradients(ctx, summed, grad_channels, (grad_color, remaining), (color_shape, feature_shape))


def _reduce_cameras(grad: torch.Tensor, cameras: int) -> torch.Tensor:
    return grad.sum(0, keepdim=True) if cameras == 1 and grad.shape[0] > 1 else grad


def _split_gradients(ctx, sums, grad_channels, color_and_remaining, shapes):
    """Arranges the summed rows as gradients of `_CompositeGaussians`' inputs."""
    grad_color, remaining = color_and_remaining
    color_shape, feature_shape = shapes

    def gather(columns, shape):
        if not all(column in grad_channels for column in columns):
            return None
        return _reduce_cameras(torch.stack([grad_channels[column] for column in columns], dim=-1), shape[0])

    grad_background = None
    if grad_color is not None and ctx.needs_input_grad[6]:
        grad_background = torch.einsum("bhwc,bhw->bc", grad_color, torch.from_numpy(remaining))
    feature_columns = range(4, 4 + feature_shape[2])
    opacity_cameras = ctx.saved_tensors[2].shape[0]
    return (
        sums[..., 0:2],
        sums[..., 2:5],
        grad_channels.get(3),
        _reduce_cameras(sums[..., 5], opacity_cameras),
        gather(range(3), color_shape),
        gather(feature_columns, feature_shape) if feature_shape[2] else None,
        grad_background,
        None,
        None,
    )


def composite_gaussians(scene: GaussianScene, projection: Projection, colors: torch.Tensor) -> Composite:
    """Composites colours [1|B, N, 3], depth and the scene's features; see `Composite`."""
    return Composite(
        *_CompositeGaussians.apply(
            projection.means2d,
            projection.conics,
            projection.depths,
            scene.opacities,
            colors,
            scene.features,
            scene.background,
            projection.boxes,
            (scene.width, scene.height),
        )
    )
