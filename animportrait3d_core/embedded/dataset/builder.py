"""Building a data set with several processes, to be stopped and taken up again at any time.

One shard, a fixed range of people, is one task. A process renders it, writes it in one piece and hands back its entry;
this process alone writes the manifest. So a build that ends at any point loses at most the shards in work, and which
process makes which shard, and when, changes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from ...progress import Report
from ...training.shards import (
    MANIFEST_NAME,
    SHARD_STEM,
    Manifest,
    ShardEntry,
    finished_shards,
    read_manifest,
    write_manifest,
)
from .presets import preset_named


@dataclasses.dataclass(frozen=True)
class DatasetSettings:
    """What a data set holds; equal settings give equal bytes.

    preset: of PRESETS.  size: side of the pictures in pixels.  identities: how many people.  images_per_identity.
    seed: draws people, states, cameras and light.  identities_per_shard: how many people one file holds.  regions: what
    the pictures show, one after the other; those of the preset if empty.
    """

    preset: str
    size: int
    identities: int
    images_per_identity: int
    seed: int = 0
    identities_per_shard: int = 16
    regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = preset_named(self.preset).framings
        unknown = [name for name in self.regions if name not in known]
        if unknown:
            raise InvalidInput(f"build_dataset: regions {unknown}, expected some of {', '.join(known)}.")
        limits = {"size": (16, 1024), "identities": (1, 900_000), "images_per_identity": (1, 1000),
                  "identities_per_shard": (1, 1000), "seed": (0, 2**31 - 1)}  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InvalidInput(f"build_dataset: {name} is {getattr(self, name)}, expected {low} to {high}.")

    @property
    def num_shards(self) -> int:
        """How many files the complete data set has."""
        return -(-self.identities // self.identities_per_shard)

    def shard_range(self, index: int) -> range:
        """Positions of the people of a shard."""
        first = index * self.identities_per_shard
        return range(first, min(first + self.identities_per_shard, self.identities))


def dataset_settings(
    preset: str, identities: int, images_per_identity: int | None = None, size: int | None = None, **others: Any
) -> DatasetSettings:
    """Settings of a preset; what is None is the preset's own."""
    default = preset_named(preset)
    size = default.size if size is None else size
    images = default.images_per_identity if images_per_identity is None else images_per_identity
    return DatasetSettings(preset, size, identities, images, **others)


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """What one call of `build_dataset` did. samples: rendered now.  kept_samples: found finished.  seconds: wall clock,
    start of the processes included.  cpu_seconds: of rendering and writing, summed over the processes."""

    samples: int
    kept_samples: int
    seconds: float
    cpu_seconds: float
    workers: int

    @property
    def images_per_second(self) -> float:
        """Rate of this call; 0 if there was nothing to do."""
        return self.samples / self.seconds if self.samples else 0.0

    def to_json(self) -> dict[str, Any]:
        """All figures for machines."""
        per_image = self.cpu_seconds / self.samples if self.samples else 0.0
        rate = {"images_per_second": self.images_per_second, "cpu_seconds_per_image": per_image}
        return {**dataclasses.asdict(self), **rate}


def build_dataset(
    output: str | Path, settings: DatasetSettings, workers: int | None = None, report: Report | None = None
) -> BuildReport:
    """Render a data set into a folder, or what is missing of it.

    workers: processes; None is one per core; 1 renders in this process.  report: called after each shard with (finished
    samples, all samples) and the `images_per_second` of this call.  A KeyboardInterrupt ends the processes after
    their current person and is raised again; finished shards stay. Raises `InvalidInput` if the folder holds a data
    set of other settings.
    """
    started = time.perf_counter()
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise InvalidInput(f"build_dataset: {workers} workers, expected at least 1.")
    output = Path(output)
    manifest = _begin(output, settings)
    finished = {entry.index for entry in manifest.shards}
    missing = [index for index in range(settings.num_shards) if index not in finished]
    kept, made, cpu = sum(entry.samples for entry in manifest.shards), 0, 0.0
    workers = max(1, min(workers, len(missing)))
    run = _in_this_process if workers == 1 else _in_processes
    for entry, seconds in run(output, settings, missing, workers):
        manifest = manifest.with_shard(entry)
        write_manifest(output, manifest)
        made, cpu = made + entry.samples, cpu + seconds
        if report is not None:
            rate = made / (time.perf_counter() - started)
            report(kept + made, manifest.num_samples, {"images_per_second": rate})
    return BuildReport(made, kept, time.perf_counter() - started, cpu, workers)


