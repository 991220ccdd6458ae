"""Refinement against closed forms: an ellipsoid found from its normals and silhouettes, gradients, refusals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import trimesh

from animportrait3d_core.cameras import Cameras, concatenate_cameras, orbit_cameras
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.evaluation.surface import surface_error
from animportrait3d_core.meshes import Mesh, vertex_normals
from animportrait3d_core.render import interpolate, rasterize_mesh
from animportrait3d_core.surface import RefineSettings, ViewNormals, refine_mesh
from animportrait3d_core.surface.losses import consistency_loss, distance_loss, normal_loss
from animportrait3d_core.surface.preparation import face_pairs, inverted_share, mesh_volume, prepare_mesh
from animportrait3d_core.surface.refine import Connectivity, Refinement, view_targets, with_surface_normals
from animportrait3d_core.surface.remesh import topology
from animportrait3d_core.views import Views

CENTER = torch.tensor([0.0, 0.2, 0.0], dtype=torch.float64)
AXES = torch.tensor([0.42, 0.6, 0.5], dtype=torch.float64)
QUICK = RefineSettings(
    iterations=60, image_size=64, edge_lengths=(0.15, 0.1), smoothing_steps=0, face_budget=1500, smoothness=5.0,
    distance_weight=0.0, raw_weight=0.0,
)  # fmt: skip


def cameras_around(size: int = 64) -> Cameras:
    rings = [orbit_cameras([start + 60.0 * k for k in range(6)], [up] * 6, size) for start, up in ((0, 0), (30, 50))]
    return concatenate_cameras([*rings, orbit_cameras([0.0, 90.0], [-50.0, -50.0], size)])


def ellipsoid_views(cameras: Cameras, normal_axes: torch.Tensor = AXES) -> tuple[ViewNormals, Views]:
    """What cameras see of the ellipsoid, by intersecting rays; with the normals of other axes, if they are given."""
    row, column = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([column + 0.5, row + 0.5, torch.ones_like(row)], dim=-1).double()
    rotation = cameras.world_to_camera[:, :3, :3].double()
    rays = (pixels @ torch.linalg.inv(cameras.K.double()).transpose(1, 2)[:, None]) @ rotation[:, None]
    offset = (cameras.camera_centers.double() - CENTER)[:, None, None] / AXES
    scaled = rays / AXES
    a, b, c = (scaled**2).sum(-1), (scaled * offset).sum(-1), (offset**2).sum(-1) - 1
    square = b**2 - a * c
    distance = (-b - square.clamp(min=0).sqrt()) / a
    world = torch.nn.functional.normalize((offset + distance[..., None] * scaled) / normal_axes, dim=-1)
    mask = (square > 0).float()
    camera_space = torch.einsum("bij,bhwj->bhwi", rotation, world) * torch.tensor([1.0, -1.0, -1.0])
    normals = ViewNormals((camera_space * mask[..., None]).float(), mask)
    count = len(cameras)
    return normals, Views(torch.zeros(count, cameras.height, cameras.width, 3), mask, cameras, torch.ones(3))


def sphere(radius: float = 0.5, detail: int = 3, center: torch.Tensor = CENTER) -> Mesh:
    solid = trimesh.creation.icosphere(subdivisions=detail, radius=radius)
    return Mesh(torch.tensor(np.array(solid.vertices)).float() + center.float(), torch.tensor(np.array(solid.faces)))


def implicit_error(mesh: Mesh) -> tuple[float, float]:
    """Mean angle in degrees of the vertices' normals, and mean relative distance, to the ellipsoid."""
    local = (mesh.vertices.double() - CENTER) / AXES
    expected = torch.nn.functional.normalize(local / AXES, dim=-1)
    cosine = (vertex_normals(mesh.vertices, mesh.faces).double() * expected).sum(-1).clamp(-1, 1)
    return float(torch.rad2deg(torch.arccos(cosine)).mean()), float((local.norm(dim=-1) - 1).abs().mean())


NORMALS, VIEWS = ellipsoid_views(cameras_around())


@pytest.fixture(scope="module")
def refined():
    start = dataclasses.replace(sphere(), vertex_colors=(sphere().vertices + 1) / 2)
    steps = []
    result = refine_mesh(
        start, NORMALS, VIEWS, QUICK, progress=lambda step, total, image: steps.append((step, total, image))
    )
    return start, result, steps


