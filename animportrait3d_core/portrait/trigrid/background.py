"""The background network: a StyleGAN2 synthesis network (Karras et al. 2020, 'skip' architecture) in plain torch.

It paints one feature image per subject, independent of the camera. Written from the published architecture: modulated
and demodulated convolutions, transposed convolution and a [1, 3, 3, 1] filter where the size doubles, fixed noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import IncompatibleCheckpoint, ShapeMismatch, check_finite, check_shape
from .data import BACKGROUND_SIZE, FEATURES, W_DIM

PREFIX = "bcg_synthesis."
RESOLUTIONS = (4, 8, 16, 32, 64, 128)
NUM_ROWS = 12  # rows of the code that the network reads
_WHERE = "synthesize_background"
_FIR = (1.0, 3.0, 3.0, 1.0)


def synthesize_background(weights: Mapping[str, Tensor], ws: Tensor) -> Tensor:
    """Feature image [32, 128, 128] float32 of the code ws [>= 12, 512].

    weights: state dict of the network by upstream's names, without the prefix ('b4.const', 'b8.conv0.weight', ...), at
    any width. Only the first 12 rows of `ws` are read; noise is the stored one.

    Raises `IncompatibleCheckpoint` for missing weights or an unknown layout.
    """
    blocks = {f"b{resolution}" for resolution in RESOLUTIONS}
    found = {name.split(".")[0] for name in weights}
    if found != blocks:
        raise IncompatibleCheckpoint(
            f"{_WHERE}: blocks {', '.join(sorted(found)) or 'none'}, expected {', '.join(sorted(blocks))}: "
            f"a network that ends at {BACKGROUND_SIZE} pixels."
        )
    for name, tensor in weights.items():
        check_finite(_WHERE, name, tensor)
    try:
        check_shape(_WHERE, "ws", ws[:NUM_ROWS], [NUM_ROWS, W_DIM])
        return _run_blocks(weights, ws.float())
    except (KeyError, RuntimeError, ShapeMismatch) as error:
        raise IncompatibleCheckpoint(f"{_WHERE}: these are not a background network's weights ({error}).") from error


def _run_blocks(weights: Mapping[str, Tensor], ws: Tensor) -> Tensor:
    """All blocks; each reads one row per convolution and one more, shared with the next block, for its ToRGB."""
    constant = weights["b4.const"].float()
    x = constant[None] if constant.ndim == 3 else constant
    image, row = x, 0
    for resolution in RESOLUTIONS:
        block = f"b{resolution}."
        if resolution > 4:
            x = _styled_convolution(weights, block + "conv0.", x, ws[row], upsample=True)
            row += 1
        x = _styled_convolution(weights, block + "conv1.", x, ws[row], upsample=False)
        row += 1
        contribution = _to_image(weights, block + "torgb.", x, ws[row])
        image = contribution if resolution == 4 else _upsample(image) + contribution
    check_shape(_WHERE, "the network's output", image, [1, FEATURES, BACKGROUND_SIZE, BACKGROUND_SIZE])
    return image[0]


def _affine(weights: Mapping[str, Tensor], layer: str, w: Tensor) -> Tensor:
    matrix = weights[layer + "affine.weight"].float()
    return w @ matrix.T / math.sqrt(matrix.shape[1]) + weights[layer + "affine.bias"].float()


def _styled_convolution(weights: Mapping[str, Tensor], layer: str, x: Tensor, w: Tensor, upsample: bool) -> Tensor:
    """Modulated 3 x 3 convolution with demodulation, stored noise, bias and leaky ReLU of gain sqrt 2."""
    kernel = weights[layer + "weight"].float() * _affine(weights, layer, w)[None, :, None, None]
    kernel = kernel * torch.rsqrt(kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
    if upsample:  # the weights as stored, not flipped, in the transposed convolution
        x = _filter(functional.conv_transpose2d(x, kernel.transpose(0, 1), stride=2), (1, 1))
    else:
        x = functional.conv2d(x, kernel, padding=1)
    x = x + weights[layer + "noise_const"].float() * weights[layer + "noise_strength"].float()
    x = x + weights[layer + "bias"].float()[:, None, None]
    return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def _to_image(weights: Mapping[str, Tensor], layer: str, x: Tensor, w: Tensor) -> Tensor:
    kernel = weights[layer + "weight"].float()
    style = _affine(weights, layer, w) / math.sqrt(kernel.shape[1])
    return functional.conv2d(x, kernel * style[None, :, None, None]) + weights[layer + "bias"].float()[:, None, None]


def _upsample(image: Tensor) -> Tensor:
    """Twice the size: zeros between the pixels, then the filter."""
    batch, channels, height, width = image.shape
    spread = image.new_zeros(batch, channels, height, 2, width, 2)
    spread[:, :, :, 0, :, 0] = image
    return _filter(spread.reshape(batch, channels, 2 * height, 2 * width), (2, 1))


def _filter(x: Tensor, padding: tuple[int, int]) -> Tensor:
    """The [1, 3, 3, 1] filter in both directions at gain 4; `padding` before and after."""
    taps = x.new_tensor(_FIR)
    kernel = torch.outer(taps, taps) * (4 / taps.sum().square())
    before, after = padding
    padded = functional.pad(x, (before, after, before, after))
    channels = x.shape[1]
    return functional.conv2d(padded, kernel.expand(channels, 1, 4, 4), groups=channels)
