"""The record of a run: seconds and memory per node, versions, metrics; written as `report.json`."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_json

LOGGER_NAME = "animportrait3d"
"""The logger of the pack and of all parts of core, or the parent of theirs."""

VERSIONED_PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "trimesh",
    "smplx",
    "safetensors",
    "av",
    "gsplat",
    "diffusers",
)


@dataclass(frozen=True)
class NodeRecord:
    """One executed node.

    seconds: wall time.  peak_rss_mb: the process's peak while it ran (MiB).  seconds_to_stop: the longest time in which
    it did not look whether the user asked to stop, what other programs took not counted.  messages: the lines of its
    text.  warnings: what the user should know although the run went on.
    """

    id: str
    type: str
    seconds: float
    peak_rss_mb: float
    seconds_to_stop: float = 0.0
    messages: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class RunReport:
    """Filled while a graph runs; `metrics` maps a stage to named numbers."""

    nodes: list[NodeRecord] = field(default_factory=list)
    total_seconds: float = 0.0
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def add_metrics(self, stage: str, metrics: Mapping[str, float]) -> None:
        """Merge numbers into a stage; a later value of the same name replaces the earlier one."""
        self.metrics.setdefault(stage, {}).update({name: float(value) for name, value in metrics.items()})

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`."""
        content = asdict(self)
        for node in content["nodes"]:
            node.update(messages=list(node["messages"]), warnings=list(node["warnings"]))
        return content

    def write(self, path: Path) -> None:
        """Write `report.json` in one piece."""
        write_json(path, self.to_json())


def installed_versions() -> dict[str, str]:
    """Versions of Python, this pack and the packages that shape results; torch with its build (+cpu, +cu130)."""
    import torch

    from .. import __version__

    versions = {"animportrait3d": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions | {"torch": torch.__version__}


class NodeMeter:
    """Measures wall time and peak resident memory of one node; use as a context manager.

    Linux keeps a high-water mark that can be reset before each node. Elsewhere the peak is the one since the process
    began, so later nodes show at least the largest so far.
    """

    def __enter__(self) -> NodeMeter:
        self.seconds = 0.0
        self.peak_rss_mb = 0.0
        _reset_peak_memory()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.peak_rss_mb = peak_memory_mb()

    def record(self, node_id: str, class_type: str) -> NodeRecord:
        """What was measured, for the report."""
        return NodeRecord(node_id, class_type, round(self.seconds, 3), round(self.peak_rss_mb, 1))


class WarningCollector(logging.Handler):
    """Keeps the warnings that our loggers write within a `with` block; they still go wherever else they go."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())

    def __enter__(self) -> WarningCollector:
        logging.getLogger(LOGGER_NAME).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger(LOGGER_NAME).removeHandler(self)


def messages_of(ui: Mapping[str, Any], warnings: Sequence[str]) -> tuple[str, ...]:
    """The lines of a node's text, without those that are among its warnings.

    >>> messages_of({"text": ["3 faces\\nwarning: it is grey"]}, ["Mesh: it is grey"])
    ('3 faces',)
    """
    lines = [line for text in ui.get("text", ()) for line in str(text).splitlines()]
    return tuple(line for line in lines if not any(said.endswith(line.removeprefix("warning: ")) for said in warnings))


def _reset_peak_memory() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or a sandbox without it: the mark then covers the whole process


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MiB: since the last reset on Linux, since the start elsewhere."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
