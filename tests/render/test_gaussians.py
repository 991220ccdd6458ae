"""Gaussian rasterisers against the dense float64 renderer and central differences, and what they do at the edges."""

from __future__ import annotations

import dataclasses
import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.cameras import Cameras, intrinsics, orbit_cameras
from animportrait3d_core.errors import InvalidInput, MissingExtension, ShapeMismatch
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.render import rasterize_gaussians, render_gaussians
from tests.render.conformance import (
    INPUT_NAMES,
    SplatScene,
    backend_parameters,
    dense_render,
    loss_of,
    relative_error,
    splat_scene,
)

BACKENDS = backend_parameters("gaussians")
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def single(dtype=torch.float32, **changes) -> SplatScene:
    """One small opaque Gaussian at the look-at point."""
    scene = splat_scene(1, 0).leaves(dtype)
    values = dict(
        means=torch.tensor([[0.0, 0.228, 0.0]]),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 0.05),
        opacities=torch.tensor([0.9]),
        colors=torch.tensor([[1.0, 0.5, 0.25]]),
        background=torch.zeros(3),
        features=torch.zeros(1, 0),
    )
    return dataclasses.replace(scene, **{name: value.to(dtype) for name, value in (values | changes).items()})


@each_backend
@pytest.mark.parametrize("coefficients", [0, 1, 4, 9, 16])
def test_image_and_gradients_match_the_dense_renderer(backend, coefficients):
    reference = splat_scene(coefficients=coefficients, seed=coefficients)
    exact, tested = reference.leaves(torch.float64), reference.leaves(torch.float32)
    expected, image = dense_render(exact), tested.render(backend)
    torch.testing.assert_close(image.color.double(), expected.color, atol=3e-6, rtol=0)
    torch.testing.assert_close(image.alpha.double(), expected.alpha, atol=3e-6, rtol=0)
    torch.testing.assert_close(image.features.double(), expected.features, atol=1e-5, rtol=0)
    seen = expected.alpha > 0.05
    torch.testing.assert_close(image.depth.double()[seen], expected.depth[seen], atol=2e-5, rtol=0)
    loss_of(expected).backward()
    loss_of(image).backward()
    for name, gradient in tested.gradients().items():
        error = relative_error(gradient, exact.gradients()[name])
        assert error < 2e-5, f"gradient of {name}: relative error {error:.1e}"


@each_backend
def test_gradients_with_per_camera_inputs(backend):
    shared = splat_scene(50, seed=3)
    generator = torch.Generator().manual_seed(9)
    changes = {}
    for name, spread in (("means", 0.05), ("quats", 0.3), ("scales", 0.005), ("opacities", 0.05), ("features", 0.5)):
        value = getattr(shared, name)
        noise = spread * torch.randn(2, *value.shape, generator=generator, dtype=torch.float64)
        changes[name] = (value + noise).clamp(0.01, 0.95) if name == "opacities" else value + noise
    reference = dataclasses.replace(shared, **changes)
    exact, tested = reference.leaves(torch.float64), reference.leaves(torch.float32)
    expected, image = dense_render(exact), tested.render(backend)
    torch.testing.assert_close(image.color.double(), expected.color, atol=3e-6, rtol=0)
    loss_of(expected).backward()
    loss_of(image).backward()
    for name in INPUT_NAMES:
        assert relative_error(tested.gradients()[name], exact.gradients()[name]) < 2e-5, name


