"""The command line: `animportrait3d` or `python -m animportrait3d_core`.

Exit codes: 0 done, 1 a bug of ours, 2 wrong input, 3 missing model or extension, 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import logging
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .commands.ablation import add_ablation_options, run_table
from .commands.common import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_MISSING,
    EXIT_WRONG_INPUT,
    set_threads,
    to_path,
)
from .commands.convert import add_convert
from .commands.embedded import add_embedded
from .commands.export import add_export
from .commands.networks import add_networks
from .embedded.styles import STYLES
from .errors import (
    FEWEST_ADDRESSES,
    AnimPortraitError,
    InvalidInput,
    MissingExtension,
    MissingModelFile,
    few_addresses,
    machine_trouble,
    narrow_words,
)
from .kernel_cache import kernel_trouble
from .workflow.report import LOGGER_NAME

if TYPE_CHECKING:
    from .avatar import RiggedAvatar
    from .body.landmarks import Detector
    from .embedded.identities import Identity
    from .portrait.protocol import Portrait
    from .workflow.console import ProgressBar


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run one command; returns the exit code and prints one message for an error."""
    # The common options stand before or after the command, so their defaults must be set by no parser.
    defaults = argparse.Namespace(quiet=False, json=False, debug=False, pack=None)
    options = _parser().parse_args(arguments, defaults)
    try:
        with _log_on_stderr(logging.ERROR if options.quiet or options.json else logging.INFO):
            limit = few_addresses()
            if limit is not None and limit < FEWEST_ADDRESSES:
                return _fail(options, EXIT_WRONG_INPUT, "MemoryError", f"{narrow_words(limit)}.")
            if limit is not None:
                logging.getLogger(LOGGER_NAME).warning("%s.", narrow_words(limit))
            return options.command(options)
    except KeyboardInterrupt:
        return _fail(options, EXIT_INTERRUPTED, "Interrupted", "stopped by the user; no file was left half written.")
    except (MissingModelFile, MissingExtension) as error:
        return _fail(options, EXIT_MISSING, type(error).__name__, str(error))
    except AnimPortraitError as error:
        return _fail(options, EXIT_WRONG_INPUT, type(error).__name__, str(error))
    except Exception as error:  # the last resort of a program: one message instead of a traceback
        trouble = machine_trouble(error) or kernel_trouble(error)
        if trouble is not None:
            code = EXIT_MISSING if isinstance(error, ModuleNotFoundError) else EXIT_WRONG_INPUT
            return _fail(options, code, type(error).__name__, trouble)
        limit = few_addresses()
        if limit is not None:  # libraries have many words for it
            said = f"{type(error).__name__}: {error}: {narrow_words(limit)}."
            return _fail(options, EXIT_WRONG_INPUT, type(error).__name__, said)
        hint = "This is a bug; run again with --debug and report what it prints."
        return _fail(options, EXIT_BUG, type(error).__name__, f"{type(error).__name__}: {error}. {hint}")


class _LogFormatter(logging.Formatter):
    """The message alone; warnings say that they are some."""

    def format(self, record: logging.LogRecord) -> str:
        word = "warning: " if record.levelno == logging.WARNING else ""
        return word + record.getMessage()


