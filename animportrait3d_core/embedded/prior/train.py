"""Training of the embedded prior from a data set to a pipeline folder, in stages that may be stopped at any time.

The output folder holds `codec/`, `part1/`, `part2/`, ... with state and log of each stage (`training.loop`), beside the
state what it gave, and `pipeline/`: the folder for `embedded/weights/prior`, written anew after every sitting.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from ...diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from ...errors import InvalidInput
from ...files import atomic_write, write_json
from ...previews import stack_rows, write_png
from ...progress import Report, Stages, stage_of
from ...regions import IMAGE_REGIONS
from ...runs import LOG_FILE, STATE_FILE
from ...training.curves import curves_picture, read_curves
from ...training.loop import LoopResult, LoopSettings, train
from ...training.shards import ShardDataset, open_dataset
from .card import model_card
from .codec_training import HELD_OUT_SHARE, CodecSettings, CodecTask
from .networks import PriorNetworks
from .pipeline import CONTROLNET_FOLDER, load_weights, save_codec, save_pipeline
from .prior_training import PriorSettings, PriorTask
from .quality import prior_quality, sample_sheet
from .vocabulary import build_tokenizer

PIPELINE_FOLDER, METRICS_FILE, SHEET_FILE, CARD_FILE = "pipeline", "metrics.json", "samples.png", "README.md"
CURVES_FILE = "losses.png"
_CODEC = "codec"

STAGES: dict[str, LoopSettings] = {
    _CODEC: LoopSettings(
        steps=4000, batch_size=32, lr=2e-3, warmup_steps=200, weight_decay=0.0, ema_decay=0.999,
        precision="mixed", eval_interval=1000,
    ),
    # A long way at a high rate, then two that cool down: each begins with fresh moments at the last one's weights.
    "part1": LoopSettings(
        steps=12000, batch_size=32, lr=1e-3, warmup_steps=200, final_share=0.5, weight_decay=1e-3,
        ema_decay=0.999, precision="mixed", eval_interval=4000,
    ),
    "part2": LoopSettings(
        steps=12000, batch_size=32, lr=5e-4, warmup_steps=200, final_share=0.02, weight_decay=1e-3,
        ema_decay=0.9995, precision="mixed", eval_interval=4000,
    ),
    "part3": LoopSettings(
        steps=8000, batch_size=32, lr=5e-4, warmup_steps=200, final_share=0.01, weight_decay=1e-3,
        ema_decay=0.9995, precision="mixed", eval_interval=4000,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PriorRun:
    """What the caller may choose.

    stages: names of STAGES, in their order.  steps, batch_size: of every stage, in place of its own; a resumed run must
    keep them.  minutes: of this sitting at most.  start_from: a pipeline folder whose networks are the first weights of
    the first prior stage, and whose codec is used (the codec stage is then left out).  seed: of weights, order and all
    draws.  processes, device: of `train`; each sitting may have others.  codec, prior: what the two kinds of stages
    learn from, and how they are measured.
    """

    stages: tuple[str, ...] = tuple(STAGES)
    steps: int | None = None
    batch_size: int | None = None
    minutes: float | None = None
    start_from: Path | None = None
    seed: int = 0
    processes: int = 1
    device: str = "cpu"
    codec: CodecSettings = CodecSettings()
    prior: PriorSettings = PriorSettings()

    def __post_init__(self) -> None:
        unknown = [name for name in self.stages if name not in STAGES]
        if unknown or not self.stages or list(self.stages) != [name for name in STAGES if name in self.stages]:
            raise InvalidInput(
                f"train-prior: stages {list(self.stages)}, expected some of {', '.join(STAGES)} in order."
            )

    def loop_settings(self, stage: str) -> LoopSettings:
        """The stage's schedule with these choices."""
        known = STAGES[stage]
        return dataclasses.replace(
            known, steps=self.steps or known.steps, batch_size=self.batch_size or known.batch_size, seed=self.seed
        )


