"""Validation of a ControlNet in training: held-out pictures drawn again from their condition maps, side by side."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import torch

from ..diffusion.components import frozen
from ..diffusion.diffusers_adapter import DiffusersGuidance
from ..diffusion.model_files import Model
from ..diffusion.sampling import SamplingSettings
from ..previews import write_png
from ..similarity import psnr
from .controlnet_data import condition_images, true_images
from .guided_samples import draw_samples, spread_over_regions
from .shards import ShardDataset


@dataclasses.dataclass(frozen=True)
class ValidationSettings:
    """interval: steps between two validations; 0 for one at the end of each sitting only.  per_region: held-out
    pictures of each region.  sampling, seed: of all of them.  batch_size: pictures drawn at once.
    """

    interval: int = 1000
    per_region: int = 2
    sampling: SamplingSettings = SamplingSettings()
    seed: int = 0
    batch_size: int = 4


def validate(
    guidance: DiffusersGuidance, controlnet: Model, held_out: ShardDataset, size: int, settings: ValidationSettings,
    path: Path,
) -> dict[str, float]:  # fmt: skip
    """Draw held-out pictures with a ControlNet, write them beside the truth, and measure them.

    path: of a PNG, one row a picture: condition normals, condition label, truth, sample.  Returns `psnr`, the mean of
    the pictures' PSNR in dB.
    """
    samples = [held_out[index] for index in spread_over_regions(held_out, settings.per_region).tolist()]
    truth, condition = true_images(samples, size), condition_images(samples, size)
    own = copy.copy(guidance)
    own.controlnet = frozen(controlnet, guidance.device, guidance.dtype)
    texts = [sample.prompt for sample in samples]
    found = draw_samples(own, texts, condition, size, settings.sampling, settings.seed, settings.batch_size).float()
    columns = [condition[..., :3], condition[..., 3:].expand(-1, -1, -1, 3), truth, found]
    write_png(torch.cat([torch.cat(list(row), 1) for row in zip(*columns)], 0), path)
    return {"psnr": sum(psnr(a, b) for a, b in zip(found, truth)) / len(samples)}
