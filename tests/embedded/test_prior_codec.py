"""The codec's encoder is the patch PCA in closed form, and its decoder learns."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.embedded.prior.codec import (
    RAW_STD,
    PatchBasis,
    codec_of_basis,
    fit_patch_basis,
    image_patches,
    set_encoder,
)
from animportrait3d_core.errors import InvalidInput, ShapeMismatch


def pictures(count=6, size=32, seed=0, dtype=torch.float64):
    """Smooth colour fields with grain [B, 3, S, S] in -1..1."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=draw, dtype=dtype) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=draw, dtype=dtype)).clamp(-1, 1)


def patches_of(images):
    return torch.nn.functional.pixel_unshuffle(images, 4).permute(0, 2, 3, 1).reshape(-1, 48)


@pytest.fixture(scope="module")
def basis():
    return fit_patch_basis(patches_of(pictures(40)))


def test_the_encoder_is_the_patch_pca(basis):
    """Convolutions against an explicit loop over patches, borders included."""
    images = pictures(2, seed=1)
    codec = codec_of_basis(basis).double()
    found = codec.encode(images).latents
    for row in range(8):
        for column in range(8):
            patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(2, 48)
            wanted = (patch - basis.mean) @ basis.projection
            torch.testing.assert_close(found[:, :, row, column], wanted, rtol=0, atol=1e-6)
    single = codec_of_basis(basis).encode(images.float()).latents
    torch.testing.assert_close(single, basis.encode(images.float()), rtol=0, atol=1e-5)


def test_the_basis_is_a_pca(basis):
    values = patches_of(pictures(40))
    latents = (values - basis.mean) @ basis.projection
    assert float(latents.square().mean().sqrt()) == pytest.approx(RAW_STD)
    covariance = latents.T @ latents / len(latents)
    spread = covariance.diagonal().clone()
    assert float((covariance - torch.diag(spread)).abs().max()) < 1e-9
    assert bool((spread[1:] < spread[:-1]).all())
    # Whitening to the power 0.6 leaves variances to the power 0.4.
    variances = torch.linalg.svdvals(values - values.mean(0))[:8] ** 2 / len(values)
    torch.testing.assert_close(spread / spread[0], (variances / variances[0]) ** 0.4, rtol=1e-6, atol=0)
    assert basis.explained == pytest.approx(float(variances.sum() / (values - values.mean(0)).square().sum(1).mean()))


def test_the_linear_decoder_is_the_projection_on_the_basis(basis):
    images = pictures(3, seed=2)
    values = patches_of(images) - basis.mean
    vectors = torch.linalg.svd(patches_of(pictures(40)) - basis.mean, full_matrices=False).Vh[:8]
    wanted = values @ vectors.T @ vectors + basis.mean
    torch.testing.assert_close(patches_of(basis.decode(basis.encode(images))), wanted, rtol=1e-9, atol=1e-9)


def test_signs_do_not_depend_on_the_solver(basis):
    """An eigenvector's sign is the solver's choice; ours makes its largest entry positive."""
    largest = basis.projection.gather(0, basis.projection.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())


def test_encoding_is_linear_so_that_its_gradient_is_exact(basis):
    codec = codec_of_basis(basis).double()
    first, second = pictures(1, seed=3), pictures(1, seed=4)
    middle = codec.encode(0.3 * first + 0.7 * second).latents
    torch.testing.assert_close(middle, 0.3 * codec.encode(first).latents + 0.7 * codec.encode(second).latents)


def test_a_stored_picture_becomes_its_patches():
    rgb = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = image_patches(rgb)
    wanted = rgb[4:8, 0:4].permute(2, 0, 1).reshape(48).float() / 127.5 - 1
    torch.testing.assert_close(found[2], wanted)


def test_wrong_input_is_refused(basis):
    with pytest.raises(ShapeMismatch, match="patches"):
        fit_patch_basis(torch.zeros(100, 47))
    for count, channels in ((47, 8), (100, 0), (100, 49)):
        with pytest.raises(InvalidInput, match="fit_patch_basis"):
            fit_patch_basis(torch.zeros(count, 48), channels)
    with pytest.raises(ShapeMismatch, match="set_encoder"):
        set_encoder(codec_of_basis(basis), PatchBasis(basis.mean, basis.projection[:, :4], 0.5))
