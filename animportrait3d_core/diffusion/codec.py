"""The autoencoder as two functions between images [B, H, W, 3] in 0..1 and scaled latents [B, C, h, w]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch, check_shape
from .model_files import Model


class LatentCodec:
    """An `AutoencoderKL` or `AutoencoderTiny` of diffusers with frozen weights; gradients go through to the images."""

    def __init__(self, vae: Model) -> None:
        config: Any = vae.config
        self.vae = vae
        self.channels, self.scale = int(config["latent_channels"]), float(config["scaling_factor"])
        self.shift = float(config.get("shift_factor") or 0.0)
        stages = config.get("decoder_block_out_channels") or config["block_out_channels"]
        self.factor = 2 ** (len(stages) - 1)
        self._has_posterior = "encoder_block_out_channels" not in config

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents, float32 or more. With noise [B, C, h, w] a sample of the posterior, else its mean.

        An `AutoencoderTiny` has no posterior: noise changes nothing there.
        """
        where = "encode"
        check_shape(where, "images", images, ["B", "H", "W", 3])
        height, width = images.shape[1:3]
        if not height or height % self.factor or not width or width % self.factor:
            raise InvalidInput(f"{where}: images of {height} x {width} pixels, expected multiples of {self.factor}.")
        if noise is not None:
            expected = [len(images), self.channels, height // self.factor, width // self.factor]
            check_shape(where, "noise", noise, expected)
        weight = next(self.vae.parameters())
        encoded = self.vae.encode((2 * images - 1).permute(0, 3, 1, 2).to(weight.device, weight.dtype))
        if not self._has_posterior:
            latents = _wide(encoded.latents)
        else:
            posterior = encoded.latent_dist
            latents = _wide(posterior.mean)
            if noise is not None:
                latents = latents + _wide(posterior.std) * noise.to(latents.device)
        return (latents - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Images in 0..1, float32 or more."""
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ShapeMismatch(f"decode: latents are {list(latents.shape)}, expected [B, {self.channels}, h, w].")
        weight = next(self.vae.parameters())
        raw = (latents / self.scale + self.shift).to(weight.device, weight.dtype)
        images = _wide(self.vae.decode(raw).sample)
        return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
