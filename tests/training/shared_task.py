"""A small task whose steps several processes can share; in a module that they import quickly."""

from __future__ import annotations

import dataclasses

import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.training.loop import LoopSettings

SETTINGS = LoopSettings(steps=12, batch_size=6, lr=0.05, warmup_steps=3, save_seconds=0, log_interval=1)


class Networks(torch.nn.Module):
    """A convolution, whose weights lie in memory channel by channel, and a layer that is often unused."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(2, 5, 3)
        self.second = torch.nn.Linear(5, 1)
        self.rare = torch.nn.Linear(5, 1)
        self.fixed = torch.nn.Linear(1, 1).requires_grad_(False)


@dataclasses.dataclass(frozen=True)
class Losses:
    """poison: a value that no row may have."""

    poison: float = float("inf")

    def __call__(self, model, batch, generator):
        hidden = torch.tanh(model.first(batch["x"])).mean((2, 3))
        found = model.second(hidden)
        # As a ControlNet that only some batches use: its parameters then have no gradient at all.
        if float(torch.rand((), generator=generator)) < 0.4:
            found = found + model.rare(hidden)
        if bool((batch["x"] == self.poison).any()):
            raise InvalidInput(f"losses: {self.poison} among the rows.")
        return {"square": (found - batch["y"]).square().mean(), "size": 1e-2 * found.abs().mean()}


class SharedTask:
    """Means of small pictures, with noise of each sample. float64: what processes differ in is then rounding alone."""

    fingerprint = "shared"
    separable = True

    def __init__(self, samples=20):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = Networks().double()
        self.inputs = torch.randn(samples, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.losses = Losses()

    def __len__(self):
        return len(self.inputs)

    def batch(self, indices, generator):
        inputs = self.inputs[indices]
        noise = 0.1 * torch.randn(len(inputs), 1, generator=generator, dtype=torch.float64)
        return {"x": inputs, "y": inputs.mean((1, 2, 3))[:, None] + noise}

    def evaluate(self, model):
        return {"error": float(model.second.weight.square().sum())}
