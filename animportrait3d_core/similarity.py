"""How alike two images are: peak signal-to-noise ratio, and structural similarity as a differentiable map."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .errors import InvalidInput, ShapeMismatch, check_same_shape
from .progress import may_stop

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def psnr(images: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10(mean squared error), of images [..., H, W, C] with values in 0..1.

    mask: [..., H, W] weights; only there the error counts. Equal images give infinity.

    >>> psnr(torch.zeros(4, 4, 3), torch.full((4, 4, 3), 0.5)) == 20 * math.log10(2)
    True
    """
    check_same_shape("psnr", images, reference)
    squared = (images.double() - reference.double()).square().mean(dim=-1)
    if mask is not None:
        check_same_shape("psnr", squared, mask)
        if float(mask.sum()) <= 0:
            raise InvalidInput("psnr: the mask is empty; give it at least one pixel.")
        squared = squared * mask.double() / mask.double().mean()
    error = float(squared.mean())
    return -10 * math.log10(error) if error > 0 else math.inf


def ssim(images: Tensor, reference: Tensor) -> float:
    """Mean structural similarity of images [B, H, W, C] or [H, W, C] with values in 0..1; windows inside the picture.

    >>> ramp = torch.linspace(0, 1, 32).expand(32, 32)[..., None]
    >>> round(ssim(ramp, ramp), 12)
    1.0
    """
    check_same_shape("ssim", images, reference)
    if images.ndim == 3:
        images, reference = images[None], reference[None]
    means = []
    for image, wanted in zip(images.double().split(1), reference.double().split(1), strict=True):
        may_stop()
        means.append(ssim_map(image, wanted, border="crop").mean())
    return float(torch.stack(means).mean())


def gaussian_window(size: int = SSIM_WINDOW, sigma: float = SSIM_SIGMA) -> Tensor:
    """Weights [size] of a sampled Gaussian, float64, summing to one."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()


def ssim_map(image: Tensor, reference: Tensor, border: Literal["zero", "crop"] = "crop") -> Tensor:
    """Structural similarity [B, H', W', C] of images [B, H, W, C] with values in 0..1 (Wang et al. 2004).

    11 x 11 Gaussian window of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, biased variances. `crop` keeps only windows that lie
    inside the picture (H' = H - 10), as scikit-image's mean does; `zero` pads with black (H' = H), as 3DGS training.
    """
    if image.ndim != 4 or image.shape != reference.shape:
        raise ShapeMismatch(
            f"ssim_map: images of shapes {list(image.shape)} and {list(reference.shape)}, expected equal [B, H, W, C]."
        )
    if border == "crop" and min(image.shape[1:3]) < SSIM_WINDOW:
        raise InvalidInput(
            f"ssim_map: pictures of {image.shape[2]} x {image.shape[1]} pixels are smaller than the window of "
            f"{SSIM_WINDOW}; render them larger."
        )
    a, b = image.permute(0, 3, 1, 2), reference.permute(0, 3, 1, 2)
    channels = a.shape[1]
    moments = _blur(torch.cat([a, b, a * a, b * b, a * b], dim=1), border)
    mean_a, mean_b, square_a, square_b, product = moments.split(channels, dim=1)
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    variances = (square_a - mean_a**2) + (square_b - mean_b**2)
    structure = (2 * (product - mean_a * mean_b) + SSIM_C2) / (variances + SSIM_C2)
    return (luminance * structure).permute(0, 2, 3, 1)


def _blur(images: Tensor, border: str) -> Tensor:
    """Gaussian window over [B, C, H, W]. One group per channel: far faster on CPUs than one-channel batches."""
    channels = images.shape[1]
    window = gaussian_window().to(images)
    pad = SSIM_WINDOW // 2 if border == "zero" else 0
    column = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    row = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    blurred = torch.nn.functional.conv2d(images, column, padding=(pad, 0), groups=channels)
    return torch.nn.functional.conv2d(blurred, row, padding=(0, pad), groups=channels)
