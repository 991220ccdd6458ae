"""What a network is shown of a sample: its picture, its surface, or both; in training by chance, in evaluation by name.

The surface is that of `seen_pixels`: the normal in camera space and whether there is one. Trigrids have rippled
surfaces, scans grainy ones; the degradations here stand for that. All randomness comes from the generator handed in.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..networks.files import ImageNetwork
from .augment import AugmentSettings, TrainingImages, blurred, uniform, unit_channels

LOOKS = ("picture", "surface", "both")
"""Picture alone, surface alone, both beside each other."""


def surface_of(images: TrainingImages) -> Tensor:
    """Surface [B, 4, H, W] of pictures that have it."""
    if images.surface is None:
        raise InvalidInput("surface_of: the pictures have no surface; load them with `load_images`.")
    return images.surface


def degrade_surface(surface: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Blur, ripples and grain of surfaces [B, 4, H, W], each for a share of them; what is no surface stays none."""
    draws = torch.rand((len(surface), 6), generator=generator)
    out = []
    for index, draw in enumerate(draws.tolist()):
        one = surface[index : index + 1]
        if draw[0] < settings.surface_blur_share:
            soft = blurred(one, 0.4 + draw[1] * (settings.surface_blur_pixels - 0.4))
            one = torch.where(one[:, 3:] > 0, soft / soft[:, 3:].clamp_min(1e-3), 0.0)
        if draw[2] < settings.surface_ripple_share:
            one = _rougher(one, settings.surface_ripple * draw[3] * _ripples(one.shape[-1], generator))
        if draw[4] < settings.surface_noise_share:
            noise = torch.randn((1, 3, *one.shape[-2:]), generator=generator)
            one = _rougher(one, settings.surface_noise * draw[5] * 2.5 * blurred(noise, 0.8))
        out.append(one)
    return torch.cat(out) if out else surface


def _rougher(surface: Tensor, noise: Tensor) -> Tensor:
    """A surface [1, 4, H, W] whose normals are turned by noise [1, 3, H, W]; their lengths stay."""
    length = surface[:, :3].square().sum(1, keepdim=True).sqrt()
    return torch.cat([length * unit_channels(surface[:, :3] + noise), surface[:, 3:]], 1)


def _ripples(size: int, generator: torch.Generator) -> Tensor:
    """Waves [1, 3, size, size] with a standard deviation of about one, longer along one axis than along the other, as
    the cells of a trigrid's planes are when they are seen at a slant."""
    total = torch.zeros(1, 3, size, size)
    for _ in range(2):
        shortest, longest = math.log(min(12, size)), math.log(max(size // 3, 1))
        rows, columns = torch.exp(uniform(generator, (2,), shortest, longest)).round().int().tolist()
        draws = torch.randn((1, 3, rows, columns), generator=generator)
        waves = torch.nn.functional.interpolate(draws, size=(size, size), mode="bilinear")
        total += waves / waves.std().clamp_min(1e-3)
    return total / math.sqrt(2)


def shown_by_chance(
    network: ImageNetwork, images: TrainingImages, settings: AugmentSettings, generator: torch.Generator
) -> Tensor:
    """Pixels [B, C, H, W] that a network in training looks at: of each sample the picture, the surface, or both."""
    if not network.sees_normals:
        return images.colors
    draw = uniform(generator, (len(images), 1, 1, 1), 0, 1)
    kept = draw.flatten() >= settings.picture_alone_share
    surface = torch.zeros_like(surface_of(images))
    surface[kept] = degrade_surface(surface_of(images)[kept], settings, generator)
    blank = network.mean.to(images.colors)[:, None, None]
    colors = torch.where(draw > 1 - settings.surface_alone_share, blank, images.colors)
    return torch.cat([colors, surface], 1)


def shown_as(look: str, network: ImageNetwork, images: TrainingImages) -> tuple[Tensor, Tensor | None]:
    """Pictures [B, H, W, 3] and normals [B, H, W, 3] or None, as the prediction takes them, for one of `LOOKS`."""
    colors = images.colors.permute(0, 2, 3, 1)
    if look == "picture":
        return colors, None
    normals = surface_of(images)[:, :3].permute(0, 2, 3, 1)
    return (colors if look == "both" else network.mean.to(colors).expand_as(colors)), normals


def looks_of(network: ImageNetwork) -> tuple[str, ...]:
    """The `LOOKS` that a network has."""
    return LOOKS if network.sees_normals else LOOKS[:1]
