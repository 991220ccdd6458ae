"""Short trainings of a toy ControlNet, for the tests of its trainer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from animportrait3d_core.diffusion.sampling import SamplingSettings
from animportrait3d_core.files import read_safetensors
from animportrait3d_core.runs import read_log
from animportrait3d_core.training import open_dataset
from animportrait3d_core.training.controlnet import PAPER_SETTINGS, ControlNetRun
from animportrait3d_core.training.controlnet_data import ControlNetData, Dropout
from animportrait3d_core.training.controlnet_samples import ValidationSettings
from tests.embedded.prior_samples import SIZE

ROOT = Path(__file__).parents[2]
WEIGHTS = Path("controlnet") / "diffusion_pytorch_model.safetensors"
LOOP = dataclasses.replace(PAPER_SETTINGS, steps=4, lr=1e-3, warmup_steps=2, log_interval=2, save_seconds=0, seed=3)
VALIDATION = ValidationSettings(interval=2, per_region=1, sampling=SamplingSettings(2, 2.0))
RUN = ControlNetRun(loop=LOOP, validation=VALIDATION, held_out_share=0.2)
NO_DROPOUT = Dropout(0, 0)


def changed(**loop):
    return dataclasses.replace(RUN, loop=dataclasses.replace(LOOP, **loop))


def state_of(folder):
    return read_safetensors(folder / "state.safetensors")[0]


def weights_of(folder):
    return read_safetensors(folder / WEIGHTS)[0]


def pieces_of(folder):
    return json.loads(read_safetensors(folder / "state.safetensors")[1]["run"])["values"]["pieces"]


def log_of(folder):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_log(folder)]


def assert_same_end(first, second):
    for one, two in ((state_of(first), state_of(second)), (weights_of(first), weights_of(second))):
        assert one.keys() == two.keys()
        for name in one:
            assert torch.equal(one[name], two[name]), name
    assert log_of(first) == log_of(second)


def assert_close_end(first, second, rtol):
    """Adam divides by the gradients' size: where they are nothing but rounding, it enlarges it. So the gradients are
    compared, by their first moments, in shares of the greatest; and the weights, in shares of a step."""
    one, two = state_of(first), state_of(second)
    assert one.keys() == two.keys()
    for name in one:
        if name.startswith("first/"):
            scale = float(one[name].abs().max())
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=rtol * scale + 1e-9, msg=name)
    for one_line, two_line in zip(log_of(first), log_of(second), strict=True):
        assert one_line == pytest.approx(two_line, rel=rtol, abs=1e-5)


def stop_after(count):
    def report(step, steps, values):
        if step == count:
            raise KeyboardInterrupt

    return report


def data_of(folder, size=SIZE, dropout=NO_DROPOUT, seed=0):
    return ControlNetData(open_dataset(folder), size, (4, 8, 8), 1000, dropout, seed)