@contextlib.contextmanager
def _log_on_stderr(level: int) -> Iterator[None]:
    """Print what our loggers say from `level` on. Quieter handlers do not keep warnings from the report."""
    logger, handler = logging.getLogger(LOGGER_NAME), logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(_LogFormatter())
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _fail(options: argparse.Namespace, code: int, kind: str, message: str) -> int:
    """Print the message of the error being handled and return the exit code; with --debug raise it again."""
    if options.debug and code != EXIT_INTERRUPTED:
        raise
    listener = getattr(options, "listener", None)
    node = listener.current if listener is not None else ""
    if options.json:
        print(json.dumps({"error": {"type": kind, "node": node, "message": message, "exit_code": code}}))
        return code
    at_node = f" in {node}" if node and not message.startswith(node) else ""
    word = "interrupted" if code == EXIT_INTERRUPTED else "error"
    print(f"animportrait3d: {word}{at_node}: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="print errors only")
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document on standard output"
    )
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    common.add_argument("--pack", type=to_path, default=argparse.SUPPRESS, help="folder of the node pack to use")

    parser = argparse.ArgumentParser(prog="animportrait3d", description="Animatable 3D portraits.", parents=[common])
    parser.add_argument("--version", action="version", version=f"animportrait3d {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands, common)
    _add_doctor(commands, common)
    _add_bench(commands, common)
    _add_evaluate(commands, common)
    add_convert(commands, common)
    add_export(commands, common)
    add_embedded(commands, common)
    add_networks(commands, common)
    _add_train_controlnet(commands, common)
    return parser


def _add_run(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    run = commands.add_parser("run", parents=[common], help="run a workflow without ComfyUI")
    run.add_argument("workflow", type=to_path, help="a workflow saved by ComfyUI (UI or API format)")
    run.add_argument("--output", type=to_path, default=Path("output"), help="folder for results (default: output)")
    run.add_argument("--input", type=to_path, help="folder in which the graph's input files lie (default: input)")
    run.add_argument("--models", type=to_path, help="folder of the model folders (default: ComfyUI's, else models)")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="change a value; NODE is an id, a title, or a node type that occurs once; for a file any path will do, "
        "none disconnects an optional input; may be repeated",
    )
    run.add_argument("--seed", type=int, help="set every seed of the graph")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    run.add_argument("--previews", action="store_true", help="keep the pictures that nodes show, in OUTPUT/previews")
    run.set_defaults(command=_run)


def _add_doctor(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    doctor = commands.add_parser("doctor", parents=[common], help="show what this installation has and lacks")
    doctor.add_argument("--models", type=to_path, help="folder of the model folders (default: ComfyUI's, else models)")
    doctor.add_argument("--output", type=to_path, default=Path("output"), help="output folder to try (default: output)")
    doctor.set_defaults(command=_doctor)


def _add_bench(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    bench = commands.add_parser("bench", parents=[common], help="list the benchmarks, or run one of them")
    bench.add_argument("name", nargs="?", help="which benchmark; without it they are listed")
    bench.add_argument("arguments", nargs=argparse.REMAINDER, help="options of that benchmark")
    bench.set_defaults(command=_bench)


def _add_evaluate(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    evaluate = commands.add_parser("evaluate", parents=[common], help="measure an avatar")
    evaluate.add_argument("avatar", type=to_path, nargs="?", help="an avatar.safetensors")
    evaluate.add_argument(
        "--portrait", help="the portrait it was made of: a shipped one's name, or a trigrid or mesh file"
    )
    evaluate.add_argument("--generator", type=to_path, help="model_512.pkl or its copy, for a portrait without decoder")
    evaluate.add_argument("--identity", help="name of the embedded identity behind it, for measures against the truth")
    evaluate.add_argument("--style", choices=STYLES, help="with --identity: how far its face took on a style")
    evaluate.add_argument("--size", type=int, default=256, help="pixels per side of the pictures (default: 256)")
    evaluate.add_argument("--output", type=to_path, help="file for the metrics (JSON)")
    add_ablation_options(evaluate)
    evaluate.set_defaults(command=_evaluate)


def _add_train_controlnet(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    train = commands.add_parser(
        "train-controlnet", parents=[common], help="train the method's ControlNet for a diffusion model of your own",
        description="Several processes: accelerate launch -m animportrait3d_core train-controlnet ...",
    )  # fmt: skip
    train.add_argument("--base", type=to_path, required=True, help="diffusers folder or single file, of SD1.5's family")
    train.add_argument("--dataset", type=to_path, required=True, help="folder of shards with condition maps")
    train.add_argument("--output", type=to_path, required=True, help="folder for state, log, images and the ControlNet")
    train.add_argument("--vae", type=to_path, help="folder or file, in place of the base's")
    train.add_argument("--tokenizer", type=to_path, help="CLIP tokenizer folder, for a base in a single file")
    train.add_argument("--start-from", type=to_path, help="ControlNet whose weights are the first ones")
    train.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    train.add_argument("--minutes", type=float, help="stop after so many minutes; --resume goes on later")
    train.add_argument("--steps", type=int, help="length of the whole training (default: a round of the paper's data)")
    train.add_argument("--batch-size", type=int, help="pictures per step, of all processes together (default: 4)")
    train.add_argument("--accumulate", type=int, default=1, help="parts in which a batch is gone through (default: 1)")
    train.add_argument("--lr", type=float, help="learning rate (default: 1e-4)")
    train.add_argument("--ema-decay", type=float, help="of the averaged weights; 0 for none (default: 0.9999)")
    train.add_argument("--size", type=int, help="pixels of the pictures (default: the base's)")
    train.add_argument("--precision", help="no, fp16 or bf16 (default: accelerate's launcher's, else no)")
    train.add_argument("--gradient-checkpointing", action="store_true", help="less memory for a third more time")
    train.add_argument("--condition-dropout", type=float, default=0.1, help="share without condition (default: 0.1)")
    train.add_argument("--prompt-dropout", type=float, default=0.1, help="share without words (default: 0.1)")
    train.add_argument("--validate-every", type=int, default=1000, help="steps; 0 for the end alone (default: 1000)")
    train.add_argument("--guidance-scale", type=float, default=7.5, help="of the pictures drawn then (default: 7.5)")
    train.add_argument("--verify", action="store_true", help="compare every shard with its SHA-256 first")
    train.add_argument("--seed", type=int, default=0, help="of first weights, order and all draws (default: 0)")
    train.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    train.set_defaults(command=_train_controlnet)


def _run(options: argparse.Namespace) -> int:
    from .workflow.console import ConsoleListener
    from .workflow.registry import load_registry
    from .workflow.runner import RunSettings, run

    options.listener = ConsoleListener(quiet=options.quiet or options.json)
    settings = RunSettings(
        output_directory=options.output,
        input_directory=options.input,
        models_directory=options.models,
        overrides=tuple(options.set),
        seed=options.seed,
        device=options.device,
        keep_previews=options.previews,
    )
    try:
        result = run(options.workflow, load_registry(options.pack), settings, options.listener)
    finally:
        options.listener.close()
    if options.json:
        print(json.dumps(result.report.to_json()))
    elif not options.quiet:
        warnings = sum(len(node.warnings) for node in result.report.nodes)
        told = f"; {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
        seconds = result.report.total_seconds
        print(f"{len(result.report.nodes)} nodes in {seconds:.1f} s; results in {options.output}{told}")
    return EXIT_DONE


def _doctor(options: argparse.Namespace) -> int:
    from . import doctor
    from .embedded.contents import embedded_findings
    from .workflow.context import default_models_directory

    models = options.models or default_models_directory()
    facts = doctor.headless_facts(models, options.output.absolute(), embedded_findings())
    findings = doctor.examine(facts)
    if options.json:
        print(json.dumps(doctor.to_json(findings)))
    else:
        print(doctor.to_table(findings))
    return EXIT_MISSING if doctor.has_problem(findings) else EXIT_DONE


def _bench(options: argparse.Namespace) -> int:
    from .workflow.registry import default_pack_folder

    folder = (options.pack or default_pack_folder()) / "benchmarks"
    scripts = {script.stem: script for script in sorted(folder.glob("*.py")) if not script.stem.startswith("_")}
    if not scripts:
        raise InvalidInput(f"bench: no benchmarks in '{folder}'; they are part of a clone, not of an installed wheel.")
    if options.name is None:
        for name, script in scripts.items():
            summary = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            print(f"{name:24} {summary}")
        return EXIT_DONE
    if options.name not in scripts:
        raise InvalidInput(f"bench: no benchmark '{options.name}'; there are {', '.join(scripts)}.")
    sys.argv = [str(scripts[options.name]), *options.arguments]
    sys.path.insert(0, str(folder))  # as Python does for a script: its neighbours can be imported
    runpy.run_path(str(scripts[options.name]), run_name="__main__")
    return EXIT_DONE


def _evaluate(options: argparse.Namespace) -> int:
    from .avatar.io import load_avatar
    from .evaluation.avatar import doubts
    from .evaluation.complete import evaluate_avatar
    from .files import write_json
    from .workflow.console import ProgressBar

    if options.ablation is not None:
        with ProgressBar(quiet=options.quiet or options.json) as bar:
            return run_table(options, _landmark_detector(), bar.stage)
    if options.avatar is None:
        raise InvalidInput("evaluate: nothing to measure; give an avatar.safetensors, or --ablation FOLDER.")
    if options.style is not None and options.identity is None:
        raise InvalidInput(f"evaluate: --style {options.style} needs --identity, whose true look it compares with.")
    if options.size < 64:
        raise InvalidInput(f"evaluate: --size {options.size}, expected at least 64 pixels.")
    avatar = load_avatar(options.avatar)
    portrait = None if options.portrait is None else _portrait(options.portrait, options.generator, avatar)
    identity, detector = None, None
    if options.identity is not None:
        from .embedded.portraits import portrait_identity

        identity, detector = portrait_identity(options.identity), _landmark_detector()
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        metrics = evaluate_avatar(avatar, portrait, identity, options.size, detector, bar.stage)
        if identity is not None and options.style is not None:
            metrics |= _style_metrics(avatar, identity, bar)
    for doubt in doubts(metrics):
        logging.getLogger(LOGGER_NAME).warning("evaluate: %s", doubt)
    if options.output is not None:
        write_json(options.output, metrics)
    if options.json:
        print(json.dumps(metrics))
    elif not options.quiet:
        print("\n".join(f"{name:22} {value:.5g}" for name, value in metrics.items()))
    return EXIT_DONE


def _style_metrics(avatar: RiggedAvatar, identity: Identity, bar: ProgressBar) -> dict[str, float]:
    """How far a face took on the one style there is."""
    from .embedded.prior.style import painted
    from .evaluation.style import measure_style

    return measure_style(avatar, identity, painted, progress=bar.stage("style"))


def _portrait(name: str, generator: Path | None, avatar: RiggedAvatar) -> Portrait:
    """The portrait of a shipped name, a trigrid file, or a mesh file in the place that the avatar remembers."""
    from .embedded.portraits import SHIPPED_PORTRAITS, shipped_portrait_file
    from .mesh_files import load_mesh
    from .portrait.alignment import HeadAlignment
    from .portrait.mesh import MeshRenderSettings, portrait_from_mesh
    from .portrait.trigrid import load_trigrid_portrait, read_generator

    if name in SHIPPED_PORTRAITS:
        return load_trigrid_portrait(shipped_portrait_file(name))
    if Path(name).suffix.lower() in (".pth", ".pt", ".safetensors"):
        return load_trigrid_portrait(Path(name), None if generator is None else read_generator(generator))
    stored = avatar.metadata.get("portrait_alignment")
    alignment = HeadAlignment.from_json(stored) if stored else None
    return portrait_from_mesh(load_mesh(name), alignment, rendering=MeshRenderSettings(shading="unlit"))


def _landmark_detector() -> Detector | None:
    """The shipped detector of facial landmarks; without its weights, told once, `landmark_error` is left out."""
    from functools import partial

    from .embedded.weights import embedded_network_folder
    from .networks import detect_landmarks, load_network

    try:
        network = load_network(embedded_network_folder("landmarks"), "landmarks")
    except MissingModelFile as missing:
        logging.getLogger(LOGGER_NAME).warning("evaluate: no landmark_error. %s", missing)
        return None
    return partial(detect_landmarks, network)


def _train_controlnet(options: argparse.Namespace) -> int:
    from .training.controlnet import controlnet_run, train_controlnet
    from .workflow.console import ProgressBar

    set_threads("train-controlnet", options.threads)
    run = controlnet_run(vars(options))
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        result = train_controlnet(
            options.base, options.dataset, options.output, run, lambda step, steps, _: bar.show(step, steps, "training")
        )
    if options.json and result.is_first:
        done = {"step": result.step, "finished": result.finished, "seconds": result.seconds, "metrics": result.metrics}
        print(json.dumps({"output": str(options.output), **done}))
    elif not options.quiet and result.is_first:
        state = "finished" if result.finished else "stopped; --resume goes on"
        worth = f"{result.metrics['psnr']:.2f} dB on pictures held out"
        print(f"step {result.step} ({state}), {result.seconds / 60:.1f} min. {worth}\n{options.output}")
    return EXIT_DONE
