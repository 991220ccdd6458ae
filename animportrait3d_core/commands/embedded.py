"""The commands `animportrait3d embedded ...`: files of the embedded world."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ..errors import InvalidInput
from .common import EXIT_DONE, set_threads, to_path


def add_embedded(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add `embedded` and its actions. common: options of every command."""
    embedded = commands.add_parser("embedded", parents=[common], help="files of the embedded world")
    actions = embedded.add_subparsers(title="actions", required=True, metavar="ACTION")
    export = actions.add_parser("export", parents=[common], help="write the embedded identities as GLB files")
    export.add_argument("--output", type=to_path, default=Path("input"), help="folder for the files (default: input)")
    export.set_defaults(command=_export)
    build = actions.add_parser(
        "build-dataset", parents=[common], help="render a data set of embedded identities, or what is missing of it"
    )
    build.add_argument("--preset", required=True, help="prior or prior-wide (with condition maps), or networks")
    build.add_argument("--output", type=to_path, required=True, help="folder of the data set")
    build.add_argument("--identities", type=int, default=2000, help="how many people (default: 2000)")
    build.add_argument("--images-per-identity", type=int, help="default: the preset's")
    build.add_argument("--size", type=int, help="side of the pictures in pixels (default: the preset's)")
    build.add_argument("--regions", nargs="+", default=[], help="what the pictures show (default: the preset's)")
    build.add_argument("--seed", type=int, default=0, help="another seed gives another data set (default: 0)")
    build.add_argument("--workers", type=int, help="processes (default: one per core)")
    build.set_defaults(command=_build_dataset)
    sheet = actions.add_parser("dataset-sheet", parents=[common], help="a picture of samples with all their maps")
    sheet.add_argument("dataset", type=to_path, help="folder of a data set")
    sheet.add_argument("--output", type=to_path, default=Path("dataset.png"), help="PNG or JPEG (default: dataset.png)")
    sheet.add_argument("--count", type=int, default=24, help="how many samples (default: 24)")
    sheet.add_argument("--start", type=int, default=0, help="the first of them (default: 0)")
    sheet.set_defaults(command=_dataset_sheet)
    fit = actions.add_parser("fit-portrait", parents=[common], help="fit a trigrid portrait to an identity")
    fit.add_argument("name", nargs="?", help="a shipped portrait; or describe a person with --prompt")
    fit.add_argument("--prompt", help="attributes, e.g. 'an old man, short white hair, green sweater'")
    fit.add_argument("--seed", type=int, default=0, help="decides what the prompt leaves open (default: 0)")
    fit.add_argument("--preset", default="standard", help="draft, standard or fine (default: standard)")
    fit.add_argument("--output", type=to_path, required=True, help="file to write (.safetensors), its report beside it")
    fit.set_defaults(command=_fit_portrait)
    prior = actions.add_parser("train-prior", parents=[common], help="train the embedded diffusion prior, or go on")
    prior.add_argument("--dataset", type=to_path, required=True, help="folder of a data set of the preset prior")
    prior.add_argument("--output", type=to_path, required=True, help="folder for states, logs and the pipeline")
    prior.add_argument("--stages", nargs="+", help="codec, part1, part2: some of them (default: all)")
    prior.add_argument("--minutes", type=float, help="stop after so many minutes; the same command goes on later")
    prior.add_argument("--steps", type=int, help="length of each stage (default: the stage's own)")
    prior.add_argument("--batch-size", type=int, help="pictures per step (default: the stage's own)")
    prior.add_argument("--start-from", type=to_path, help="pipeline folder whose weights and codec come first")
    prior.add_argument("--seed", type=int, default=0, help="of weights, order and all draws (default: 0)")
    prior.add_argument("--processes", type=int, default=1, help="share each step, with one thread each (default: 1)")
    prior.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... or auto (default: cpu)")
    prior.add_argument("--threads", type=int, help="CPU threads of a single process (default: torch's choice)")
    prior.set_defaults(command=_train_prior)
    _add_evaluate_prior(actions, common)
    style = actions.add_parser("train-style", parents=[common], help="train a LoRA of the prior that paints, or go on")
    style.add_argument("--dataset", type=to_path, required=True, help="the data set that the prior was trained on")
    style.add_argument("--pipeline", type=to_path, required=True, help="folder of the prior")
    style.add_argument("--output", type=to_path, required=True, help="folder for state, log and painted.safetensors")
    style.add_argument("--minutes", type=float, help="stop after so many minutes; the same command goes on later")
    style.add_argument("--steps", type=int, help="length of the whole training (default: the style's own)")
    style.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    style.set_defaults(command=_train_style)


