"""Portraits and cameras of the trigrid reference numbers (`tests/data/portrait3d_trigrid_oracle.npz`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import Cameras
from animportrait3d_core.portrait.trigrid import Decoder, ToRgb, TrigridPortrait, TrigridRenderSettings
from tests.portrait.trigrid_samples import ellipsoid_portrait

LEVELS = (8, 16, 32, 64)


@pytest.fixture(scope="session")
def trigrid_oracle() -> dict[str, torch.Tensor]:
    with np.load(Path(__file__).parents[1] / "data" / "portrait3d_trigrid_oracle.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


@pytest.fixture(scope="session")
def oracle_portrait(trigrid_oracle):
    """Portrait A, by back-end."""
    values = trigrid_oracle
    levels = {r: values[f"A/trigrids_{r}_int8"].float().div(32).reshape(3, 12, 3, r, r) for r in LEVELS}
    decoder = Decoder(*(values[f"A/decoder.net.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias")))
    affine = (values["A/torgb.affine.weight"], values["A/torgb.affine.bias"])
    to_rgb = ToRgb(*affine, values["A/torgb.weight"][:, :, 0, 0], values["A/torgb.bias"])
    background = values["A/bg_features_int8"].float() / 16
    return {
        backend: TrigridPortrait(
            levels, decoder, to_rgb, values["A/ws"][0], background, rendering=TrigridRenderSettings(backend=backend)
        )
        for backend in ("dense", "fast")
    }


@pytest.fixture(scope="session")
def oracle_camera(trigrid_oracle):
    """Function (name, size) -> a camera of the reference numbers: 16 of camera-to-world, 9 normalised intrinsics."""

    def camera(name: str, size: int) -> Cameras:
        numbers = trigrid_oracle[f"A/{name}_params25"].double()
        intrinsics = numbers[16:].reshape(3, 3) * torch.tensor([[size], [size], [1.0]], dtype=torch.float64)
        world_to_camera = torch.linalg.inv(numbers[:16].reshape(4, 4))
        return Cameras(world_to_camera[None].float(), intrinsics[None].float(), size, size)

    return camera


@pytest.fixture(scope="session")
def make_ellipsoid():
    """Function (levels, backend) -> the portrait of an ellipsoid."""
    return ellipsoid_portrait
