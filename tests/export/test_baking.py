"""Baking: what was painted on the body by splats stands at its place in the texture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.avatar import RiggedAvatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.embedded.corner_uvs import corner_uvs_of
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export.baking import BakeSettings, bake_colors, fill_gaps, texel_points, vertex_points
from animportrait3d_core.gaussians import Gaussians, rgb_to_sh0
from animportrait3d_core.meshes import sample_texture
from animportrait3d_core.parts import part_of_faces


def paint(points: torch.Tensor) -> torch.Tensor:
    """A colour [P, 3] for each place [P, 3] of the template: waves of 15 cm, so that places mixed up show."""
    waves = points @ torch.tensor([[40.0, 10.0, 0.0], [0.0, 40.0, 15.0], [12.0, 0.0, 40.0]])
    return 0.5 + 0.35 * waves.sin()


@pytest.fixture(scope="module")
def painted(mannequin_body: BodyModel, rest) -> RiggedAvatar:
    """One opaque disc on every face, painted by where the face is in the template."""
    body = mannequin_body
    with torch.no_grad():
        template = body.shape(rest.betas).vertices[0][body.faces].mean(dim=1)
    count = len(body.faces)
    flat = torch.log(torch.tensor([0.6, 0.02, 0.6])).expand(count, 3)  # a triangle's frame has its normal in the middle
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4)
    sh = rgb_to_sh0(paint(template))[:, None]
    gaussians = Gaussians(torch.zeros(count, 3), quats, flat, torch.full((count,), 6.0), sh)
    parts = part_of_faces(body.assets.face_regions)
    return RiggedAvatar(gaussians, torch.arange(count), parts, body, rest)


@pytest.mark.slow
def test_colours_stand_where_they_were_painted(painted: RiggedAvatar):
    """Closed form: the colour at a place of the surface. Shoulders have large triangles, each of one colour; of teeth
    and mouth, which only the open mouth shows, most is hidden. Mixed up places would give 0.3."""
    body = painted.body
    points = vertex_points(body.faces, body.num_vertices)
    colors = bake_colors(painted, points, BakeSettings(0, 512))
    with torch.no_grad():
        wanted = paint(body.shape(painted.parameters.betas).vertices[0])
    error = (colors - wanted).abs().mean(dim=1)
    limits = {"face": 0.01, "iris": 0.005, "lips": 0.02, "scalp": 0.03, "body": 0.06, "teeth": 0.11}
    for name, limit in limits.items():
        found = float(error[body.region_vertices(name)].mean())
        assert found < limit, (name, found)


@pytest.mark.slow
def test_the_texture_is_the_right_way_up(painted: RiggedAvatar):
    body, size = painted.body, 256
    uvs = corner_uvs_of(body)
    points, texels = texel_points(uvs, size)
    texture = fill_gaps(bake_colors(painted, points, BakeSettings(size, 384)), texels, size)
    face = body.region_faces("face")
    shown = sample_texture(texture, uvs[face].mean(dim=1))
    with torch.no_grad():
        wanted = paint(body.shape(painted.parameters.betas).vertices[0][body.faces[face]].mean(dim=1))
    assert float((shown - wanted).abs().mean()) < 0.03
    assert float((texture.flip(0) - texture).abs().mean()) > 0.1


def test_texels_are_the_surface_points_of_their_centres(mannequin_body):
    """A chart of two triangles that fills a rectangle of the texture."""
    uvs = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75]], [[0.25, 0.25], [0.75, 0.75], [0.25, 0.75]]])
    points, texels = texel_points(uvs, 16)
    assert len(texels) == 64
    row, column = texels // 16, texels % 16
    there = (uvs[points.face] * points.barycentric[..., None]).sum(dim=1)
    np.testing.assert_allclose(there[:, 0], (column + 0.5) / 16, atol=1e-5)
    np.testing.assert_allclose(there[:, 1], 1 - (row + 0.5) / 16, atol=1e-5)
    texture = fill_gaps(torch.rand(64, 3, generator=torch.Generator().manual_seed(0)), texels, 16)
    assert torch.equal(texture[0, 0], texture[4, 4]) and torch.equal(texture[15, 15], texture[11, 11])


def test_every_vertex_is_its_own_point(mannequin_body):
    points = vertex_points(mannequin_body.faces, mannequin_body.num_vertices)
    values = torch.arange(mannequin_body.num_vertices).float()[:, None]
    used = torch.unique(mannequin_body.faces)
    assert torch.equal(points.of(values, mannequin_body.faces)[used], values[used])


def test_another_body_has_no_coordinates_of_the_mannequin(mannequin_body):
    assets = dataclasses.replace(mannequin_body.assets, name="smplx")
    stored, metadata = mannequin_body.to_tensors()
    assert corner_uvs_of(BodyModel(BodyModel.from_tensors(stored, metadata)._tensors, assets)) is None
    uvs = corner_uvs_of(mannequin_body)
    assert uvs.shape == (len(mannequin_body.faces), 3, 2) and 0 <= float(uvs.min()) <= float(uvs.max()) <= 1


def test_sizes_that_cannot_be_are_refused():
    for sizes in ((-1, 64), (16384, 64), (64, 8)):
        with pytest.raises(InvalidInput, match="expected"):
            BakeSettings(*sizes)
