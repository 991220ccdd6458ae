"""First Gaussians: the authors' constants in `paper`, closed surfaces with few points in `fixed`."""

from __future__ import annotations

import math

import pytest
import torch

from animportrait3d_core.avatar import InitializeSettings, initialize_avatar, pose_avatar
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.gaussians import sh0_to_rgb
from animportrait3d_core.parts import AvatarPart
from animportrait3d_core.rigging import points_to_local, triangle_frames
from animportrait3d_core.rigging.points import RiggedPoints
from animportrait3d_core.rotations import quaternion_to_matrix


@pytest.fixture(scope="module")
def points(mannequin_body, rest) -> RiggedPoints:
    generator = torch.Generator().manual_seed(0)
    binding = torch.randint(len(mannequin_body.faces), (400,), generator=generator)
    with torch.no_grad():
        frames = triangle_frames(mannequin_body(rest).vertices[0], mannequin_body.faces)[binding]
    positions = frames.center + 0.02 * torch.randn(400, 3, generator=generator)
    part_id = torch.tensor(
        [AvatarPart.HAIR, AvatarPart.CLOTHES, AvatarPart.SKIN, AvatarPart.MOUTH_INTERIOR], dtype=torch.uint8
    ).repeat(100)
    normals = torch.nn.functional.normalize(torch.randn(400, 3, generator=generator), dim=-1)
    own = part_id == AvatarPart.SKIN
    normals[own] = -frames.rotation[own, :, 1]
    return RiggedPoints(
        positions=positions,
        normals=normals,
        spacing=0.01 + 0.02 * torch.rand(400, generator=generator),
        binding=binding,
        local_positions=points_to_local(frames, positions),
        part_id=part_id,
        colors=torch.rand(400, 3, generator=generator),
    )


def test_fixed_start_lies_on_the_points_as_discs(points, mannequin_body, rest) -> None:
    settings = InitializeSettings()
    avatar = initialize_avatar(points, mannequin_body, rest, settings, prompt="a head")
    world = pose_avatar(avatar, rest)
    torch.testing.assert_close(world.means, points.positions, rtol=0, atol=1e-5)
    torch.testing.assert_close(sh0_to_rgb(world.sh[:, 0]), points.colors, rtol=0, atol=1e-6)
    spread = settings.spacing_scale * points.spacing
    expected = torch.stack([spread, settings.flatness * spread, spread], dim=-1)
    torch.testing.assert_close(world.scales, expected, rtol=1e-4, atol=0)
    thin_axis = quaternion_to_matrix(world.quats)[:, :, 1]
    assert ((thin_axis * points.normals).sum(-1).abs() - 1).abs().max() < 1e-4
    identity = torch.tensor([1.0, 0, 0, 0])
    torch.testing.assert_close(
        avatar.gaussians.quats[points.part_id == AvatarPart.SKIN], identity.expand(100, 4), rtol=0, atol=1e-4
    )
    hidden = points.part_id == AvatarPart.MOUTH_INTERIOR
    assert world.opacities[hidden].allclose(torch.tensor(settings.hidden_opacity))
    assert world.opacities[~hidden].allclose(torch.tensor(settings.opacity))
    assert avatar.prompt == "a head"


def test_paper_start_is_the_authors(points, mannequin_body, rest) -> None:
    gaussians = initialize_avatar(points, mannequin_body, rest, InitializeSettings.paper()).gaussians
    loose = (points.part_id == AvatarPart.HAIR) | (points.part_id == AvatarPart.CLOTHES)
    assert gaussians.log_scales[loose].allclose(torch.tensor(math.log(0.1)))
    assert gaussians.log_scales[~loose].allclose(torch.tensor(math.log(0.2)))
    assert gaussians.opacities.allclose(torch.tensor(0.1))
    assert gaussians.sh.shape == (400, 16, 3)
    assert not gaussians.sh[:, 1:].any()
    assert torch.equal(gaussians.means, points.local_positions)


@pytest.mark.parametrize("change", [{"opacity": 1.0}, {"hidden_opacity": 0.0}, {"flatness": 0.0}, {"sh_degree": 4}])
def test_settings_out_of_range_are_refused(change) -> None:
    with pytest.raises(InvalidInput, match=next(iter(change))):
        InitializeSettings(**change)
