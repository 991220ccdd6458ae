"""Pictures from a guidance, from pure noise or from a picture (SDEdit)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch, check_finite
from ..progress import Progress
from ..randomness import generator_at
from .guidance import CONTROL_CHANNELS, Guidance, Prediction, TextEmbedding
from .samplers import DDIM, DDIMSampler, DiffusersSampler, Sampler
from .schedule import NoiseSchedule, Spacing

_PREVIEWS = 5  # pictures on the way; large autoencoders take as long as some steps


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """num_inference_steps: of the whole way.  guidance_scale: 1 calls the model once a step, without a negative prompt.

    strength: share of the way that is gone, from the end; 1 begins with pure noise.  scheduler: "ddim", or the name of
    a scheduler class of diffusers, which needs no more than one call a step.
    """

    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    strength: float = 1.0
    spacing: Spacing = "trailing"
    scheduler: str = DDIM

    @property
    def calls(self) -> int:
        """Steps that are gone. Raises `InvalidInput` when there is none."""
        count = int(self.num_inference_steps * self.strength + 1e-9)
        if not 0 < self.strength <= 1 or count < 1:
            raise InvalidInput(
                f"sample: strength {self.strength} of {self.num_inference_steps} steps, expected more than 0, at most "
                "1, and at least one step."
            )
        return count

    def sampler(self, schedule: NoiseSchedule, generator: torch.Generator | None = None) -> Sampler:
        """The way along a guidance's schedule.  generator: of schedulers that draw noise on the way, LCM's for one."""
        if self.scheduler == DDIM:
            return DDIMSampler(schedule, self.timesteps(schedule))
        drawn = generator or torch.Generator().manual_seed(0)
        return DiffusersSampler(self.scheduler, schedule, self.num_inference_steps, self.calls, self.spacing, drawn)

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """Falling timesteps of DDIM's calls. Raises `InvalidInput` when there is none."""
        return schedule.sampling_timesteps(self.num_inference_steps, self.spacing)[-self.calls :]


@dataclasses.dataclass(frozen=True)
class PictureSettings:
    """sampling: of each picture.  count: of pictures.  seed: of their noise; the n-th picture's is its own, whatever
    the count.  size: height and width in pixels, those the model was trained for if None.  batch: pictures per call.
    """

    sampling: SamplingSettings = SamplingSettings()
    count: int = 1
    seed: int = 0
    size: tuple[int, int] | None = None
    batch: int = 4

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise InvalidInput(f"PictureSettings: {self.count} pictures, {self.batch} a call; expected at least 1.")


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What a guided call is told: the prompts and the negative prompt (one, or one per picture), and the ControlNet's
    condition [B or 1, H, W, 4] in 0..1, or None: without."""

    prompt: TextEmbedding
    negative: TextEmbedding
    condition: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class StartingPoint:
    """Where the way to a picture begins.

    noise: [B, C, h, w].  latents: [B, C, h, w] to begin from in place of pure noise; they get the noise of the first
    timestep (SDEdit, Meng et al. 2022).  generator: of schedulers that draw noise on the way.
    """

    noise: Tensor
    latents: Tensor | None = None
    generator: torch.Generator | None = None


@torch.no_grad()
def sample(
    guidance: Guidance,
    settings: SamplingSettings,
    conditioning: Conditioning,
    start: StartingPoint,
    progress: Progress | None = None,
    previews: int = _PREVIEWS,
) -> Tensor:
    """Clean latents [B, C, h, w] from noise of that shape. Without latents to begin from `settings.strength` must be 1.

    progress: called after each step, `previews` times with the first picture as the model sees it then.
    """
    sampler = settings.sampler(NoiseSchedule(guidance.alphas_cumprod), start.generator)
    steps = sampler.timesteps
    if start.latents is None and settings.strength != 1:
        raise InvalidInput(f"sample: strength {settings.strength} without latents to begin from; give them, or use 1.")
    latents = sampler.begin(start.noise, start.latents)
    for done, step in enumerate(steps, start=1):
        found = _predict(guidance, settings, sampler.asked(latents, done - 1), step, conditioning)
        latents = sampler.advance(found, latents, done - 1)
        if progress is not None:
            shown = previews > 0 and done % max(1, len(steps) // previews) == 0
            progress(done, len(steps), guidance.decode(found.x0[:1])[0].cpu() if shown else None)
    return latents


@torch.no_grad()
def sample_pictures(
    guidance: Guidance,
    settings: PictureSettings,
    prompt: str,
    negative_prompt: str = "",
    condition: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Pictures [count, H, W, 3] float32 on the CPU of what a guidance makes of a prompt.

    condition: [1 or count, H, W, 4] in 0..1 for the ControlNet, or None: without. Raises `ShapeMismatch` for a
    condition of other channels, size or number, `InvalidInput` for a size that the autoencoder cannot divide.
    """
    height, width = settings.size or (guidance.image_size, guidance.image_size)
    if condition is not None:
        _check_condition(condition, settings.count, (height, width))
    noise = _noise_of_pictures(guidance, settings, height, width)
    with guidance.session():
        return _pictures(guidance, settings, (prompt, negative_prompt), noise, condition, progress)


