from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.body.assets import save_body_assets
from animportrait3d_core.body.fit_terms import (
    SilhouetteTerm,
    SurfaceTerm,
    body_regions,
    every_nth,
    image_derivatives,
    sample_distance,
    signed_distance,
)
from animportrait3d_core.body.fit_variables import (
    NormalEquations,
    columns_of,
    geman_mcclure_weights,
    get_values,
    pose_with_derivatives,
    project_to_directions,
    set_values,
)
from animportrait3d_core.body.model import BodyModel, load_body_model
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.views import Views


def test_normal_equations_solve_weighted_least_squares():
    generator = torch.Generator().manual_seed(0)
    jacobian, residuals = torch.randn(40, 5, generator=generator), torch.randn(40, generator=generator)
    weights = torch.rand(40, generator=generator)
    system = NormalEquations.of_size(5)
    system.add(residuals[:15], jacobian[:15], weights[:15])
    system.add(residuals[15:], jacobian[15:], weights[15:])
    root = weights.sqrt().double()
    expected = np.linalg.lstsq((jacobian * root[:, None]).double().numpy(), -(residuals * root).numpy(), rcond=None)[0]
    assert torch.allclose(system.step(damping=0.0).double(), torch.from_numpy(expected), atol=1e-5)
    assert system.energy == pytest.approx(float((weights * residuals**2).sum()), rel=1e-6)


def test_robust_weights_are_the_derivative_of_the_loss():
    residuals = torch.linspace(-3, 3, 25, dtype=torch.float64).requires_grad_()
    width = 0.7
    loss = residuals**2 / (1 + (residuals / width) ** 2)
    (slope,) = torch.autograd.grad(loss.sum(), residuals)
    weights = geman_mcclure_weights(residuals.detach(), width)
    assert torch.allclose(slope, 2 * weights * residuals.detach(), atol=1e-12)


def test_derivatives_of_the_posed_body_equal_autograd(body):
    columns = columns_of(scale=1, translation=3, neck_pose=3, head_pose=3, betas=4, expression=3, jaw_pose=1)
    generator = torch.Generator().manual_seed(1)
    start = set_values(body.neutral_parameters(), columns, 0.2 + 0.1 * torch.randn(len(columns), generator=generator))
    posed = pose_with_derivatives(body, start, columns, body.faces)
    exact = body.to(dtype=torch.float64)

    def vertices(values: torch.Tensor) -> torch.Tensor:
        return exact(set_values(start.to(dtype=torch.float64), columns, values)).vertices[0, ::500]

    jacobian = torch.autograd.functional.jacobian(vertices, get_values(start, columns).double())
    difference = (posed.d_vertices[::500] - jacobian).abs()
    assert float(difference.max()) < 2e-3 * float(jacobian.abs().max())


def test_derivatives_of_a_nearby_body_are_reused_but_not_its_vertices(body):
    columns = columns_of(scale=1, translation=3)
    start = body.neutral_parameters()
    first = pose_with_derivatives(body, start, columns, body.faces)
    moved = start.replace(translation=torch.ones(1, 3))
    second = pose_with_derivatives(body, moved, columns, body.faces, nearby=first)
    assert second.d_vertices is first.d_vertices
    assert torch.allclose(second.vertices, first.vertices + 1, atol=1e-6)
    assert torch.allclose(second.landmarks, first.landmarks + 1, atol=1e-6)


def test_set_and_get_values_touch_the_named_columns_only(body):
    start = body.neutral_parameters()
    columns = [("betas", 2), ("jaw_pose", 0)]
    changed = set_values(start, columns, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert changed.betas.tolist() == [[0, 0, 1, *[0] * 7], [0, 0, 3, *[0] * 7]]
    assert changed.jaw_pose.tolist() == [[2, 0, 0], [4, 0, 0]]
    assert get_values(changed, columns).tolist() == [1, 2]
    assert int(start.betas.count_nonzero()) == 0


def test_picture_derivatives_equal_finite_differences_of_the_projection():
    cameras = orbit_cameras([10, -60], [5, 20], 128)
    generator = torch.Generator().manual_seed(2)
    points = torch.randn(6, 3, generator=generator, dtype=torch.float64) * 0.2
    directions = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64)
    view = torch.tensor([0, 1, 0, 1, 0, 1])
    exact = cameras.to(dtype=torch.float64)
    pixels, depth = (both[view, torch.arange(6)] for both in project(exact, points))
    found = image_derivatives(exact, view, pixels, directions)
    step = 1e-6
    for column in range(4):
        ahead = project(exact, points + step * directions[..., column])[0][view, torch.arange(6)]
        expected = (ahead - pixels) / step * (depth / exact.K[view, 0, 0])[:, None]
        assert torch.allclose(found[..., column], expected, atol=1e-5)


def test_signed_distance_of_a_half_plane_and_its_slope():
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    masks[0, :, :12] = True  # the border lies at x = 12
    masks[1, 7:] = True  # the border lies at y = 7
    distance = signed_distance(masks)
    pixels = torch.tensor([[[15.3, 9.0], [12.0, 4.0], [8.6, 11.2]], [[5.0, 2.5], [3.0, 7.0], [20.0, 12.25]]])
    values, slopes = sample_distance(distance, pixels)
    assert torch.allclose(values, torch.tensor([[3.3, 0.0, -3.4], [4.5, 0.0, -5.25]]), atol=1e-5)
    assert torch.allclose(slopes[0], torch.tensor([1.0, 0.0]).expand(3, 2), atol=1e-5)
    assert torch.allclose(slopes[1], torch.tensor([0.0, -1.0]).expand(3, 2), atol=1e-5)


def test_pictures_without_a_border_say_nothing():
    distance = signed_distance(torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]).bool())
    assert int(distance.count_nonzero()) == 0


