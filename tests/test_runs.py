"""Runs: states are taken up by the same work, refused by name by other work, and forgotten after a month."""

from __future__ import annotations

import os
import time

import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.runs import (
    DAYS_KEPT,
    LOCK_FILE,
    LOG_FILE,
    STATE_FILE,
    Processes,
    Run,
    RunState,
    automatic_run,
    carry_out,
    finished_runs_kept,
    read_log,
)


class Sum:
    """Adds up the numbers of its steps."""

    def __init__(self, steps=6):
        self.steps, self.step_index, self.total = steps, 0, torch.zeros(1)

    def step(self):
        self.step_index += 1
        self.total = self.total + self.step_index

    def state(self):
        return RunState({"total": self.total}, {"step": self.step_index})

    def restore(self, state):
        self.total, self.step_index = state.tensors["total"], state.values["step"]


def stop_at(work, step):
    def report():
        if work.step_index == step:
            raise KeyboardInterrupt

    return report


def test_without_a_run_work_is_just_done():
    work = Sum()
    carry_out(work)
    assert (work.step_index, work.total.item()) == (6, 21)


def test_what_a_report_raises_is_saved_before(tmp_path):
    work = Sum()
    with pytest.raises(KeyboardInterrupt):
        carry_out(work, Run(tmp_path, "sum", {}), stop_at(work, 4))
    again = Sum()
    seen = []
    carry_out(again, Run(tmp_path, "sum", {}), lambda: seen.append(again.step_index))
    assert seen == [5, 6] and again.total.item() == 21
    finished = Sum()
    carry_out(finished, Run(tmp_path, "sum", {}), lambda: seen.append("more"))
    assert finished.total.item() == 21 and "more" not in seen


def test_what_a_step_raises_leaves_the_last_state(tmp_path):
    class Broken(Sum):
        def step(self):
            super().step()
            if self.step_index == 3:
                self.total = self.total * float("nan")
                raise ValueError

    with pytest.raises(ValueError):
        carry_out(Broken(), Run(tmp_path, "sum", {}, save_seconds=0))
    again = Sum()
    carry_out(again, Run(tmp_path, "sum", {}))
    assert again.total.item() == 21


@pytest.mark.parametrize("counted", [False, True])
def test_a_stop_within_a_step_is_saved_as_long_as_nothing_has_changed(tmp_path, counted):
    class Stopped(Sum):
        may_stop_within_steps = True

        def step(self):
            if self.step_index == 3 and not counted:
                raise KeyboardInterrupt
            super().step()
            if self.step_index == 4:
                raise KeyboardInterrupt

    work = Stopped()
    with pytest.raises(KeyboardInterrupt):
        carry_out(work, Run(tmp_path, "sum", {}, save_seconds=1000))
    again, seen = Sum(), []
    carry_out(again, Run(tmp_path, "sum", {}), lambda: seen.append(again.step_index))
    assert seen[0] == (1 if counted else 4) and again.total.item() == 21


def test_one_process_at_a_time_works_in_a_folder(tmp_path):
    refused = []

    def report():
        with pytest.raises(InvalidInput, match="at work in another process; wait for its end"):
            carry_out(Sum(), Run(tmp_path, "sum", {}))
        refused.append(True)

    carry_out(Sum(2), Run(tmp_path, "sum", {}), report)
    assert refused == [True, True]
    again = Sum(2)
    carry_out(again, Run(tmp_path, "sum", {}))
    assert again.total.item() == 3
    # Of processes that do one piece of work together only the first guards it.
    carry_out(Sum(2), Run(tmp_path, "sum", {}, processes=Processes(is_first=False)))


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(0.0, [3, 6, 8]), (0.5, [3, 8])],  # half a second may be spent every 25
)
def test_states_are_saved_now_and_then(tmp_path, monkeypatch, cost, expected):
    now, saved = [100.0], []
    monkeypatch.setattr("animportrait3d_core.runs.time.perf_counter", lambda: now[0])

    class Slow(Sum):
        def step(self):
            super().step()
            now[0] += 4.0

        def state(self):
            saved.append(self.step_index)
            now[0] += cost
            return super().state()

    carry_out(Slow(8), Run(tmp_path, "sum", {}, save_seconds=10))
    assert saved == expected


def test_time_of_all_sittings_is_added_up(tmp_path):
    class Slow(Sum):
        def step(self):
            super().step()
            time.sleep(0.02)

    for sitting in range(1, 4):
        run = Run(tmp_path, "sum", {})
        carry_out(Slow(), run, seconds=0.01)
        assert run.seconds > 0.02 * sitting


def test_a_state_of_other_work_is_refused_part_by_part(tmp_path):
    carry_out(Sum(), Run(tmp_path, "sum", {"data": "a", "settings": "1"}))
    with pytest.raises(InvalidInput, match="sum: .* with another settings: found 1, expected 2"):
        carry_out(Sum(), Run(tmp_path, "sum", {"data": "a", "settings": "2"}))
    with pytest.raises(InvalidInput, match="another more: found None, expected x"):
        carry_out(Sum(), Run(tmp_path, "sum", {"data": "a", "settings": "1", "more": "x"}))


