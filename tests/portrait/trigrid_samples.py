"""Small trigrid files in the layouts of Portrait3D, whole and with code in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from animportrait3d_core.portrait.trigrid import Decoder, Generator, ToRgb, TrigridPortrait, TrigridRenderSettings

ELLIPSOID_AXES = (0.5, 0.6, 0.55)


class Attack:
    """Pickles to a call of os.system."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch '{self.target}'",)


def generator_of(portrait: TrigridPortrait) -> Generator:
    """The portrait's decoder and ToRGB by upstream's names."""
    decoder, to_rgb = portrait.decoder, portrait.to_rgb
    return Generator(
        {
            "decoder.net.0.weight": decoder.hidden_weight,
            "decoder.net.0.bias": decoder.hidden_bias,
            "decoder.net.2.weight": decoder.output_weight,
            "decoder.net.2.bias": decoder.output_bias,
            "torgb.affine.weight": to_rgb.affine_weight,
            "torgb.affine.bias": to_rgb.affine_bias,
            "torgb.weight": to_rgb.weight[:, :, None, None],
            "torgb.bias": to_rgb.bias,
        }
    )


def checkpoint_of(portrait: TrigridPortrait) -> dict[str, torch.Tensor]:
    """The dictionary that Portrait3D saves, with the background added."""
    model = {f"trigrids_{r}": grid.reshape(1, 3, -1, r, r) for r, grid in portrait.levels.items()}
    return {**model, "ws": portrait.ws[None], "background_features": portrait.background_features}


def without(values: dict, name: str) -> dict:
    """The dictionary without one key."""
    return {key: value for key, value in values.items() if key != name}


def ellipsoid_portrait(levels: tuple[int, ...], backend: str = "fast") -> TrigridPortrait:
    """A portrait of a solid, patterned ellipsoid around the origin, in closed form.

    The grids hold x0 = 1 - (x/a)^2 - (y/b)^2 - (z/c)^2 in cube coordinates, split over two planes. One hidden unit is
    softplus(40 x0 - 8), ten times which less 15 is the raw density.
    """
    rng = np.random.default_rng(3)
    hidden_weight = rng.normal(0, 1, (32, 12))
    hidden_weight[:, 0] = 0
    hidden_weight[0] = 0
    hidden_weight[0, 0] = 40 * np.sqrt(12)
    hidden_bias = rng.normal(0, 0.3, 32)
    hidden_bias[0] = -8
    output_weight = rng.normal(0, 0.5, (33, 32))
    output_weight[0] = 0
    output_weight[0, 0] = 10 * np.sqrt(32)
    output_weight[1:, 0] = 0
    output_bias = np.concatenate([[-15.0], rng.normal(0, 0.3, 32)])
    layers = (hidden_weight, hidden_bias, output_weight, output_bias)
    affine = (torch.zeros(32, 512), torch.full((32,), 32**0.5))
    return TrigridPortrait(
        {level: ellipsoid_level(level) for level in levels},
        Decoder(*(torch.from_numpy(layer).float() for layer in layers)),
        ToRgb(*affine, torch.from_numpy(rng.normal(0, 0.3, (3, 32))).float(), torch.zeros(3)),
        torch.zeros(14, 512),
        torch.from_numpy(rng.normal(0, 1, (32, 128, 128))).float(),
        rendering=TrigridRenderSettings(backend=backend),
    )


def ellipsoid_level(resolution: int) -> torch.Tensor:
    """One level [3, 12, 3, r, r]; three times the values, since the field is the mean over the planes."""
    a, b, c = ELLIPSOID_AXES
    centers = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    v, u = torch.meshgrid(centers, centers, indexing="ij")
    grid = torch.zeros(3, 12, 3, resolution, resolution)
    grid[0, 0] = 1 - (u / a) ** 2 - (v / b) ** 2
    grid[2, 0] = -((v / c) ** 2)
    for channel in range(1, 12):
        for plane in range(3):
            grid[plane, channel] = torch.sin(channel * u + plane) * torch.cos((channel + 1) * v)
    return 3 * grid