@pytest.mark.parametrize("name", INPUT_NAMES)
def test_dense_gradients_match_central_differences(name):
    """The oracle itself: its autograd gradient along a random direction against differences of its images."""
    scene = splat_scene(40, coefficients=9, seed=5)
    exact = scene.leaves(torch.float64)
    loss_of(dense_render(exact)).backward()
    value = getattr(scene, name)
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-8  # so small that no pixel passes the 1/255 cut, where the image jumps, in between
    ahead = loss_of(dense_render(dataclasses.replace(scene, **{name: value + step * direction})))
    behind = loss_of(dense_render(dataclasses.replace(scene, **{name: value - step * direction})))
    slope = float((ahead - behind) / (2 * step))
    assert float((exact.gradients()[name] * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("backend", [pytest.param("torch")])
def test_torch_back_end_keeps_float64(backend):
    scene = splat_scene(30).leaves(torch.float64)
    image = scene.render(backend)
    assert image.color.dtype == torch.float64
    torch.testing.assert_close(image.color, dense_render(scene).color, atol=1e-12, rtol=0)


@each_backend
def test_means2d_gradient_is_readable_for_densification(backend):
    scene = single().leaves(torch.float32)
    image = scene.render(backend)
    means2d = image.info["means2d"]
    means2d.retain_grad()
    column = torch.arange(image.color.shape[2]) + 0.5 - float(means2d.detach().reshape(2, 2)[0, 0])
    (image.color[..., 0] * column).sum().backward()
    assert means2d.grad.shape == means2d.shape
    # Moving a blob by one pixel moves its centroid by one pixel: the gradient is its mass, less what the cut at 1/255
    # takes away: with u = ln(255 opacity), the share 1 - exp(-u) (1 + u) of the whole Gaussian instead of 1 - exp(-u).
    mass, cut = float(image.color[0, ..., 0].detach().sum()), 255.0 * 0.9
    expected = mass * (1.0 - (1.0 + math.log(cut)) / cut) / (1.0 - 1.0 / cut)
    assert float(means2d.grad.reshape(2, 2)[0, 0]) == pytest.approx(expected, rel=0.01)


@each_backend
def test_one_gaussian_closed_form(backend):
    scene = single()
    camera = Cameras(torch.eye(4)[None].clone(), intrinsics(90.0, 16, 16)[None], 16, 16)
    mean = torch.tensor([[0.5 / 8.0 * 2.0, 0.5 / 8.0 * 2.0, 2.0]])  # projects onto the centre of pixel (8, 8)
    scale = 0.25
    image = rasterize_gaussians(
        mean, scene.quats, torch.full((1, 3), scale), scene.opacities, scene.colors, camera, backend=backend
    )
    slope = 0.5 / 8.0
    focal = 8.0
    x, xx, yy = 3.0, (focal * scale / 2.0) ** 2 * (1 + slope**2) + 0.3, (focal * scale / 2.0) ** 2 * slope**2
    determinant = xx * xx - yy * yy
    for dx in (0, 1, -2, x):
        alpha = 0.9 * float(torch.exp(torch.tensor(-0.5 * dx * dx * xx / determinant, dtype=torch.float64)))
        column = 8 + int(dx)
        assert float(image.alpha[0, 8, column]) == pytest.approx(alpha, rel=2e-6)
        assert float(image.color[0, 8, column, 1]) == pytest.approx(0.5 * alpha, rel=2e-6)
    assert float(image.depth[0, 8, 8]) == pytest.approx(2.0, rel=1e-6)
    assert image.depth[0, 0, 0] == 0.0 and image.alpha[0, 0, 0] == 0.0
    assert image.info["visible"].tolist() == [[True]] and int(image.info["radii"]) > 0


@each_backend
@pytest.mark.parametrize("coefficients", [0, 4])
def test_empty_scene_shows_the_background(backend, coefficients):
    scene = splat_scene(0, coefficients=coefficients).leaves(torch.float32)
    image = scene.render(backend)
    torch.testing.assert_close(image.color, scene.background.expand_as(image.color), atol=0, rtol=0)
    assert not image.alpha.any() and not image.depth.any() and image.features.shape[-1] == 2
    image.color.sum().backward()
    torch.testing.assert_close(scene.background.grad, torch.full((3,), 2.0 * 37 * 29))
    assert scene.means.grad is None or scene.means.grad.shape == (0, 3)


@each_backend
def test_gaussians_behind_the_camera_or_transparent_do_nothing(backend):
    scene = splat_scene(40, seed=8)
    camera = scene.cameras[0]
    behind = scene.means + 2.0 * (camera.camera_centers.double() - scene.means)
    extra = dataclasses.replace(
        scene,
        cameras=camera,
        **{name: torch.cat([getattr(scene, name)] * 3) for name in INPUT_NAMES if name != "background"},
    )
    extra.means[40:80] = behind
    extra.opacities[80:] = 0.9 / 255.0
    tested = extra.leaves(torch.float32)
    image = tested.render(backend)
    expected = dataclasses.replace(scene, cameras=camera).leaves(torch.float32).render(backend)
    torch.testing.assert_close(image.color, expected.color, atol=1e-6, rtol=0)
    loss_of(image).backward()
    for name, gradient in tested.gradients().items():
        assert torch.isfinite(gradient).all(), name
        assert name == "background" or not gradient[40:].any(), name


@each_backend
def test_saturated_alpha_has_no_gradient(backend):
    scene = single(opacities=torch.tensor([1.0]), scales=torch.full((1, 3), 50.0))
    for name in ("means", "scales", "opacities"):
        getattr(scene, name).requires_grad_()
    image = scene.render(backend)
    assert float(image.alpha.detach().max()) == pytest.approx(0.999, abs=1e-6)
    image.alpha.sum().backward()
    for name in ("means", "scales", "opacities"):
        assert not getattr(scene, name).grad.any(), name


@each_backend
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 17), (16, 16), (15, 31)])
def test_sizes_that_are_no_multiples_of_a_tile(backend, size):
    scene = splat_scene(60, size=size, seed=2)
    image = scene.leaves(torch.float32).render(backend)
    assert image.color.shape == (2, size[1], size[0], 3)
    torch.testing.assert_close(image.color.double(), dense_render(scene).color, atol=3e-6, rtol=0)


