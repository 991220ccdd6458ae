"""Gradients of a step: of its whole batch, or of a part of the rows, so that several processes can share the work.

Whatever is drawn belongs to the step and not to who computes it: the batch is drawn as a whole before it is divided,
and the losses of all parts draw from generators in the same state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..devices import knows_bfloat16

LossFunction = Callable[[nn.Module, Mapping[str, Tensor], torch.Generator], dict[str, Tensor]]
"""losses(model, rows, generator): weighted terms (scalars) by name, whose sum is minimised."""


@dataclasses.dataclass(frozen=True)
class Portion:
    """Rows of a step's batch, and all that their gradients depend on but for the weights.

    rows: tensors [n, ...] by name, on the CPU.  share: of the whole batch, in 0..1.  generator: state of the generator
    that the losses draw from.  seed: of torch's global generators, for layers that know no other.  precision:
    "float32" or "mixed".
    """

    rows: Mapping[str, Tensor]
    share: float
    generator: Tensor
    seed: int
    precision: str


def divide(portion: Portion, count: int) -> list[Portion]:
    """The portion in `count` parts of equally many rows, which must be a divisor of theirs; each owns its memory."""
    parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, value in portion.rows.items():
        for part, rows in zip(parts, value.split(len(value) // count), strict=True):
            part[name] = rows.clone()
    return [dataclasses.replace(portion, rows=part, share=portion.share / count) for part in parts]


def add_gradients(losses: LossFunction, model: nn.Module, portion: Portion) -> dict[str, float]:
    """Add the gradients of the portion's losses, times its share, to those of the model; its terms, times the share.

    The model trains on its own device. The global generators are what they were afterwards.
    """
    device = next(model.parameters()).device
    generator = torch.Generator()
    generator.set_state(portion.generator)
    rows = {name: value.to(device) for name, value in portion.rows.items()}
    model.train()
    sixteen_bits = portion.precision == "mixed" and knows_bfloat16(device)
    # Layers like dropout know no generator but the global one: it is lent to them, and put back.
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=sixteen_bits),
    ):
        torch.manual_seed(portion.seed)
        terms = losses(model, rows, generator)
    wide = [value.to(torch.promote_types(value.dtype, torch.float32)) for value in terms.values()]
    total = torch.stack(wide).sum()
    total.backward(total.new_tensor(portion.share))
    return {name: float(value.detach()) * portion.share for name, value in terms.items()}
