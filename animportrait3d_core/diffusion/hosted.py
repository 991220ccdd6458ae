"""Guidance from a model that a host program holds on its own terms: what a host must offer, and the way to our terms.

Hosts work in "sigma space" (Karras et al. 2022): noisy latents are x0 + sigma n, not sqrt(abar) x0 + sqrt(1 - abar) n,
and the model's answer is the clean latents, whatever its network predicts. With sigma^2 = (1 - abar) / abar the first
are the second times sqrt(1 + sigma^2), and the noise is (noisy - clean) / sigma.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..socket_values import SocketValue
from .codec import Autoencoder, LatentCodec
from .guidance import NO_CONTROLNET, Prediction, TextEmbedding, check_latents, check_texts, condition_planes
from .schedule import NoiseSchedule


class HostedWork(Protocol):
    """A model ready for many calls.

    noisy: [B, C, h, w] float32 in sigma space.  sigmas: [B].  text, negative: [B, L, D].  condition: [B, 4, H, W] in
    0..1, or None: without the ControlNet.  Answers are clean latents [B, C, h, w], float32 or more, and no inference
    tensors.
    """

    autoencoder: Autoencoder
    """Gradients go through it."""

    def denoised(self, noisy: Tensor, sigmas: Tensor, text: Tensor, condition: Tensor | None) -> Tensor:
        """What the model answers to the text."""

    def guided(
        self,
        noisy: Tensor,
        sigmas: Tensor,
        text: Tensor,
        negative: Tensor,
        guidance_scale: float,
        condition: Tensor | None,
    ) -> Tensor:
        """With the host's classifier-free guidance, and all that its user has put in its place."""


class HostedModel(Protocol):
    """A diffusion model of a host, checked and fit for `HostedGuidance`; for the fields see `Guidance`.

    sigmas: [T] rising.  condition_factor: side of condition images over that of latents, None without a ControlNet.
    """

    family: str
    latent_channels: int
    latent_scale: float
    latent_factor: int
    image_size: int
    sigmas: Tensor
    condition_factor: int | None
    device: torch.device
    dtype: torch.dtype

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings, the same in every process."""

    def texts(self, texts: list[str]) -> Tensor:
        """[n, L, D]; L is the same for all texts."""

    def opened(self) -> AbstractContextManager[HostedWork]:
        """Load the model; at the end it is the host's again."""


class HostedGuidance(SocketValue):
    """See the protocol `Guidance`. It may travel on a socket: between sessions it holds nothing on a device."""

    regions: tuple[str, ...] | None = None

    def __init__(self, model: HostedModel, guidance_scale: float) -> None:
        """guidance_scale: with which the model's samples are best; hosts do not know it."""
        self._model = model
        self._work: HostedWork | None = None
        self.guidance_scale = guidance_scale
        self.family, self.image_size = model.family, model.image_size
        self.latent_channels, self.latent_scale = model.latent_channels, model.latent_scale
        self.latent_factor, self.device, self.dtype = model.latent_factor, model.device, model.dtype
        self._sigmas = model.sigmas.detach().float().cpu().clone()
        self._schedule = NoiseSchedule((1 / (1 + self._sigmas.double().square())).float())
        self.alphas_cumprod = self._schedule.alphas_cumprod

    @property
    def fingerprint(self) -> str:
        """See `Guidance`."""
        return self._model.fingerprint

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """See `Guidance`."""
        with self._opened():
            yield

    @torch.no_grad()
    def encode_prompt(self, texts: list[str]) -> TextEmbedding:
        """See `Guidance`."""
        check_texts(texts)
        return TextEmbedding(self._model.texts(list(texts)))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """See `Guidance`."""
        with self._opened() as work:
            return LatentCodec(work.autoencoder).encode(images, noise)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Guidance`."""
        with self._opened() as work:
            return LatentCodec(work.autoencoder).decode(latents)

    @torch.no_grad()
    def predict_noise(
        self, latents: Tensor, timesteps: int | Tensor, text: TextEmbedding, condition: Tensor | None = None
    ) -> Prediction:
        """See `Guidance`."""
        noisy, sigmas, planes = self._asked(latents, timesteps, condition)
        with self._opened() as work:
            return _prediction(noisy, sigmas, work.denoised(noisy, sigmas, text.batch(len(latents)), planes))

    @torch.no_grad()
    def predict_guided_noise(
        self,
        latents: Tensor,
        timesteps: int | Tensor,
        text: TextEmbedding,
        negative: TextEmbedding,
        guidance_scale: float,
        condition: Tensor | None = None,
    ) -> Prediction:
        """See `Guidance`. At scale 1 the negative text, and with it the host's functions of guidance, are not asked."""
        if guidance_scale == 1:
            return self.predict_noise(latents, timesteps, text, condition)
        noisy, sigmas, planes = self._asked(latents, timesteps, condition)
        count = len(latents)
        with self._opened() as work:
            clean = work.guided(noisy, sigmas, text.batch(count), negative.batch(count), guidance_scale, planes)
        return _prediction(noisy, sigmas, clean)

    def _asked(
        self, latents: Tensor, timesteps: int | Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Noisy latents in sigma space, their sigmas [B] and the condition [B, 4, H, W], on the device."""
        check_latents(latents, self.latent_channels)
        sigmas = self._sigmas[self._schedule.check_timesteps(timesteps, len(latents))].to(self.device)
        noisy = latents.to(self.device, torch.float32) * (1 + _for_latents(sigmas).square()).sqrt()
        if condition is None:
            return noisy, sigmas, None
        if self._model.condition_factor is None:
            raise InvalidInput(NO_CONTROLNET)
        planes = condition_planes(condition, latents, self._model.condition_factor)
        return noisy, sigmas, planes.to(self.device, torch.float32)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[HostedWork]:
        """The session around us, or one of our own."""
        if self._work is not None:
            yield self._work
            return
        with self._model.opened() as work:
            self._work = work
            try:
                yield work
            finally:
                self._work = None


def _for_latents(sigmas: Tensor) -> Tensor:
    return sigmas.reshape(-1, 1, 1, 1)


def _prediction(noisy: Tensor, sigmas: Tensor, clean: Tensor) -> Prediction:
    return Prediction(((noisy - clean) / _for_latents(sigmas)).float(), clean.float())
