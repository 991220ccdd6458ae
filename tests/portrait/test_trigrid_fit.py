"""The fitter: its gradients against central differences, its result, its repeatability."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait, save_trigrid_portrait
from animportrait3d_core.portrait.trigrid.field import sample_trigrids
from animportrait3d_core.portrait.trigrid.fit import TrigridFitSettings, fit_trigrid, silhouette_hull, view_psnr
from animportrait3d_core.portrait.trigrid.fit_kernels import SLOTS, RayBatch, learn_empty, learn_rays
from animportrait3d_core.portrait.trigrid.fit_state import empty_gradients, initial_state, portrait_of
from animportrait3d_core.portrait.trigrid.settings import FieldSettings
from animportrait3d_core.views import Views

HALF_CUBE = FieldSettings().half_cube
WHITE = torch.ones(3)
SMALL = TrigridFitSettings(levels=(8, 32), iterations=40, rays=512, refresh=20, empty_points=256)


@pytest.fixture(scope="module")
def views(make_ellipsoid) -> Views:
    """Twenty small pictures of a patterned ellipsoid."""
    source = make_ellipsoid((32,))
    turns = [18.0 * i for i in range(20)]
    cameras = orbit_cameras(turns, [25.0 * (-1) ** i for i in range(20)], 40, target=(0.0, 0.0, 0.0))
    image = source.render(cameras, WHITE)
    return Views(image.images, image.masks, cameras, WHITE)


def small_state():
    state = initial_state((8, 16), np.ones((4, 4, 4), bool), np.random.default_rng(1))
    generator = np.random.default_rng(2)
    for name, value in state.parts.items():
        noise = generator.normal(0, 0.3, value.shape).astype(np.float32)
        state.parts[name] = value + noise * (value != 0) + (0.1 * noise if name.endswith("bias") else 0)
    return state


def small_batch(solid_weight: float = 0.0) -> RayBatch:
    generator = np.random.default_rng(3)
    rays = 12
    origins = np.tile(np.float32([0.0, 0.1, 2.65]), (rays, 1))
    directions = generator.normal(0, 0.08, (rays, 3)) + [0, 0, -1]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return RayBatch(
        origins / np.float32(HALF_CUBE),
        (directions / HALF_CUBE).astype(np.float32),
        np.full(rays, 1.6, np.float32),
        np.float32(0.1),
        22,
        generator.normal(0, 0.5, (rays, 4)).astype(np.float32),
        generator.normal(0, 0.5, (rays, 3)).astype(np.float32),
        np.ones((4, 4, 4), bool),
        np.float32(0.7),
        np.float32(solid_weight),
    )


def reference_loss(state, batch: RayBatch, parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same loss in plain float64 torch: all samples inside the cube's cells, no early end."""
    levels, start = {}, 0
    for level in state.levels:
        size = 3 * (level + 2) ** 2 * 3
        block = parts["texels"][start : start + size].reshape(3, level + 2, level + 2, 3, 16)[:, 1:-1, 1:-1]
        levels[level] = block.permute(0, 4, 3, 1, 2) * (3 * len(state.levels))
        start += size
    step = float(batch.step)
    depths = torch.from_numpy(batch.near).double()[:, None] + step * torch.arange(batch.steps)
    origins, directions = torch.from_numpy(batch.origins).double(), torch.from_numpy(batch.directions).double()
    points = origins[:, None] + depths[..., None] * directions[:, None]
    hidden = torch.nn.functional.softplus(
        sample_trigrids(levels, points.reshape(-1, 3)) @ parts["hidden_weight"] + parts["hidden_bias"]
    )
    values = (hidden @ parts["output"][:, :32].T + parts["output"][:, 32]).reshape(len(points), -1, 4)
    inside = (points.abs() <= 1).all(dim=-1)
    between = 0.5 * (values[:, 1:] + values[:, :-1])
    alpha = 1 - torch.exp(-torch.nn.functional.softplus(between[..., 0] - 1) * step)
    alpha = alpha * (inside[:, 1:] | inside[:, :-1])
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha], dim=1), dim=1)
    weights = alpha * passed[:, :-1]
    colors = (weights[..., None] * between[..., 1:]).sum(1) + passed[:, -1:] * torch.from_numpy(batch.behind).double()
    target = torch.from_numpy(batch.targets).double()
    colour_error = (colors - target[:, :3]).square().sum(1)
    return (colour_error + float(batch.mask_weight) * (weights.sum(1) - target[:, 3]).square()).mean()


def test_ray_gradients_equal_autograd() -> None:
    """Loss and gradients of grids and decoder against a float64 version written with torch operations."""
    state, batch = small_state(), small_batch()
    gradients, losses = empty_gradients(state), np.zeros(SLOTS)
    learn_rays((state.field(), state.parts["output"]), batch, gradients, losses, 0, SLOTS)
    parts = {name: torch.from_numpy(value).double().requires_grad_() for name, value in state.parts.items()}
    loss = reference_loss(state, batch, parts)
    loss.backward()
    assert losses.sum() == pytest.approx(loss.item(), rel=1e-4)
    for name, part in parts.items():
        found = torch.from_numpy(getattr(gradients, name).sum(axis=0)).double().reshape(part.shape)
        expected = part.grad
        if name == "texels":
            found = found * (expected != 0)  # the border's gradient is not used
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4 * expected.abs().max().item())


