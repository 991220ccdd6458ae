"""The trained Gaussians with everything that belongs to their rows, so that rows can be selected and appended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ..gaussians import Gaussians
from .adam import RowAdam
from .model import RiggedAvatar

PARAMETER_NAMES = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest")


@dataclasses.dataclass
class GaussianTable:
    """Rows of an avatar in training; mutable, and the only place where Gaussians come and go.

    parameters: leaves that are optimised, by the names of `PARAMETER_NAMES` (`sh_rest` only if the degree is above 0).
    binding, part_id: as in `RiggedAvatar`.  anchor_means, anchor_log_scales: where each row started (or was created),
    what the regularisers measure from.  gradient_sum, gradient_count: screen gradients gathered for densification.
    """

    parameters: dict[str, Tensor]
    binding: Tensor
    part_id: Tensor
    anchor_means: Tensor
    anchor_log_scales: Tensor
    gradient_sum: Tensor
    gradient_count: Tensor
    optimizer: RowAdam

    @classmethod
    def of(cls, avatar: RiggedAvatar, device: torch.device | str = "cpu") -> GaussianTable:
        """Copies of the avatar's tensors on `device`; the avatar is not changed. Call it outside inference mode."""
        gaussians = avatar.gaussians
        values = {name: getattr(gaussians, name) for name in ("means", "quats", "log_scales", "logit_opacities")}
        values["sh0"] = gaussians.sh[:, :1]
        if gaussians.sh.shape[1] > 1:
            values["sh_rest"] = gaussians.sh[:, 1:]
        values = {name: value.detach().to(device, copy=True) for name, value in values.items()}
        parameters = {name: value.requires_grad_() for name, value in values.items()}
        return cls(
            parameters=parameters,
            binding=avatar.binding.to(device, copy=True),
            part_id=avatar.part_id.to(device, copy=True),
            anchor_means=parameters["means"].detach().clone(),
            anchor_log_scales=parameters["log_scales"].detach().clone(),
            gradient_sum=torch.zeros(len(avatar), device=device),
            gradient_count=torch.zeros(len(avatar), device=device),
            optimizer=RowAdam(parameters),
        )

    def __len__(self) -> int:
        return len(self.binding)

    def gaussians(self) -> Gaussians:
        """The rows as Gaussians; part of the gradient graph."""
        values = self.parameters
        sh = torch.cat([values["sh0"], values["sh_rest"]], dim=1) if "sh_rest" in values else values["sh0"]
        return Gaussians(values["means"], values["quats"], values["log_scales"], values["logit_opacities"], sh)

    def rebuild(self, kept: Tensor, new: Mapping[str, Tensor], parents: Tensor, anchors: Tensor) -> None:
        """Keep the rows `kept` (indices) and append rows with the parameters `new`; the rest comes from `parents`.

        Appended rows inherit the parent's binding and part, are anchored at `anchors` [M, 3] (their scales as they are
        created), and start with empty moments and gradient sums.
        """
        self.optimizer.rebuild(kept, len(parents))
        self.parameters = {
            name: torch.cat([value.detach()[kept], new[name].detach()]).requires_grad_()
            for name, value in self.parameters.items()
        }
        self.binding = torch.cat([self.binding[kept], self.binding[parents]])
        self.part_id = torch.cat([self.part_id[kept], self.part_id[parents]])
        self.anchor_means = torch.cat([self.anchor_means[kept], anchors.detach()])
        self.anchor_log_scales = torch.cat([self.anchor_log_scales[kept], new["log_scales"].detach()])
        self.gradient_sum = self.gradient_sum.new_zeros(len(self))
        self.gradient_count = self.gradient_count.new_zeros(len(self))

    def state_dict(self) -> dict[str, Tensor]:
        """Flat copies of every tensor [N, ...], one row per Gaussian, for `load_state_dict`."""
        state = {f"parameters.{name}": value.detach().clone() for name, value in self.parameters.items()}
        state |= {name: getattr(self, name).clone() for name in _ROW_FIELDS}
        return state | {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state_dict`; the number of rows may differ from the present one."""
        self.parameters = {name: state[f"parameters.{name}"].clone().requires_grad_() for name in self.parameters}
        for name in _ROW_FIELDS:
            setattr(self, name, state[name].clone())
        prefix = "optimizer."
        self.optimizer.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


_ROW_FIELDS = ("binding", "part_id", "anchor_means", "anchor_log_scales", "gradient_sum", "gradient_count")
