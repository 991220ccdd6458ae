"""Training of one 2D network from a data set to a network folder."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..files import atomic_write, sha256_of_file, write_json
from ..networks.files import COLORS_AND_NORMALS, WEIGHTS_FILE, build_model, load_network, save_network
from ..networks.roles import check_role
from ..parts import PART_CLASSES
from ..progress import Report
from .cards import model_card
from .images import IMAGE_MEAN, IMAGE_STD
from .loop import LoopResult, LoopSettings, train
from .recipes import Recipe, recipe_of
from .shards import open_dataset
from .trait_table import TASKS, trait_table

NETWORK_FOLDER, METRICS_FILE, CARD_FILE = "network", "metrics.json", "README.md"
LOGGER = logging.getLogger("animportrait3d")


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """What the caller may choose; None keeps the recipe's value.

    steps, batch_size, lr, size: of the schedule and the network's pictures; a resumed run must keep them.  resume: go
    on from the folder's state.  minutes: of this sitting at most.  start_from: a network folder of the same role whose
    weights are the first ones where they fit, instead of random ones (one that was trained on smaller pictures, for
    instance).
    held_out_limit: samples of each evaluation.  seed: of weights, order and augmentation.
    """

    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    size: int | None = None
    start_from: Path | None = None
    resume: bool = False
    minutes: float | None = None
    held_out_limit: int | None = 400
    eval_interval: int = 1000
    seed: int = 0

    def loop_settings(self, recipe: LoopSettings) -> LoopSettings:
        """The recipe's schedule with these choices."""
        return dataclasses.replace(
            recipe,
            steps=self.steps or recipe.steps,
            batch_size=self.batch_size or recipe.batch_size,
            lr=self.lr or recipe.lr,
            eval_interval=self.eval_interval,
            seed=self.seed,
        )


def train_network(
    role: str, dataset: str | Path, output: str | Path, run: TrainingRun | None = None, report: Report | None = None
) -> LoopResult:
    """Train the network of `role` on a data set of `embedded build-dataset --preset networks`.

    `output` receives state and log (`loop`), and at the end of every sitting the averaged weights as a network folder
    `network/` with a model card, and `metrics.json`. Raises what `open_dataset` and `train` raise.
    """
    check_role("train_network", role)
    run, output = run or TrainingRun(), Path(output)
    samples = open_dataset(dataset)
    recipe = recipe_of(role, run.size or samples.manifest.size, samples.has("surface"))
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        # The libraries draw their first weights from the global generator; it is put back afterwards.
        torch.manual_seed(run.seed)
        model = build_model(recipe.config, "train_network")
    task = TASKS[role](model, samples, recipe, run.held_out_limit)
    if run.start_from is not None:
        _start_from(model, run.start_from, recipe)
        task.fingerprint += f" from {sha256_of_file(run.start_from / WEIGHTS_FILE)[:8]}"
    settings = run.loop_settings(recipe.loop)
    result = train(task, settings, output, run.resume, run.minutes, report)
    if not (result.finished and result.metrics):
        # Metrics of a sitting that was stopped are older than its weights.
        task.model.load_state_dict(result.weights)
        with torch.no_grad():
            result = dataclasses.replace(result, metrics=task.evaluate(task.model.eval()))
    # What the averaged weights are worth on each kind of subject; only at the end, because it takes minutes.
    task.model.load_state_dict(result.weights)
    table = trait_table(task, task.model) if result.finished and samples.has("traits") else None
    network = output / NETWORK_FOLDER
    save_network(network, recipe.config, result.weights, network_description(recipe))
    with atomic_write(network / CARD_FILE) as temporary:
        data = (task.split.training, task.split.held_out)
        card = model_card(recipe, settings, result, data, run.start_from is not None, table)
        temporary.write_text(card, encoding="utf-8")
    figures = {"step": result.step, "finished": result.finished, "seconds": round(result.seconds, 1)}
    by_trait = {} if table is None else {"traits": table.to_json()}
    write_json(output / METRICS_FILE, {"role": role, **figures, "metrics": result.metrics, **by_trait})
    return result


def _start_from(model: torch.nn.Module, folder: Path, recipe: Recipe) -> None:
    """Give the model all weights of a network that fit; those that do not keep their random values, and are named.

    A network that saw pictures alone is widened by weights of 0 for the surface: at first it answers as it did.
    """
    network, role = load_network(folder, recipe.role), recipe.role
    known, own = network.model.state_dict(), model.state_dict()
    if recipe.sees_normals and not network.sees_normals and recipe.pixel_unshuffle == network.pixel_unshuffle:
        known = {name: _widened(value, own.get(name)) for name, value in known.items()}
    fitting = {name: value for name, value in known.items() if name in own and own[name].shape == value.shape}
    if 2 * len(fitting) < len(own):
        raise InvalidInput(
            f"train_network: '{folder}' has {len(fitting)} of the {len(own)} weights of the recipe for {role}, "
            "expected at least half: it is another architecture. Start without it."
        )
    others = sorted(own.keys() - fitting.keys())
    if others:
        LOGGER.warning("train_network: %d of %d weights are new: %s", len(others), len(own), ", ".join(others[:6]))
    model.load_state_dict({**own, **fitting})


def _widened(weights: Tensor, wanted: Tensor | None) -> Tensor:
    """Weights of a convolution with 0 for the further input channels of `wanted`; any others as they are.

    Colours are the first channels of each pixel, and so of each block of pixels.
    """
    if wanted is None or weights.ndim != 4 or wanted.shape[1] <= weights.shape[1]:
        return weights
    further = weights.new_zeros(len(weights), wanted.shape[1] - weights.shape[1], *weights.shape[2:])
    return torch.cat([weights, further], 1)


def network_description(recipe: Recipe) -> dict[str, object]:
    """Contents of `network.json` for a network of this recipe."""
    classes = {"classes": list(PART_CLASSES)} if recipe.role == "parts" else {}
    colors = {"mean": [IMAGE_MEAN] * 3, "std": [IMAGE_STD] * 3}
    inputs = {"inputs": list(COLORS_AND_NORMALS)} if recipe.sees_normals else {}
    blocks = {"pixel_unshuffle": recipe.pixel_unshuffle}
    close = {"close_looks": True} if recipe.looks_closely else {}
    return {"role": recipe.role, **classes, "size": recipe.size, **colors, **blocks, **inputs, **close}
