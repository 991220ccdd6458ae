"""Joint training of the prior's text encoder, U-Net and ControlNet on latents of the data set."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion import NoiseSchedule
from ...diffusion.components import Components
from ...diffusion.diffusers_adapter import DiffusersGuidance
from ...diffusion.model_files import Model
from ...files import sha256_of_file
from ...training.images import Split, split_dataset
from ...training.shards import ShardDataset
from .codec_training import HELD_OUT_SHARE, data_fingerprint, images_of, spread_indices
from .networks import UNET_CONFIG, PriorNetworks, prior_schedule
from .pipeline import load_codec
from .quality import QualitySettings, prior_quality
from .vocabulary import MAX_TOKENS, TextVariation, build_tokenizer, varied_text

_ENCODING_BATCH = 64
_LOSS_BATCH = 32


@dataclasses.dataclass(frozen=True)
class PriorSettings:
    """free_share: batches without ControlNet.  snr_limit: gamma of min-SNR weighting (Hang et al. 2023), of SNR + 1.

    noise_power: timesteps are drawn as T u^noise_power, u uniform: 1 is evenly, less means more noise. What a picture
    shows is decided where there is much, and that is what a small network learns last.  loss_limit: held-out pictures
    of which the loss is measured.
    """

    free_share: float = 1 / 3
    snr_limit: float = 5.0
    noise_power: float = 0.6
    text: TextVariation = TextVariation()
    loss_limit: int = 192
    quality: QualitySettings = QualitySettings()


@dataclasses.dataclass(frozen=True)
class PriorLosses:
    """A `LossFunction`: the weighted error of v, a mean over the samples."""

    settings: PriorSettings
    schedule: NoiseSchedule

    def __call__(self, model: Model, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """One term, named by whether the ControlNet was in use."""
        free = float(torch.rand((), generator=generator)) < self.settings.free_share
        error = self.errors(model, batch, controlled=not free)
        return {"v_free" if free else "v_controlled": (error * self.weights(batch["timesteps"]).to(error)).mean()}

    def errors(self, model: Model, batch: Mapping[str, Tensor], controlled: bool) -> Tensor:
        """Mean squared error of v [B]."""
        latents, noise, steps = batch["latents"], batch["noise"], batch["timesteps"]
        noisy = self.schedule.add_noise(latents, noise, steps).contiguous(memory_format=torch.channels_last)
        found = model(noisy, steps, batch["tokens"], batch["condition"] if controlled else None).float()
        return (found - self.schedule.velocity(latents, noise, steps)).square().mean((1, 2, 3))

    def weights(self, timesteps: Tensor) -> Tensor:
        """min(SNR + 1, gamma) / (SNR + 1): less where there is hardly any noise and v asks for the grain.

        Not min(SNR, gamma) / (SNR + 1), which vanishes without signal: there the prompt decides the colours, and a
        sampler that begins without signal would begin with what was never learned.
        """
        snr = self.schedule.snr(timesteps).float() + 1
        return snr.clamp_max(self.settings.snr_limit) / snr


class PriorTask:
    """A `TrainingTask`. The latents of all training pictures are computed once, with the codec as it is stored."""

    separable = True

    def __init__(self, networks: PriorNetworks, dataset: ShardDataset, codec: Path, settings: PriorSettings) -> None:
        self.model: nn.Module = networks
        self.settings = settings
        self.split: Split = split_dataset(dataset, HELD_OUT_SHARE)
        self.codec, self.tokenizer = load_codec(codec), build_tokenizer()
        self.schedule = prior_schedule()
        self.losses = PriorLosses(settings, self.schedule)
        self.latents = self.encoded(self.split.training)
        (weights,) = codec.glob("*.safetensors")
        kept = {name: value for name, value in dataclasses.asdict(settings).items() if name not in _NOT_TRAINED_WITH}
        self.fingerprint = data_fingerprint(dataset, UNET_CONFIG, kept, sha256_of_file(weights))

    def __len__(self) -> int:
        return len(self.split.training)

    def encoded(self, dataset: ShardDataset) -> Tensor:
        """What is learned: latents of all pictures."""
        return encode_images(self.codec, dataset)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Latents, condition maps, tokens of varied texts, timesteps spread over the schedule, noise."""
        samples = [self.split.training[index] for index in indices.tolist()]
        texts = [varied_text(item.prompt, item.view_word, self.settings.text, generator) for item in samples]
        latents = self.latents[indices].float()
        count = len(indices)
        # One timestep in each n-th of what is drawn: the loss depends on it more than on anything else.
        places = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        places = places**self.settings.noise_power
        return {
            "latents": latents, "tokens": tokens_of(self.tokenizer, texts), "condition": condition_of(samples),
            "timesteps": (places * len(self.schedule)).long().clamp_max(len(self.schedule) - 1),
            "noise": torch.randn(latents.shape, generator=generator),
        }  # fmt: skip

    def evaluate(self, model: Model) -> dict[str, float]:
        """Held-out loss with and without ControlNet at fixed draws, and what samples are worth (`prior_quality`)."""
        metrics = self._held_out_losses(model)
        guidance = guidance_of(model, self.codec, self.tokenizer)
        return metrics | prior_quality(guidance, self.split.held_out, self.settings.quality)

    def _held_out_losses(self, model: Model) -> dict[str, float]:
        dataset = self.split.held_out
        device, generator = next(model.parameters()).device, torch.Generator().manual_seed(0)
        totals: dict[str, list[Tensor]] = {"loss_controlled": [], "loss_free": []}
        for indices in spread_indices(len(dataset), self.settings.loss_limit).split(_LOSS_BATCH):
            samples = [dataset[index] for index in indices.tolist()]
            latents = encode_batch(self.codec, dataset, indices)
            batch = {
                "latents": latents, "noise": torch.randn(latents.shape, generator=generator),
                "timesteps": torch.randint(len(self.schedule), (len(indices),), generator=generator),
                "tokens": tokens_of(self.tokenizer, [item.prompt for item in samples]),
                "condition": condition_of(samples),
            }  # fmt: skip
            batch = {name: value.to(device) for name, value in batch.items()}
            weights = self.losses.weights(batch["timesteps"]).to(device)
            totals["loss_controlled"].append(self.losses.errors(model, batch, controlled=True) * weights)
            totals["loss_free"].append(self.losses.errors(model, batch, controlled=False) * weights)
        return {name: float(torch.cat(values).mean()) for name, values in totals.items()}


