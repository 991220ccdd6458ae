"""What a prior's samples are worth: PSNR against the truth of held-out persons, and a sheet of pictures to look at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diffusion import Guidance
from ...diffusion.sampling import SamplingSettings
from ...errors import InvalidInput
from ...previews import write_png
from ...regions import IMAGE_REGIONS
from ...similarity import psnr
from ...training.guided_samples import draw_samples, spread_over_regions
from ...training.shards import Sample, ShardDataset
from .pipeline import GUIDANCE_SCALE

_BATCH = 16


@dataclasses.dataclass(frozen=True)
class QualitySettings:
    """per_region: held-out pictures of each region.  sampling: of all of them; the noise has a fixed seed."""

    per_region: int = 6
    sampling: SamplingSettings = SamplingSettings(num_inference_steps=4, guidance_scale=GUIDANCE_SCALE)
    seed: int = 0


def sample_images(
    guidance: Guidance,
    samples: list[Sample],
    settings: QualitySettings,
    controlled: bool,
    texts: list[str] | None = None,
) -> Tensor:
    """Pictures [n, S, S, 3] of prompts (the samples' own, or `texts`), with the samples' conditions or without.

    The n-th picture begins with the same noise, whatever is asked.
    """
    texts = [item.prompt for item in samples] if texts is None else texts
    maps: Any = [item.condition for item in samples]
    condition = torch.stack(maps).float() / 255 if controlled else None
    return draw_samples(guidance, texts, condition, len(samples[0].rgb), settings.sampling, settings.seed, _BATCH)


def prior_quality(guidance: Guidance, dataset: ShardDataset, settings: QualitySettings) -> dict[str, float]:
    """PSNR of samples against the truth: `psnr_controlled` (and by region), `psnr_free`; `psnr_codec` is its limit."""
    indices = spread_over_regions(dataset, settings.per_region)
    samples = [dataset[index] for index in indices.tolist()]
    if any(item.condition is None for item in samples):
        raise InvalidInput("prior_quality: the data set has no condition maps; build one with --preset prior.")
    truth = torch.stack([item.rgb for item in samples]).float() / 255
    controlled = sample_images(guidance, samples, settings, controlled=True)
    free = sample_images(guidance, samples, settings, controlled=False)
    with torch.no_grad():
        kept = torch.cat([guidance.decode(guidance.encode(part)) for part in truth.split(_BATCH)])
    metrics = {
        "psnr_controlled": _mean_psnr(controlled, truth), "psnr_free": _mean_psnr(free, truth),
        "psnr_codec": _mean_psnr(kept, truth),
    }  # fmt: skip
    for number, name in enumerate(IMAGE_REGIONS):
        of_region = torch.tensor([item.region == number for item in samples])
        if bool(of_region.any()):
            metrics[f"psnr_controlled_{name}"] = _mean_psnr(controlled[of_region], truth[of_region])
    return metrics


def _mean_psnr(pictures: Tensor, truth: Tensor) -> float:
    """Mean over pictures of each one's PSNR."""
    return sum(psnr(a, b) for a, b in zip(pictures.cpu(), truth)) / len(truth)


def sample_sheet(guidance: Guidance, dataset: ShardDataset, path: str | Path, settings: QualitySettings) -> None:
    """Write a picture of samples: normals, labels, truth, controlled, another person's prompt, uncontrolled."""
    indices = spread_over_regions(dataset, settings.per_region)
    samples: list[Any] = [dataset[index] for index in indices.tolist()]
    condition = torch.stack([item.condition for item in samples]).float() / 255
    others = _prompts_of_others(samples)
    rows = [
        condition[..., :3], condition[..., 3:].expand(-1, -1, -1, 3),
        torch.stack([item.rgb for item in samples]).float() / 255,
        sample_images(guidance, samples, settings, controlled=True),
        sample_images(guidance, samples, settings, controlled=True, texts=others),
        sample_images(guidance, samples, settings, controlled=False),
    ]  # fmt: skip
    write_png(torch.cat([torch.cat(list(row), 1) for row in rows], 0), path)


def _prompts_of_others(samples: list[Any]) -> list[str]:
    """For each sample the prompt of the next one of its region that shows another person."""
    texts = []
    for k, item in enumerate(samples):
        rest = [*samples[k + 1 :], *samples[:k]]
        other = [o for o in rest if o.region == item.region and o.identity != item.identity]
        texts.append(other[0].prompt if other else item.prompt)
    return texts
