"""Several processes share the steps of a training: they end where one does, and none is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.files import read_safetensors
from animportrait3d_core.runs import read_log
from animportrait3d_core.training.gradients import Portion, add_gradients
from animportrait3d_core.training.loop import Trainer, train
from animportrait3d_core.training.workers import Workers
from tests.training.shared_task import SETTINGS, Losses, SharedTask

ROOT = Path(__file__).parents[2]


def assert_same_end(first, second):
    """All that changes in a training, to the rounding of float64."""
    one, two = (read_safetensors(folder / "state.safetensors")[0] for folder in (first, second))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-12, msg=name)
    logs = [[{**line, "seconds": 0} for line in read_log(folder)] for folder in (first, second)]
    assert len(logs[0]) == len(logs[1]) == SETTINGS.steps
    for line, other in zip(*logs):
        assert other == pytest.approx(line, abs=2e-6)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("straight")
    train(SharedTask(), SETTINGS, folder)
    steps = read_safetensors(folder / "state.safetensors")[0]["adam_steps"]
    assert 0 < int(steps.min()) < int(steps.max()) == SETTINGS.steps  # some batches used the rare layer, some did not
    return folder


def stop_after(count):
    def report(step, steps, values):
        if step == count:
            raise KeyboardInterrupt

    return report


def test_three_processes_end_where_one_does(straight, tmp_path):
    threads = torch.get_num_threads()
    result = train(SharedTask(), SETTINGS, tmp_path, processes=3)
    assert result.finished
    assert_same_end(straight, tmp_path)
    assert not multiprocessing.active_children() and torch.get_num_threads() == threads


def test_a_run_goes_on_with_another_number_of_processes(straight, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(SharedTask(), SETTINGS, tmp_path, report=stop_after(5))
    train(SharedTask(), SETTINGS, tmp_path, resume=True, processes=2)
    assert_same_end(straight, tmp_path)


def test_a_lost_process_is_named_and_the_run_goes_on(straight, tmp_path):
    def kill(step, steps, values):
        if step == 4:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid, signal.SIGKILL)

    message = r"process 2 of 2 was ended from outside \(by signal 9\).* Go on from the last state"
    with pytest.raises(InvalidInput, match=message):
        train(SharedTask(), SETTINGS, tmp_path, report=kill, processes=2)
    assert not multiprocessing.active_children()
    assert len(list(read_log(tmp_path))) == 4
    train(SharedTask(), SETTINGS, tmp_path, resume=True)
    assert_same_end(straight, tmp_path)


def whole_portion(rows):
    return Portion(rows, 1.0, torch.Generator().manual_seed(2).get_state(), 0, "float32")


def test_a_part_of_a_batch_draws_what_the_whole_does_and_errors_come_through():
    task = SharedTask()
    batch = task.batch(torch.arange(4), torch.Generator().manual_seed(1))
    poisoned = {**batch, "x": batch["x"].clone()}
    poisoned["x"][-1, 0, 0, 0] = 7.0
    model = Trainer(task, SETTINGS).model
    losses = Losses(poison=7.0)
    with Workers(losses, model, 2) as workers:
        for weight in (1.0, -2.0):  # whatever changed the weights between two steps is heard
            with torch.no_grad():
                model.second.weight.fill_(weight)
            model.zero_grad(set_to_none=True)
            terms = workers.add_gradients(whole_portion(batch))
            found = {name: value.grad for name, value in model.named_parameters()}
            model.zero_grad(set_to_none=True)
            assert terms == pytest.approx(add_gradients(losses, model, whole_portion(batch)), rel=1e-12)
            for name, value in model.named_parameters():
                assert (found[name] is None) == (value.grad is None), name
                if value.grad is not None:
                    torch.testing.assert_close(found[name], value.grad, rtol=1e-12, atol=1e-14)
        with pytest.raises(InvalidInput, match="losses: 7.0 among the rows"):
            workers.add_gradients(whole_portion(poisoned))


SCRIPT = """
import multiprocessing, signal, sys
from animportrait3d_core.training.loop import train
from tests.training.shared_task import SETTINGS, SharedTask

def report(step, steps, values):
    if step == 2:
        print(multiprocessing.active_children()[0].pid, flush=True)
        sys.stdin.read()

if __name__ == "__main__":
    # As under a terminal: what is started in the background of a script ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train(SharedTask(), SETTINGS, sys.argv[1], report=report, processes=2)
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("end", ["Ctrl-C", "kill"])
def test_no_process_outlives_the_one_that_trains(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    worker = int(process.stdout.readline())
    assert is_alive(worker)
    if end == "kill":
        process.send_signal(signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    deadline = time.monotonic() + 30
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)
    assert errors.count("Traceback") == (0 if end == "kill" else 1), errors
    assert read_safetensors(tmp_path / "state.safetensors")


def test_a_script_without_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)}, input="",
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "process 2 of 2 ended before its first step" in done.stderr and "__name__ == '__main__'" in done.stderr


# What cannot be shared


def refused(match, processes=2, task=None, settings=SETTINGS, device="cpu"):
    with pytest.raises(InvalidInput, match=match):
        train(task or SharedTask(), settings, "nowhere", processes=processes, device=device)
    assert not Path("nowhere").exists()


def test_work_that_cannot_be_divided_is_refused():
    refused("4 processes for batches of 6, expected at least 1 and a divisor", processes=4)
    refused("0 processes", processes=0)
    refused("device 'meta'; train with one process", device="meta")
    refused("device 'toaster' does not work here", device="toaster")
    task = SharedTask()
    task.separable = False
    refused("the losses of SharedTask depend on the batch as a whole", task=task)
    for layer, name in ((torch.nn.BatchNorm2d(2), "BatchNorm2d"), (torch.nn.Dropout(0.1), "Dropout")):
        task = SharedTask()
        task.model.more = torch.nn.Sequential(torch.nn.Dropout(0.0), layer)
        refused(rf"the layer 'more.1' \({name}\)", task=task)


def test_too_little_shared_memory_is_told(monkeypatch):
    def full(self):
        raise RuntimeError("No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(InvalidInput, match="2 processes need 0 MB of shared memory .*--shm-size"):
        Workers(Losses(), SharedTask().model, 2)
