"""A toy base, drawn pictures, and a training from its beginning to its end: made once for all tests of the trainer."""

from __future__ import annotations

import pytest

from animportrait3d_core.training.controlnet import train_controlnet
from tests.diffusion.toys import save_toy
from tests.embedded.prior_samples import write_drawn
from tests.training.controlnet_runs import RUN


@pytest.fixture(scope="package")
def base(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return write_drawn(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="package")
def straight(base, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, train_controlnet(base, data, folder, RUN)
