"""The one training loop: any model and data, AdamW with a cosine schedule, averaged weights, states that go on exactly.

A task says what is learned (model, batches, losses, evaluation); this file says how, `runs` how it is stopped and
taken up again, and `workers` how several processes share its steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ..devices import working_device
from ..errors import InvalidInput
from ..progress import Report
from ..randomness import generator_at, shuffled_rows
from ..runs import SAVE_SECONDS, Run, RunState, Work, carry_out
from .adam import AveragedAdam
from .gradients import Portion, add_gradients
from .workers import Workers


class TrainingTask(Protocol):
    """What is learned."""

    model: nn.Module
    """Whose parameters are trained; buffers are kept in the state."""

    fingerprint: str
    """Changes with everything a stopped run must find again: data, model and augmentation."""

    separable: bool
    """Whether other processes may compute parts of a batch: `losses` are means over the samples and can be pickled, and
    draw nothing that is not for the batch as a whole."""

    def __len__(self) -> int:
        """Number of samples in one round."""

    def batch(self, indices: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The samples [n, ...] on the CPU, augmented by the generator."""

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Weighted terms (scalars) by name, whose sum is minimised. The batch is on the model's device."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on what is held out, on whatever device the model is."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How a task is trained."""

    steps: int
    batch_size: int = 16
    lr: float = 2e-3
    warmup_steps: int = 100
    """`lr` rises over these steps, then falls along a cosine to `final_share` times itself at the last step."""
    final_share: float = 0.01
    weight_decay: float = 1e-4
    """Of weights with two or more dimensions; biases and normalisations have none."""
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    """Of the averaged weights, which are what is evaluated and kept; less in the first steps."""
    precision: Literal["float32", "mixed"] = "float32"
    """mixed: convolutions and products in bfloat16 where the device knows it (twice as fast), else float32 too."""
    seed: int = 0
    save_seconds: float = SAVE_SECONDS
    """Time between two saved states."""
    log_interval: int = 50
    eval_interval: int = 0
    """Steps between evaluations; 0 for one at the end only."""

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "batch_size": self.batch_size, "log_interval": self.log_interval}
        wrong = {name: value for name, value in counts.items() if value < 1}
        if wrong:
            raise InvalidInput(f"LoopSettings: {wrong}, expected at least 1.")
        if self.precision not in ("float32", "mixed"):
            raise InvalidInput(f"LoopSettings: precision '{self.precision}', expected 'float32' or 'mixed'.")

    def lr_at(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)
        lowest = self.lr * self.final_share
        return lowest + (self.lr - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    def key(self) -> str:
        """The settings that a run must keep; how often it logs and saves may change."""
        kept = dataclasses.asdict(self)
        for name in ("save_seconds", "log_interval", "eval_interval"):
            del kept[name]
        return json.dumps(kept, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class LoopResult:
    """What a sitting left behind.

    weights: averaged state dict of the model.  step: steps done.  finished: all of them.  seconds: of training in all
    sittings.  metrics: of the last evaluation, empty without one.
    """

    weights: dict[str, Tensor]
    step: int
    finished: bool
    seconds: float
    metrics: dict[str, float]


class Trainer:
    """A run in memory (`runs.Work`): one `step` at a time, and its whole state between any two.

    Everything that is drawn in a step, the order of the samples too, depends on (seed, step) alone. The state is on the
    CPU, wherever the model is trained.
    """

    def __init__(self, task: TrainingTask, settings: LoopSettings, device: torch.device | str = "cpu") -> None:
        if not len(task):
            raise InvalidInput("train: the data set has no samples for this task.")
        self.task, self.settings = task, settings
        self.steps, self.step_index = settings.steps, 0
        self.losses: dict[str, float] = {}
        """Terms of the loss of the last step."""
        self.workers: Workers | None = None
        """Processes that share the steps."""
        self.model = task.model.to(device).to(memory_format=torch.channels_last)
        self.adam = AveragedAdam(self.model, settings.lr, settings.weight_decay, settings.ema_decay)

    def step(self) -> None:
        """One batch, one step of AdamW, one step of the average."""
        settings = self.settings
        self.adam.optimizer.zero_grad(set_to_none=True)
        self.losses = self._add_gradients()
        total = sum(self.losses.values())
        if not math.isfinite(total):
            raise InvalidInput(
                f"train: the loss is {total} at step {self.step_index}; lower the learning rate "
                f"({settings.lr}) and resume from the last state, or check the data set."
            )
        torch.nn.utils.clip_grad_norm_(self.adam.parameters.values(), settings.clip_norm)
        self.adam.set_lr(settings.lr_at(self.step_index))
        self.adam.optimizer.step()
        self.step_index += 1
        self.adam.average(self.step_index)

    def _add_gradients(self) -> dict[str, float]:
        """The gradients of this step's batch; the terms of its loss."""
        settings, size = self.settings, self.settings.batch_size
        generator = generator_at(settings.seed, "train", self.step_index)
        rows = shuffled_rows(len(self.task), self.step_index * size, size, settings.seed, "order")
        batch = self.task.batch(rows, generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        whole = Portion(batch, 1.0, generator.get_state(), seed, settings.precision)
        if self.workers is not None:
            return self.workers.add_gradients(whole)
        return add_gradients(self.task.losses, self.model, whole)

    def logged(self) -> dict[str, float]:
        """Terms of the loss of the last step."""
        return self.losses

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights (state dict of the model)."""
        return {name: value.to("cpu", copy=True) for name, value in self.adam.averaged().items()}

    def evaluate(self) -> dict[str, float]:
        """The task's metrics of the averaged weights; the weights in training stay as they are."""
        trained = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.adam.averaged())
        self.model.eval()
        try:
            with torch.no_grad():
                return self.task.evaluate(self.model)
        finally:
            self.model.load_state_dict(trained)
            self.model.train()

    def state(self) -> RunState:
        """Weights, their average, Adam's moments and steps."""
        tensors = {
            name: value.to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in self.adam.tensors().items()
        }
        return RunState(tensors, {"step": self.step_index})

    def restore(self, state: RunState) -> None:
        """Go on from a `state()` of the same task and settings."""
        self.adam.load(state.tensors)
        self.step_index = int(state.values["step"])


class LoggedWork(Work, Protocol):
    """Training steps (`runs.Work`) that can say how they went."""

    settings: LoopSettings

    def logged(self) -> dict[str, float]:
        """Losses and the like by name, since they were last asked for."""


class Sitting:
    """A training (`runs.Work`) that also evaluates and logs when it is time; the last metrics belong to its state."""

    def __init__(
        self, trainer: LoggedWork, run: Run, evaluate: Callable[[], dict[str, float]], eval_interval: int
    ) -> None:
        self.trainer, self.steps, self.run = trainer, trainer.steps, run
        self._evaluate, self._eval_interval = evaluate, eval_interval
        self.metrics: dict[str, float] = {}
        self.evaluated_at = -1
        """The step of the metrics."""
        self.shown: dict[str, float] = {}
        """What was logged after the last step."""

    @property
    def step_index(self) -> int:
        return self.trainer.step_index

    def step(self) -> None:
        trainer, settings, interval = self.trainer, self.trainer.settings, self._eval_interval
        trainer.step()
        step, last = trainer.step_index, trainer.step_index == trainer.steps
        self.shown = {}
        if last or step % settings.log_interval == 0:
            self.shown = {**trainer.logged(), "lr": settings.lr_at(step - 1), "seconds": self.run.seconds}
        if last or (interval and step % interval == 0):
            self.evaluate()
            self.shown |= self.metrics
        if self.shown:
            self.run.log({"step": step, **self.shown})

    def evaluate(self) -> None:
        """Measure now."""
        self.evaluated_at = self.step_index
        self.metrics = self._evaluate()

    def state(self) -> RunState:
        state = self.trainer.state()
        return RunState(state.tensors, {**state.values, "metrics": self.metrics, "evaluated_at": self.evaluated_at})

    def restore(self, state: RunState) -> None:
        self.trainer.restore(state)
        self.metrics, self.evaluated_at = dict(state.values["metrics"]), int(state.values["evaluated_at"])

    def carry_out(self, report: Report | None, minutes: float | None) -> None:
        """Train to the end, or for the minutes; `report` of the first process hears of every step."""

        def tell() -> None:
            if report is not None and self.run.processes.is_first:
                report(self.step_index, self.steps, self.shown)

        carry_out(self, self.run, tell, math.inf if minutes is None else minutes * 60)


def train(
    task: TrainingTask,
    settings: LoopSettings,
    folder: str | Path,
    resume: bool = False,
    minutes: float | None = None,
    report: Report | None = None,
    processes: int = 1,
    device: str = "cpu",
) -> LoopResult:
    """Train `task` in `folder` to the end, or for `minutes` of this sitting; always leaves a state to go on from.

    resume: go on from the folder's state if there is one.  processes: this one and others that compute a part of each
    batch, in one thread each; for tasks that are `separable`, on the CPU.  device: where the model is trained
    ("cpu", "cuda", ...).  Neither belongs to the run: the results of other processes differ in the rounding of sums,
    those of other devices in that of their kernels.
    Raises `InvalidInput` when the folder holds a state and `resume` is not set, when the state is of other data or
    settings, when the loss is not finite, when the work cannot be divided, or when a process was ended from outside.
    """
    where = working_device("train", device)
    check_divisible(task, settings, processes, where)
    key = {"task": task.fingerprint, "settings": settings.key()}
    run = Run(folder, "train", key, settings.save_seconds)
    if run.has_state and not resume:
        raise InvalidInput(
            f"train: '{folder}' holds a training; pass --resume to go on with it, or choose another folder."
        )
    with torch.inference_mode(False), torch.enable_grad(), contextlib.ExitStack() as stack:
        trainer = Trainer(task, settings, where)
        if processes > 1:
            trainer.workers = stack.enter_context(Workers(task.losses, trainer.model, processes))
        sitting = Sitting(trainer, run, trainer.evaluate, settings.eval_interval)
        sitting.carry_out(report, minutes)
        finished = sitting.step_index == sitting.steps
        weights = trainer.weights()
        return LoopResult(weights, sitting.step_index, finished, run.seconds, sitting.metrics)


def check_divisible(task: TrainingTask, settings: LoopSettings, processes: int, device: torch.device) -> None:
    """Raise `InvalidInput` unless so many processes can share the steps of the training."""
    if processes < 1 or settings.batch_size % processes:
        raise InvalidInput(
            f"train: {processes} processes for batches of {settings.batch_size}, expected at least 1 and a divisor."
        )
    if processes == 1:
        return
    if device.type != "cpu":
        raise InvalidInput(f"train: {processes} processes on device '{device}'; train with one process there.")
    if not task.separable:
        raise InvalidInput(
            f"train: {processes} processes, but the losses of {type(task).__name__} depend on the batch as a whole; "
            "train with one process."
        )
    for name, layer in task.model.named_modules():
        drops = isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
        if drops or isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise InvalidInput(
                f"train: {processes} processes, but the layer '{name}' ({type(layer).__name__}) looks at the batch as "
                "a whole or draws for each sample; train with one process."
            )
