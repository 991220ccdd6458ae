"""The one training loop: any model and data, AdamW with a cosine schedule, averaged weights, states that go on exactly.

A task says what is learned (model, batches, losses, evaluation); this file says how. A run lives in one folder:
`state.safetensors` holds everything that changes, written in one piece, and `log.jsonl` one line per report. A run that
was stopped or killed goes on from its last state and ends, on the CPU, bit for bit as one that never stopped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..files import read_safetensors, write_safetensors
from ..progress import Report

STATE_FILE, LOG_FILE = "state.safetensors", "log.jsonl"
_FORMAT = "animportrait3d-training"


class TrainingTask(Protocol):
    """What is learned."""

    model: nn.Module
    """Whose parameters are trained; buffers are kept in the state."""

    fingerprint: str
    """Changes with everything a stopped run must find again: data, model and augmentation."""

    def __len__(self) -> int:
        """Number of samples in one round."""

    def batch(self, indices: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The samples [n], augmented by the generator."""

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Weighted terms whose sum is minimised."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics on what is held out."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How a task is trained."""

    steps: int
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    """The rate rises over these steps, then falls along a cosine to `final_rate` times itself at the last step."""
    final_rate: float = 0.01
    weight_decay: float = 1e-4
    """Of weights with two or more dimensions; biases and normalisations have none."""
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    """Of the averaged weights, which are what is evaluated and kept; less in the first steps."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: convolutions and products in 16 bits by autocast; twice as fast on CPUs that know the type."""
    seed: int = 0
    save_interval: int = 200
    log_interval: int = 50
    eval_interval: int = 0
    """Steps between evaluations; 0 for one at the end only."""

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "batch_size": self.batch_size, "save_interval": self.save_interval}
        counts |= {"log_interval": self.log_interval}
        wrong = {name: value for name, value in counts.items() if value < 1}
        if wrong:
            raise InvalidInput(f"LoopSettings: {wrong}, expected at least 1.")
        if self.precision not in ("float32", "bfloat16"):
            raise InvalidInput(f"LoopSettings: precision '{self.precision}', expected 'float32' or 'bfloat16'.")

    def rate(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)
        lowest = self.learning_rate * self.final_rate
        return lowest + (self.learning_rate - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


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
    """A run in memory: one `step` at a time, and its whole state as a flat dictionary of tensors."""

    def __init__(self, task: TrainingTask, settings: LoopSettings) -> None:
        if not len(task):
            raise InvalidInput("train: the data set has no samples for this task.")
        self.task, self.settings = task, settings
        self.step_index = 0
        self.model = task.model.to(memory_format=torch.channels_last)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self._parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        decayed = [value for value in self._parameters.values() if value.ndim > 1]
        others = [value for value in self._parameters.values() if value.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self._ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self._first = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        self._second = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        self._order = torch.zeros(0, dtype=torch.int64)
        self._bind_moments(torch.zeros(len(self._parameters)))

    def step(self) -> dict[str, float]:
        """One batch, one step of AdamW, one step of the average. Returns the terms of the loss."""
        indices = self._next_indices()
        batch = self.task.batch(indices, self.generator)
        self.model.train()
        sixteen_bits = self.settings.precision == "bfloat16"
        seed = int(torch.randint(2**62, (), generator=self.generator))
        # Layers like dropout know no generator but the global one: it is lent to them, and put back.
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=torch.bfloat16, enabled=sixteen_bits):
            torch.manual_seed(seed)
            losses = self.task.losses(self.model, batch, self.generator)
        total = torch.stack([value.float() for value in losses.values()]).sum()
        if not bool(torch.isfinite(total)):
            raise InvalidInput(
                f"train: the loss is {float(total.detach())} at step {self.step_index}; lower the learning rate "
                f"({self.settings.learning_rate}) and resume from the last state, or check the data set."
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.step_index)
        self.optimizer.step()
        self.step_index += 1
        self._average()
        return {name: float(value.detach()) for name, value in losses.items()}

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights (state dict of the model)."""
        return {name: value.clone() for name, value in self._ema.items()}

    def evaluate(self) -> dict[str, float]:
        """The task's metrics of the averaged weights; the weights in training stay as they are."""
        trained = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self._ema)
        self.model.eval()
        try:
            with torch.no_grad():
                return self.task.evaluate(self.model)
        finally:
            self.model.load_state_dict(trained)
            self.model.train()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that changes, as independent tensors."""
        tensors = {
            "model": {name: value.detach() for name, value in self.model.state_dict().items()}, "ema": self._ema,
            "first": self._first, "second": self._second,
            "loop": {
                "step": torch.tensor(self.step_index), "order": self._order, "generator": self.generator.get_state(),
                "adam_steps": self._adam_steps(),
            },
        }  # fmt: skip
        flat = {f"{kind}/{name}": value for kind, group in tensors.items() for name, value in group.items()}
        return {name: value.clone(memory_format=torch.contiguous_format) for name, value in flat.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state_dict()` of the same task and settings."""
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "first": {}, "second": {}, "loop": {}}
        for name, value in state.items():
            kind, _, rest = name.partition("/")
            groups[kind][rest] = value
        self.model.load_state_dict(groups["model"])
        with torch.no_grad():
            for own, kind in ((self._ema, "ema"), (self._first, "first"), (self._second, "second")):
                for name, value in own.items():
                    value.copy_(groups[kind][name])
        self.step_index = int(groups["loop"]["step"])
        self._order = groups["loop"]["order"].clone()
        self.generator.set_state(groups["loop"]["generator"].clone())
        self._bind_moments(groups["loop"]["adam_steps"])

    def _bind_moments(self, steps: Tensor) -> None:
        """Give the optimiser our tensors for its moments, so that state and optimiser are one thing.

        steps: [parameters]; a parameter that had no gradient in a step is behind the others.
        """
        for (name, parameter), count in zip(self._parameters.items(), steps.tolist(), strict=True):
            self.optimizer.state[parameter] = {
                "step": torch.tensor(count), "exp_avg": self._first[name], "exp_avg_sq": self._second[name],
            }  # fmt: skip

    def _adam_steps(self) -> Tensor:
        return torch.stack([self.optimizer.state[value]["step"].float() for value in self._parameters.values()])

    def _next_indices(self) -> Tensor:
        """Samples in a random order, each once per round; the last batch of a round is filled from the next."""
        while len(self._order) < self.settings.batch_size:
            self._order = torch.cat([self._order, torch.randperm(len(self.task), generator=self.generator)])
        indices, self._order = self._order.split(
            [self.settings.batch_size, len(self._order) - self.settings.batch_size]
        )
        return indices

    def _average(self) -> None:
        decay = min(self.settings.ema_decay, self.step_index / (self.step_index + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self._ema[name].lerp_(value, 1 - decay)
                else:
                    self._ema[name].copy_(value)


def train(
    task: TrainingTask,
    settings: LoopSettings,
    folder: str | Path,
    resume: bool = False,
    minutes: float | None = None,
    report: Report | None = None,
) -> LoopResult:
    """Train `task` in `folder` to the end, or for `minutes` of this sitting; always leaves a state to go on from.

    resume: go on from the folder's state if there is one.
    report: called after each step; its values are empty except every `log_interval` steps.
    Raises `InvalidInput` when the folder holds a state and `resume` is not set, when the state is of other data or
    settings, or when the loss is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        trainer, folder = Trainer(task, settings), Path(folder)
        before = _restore(trainer, folder, resume)
        started, metrics = time.perf_counter(), {}
        limit = math.inf if minutes is None else minutes * 60
        while trainer.step_index < settings.steps and time.perf_counter() - started < limit:
            values = trainer.step()
            step, last = trainer.step_index, trainer.step_index == settings.steps
            seconds = before + time.perf_counter() - started
            logged = last or step % settings.log_interval == 0
            shown = {**values, "rate": settings.rate(step - 1), "seconds": seconds} if logged else {}
            if last or (settings.eval_interval and step % settings.eval_interval == 0):
                metrics = trainer.evaluate()
                shown = {**shown, **metrics}
            if shown:
                _log(folder, {"step": step, **shown})
            if last or step % settings.save_interval == 0:
                _save(trainer, folder, seconds, metrics)
            if report is not None:
                report(step, settings.steps, shown)
        seconds = before + time.perf_counter() - started
        _save(trainer, folder, seconds, metrics)
        return LoopResult(trainer.weights(), trainer.step_index, trainer.step_index == settings.steps, seconds, metrics)


def _save(trainer: Trainer, folder: Path, seconds: float, metrics: Mapping[str, float]) -> None:
    metadata = {
        "format": _FORMAT, "task": trainer.task.fingerprint, "settings": _settings_key(trainer.settings),
        "seconds": repr(seconds), "metrics": json.dumps(dict(metrics)),
    }  # fmt: skip
    write_safetensors(folder / STATE_FILE, trainer.state_dict(), metadata)


def _restore(trainer: Trainer, folder: Path, resume: bool) -> float:
    """Load the folder's state, if there is one and it fits; seconds of training before."""
    file = folder / STATE_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        (folder / LOG_FILE).unlink(missing_ok=True)
        return 0.0
    tensors, metadata = read_safetensors(file, "train")
    if metadata.get("format") != _FORMAT:
        raise InvalidInput(f"train: '{file}' is no state of a training; choose another folder.")
    if not resume:
        raise InvalidInput(
            f"train: '{folder}' holds a training at step {int(tensors['loop/step'])} of {trainer.settings.steps}; pass "
            "--resume to go on, or choose another folder."
        )
    wanted = {"task": trainer.task.fingerprint, "settings": _settings_key(trainer.settings)}
    for key, value in wanted.items():
        if metadata.get(key) != value:
            raise InvalidInput(
                f"train: the state in '{folder}' was made with another {key}: found {metadata.get(key)}, expected "
                f"{value}. Resume with what it was begun with, or start anew in another folder."
            )
    trainer.load_state_dict(tensors)
    _cut_log(folder, trainer.step_index)
    return float(metadata["seconds"])


def _settings_key(settings: LoopSettings) -> str:
    """The settings that a run must keep; how often it logs and saves may change."""
    kept = dataclasses.asdict(settings)
    for name in ("save_interval", "log_interval", "eval_interval"):
        del kept[name]
    return json.dumps(kept, sort_keys=True)


def _log(folder: Path, values: Mapping[str, Any]) -> None:
    with open(folder / LOG_FILE, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({key: round(value, 6) for key, value in values.items()}) + "\n")


def read_log(folder: str | Path) -> Iterator[dict[str, float]]:
    """The lines of a run's log; a line cut short by a kill ends it."""
    file = Path(folder) / LOG_FILE
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _cut_log(folder: Path, step: int) -> None:
    """Forget what was logged after the state."""
    kept = [line for line in read_log(folder) if line["step"] <= step]
    (folder / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
