"""Model cards: what a trained network is, from what, how long and how good, written beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .loop import LoopResult, LoopSettings
from .recipes import Recipe
from .shards import ShardDataset
from .trait_table import TraitTable

_PURPOSE = {
    "parts": "Says for each pixel whether it is background, face (skin with ears and neck), hair, clothes, eyes, lips "
    "or mouth.",
    "normals": "Estimates the surface normal at each pixel, in camera space with OpenGL axes (x right, y up, z towards "
    "the camera), of the whole figure with hair and clothes.",
    "landmarks": "Finds the 68 iBUG landmarks of a face, says how surely each is visible and whether there is a face.",
}

_LIMITS = {
    "parts": "Hair that has the colour of the skin beside it, and parts of a few pixels, are its hardest cases.",
    "normals": "Strands of hair and folds smaller than two pixels are smoothed over.",
    "landmarks": "One face per picture. Points that the head hides are guesses, with a low confidence.",
}

_CARD = """# Network for {role}

{purpose} Part of the embedded world: made by `animportrait3d train-network {role}` from pictures that this
repository renders; no photograph and no foreign weights went into it. Licence: that of the repository.

- architecture: segmentation-models-pytorch {architecture}, {weights} weights, pictures of {size} pixels
- data: {training} pictures of {persons} persons for training, {held_out} of {held_out_persons} others held out
  `{data}`
- training: {steps} steps of {batch} pictures, {minutes:.0f} minutes, {precision}, seed {seed}{start}{state}
- on the persons held out:

| metric | value |
|---|---|
{metrics}
{traits}
`docs/networks.md` says how each metric is counted; `benchmarks/networks.py` measures the network on volumetric
portraits.

Limits: it knows the people of the embedded world only: stylised heads over plain backgrounds, one in each picture.
It is not meant for photographs. {limits}
"""


_BY_TRAIT = """
`{metric}` of persons held out by trait (docs/dataset.md), by what the network is shown:

{table}
"""


def model_card(
    recipe: Recipe,
    settings: LoopSettings,
    result: LoopResult,
    data: tuple[ShardDataset, ShardDataset],
    goes_on: bool = False,
    table: TraitTable | None = None,
) -> str:
    """The card in Markdown. data: for training, and held out.  goes_on: it began with the weights of another one.
    table: figures by trait, if the data set has traits."""
    training, held_out = data
    return _CARD.format(
        role=recipe.role,
        purpose=_PURPOSE[recipe.role],
        limits=_LIMITS[recipe.role],
        architecture=f"{recipe.config['_model_class']} with encoder {recipe.config['encoder_name']}",
        weights=f"{_count_weights(result):,}",
        size=recipe.size,
        training=f"{len(training):,}",
        persons=f"{len(training.identities):,}",
        held_out=f"{len(held_out):,}",
        held_out_persons=f"{len(held_out.identities):,}",
        data=json.dumps(dict(training.manifest.settings), sort_keys=True),
        steps=f"{result.step:,}",
        batch=settings.batch_size,
        minutes=result.seconds / 60,
        precision=settings.precision,
        seed=settings.seed,
        start="; began with the weights of another training" if goes_on else "",
        state="" if result.finished else f"; stopped early, {settings.steps:,} steps are planned",
        metrics=_rows(result.metrics),
        traits="" if table is None else _BY_TRAIT.format(metric=table.metric, table=table.markdown()),
    )


def _count_weights(result: LoopResult) -> int:
    """Trained numbers, without the statistics of normalisations."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(value.numel() for name, value in result.weights.items() if not name.endswith(statistics))


def _rows(metrics: Mapping[str, float]) -> str:
    return "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
