"""How unlike two pictures look, by features of a network instead of pixels."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from .guidance import Guidance


class PerceptualDistance(Protocol):
    """A differentiable distance of pictures."""

    name: str
    """For reports, and for the keys of runs."""

    def __call__(self, images: Tensor, wanted: Tensor) -> Tensor:
        """Mean distance (scalar) of pictures [B, H, W, 3] in 0..1 to those they should look like."""


class LatentDistance:
    """The mean squared difference of a guidance's own latents.

    Scaled latents have about unit variance in each channel, so fine structure counts as much as broad colour. LPIPS,
    which the paper takes, needs a network of its own.
    """

    def __init__(self, guidance: Guidance) -> None:
        self._guidance = guidance
        self.name = f"latents of {guidance.fingerprint}"

    def __call__(self, images: Tensor, wanted: Tensor) -> Tensor:
        """See `PerceptualDistance`."""
        difference = self._guidance.encode(images) - self._guidance.encode(wanted).detach()
        return difference.square().mean().to(images)