def test_empty_gradients_equal_autograd() -> None:
    state = small_state()
    points = np.random.default_rng(5).uniform(-0.9, 0.9, (40, 3)).astype(np.float32)
    gradients = empty_gradients(state)
    output = state.parts["output"]
    learn_empty((state.field(), output), points, np.float32(-2), np.float32(0.3), gradients, 0, SLOTS)
    portrait = portrait_of(state, WHITE, "", torch.float32)
    features = sample_trigrids(portrait.levels, torch.from_numpy(points)).double()
    weight = torch.from_numpy(state.parts["hidden_weight"][:12]).double()
    row = torch.from_numpy(output[0]).double().requires_grad_()
    hidden = torch.nn.functional.softplus(features @ weight + torch.from_numpy(state.parts["hidden_bias"]))
    (0.3 * torch.nn.functional.softplus(hidden @ row[:32] + row[32] + 2).mean()).backward()
    found = torch.from_numpy(gradients.output.sum(axis=0)[0]).double()
    torch.testing.assert_close(found, row.grad, rtol=0, atol=1e-5)


def test_dark_samples_are_pulled_to_opacity() -> None:
    state = small_state()
    state.parts["output"][0, 32] = 40  # opaque at once: the samples behind the first see little light
    with_pull, without = empty_gradients(state), empty_gradients(state)
    for gradients, batch in ((with_pull, small_batch(0.1)), (without, small_batch())):
        learn_rays((state.field(), state.parts["output"]), batch, gradients, np.zeros(SLOTS), 0, SLOTS)
    assert with_pull.output.sum(axis=0)[0, 32] < without.output.sum(axis=0)[0, 32] - 0.1


def test_hull_holds_the_subject_and_little_more(views) -> None:
    hull = silhouette_hull(views, FieldSettings())
    side = len(hull)
    line = (np.arange(side) + 0.5) * 2 / side - 1
    x, y, z = np.meshgrid(line, line, line, indexing="ij")
    share = (x / 0.5) ** 2 + (y / 0.6) ** 2 + (z / 0.55) ** 2
    assert hull[share < 0.75].all()
    assert hull.sum() < 2.0 * (share < 1).sum()  # a margin of half a cell and two of these coarse pixels
    assert not hull[np.abs(x) > 0.81].any()


def test_fit_reproduces_the_pictures(views, tmp_path) -> None:
    settings = TrigridFitSettings(levels=(8, 32), iterations=250, rays=1024, refresh=50)
    fit = fit_trigrid(views, np.random.default_rng(0), settings, prompt="an egg")
    assert fit.losses[-20:].mean() < 0.1 * fit.losses[:5].mean()
    assert view_psnr(fit.portrait, views) > 25
    path = tmp_path / "egg.safetensors"
    save_trigrid_portrait(fit.portrait, path)
    again = load_trigrid_portrait(path)
    assert again.prompt == "an egg"
    assert torch.equal(again.levels[32], fit.portrait.levels[32])
    image = again.render(views.cameras[0], torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(image.images[0, 0, 0], torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=0.02)


def assert_same_portrait(first, second) -> None:
    assert all(torch.equal(first.levels[level], second.levels[level]) for level in first.levels)
    assert torch.equal(first.decoder.output_weight, second.decoder.output_weight)


def test_an_interrupted_fit_ends_as_an_uninterrupted_one(views, tmp_path) -> None:
    whole = fit_trigrid(views, np.random.default_rng(7), SMALL)

    class Stop(Exception):
        pass

    def stop_at_33(step: int, steps: int, values: dict) -> None:
        if step == 33:
            raise Stop

    with pytest.raises(Stop):
        fit_trigrid(views, np.random.default_rng(7), SMALL, run_folder=tmp_path, report=stop_at_33)
    resumed = fit_trigrid(views, np.random.default_rng(7), SMALL, run_folder=tmp_path)
    assert len(resumed.losses) == 7  # of 40
    assert_same_portrait(resumed.portrait, whole.portrait)


def test_threads_change_nothing(views) -> None:
    threads = torch.get_num_threads()
    settings = dataclasses.replace(SMALL, iterations=6)
    fits = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            fits.append(fit_trigrid(views, np.random.default_rng(7), settings).portrait)
    finally:
        torch.set_num_threads(threads)
    assert_same_portrait(fits[0], fits[1])
    assert_same_portrait(fits[0], fits[2])


def test_bad_input_is_named(views, tmp_path) -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(InvalidInput, match="no common region"):
        fit_trigrid(dataclasses.replace(views, masks=torch.zeros_like(views.masks)), generator, SMALL)
    with pytest.raises(InvalidInput, match="non-finite"):
        fit_trigrid(dataclasses.replace(views, images=views.images * float("nan")), generator, SMALL)
    with pytest.raises(InvalidInput, match="trigrids_48"):
        TrigridFitSettings(levels=(8, 48))
    short = dataclasses.replace(SMALL, iterations=2)
    fit_trigrid(views, np.random.default_rng(0), short, run_folder=tmp_path)
    with pytest.raises(InvalidInput, match="made with another views, settings or seed"):
        fit_trigrid(views, np.random.default_rng(1), short, run_folder=tmp_path)
