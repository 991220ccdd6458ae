"""AP3D_ColorPoints: each method colours by its source, and says what it lacks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.parts import AvatarPart
from animportrait3d_core.portrait.mesh import MeshPortrait
from animportrait3d_core.portrait.views import render_views
from animportrait3d_core.rigging.points import TEETH_COLOR, PointSettings, PosedBody, RiggedPoints, sample_points
from animportrait3d_core.views import Views

RED = torch.tensor([0.8, 0.1, 0.1])


@pytest.fixture(scope="module")
def fit(mannequin_body):
    parameters = mannequin_body.neutral_parameters().replace(
        scale=torch.tensor([[2.78]]), translation=torch.tensor([[0.0, -0.32, 0.0]])
    )
    return SimpleNamespace(body=mannequin_body, parameters=parameters)


@pytest.fixture(scope="module")
def scene(fit) -> tuple[RiggedPoints, Mesh, Views]:
    """The body itself in grey as the mesh, red in the views."""
    posed = PosedBody.of(fit.body, fit.parameters)
    mesh = Mesh(posed.vertices, posed.faces, vertex_colors=torch.full((len(posed.vertices), 3), 0.3))
    red = Mesh(posed.vertices, posed.faces, vertex_colors=RED.expand(len(posed.vertices), 3))
    parts = torch.full((len(posed.faces),), AvatarPart.SKIN, dtype=torch.uint8)
    points = sample_points(mesh, parts, posed, PointSettings(count=1000), torch.Generator().manual_seed(0))
    views = render_views(MeshPortrait(red), orbit_cameras([0.0, 120.0, -120.0], [0.0, 10.0, -10.0], 48))
    return points, mesh, views


@pytest.fixture
def color(run_node, fit):
    """Function (points, mesh, inputs) -> the coloured points."""

    def colored(points, mesh, **inputs):
        return run_node("AP3D_ColorPoints", points=points, mesh=mesh, fit=fit, **inputs).points

    return colored


def test_without_a_method_the_surface_colours_the_points_as_ever(color, scene) -> None:
    points, mesh, _ = scene
    colored = color(points, mesh)
    skin = colored.part_id == AvatarPart.SKIN
    torch.testing.assert_close(colored.colors[skin], torch.full_like(colored.colors[skin], 0.3))


def test_the_hash_grid_learns_its_colours_from_the_views(color, scene) -> None:
    points, mesh, views = scene
    plain = Mesh(mesh.vertices, mesh.faces)
    arguments = {"views": views, "close_views": views, "method": "hash grid", "iterations": 80}
    colored = color(points, plain, **arguments)
    skin = (colored.part_id == AvatarPart.SKIN) | (colored.part_id == AvatarPart.EYES)
    error = (colored.colors[skin] - RED).abs().amax(dim=1)
    assert float(error.median()) < 0.05
    assert AvatarPart.HAIR not in colored.part_id.tolist()
    assert colored.colors[colored.part_id == AvatarPart.TEETH][0].tolist() == pytest.approx(TEETH_COLOR)
    again = color(points, plain, **arguments)
    assert torch.equal(colored.colors, again.colors)
    other = color(points, plain, **arguments, seed=5)
    assert not torch.equal(colored.colors, other.colors)


def test_none_leaves_everything_grey(color, scene) -> None:
    points, mesh, _ = scene
    assert torch.equal(color(points, mesh, method="none").colors, torch.full((len(points), 3), 0.5))


def test_a_hash_grid_without_views_says_so(color, scene) -> None:
    points, mesh, _ = scene
    with pytest.raises(InvalidInput, match="AP3D_ColorPoints: `hash grid` learns from views, but none are connected"):
        color(points, mesh, method="hash grid")