def test_an_ellipsoid_is_found_from_a_sphere(refined) -> None:
    start, result, _ = refined
    angle, distance = implicit_error(start)
    found_angle, found_distance = implicit_error(result.mesh)
    assert angle > 8 and distance > 0.07
    assert found_angle < 0.25 * angle and found_distance < 0.15 * distance
    exact = 4 / 3 * math.pi * float(AXES.prod())
    assert mesh_volume(result.mesh) == pytest.approx(exact, rel=0.03)


def test_the_result_is_sound(refined) -> None:
    start, result, _ = refined
    kind = topology(result.mesh)
    assert kind.closed and kind.manifold and kind.euler == 2
    assert len(result.mesh.faces) <= QUICK.face_budget
    assert mesh_volume(result.mesh) > 0 and inverted_share(result.mesh) == 0
    assert result.metrics["faces_before"] == len(start.faces) and result.metrics["views"] == len(VIEWS)
    assert result.notes == ()


def test_colours_are_carried_over(refined) -> None:
    """Colours are those of the nearest place of the raw surface: here a linear function of it."""
    _, result, _ = refined
    direction = torch.nn.functional.normalize(result.mesh.vertices - CENTER.float(), dim=-1)
    expected = (0.5 * direction + CENTER.float() + 1) / 2
    torch.testing.assert_close(result.mesh.vertex_colors, expected, rtol=0, atol=0.02)


def test_progress_and_losses_are_reported(refined) -> None:
    _, result, steps = refined
    assert [step[:2] for step in steps] == [(k, 60) for k in range(1, 61)]
    images = [image for _, _, image in steps if image is not None]
    assert len(images) == 6 and all(image.shape[-1] == 3 and image.min() < 0.9 for image in images)
    assert all(len(values) == 60 for values in result.losses.values())
    assert result.losses["normal"][-10:].mean() < 0.2 * result.losses["normal"][:5].mean()
    assert "with 14 views; the normal loss fell from" in result.summary()


def test_the_surface_is_one_more_estimate() -> None:
    """Target and surface, turned apart by an angle, weighted: the closed form of a weighted mean of two directions."""
    targets, _ = view_targets(NORMALS, VIEWS, QUICK)
    ball = sphere(0.5, 4)
    both = [with_surface_normals(targets, ball, weight).normals for weight in (1.0, 3.0)]
    image = rasterize_mesh(ball.vertices, ball.faces, targets.cameras)
    known = (targets.weights > 0.5) & (image.face_id >= 0)
    own = interpolate(image, ball.faces, vertex_normals(ball.vertices, ball.faces))
    own = torch.nn.functional.normalize(own, dim=-1)[known]
    before = targets.normals[known]
    apart = torch.arccos((own * before).sum(-1).clamp(-1, 1))
    assert float(torch.rad2deg(apart).mean()) > 5
    for weight, fused in zip((1.0, 3.0), both):
        turned = torch.arccos((fused[known] * before).sum(-1).clamp(-1, 1))
        expected = torch.atan2(weight * torch.sin(apart), 1 + weight * torch.cos(apart))
        torch.testing.assert_close(turned, expected, atol=2e-3, rtol=0)
        torch.testing.assert_close(fused[known].norm(dim=-1), torch.ones(int(known.sum())))
    unseen = (targets.weights > 0.5) & (image.face_id < 0)
    assert bool(unseen.any())
    torch.testing.assert_close(both[0][unseen], targets.normals[unseen], atol=1e-6, rtol=0)
    assert float(both[0][targets.normals.norm(dim=-1) < 0.5].abs().max()) == 0


def test_blurred_normals_and_a_noisy_surface_are_better_together() -> None:
    """Estimates that miss the relief of a surface, and a surface that has it with noise: neither alone is as good."""
    solid = sphere(1.0, 4, CENTER * 0)
    relief = 1 + 0.03 * torch.prod(torch.sin(7 * solid.vertices), dim=1, keepdim=True)
    noise = 1 + 0.006 * torch.randn(len(solid.vertices), 1, generator=torch.Generator().manual_seed(0))
    truth, raw = (
        dataclasses.replace(solid, vertices=solid.vertices * factor * AXES.float() + CENTER.float())
        for factor in (relief, relief * noise)
    )
    fine = dataclasses.replace(QUICK, edge_lengths=(0.1, 0.06), face_budget=4000)
    alone, together = (
        refine_mesh(raw, NORMALS, VIEWS, dataclasses.replace(fine, raw_weight=weight)).mesh for weight in (0.0, 1.0)
    )
    raw_error, alone_error, error = (surface_error(mesh, truth).mean_angle for mesh in (raw, alone, together))
    assert error < 0.8 * min(raw_error, alone_error), (raw_error, alone_error, error)