# What only evaluations depend on; a run may be resumed with other values.
_NOT_TRAINED_WITH = ("loss_limit", "quality")


def tokens_of(tokenizer: Any, texts: list[str]) -> Tensor:
    """[n, L] int64."""
    found = tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return found.input_ids


def condition_of(samples: list[Any]) -> Tensor:
    """Condition maps [n, 4, S, S] in 0..1."""
    maps = torch.stack([sample.condition for sample in samples])
    return (maps.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def encode_batch(codec: Model, dataset: ShardDataset, indices: Tensor) -> Tensor:
    """Scaled latents [n, 8, S / 4, S / 4] of some pictures."""
    with torch.no_grad():
        return codec.encode(images_of(dataset, indices)[0]).latents * codec.config.scaling_factor


def encode_images(codec: Model, dataset: ShardDataset) -> Tensor:
    """Scaled latents of all pictures, float16: 16 kB for one of 128 pixels."""
    parts = [
        encode_batch(codec, dataset, indices).half() for indices in torch.arange(len(dataset)).split(_ENCODING_BATCH)
    ]
    return torch.cat(parts)


def guidance_of(networks: Model, codec: Model, tokenizer: Any) -> DiffusersGuidance:
    """A guidance of copies of the networks on their device, as a folder would give it."""
    own = copy.deepcopy(networks)
    parts = Components(own.unet, copy.deepcopy(codec), own.text_encoder, tokenizer, prior_schedule(), "v_prediction")
    return DiffusersGuidance(parts, own.controlnet, device=next(own.parameters()).device)
