"""The steps of a ControlNet's training, in one process or in several that accelerate has started.

The U-Net and the autoencoder are frozen, in the precision of the training; the ControlNet's weights, their average and
the moments are float32, and accelerate's autocast computes with them in that precision.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from ..diffusion.diffusers_adapter import DiffusersGuidance
from ..diffusion.model_files import Model
from ..errors import InvalidInput
from ..runs import RunState
from .adam import AveragedAdam
from .controlnet_data import ControlNetBatch, ControlNetData
from .loop import LoopSettings

_WHERE = "train-controlnet"


@dataclasses.dataclass
class _Sums:
    """Sums over the steps since the last line of the log; they belong to the state."""

    loss: float = 0.0
    grad_norm: float = 0.0
    steps: int = 0


class ControlNetTrainer:
    """A training in memory (`runs.Work`).

    accelerator: accelerate's, which moves, wraps and scales.  controlnet: float32.  parts: how many pieces of the batch
    each process goes through one after the other before the weights move.
    """

    def __init__(
        self,
        accelerator: Any,
        guidance: DiffusersGuidance,
        controlnet: Model,
        data: ControlNetData,
        settings: LoopSettings,
        parts: int,
    ) -> None:
        self.accelerator, self.guidance, self.data, self.settings = accelerator, guidance, data, settings
        self.steps, self.step_index = settings.steps, 0
        self._pieces = parts * accelerator.num_processes
        if settings.batch_size % self._pieces:
            raise InvalidInput(
                f"{_WHERE}: a batch of {settings.batch_size} samples cannot be divided into {self._pieces} equal "
                f"pieces ({accelerator.num_processes} processes times {parts} accumulated parts); choose a multiple."
            )
        self._parts = parts
        accelerator.gradient_accumulation_steps = parts
        self.controlnet = controlnet.to(accelerator.device).train().requires_grad_(True)
        self.adam = AveragedAdam(self.controlnet, settings.lr, settings.weight_decay, settings.ema_decay)
        self._wrapped, self._optimizer = accelerator.prepare(
            # The optimiser is on the device already; to move it would tear it from its moments.
            self.controlnet, self.adam.optimizer, device_placement=[True, False],
        )  # fmt: skip
        self.sums = _Sums()

    def step(self) -> None:
        """One batch, one step of AdamW, one step of the average."""
        losses = []
        for part in range(self._parts):
            with self.accelerator.accumulate(self._wrapped):
                error = self._loss(self._batch(part))
                self.accelerator.backward(error)
            losses.append(error.detach())
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), "mean"))
        norm = float(self.accelerator.clip_grad_norm_(self.adam.parameters.values(), self.settings.clip_norm))
        self._check(loss, norm)
        self.adam.set_lr(self.settings.lr_at(self.step_index))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step_index += 1
        self.adam.average(self.step_index)
        self.sums.loss += loss
        # With float16 a step whose gradients overflow is left out, and the scale halved: such a norm says nothing.
        self.sums.grad_norm += norm if math.isfinite(norm) else 0.0
        self.sums.steps += 1

    def state(self) -> RunState:
        """Weights, their average, Adam's moments and steps, the scale of float16 and the sums of the log."""
        scaler = self.accelerator.scaler
        values = {
            "step": self.step_index,
            "sums": dataclasses.asdict(self.sums),
            "scaler": None if scaler is None else scaler.state_dict(),
            "pieces": self._pieces,
        }
        return RunState({name: value.cpu() for name, value in self.adam.tensors().items()}, values)

    def restore(self, state: RunState) -> None:
        """Go on from a `state()` of a training with the same base, data and settings."""
        self.adam.load(state.tensors)
        self.step_index = int(state.values["step"])
        self.sums = _Sums(**state.values["sums"])
        if self.accelerator.scaler is not None and state.values["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state.values["scaler"])

    def logged(self) -> dict[str, float]:
        """Means over the steps since the last call."""
        sums, self.sums = self.sums, _Sums()
        steps = max(1, sums.steps)
        return {"loss": sums.loss / steps, "grad_norm": sums.grad_norm / steps}

    def _batch(self, part: int) -> ControlNetBatch:
        """This process's samples of one part of the step's batch."""
        size = self.settings.batch_size // self._pieces
        piece = part * self.accelerator.num_processes + self.accelerator.process_index
        places = range(piece * size, (piece + 1) * size)
        return self.data.batch(self.step_index, self.settings.batch_size, places)

    def _loss(self, batch: ControlNetBatch) -> Tensor:
        """Mean squared error of what the base predicts with the ControlNet's help."""
        guidance = self.guidance
        device, dtype = guidance.device, guidance.dtype
        noise, steps = batch.noise.to(device), batch.timesteps
        with torch.no_grad():
            latents = guidance.encode(batch.images.to(device), batch.codec_noise.to(device))
            states = guidance.encode_prompt(batch.prompts).hidden_states
            noisy = guidance.schedule.add_noise(latents, noise, steps).to(dtype)
        times, condition = steps.to(device), batch.condition.to(device, dtype)
        # Master weights are float32: without autocast inputs must be so too, with it they are cast anyway.
        down, middle = self._wrapped(
            noisy.float(), times, states.float(), controlnet_cond=condition.float(), return_dict=False
        )
        output = guidance.unet(
            noisy, times, states,
            down_block_additional_residuals=[residual.to(dtype) for residual in down],
            mid_block_additional_residual=middle.to(dtype), return_dict=False,
        )[0]  # fmt: skip
        target = guidance.schedule.target(latents, noise, steps, guidance.prediction_type)
        return (output.float() - target.float()).square().mean()

    def _check(self, loss: float, norm: float) -> None:
        scaled = self.accelerator.scaler is not None
        if math.isfinite(loss) and (scaled or math.isfinite(norm)):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradients' norm is {norm}"
        raise InvalidInput(
            f"{_WHERE}: {what} at step {self.step_index}, expected a finite number; the last state is whole. Begin in "
            "another folder with --start-from the ControlNet of this one, a smaller --lr (found "
            f"{self.settings.lr:g}) or --precision bf16 or no; or check the data set with --verify."
        )
