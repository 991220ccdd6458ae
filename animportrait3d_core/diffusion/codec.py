"""The autoencoder as two functions between images [B, H, W, 3] in 0..1 and scaled latents [B, C, h, w]."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch, check_shape
from .model_files import Model


class Autoencoder(Protocol):
    """Networks with frozen weights, between images [B, 3, H, W] in -1..1 and latents [B, C, h, w] as they come.

    channels: C.  scale, shift: scaled latents are (latents - shift) scale.  factor: H / h.
    """

    channels: int
    scale: float
    shift: float
    factor: int

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation of the posterior of latents; no deviation where there is no posterior."""

    def images(self, latents: Tensor) -> Tensor:
        """Images, not clamped."""


class DiffusersAutoencoder:
    """An `AutoencoderKL` or `AutoencoderTiny` of diffusers; see `Autoencoder`."""

    def __init__(self, vae: Model) -> None:
        config: Any = vae.config
        self._vae = vae
        self.channels, self.scale = int(config["latent_channels"]), float(config["scaling_factor"])
        self.shift = float(config.get("shift_factor") or 0.0)
        stages = config.get("decoder_block_out_channels") or config["block_out_channels"]
        self.factor = 2 ** (len(stages) - 1)
        self._has_posterior = "encoder_block_out_channels" not in config

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Autoencoder`."""
        encoded = self._vae.encode(self._with_weights(images))
        if not self._has_posterior:
            return encoded.latents, None
        return encoded.latent_dist.mean, encoded.latent_dist.std

    def images(self, latents: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self._vae.decode(self._with_weights(latents)).sample

    def _with_weights(self, values: Tensor) -> Tensor:
        weight = next(self._vae.parameters())
        return values.to(weight.device, weight.dtype)


class LatentCodec:
    """An autoencoder behind our images and latents; gradients go through to the images."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        self._networks = autoencoder
        self.channels, self.scale, self.factor = autoencoder.channels, autoencoder.scale, autoencoder.factor

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents, float32 or more. With noise [B, C, h, w] a sample of the posterior, else its mean.

        Where there is no posterior (`AutoencoderTiny`), noise changes nothing.
        """
        where = "encode"
        check_shape(where, "images", images, ["B", "H", "W", 3])
        height, width = images.shape[1:3]
        if not height or height % self.factor or not width or width % self.factor:
            raise InvalidInput(f"{where}: images of {height} x {width} pixels, expected multiples of {self.factor}.")
        if noise is not None:
            expected = [len(images), self.channels, height // self.factor, width // self.factor]
            check_shape(where, "noise", noise, expected)
        mean, deviation = self._networks.moments((2 * images - 1).permute(0, 3, 1, 2))
        latents = _wide(mean)
        if noise is not None and deviation is not None:
            latents = latents + _wide(deviation) * noise.to(latents.device)
        return (latents - self._networks.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Images in 0..1, float32 or more."""
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ShapeMismatch(f"decode: latents are {list(latents.shape)}, expected [B, {self.channels}, h, w].")
        images = _wide(self._networks.images(latents / self.scale + self._networks.shift))
        return (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
