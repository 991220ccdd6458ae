"""How good a 2D network is on each kind of subject of a data set, by picture, by surface and by both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InvalidInput
from ..networks.files import ImageNetwork
from .dense import NormalsTask, PartsTask
from .images import Split
from .inputs import looks_of
from .landmarks import LandmarksTask
from .recipes import recipe_of
from .shards import ShardDataset

Task = PartsTask | NormalsTask | LandmarksTask
TASKS: dict[str, type[Task]] = {"parts": PartsTask, "normals": NormalsTask, "landmarks": LandmarksTask}
PLAIN = "none"
"""The row of people without any trait."""


@dataclasses.dataclass(frozen=True)
class TraitTable:
    """Figures on persons held out.

    metric: the role's.  rows: trait (first `PLAIN`) -> what is looked at -> figure; NaN where nothing could be counted.
    samples: trait -> how many samples were looked at. Samples with several traits count in several rows.
    """

    metric: str
    rows: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, int]

    def markdown(self) -> str:
        """A table for the model card."""
        looks = list(self.rows[PLAIN])
        lines = [f"| trait | samples | {' | '.join(looks)} |", f"|---|---|{'---|' * len(looks)}"]
        for trait, figures in self.rows.items():
            values = " | ".join(f"{figures[look]:.4g}" for look in looks)
            lines.append(f"| {trait} | {self.samples[trait]} | {values} |")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All figures for machines."""
        return dataclasses.asdict(self)


def trait_table(task: Task, model: torch.nn.Module) -> TraitTable:
    """The table of a model in training, or trained, on what its task holds out."""
    held_out: ShardDataset = task.split.held_out
    traits = held_out.manifest.traits if held_out.has("traits") else ()
    rows: dict[str, dict[str, float]] = {}
    samples: dict[str, int] = {}
    with torch.no_grad():
        for trait in (None, *traits):
            some = held_out.of_trait(trait)
            if len(some):
                name = trait or PLAIN
                samples[name] = len(some) if task.held_out_limit is None else min(len(some), task.held_out_limit)
                looks = looks_of(task.network)
                rows[name] = {look: task.measure(model.eval(), some, look)[task.metric] for look in looks}
    return TraitTable(task.metric, rows, samples)


def evaluate_network(network: ImageNetwork, samples: ShardDataset, limit: int | None, everybody: bool) -> TraitTable:
    """The table of a network on a data set of the preset `networks`.

    limit: samples per row.  everybody: also the people that a network trained on this data set has seen.
    """
    recipe = recipe_of(network.role, samples.manifest.size, network.sees_normals)
    if network.sees_normals and not samples.has("surface"):
        raise InvalidInput(
            f"evaluate_network: the network looks at surfaces, but '{samples.folder}' has none; build it again."
        )
    task = TASKS[network.role](network.model, samples, recipe, limit)
    task.network = network
    if everybody:
        task.split = Split(task.split.training, samples)
    return trait_table(task, network.model)
