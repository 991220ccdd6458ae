"""The StyleGAN2 background network against an independent float64 version built from SciPy's convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d, correlate2d

from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput
from animportrait3d_core.portrait.trigrid.background import RESOLUTIONS, synthesize_background

CHANNELS = dict(zip(RESOLUTIONS, (6, 5, 5, 4, 4, 3)))


def make_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A small network by upstream's names; const stored as [1, C, 4, 4]."""
    rng = np.random.default_rng(seed)
    weights = {"b4.const": rng.normal(size=(1, CHANNELS[4], 4, 4))}
    previous = CHANNELS[4]
    for resolution in RESOLUTIONS:
        channels = CHANNELS[resolution]
        layers = {"conv1": channels} if resolution == 4 else {"conv0": previous, "conv1": channels}
        for name, inputs in layers.items():
            layer = f"b{resolution}.{name}."
            weights[layer + "weight"] = rng.normal(size=(channels, inputs, 3, 3))
            weights[layer + "bias"] = rng.normal(size=channels) * 0.1
            weights[layer + "noise_const"] = rng.normal(size=(resolution, resolution))
            weights[layer + "noise_strength"] = np.array(0.2)
            weights[layer + "affine.weight"] = rng.normal(size=(inputs, 512))
            weights[layer + "affine.bias"] = np.ones(inputs)
            weights[layer + "resample_filter"] = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
        layer = f"b{resolution}.torgb."
        weights[layer + "weight"] = rng.normal(size=(32, channels, 1, 1))
        weights[layer + "bias"] = rng.normal(size=32) * 0.1
        weights[layer + "affine.weight"] = rng.normal(size=(channels, 512))
        weights[layer + "affine.bias"] = np.ones(channels)
        previous = channels
    return {name: torch.from_numpy(np.asarray(value)).float() for name, value in weights.items()}


def enlarge(image: np.ndarray) -> np.ndarray:
    """Twice the size: zeros between, then the [1, 3, 3, 1] filter, one more row before than after."""
    size = len(image)
    spread = np.zeros((2 * size, 2 * size))
    spread[::2, ::2] = image
    taps = np.array([1, 3, 3, 1]) / 4
    return convolve2d(np.pad(spread, ((2, 1), (2, 1))), np.outer(taps, taps), mode="valid")


def styled(weights: dict[str, np.ndarray], layer: str, x: np.ndarray, w: np.ndarray, up: bool) -> np.ndarray:
    style = weights[layer + "affine.weight"] @ w / np.sqrt(512) + weights[layer + "affine.bias"]
    kernel = weights[layer + "weight"] * style[None, :, None, None]
    out = []
    for one in kernel:
        one = one / np.sqrt((one**2).sum() + 1e-8)
        total = 0.0
        for channel, taps in zip(x, one):
            if not up:
                total = total + correlate2d(channel, taps, mode="same")
                continue
            # A transposed convolution of stride 2 is a full convolution of the image with zeros between its pixels.
            spread = np.zeros((2 * len(channel) - 1,) * 2)
            spread[::2, ::2] = channel
            full = convolve2d(spread, taps, mode="full")
            fir = np.array([1, 3, 3, 1]) / 4
            total = total + convolve2d(np.pad(full, 1), np.outer(fir, fir), mode="valid")
        out.append(total)
    x = np.stack(out) + weights[layer + "noise_const"] * weights[layer + "noise_strength"]
    x = x + weights[layer + "bias"][:, None, None]
    return np.where(x > 0, x, 0.2 * x) * np.sqrt(2)


def reference(weights: dict[str, np.ndarray], ws: np.ndarray) -> np.ndarray:
    x, image = weights["b4.const"][0], 0.0
    rows = {4: (None, 0, 1), 8: (1, 2, 3), 16: (3, 4, 5), 32: (5, 6, 7), 64: (7, 8, 9), 128: (9, 10, 11)}
    for resolution, (first, second, to_rgb) in rows.items():
        if first is not None:
            x = styled(weights, f"b{resolution}.conv0.", x, ws[first], up=True)
            image = np.stack([enlarge(channel) for channel in image])
        x = styled(weights, f"b{resolution}.conv1.", x, ws[second], up=False)
        layer = f"b{resolution}.torgb."
        style = weights[layer + "affine.weight"] @ ws[to_rgb] / np.sqrt(512) + weights[layer + "affine.bias"]
        matrix = weights[layer + "weight"][:, :, 0, 0] * style / np.sqrt(len(x))
        image = image + np.einsum("oc,chw->ohw", matrix, x) + weights[layer + "bias"][:, None, None]
    return image


def test_matches_an_independent_float64_network() -> None:
    weights = make_weights()
    ws = torch.randn(14, 512, generator=torch.Generator().manual_seed(4))
    found = synthesize_background(weights, ws)
    expected = reference({name: value.double().numpy() for name, value in weights.items()}, ws.double().numpy())
    assert found.shape == (32, 128, 128)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_only_the_first_twelve_rows_count() -> None:
    weights, ws = make_weights(), torch.ones(14, 512)
    changed = ws.clone()
    changed[12:] = 5
    assert torch.equal(synthesize_background(weights, ws), synthesize_background(weights, changed))
    changed[11] = 5
    assert not torch.equal(synthesize_background(weights, ws), synthesize_background(weights, changed))


@pytest.mark.parametrize("lost", ["b64.conv0.weight", "b4.const", "b128.torgb.affine.bias"])
def test_missing_weights_are_named(lost: str) -> None:
    weights = make_weights()
    del weights[lost]
    with pytest.raises(IncompatibleCheckpoint, match="synthesize_background"):
        synthesize_background(weights, torch.ones(14, 512))


def test_other_networks_are_refused() -> None:
    weights = make_weights()
    shorter = {name: value for name, value in weights.items() if not name.startswith("b128.")}
    with pytest.raises(IncompatibleCheckpoint, match="b128"):
        synthesize_background(shorter, torch.ones(14, 512))
    weights["b8.conv0.bias"] = torch.full_like(weights["b8.conv0.bias"], float("nan"))
    with pytest.raises(InvalidInput, match="b8.conv0.bias"):
        synthesize_background(weights, torch.ones(14, 512))