@each_backend
def test_size_argument_renders_the_same_view_at_another_resolution(backend):
    scene = splat_scene(20)
    small = dataclasses.replace(scene, cameras=scene.cameras.resized(20, 24)).leaves(torch.float32).render(backend)
    tested = scene.leaves(torch.float32)
    image = rasterize_gaussians(
        tested.means,
        tested.quats,
        tested.scales,
        tested.opacities,
        tested.colors,
        tested.cameras,
        size=(20, 24),
        background=tested.background,
        features=tested.features,
        backend=backend,
    )
    assert torch.equal(image.color, small.color)
    with pytest.raises(InvalidInput, match="0 x 24"):
        rasterize_gaussians(
            tested.means, tested.quats, tested.scales, tested.opacities, tested.colors, tested.cameras, size=(0, 24)
        )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    count=st.integers(0, 30),
    seed=st.integers(0, 10_000),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    spread=st.floats(-2.0, 2.0),
)
def test_numba_equals_dense_on_random_scenes(count, seed, width, height, spread):
    pytest.importorskip("numba")
    scene = splat_scene(count, seed=seed, size=(width, height))
    scene = dataclasses.replace(scene, scales=scene.scales * 10.0**spread)
    image = scene.leaves(torch.float32).render("numba")
    # Where alpha lies within rounding of the 1/255 cut, one side may keep it and the other skip it.
    error = (image.color.detach().double() - dense_render(scene).color).abs()
    assert float(error.median()) < 2e-6
    assert int((error.amax(-1) > 1e-5).sum()) <= 2 and float(error.max()) < 0.02


