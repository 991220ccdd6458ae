"""What a running graph tells its nodes: folders, device, progress, cancellation, and where metrics go.

The runner activates a context around a run. `nodes/host` asks `active_context()`; core never does, it gets callbacks.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .report import NodeRecord, RunReport


class Interrupted(KeyboardInterrupt):
    """The user stopped the run. Not an `Exception`, so that no error handling in between keeps a node going."""


class RunListener(Protocol):
    """Whoever watches a run: the console, a test."""

    def node_started(self, node_id: str, class_type: str, index: int, total: int) -> None:
        """Node `index` (from 1) of `total` begins."""

    def node_progress(self, node_id: str, step: int, total: int, preview: Any | None) -> None:
        """A node made progress; `preview` is an image [H,W,3] in 0..1, or None."""

    def node_finished(self, record: NodeRecord, cached: bool) -> None:
        """A node is done."""


@dataclass
class RunContext:
    """Everything of one run that is not part of the graph."""

    output_directory: Path
    input_directory: Path
    models_directory: Path
    temp_directory: Path
    device: str = "auto"
    report: RunReport = field(default_factory=RunReport)
    listener: RunListener | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    node_id: str = ""
    seconds_to_stop: float = 0.0
    """The longest time so far in which the current node did not look whether the user asked to stop; in seconds of the
    clock, or of the process if these are fewer, so that other programs do not count."""
    _last_look: tuple[float, float] = field(default_factory=lambda: _clocks(), repr=False)

    def begin_node(self, node_id: str) -> None:
        """From here on looks are those of this node."""
        self.node_id, self.seconds_to_stop, self._last_look = node_id, 0.0, _clocks()

    def check_interrupt(self) -> None:
        """Raise `Interrupted` once the user asked to stop."""
        before, self._last_look = self._last_look, _clocks()
        waited = min(now - then for now, then in zip(self._last_look, before, strict=True))
        self.seconds_to_stop = max(self.seconds_to_stop, waited)
        if self.cancelled.is_set():
            raise Interrupted()

    def progress(self, step: int, total: int, preview: Any | None = None) -> None:
        """Pass progress of the current node on; raises `Interrupted` like `check_interrupt`."""
        self.check_interrupt()
        if self.listener is not None:
            self.listener.node_progress(self.node_id, step, total, preview)

    def add_metrics(self, stage: str, metrics: Mapping[str, float]) -> None:
        """Record numbers for `report.json` under a stage (initial, pretrained, full, refined, fit, ...)."""
        self.report.add_metrics(stage, metrics)


def _clocks() -> tuple[float, float]:
    """Seconds of the clock, and those in which the process's threads had a processor."""
    return time.perf_counter(), time.process_time()


_ACTIVE: contextvars.ContextVar[RunContext | None] = contextvars.ContextVar("animportrait3d_run", default=None)


def active_context() -> RunContext | None:
    """The context of the run that called us, or None outside of the headless runner."""
    return _ACTIVE.get()


def plain_context() -> RunContext:
    """What holds where no run is active: folders of the working directory, no listener."""
    base = Path.cwd()
    return RunContext(
        output_directory=base / "output",
        input_directory=base / "input",
        models_directory=default_models_directory(),
        temp_directory=base / "temp",
    )


def default_models_directory() -> Path:
    """$ANIMPORTRAIT3D_MODELS, else the models folder of the ComfyUI around this clone, else ./models."""
    configured = os.environ.get("ANIMPORTRAIT3D_MODELS")
    if configured:
        return Path(configured)
    # <ComfyUI>/custom_nodes/<this pack>/animportrait3d_core/workflow/context.py
    parents = Path(__file__).parents
    if len(parents) > 4 and (parents[4] / "folder_paths.py").is_file():
        return parents[4] / "models"
    return Path.cwd() / "models"


@contextlib.contextmanager
def activate(context: RunContext) -> Iterator[RunContext]:
    """Make `context` the active one within the block (and in threads that copy this thread's context)."""
    token = _ACTIVE.set(context)
    try:
        yield context
    finally:
        _ACTIVE.reset(token)
