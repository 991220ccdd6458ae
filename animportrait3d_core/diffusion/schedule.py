"""The noise schedule: pure functions of alphas_cumprod.

x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps (Ho et al. 2020), v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0 (Salimans and
Ho 2022). A schedule may end without any signal (abar = 0; Lin et al. 2024): v is then -x0, eps is x_t, and whoever
predicts eps says nothing about x0.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch

PredictionType = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["trailing", "leading"]
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """alphas_cumprod: [T] float32 on the CPU, falling, 0 <= abar <= 1; zero at the last step only.

    Timesteps are ints for a whole batch or integer tensors [B] (on the CPU, else each call waits for the device).
    Latents are [B, ...]; results have their device, in float32 or more.
    """

    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        values = torch.as_tensor(self.alphas_cumprod).detach().cpu()
        if values.ndim != 1 or len(values) < 2 or not values.is_floating_point():
            raise ShapeMismatch(f"NoiseSchedule: alphas_cumprod is {list(values.shape)} {values.dtype}, expected [T].")
        falling = bool((values[1:] < values[:-1]).all())
        if not falling or not 0 <= float(values[-1]) or not float(values[0]) <= 1:
            raise InvalidInput(
                f"NoiseSchedule: alphas_cumprod goes from {float(values[0]):.4g} to {float(values[-1]):.4g}, "
                f"{'falling' if falling else 'not falling everywhere'}; expected falling within 0..1."
            )
        object.__setattr__(self, "alphas_cumprod", values.clone())

    @classmethod
    def from_betas(cls, betas: Tensor, zero_terminal_snr: bool = False) -> NoiseSchedule:
        """betas: [T]. zero_terminal_snr: shift and scale so that the last step has no signal (Lin et al. 2024)."""
        alphas_cumprod = (1 - betas).cumprod(0)
        if zero_terminal_snr:
            roots = alphas_cumprod.sqrt()
            roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
            alphas_cumprod = roots.square()
        return cls(alphas_cumprod)

    @classmethod
    def stable_diffusion(cls) -> NoiseSchedule:
        """SD 1.5's: 1000 steps, roots of beta linear from 0.00085 to 0.012. Our timesteps are stated on it."""
        return cls.from_betas(torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000).square())

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def has_zero_terminal_snr(self) -> bool:
        """Whether the last step has no signal at all."""
        return float(self.alphas_cumprod[-1]) == 0.0

    def check_timesteps(self, timesteps: int | Tensor, count: int) -> Tensor:
        """Timesteps as [count] int64 on the CPU; raises `InvalidInput` or `ShapeMismatch`."""
        steps = torch.as_tensor(timesteps).detach().cpu()
        if steps.is_floating_point() or steps.is_complex() or steps.dtype == torch.bool:
            raise InvalidInput(f"NoiseSchedule: timesteps are {steps.dtype}, expected integers.")
        if steps.ndim > 1 or steps.numel() not in (1, count):
            raise ShapeMismatch(f"NoiseSchedule: timesteps have shape {list(steps.shape)}, expected [] or [{count}].")
        if int(steps.min()) < 0 or int(steps.max()) >= len(self):
            raise InvalidInput(
                f"NoiseSchedule: timesteps {int(steps.min())}..{int(steps.max())}, expected 0..{len(self) - 1}."
            )
        return steps.long().reshape(-1).expand(count)

    def alpha_bar(self, timesteps: int | Tensor, like: Tensor) -> Tensor:
        """abar of timesteps, [B, 1, ...] to be multiplied with latents `like` [B, ...]; float32 or more."""
        steps = self.check_timesteps(timesteps, len(like))
        dtype = torch.promote_types(like.dtype, torch.float32)
        return self.alphas_cumprod[steps].to(like.device, dtype).reshape(-1, *[1] * (like.ndim - 1))

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: int | Tensor) -> Tensor:
        """Noisy latents x_t."""
        abar = self.alpha_bar(timesteps, x0)
        return abar.sqrt() * x0 + (1 - abar).sqrt() * noise

    def velocity(self, x0: Tensor, noise: Tensor, timesteps: int | Tensor) -> Tensor:
        """v of clean latents and noise."""
        abar = self.alpha_bar(timesteps, x0)
        return abar.sqrt() * noise - (1 - abar).sqrt() * x0

    def target(self, x0: Tensor, noise: Tensor, timesteps: int | Tensor, prediction_type: PredictionType) -> Tensor:
        """What a model of that prediction type should answer at x_t: the noise, v, or the clean latents."""
        if prediction_type == "v_prediction":
            return self.velocity(x0, noise, timesteps)
        return noise if prediction_type == "epsilon" else x0

    def eps_and_x0(
        self, output: Tensor, latents: Tensor, timesteps: int | Tensor, prediction_type: PredictionType
    ) -> tuple[Tensor, Tensor]:
        """(noise, clean latents) of a model's output at noisy latents x_t.

        Raises `InvalidInput` where the prediction leaves one of them open: eps without signal, x0 without noise.
        """
        abar = self.alpha_bar(timesteps, latents)
        signal, noise = abar.sqrt(), (1 - abar).sqrt()
        if prediction_type == "v_prediction":
            return signal * output + noise * latents, signal * latents - noise * output
        self._check_determined(timesteps, len(latents), prediction_type)
        if prediction_type == "epsilon":
            output = output.to(abar.dtype)
            return output, (latents - noise * output) / signal
        if prediction_type == "sample":
            output = output.to(abar.dtype)
            return (latents - signal * output) / noise, output
        raise InvalidInput(f"NoiseSchedule: prediction type '{prediction_type}', expected one of {PREDICTION_TYPES}.")

    def _check_determined(self, timesteps: int | Tensor, count: int, prediction_type: str) -> None:
        abar = self.alphas_cumprod[self.check_timesteps(timesteps, count)]
        open_at = {"epsilon": 0.0, "sample": 1.0}.get(prediction_type)
        if open_at is not None and bool((abar == open_at).any()):
            lost = "clean latents" if prediction_type == "epsilon" else "noise"
            raise InvalidInput(
                f"NoiseSchedule: at alphas_cumprod {open_at:g} a '{prediction_type}' prediction leaves the {lost} "
                "open; use an earlier timestep, or a model that predicts v."
            )

    def ddim_step(self, eps: Tensor, x0: Tensor, timestep: int | Tensor) -> Tensor:
        """Latents at `timestep`, from a prediction anywhere else (Song et al. 2021, eta 0).

        To a smaller timestep it is a step of sampling, to a larger one of inversion.
        """
        return self.add_noise(x0, eps, timestep)

    def snr(self, timesteps: int | Tensor | None = None) -> Tensor:
        """abar / (1 - abar) of timesteps [n], or of all [T]; float64."""
        abar = self.alphas_cumprod.double()
        if timesteps is not None:
            steps = torch.as_tensor(timesteps)
            abar = abar[self.check_timesteps(steps, steps.numel())]
        return abar / (1 - abar)

    def map_timesteps(self, timesteps: int | Tensor, other: NoiseSchedule) -> Tensor:
        """Timesteps [n] of `other` with the signal-to-noise ratio nearest (in its logarithm) to ours at `timesteps`.

        Beyond the range of `other` its first or last timestep; a step without signal maps to its last one.
        """
        # Without signal, or without noise, the logarithm is infinite, and differences of infinities are none.
        wanted, known = (values.log().clamp(-100, 100) for values in (self.snr(timesteps), other.snr()))
        distance = (wanted[:, None] - known[None]).abs()
        return distance.argmin(dim=1)

    def sampling_timesteps(self, num_inference_steps: int, spacing: Spacing = "trailing") -> list[int]:
        """Falling timesteps of a sampler, spaced as diffusers' schedulers do (Lin et al. 2024, table 2).

        "trailing" begins at the last timestep; "leading" is that of SD 1.5's files (with their offset of one).
        """
        total, count = len(self), num_inference_steps
        if not 1 <= count <= total or spacing not in ("trailing", "leading"):
            raise InvalidInput(
                f"NoiseSchedule: {count} steps of spacing '{spacing}', expected 1 to {total}, trailing or leading."
            )
        if spacing == "trailing":
            steps = (torch.arange(count, 0, -1, dtype=torch.float64) * (total / count)).round() - 1
        else:
            steps = (torch.arange(count - 1, -1, -1) * (total // count) + 1).clamp_max(total - 1)
        return steps.long().tolist()