def test_the_raw_surface_is_smoothed_first() -> None:
    """What is rough is neither the start nor an estimate of the normals; a single step, so that nothing else helps."""
    noise = 0.01 * torch.randn(len(sphere(1, 4).vertices), 3, generator=torch.Generator().manual_seed(3))
    exact = sphere(1, 4, torch.zeros(3)).vertices * AXES.float() + CENTER.float()
    rough = Mesh(exact + noise, sphere(1, 4).faces)
    step = dataclasses.replace(QUICK, iterations=1, edge_lengths=(0.05,), face_budget=20_000)

    def first_loss(smoothing: int, raw_weight: float) -> float:
        settings = dataclasses.replace(step, smoothing_steps=smoothing, raw_weight=raw_weight)
        return float(refine_mesh(rough, NORMALS, VIEWS, settings).losses["normal"][0])

    assert first_loss(4, 0.0) < 0.3 * first_loss(0, 0.0)
    assert first_loss(4, 1e4) < 0.3 * first_loss(0, 1e4)


def test_the_same_seed_gives_the_same_mesh() -> None:
    short = dataclasses.replace(QUICK, iterations=4, edge_lengths=(0.2,))
    runs = [refine_mesh(sphere(), NORMALS, VIEWS, short, 4).mesh for _ in range(2)]
    assert torch.equal(runs[0].vertices, runs[1].vertices) and torch.equal(runs[0].faces, runs[1].faces)
    other = refine_mesh(sphere(), NORMALS, VIEWS, short, 5).mesh
    assert not torch.equal(runs[0].vertices, other.vertices)


def test_silhouettes_alone_find_the_size() -> None:
    settings = dataclasses.replace(QUICK, normal_weight=0.0, iterations=80, edge_lengths=(0.15,))
    result = refine_mesh(sphere(0.45), NORMALS, VIEWS, settings)
    assert implicit_error(result.mesh)[1] < 0.35 * implicit_error(sphere(0.45))[1]


def test_the_loss_has_the_gradient_of_its_differences() -> None:
    """Along smooth motions, against central differences of the rendered loss; normals where no motion uncovers them."""
    cameras = cameras_around(96)[[0, 2, 7]]
    normals, views = ellipsoid_views(cameras)
    mesh = sphere(0.5, detail=4)
    seen = (rasterize_mesh(mesh.vertices, mesh.faces, cameras).face_id >= 0).float()
    inside = 1 - torch.nn.functional.max_pool2d(1 - seen * normals.masks, 7, stride=1, padding=3)
    normals = ViewNormals(normals.normals * inside[..., None], inside)
    connectivity = Connectivity.of(mesh.faces, len(mesh.vertices))
    local = mesh.vertices - CENTER.float()
    motions = {"wide": local * torch.tensor([1.0, 0, 0]), "tall": local * torch.tensor([0, 1.0, 0])}
    for term in ("normal", "silhouette"):
        terms = ("normal", "silhouette", "consistency", "distance")
        weights = {f"{name}_weight": float(name == term) for name in terms}
        settings = RefineSettings(**weights, batch=3)
        run = Refinement(view_targets(normals, views, settings)[0], settings, 0, mesh)
        vertices = mesh.vertices.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(run.loss(vertices, connectivity, mesh.vertices), vertices)
        for name, motion in motions.items():
            ahead, behind = (
                run.loss(mesh.vertices + sign * 0.02 * motion, connectivity, mesh.vertices).item() for sign in (1, -1)
            )
            expected = pytest.approx((ahead - behind) / 0.04, rel=0.1)
            assert float((gradient * motion).sum()) == expected, (name, term)


