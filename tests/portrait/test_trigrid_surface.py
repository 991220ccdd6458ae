"""Meshes of trigrid portraits: on the field's level set, in the world's axes, with the colours of the render."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.meshes import Mesh, signed_volume
from animportrait3d_core.portrait.protocol import MeshSettings
from animportrait3d_core.portrait.trigrid import query_density, render_trigrid, trigrid_mesh
from animportrait3d_core.surface import SurfaceSettings

LEVEL_SHARE = 0.72626  # 1 - x0 where ten times softplus(40 x0 - 8) less 15 is 15
AXES = torch.tensor([0.5, 0.6, 0.55]) * 1.05


def test_vertices_lie_on_the_level_set(make_ellipsoid) -> None:
    """The field, asked again at the vertices, has the level there; upstream's sheared mesh is up to a voxel away."""
    portrait = make_ellipsoid((64, 128))
    mesh = trigrid_mesh(portrait, MeshSettings(96, SurfaceSettings(smoothing_steps=0)))
    density = query_density(portrait, mesh.vertices)
    slope = 400 * 2 / AXES.min() * LEVEL_SHARE**0.5  # raw density per world unit, at most
    voxel = 2 * portrait.field.half_cube / 95
    assert (density - 15).abs().max() < 0.1 * voxel * slope
    assert (density - 15).mean().abs() < 0.02 * voxel * slope
    share = (mesh.vertices / AXES).square().sum(-1)
    torch.testing.assert_close(share, torch.full_like(share, LEVEL_SHARE), rtol=0, atol=0.01)
    assert signed_volume(mesh.vertices, mesh.faces) > 0


def test_colours_are_those_of_the_picture(make_ellipsoid) -> None:
    portrait = make_ellipsoid((64, 128))
    mesh = trigrid_mesh(portrait, MeshSettings(64))
    assert isinstance(mesh, Mesh) and mesh.vertex_colors is not None
    cameras = orbit_cameras([0.0], [0.0], 96)
    image = render_trigrid(portrait, cameras)
    pixels, _ = project(cameras, mesh.vertices)
    facing = (mesh.vertices[:, 2] / AXES[2]) > 0.65
    column, row = pixels[0, facing].long().unbind(-1)
    expected = (0.5 * image.rgb[0, row, column] + 0.5).clamp(0, 1)
    assert expected.std(dim=0).max() > 0.02  # there is a pattern to get wrong
    difference = (mesh.vertex_colors[facing] - expected).abs()
    assert difference.mean() < 0.02
    assert difference.quantile(0.99) < 0.08


def test_the_protocol_offers_the_mesh(make_ellipsoid) -> None:
    portrait = make_ellipsoid((32,))
    mesh = portrait.mesh()
    assert len(mesh.faces) > 50_000
    assert mesh.vertex_colors.shape == mesh.vertices.shape


def test_the_protocol_takes_settings_and_tells_its_steps(make_ellipsoid) -> None:
    steps = []
    rough = make_ellipsoid((32,)).mesh(
        MeshSettings(40, SurfaceSettings(smoothing_steps=0)), lambda *step: steps.append(step)
    )
    assert 1000 < len(rough.faces) < 6000  # a grid of 40 points a side, not the usual 256
    assert steps == [(1, 3, None), (2, 3, None), (3, 3, None)]
    with pytest.raises(InvalidInput, match="resolution is 8, expected 16 to 1024"):
        MeshSettings(8)
