"""Work that nobody asks is stopped, too: between its parts, or while it goes on behind."""

from __future__ import annotations

import threading
import time

import numba
import numpy as np
import pytest
import torch

from animportrait3d_core.files import made_files
from animportrait3d_core.progress import behind, may_stop, stopped_by
from animportrait3d_core.render.threads import run_parallel
from animportrait3d_core.runs import Run, RunState, carry_out


class Stop(BaseException):
    pass


class User:
    """Presses stop at a look, or after some seconds."""

    def __init__(self, at: float = 1, after: float = 0.0):
        self.looks, self.at, self.end = 0, at, time.monotonic() + after

    def __call__(self):
        self.looks += 1
        if self.looks >= self.at and time.monotonic() >= self.end:
            raise Stop


def test_nobody_is_asked_outside_of_the_block():
    user = User()
    with pytest.raises(Stop), stopped_by(user):
        may_stop()
    may_stop()
    with stopped_by(user), stopped_by(None):
        may_stop()
    assert user.looks == 1


def test_work_behind_gives_its_result_and_its_error():
    with stopped_by(User(at=1000)):
        assert behind(lambda: threading.current_thread()) is not threading.current_thread()
        with pytest.raises(ValueError, match="a bug"):
            behind(lambda: int("a bug"))
    assert behind(threading.current_thread) is threading.current_thread()


def test_work_behind_goes_on_to_its_end_after_a_stop():
    done, go_on = threading.Event(), threading.Event()

    def work():
        may_stop()  # not asked there: the thread that waits has ended
        go_on.wait(30)
        done.set()

    with pytest.raises(Stop), stopped_by(User(at=2)):
        behind(work)
    assert not done.is_set()
    with pytest.raises(Stop), stopped_by(User()):
        raise AssertionError("the next work began beside it")
    go_on.set()
    with stopped_by(User(at=1000)):
        assert done.is_set()


def test_a_kernel_ends_between_two_ranges(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    ranges = []

    def kernel(begin, end):
        ranges.append((begin, end))
        time.sleep(0.01)

    with stopped_by(User(at=1000)):
        run_parallel(kernel, 100)
    assert len(ranges) == 8 and sorted(ranges)[0][0] == 0 and sorted(ranges)[-1][1] == 100
    ranges.clear()
    with pytest.raises(Stop), stopped_by(User()):
        run_parallel(kernel, 100)
    assert 1 <= len(ranges) < 8
    time.sleep(0.05)
    assert len(ranges) < 8, "other threads went on"


def test_a_kernel_is_compiled_behind(monkeypatch):
    """Compiling takes seconds, in the first run alone; the next one finds it done."""

    @numba.njit(nogil=True)
    def kernel(values, begin, end):
        for index in range(begin, end):
            values[index] += 1

    class Slow:
        signatures = ()

        def __call__(self, *arguments):
            threads.append(threading.current_thread())
            time.sleep(0.5)
            kernel(*arguments)
            self.signatures = kernel.signatures

    threads, values, slow = [], np.zeros(40), Slow()
    with pytest.raises(Stop), stopped_by(User()):
        run_parallel(slow, 40, values)
    assert threads[0] is not threading.current_thread() and not values.any()
    deadline = time.monotonic() + 30
    while not slow.signatures and time.monotonic() < deadline:
        time.sleep(0.01)
    with stopped_by(User(at=1000)):
        run_parallel(slow, 40, values)
    assert (values == 1).all()


def test_files_that_a_stopped_run_began_are_made_once(tmp_path):
    made = []

    def make():
        made.append(threading.current_thread())
        time.sleep(0.4)
        (tmp_path / "a").write_text("whole")

    with pytest.raises(Stop), stopped_by(User()):
        made_files(tmp_path, ("a",), make)
    with stopped_by(User(at=1000)):
        assert made_files(tmp_path, ("a",), make)[0].read_text() == "whole"
    assert len(made) == 1


class Steps:
    """Work whose every step asks within, as those that draw do."""

    steps = 5

    def __init__(self):
        self.step_index, self.half = 0, False

    def step(self):
        self.half = True
        may_stop()
        self.half = False
        self.step_index += 1

    def key(self):
        return {"work": "steps"}

    def state(self):
        assert not self.half
        return RunState({"index": torch.tensor([self.step_index])}, {"step": self.step_index})

    def restore(self, state):
        self.step_index = int(state.values["step"])


def test_a_long_step_is_stopped_within_and_nothing_is_lost(tmp_path):
    class LongFourth(Steps):
        @property
        def next_step_is_long(self):
            return self.step_index == 3

    with pytest.raises(Stop), stopped_by(User(at=5)):  # in the first step, after each of three, in the fourth
        carry_out(LongFourth(), Run(tmp_path / "run", "Test", {"work": "steps"}), may_stop)
    again = LongFourth()
    with pytest.raises(Stop), stopped_by(User()):
        carry_out(again, Run(tmp_path / "run", "Test", {"work": "steps"}), may_stop)
    assert again.step_index == 3


def test_a_step_that_was_begun_is_ended_and_kept(tmp_path):
    """But the first, which compiles kernels: there is nothing to lose before it."""
    user, work = User(at=3), Steps()
    run = Run(tmp_path / "run", "Test", work.key())
    with pytest.raises(Stop), stopped_by(user):
        carry_out(work, run, may_stop)
    assert (work.step_index, user.looks) == (2, 3)
    again = Steps()
    with pytest.raises(Stop), stopped_by(User()):
        carry_out(again, Run(tmp_path / "run", "Test", work.key()), may_stop)
    assert again.half and again.step_index == 2
    last = Steps()
    carry_out(last, Run(tmp_path / "run", "Test", work.key()))
    assert last.step_index == 5 and last.half is False
