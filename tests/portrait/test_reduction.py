"""Scans of many faces: how many are left, how far the surface moves, what becomes of colours and textures."""

from __future__ import annotations

import pytest
import torch
import trimesh

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.meshes import Mesh, sample_texture, signed_volume
from animportrait3d_core.portrait import reduction
from animportrait3d_core.portrait.reduction import reduce_faces


@pytest.fixture(scope="module")
def ball() -> Mesh:
    """A unit ball of 81,920 faces, red above and blue below."""
    solid = trimesh.creation.icosphere(6)
    vertices = torch.tensor(solid.vertices).float()
    colors = torch.where(vertices[:, 1:2] > 0, torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]))
    return Mesh(vertices, torch.tensor(solid.faces).long(), vertex_colors=colors)


@pytest.mark.parametrize("package", [None, "pymeshlab"])
def test_the_ball_keeps_its_shape_and_colours(ball, package, monkeypatch):
    if package is None:
        monkeypatch.setattr(reduction, "_pymeshlab", lambda: None)
    else:
        pytest.importorskip(package)
    made = reduce_faces(ball, 50_000, 10_000)
    assert 7_000 < len(made.mesh.faces) <= 10_000
    radii = made.mesh.vertices.norm(dim=1)
    assert 0.985 < float(radii.min()) and float(radii.max()) < 1.005
    assert abs(float(signed_volume(made.mesh.vertices, made.mesh.faces)) - 4.18879) < 0.06
    above = made.mesh.vertices[:, 1] > 0.05
    assert float((made.mesh.vertex_colors[above] - torch.tensor([1.0, 0, 0])).abs().max()) < 0.02
    way = "vertex clusters" if package is None else "pymeshlab's edge collapses"
    assert made.note.startswith("81,920 faces (2 MiB) are reduced to ") and f"by {way} in " in made.note


def test_textures_keep_their_places(ball):
    """A texture that shows the height: after the reduction each corner still sees its own, within a cell."""
    corners = ball.vertices[ball.faces]
    uvs = torch.stack([corners[..., 0] / 4 + 0.5, corners[..., 1] / 4 + 0.5], dim=-1)
    ramp = torch.linspace(1, 0, 256)[:, None, None].expand(256, 4, 3)
    painted = Mesh(ball.vertices, ball.faces, corner_uvs=uvs, texture=ramp)
    made = reduce_faces(painted, 50_000, 10_000).mesh
    seen = sample_texture(made.texture, made.corner_uvs)[..., 0]
    height = made.vertices[made.faces][..., 1] / 4 + 0.5
    assert float((seen - height).abs().max()) < 0.02


def test_small_meshes_stay_and_bad_numbers_are_refused(ball):
    same = reduce_faces(ball)
    assert same.mesh is ball and same.note == ""
    with pytest.raises(InvalidInput, match="3 faces of meshes over 10"):
        reduce_faces(ball, 10, 3)