@each_backend
def test_batch_equals_single_views(backend):
    scene = splat_scene(60, views=3).leaves(torch.float32)
    batch = scene.render(backend)
    for b in range(3):
        alone = dataclasses.replace(scene, cameras=scene.cameras[b]).render(backend)
        torch.testing.assert_close(batch.color[b], alone.color[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(batch.info["radii"][b], alone.info["radii"][0])


@each_backend
@pytest.mark.parametrize("name", INPUT_NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_input_is_refused_by_name(backend, name, bad):
    scene = splat_scene(10).leaves(torch.float32)
    value = getattr(scene, name).detach().clone()
    value.view(-1)[:2] = bad
    label = "colors_or_sh" if name == "colors" else name
    with pytest.raises(InvalidInput, match=f"`{label}` holds 2 non-finite values"):
        dataclasses.replace(scene, **{name: value}).render(backend)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("means", (10, 2)),
        ("means", (10,)),
        ("quats", (9, 4)),
        ("quats", (10, 3)),
        ("scales", (3, 10, 3)),
        ("opacities", (10, 1)),
        ("colors", (10, 4)),
        ("colors", (10, 5, 3)),
        ("colors", (9, 3)),
        ("features", (9, 2)),
        ("features", (10,)),
        ("background", (4,)),
        ("background", (3, 3)),
    ],
)
def test_wrong_shapes_are_refused(name, shape):
    scene = splat_scene(10).leaves(torch.float32)
    with pytest.raises(ShapeMismatch, match="expected"):
        dataclasses.replace(scene, **{name: torch.zeros(shape)}).render("auto")


def test_unknown_and_missing_back_ends_are_named():
    scene = splat_scene(2).leaves(torch.float32)
    with pytest.raises(InvalidInput, match="unknown backend 'opengl'"):
        scene.render("opengl")
    if not torch.cuda.is_available():
        with pytest.raises(MissingExtension, match="torch sees no CUDA GPU"):
            scene.render("gsplat")


def test_skewed_cameras_are_refused():
    scene = splat_scene(2).leaves(torch.float32)
    K = scene.cameras.K.clone()
    K[:, 0, 1] = 0.5
    with pytest.raises(InvalidInput, match="skew"):
        dataclasses.replace(scene, cameras=dataclasses.replace(scene.cameras, K=K)).render("auto")


@pytest.mark.parametrize("backend", [parameter for parameter in BACKENDS if parameter.values[0] != "gsplat"])
def test_results_are_bit_identical_for_any_number_of_threads(backend):
    results = []
    before = torch.get_num_threads()
    counts = (1, 1) if backend == "torch" else (1, 1, 2, 4)  # torch's own reductions depend on its threads
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            scene = splat_scene(200, coefficients=9, views=3, size=(50, 40)).leaves(torch.float32)
            image = scene.render(backend)
            loss_of(image).backward()
            results.append([image.color, image.alpha, image.depth, *scene.gradients().values()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@each_backend
def test_two_threads_render_at_once(backend):
    scenes = [splat_scene(200, seed=seed, size=(48, 32)) for seed in (0, 1)]
    expected = [scene.leaves(torch.float32).render(backend).color.detach() for scene in scenes]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(4):
            scene = scenes[index].leaves(torch.float32)
            image = scene.render(backend)
            loss_of(image).backward()
            if not torch.equal(image.color, expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


@each_backend
def test_inference_mode_and_tensors_made_in_it(backend):
    expected = splat_scene(30).leaves(torch.float32).render(backend).color.detach()
    with torch.inference_mode():
        scene = splat_scene(30)
        made = dataclasses.replace(scene, **{name: getattr(scene, name).float() for name in INPUT_NAMES})
        torch.testing.assert_close(made.render(backend).color, expected, atol=1e-6, rtol=0)
    assert made.means.is_inference()
    learned = dataclasses.replace(made, means=made.means.clone().requires_grad_())
    image = learned.render(backend)  # tensors from a host that runs under inference mode, in a training step of ours
    image.color.sum().backward()
    torch.testing.assert_close(image.color, expected, atol=1e-6, rtol=0)
    assert learned.means.grad.abs().sum() > 0


def test_inputs_and_outputs_do_not_share_memory():
    scene = splat_scene(30).leaves(torch.float32)
    before = [getattr(scene, name).detach().clone() for name in INPUT_NAMES]
    image, again = scene.render("auto"), scene.render("auto")
    loss_of(again).backward()
    expected = {name: gradient.clone() for name, gradient in scene.gradients().items()}
    for name in INPUT_NAMES:
        getattr(scene, name).grad = None
    loss = loss_of(image)
    with torch.no_grad():
        image.color.zero_()
    loss.backward()
    for name, old in zip(INPUT_NAMES, before):
        assert torch.equal(getattr(scene, name), old)
        assert torch.equal(scene.gradients()[name], expected[name])


def test_unused_outputs_cost_no_gradient_and_change_none():
    """A loss on one output alone gives the gradient of that output alone."""
    for pick in ("color", "alpha", "depth", "features"):
        exact, tested = splat_scene(40).leaves(torch.float64), splat_scene(40).leaves(torch.float32)
        for scene, image in ((exact, dense_render(exact)), (tested, tested.render("auto"))):
            value = getattr(image, pick) * (image.alpha.detach() if pick == "depth" else 1.0)
            value.square().sum().backward()
            assert scene.means.grad is not None
        for name, gradient in tested.gradients().items():
            other = exact.gradients()[name]
            if gradient is None or not gradient.any():
                assert other is None or not other.any(), (pick, name)
            else:
                assert relative_error(gradient, other) < 1e-4, (pick, name)


def test_render_gaussians_activates_at_the_door():
    scene = splat_scene(25, coefficients=1).leaves(torch.float32)
    stored = Gaussians(
        scene.means.detach(),
        scene.quats.detach(),
        scene.scales.detach().log(),
        torch.logit(scene.opacities.detach()),
        scene.colors.detach(),
    )
    image = render_gaussians(stored, scene.cameras, background=scene.background.detach())
    torch.testing.assert_close(image.color, scene.render("auto").color, atol=1e-5, rtol=0)
    assert image.features is None


def test_reading_order_front_to_back():
    """Of two opaque blobs on one ray the nearer wins, from either side."""
    means = torch.tensor([[0.0, 0.228, 0.3], [0.0, 0.228, -0.3]])
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    cameras = orbit_cameras([0.0, 180.0], [0.0, 0.0], 33)
    image = rasterize_gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]] * 2),
        torch.full((2, 3), 0.1),
        torch.tensor([0.999, 0.999]),
        colors,
        cameras,
    )
    middle = image.color[:, 16, 16]
    assert middle[0, 0] > 0.9 > 0.1 > middle[0, 2]
    assert middle[1, 2] > 0.9 > 0.1 > middle[1, 0]