def _pictures(
    guidance: Guidance,
    settings: PictureSettings,
    prompts: tuple[str, str],
    noise: Tensor,
    condition: Tensor | None,
    progress: Progress | None,
) -> Tensor:
    text, negative = (guidance.encode_prompt([prompt]) for prompt in prompts)
    steps = settings.sampling.calls
    conditions = None if condition is None else condition.expand(settings.count, -1, -1, -1)
    pictures: list[Tensor] = []
    for first in range(0, settings.count, settings.batch):
        chosen = slice(first, first + settings.batch)
        report = None if progress is None else _part_of(progress, len(pictures) * steps, settings, steps)
        told = Conditioning(text, negative, None if conditions is None else conditions[chosen])
        start = StartingPoint(noise[chosen], generator=generator_at(settings.seed, "on the way", first))
        latents = sample(guidance, settings.sampling, told, start, report)
        pictures.append(guidance.decode(latents).float().cpu())
    return torch.cat(pictures)


def _check_condition(condition: Tensor, count: int, size: tuple[int, int]) -> None:
    where, shape = "sample_pictures", list(condition.shape)
    if len(shape) == 4 and shape[3] != CONTROL_CHANNELS:
        raise ShapeMismatch(
            f"{where}: the condition image has {shape[3]} channels, expected {CONTROL_CHANNELS} (normals and label). "
            "Connect `packed` of Condition Maps (AP3D_ConditionMaps) and nothing that changes pictures in between."
        )
    if len(shape) != 4 or shape[0] not in (1, count) or tuple(shape[1:3]) != size:
        raise ShapeMismatch(
            f"{where}: the condition has shape {shape}, expected [1 or {count}, {size[0]}, {size[1]}, 4]."
        )
    check_finite(where, "condition", condition)


def _noise_of_pictures(guidance: Guidance, settings: PictureSettings, height: int, width: int) -> Tensor:
    """[count, C, h, w] float32 on the CPU."""
    factor = guidance.latent_factor
    if height % factor or width % factor or min(height, width) < factor:
        raise InvalidInput(f"sample_pictures: pictures of {height} x {width} pixels, expected multiples of {factor}.")
    shape = (guidance.latent_channels, height // factor, width // factor)
    drawn = [torch.randn(shape, generator=generator_at(settings.seed, "picture", k)) for k in range(settings.count)]
    return torch.stack(drawn)


def _part_of(progress: Progress, before: int, settings: PictureSettings, steps: int) -> Progress:
    """The progress of one batch, which counts on from the batches before it."""
    total = steps * -(-settings.count // settings.batch)
    return lambda step, _, preview: progress(before + step, total, preview)


def _predict(
    guidance: Guidance, settings: SamplingSettings, latents: Tensor, step: int, told: Conditioning
) -> Prediction:
    if settings.guidance_scale == 1:
        return guidance.predict_noise(latents, step, told.prompt, told.condition)
    return guidance.predict_guided_noise(
        latents, step, told.prompt, told.negative, settings.guidance_scale, told.condition
    )
