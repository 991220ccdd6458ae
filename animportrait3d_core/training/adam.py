"""AdamW with an average of the weights, whose whole state is one flat dictionary of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class AveragedAdam:
    """The optimiser of a model on whatever device it is on, and the running average of the model's state dict.

    ema_decay: of the average, less in the first steps; 0 keeps none, and the weights stand for it.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float, ema_decay: float) -> None:
        """weight_decay: of weights with two or more dimensions; biases and normalisations have none."""
        self.model, self.ema_decay = model, ema_decay
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        decayed = [value for value in self.parameters.values() if value.ndim > 1]
        others = [value for value in self.parameters.values() if value.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)
        kept = model.state_dict() if ema_decay else {}
        self._ema = {name: value.detach().clone() for name, value in kept.items()}
        self._first = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self._second = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self._bind_moments(torch.zeros(len(self.parameters)))

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def average(self, steps: int) -> None:
        """Move the average towards the weights after so many steps."""
        decay = min(self.ema_decay, steps / (steps + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items() if self._ema else ():
                if value.is_floating_point():
                    self._ema[name].lerp_(value, 1 - decay)
                else:
                    self._ema[name].copy_(value)

    def averaged(self) -> dict[str, Tensor]:
        """The averaged state dict; its tensors change with every step."""
        return dict(self._ema or self.model.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Weights, their average, moments and steps, as they are in use: later steps change them."""
        model = {name: value.detach() for name, value in self.model.state_dict().items()}
        groups = {"model": model, "ema": self._ema, "first": self._first, "second": self._second}
        flat = {f"{kind}/{name}": value for kind, group in groups.items() for name, value in group.items()}
        steps = [self.optimizer.state[value]["step"].float() for value in self.parameters.values()]
        return {**flat, "adam_steps": torch.stack(steps)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the `tensors()` of a model and settings like these."""

        def group(kind: str) -> dict[str, Tensor]:
            return {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}

        self.model.load_state_dict(group("model/"))
        with torch.no_grad():
            for own, kind in ((self._ema, "ema/"), (self._first, "first/"), (self._second, "second/")):
                found = group(kind)
                for name, value in own.items():
                    value.copy_(found[name])
        self._bind_moments(tensors["adam_steps"])

    def _bind_moments(self, steps: Tensor) -> None:
        """Give the optimiser our tensors for its moments, so that state and optimiser are one thing.

        steps: [parameters]; a parameter that had no gradient in a step is behind the others.
        """
        for (name, parameter), count in zip(self.parameters.items(), steps.tolist(), strict=True):
            self.optimizer.state[parameter] = {
                "step": torch.tensor(count, device=parameter.device),
                "exp_avg": self._first[name], "exp_avg_sq": self._second[name],
            }  # fmt: skip