def _begin(output: Path, settings: DatasetSettings) -> Manifest:
    """The manifest to go on with."""
    from ...parts import FIGURE_PARTS
    from ..traits import TRAITS

    # As it comes back from the file.
    wanted = {**dataclasses.asdict(settings), "regions": list(settings.regions)}
    if (output / MANIFEST_NAME).exists():
        manifest = read_manifest(output)
        if dict(manifest.settings) != wanted:
            different = {
                name: (manifest.settings.get(name), value)
                for name, value in wanted.items()
                if manifest.settings.get(name) != value
            }
            raise InvalidInput(
                f"build_dataset: '{output}' holds a data set of other settings (found, asked for): {different}. Give "
                "the same settings to go on with it, or another folder."
            )
        manifest = finished_shards(output, manifest)
        for unfinished in output.glob(f".{SHARD_STEM}-*"):
            unfinished.unlink(missing_ok=True)
    else:
        count = settings.identities * settings.images_per_identity
        traits = TRAITS if preset_named(settings.preset).traits_share > 0 else ()
        manifest = Manifest(settings.size, FIGURE_PARTS, settings.num_shards, count, wanted, traits=traits)
    write_manifest(output, manifest)
    return manifest


def render_shard(
    output: Path, settings: DatasetSettings, index: int, stopped: Callable[[], bool] = lambda: False
) -> tuple[ShardEntry, float]:
    """Render and write one shard; its entry and the processor seconds it took.

    Raises KeyboardInterrupt between two people when `stopped()` is true.
    """
    from ...training.shards import write_shard
    from .samples import SampleSettings, identity_seeds, render_samples, stack_samples

    begun = time.process_time()
    preset = preset_named(settings.preset)
    if settings.regions:
        framings = {name: preset.framings[name] for name in settings.regions}
        preset = dataclasses.replace(preset, regions=settings.regions, framings=framings)
    details = SampleSettings(preset, settings.size, settings.images_per_identity, settings.seed)
    seeds = identity_seeds(settings.seed, settings.identities)
    tensors, texts = [], []
    for position in settings.shard_range(index):
        if stopped():
            raise KeyboardInterrupt
        more_tensors, more_texts = render_samples(details, position, int(seeds[position]))
        tensors += more_tensors
        texts += more_texts
    entry = write_shard(output, index, *stack_samples(tensors, texts))
    return entry, time.process_time() - begun


def _in_this_process(
    output: Path, settings: DatasetSettings, missing: Sequence[int], workers: int
) -> Iterator[tuple[ShardEntry, float]]:
    for index in missing:
        yield render_shard(output, settings, index)


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Processes that start here get BLAS libraries of one thread: threads of several processes wait for each other."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _in_processes(
    output: Path, settings: DatasetSettings, missing: Sequence[int], workers: int
) -> Iterator[tuple[ShardEntry, float]]:
    """Entries in the order in which the shards are finished."""
    # A fresh interpreter: forking a process in which torch or Numba have threads can hang.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    waiting: set[Future[tuple[ShardEntry, float]]] = set()
    with _single_threaded_children():
        pool = ProcessPoolExecutor(workers, context, _start_worker, (stop,))
        # The processes start with the first task.
        waiting |= {pool.submit(_render_in_worker, output, settings, index) for index in missing}
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise InvalidInput(
            "build_dataset: a process was ended from outside, most likely because memory ran out. Run the same command "
            "again with fewer --workers; finished shards are kept."
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_stop: Any = None


def _start_worker(stop: Any) -> None:
    """One thread per process, no Ctrl-C of its own, and an end when the parent ends."""
    import torch

    global _stop
    _stop = stop
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process at once when its parent is gone: nobody would hear of what it finishes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _render_in_worker(output: Path, settings: DatasetSettings, index: int) -> tuple[ShardEntry, float]:
    return render_shard(output, settings, index, _stop.is_set)
