"""The commands that train and measure 2D networks."""

from __future__ import annotations

import argparse
import json

from .common import EXIT_DONE, set_threads, to_path


def add_networks(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add `train-network` and `evaluate-network`. common: options of every command."""
    train = commands.add_parser("train-network", parents=[common], help="train a 2D network on a data set")
    train.add_argument("role", help="parts, normals or landmarks")
    train.add_argument("--dataset", type=to_path, required=True, help="folder of 'embedded build-dataset'")
    train.add_argument("--output", type=to_path, required=True, help="folder for state, log and the network")
    train.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    train.add_argument("--minutes", type=float, help="stop after so many minutes; --resume goes on later")
    train.add_argument("--steps", type=int, help="length of the whole training (default: the role's recipe)")
    train.add_argument("--batch-size", type=int, help="pictures per step (default: the role's recipe)")
    train.add_argument("--lr", type=float, help="greatest learning rate (default: the role's recipe)")
    train.add_argument("--size", type=int, help="pixels of the network's pictures (default: the role's recipe)")
    train.add_argument("--start-from", type=to_path, help="network folder whose weights are the first ones")
    train.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default: 0)")
    train.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    train.set_defaults(command=_train_network)
    evaluate = commands.add_parser(
        "evaluate-network", parents=[common], help="figures of a 2D network on persons held out, by trait"
    )
    evaluate.add_argument("role", help="parts, normals or landmarks")
    evaluate.add_argument("--network", type=to_path, help="network folder (default: the pack's own)")
    evaluate.add_argument("--dataset", type=to_path, required=True, help="folder of 'embedded build-dataset'")
    evaluate.add_argument("--limit", type=int, default=100, help="samples per trait (default: 100)")
    evaluate.add_argument("--everybody", action="store_true", help="not only the persons that training holds out")
    evaluate.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    evaluate.set_defaults(command=_evaluate_network)


def _train_network(options: argparse.Namespace) -> int:
    from ..training.train_network import TrainingRun, train_network
    from ..workflow.console import ProgressBar

    set_threads("train-network", options.threads)
    names = ("steps", "batch_size", "lr", "size", "start_from", "resume", "minutes", "seed")
    run = TrainingRun(**{name: getattr(options, name) for name in names})
    role = options.role
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        result = train_network(
            role, options.dataset, options.output, run, lambda step, steps, _: bar.show(step, steps, role)
        )
    if options.json:
        done = {"step": result.step, "finished": result.finished, "seconds": result.seconds, "metrics": result.metrics}
        print(json.dumps({"output": str(options.output), **done}))
    elif not options.quiet:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
        state = "finished" if result.finished else "stopped; --resume goes on"
        print(f"step {result.step} ({state}), {result.seconds / 60:.1f} min. {figures}\n{options.output}")
    return EXIT_DONE


def _evaluate_network(options: argparse.Namespace) -> int:
    from ..embedded.weights import embedded_network_folder
    from ..networks import load_network
    from ..training import open_dataset
    from ..training.trait_table import evaluate_network

    set_threads("evaluate-network", options.threads)
    network = load_network(options.network or embedded_network_folder(options.role), options.role)
    table = evaluate_network(network, open_dataset(options.dataset), options.limit, options.everybody)
    print(json.dumps(table.to_json()) if options.json else f"{table.metric}\n\n{table.markdown()}")
    return EXIT_DONE
