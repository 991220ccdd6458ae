"""Pictures of a trigrid portrait: rays to features, features and background to colours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ...cameras import Cameras
from ...errors import check_finite, check_shape
from .data import BACKGROUND_STYLE_ROW, FEATURES, STYLE_ROW, Trigrids
from .march import RayResult, RaySamples, march_rays
from .memory import chunk_rays
from .rays import camera_rays, ray_interval

_WHERE = "render_trigrid"
MASK_WIDENING = 0.001  # mask = (1 + 2 e) W - e, so that 0 and 1 are reached


@dataclasses.dataclass(frozen=True)
class TrigridImage:
    """Raw pictures of B cameras.

    rgb: [B, H, W, 3] before clamping, about -1 to 1.  coverage: [B, H, W], sum of the weights along each ray.
    depth: [B, H, W] Euclidean distance along the ray, meaningless where the coverage is small.
    """

    rgb: Tensor
    coverage: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """Coverage [B, H, W], widened a little at both ends as upstream does; not clamped."""
        return (1 + 2 * MASK_WIDENING) * self.coverage - MASK_WIDENING


def to_uint8(rgb: Tensor) -> Tensor:
    """Upstream's 8-bit colours [..., 3] of raw colours [..., 3]: 127.5 x + 128, clamped, truncated."""
    return (rgb * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def render_trigrid(
    portrait: Trigrids,
    cameras: Cameras,
    background: Tensor | None = None,
    samples: RaySamples | None = None,
) -> TrigridImage:
    """Raw pictures of the portrait, by the settings in `portrait.rendering`; no randomness.

    background: None for the portrait's own feature image, or one colour [3] in 0..1.  samples: places of the samples of
    each of the H * W rays (see `RaySamples`), the same for all cameras.
    """
    if background is not None:
        check_shape(_WHERE, "background", background, [3])
        check_finite(_WHERE, "background", background)
    _check_samples(portrait, cameras, samples)
    height, width = cameras.height, cameras.width
    behind = _behind(portrait, background, height, width)
    origins, directions = camera_rays(cameras)
    images, coverages, depths = [], [], []
    for origin, rays in zip(origins, directions):
        result = _trace(portrait, origin, rays, samples)
        images.append(_colors(portrait, result, behind).reshape(height, width, 3))
        coverages.append(result.coverage.reshape(height, width))
        depths.append(result.depth.reshape(height, width))
    return TrigridImage(torch.stack(images), torch.stack(coverages), torch.stack(depths))


def _check_samples(portrait: Trigrids, cameras: Cameras, samples: RaySamples | None) -> None:
    rays = cameras.height * cameras.width
    if samples is not None and samples.jitter is not None:
        check_shape(_WHERE, "jitter", samples.jitter, [rays, portrait.rendering.depth_samples])
        check_finite(_WHERE, "jitter", samples.jitter)
    if samples is not None and samples.quantiles is not None:
        check_shape(_WHERE, "quantiles", samples.quantiles, [rays, portrait.rendering.importance_samples])
        check_finite(_WHERE, "quantiles", samples.quantiles)


def _trace(portrait: Trigrids, origin: Tensor, rays: Tensor, samples: RaySamples | None) -> RayResult:
    interval = ray_interval(portrait.field, origin)
    if portrait.rendering.backend == "fast":
        from .fast import march_rays_fast

        return march_rays_fast(portrait, origin, rays, interval, samples)
    parts = []
    for start, stop in _chunks(portrait, len(rays)):
        part = None if samples is None else samples.rows(start, stop)
        parts.append(march_rays(portrait, origin, rays[start:stop], interval, part))
    features, coverage, depth = zip(*((part.features, part.coverage, part.depth) for part in parts))
    return RayResult(torch.cat(features), torch.cat(coverage), torch.cat(depth))


def _chunks(portrait: Trigrids, rays: int) -> Iterator[tuple[int, int]]:
    """Ranges of rays whose intermediate tensors fit into memory."""
    settings = portrait.rendering
    samples = settings.depth_samples + settings.importance_samples
    # Lookups, hidden layer, output, and sorted and averaged copies of the features, all in float32.
    floats_per_sample = 4 * portrait.channels + 6 * FEATURES
    step = settings.chunk_rays or chunk_rays(4 * samples * floats_per_sample)
    for start in range(0, rays, step):
        yield start, min(start + step, rays)


def _behind(portrait: Trigrids, color: Tensor | None, height: int, width: int) -> Tensor:
    """Raw colours [H * W, 3] or [3] behind the subject."""
    if color is not None:
        return 2 * color.float() - 1
    matrix, bias = portrait.to_rgb.matrix(portrait.ws[STYLE_ROW])
    return resize_background(portrait.background_features, height, width) @ matrix.T + bias


def _colors(portrait: Trigrids, result: RayResult, behind: Tensor) -> Tensor:
    """Raw colours [N, 3]. ToRGB is affine, so what is behind may be mixed in after it instead of before."""
    matrix, bias = portrait.to_rgb.matrix(portrait.ws[STYLE_ROW])
    covered = result.coverage[:, None]
    return result.features @ matrix.T + covered * bias + (1 - covered) * behind


def resize_background(features: Tensor, height: int, width: int) -> Tensor:
    """Background features [H * W, 32] of an image [32, h, w]; bilinear, antialiased where it shrinks."""
    resized = functional.interpolate(
        features[None].float(), (height, width), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].flatten(1).T


def render_background(portrait: Trigrids, height: int, width: int) -> Tensor:
    """The background alone, raw colours [H, W, 3], styled by row 11 of the code as upstream's `background.png` is."""
    matrix, bias = portrait.to_rgb.matrix(portrait.ws[BACKGROUND_STYLE_ROW])
    colors = resize_background(portrait.background_features, height, width) @ matrix.T + bias
    return colors.reshape(height, width, 3)
