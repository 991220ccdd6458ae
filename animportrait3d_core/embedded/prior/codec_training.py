"""Training of the codec's decoder: small crops, latents that are fixed, and some noise on them.

Latents that the prior samples are never quite on the encoder's range; a decoder that has seen a little noise turns it
into flat colour instead of grain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ...diffusion.model_files import Model
from ...fingerprints import fingerprint
from ...regions import IMAGE_REGIONS
from ...similarity import ssim_map
from ...training.images import Split, split_dataset
from ...training.shards import ShardDataset
from .codec import PatchBasis, codec_config, codec_of_basis, fit_patch_basis, sample_patches

HELD_OUT_SHARE = 0.05
_BASIS_PICTURES = 2000
_EVALUATION_BATCH = 16


@dataclasses.dataclass(frozen=True)
class CodecSettings:
    """crop: pixels.  noise: greatest standard deviation on raw latents (0.5); half of the crops have none.

    Weights of the terms beside L1: gradient (L1 of differences of neighbours), ssim (1 - SSIM).  held_out_limit:
    pictures of an evaluation.
    """

    crop: int = 64
    noise: float = 0.06
    gradient: float = 0.5
    ssim: float = 0.1
    held_out_limit: int | None = 192


def data_fingerprint(dataset: ShardDataset, *parts: object) -> str:
    """Hash of a data set's shards and of what else a stopped training must find again."""
    shards = [(entry.file, entry.sha256) for entry in dataset.manifest.shards]
    return fingerprint([shards, *parts])[:16]


def spread_indices(count: int, limit: int | None) -> Tensor:
    """At most `limit` of `count` positions, evenly spread."""
    return torch.linspace(0, count - 1, count if limit is None else min(limit, count)).round().long()


def images_of(dataset: ShardDataset, indices: Tensor) -> tuple[Tensor, Tensor]:
    """(pictures [n, 3, S, S] in -1..1 over white, alpha [n, 1, S, S] in 0..1)."""
    samples = [dataset[index] for index in indices.tolist()]
    rgb = torch.stack([sample.rgb for sample in samples]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return rgb, torch.stack([sample.alpha for sample in samples])[:, None].float() / 255


@dataclasses.dataclass(frozen=True)
class CodecLosses:
    """A `LossFunction`, of means over the samples."""

    settings: CodecSettings

    def __call__(self, model: Model, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """L1, L1 of differences of neighbours, structural similarity."""
        latents, truth = batch["latents"].contiguous(memory_format=torch.channels_last), batch["images"]
        found = model.decode(latents).sample.float()
        edges = sum((found.diff(dim=axis) - truth.diff(dim=axis)).abs().mean() for axis in (-1, -2))
        shown, wanted = ((values / 2 + 0.5).permute(0, 2, 3, 1) for values in (found, truth))
        with torch.autocast(found.device.type, enabled=False):
            likeness = ssim_map(shown, wanted).mean()
        return {
            "l1": (found - truth).abs().mean(), "gradient": self.settings.gradient * edges,
            "ssim": self.settings.ssim * (1 - likeness),
        }  # fmt: skip


class CodecTask:
    """A `TrainingTask`: the decoder learns, the encoder stays the patch basis of the training persons."""

    separable = True

    def __init__(self, dataset: ShardDataset, settings: CodecSettings | None = None) -> None:
        self.settings = settings or CodecSettings()
        self.losses = CodecLosses(self.settings)
        self.split: Split = split_dataset(dataset, HELD_OUT_SHARE)
        patches = sample_patches(self.split.training, _BASIS_PICTURES, torch.Generator().manual_seed(0))
        self.basis: PatchBasis = fit_patch_basis(patches)
        self.model: Model = codec_of_basis(self.basis)
        self.model.encoder.requires_grad_(False)
        self.fingerprint = data_fingerprint(dataset, codec_config(), dataclasses.asdict(self.settings))

    def __len__(self) -> int:
        return len(self.split.training)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Crops, of two places the one that shows more of the figure, and their latents with noise."""
        size = self.settings.crop
        whole, alpha = images_of(self.split.training, indices)
        room = whole.shape[-1] - size + 1
        crops = []
        for image, coverage in zip(whole, alpha):
            places = torch.randint(room, (2, 2), generator=generator).tolist()
            cuts = [(slice(y, y + size), slice(x, x + size)) for y, x in places]
            rows, columns = max(cuts, key=lambda cut: float(coverage[0][cut].sum()))
            crops.append(image[:, rows, columns])
        images = torch.stack(crops)
        latents = self.basis.encode(images)
        amount = (2 * torch.rand(len(images), 1, 1, 1, generator=generator) - 1).clamp_min(0) * self.settings.noise
        noise = torch.randn(latents.shape, generator=generator)
        return {"images": images, "latents": latents + amount * noise}

    def evaluate(self, model: Model) -> dict[str, float]:
        """PSNR over the figure, of all held-out pictures and by region; `psnr_linear` is the basis' own decoder."""
        dataset, device = self.split.held_out, next(model.parameters()).device
        chosen = spread_indices(len(dataset), self.settings.held_out_limit)
        errors: dict[str, list[Tensor]] = {"psnr_figure": [], "psnr_linear": []}
        errors |= {f"psnr_{name}": [] for name in IMAGE_REGIONS}
        for indices in chosen.split(_EVALUATION_BATCH):
            images, alpha = images_of(dataset, indices)
            latents = model.encode(images.to(device)).latents
            region = dataset.column("region")[indices]
            error = _figure_errors(model.decode(latents).sample.cpu(), images, alpha)
            errors["psnr_figure"].append(error)
            errors["psnr_linear"].append(_figure_errors(self.basis.decode(latents.cpu()), images, alpha))
            for number, name in enumerate(IMAGE_REGIONS):
                errors[f"psnr_{name}"].append(error[region == number])
        sums = {name: torch.cat(parts).sum(0) for name, parts in errors.items()}
        return {name: float(-10 * torch.log10(total[0] / total[1])) for name, total in sums.items() if total[1] > 0}


def _figure_errors(found: Tensor, truth: Tensor, alpha: Tensor) -> Tensor:
    """[B, 2]: squared error over the figure, colours in 0..1, and how many values it has."""
    inside = (alpha > 0.03).float()
    error = ((found.clamp(-1, 1) - truth) / 2).square() * inside
    return torch.stack([error.sum((1, 2, 3)), 3 * inside.sum((1, 2, 3))], 1)
