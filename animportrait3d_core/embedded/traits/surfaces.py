"""What surfaces look like without their painter's texture, in other light, and through other tone curves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..identities.noise_fields import fractal_field
from ..identities.shading import Lighting

_STONES = ((0.86, 0.85, 0.82), (0.78, 0.72, 0.62), (0.42, 0.30, 0.20), (0.35, 0.38, 0.36))
"""White marble, sandstone, bronze, slate."""


def repainted(atlas: np.ndarray, trait: str, generator: np.random.Generator) -> np.ndarray:
    """An atlas [S, S, 5] (colour, relief, gloss) with another surface, by one of `PAINTS`."""
    atlas = atlas.copy()
    keeps_relief = generator.random() < 0.4
    if trait == "grey":
        atlas[..., :3] = generator.uniform(0.35, 0.85)
        atlas[..., 4] = generator.uniform(0.0, 0.3)
    elif trait == "one colour":
        atlas[..., :3] = generator.uniform(0.15, 0.95, 3)
        atlas[..., 4] = generator.uniform(0.0, 0.6)
    elif trait == "marble":
        _carve(atlas, generator)
    elif trait == "smooth colours":
        _blur(atlas, generator.uniform(1 / 160, 1 / 45) * len(atlas))
        keeps_relief = False
    else:
        _tint(atlas, generator)
        keeps_relief = True
    if not keeps_relief:
        atlas[..., 3] = 0.0
    return atlas


def _carve(atlas: np.ndarray, generator: np.random.Generator) -> None:
    """Stone with veins, or bronze with patina."""
    base = np.array(_STONES[int(generator.integers(len(_STONES)))]) * generator.uniform(0.85, 1.1)
    steps = np.arange(len(atlas)) / len(atlas)
    places = np.stack([*np.meshgrid(steps, steps), np.full((len(atlas), len(atlas)), 7.5)], -1) * [9.0, 9.0, 1.0]
    cloud = fractal_field(places, 5, int(generator.integers(2**16)))
    veins = np.exp(-((np.abs(cloud - 0.5) / generator.uniform(0.008, 0.03)) ** 2))
    shade = 1 + 0.35 * (cloud - 0.5) - generator.uniform(0.0, 0.4) * veins
    atlas[..., :3] = np.clip(base * shade[..., None], 0, 1)
    atlas[..., 4] = generator.uniform(0.0, 0.9)


def _blur(atlas: np.ndarray, sigma: float) -> None:
    """Colours as coarse as those of vertices that lie far apart."""
    from scipy import ndimage

    for channel in range(3):
        atlas[..., channel] = ndimage.gaussian_filter(atlas[..., channel], sigma)
    atlas[..., 4] *= 0.3


def _tint(atlas: np.ndarray, generator: np.random.Generator) -> None:
    """Channels mixed anew: green skin, blue hair."""
    mixture = np.eye(3)[generator.permutation(3)] * 0.7 + 0.3 * generator.dirichlet([1.0, 1.0, 1.0], 3)
    atlas[..., :3] = np.clip(atlas[..., :3] @ mixture.T.astype(np.float32) * generator.uniform(0.8, 1.15), 0, 1)


def relit(lighting: Lighting, trait: str, generator: np.random.Generator) -> Lighting:
    """Other light, by one of `LIGHTS`."""
    if trait == "flat light":
        level = generator.uniform(0.8, 1.0)
        even = np.full(3, level)
        return Lighting(lighting.directions, 0.02 * lighting.colors, even, even * generator.uniform(0.9, 1.0))
    if trait == "dim light":
        level = generator.uniform(0.2, 0.5)
        warmth = np.array([1.0 + generator.uniform(-0.2, 0.3), 1.0, 1.0 + generator.uniform(-0.3, 0.2)])
        ambient = level * warmth
        return Lighting(
            lighting.directions, lighting.colors * ambient, lighting.sky * ambient, lighting.ground * ambient
        )
    yaw, height = generator.uniform(-np.pi, np.pi) * 0.65, generator.uniform(-0.5, 0.95)
    key = np.array([np.sin(yaw), height, np.cos(yaw)])
    directions = np.concatenate([key[None] / np.linalg.norm(key), lighting.directions[1:]])
    strength = generator.uniform(0.9, 1.7) * np.array([1.0, generator.uniform(0.85, 1.0), generator.uniform(0.7, 1.05)])
    others = lighting.colors[1:] * generator.uniform(0.0, 0.4)
    around = generator.uniform(0.06, 0.4)
    colors = np.concatenate([strength[None], others])
    return Lighting(directions, colors, lighting.sky * around, lighting.ground * around)


def toned(colors: Tensor, alpha: Tensor, trait: str, generator: np.random.Generator) -> Tensor:
    """Pictures [H, W, 3] over white with coverage [H, W] through another tone curve, by one of `TONES`."""
    coverage = alpha[..., None]
    own = ((colors - (1 - coverage)) / coverage.clamp_min(1e-3)).clamp(0, 1)
    changed = _toon(own, generator) if trait == "toon" else _photo(own, generator)
    return torch.where(coverage > 0, changed * coverage + 1 - coverage, colors)


def _toon(own: Tensor, generator: np.random.Generator) -> Tensor:
    """Brightness in a few steps, colours stronger."""
    bands, boost = int(generator.integers(3, 6)), generator.uniform(1.0, 1.7)
    grey = own.mean(-1, keepdim=True)
    stepped = (grey * bands).floor().clamp(max=bands - 1) / bands + 0.5 / bands
    return (stepped * (own / grey.clamp_min(0.02)).clamp(max=3.0) + (own - grey) * (boost - 1)).clamp(0, 1)


def _photo(own: Tensor, generator: np.random.Generator) -> Tensor:
    """A curve with toe and shoulder, a colour cast and another saturation."""
    own = own ** generator.uniform(0.6, 1.5)
    steep = generator.uniform(0.0, 1.0)
    own = own + steep * (own * own * (3 - 2 * own) - own)
    cast = own.new_tensor(np.exp(generator.uniform(-0.12, 0.12, 3)).tolist())
    grey = own.mean(-1, keepdim=True)
    return ((grey + (own - grey) * generator.uniform(0.5, 1.4)) * cast).clamp(0, 1)
