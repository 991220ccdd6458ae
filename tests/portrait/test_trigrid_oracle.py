"""Both back-ends against the original renderer's numbers (`tests/data/portrait3d_trigrid_oracle.npz`)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.portrait.trigrid import (
    RaySamples,
    query_density,
    render_background,
    render_trigrid,
    to_uint8,
)
from animportrait3d_core.portrait.trigrid.field import crop_density, query_field
from animportrait3d_core.portrait.trigrid.march import importance_depths, interval_weights
from animportrait3d_core.portrait.trigrid.rays import camera_rays, coarse_depths, ray_interval

RGB, COVERAGE, DEPTH = 1e-3, 2e-4, 1e-3
IMAGES = {"cam0": 48, "cam1": 32, "cam2": 48, "cam0_zerobg": 48, "explicit": 12}
BACKENDS = ("dense", "fast")


def rendered(values, portrait, oracle_camera, name: str):
    """The picture of a reference case."""
    camera = oracle_camera(name if name in ("cam0", "cam1", "cam2") else "cam0", IMAGES[name])
    samples = None
    if name == "explicit":
        samples = RaySamples(values["A/explicit_jitter_u16"] / 65536, values["A/explicit_u_u16"] / 65536)
    if name == "cam0_zerobg":
        portrait = dataclasses.replace(portrait, background_features=torch.zeros(32, 128, 128))
    return render_trigrid(portrait, camera, samples=samples)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_images_match_reference(trigrid_oracle, oracle_portrait, oracle_camera, backend: str, name: str) -> None:
    image = rendered(trigrid_oracle, oracle_portrait[backend], oracle_camera, name)
    parts = ("rgb", "rgb_uint8", "mask", "weights_sum", "depth")
    expected = {part: trigrid_oracle[f"A/{name}_{part}"] for part in parts}
    torch.testing.assert_close(image.rgb[0].permute(2, 0, 1), expected["rgb"], rtol=0, atol=RGB)
    torch.testing.assert_close(image.coverage[0], expected["weights_sum"], rtol=0, atol=COVERAGE)
    torch.testing.assert_close(image.mask[0], expected["mask"], rtol=0, atol=COVERAGE)
    seen = expected["weights_sum"] > 0.1
    torch.testing.assert_close(image.depth[0][seen], expected["depth"][seen], rtol=0, atol=DEPTH)
    difference = (to_uint8(image.rgb[0]).int() - expected["rgb_uint8"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_density_matches_reference(trigrid_oracle, oracle_portrait, backend: str) -> None:
    points = trigrid_oracle["A/density_points_native"] * 3
    density = query_density(oracle_portrait[backend], points)
    torch.testing.assert_close(density, trigrid_oracle["A/density_sigma_raw"], rtol=0, atol=1e-3)


def test_features_match_reference(trigrid_oracle, oracle_portrait) -> None:
    _, features = query_field(oracle_portrait["dense"], trigrid_oracle["A/density_points_native"] * 3)
    torch.testing.assert_close(features, trigrid_oracle["A/density_features"], rtol=0, atol=1e-4)


def test_intermediate_numbers_of_rays(trigrid_oracle, oracle_portrait, oracle_camera) -> None:
    """Directions, coarse depths, cropped densities, coarse weights and fine depths of four rays."""
    values, portrait = trigrid_oracle, oracle_portrait["dense"]
    origins, directions = camera_rays(oracle_camera("cam0", 48))
    chosen = directions[0, values["A/rays_pixel_index"]]
    torch.testing.assert_close(origins.expand(4, 3), values["A/rays_origin"], rtol=0, atol=1e-6)
    torch.testing.assert_close(chosen, values["A/rays_dir"], rtol=0, atol=1e-6)
    depths = coarse_depths(ray_interval(portrait.field, origins[0]), 96).expand(4, -1)
    torch.testing.assert_close(depths, values["A/rays_depth_coarse"], rtol=0, atol=1e-6)
    points = origins[0] + depths[..., None] * chosen[:, None]
    density = query_field(portrait, points.reshape(-1, 3))[0].reshape(4, 96)
    density = crop_density(portrait.field, points, density)
    torch.testing.assert_close(density, values["A/rays_sigma_raw_cropped"], rtol=0, atol=1e-3)
    weights, _ = interval_weights(depths, density)
    torch.testing.assert_close(weights, values["A/rays_weights_coarse"], rtol=0, atol=1e-4)
    fine = importance_depths(depths, weights, torch.linspace(0, 1, 96).expand(4, -1))
    torch.testing.assert_close(fine, values["A/rays_depth_fine"], rtol=0, atol=1e-4)


def test_background_picture_uses_its_own_style(trigrid_oracle, oracle_portrait) -> None:
    image = render_background(oracle_portrait["dense"], 48, 48).permute(2, 0, 1)
    torch.testing.assert_close(image, trigrid_oracle["A/image_background_48"], rtol=0, atol=1e-4)