def _add_evaluate_prior(actions: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    words = "measure a diffusion prior on persons that it has not seen, into its model card"
    evaluate = actions.add_parser("evaluate-prior", parents=[common], help=words)
    evaluate.add_argument("pipeline", type=to_path, help="pipeline folder")
    evaluate.add_argument("--dataset", type=to_path, required=True, help="a data set of another seed")
    evaluate.add_argument("--training", type=to_path, required=True, help="the data set that the prior was trained on")
    evaluate.add_argument("--output", type=to_path, required=True, help="folder for figures, pictures and the judge")
    evaluate.add_argument("--count", type=int, default=100, help="samples of each kind (default: 100)")
    evaluate.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    evaluate.set_defaults(command=_evaluate_prior)


def _export(options: argparse.Namespace) -> int:
    from ..embedded.identities import export_identities

    files = export_identities(options.output)
    if options.json:
        print(json.dumps({"files": [str(file) for file in files]}))
    elif not options.quiet:
        print("\n".join(str(file) for file in files))
    return EXIT_DONE


def _fit_portrait(options: argparse.Namespace) -> int:
    from ..embedded.identities import identity_from_prompt
    from ..embedded.portraits import PORTRAIT_PRESETS, fit_portrait, portrait_identity
    from ..workflow.console import ProgressBar

    if options.preset not in PORTRAIT_PRESETS:
        raise InvalidInput(f"fit-portrait: no preset '{options.preset}', expected {', '.join(PORTRAIT_PRESETS)}.")
    if (options.name is None) == (not options.prompt):
        raise InvalidInput("fit-portrait: give either the name of a shipped portrait or --prompt TEXT.")
    unknown: tuple[str, ...]
    if options.name is not None:
        identity, unknown = portrait_identity(options.name), ()
    else:
        identity, unknown = identity_from_prompt(options.prompt, options.seed)
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        report = fit_portrait(identity, options.output, PORTRAIT_PRESETS[options.preset], bar.stage)
    if options.json:
        print(json.dumps({"file": str(options.output), "unknown": unknown, **dataclasses.asdict(report)}))
    elif not options.quiet:
        ignored = f"not understood: {', '.join(unknown)}\n" if unknown else ""
        print(f"{report.prompt}\n{ignored}{report.summary()}\n{options.output}")
    return EXIT_DONE


def _build_dataset(options: argparse.Namespace) -> int:
    from ..embedded.dataset import build_dataset, dataset_settings

    settings = dataset_settings(
        options.preset, options.identities, options.images_per_identity, options.size, seed=options.seed,
        regions=tuple(options.regions),
    )  # fmt: skip
    quiet = options.quiet or options.json
    report = build_dataset(options.output, settings, options.workers, None if quiet else _show_rate)
    if options.json:
        print(json.dumps({"dataset": str(options.output), **report.to_json()}))
    elif not options.quiet:
        print(
            f"\n{report.samples} images in {report.seconds:.1f} s ({report.images_per_second:.1f} images/s, "
            f"{report.workers} processes); {report.kept_samples} were there. Data set in {options.output}"
        )
    return EXIT_DONE


def _show_rate(done: int, total: int, values: Mapping[str, float]) -> None:
    rate = values["images_per_second"]
    left = f"{(total - done) / rate / 60:.0f} min left" if rate else ""
    print(f"\r{done} of {total} images, {rate:.1f} images/s, {left}   ", end="", file=sys.stderr, flush=True)


def _dataset_sheet(options: argparse.Namespace) -> int:
    from ..embedded.dataset import dataset_sheet
    from ..training import open_dataset

    dataset_sheet(open_dataset(options.dataset), options.output, options.count, start=options.start)
    if not options.quiet:
        print(json.dumps({"sheet": str(options.output)}) if options.json else options.output)
    return EXIT_DONE


def _train_prior(options: argparse.Namespace) -> int:
    from ..embedded.prior.train import PriorRun, train_prior
    from ..workflow.console import ProgressBar

    if options.processes > 1 and options.threads not in (None, 1):
        raise InvalidInput(
            f"train-prior: {options.processes} processes have one thread each; leave out --threads {options.threads}."
        )
    set_threads("train-prior", options.threads)
    names = ("steps", "batch_size", "minutes", "start_from", "seed", "processes", "device")
    chosen = {name: getattr(options, name) for name in names}
    if options.stages is not None:
        chosen["stages"] = tuple(options.stages)
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        result = train_prior(options.dataset, options.output, PriorRun(**chosen), bar.stage)
    if options.json:
        print(json.dumps({"output": str(options.output), **result}))
    elif not options.quiet:
        state = "finished" if result.pop("finished") else "stopped; the same command goes on"
        print("\n".join([f"{state}; {options.output}", *(f"{k:24} {v:.4g}" for k, v in result.items())]))
    return EXIT_DONE


def _train_style(options: argparse.Namespace) -> int:
    from ..embedded.prior.style import STYLE_LOOP, train_style
    from ..workflow.console import ProgressBar

    set_threads("train-style", options.threads)
    loop = dataclasses.replace(STYLE_LOOP, steps=options.steps or STYLE_LOOP.steps)
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        result = train_style(
            options.dataset, options.pipeline, options.output, loop, minutes=options.minutes, stages=bar.stage
        )
    if options.json:
        print(json.dumps({"output": str(options.output), **result}))
    elif not options.quiet:
        print("\n".join([str(options.output), *(f"{name:24} {value:.4g}" for name, value in result.items())]))
    return EXIT_DONE


def _evaluate_prior(options: argparse.Namespace) -> int:
    from ..embedded.prior.evaluate import evaluate_prior
    from ..embedded.prior.held_out import HeldOutSettings
    from ..workflow.console import ProgressBar

    set_threads("evaluate-prior", options.threads)
    settings = HeldOutSettings(count=options.count)
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        figures = evaluate_prior(
            options.pipeline, options.dataset, options.training, options.output, settings, stages=bar.stage
        )
    if options.json:
        print(json.dumps({"output": str(options.output), **figures}))
    elif not options.quiet:
        print("\n".join(f"{name:28} {value:.4g}" for name, value in figures.items()))
    return EXIT_DONE
