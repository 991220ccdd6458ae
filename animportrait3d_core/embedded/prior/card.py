"""The prior's model card: what it is, from what it was made, how long and how good."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ...diffusion.sampling import SamplingSettings
from ...files import atomic_write
from ...training.shards import ShardDataset
from .codec_training import HELD_OUT_SHARE

_CARD = """# Embedded diffusion prior

A small latent diffusion model of the embedded world's people with a ControlNet for condition maps (normals and label
map): a pipeline folder of diffusers, made by `animportrait3d embedded train-prior` from pictures that this repository
renders; no photograph and no foreign weights went into it. Licence: that of the repository.

- pictures of 128 pixels, latents of 32 x 32 x 8; predicts v, zero terminal SNR, sample with trailing timesteps
- text: whole words of the attribute prompts; a view word ("front view ...") may stand in front, a region ("mouth
  region, ...") names crops
- guidance scale: 1, without guidance; up to 2 colours obey words a little better and pictures are farther from the
  truth, larger ones oversaturate. Few steps, 4 to 8, are nearer to the truth than many
- the condition is an image of 4 channels in 0..1
- data: {training} pictures of {persons} persons for training, {held_out} of {held_out_persons} others held out
  `{data}`
- training, stage by stage:

| stage | steps | minutes |
|---|---|---|
{stages}

On the persons held out (codec over the figure; samples in {sampling}, against the truth):

| metric | value |
|---|---|
{metrics}

Limits: it knows the stylised heads of the embedded world over white, and nothing else. `samples.png` of the training
folder shows what it draws.
"""


def model_card(dataset: ShardDataset, output: Path, metrics: Mapping[str, float], sampling: SamplingSettings) -> str:
    """The card in Markdown. output: folder of the training, whose stages are listed.  sampling: of the metrics."""
    training, held_out = dataset.split(HELD_OUT_SHARE)
    stages, values = [], dict(metrics)
    for file in sorted(output.glob("*/metrics.json")):
        stage = json.loads(file.read_text(encoding="utf-8"))
        stages.append(f"| {file.parent.name} | {stage['step']:,} | {stage['seconds'] / 60:.0f} |")
        kept = {"codec": ("psnr_figure", "psnr_linear")}.get(file.parent.name, ("loss_controlled", "loss_free"))
        values |= {f"{file.parent.name} {name}": v for name, v in stage["metrics"].items() if name in kept}
    return _CARD.format(
        training=f"{len(training):,}",
        persons=f"{len(training.identities):,}",
        held_out=f"{len(held_out):,}",
        held_out_persons=f"{len(held_out.identities):,}",
        sampling=_in_words(sampling),
        data=json.dumps(dict(dataset.manifest.settings), sort_keys=True),
        stages="\n".join(stages),
        metrics="\n".join(f"| {name} | {value:.4g} |" for name, value in values.items()),
    )


_HELD_OUT = "## Held-out table"
_TABLE = """

{title}

`animportrait3d embedded evaluate-prior`, {count} samples of each kind, of persons that are not in the training, in
{sampling}. IoU, closed lids and colours: 1 is all. `truth` is what the same judge finds
in true renders, `free` is drawn without the ControlNet, `wrong` with the condition of another sample. `nearest`: PSNR
to the nearest picture of the training, at 32 pixels.

| figure | value |
|---|---|
{rows}
"""


def add_held_out(card: Path, figures: Mapping[str, float], count: int, sampling: SamplingSettings) -> None:
    """Put the held-out table at the end of a card, in place of an older one."""
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    before, _, _ = card.read_text(encoding="utf-8").partition(_HELD_OUT)
    with atomic_write(card) as temporary:
        text = before.rstrip() + _TABLE.format(title=_HELD_OUT, count=count, sampling=_in_words(sampling), rows=rows)
        temporary.write_text(text, encoding="utf-8")


def _in_words(sampling: SamplingSettings) -> str:
    return f"{sampling.num_inference_steps} steps at guidance scale {sampling.guidance_scale:g}"