def train_prior(
    dataset: str | Path, output: str | Path, run: PriorRun | None = None, stages: Stages | None = None
) -> dict[str, Any]:
    """Train the stages one after the other, going on where the output folder's states stand; metrics of the pipeline.

    Stops at the end of the minutes, then too with a pipeline of what has been learned (once a prior stage has begun).
    Raises what `open_dataset` and `train` raise.
    """
    run, output = run or PriorRun(), Path(output)
    samples = open_dataset(dataset)
    if not samples.has("condition"):
        raise InvalidInput(
            f"train-prior: the data set '{dataset}' has no condition maps; build it with --preset prior."
        )
    deadline = None if run.minutes is None else time.monotonic() + 60 * run.minutes
    codec = output / _CODEC / "vae" if run.start_from is None else Path(run.start_from) / "vae"
    names = [name for name in run.stages if name != _CODEC or run.start_from is None]
    previous, finished = run.start_from, True
    with torch.inference_mode(False):
        for stage in names:
            if not _is_finished(output / stage, run.loop_settings(stage)):
                left = None if deadline is None else max(0.0, (deadline - time.monotonic()) / 60)
                if stage == _CODEC:
                    finished = _train_codec(samples, output / stage, run, left, stages).finished
                else:
                    finished = _train_part(stage, samples, codec, output, run, previous, left, stages).finished
            if stage != _CODEC:
                previous = output / stage / PIPELINE_FOLDER
            if not finished:
                break
        metrics = _describe(samples, output, run, names)
    return {"finished": finished, **metrics}


def _is_finished(folder: Path, settings: LoopSettings) -> bool:
    """Whether a stage was trained to the end of this schedule."""
    file = folder / METRICS_FILE
    if not file.is_file():
        return False
    known = json.loads(file.read_text(encoding="utf-8"))
    return bool(known["finished"]) and known["step"] == settings.steps


def report_of(stages: Stages | None, stage: str) -> Report | None:
    """The report of a stage's training, for who watches the stages."""
    progress = stage_of(stages, stage)
    return None if progress is None else lambda step, total, _: progress(step, total, None)


def _train_codec(
    samples: ShardDataset, folder: Path, run: PriorRun, minutes: float | None, stages: Stages | None
) -> LoopResult:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        task = CodecTask(samples, run.codec)
    report = report_of(stages, _CODEC)
    result = train(task, run.loop_settings(_CODEC), folder, True, minutes, report, run.processes, run.device)
    task.model.load_state_dict(result.weights)
    save_codec(task.model, folder / "vae")
    _write_metrics(folder, result)
    return result


def _train_part(
    stage: str, samples: ShardDataset, codec: Path, output: Path, run: PriorRun, previous: Path | None,
    minutes: float | None, stages: Stages | None,
) -> LoopResult:  # fmt: skip
    folder, tokenizer = output / stage, build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        networks = PriorNetworks(len(tokenizer))
    if previous is not None and not (folder / STATE_FILE).is_file():
        load_weights(networks, previous)
    task = PriorTask(networks, samples, codec, run.prior)
    report = report_of(stages, stage)
    result = train(task, run.loop_settings(stage), folder, True, minutes, report, run.processes, run.device)
    networks.load_state_dict(result.weights)
    save_pipeline(networks, codec, tokenizer, folder / PIPELINE_FOLDER, _shown(samples))
    _write_metrics(folder, result)
    return result


def _write_metrics(folder: Path, result: LoopResult) -> None:
    figures = {"step": result.step, "finished": result.finished, "seconds": round(result.seconds, 1)}
    write_json(folder / METRICS_FILE, {**figures, "metrics": result.metrics})


def _shown(samples: ShardDataset) -> list[str]:
    """Regions of the pictures of a data set."""
    found = samples.column("region").unique().tolist()
    return [name for number, name in enumerate(IMAGE_REGIONS) if number in found]


def _describe(samples: ShardDataset, output: Path, run: PriorRun, names: list[str]) -> dict[str, float]:
    """Copy the last part's pipeline to its place, measure it as users load it, and write sheet and card beside it.

    Before the first part has begun there is nothing to describe.
    """
    parts = [name for name in names if (output / name / PIPELINE_FOLDER).is_dir()]
    if not parts:
        return {}
    last, folder = parts[-1], output / PIPELINE_FOLDER
    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        networks = PriorNetworks(len(tokenizer))
    load_weights(networks, output / last / PIPELINE_FOLDER)
    save_pipeline(networks, output / last / PIPELINE_FOLDER / "vae", tokenizer, folder, _shown(samples))
    guidance = load_guidance(GuidanceFiles(folder, controlnet=folder / CONTROLNET_FOLDER))
    _, held_out = samples.split(HELD_OUT_SHARE)
    metrics = prior_quality(guidance, held_out, run.prior.quality)
    sample_sheet(guidance, held_out, output / SHEET_FILE, run.prior.quality)
    write_json(output / METRICS_FILE, metrics)
    drawn = {file.parent.name: read_curves(file.parent) for file in sorted(output.glob(f"*/{LOG_FILE}"))}
    pictures = [curves_picture(curves, name) for name, curves in drawn.items() if curves]
    if pictures:
        write_png(stack_rows(pictures), output / CURVES_FILE)
    with atomic_write(folder / CARD_FILE) as temporary:
        temporary.write_text(model_card(samples, output, metrics, run.prior.quality.sampling), encoding="utf-8")
    return metrics
