"""What a diffusion model is to the rest of the package: one protocol, whatever files or host it comes from."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch, check_shape

CONTROL_CHANNELS = 4
"""Of condition images: three of normals, one of labels."""
NO_CONTROLNET = "predict_noise: a condition image, but no ControlNet is loaded; load one, or go without the condition."
"""What is said of it, whoever loads them."""


@dataclasses.dataclass(frozen=True, eq=False)
class TextEmbedding:
    """Encoded prompts. hidden_states: [B, L, D] of the text encoder; computed once, used in every step."""

    hidden_states: Tensor

    def __len__(self) -> int:
        return len(self.hidden_states)

    def __getitem__(self, index: int | slice) -> TextEmbedding:
        """One or some of the prompts, as a batch."""
        chosen = slice(index, index + 1 or None) if isinstance(index, int) else index
        return TextEmbedding(self.hidden_states[chosen])

    def batch(self, count: int) -> Tensor:
        """[count, L, D]: one prompt is repeated, several must be as many as the latents."""
        found = len(self.hidden_states)
        if found not in (1, count):
            raise ShapeMismatch(f"TextEmbedding: {found} prompts for {count} latents, expected 1 or {count}.")
        return self.hidden_states.expand(count, -1, -1)


class Prediction(NamedTuple):
    """What a model says of noisy latents: the noise in them, and the clean latents. Both [B, C, h, w] float32 or more.

    Both are given because at zero terminal signal-to-noise ratio the clean latents cannot be had from the noise.
    """

    eps: Tensor
    x0: Tensor


def guided(negative: Tensor, positive: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): negative + scale (positive - negative)."""
    return negative + guidance_scale * (positive - negative)


def check_texts(texts: list[str]) -> None:
    """Raise `InvalidInput` unless prompts are a list of strings, and not an empty one."""
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(f"encode_prompt: texts are {texts!r}, expected a list of at least one string.")


def check_latents(latents: Tensor, channels: int) -> None:
    """Raise `ShapeMismatch` unless noisy latents are [B, channels, h, w]."""
    if latents.ndim != 4 or latents.shape[1] != channels:
        raise ShapeMismatch(f"predict_noise: latents are {list(latents.shape)}, expected [B, {channels}, h, w].")


def condition_planes(condition: Tensor, latents: Tensor, factor: int) -> Tensor:
    """Condition images [1 or B, H, W, 4] as [B, 4, H, W] for latents [B, C, H / factor, W / factor]."""
    where = "predict_noise"
    height, width = (factor * side for side in latents.shape[-2:])
    check_shape(where, "condition", condition, ["B", height, width, CONTROL_CHANNELS])
    if len(condition) not in (1, len(latents)):
        raise ShapeMismatch(f"{where}: {len(condition)} conditions for {len(latents)} latents.")
    return condition.permute(0, 3, 1, 2).expand(len(latents), -1, -1, -1)


@runtime_checkable
class Guidance(Protocol):
    """A latent diffusion model with its text encoder, its autoencoder and perhaps a ControlNet; all weights frozen.

    family: "sd15", "sd2", or "sd-" and the width of the text embedding.  latent_channels: C.  latent_scale: by what
    the autoencoder's latents are multiplied.  latent_factor: side of an image over that of its latents.  image_size:
    pixels the model was trained for.  alphas_cumprod: [T] float32 on the CPU.  guidance_scale: with which its samples
    are best.  regions: of `conditioning.CROP_REGIONS`, those that the model knows, all if None.  fingerprint: changes
    with everything that answers depend on.

    images: [B, H, W, 3] in 0..1.  latents: [B, C, H / factor, W / factor], scaled.  timesteps: 0 <= t < T, an int for
    all, or [B] integers.  condition: [B, H, W, 4] in 0..1 (normals and label), one for all if B is 1, or None: a call
    is with ControlNet or without. Answers are float32, float64 where the model is.
    """

    family: str
    latent_channels: int
    latent_scale: float
    latent_factor: int
    image_size: int
    guidance_scale: float
    regions: tuple[str, ...] | None
    alphas_cumprod: Tensor
    device: torch.device
    dtype: torch.dtype

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings."""

    def session(self) -> AbstractContextManager[None]:
        """Inside it a model of a host lies on its device, ready for many calls; one call alone opens its own. A session
        within a session is the same one."""

    def encode_prompt(self, texts: list[str]) -> TextEmbedding:
        """Embeddings of some texts; the empty text is the unconditional one."""

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of images, differentiable: a sample of the posterior with `noise` (latents' shape), else its mean."""

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, clamped to 0..1."""

    def predict_noise(
        self, latents: Tensor, timesteps: int | Tensor, text: TextEmbedding, condition: Tensor | None = None
    ) -> Prediction:
        """Noise and clean latents, without gradients."""

    def predict_guided_noise(
        self,
        latents: Tensor,
        timesteps: int | Tensor,
        text: TextEmbedding,
        negative: TextEmbedding,
        guidance_scale: float,
        condition: Tensor | None = None,
    ) -> Prediction:
        """The same with classifier-free guidance, in one batch of two halves; the condition is in both."""
