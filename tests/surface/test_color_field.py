"""The colour field: it finds a known colouring, ignores what it must, and is the same for the same seed."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from animportrait3d_core.cameras import Cameras, orbit_cameras, view_preset
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.files import read_safetensors, write_safetensors
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.render import interpolate, rasterize_mesh
from animportrait3d_core.surface.color_field import (
    ColorField,
    field_colors,
    load_color_field,
    new_color_field,
    render_field,
    save_color_field,
)
from animportrait3d_core.surface.color_training import (
    ColorFieldSettings,
    key_views,
    observe,
    tone_map,
    train_color_field,
)
from animportrait3d_core.surface.hash_grid_settings import HashGridSettings
from animportrait3d_core.views import Views

SIZE = 64
GRID = HashGridSettings(levels=6, base_resolution=8, max_resolution=64, log2_table_size=13)
QUICK = ColorFieldSettings(iterations=120, pixels_per_step=2000, grid=GRID, smoothness_ramp=100)
CENTER = torch.tensor([0.0, 0.2, 0.0])
BACKGROUND = torch.tensor([0.1, 0.9, 0.3])


def true_colors(points: torch.Tensor) -> torch.Tensor:
    """A smooth colouring of space with another pattern in each channel."""
    x, y, z = (8 * (points - CENTER)).unbind(-1)
    return torch.stack([0.5 + 0.4 * torch.sin(x), 0.5 + 0.4 * torch.cos(y), 0.3 + 0.2 * torch.sin(z + y)], dim=-1)


@pytest.fixture(scope="module")
def ball() -> Mesh:
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=4, radius=0.45)
    return Mesh(torch.from_numpy(sphere.vertices).float() + CENTER, torch.from_numpy(sphere.faces).long())


def colored_views(mesh: Mesh, cameras: Cameras) -> Views:
    image = rasterize_mesh(mesh.vertices, mesh.faces, cameras)
    colors = true_colors(interpolate(image, mesh.faces, mesh.vertices))
    mask = image.mask.float()[..., None]
    return Views(colors * mask + BACKGROUND * (1 - mask), mask[..., 0], cameras, BACKGROUND)


@pytest.fixture(scope="module")
def views(ball: Mesh) -> Views:
    return colored_views(ball, orbit_cameras([0.0, 90, 180, -90, 45, -135], [0.0, 10, 0, -10, 60, -60], SIZE))


@pytest.fixture(scope="module")
def field(ball: Mesh, views: Views) -> ColorField:
    return train_color_field(ball, views, QUICK, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(first: ColorField, second: ColorField) -> bool:
    pairs = [(first.table, second.table), (first.low, second.low), (first.high, second.high)]
    return all(torch.equal(a, b) for a, b in [*pairs, *zip(first.weights, second.weights, strict=True)])


def test_it_finds_a_known_colouring_between_the_pixels(ball: Mesh, field: ColorField) -> None:
    generator = seeded(9)
    points = torch.nn.functional.normalize(torch.randn(2000, 3, generator=generator), dim=1) * 0.449 + CENTER
    error = (field(points) - true_colors(points)).abs()
    assert float(error.mean()) < 0.01
    assert float(error.max()) < 0.1


def test_it_shows_the_mesh_from_a_new_side(ball: Mesh, field: ColorField) -> None:
    camera = orbit_cameras([25.0], [-20.0], SIZE)
    wanted = colored_views(ball, camera)
    found = render_field(ball, field, camera, BACKGROUND)
    inside = wanted.masks > 0
    assert float((found - wanted.images)[inside].abs().mean()) < 0.012
    assert torch.equal(found[~inside], wanted.images[~inside])


def test_the_seed_decides_everything(ball: Mesh, views: Views) -> None:
    short = dataclasses.replace(QUICK, iterations=4)
    first = train_color_field(ball, views, short, 3)
    assert same(first, train_color_field(ball, views, short, 3))
    assert not same(first, train_color_field(ball, views, short, 4))


def test_it_trains_inside_inference_mode_and_changes_no_input(ball: Mesh, views: Views) -> None:
    short = dataclasses.replace(QUICK, iterations=3)
    before = (ball.vertices.clone(), views.images.clone())
    outside = train_color_field(ball, views, short, 0)
    with torch.inference_mode():
        born_inside = dataclasses.replace(views, images=views.images * 1.0, masks=views.masks * 1.0)
        mesh = dataclasses.replace(ball, vertices=ball.vertices * 1.0)
        inside = train_color_field(mesh, born_inside, short, 0)
    assert same(outside, inside)
    assert not inside.table.is_inference()
    assert torch.equal(ball.vertices, before[0]) and torch.equal(views.images, before[1])


def test_smoothness_keeps_colours_from_changing_nearby(ball: Mesh, views: Views) -> None:
    short = dataclasses.replace(QUICK, iterations=40, smoothness_ramp=1, jitter=0.05)
    points = ball.vertices[::7]
    moved = points + 0.05 * torch.randn(points.shape, generator=seeded(2))

    def change(smoothness: float) -> float:
        field = train_color_field(ball, views, dataclasses.replace(short, smoothness=smoothness), 0)
        return float((field(points) - field(moved)).abs().mean())

    assert change(3.0) < 0.5 * change(0.0)


def test_the_box_surrounds_the_mesh_by_its_margin(ball: Mesh, field: ColorField) -> None:
    low, high = ball.vertices.amin(dim=0), ball.vertices.amax(dim=0)
    torch.testing.assert_close(low - field.low, 0.04 * (high - low))
    torch.testing.assert_close(field.high - high, 0.04 * (high - low))
    # Enough that no grid of the authors' wraps around.
    assert 0.04 / 1.08 > HashGridSettings().edge


def test_pixels_outside_the_mask_are_not_looked_at(ball: Mesh, views: Views) -> None:
    short = dataclasses.replace(QUICK, iterations=3)
    masks = views.masks.clone()
    masks[:, : SIZE // 2] = 0.5
    half = dataclasses.replace(views, masks=masks)
    images = views.images.clone()
    images[:, : SIZE // 2] = torch.tensor([1.0, 0.0, 1.0])
    painted = dataclasses.replace(half, images=images)
    assert same(train_color_field(ball, half, short, 0), train_color_field(ball, painted, short, 0))
    trusting = dataclasses.replace(short, mask_threshold=0.0)
    assert not same(train_color_field(ball, half, trusting, 0), train_color_field(ball, painted, trusting, 0))


def test_observations_are_the_visible_surface_with_its_colours(ball: Mesh, views: Views) -> None:
    seen = observe(ball, views, QUICK)
    assert seen.starts.tolist()[0] == 0 and int(seen.starts[-1]) == len(seen) == int((views.masks > 0).sum())
    torch.testing.assert_close(seen.colors, true_colors(seen.points), rtol=0, atol=1e-5)
    for view in range(len(views)):
        rows = slice(int(seen.starts[view]), int(seen.starts[view + 1]))
        outward = torch.nn.functional.normalize(seen.points[rows] - CENTER, dim=-1)
        sight = torch.nn.functional.normalize(views.cameras.camera_centers[view] - seen.points[rows], dim=-1)
        cosine = (outward * sight).sum(-1)
        assert float(cosine.min()) > -0.1  # nothing from the far side
        # Faces are flat, the ball is round: their normals differ by up to 3 degrees.
        torch.testing.assert_close(seen.weights[rows], cosine, rtol=0, atol=0.06)
    even = observe(ball, views, dataclasses.replace(QUICK, facing_weight=False))
    assert torch.equal(even.weights, torch.ones(len(even)))


def test_key_views_are_front_left_back_and_right() -> None:
    cameras = view_preset("mesh24", 8)
    nothing = Views(torch.zeros(24, 8, 8, 3), torch.zeros(24, 8, 8), cameras, torch.ones(3))
    assert key_views(nothing) == [8, 9, 10, 11]  # the authors' key views


def test_tone_map_is_the_srgb_curve_of_the_logarithm() -> None:
    for value in (0.0, 0.001, 0.003, 0.0032, 0.2, 1.0):
        x = math.log(1 + value)
        wanted = 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055
        assert float(tone_map(torch.tensor(value))) == pytest.approx(wanted, abs=1e-6)


def test_gradients_of_the_network_by_central_differences() -> None:
    field = new_color_field(-torch.ones(3), torch.ones(3), seeded(), GRID)
    points = torch.rand(20, 3, generator=seeded(1)) - 0.5
    double = dataclasses.replace(
        field, table=field.table.double() * 1e4, weights=tuple(weight.double() for weight in field.weights)
    )
    leaves = [double.table.requires_grad_(), *(weight.requires_grad_() for weight in double.weights)]
    factor = torch.randn(20, 3, generator=seeded(2), dtype=torch.float64)
    found = torch.autograd.grad((field_colors(double, points.double()) * factor).sum(), leaves)
    for leaf, gradient in zip(leaves, found, strict=True):
        for flat in gradient.abs().flatten().argsort(descending=True)[:4].tolist():
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    leaf.view(-1)[flat] += step
                    values.append(float((field_colors(double, points.double()) * factor).sum()))
                    leaf.view(-1)[flat] -= step
            assert float(gradient.view(-1)[flat]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_an_untrained_field_is_nearly_grey_and_large_sets_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = new_color_field(torch.zeros(3), torch.ones(3), seeded(), GRID)
    points = torch.rand(50, 3, generator=seeded(0))
    colors = fresh(points)
    assert float((colors - 0.5).abs().max()) < 0.01
    monkeypatch.setattr("animportrait3d_core.surface.color_field.CHUNK", 7)
    torch.testing.assert_close(fresh(points), colors, rtol=0, atol=1e-6)
    assert fresh(torch.zeros(0, 3)).shape == (0, 3)


def test_save_and_load_bring_back_the_same_field(field: ColorField, tmp_path: Path) -> None:
    path = tmp_path / "field.safetensors"
    save_color_field(field, path)
    loaded = load_color_field(path)
    assert same(field, loaded) and loaded.grid == field.grid
    points = torch.rand(100, 3, generator=seeded(0))
    assert torch.equal(loaded(points), field(points))


def test_bad_files_are_named(field: ColorField, tmp_path: Path) -> None:
    path = tmp_path / "field.safetensors"
    with pytest.raises(MissingModelFile, match="does not exist"):
        load_color_field(path)
    write_safetensors(path, {"table": torch.zeros(1)}, {"format": "something else"})
    with pytest.raises(IncompatibleCheckpoint, match="'something else'"):
        load_color_field(path)
    save_color_field(field, path)
    tensors, metadata = read_safetensors(path)
    write_safetensors(path, {name: value for name, value in tensors.items() if name != "table"}, metadata)
    with pytest.raises(InvalidInput, match=r"lacks \['table'\]"):
        load_color_field(path)
    write_safetensors(path, tensors, metadata | {"grid": "{}]"})
    with pytest.raises(InvalidInput, match="grid settings cannot be read"):
        load_color_field(path)
    write_safetensors(path, tensors | {"table": tensors["table"][1:]}, metadata)
    with pytest.raises(ShapeMismatch, match="`table`"):
        load_color_field(path)


def test_progress_reports_each_step_and_may_cancel(ball: Mesh, views: Views) -> None:
    settings = dataclasses.replace(QUICK, iterations=5, preview_interval=2)
    seen: list[tuple[int, int, bool]] = []

    def note(step: int, total: int, preview: torch.Tensor | None) -> None:
        seen.append((step, total, preview is not None))
        assert preview is None or preview.shape == (SIZE, SIZE, 3)

    train_color_field(ball, views, settings, 0, note)
    assert seen == [(1, 5, False), (2, 5, True), (3, 5, False), (4, 5, True), (5, 5, True)]

    def cancel(step: int, total: int, preview: torch.Tensor | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_color_field(ball, views, settings, 0, cancel)


def test_a_cancelled_training_goes_on_and_ends_bit_identical(ball: Mesh, views: Views, tmp_path) -> None:
    settings = dataclasses.replace(QUICK, iterations=9)
    steps: list[int] = []

    def cancel(step: int, total: int, preview: torch.Tensor | None) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_color_field(ball, views, settings, 3, cancel, runs=tmp_path)
    with torch.inference_mode():
        resumed = train_color_field(ball, views, settings, 3, lambda step, *_: steps.append(step), runs=tmp_path)
    assert steps == [6, 7, 8, 9]
    assert same(resumed, train_color_field(ball, views, settings, 3))
    assert list(tmp_path.iterdir()) == []


def test_paper_settings_are_the_authors_numbers() -> None:
    paper = ColorFieldSettings.paper()
    assert (paper.iterations, paper.lr, paper.views_per_step, paper.key_views) == (600, 0.01, 1, True)
    assert paper.lr * paper.final_share == pytest.approx(0.01 * 10 ** (-0.0002 * 600))
    assert (paper.smoothness, paper.smoothness_ramp, paper.jitter, paper.margin) == (0.03, 500, 0.01, 0.0)
    assert paper.grid == HashGridSettings(12, 16, 256, 19)


def test_bad_input_is_named(ball: Mesh, views: Views) -> None:
    nothing = dataclasses.replace(views, masks=torch.zeros_like(views.masks))
    with pytest.raises(InvalidInput, match="none of the 6 views of 64 x 64 pixels shows the mesh"):
        train_color_field(ball, nothing, QUICK)
    away = dataclasses.replace(ball, vertices=ball.vertices + 50)
    with pytest.raises(InvalidInput, match="none of the 6 views"):
        train_color_field(away, views, QUICK)
    with pytest.raises(InvalidInput, match="0 faces and 6 views"):
        train_color_field(Mesh(ball.vertices, ball.faces[:0]), views, QUICK)
    broken = dataclasses.replace(ball, vertices=ball.vertices * float("nan"))
    with pytest.raises(InvalidInput, match="`mesh.vertices` holds"):
        train_color_field(broken, views, QUICK)
    with pytest.raises(InvalidInput, match="`views.images` holds"):
        train_color_field(ball, dataclasses.replace(views, images=views.images * float("inf")), QUICK)
    with pytest.raises(InvalidInput, match="`iterations` is 0"):
        ColorFieldSettings(iterations=0)
    with pytest.raises(InvalidInput, match="has no volume"):
        new_color_field(torch.zeros(3), torch.tensor([1.0, 0, 1]), seeded(), GRID)
    with pytest.raises(ShapeMismatch, match="`points`"):
        new_color_field(torch.zeros(3), torch.ones(3), seeded(), GRID)(torch.zeros(4, 2))
