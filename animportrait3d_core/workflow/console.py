"""A run seen from a terminal: one line per node, a bar for the node that works, on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from .report import NodeRecord

SECONDS_BETWEEN_LINES = 10.0


class ConsoleListener:
    """Prints progress. `quiet` prints nothing; `current` names the node that runs, for error messages."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self.current = ""
        self._bar: Any = None
        self._prefix = ""
        self._last_line = float("-inf")

    def node_started(self, node_id: str, class_type: str, index: int, total: int) -> None:
        """Announce the node; a log that is no terminal gets its line now, so that a long node is seen at work."""
        self.current = f"{class_type} (#{node_id})"
        self._prefix = f"[{index}/{total}] {self.current}"
        if not self.quiet and not self.stream.isatty():
            self._print(self._prefix)

    def node_progress(self, node_id: str, step: int, total: int, preview: Any | None) -> None:
        """Move the bar; it appears with the first step. A log that is no terminal gets a line now and then instead."""
        if self.quiet:
            return
        if not self.stream.isatty():
            if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
                self._print(f"{self._prefix}: {step}/{total}")
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=self._prefix, file=self.stream, leave=False)
        self._bar.total = total
        self._bar.update(step - self._bar.n)

    def node_finished(self, record: NodeRecord, cached: bool) -> None:
        """Close the bar and print the node's line."""
        self.close()
        if not self.quiet:
            what = "cached" if cached else f"{record.seconds:.1f} s, peak {record.peak_rss_mb:.0f} MB"
            self._print(f"{self._prefix}: {what}")

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)
        self._last_line = time.monotonic()

    def close(self) -> None:
        """Remove the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
