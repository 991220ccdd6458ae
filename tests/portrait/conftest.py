"""Portraits and cameras of the trigrid reference numbers (`tests/data/portrait3d_trigrid_oracle.npz`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import Cameras
from animportrait3d_core.portrait.trigrid import Decoder, ToRgb, TrigridPortrait, TrigridRenderSettings

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
    """Function (levels, backend) -> a portrait of a solid, patterned ellipsoid around the origin, in closed form.

    The grids hold x0 = 1 - (x/a)^2 - (y/b)^2 - (z/c)^2 in cube coordinates, split over two planes. One hidden unit is
    softplus(40 x0 - 8), ten times which less 15 is the raw density.
    """

    def portrait(levels: tuple[int, ...], backend: str = "fast") -> TrigridPortrait:
        rng = np.random.default_rng(3)
        hidden_weight = rng.normal(0, 1, (32, 12))
        hidden_weight[:, 0] = 0
        hidden_weight[0] = 0
        hidden_weight[0, 0] = 40 * np.sqrt(12)
        hidden_bias = rng.normal(0, 0.3, 32)
        hidden_bias[0] = -8
        output_weight = rng.normal(0, 0.5, (33, 32))
        output_weight[0] = 0
        output_weight[0, 0] = 10 * np.sqrt(32)
        output_weight[1:, 0] = 0
        output_bias = np.concatenate([[-15.0], rng.normal(0, 0.3, 32)])
        layers = (hidden_weight, hidden_bias, output_weight, output_bias)
        affine = (torch.zeros(32, 512), torch.full((32,), 32**0.5))
        return TrigridPortrait(
            {level: ellipsoid_level(level) for level in levels},
            Decoder(*(torch.from_numpy(layer).float() for layer in layers)),
            ToRgb(*affine, torch.from_numpy(rng.normal(0, 0.3, (3, 32))).float(), torch.zeros(3)),
            torch.zeros(14, 512),
            torch.from_numpy(rng.normal(0, 1, (32, 128, 128))).float(),
            rendering=TrigridRenderSettings(backend=backend),
        )

    return portrait


ELLIPSOID_AXES = (0.5, 0.6, 0.55)


def ellipsoid_level(resolution: int) -> torch.Tensor:
    """One level [3, 12, 3, r, r]; three times the values, since the field is the mean over the planes."""
    a, b, c = ELLIPSOID_AXES
    centers = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    v, u = torch.meshgrid(centers, centers, indexing="ij")
    grid = torch.zeros(3, 12, 3, resolution, resolution)
    grid[0, 0] = 1 - (u / a) ** 2 - (v / b) ** 2
    grid[2, 0] = -((v / c) ** 2)
    for channel in range(1, 12):
        for plane in range(3):
            grid[plane, channel] = torch.sin(channel * u + plane) * torch.cos((channel + 1) * v)
    return 3 * grid