@pytest.mark.parametrize("stop", [4, 6, 9])  # in the first round, where it ends, in the second
def test_a_cancelled_refinement_goes_on_and_ends_bit_identical(tmp_path, stop) -> None:
    settings = dataclasses.replace(QUICK, iterations=12)
    assert len(settings.edge_lengths) == 2
    steps: list[int] = []

    def cancel(step: int, total: int, preview: torch.Tensor | None) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_mesh(sphere(), NORMALS, VIEWS, settings, 4, cancel, tmp_path)
    resumed = refine_mesh(sphere(), NORMALS, VIEWS, settings, 4, lambda step, *_: steps.append(step), tmp_path)
    whole = refine_mesh(sphere(), NORMALS, VIEWS, settings, 4)
    assert steps == list(range(stop + 1, 13))
    assert torch.equal(resumed.mesh.vertices, whole.mesh.vertices) and torch.equal(resumed.mesh.faces, whole.mesh.faces)
    for name, values in whole.losses.items():
        assert torch.equal(resumed.losses[name], values), name
    assert list(tmp_path.iterdir()) == []


def test_distance_is_a_mean_of_squares() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    assert float(distance_loss(points + torch.tensor([0.3, 0.0, 0.4]), points)) == pytest.approx(0.25)


def test_what_no_silhouette_shows_stays_where_the_raw_surface_is() -> None:
    """All views from the front with the normals of a flatter shape: nothing else says how deep the front lies."""
    front = orbit_cameras([-30.0, -15.0, 0.0, 15.0, 30.0], [0.0] * 5, 64)
    normals, views = ellipsoid_views(front, AXES * torch.tensor([1.0, 1.0, 0.5]))
    raw = sphere(1.0, 3, CENTER * 0)
    raw = dataclasses.replace(raw, vertices=raw.vertices * AXES.float() + CENTER.float())
    free, held = (
        refine_mesh(raw, normals, views, dataclasses.replace(QUICK, distance_weight=weight)).mesh
        for weight in (0.0, 5000.0)
    )
    assert implicit_error(held)[1] < 0.02 < 0.5 * implicit_error(free)[1]


def test_consistency_is_that_of_the_dihedral_angle() -> None:
    """A roof of two triangles whose normals differ by a known angle, with its exact gradient."""
    angle = 0.7
    faces = torch.tensor([[0, 1, 2], [1, 0, 3]])
    pairs = face_pairs(faces, 4)
    assert pairs.tolist() in ([[0, 1]], [[1, 0]])
    vertices = torch.tensor(
        [[0.0, 0, 0], [0, 1, 0], [-1.0, 0.5, 0], [math.cos(angle), 0.5, math.sin(angle)]], dtype=torch.float64
    )
    for size in (1.0, 3.0):
        assert consistency_loss(size * vertices, faces, pairs).item() == pytest.approx(1 - math.cos(angle))
    noisy = vertices + 0.1 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: consistency_loss(v, faces, pairs), noisy.requires_grad_())
    assert consistency_loss(vertices, faces, pairs[:0]).item() == 0


def test_the_normal_loss_is_a_weighted_mean_of_one_minus_cosine() -> None:
    target = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    rendered = torch.tensor([[2.0, 0, 0], [0.5, 0, 0], [0, 0, -3]])
    assert normal_loss(rendered, target, torch.tensor([1.0, 1.0, 2.0])).item() == pytest.approx((0 + 1 + 4) / 4)
    assert normal_loss(rendered, target, torch.zeros(3)).item() == 0


def test_small_pieces_and_cavities_are_dropped_and_named() -> None:
    big, crumb = sphere(0.5), sphere(0.05, detail=0, center=torch.tensor([0.9, 0.9, 0]).double())
    hollow = sphere(0.3, detail=2)
    vertices = torch.cat([big.vertices, crumb.vertices, hollow.vertices])
    inner = hollow.faces.flip(1) + len(big.vertices) + len(crumb.vertices)
    both = Mesh(vertices, torch.cat([big.faces, crumb.faces + len(big.vertices), inner]))
    prepared = prepare_mesh(both, 0.05)
    assert len(prepared.mesh.faces) == len(big.faces)
    assert mesh_volume(prepared.mesh) == pytest.approx(mesh_volume(big), rel=1e-5)
    assert "Dropped 1 small separate pieces (20 of 1620 faces)" in prepared.notes[0]
    assert "Dropped 1 cavities in the surface (320 of 1620 faces)" in prepared.notes[1]


def test_two_large_pieces_are_kept_and_named() -> None:
    twin = sphere(0.3, center=torch.tensor([0.9, 0.2, 0]).double())
    both = Mesh(torch.cat([sphere().vertices, twin.vertices]), torch.cat([sphere().faces, twin.faces + 642]))
    prepared = prepare_mesh(both, 0.05)
    assert len(prepared.mesh.faces) == len(both.faces)
    (note,) = prepared.notes
    assert note.startswith("The mesh is in 2 pieces (1280, 1280 faces), and all are kept") and "smallest_piece" in note
    assert prepare_mesh(sphere(), 0.05).notes == ()


