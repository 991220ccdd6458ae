"""The held-out table of a prior: figures, pictures to look at, and a section of the model card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from ...files import write_json
from ...previews import write_png
from ...progress import Stages
from ...training.loop import LoopSettings
from ...training.shards import open_dataset
from .card import add_held_out
from .crop_labels import JUDGE_LOOP, train_judge
from .held_out import HeldOutSettings, draw_held_out, drawn_sheet, held_out_figures, unseen
from .pipeline import CONTROLNET_FOLDER
from .train import CARD_FILE, report_of

FIGURES_FILE = "held_out.json"
_JUDGE = "judge"


def evaluate_prior(
    pipeline: str | Path,
    dataset: str | Path,
    training: str | Path,
    output: str | Path,
    settings: HeldOutSettings | None = None,
    judge_loop: LoopSettings | None = None,
    stages: Stages | None = None,
) -> dict[str, float]:
    """Figures of a pipeline folder; writes `held_out.json`, a picture per kind and the judge into `output`, and the
    table into the pipeline's card.

    dataset: with persons that `training`, the data set of the prior, has not; those it has are left out.
    """
    settings, output = settings or HeldOutSettings(), Path(output)
    known = open_dataset(training)
    others = unseen(open_dataset(dataset), known)
    guidance = load_guidance(GuidanceFiles(Path(pipeline), controlnet=Path(pipeline) / CONTROLNET_FOLDER))
    judge, seen = train_judge(known, output / _JUDGE, judge_loop or JUDGE_LOOP, report_of(stages, _JUDGE))
    drawn = draw_held_out(guidance, others, settings, stages)
    figures = held_out_figures(guidance, drawn, known, judge)
    figures |= {f"judge_{name}": value for name, value in seen.items()}
    for kind, pictures in drawn.items():
        write_png(drawn_sheet(pictures), output / f"{kind}.png")
    write_json(output / FIGURES_FILE, {"settings": dataclasses.asdict(settings), "figures": figures})
    add_held_out(Path(pipeline) / CARD_FILE, figures, settings.count, settings.quality.sampling)
    return figures
