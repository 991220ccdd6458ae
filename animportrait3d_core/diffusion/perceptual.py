"""How unlike two pictures look, by features of a network instead of pixels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from .guidance import Guidance

Features = Literal["latents", "lpips"]
VGG_FILE = "vgg16-397923af.pth"
"""torchvision's weights of VGG-16, in the folder where torch keeps what it has downloaded."""


class PerceptualDistance(Protocol):
    """A differentiable distance of pictures."""

    name: str
    """For reports, and for the keys of runs."""

    def __call__(self, images: Tensor, wanted: Tensor) -> Tensor:
        """Mean distance (scalar) of pictures [B, H, W, 3] in 0..1 to those they should look like."""


class LatentDistance:
    """The mean squared difference of a guidance's own latents.

    Scaled latents have about unit variance in each channel, so fine structure counts as much as broad colour.
    """

    def __init__(self, guidance: Guidance) -> None:
        self._guidance = guidance
        self.name = f"latents of {guidance.fingerprint}"

    def __call__(self, images: Tensor, wanted: Tensor) -> Tensor:
        """See `PerceptualDistance`."""
        difference = self._guidance.encode(images) - self._guidance.encode(wanted).detach()
        return difference.square().mean().to(images)


class LpipsDistance:
    """LPIPS of VGG-16 (Zhang et al. 2018), which the paper takes (equation 5); torchmetrics' implementation."""

    name = "LPIPS of VGG-16"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Needs what `lpips_is_missing` names."""
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self._network = LearnedPerceptualImagePatchSimilarity(net_type="vgg").net.to(device)

    def __call__(self, images: Tensor, wanted: Tensor) -> Tensor:
        """See `PerceptualDistance`."""
        found, target = (pictures.permute(0, 3, 1, 2).float() for pictures in (images, wanted.detach()))
        return self._network(found, target, normalize=True).mean().to(images)


def lpips_is_missing() -> str:
    """What LPIPS lacks here, in words; empty if nothing. Nothing is ever downloaded."""
    if importlib.util.find_spec("torchmetrics") is None:
        return "the package torchmetrics is not installed"
    file = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    return "" if file.is_file() else f"'{file}' is not there"


def perceptual_distance(
    features: Features, guidance: Guidance, device: torch.device | str = "cpu"
) -> PerceptualDistance:
    """The distance that is asked for; latents in place of LPIPS where it cannot be had (`lpips_is_missing`)."""
    if features == "lpips" and not lpips_is_missing():
        return LpipsDistance(device)
    return LatentDistance(guidance)
