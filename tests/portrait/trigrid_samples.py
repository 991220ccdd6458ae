"""Small trigrid files in the layouts of Portrait3D, whole and with code in them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from animportrait3d_core.portrait.trigrid import Generator, TrigridPortrait


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
