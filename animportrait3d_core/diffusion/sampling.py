"""Pictures from a guidance: DDIM without noise of its own, from pure noise or from a picture (SDEdit)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import InvalidInput
from .guidance import Guidance, Prediction, TextEmbedding
from .schedule import NoiseSchedule, Spacing


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """num_inference_steps: of the whole way.  guidance_scale: 1 calls the model once a step, without a negative prompt.

    strength: share of the way that is gone, from the end; 1 begins with pure noise.
    """

    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    strength: float = 1.0
    spacing: Spacing = "trailing"

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """Falling timesteps of the calls. Raises `InvalidInput` when there is none."""
        count = int(self.num_inference_steps * self.strength + 1e-9)
        if not 0 < self.strength <= 1 or count < 1:
            raise InvalidInput(
                f"sample: strength {self.strength} of {self.num_inference_steps} steps, expected more than 0, at most "
                "1, and at least one step."
            )
        return schedule.sampling_timesteps(self.num_inference_steps, self.spacing)[-count:]


@torch.no_grad()
def sample(
    guidance: Guidance,
    settings: SamplingSettings,
    text: TextEmbedding,
    negative: TextEmbedding,
    noise: Tensor,
    condition: Tensor | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Clean latents [B, C, h, w] from noise of that shape (Song et al. 2021, eta 0).

    start: latents to begin from in place of pure noise; they get the noise of the first timestep (SDEdit, Meng et al.
    2022). Without them `settings.strength` must be 1.
    """
    schedule = NoiseSchedule(guidance.alphas_cumprod)
    steps = settings.timesteps(schedule)
    if start is None and settings.strength != 1:
        raise InvalidInput(f"sample: strength {settings.strength} without latents to begin from; give them, or use 1.")
    latents = noise if start is None else schedule.add_noise(start, noise, steps[0])
    for step, following in zip(steps, [*steps[1:], None]):
        found = _predict(guidance, settings, latents, step, text, negative, condition)
        latents = found.x0 if following is None else schedule.ddim_step(found.eps, found.x0, following)
    return latents


def _predict(
    guidance: Guidance, settings: SamplingSettings, latents: Tensor, step: int, text: TextEmbedding,
    negative: TextEmbedding, condition: Tensor | None,
) -> Prediction:  # fmt: skip
    if settings.guidance_scale == 1:
        return guidance.predict_noise(latents, step, text, condition)
    return guidance.predict_guided_noise(latents, step, text, negative, settings.guidance_scale, condition)
