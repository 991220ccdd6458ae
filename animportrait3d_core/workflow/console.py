"""Work seen from a terminal: one line per node, a bar for what works, on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from ..progress import Progress, TimeLeft
from .report import NodeRecord

SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """A bar for work in named stages. A log that is no terminal gets a line now and then instead. A context."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self._bar: Any = None
        self._stage = ""
        self._left = TimeLeft()
        self._last_line = float("-inf")

    def stage(self, name: str) -> Progress:
        """The `Progress` of one stage; pictures cannot be shown here."""
        return lambda step, total, preview: self.show(step, total, name)

    def show(self, step: int, steps: int, stage: str) -> None:
        """Move the bar; it appears with the first step of a stage."""
        if self.quiet:
            return
        if stage != self._stage:
            self.close()
            self._stage, self._left = stage, TimeLeft()
        if not self.stream.isatty():
            left = self._left.text(step, steps)
            if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
                self.print_line(f"{stage}: {step}/{steps}" + (f", {left}" if left else ""))
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=steps, desc=stage, file=self.stream, leave=False)
        self._bar.total = steps
        self._bar.update(step - self._bar.n)

    def print_line(self, line: str) -> None:
        """One line of text, unless quiet."""
        if not self.quiet:
            print(line, file=self.stream, flush=True)
            self._last_line = time.monotonic()

    def close(self) -> None:
        """Remove the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ConsoleListener:
    """Prints the progress of a run. `quiet` prints nothing; `current` names the node that runs, for error messages."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.current = ""
        self._bar = ProgressBar(quiet, stream)
        self._prefix = ""

    def node_started(self, node_id: str, class_type: str, index: int, total: int) -> None:
        """Announce the node; a log that is no terminal gets its line now, so that a long node is seen at work."""
        self.current = f"{class_type} (#{node_id})"
        self._prefix = f"[{index}/{total}] {self.current}"
        if not self._bar.stream.isatty():
            self._bar.print_line(self._prefix)

    def node_progress(self, node_id: str, step: int, total: int, preview: Any | None) -> None:
        """Move the node's bar."""
        self._bar.show(step, total, self._prefix)

    def node_finished(self, record: NodeRecord, cached: bool) -> None:
        """Close the bar and print the node's line and what it says; warnings were printed when they were logged."""
        self.close()
        self.current = ""  # what fails from here on, as the report, is no fault of this node
        what = "cached" if cached else f"{record.seconds:.1f} s, peak {record.peak_rss_mb:.0f} MB"
        self._bar.print_line(f"{self._prefix}: {what}")
        again = [f"warning: {warning}" for warning in record.warnings] if cached else []
        for line in [*record.messages, *again]:
            self._bar.print_line(f"    {line}")

    def close(self) -> None:
        """Remove the bar, also after an error."""
        self._bar.close()
