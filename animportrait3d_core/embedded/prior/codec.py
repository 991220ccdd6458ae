"""The prior's autoencoder: the encoder is a whitened patch PCA, set in closed form; only the decoder is trained.

An `AutoencoderTiny` without encoder blocks has no nonlinearity at all: two strided convolutions that copy pixels into
channels, and one that projects, are exactly a PCA of 4 x 4 patches. Encoding is then linear, cheap, and its gradient
exact. The decoder is an ordinary regression on fixed latents.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.model_files import Model
from ...errors import InvalidInput, ShapeMismatch, check_shape
from ...training.shards import ShardDataset

PATCH = 4
PATCH_CHANNELS = 3 * PATCH * PATCH
LATENT_CHANNELS = 8
WIDTH = PATCH_CHANNELS
"""Of the encoder: the least that holds a patch. All stages of an `AutoencoderTiny` have one width."""
RAW_STD = 0.5
"""Of the latents before scaling: 99.9 % of them stay where the decoder's tanh is nearly linear."""
_WHITENING = 0.6
"""Each component is divided by its standard deviation to this power: with 1 the grain would weigh as much as shapes."""
_WHITE_SHARE = 0.1
_PATCHES_PER_PICTURE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class PatchBasis:
    """Latent = (patch - mean) @ projection of patches [48] (colour, row, column) with values in -1..1.

    mean: [48].  projection: [48, K].  explained: share of the variance within the K components.  float64.
    """

    mean: Tensor
    projection: Tensor
    explained: float

    def encode(self, images: Tensor) -> Tensor:
        """Raw latents [B, K, H / 4, W / 4] of images [B, 3, H, W] in -1..1, in the images' precision."""
        patches = torch.nn.functional.pixel_unshuffle(images, PATCH).permute(0, 2, 3, 1)
        return ((patches - self.mean.to(images)) @ self.projection.to(images)).permute(0, 3, 1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """The best linear reconstruction [B, 3, H, W] of raw latents, unclamped: what a decoder must surpass."""
        inverse = torch.linalg.pinv(self.projection).to(latents)
        patches = latents.permute(0, 2, 3, 1) @ inverse + self.mean.to(latents)
        return torch.nn.functional.pixel_shuffle(patches.permute(0, 3, 1, 2), PATCH)


def fit_patch_basis(patches: Tensor, channels: int = LATENT_CHANNELS) -> PatchBasis:
    """PCA of patches [n, 48] in -1..1, partly whitened, scaled to latents of `RAW_STD`."""
    where = "fit_patch_basis"
    check_shape(where, "patches", patches, ["n", PATCH_CHANNELS])
    if not 1 <= channels <= PATCH_CHANNELS or len(patches) < PATCH_CHANNELS:
        raise InvalidInput(
            f"{where}: {channels} channels from {len(patches)} patches, expected 1 to {PATCH_CHANNELS} channels and at "
            f"least {PATCH_CHANNELS} patches."
        )
    values = patches.double()
    mean = values.mean(0)
    variances, vectors = torch.linalg.eigh((values - mean).T @ (values - mean) / len(values))
    variances, vectors = variances.flip(0).clamp_min(1e-12), vectors.flip(1)
    # An eigenvector's sign is arbitrary: the largest entry is made positive, so that equal data give equal latents.
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    projection = (vectors * largest.sign())[:, :channels] / variances[:channels].sqrt() ** _WHITENING
    scale = RAW_STD / ((values - mean) @ projection).square().mean().sqrt()
    return PatchBasis(mean, projection * scale, float(variances[:channels].sum() / variances.sum()))


def sample_patches(dataset: ShardDataset, pictures: int, generator: torch.Generator) -> Tensor:
    """Patches [n, 48] of random pictures of a data set (training persons only!); few of them are plain background."""
    chosen = torch.randperm(len(dataset), generator=generator)[:pictures]
    kept = []
    for index in chosen.tolist():
        sample = dataset[index]
        patches = image_patches(sample.rgb)
        covered = torch.nn.functional.max_pool2d(sample.alpha[None].float(), PATCH).flatten() > 0
        order = torch.randperm(len(patches), generator=generator)
        figure, white = order[covered[order]], order[~covered[order]]
        figure = figure[:_PATCHES_PER_PICTURE]
        kept.append(patches[torch.cat([figure, white[: int(len(figure) * _WHITE_SHARE)]])])
    return torch.cat(kept)


def image_patches(rgb: Tensor) -> Tensor:
    """Patches [n, 48] in -1..1 of a picture [S, S, 3] uint8."""
    images = rgb.permute(2, 0, 1)[None].float() / 127.5 - 1
    return torch.nn.functional.pixel_unshuffle(images, PATCH).flatten(2)[0].T


def codec_config(channels: int = LATENT_CHANNELS) -> dict[str, object]:
    """Configuration of the `AutoencoderTiny`."""
    return {
        "encoder_block_out_channels": [WIDTH] * 3, "num_encoder_blocks": [0, 0, 0],
        "decoder_block_out_channels": [48] * 3, "num_decoder_blocks": [3, 2, 1],
        "latent_channels": channels, "scaling_factor": 1 / RAW_STD,
    }  # fmt: skip


def codec_of_basis(basis: PatchBasis) -> Model:
    """An `AutoencoderTiny` whose encoder is the basis; its decoder has the library's random weights."""
    from diffusers import AutoencoderTiny

    codec = AutoencoderTiny(**codec_config(basis.projection.shape[1]))
    set_encoder(codec, basis)
    return codec


@torch.no_grad()
def set_encoder(codec: Model, basis: PatchBasis) -> None:
    """Set the four convolutions of the encoder so that `encode(images).latents` is `basis.encode(images)`."""
    layers: list[Any] = [layer for layer in codec.encoder.modules() if isinstance(layer, nn.Conv2d)]
    if [layer.out_channels for layer in layers] != [WIDTH, WIDTH, WIDTH, basis.projection.shape[1]]:
        raise ShapeMismatch(
            f"set_encoder: convolutions to {[layer.out_channels for layer in layers]} channels, expected {WIDTH}, "
            f"{WIDTH}, {WIDTH} and {basis.projection.shape[1]}."
        )
    for layer in layers:
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    first, *halvings, last = layers
    for color in range(3):
        # The library's encoder begins with (x + 1) / 2; this undoes it.
        first.weight[color, color, 1, 1] = 2.0
        first.bias[color] = -1.0
    for layer, channels in zip(halvings, (3, 12)):
        for channel in range(channels):
            for row in range(2):
                for column in range(2):
                    # Padding 1 and stride 2: taps 1 and 2 are the block's own pixels.
                    layer.weight[4 * channel + 2 * row + column, channel, 1 + row, 1 + column] = 1.0
    last.weight[:, :, 1, 1] = basis.projection[_channel_order()].T
    last.bias.copy_(-(basis.mean @ basis.projection))


def _channel_order() -> Tensor:
    """For each channel after two halvings, its place in a patch (colour, row, column)."""
    places = torch.arange(PATCH_CHANNELS).view(3, 2, 2, 2, 2)  # colour, rows coarse and fine, columns coarse and fine
    # The first halving makes channels of the fine position, the second of the coarse one.
    return places.permute(0, 2, 4, 1, 3).reshape(-1)
