"""Adam over tables of Gaussians whose rows come and go."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-15
"""As in 3DGS: gradients of single Gaussians are tiny, a usual epsilon would swallow them."""


class RowAdam:
    """Adam (Kingma and Ba 2015) for named tables [N, ...] that share their rows.

    What `torch.optim.Adam` computes; own code because densification selects and appends rows of the moments, and
    because the whole state is then a flat dictionary of tensors that can be saved and resumed.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.steps = 0

    def step(
        self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rates: Mapping[str, float]
    ) -> None:
        """One step, in place on `parameters` [N, ...] by name. A row whose gradient was zero on all steps stays."""
        self.steps += 1
        beta1, beta2 = BETAS
        correction1, correction2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        for name, gradient in gradients.items():
            first, second = self.first[name], self.second[name]
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            denominator = second.sqrt().div_(correction2**0.5).add_(EPSILON)
            parameters[name].detach().addcdiv_(first, denominator, value=-rates[name] / correction1)

    def rebuild(self, kept: Tensor, added: int) -> None:
        """Keep the rows `kept` [M] (indices) of the moments and append `added` rows of zeros."""
        for moments in (self.first, self.second):
            for name, value in moments.items():
                moments[name] = torch.cat([value[kept], value.new_zeros(added, *value.shape[1:])])

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all moments [N, ...], as `first.NAME` and `second.NAME`, and the step count."""
        state = {f"first.{name}": value.clone() for name, value in self.first.items()}
        state |= {f"second.{name}": value.clone() for name, value in self.second.items()}
        return state | {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        self.first = {name: state[f"first.{name}"].clone() for name in self.first}
        self.second = {name: state[f"second.{name}"].clone() for name in self.second}
        self.steps = int(state["steps"])
