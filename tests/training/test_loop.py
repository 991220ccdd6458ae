"""The training loop: it learns, it averages, and a run that was stopped or killed ends as one that was not."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from animportrait3d_core.devices import knows_bfloat16
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.files import read_safetensors
from animportrait3d_core.runs import read_log
from animportrait3d_core.training import gradients
from animportrait3d_core.training.loop import LoopSettings, Trainer, train

ROOT = Path(__file__).parents[2]


class LineTask:
    """Fits y = 2 x - 1 from noisy samples by a small network; a part of it is often unused."""

    fingerprint = "line"

    def __init__(self, samples=24):
        torch.manual_seed(0)
        self.model = torch.nn.ModuleDict(
            {
                "main": torch.nn.Sequential(
                    torch.nn.Linear(1, 8),
                    torch.nn.BatchNorm1d(8),
                    torch.nn.Tanh(),
                    torch.nn.Linear(8, 1),
                ),
                "rare": torch.nn.Linear(1, 1),
                "drop": torch.nn.Dropout(0.5),  # draws from torch's global generator
            }
        )
        self.inputs = torch.linspace(-1, 1, samples)[:, None]
        self.seen = []

    def __len__(self):
        return len(self.inputs)

    def batch(self, indices, generator):
        self.seen.append(indices.tolist())
        inputs = self.inputs[indices]
        return {"x": inputs, "y": 2 * inputs - 1 + 0.01 * torch.randn(inputs.shape, generator=generator)}

    def losses(self, model, batch, generator):
        found = model["main"](batch["x"])
        # As a ControlNet that only some batches use: its parameters then have no gradient at all.
        if float(torch.rand((), generator=generator)) < 0.4:
            found = found + 0.05 * model["drop"](model["rare"](batch["x"]))
        return {"square": (found - batch["y"]).square().mean(), "size": 1e-3 * found.square().mean()}

    def evaluate(self, model):
        assert not model.training
        return {"error": float((model["main"](self.inputs) - (2 * self.inputs - 1)).square().mean())}


SETTINGS = LoopSettings(
    steps=30, batch_size=7, lr=0.06, warmup_steps=5, save_seconds=0, log_interval=3, eval_interval=10
)


def final_state(folder):
    return read_safetensors(folder / "state.safetensors")


def assert_same_end(first, second):
    one, two = final_state(first)[0], final_state(second)[0]
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def values_of(log):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in log]


def stop_after(count):
    def report(step, steps, values):
        if step == count:
            raise KeyboardInterrupt

    return report


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, train(LineTask(), SETTINGS, folder)


def test_the_loss_falls_and_the_end_is_evaluated(straight):
    folder, result = straight
    lines = list(read_log(folder))
    assert result.finished and result.step == 30
    assert result.metrics["error"] < 0.2 * 7 / 3
    assert lines[-1]["square"] < 0.2 * lines[0]["square"]
    assert lines[-1]["error"] == pytest.approx(result.metrics["error"], abs=1e-6)
    assert [line["step"] for line in lines] == sorted({*range(3, 31, 3), 10, 20, 30})


@pytest.mark.parametrize("stop", [1, 4, 15, 29])
def test_a_cancelled_run_ends_bit_identical(straight, tmp_path, stop):
    with pytest.raises(KeyboardInterrupt):
        train(LineTask(), SETTINGS, tmp_path, report=stop_after(stop))
    task = LineTask()
    torch.manual_seed(stop)  # whatever others did with the global generator meanwhile
    result = train(task, SETTINGS, tmp_path, resume=True)
    assert_same_end(straight[0], tmp_path)
    assert values_of(read_log(tmp_path)) == values_of(read_log(straight[0]))
    for name, value in result.weights.items():
        assert torch.equal(value, straight[1].weights[name]), name


def test_many_short_sittings_end_bit_identical(straight, tmp_path):
    result = train(LineTask(), SETTINGS, tmp_path, minutes=1e-9)
    sittings = 1
    while not result.finished:
        before = result.seconds
        result = train(LineTask(), SETTINGS, tmp_path, resume=True, minutes=1e-3 / 60)
        assert result.seconds > before
        sittings += 1
    assert sittings > 2
    assert_same_end(straight[0], tmp_path)


def test_a_killed_run_ends_bit_identical(straight, tmp_path):
    code = textwrap.dedent(
        f"""
        import importlib.util, time
        from pathlib import Path
        spec = importlib.util.spec_from_file_location("test_loop", {str(Path(__file__))!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        folder = Path({str(tmp_path)!r})
        module.train(module.LineTask(), module.SETTINGS, folder, report=lambda *_: time.sleep(0.05))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while not (tmp_path / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = json.loads(final_state(tmp_path)[1]["run"])["step"]
    assert 1 <= saved < 30
    train(LineTask(), SETTINGS, tmp_path, resume=True)
    assert_same_end(straight[0], tmp_path)


def test_each_sample_comes_once_per_round():
    task = LineTask(samples=20)
    trainer = Trainer(task, SETTINGS)
    for _ in range(20):
        trainer.step()
    order = [index for batch in task.seen for index in batch]
    for start in range(0, 140, 20):
        assert sorted(order[start : start + 20]) == list(range(20))


def test_a_state_is_not_overwritten_without_being_asked(straight):
    with pytest.raises(InvalidInput, match="holds a training; pass --resume"):
        train(LineTask(), SETTINGS, straight[0])


def test_other_data_and_other_settings_are_refused(straight):
    task = LineTask()
    task.fingerprint = "curve"
    with pytest.raises(InvalidInput, match="another task: found line, expected curve"):
        train(task, SETTINGS, straight[0], resume=True)
    with pytest.raises(InvalidInput, match="another settings"):
        train(LineTask(), LoopSettings(steps=31, batch_size=7), straight[0], resume=True)


def test_foreign_and_damaged_states_are_refused(tmp_path):
    from animportrait3d_core.files import write_safetensors

    write_safetensors(tmp_path / "state.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(InvalidInput, match="is no state of a run"):
        train(LineTask(), SETTINGS, tmp_path, resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"12345678")
    with pytest.raises(InvalidInput, match="not a whole safetensors file"):
        train(LineTask(), SETTINGS, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("precision", "knows", "wanted"),
    [("mixed", True, torch.bfloat16), ("mixed", False, torch.float32), ("float32", True, torch.float32)],
)
def test_sixteen_bits_only_where_they_are_quick(tmp_path, monkeypatch, precision, knows, wanted):
    """A processor without instructions for bfloat16 took thirty times as long with it as in float32."""
    monkeypatch.setattr(gradients, "knows_bfloat16", lambda device: knows)
    task, types = LineTask(), set()
    whole = task.losses

    def losses(model, batch, generator):
        types.add(model["main"][0](batch["x"]).dtype)
        return whole(model, batch, generator)

    task.losses = losses
    train(task, dataclasses.replace(SETTINGS, steps=2, precision=precision), tmp_path)
    assert types == {wanted}


def test_what_a_processor_knows_is_what_the_system_says_of_it():
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    if not words:
        pytest.skip("this system does not say what its processor knows")
    assert knows_bfloat16(torch.device("cpu")) == ("avx512_bf16" in words or "amx_tile" in words)
    assert not knows_bfloat16(torch.device("meta"))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    task = LineTask()
    task.losses = lambda model, batch, generator: {"bad": model["rare"].weight.sum() * math.inf}
    with pytest.raises(InvalidInput, match="the loss is .* at step 0; lower the learning rate"):
        train(task, SETTINGS, tmp_path)


def test_a_task_without_samples_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no samples"):
        train(LineTask(samples=0), SETTINGS, tmp_path)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1, "batch_size": 0}, {"steps": 1, "precision": "int8"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InvalidInput, match="LoopSettings"):
        LoopSettings(**wrong)


def test_the_rate_follows_warmup_and_cosine():
    settings = LoopSettings(steps=111, lr=1.0, warmup_steps=10, final_share=0.1)
    assert settings.lr_at(0) == pytest.approx(0.1)
    assert settings.lr_at(9) == pytest.approx(1.0)
    assert settings.lr_at(60) == pytest.approx(0.55, abs=1e-9)
    assert settings.lr_at(110) == pytest.approx(0.1)


def test_one_step_is_adamw_and_the_average_follows(tmp_path):
    """One parameter, loss w: gradient 1. AdamW's first step is rate * (sign + decay * w)."""

    class Task(LineTask):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.constant_(self.model.weight, 3.0)

        def losses(self, model, batch, generator):
            return {"w": model.weight.sum()}

    settings = LoopSettings(steps=100, lr=0.1, warmup_steps=0, weight_decay=0.5, ema_decay=0.9, final_share=1.0)
    trainer = Trainer(Task(), settings)
    trainer.step()
    first = 3 - 0.1 * (1 + 0.5 * 3)
    assert trainer.model.weight.item() == pytest.approx(first, abs=1e-6)
    decay = 1 / 11
    assert float(trainer.weights()["weight"]) == pytest.approx(decay * 3 + (1 - decay) * first, abs=1e-6)


def test_all_that_changes_is_on_the_device_of_the_training():
    """On one without values: what the fused optimiser wants there is easily left on the CPU."""
    trainer = Trainer(LineTask(), SETTINGS, "meta")
    held = [value for state in trainer.adam.optimizer.state.values() for value in state.values()]
    assert {value.device.type for value in (*trainer.adam.tensors().values(), *held)} == {"meta"}


def test_evaluation_leaves_the_weights_in_training_alone():
    trainer = Trainer(LineTask(), SETTINGS)
    for _ in range(5):
        trainer.step()
    before = {name: value.clone() for name, value in trainer.state().tensors.items()}
    trainer.evaluate()
    assert trainer.model.training
    for name, value in trainer.state().tensors.items():
        assert torch.equal(value, before[name]), name


def test_the_global_generator_is_not_used(tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    task = LineTask()
    torch.random.set_rng_state(before)
    train(task, SETTINGS, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_works_in_inference_mode(straight, tmp_path):
    with torch.inference_mode():
        task = LineTask
        with torch.inference_mode(False):
            task = LineTask()
        train(task, SETTINGS, tmp_path)
    assert_same_end(straight[0], tmp_path)


def test_a_log_line_cut_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "los')
    assert list(read_log(tmp_path)) == [{"step": 1}]
