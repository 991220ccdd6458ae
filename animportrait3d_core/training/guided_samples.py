"""Pictures that a guidance draws for samples of a data set: what a diffusion model in training is worth."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion import Guidance
from ..diffusion.sampling import Conditioning, SamplingSettings, StartingPoint, sample
from ..regions import IMAGE_REGIONS
from .shards import ShardDataset

_BATCH = 16


def spread_over_regions(dataset: ShardDataset, per_region: int) -> Tensor:
    """Positions of `per_region` pictures of each region, evenly spread over the data set."""
    regions = dataset.column("region")
    chosen = []
    for number in range(len(IMAGE_REGIONS)):
        places = (regions == number).nonzero()[:, 0]
        if len(places):
            spread = torch.linspace(0, len(places) - 1, min(per_region, len(places))).round().long()
            chosen.append(places[spread])
    return torch.cat(chosen)


def draw_samples(
    guidance: Guidance,
    texts: list[str],
    condition: Tensor | None,
    size: int,
    sampling: SamplingSettings,
    seed: int,
    batch_size: int = _BATCH,
) -> Tensor:
    """Pictures [n, size, size, 3] of n prompts on the CPU, with conditions [n, size, size, 4] in 0..1 or without.

    The n-th picture begins with the same noise, whatever is asked.
    """
    generator = torch.Generator().manual_seed(seed)
    side = size // guidance.latent_factor
    noise = torch.randn(len(texts), guidance.latent_channels, side, side, generator=generator)
    negative = guidance.encode_prompt([""])
    pictures = []
    for part in torch.arange(len(texts)).split(batch_size):
        chosen = None if condition is None else condition[part]
        told = Conditioning(guidance.encode_prompt([texts[k] for k in part.tolist()]), negative, chosen)
        latents = sample(guidance, sampling, told, StartingPoint(noise[part].to(guidance.device)))
        with torch.no_grad():
            pictures.append(guidance.decode(latents).cpu())
    return torch.cat(pictures)
