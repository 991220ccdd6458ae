"""Likeness of images against closed forms and scikit-image."""

from __future__ import annotations

import math

import pytest
import torch

from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.similarity import psnr, ssim, ssim_map


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_psnr_closed_form_and_mask() -> None:
    reference = noise(2, 8, 8, 3)
    assert psnr(reference + 0.01, reference) == pytest.approx(40.0)
    assert psnr(reference, reference) == math.inf
    half = torch.zeros(2, 8, 8)
    half[:, :4] = 1
    damaged = reference.clone()
    damaged[:, 4:] += 0.5
    damaged[:, :4] += 0.1
    assert psnr(damaged, reference, half) == pytest.approx(20.0)
    with pytest.raises(InvalidInput, match="mask is empty"):
        psnr(damaged, reference, torch.zeros(2, 8, 8))


def test_ssim_agrees_with_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    reference = noise(40, 36, 3)
    image = (reference + 0.2 * noise(40, 36, 3, seed=1)).clamp(0, 1)
    expected = structural_similarity(
        image.numpy(), reference.numpy(), channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, win_size=11,
    )  # fmt: skip
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_two_constants_is_the_luminance_term() -> None:
    a, b = torch.full((16, 16, 1), 0.3), torch.full((16, 16, 1), 0.6)
    expected = (2 * 0.3 * 0.6 + 1e-4) / (0.3**2 + 0.6**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6)


def test_ssim_map_zero_border_keeps_the_size_and_equals_the_crop_inside() -> None:
    image, reference = noise(1, 24, 20, 2), noise(1, 24, 20, 2, seed=3)
    padded = ssim_map(image, reference, border="zero")
    assert padded.shape == image.shape
    torch.testing.assert_close(padded[:, 5:-5, 5:-5], ssim_map(image, reference), rtol=1e-10, atol=1e-12)


def test_ssim_map_refuses_small_and_unequal_pictures() -> None:
    with pytest.raises(InvalidInput, match="smaller than the window"):
        ssim(noise(8, 8, 3), noise(8, 8, 3))
    with pytest.raises(ShapeMismatch):
        ssim_map(noise(1, 16, 16, 3), noise(1, 16, 15, 3))
