"""What a run looks like in a log and in a terminal."""

from __future__ import annotations

import io

import pytest

from animportrait3d_core.workflow import console
from animportrait3d_core.workflow.console import ConsoleListener
from animportrait3d_core.workflow.report import NodeRecord


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(stream, quiet=False):
    listener = ConsoleListener(quiet, stream)
    listener.node_started("4", "AP3D_X", 1, 2)
    for step in range(1, 6):
        listener.node_progress("4", step, 5, None)
    listener.node_finished(NodeRecord("4", "AP3D_X", 1.25, 100.4), cached=False)
    listener.node_started("5", "AP3D_Y", 2, 2)
    listener.node_finished(NodeRecord("5", "AP3D_Y", 0.0, 100.0), cached=True)
    return listener


def test_a_log_has_whole_lines_only():
    log = io.StringIO()
    play(log)
    assert log.getvalue().splitlines() == [
        "[1/2] AP3D_X (#4)",
        "[1/2] AP3D_X (#4): 1.2 s, peak 100 MB",
        "[2/2] AP3D_Y (#5)",
        "[2/2] AP3D_Y (#5): cached",
    ]
    assert "\r" not in log.getvalue()


def test_a_log_shows_a_long_node_at_work(monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1.0)
    log = io.StringIO()
    play(log)
    assert "[1/2] AP3D_X (#4): 3/5" in log.getvalue().splitlines()


def test_a_terminal_has_a_bar_that_goes_away():
    terminal = Terminal()
    listener = play(terminal)
    assert "5/5" in terminal.getvalue() or "0/5" in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("[2/2] AP3D_Y (#5): cached")
    assert listener.current == "", "what fails after the last node is not its fault"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_prints_nothing_but_knows_the_node(stream):
    output = stream()
    listener = play(output, quiet=True)
    listener.node_started("6", "AP3D_Z", 3, 3)
    assert listener.current == "AP3D_Z (#6)"
    assert output.getvalue() == ""


def test_a_stage_is_a_progress_callback():
    terminal = Terminal()
    with console.ProgressBar(stream=terminal) as bar:
        fit = bar.stage("fit")
        fit(1, 4, None)
        fit(4, 4, None)
        bar.stage("measure")(1, 2, None)
    assert "fit" in terminal.getvalue() and "measure" in terminal.getvalue()


def test_a_log_says_how_long_a_node_will_take(monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1.0)
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = io.StringIO()
    bar = console.ProgressBar(stream=log)
    for step in range(1, 5):
        bar.show(step, 1000, "optimize")
        clock[0] += 4.0
    bar.show(1, 1000, "refine")
    assert log.getvalue().splitlines() == [
        "optimize: 1/1000", "optimize: 2/1000", "optimize: 3/1000, 1 h 6 min left", "optimize: 4/1000, 1 h 6 min left",
        "refine: 1/1000",
    ]  # fmt: skip