def test_project_to_directions_is_a_dot_product():
    generator = torch.Generator().manual_seed(3)
    derivatives, directions = torch.randn(7, 3, 5, generator=generator), torch.randn(7, 3, generator=generator)
    expected = torch.einsum("ncp,nc->np", derivatives, directions)
    assert torch.allclose(project_to_directions(derivatives, directions), expected, atol=1e-6)


@pytest.mark.parametrize(("count", "most"), [(10, 3), (10, 10), (3, 10), (0, 4), (9999, 4000)])
def test_every_nth_keeps_at_most_so_many(count, most):
    kept = every_nth(torch.arange(count), most)
    assert len(kept) <= most
    assert len(kept) >= min(count, most) // 2


def sideways_step(term, body, offset: float) -> float:
    """The x step that a term alone asks of a body moved by `offset` along x."""
    columns = columns_of(translation=3)
    moved = body.neutral_parameters().replace(translation=torch.tensor([[offset, 0.0, 0.0]]))
    posed = pose_with_derivatives(body, moved, columns, body.faces_outward)
    system = NormalEquations.of_size(3)
    term.add_to(system, posed, 0.1, 1.0)
    return float(system.step(damping=0.0)[0])


def ellipsoid_body(make_arrays, make_assets, tmp_path, region: str | None) -> BodyModel:
    """The made-up body without noise, all of it in one region (None: all of it face, ears or neck)."""
    arrays = make_arrays(correctives=False)
    assets = make_assets(arrays, arm_angle_degrees=0.0)
    none = torch.zeros(len(assets.faces), dtype=torch.bool)
    regions = {name: none | (name == region) for name in assets.face_regions}
    np.savez(tmp_path / "body.npz", **arrays)
    save_body_assets(dataclasses.replace(assets, face_regions=regions), tmp_path / "assets.safetensors")
    return load_body_model(tmp_path / "body.npz", tmp_path / "assets.safetensors")


def test_surface_pulls_a_shifted_body_back(make_arrays, make_assets, tmp_path):
    skin = ellipsoid_body(make_arrays, make_assets, tmp_path, None)
    mesh = Mesh(skin(skin.neutral_parameters()).vertices[0], skin.faces)
    term = SurfaceTerm(mesh, body_regions(skin, 2000), 2000, torch.Generator().manual_seed(0))
    for offset in (0.004, -0.004):
        assert sideways_step(term, skin, offset) == pytest.approx(-offset, rel=0.05)


def test_scalp_is_pushed_under_the_surface_and_never_pulled_out(make_arrays, make_assets, tmp_path):
    scalp = ellipsoid_body(make_arrays, make_assets, tmp_path, "scalp")
    regions = body_regions(scalp, 2000)
    assert len(regions.attracted) == 0
    neutral = scalp.neutral_parameters()
    vertices = scalp(neutral).vertices[0]
    middle = vertices.mean(0)
    term = SurfaceTerm(Mesh(vertices, scalp.faces), regions, 500, torch.Generator().manual_seed(0))
    columns, energies = columns_of(scale=1), {}
    for size in (0.95, 1.05):
        placed = neutral.replace(scale=torch.tensor([[size]]), translation=((1 - size) * middle)[None])
        system = NormalEquations.of_size(1)
        term.add_to(system, pose_with_derivatives(scalp, placed, columns, scalp.faces), 0.1, 1.0)
        energies[size] = system.energy
    assert energies[1.05] > 1e-6
    assert energies[0.95] < 1e-3 * energies[1.05]


def test_a_covering_surface_only_pushes(make_arrays, make_assets, tmp_path):
    """Hair all over but for five faces: it pushes the body in where it sticks out, and never pulls it out."""
    skin = ellipsoid_body(make_arrays, make_assets, tmp_path, None)
    regions, neutral = body_regions(skin, 2000), skin.neutral_parameters()
    vertices = skin(neutral).vertices[0]
    middle = vertices.mean(0)
    covering = torch.ones(len(skin.faces), dtype=torch.bool)
    covering[vertices[skin.faces].mean(1)[:, 1].argsort()[:5]] = False
    energies = {}
    for known in (None, covering):
        generator = torch.Generator().manual_seed(0)
        term = SurfaceTerm(Mesh(vertices, skin.faces), regions, 500, generator, known)
        for size in (0.95, 1.05):
            placed = neutral.replace(scale=torch.tensor([[size]]), translation=((1 - size) * middle)[None])
            system = NormalEquations.of_size(1)
            term.add_to(system, pose_with_derivatives(skin, placed, columns_of(scale=1), skin.faces), 0.1, 1.0)
            energies[known is not None, size] = system.energy
    assert energies[True, 0.95] < 0.05 * energies[False, 0.95]
    assert energies[True, 1.05] > 0.4 * energies[False, 1.05]  # half: there is no skin to be drawn to the body
    assert 0 < len(term.distances(vertices)) < len(regions.attracted) / 4


def test_silhouettes_push_inward_what_sticks_out(body):
    """A mask narrower than the body pushes it from the side on which it sticks out."""
    from animportrait3d_core.render import rasterize_mesh

    vertices = body(body.neutral_parameters()).vertices[0]
    cameras = orbit_cameras([0], [0], 128, radius=1.0, target=(0.0, 0.25, 0.0))
    drawn = rasterize_mesh(vertices, body.faces, cameras).face_id >= 0
    masks = drawn.float()
    views = Views(masks[..., None].expand(-1, -1, -1, 3), masks, cameras, torch.ones(3))
    term = SilhouetteTerm(views, body, body_regions(body, 3000), 3000)
    assert sideways_step(term, body, 0.02) < -0.005
    assert sideways_step(term, body, -0.02) > 0.005