def test_an_inward_mesh_is_turned_over() -> None:
    mesh = sphere()
    prepared = prepare_mesh(Mesh(mesh.vertices, mesh.faces.flip(1)), 0.05)
    assert mesh_volume(prepared.mesh) == pytest.approx(mesh_volume(mesh), rel=1e-5)
    assert "wound inward" in prepared.notes[0]
    assert inverted_share(mesh) == 0 and inverted_share(Mesh(mesh.vertices, mesh.faces.flip(1))) == 1


def test_tangled_edges_are_taken_apart() -> None:
    mesh = sphere(detail=2)
    extra = torch.cat([mesh.vertices, torch.tensor([[0.0, 1.2, 0.0]])])
    fin = torch.tensor([[int(mesh.faces[0, 0]), int(mesh.faces[0, 1]), len(mesh.vertices)]])
    prepared = prepare_mesh(Mesh(extra, torch.cat([mesh.faces, fin])), 0.05)
    assert "1 edges with more than two faces" in prepared.notes[0]
    assert mesh_volume(prepared.mesh) == pytest.approx(mesh_volume(mesh), rel=1e-4)


def test_empty_views_are_left_out_and_named() -> None:
    masks = VIEWS.masks.clone()
    masks[[3, 5]] = 0
    short = dataclasses.replace(QUICK, iterations=2, edge_lengths=(0.2,))
    result = refine_mesh(sphere(), NORMALS, dataclasses.replace(VIEWS, masks=masks), short)
    assert result.notes == ("Left out 2 of 14 views without foreground: 3, 5.",)
    assert result.metrics["views"] == 12
    with pytest.raises(InvalidInput, match="none of the 14 views has a foreground"):
        refine_mesh(sphere(), NORMALS, dataclasses.replace(VIEWS, masks=masks * 0), short)


def test_normals_of_other_views_are_refused() -> None:
    with pytest.raises(ShapeMismatch, match="14 pictures of 64 x 64, expected 13 of 64 x 64"):
        refine_mesh(sphere(), NORMALS, VIEWS[list(range(13))], QUICK)
    broken = NORMALS.normals.clone()
    broken[0, 5, 5] = float("nan")
    with pytest.raises(InvalidInput, match="`normals` holds 3 non-finite"):
        refine_mesh(sphere(), ViewNormals(broken, NORMALS.masks), VIEWS, QUICK)


def test_a_run_that_diverges_is_named() -> None:
    wild = dataclasses.replace(QUICK, lr=50.0, iterations=6, edge_lengths=(0.2,))
    with pytest.raises(InvalidInput, match="the run diverged. Lower lr"):
        refine_mesh(sphere(), NORMALS, VIEWS, wild)


def test_meshes_that_cannot_be_refined_are_named() -> None:
    with pytest.raises(InvalidInput, match="has 0 faces"):
        refine_mesh(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)), NORMALS, VIEWS, QUICK)
    mesh = sphere()
    with pytest.raises(InvalidInput, match="`vertices` holds 3 non-finite"):
        refine_mesh(_with_nan(mesh), NORMALS, VIEWS, QUICK)


def _with_nan(mesh: Mesh) -> Mesh:
    vertices = mesh.vertices.clone()
    vertices[4] = float("nan")
    return Mesh(vertices, mesh.faces)


@pytest.mark.parametrize(
    ("name", "value"),
    [("iterations", 0), ("lr", 0.0), ("edge_lengths", ()), ("face_budget", 10), ("normal_weight", -1.0)],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"RefineSettings: {name} is"):
        RefineSettings(**{name: value})


def test_presets() -> None:
    assert RefineSettings.preset("draft") == RefineSettings()
    paper = RefineSettings.preset("paper")
    assert (paper.normal_weight, paper.silhouette_weight, paper.consistency_weight) == (10, 1, 50)
    assert (paper.distance_weight, paper.raw_weight) == (0, 0)
    assert (paper.iterations, paper.face_budget, paper.smoothing_steps) == (2400, 60_000, 16)
    with pytest.raises(InvalidInput, match="'best' is unknown, expected one of draft, paper"):
        RefineSettings.preset("best")