def test_foreign_and_damaged_states_are_refused(tmp_path):
    from animportrait3d_core.files import write_safetensors

    write_safetensors(tmp_path / STATE_FILE, {"a": torch.zeros(1)}, {})
    with pytest.raises(InvalidInput, match="is no state of a run"):
        carry_out(Sum(), Run(tmp_path, "sum", {}))
    (tmp_path / STATE_FILE).write_bytes(b"12345678")
    with pytest.raises(InvalidInput, match="not a whole safetensors file"):
        carry_out(Sum(), Run(tmp_path, "sum", {}))
    for header in ("{", "[" * 100_000, "[]", '{"key": {}, "values": {}}', '{"key": 1, "values": {}, "seconds": 0}'):
        metadata = {"format": "animportrait3d-run", "run": header}
        write_safetensors(tmp_path / STATE_FILE, {"a": torch.zeros(1)}, metadata)
        with pytest.raises(InvalidInput, match="is damaged .* Delete the folder"):
            carry_out(Sum(), Run(tmp_path, "sum", {}))


def test_the_log_is_cut_to_the_state(tmp_path):
    run, work = Run(tmp_path, "sum", {}), Sum()
    work.step()
    run.log({"step": 1, "value": 0.5})
    run.save(work)
    run.log({"step": 2, "value": 0.25})
    with open(tmp_path / LOG_FILE, "a") as stream:
        stream.write('{"step": 3, "val')
    again = Run(tmp_path, "sum", {})
    again.resume(Sum())
    again.log({"step": 2, "value": 0.125})
    assert list(read_log(tmp_path)) == [{"step": 1, "value": 0.5}, {"step": 2, "value": 0.125}]


def test_automatic_runs_find_their_own_state_and_forget_old_ones(tmp_path):
    def stopped(key):
        work, run = Sum(), automatic_run(tmp_path, "sum", key)
        with pytest.raises(KeyboardInterrupt):
            carry_out(work, run, stop_at(work, 2))
        return run.folder

    first, second = stopped({"data": "a"}), stopped({"data": "b"})
    assert first != second
    old = time.time() - (DAYS_KEPT + 1) * 86_400
    os.utime(second / STATE_FILE, (old, old))
    run = automatic_run(tmp_path, "sum", {"data": "a"})
    assert run.folder == first and run.has_state
    assert not second.exists()
    run.remove()
    assert not first.exists()


def test_finished_runs_stay_until_what_they_are_for_is_done(tmp_path, caplog):
    def finish(name):
        run = automatic_run(tmp_path, name, {"a": "b"})
        carry_out(Sum(3), run)
        run.remove()
        return run.folder

    with finished_runs_kept():
        kept = finish("first")
        assert kept.is_dir()
    assert not kept.exists() and not finish("second").exists() and caplog.text == ""
    with pytest.raises(OSError, match="full"), finished_runs_kept():
        kept = finish("third")
        raise OSError("full")
    assert f"finished stages are kept in '{tmp_path}'" in caplog.text
    again = automatic_run(tmp_path, "third", {"a": "b"})
    work = Sum(3)
    work.step = lambda: pytest.fail("nothing was left to do")
    carry_out(work, again)
    assert again.folder == kept and work.total.item() == 6


def test_of_several_processes_the_first_alone_writes_and_decides(tmp_path):
    questions = []

    def third_says_no(own):
        questions.append(own)
        return len(questions) < 3

    first = Run(tmp_path, "sum", {}, processes=Processes(True, third_says_no))
    work = Sum()
    carry_out(work, first)
    first.log({"step": 2, "value": 1.0})
    assert work.step_index == 2 and questions == [True] * 3
    written = (tmp_path / STATE_FILE).read_bytes(), (tmp_path / LOG_FILE).read_bytes()
    other, run = Sum(), Run(tmp_path, "sum", {}, save_seconds=0, processes=Processes(False))
    carry_out(other, run)
    run.log({"step": 6, "value": 2.0})
    assert other.total.item() == 21
    assert ((tmp_path / STATE_FILE).read_bytes(), (tmp_path / LOG_FILE).read_bytes()) == written
    carry_out(Sum(), Run(tmp_path / "none", "sum", {}, processes=Processes(False)))
    assert not (tmp_path / "none").exists()


def test_a_state_that_the_disk_does_not_take_leaves_the_last_one(tmp_path, small_disk):
    class Growing(Sum):
        def state(self):
            more = torch.zeros(600 * self.step_index)
            return RunState({"total": self.total, "more": more}, {"step": self.step_index})

    with small_disk(4096), pytest.raises(InvalidInput, match="cannot write .* MB of '.*state.safetensors'.*Make room"):
        carry_out(Growing(), Run(tmp_path, "sum", {}, save_seconds=0))
    assert {file.name for file in tmp_path.iterdir()} == {STATE_FILE, LOCK_FILE}
    again = Sum()
    assert Run(tmp_path, "sum", {}).resume(again) and again.step_index == 1
    run = Run(tmp_path, "sum", {})
    with small_disk(4096), pytest.raises(InvalidInput, match="log.jsonl.*File too large"):
        for step in range(200):
            run.log({"step": step, "value": 0.5})
