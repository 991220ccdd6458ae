"""Ways from noise to clean latents: DDIM of our own, and any scheduler of diffusers with one call a step."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import InvalidInput
from .guidance import Prediction
from .schedule import NoiseSchedule, Spacing

DDIM = "ddim"
SCHEDULERS = (
    DDIM, "DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "UniPCMultistepScheduler", "LCMScheduler",
)  # fmt: skip
"""What is offered; any scheduler class of diffusers that asks the model once a step is accepted."""
_LEAST_SIGNAL = 2.0**-24
"""In place of none at all, for schedulers that divide by it (diffusers' own number)."""
_WHERE = "sample"


class Sampler(Protocol):
    """One way: its timesteps, and what is done at each."""

    @property
    def timesteps(self) -> Sequence[int]:
        """Falling, of the guidance."""

    def begin(self, noise: Tensor, start: Tensor | None) -> Tensor:
        """Latents before the first step, in the sampler's own scale: of noise alone, or of clean latents under it."""

    def asked(self, latents: Tensor, index: int) -> Tensor:
        """What the guidance is shown at `timesteps[index]`: noisy latents of unit variance."""

    def advance(self, found: Prediction, latents: Tensor, index: int) -> Tensor:
        """Latents after that step; clean after the last one."""


class DDIMSampler:
    """Song et al. 2021, eta 0."""

    def __init__(self, schedule: NoiseSchedule, timesteps: Sequence[int]) -> None:
        self._schedule, self.timesteps = schedule, timesteps

    def begin(self, noise: Tensor, start: Tensor | None) -> Tensor:
        """See `Sampler`."""
        return noise if start is None else self._schedule.add_noise(start, noise, self.timesteps[0])

    def asked(self, latents: Tensor, index: int) -> Tensor:
        """See `Sampler`."""
        return latents

    def advance(self, found: Prediction, latents: Tensor, index: int) -> Tensor:
        """See `Sampler`."""
        if index + 1 == len(self.timesteps):
            return found.x0
        return self._schedule.ddim_step(found.eps, found.x0, self.timesteps[index + 1])


class DiffusersSampler:
    """A scheduler class of diffusers on the guidance's own schedule. It is told v, which every kind of model can say,
    also without signal, and every scheduler of models of noise understands."""

    def __init__(
        self, name: str, schedule: NoiseSchedule, steps: int, kept: int, spacing: Spacing, generator: torch.Generator
    ) -> None:
        """kept: how many of the steps are gone, from the end.  generator: of schedulers that draw noise on the way."""
        self._scheduler, self._schedule, self._generator = _make(name, schedule, spacing), schedule, generator
        self._scheduler.set_timesteps(steps)
        if self._scheduler.order != 1:
            raise InvalidInput(f"{_WHERE}: {name} asks the model more than once a step; choose one that asks once.")
        first = len(self._scheduler.timesteps) - kept
        self._times = self._scheduler.timesteps[first:]
        self.timesteps = [round(float(time)) for time in self._times]
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(first)

    def begin(self, noise: Tensor, start: Tensor | None) -> Tensor:
        """See `Sampler`."""
        if start is None:
            return noise * self._scheduler.init_noise_sigma
        return self._scheduler.add_noise(start, noise, self._times[:1].expand(len(start)))

    def asked(self, latents: Tensor, index: int) -> Tensor:
        """See `Sampler`."""
        return self._scheduler.scale_model_input(latents, self._times[index])

    def advance(self, found: Prediction, latents: Tensor, index: int) -> Tensor:
        """See `Sampler`."""
        drawn = "generator" in inspect.signature(self._scheduler.step).parameters
        extra: dict[str, Any] = {"generator": self._generator} if drawn else {}
        velocity = self._schedule.velocity(found.x0, found.eps, self.timesteps[index])
        step = self._scheduler.step(velocity, self._times[index], latents, return_dict=False, **extra)
        return step[0].to(latents)


def _make(name: str, schedule: NoiseSchedule, spacing: Spacing) -> Any:
    """The scheduler with the betas of a schedule; settings that its class does not have are left out."""
    import diffusers

    known = getattr(diffusers, name, None)
    if not (isinstance(known, type) and issubclass(known, diffusers.SchedulerMixin)):
        raise InvalidInput(
            f"{_WHERE}: scheduler '{name}', expected {DDIM} or a scheduler class of diffusers {diffusers.__version__}, "
            "DPMSolverMultistepScheduler or LCMScheduler for instance."
        )
    abar = schedule.alphas_cumprod.double().clamp_min(_LEAST_SIGNAL)
    betas = 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])
    wanted = {
        "num_train_timesteps": len(schedule), "trained_betas": betas.tolist(), "prediction_type": "v_prediction",
        "timestep_spacing": spacing, "steps_offset": 1 if spacing == "leading" else 0, "clip_sample": False,
        "set_alpha_to_one": True, "original_inference_steps": len(schedule),
    }  # fmt: skip
    accepted = inspect.signature(known.__init__).parameters
    if not {"trained_betas", "prediction_type"} <= set(accepted):
        raise InvalidInput(f"{_WHERE}: {name} is not for models of noise; choose another scheduler.")
    return known(**{key: value for key, value in wanted.items() if key in accepted})
