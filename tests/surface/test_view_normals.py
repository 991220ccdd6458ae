"""Normals of pictures against closed forms: a sphere seen by cameras from everywhere."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.cameras import Cameras, orbit_cameras, view_preset
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.surface import (
    ViewNormals,
    normal_images_of,
    normals_for_views,
    normals_from_images,
    world_normals,
)
from animportrait3d_core.surface.view_normals import resized_normals
from animportrait3d_core.views import Views

CENTER, RADIUS = torch.tensor([0.05, 0.2, -0.03]), 0.45


def sphere_views(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """World normals [B, H, W, 3] of the sphere where the rays through the pixels' centres meet it, and its mask."""
    row, column = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([column + 0.5, row + 0.5, torch.ones_like(row)], dim=-1).double()
    directions = pixels @ torch.linalg.inv(cameras.K.double()).transpose(1, 2)[:, None]
    directions = directions @ cameras.world_to_camera[:, None, :3, :3].double()
    directions = torch.nn.functional.normalize(directions, dim=-1)
    offset = cameras.camera_centers.double()[:, None, None] - CENTER.double()
    half = (directions * offset).sum(-1)
    square = half**2 - (offset**2).sum(-1) + RADIUS**2
    distance = -half - square.clamp(min=0).sqrt()
    return (offset + distance[..., None] * directions) / RADIUS, (square > 0).float()


def in_camera_space(world: torch.Tensor, cameras: Cameras) -> torch.Tensor:
    """By the definition of OpenGL axes: the columns right, up, backward of the camera in the world."""
    right, down, forward = cameras.camera_to_world[:, :3, :3].double().unbind(-1)
    axes = torch.stack([right, -down, -forward], dim=1)[:, None, None]
    return (axes * world[..., None, :]).sum(-1)


def sphere_normals(cameras: Cameras) -> tuple[ViewNormals, torch.Tensor]:
    world, mask = sphere_views(cameras)
    normals = in_camera_space(world, cameras) * mask[..., None]
    return ViewNormals(normals.float(), mask), (world * mask[..., None]).float()


def test_a_sphere_has_its_normals_in_the_world() -> None:
    cameras = view_preset("mesh24", 32)
    normals, world = sphere_normals(cameras)
    assert normals.normals[normals.masks > 0][:, 2].min() > 0, "what is seen points at the camera"
    torch.testing.assert_close(world_normals(normals, cameras), world, rtol=0, atol=1e-5)


def test_a_turned_camera_sees_the_same_world() -> None:
    """A camera that looks along another axis, rolled about it: the world normal of one point stays."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.nn.functional.normalize(torch.randn(1, 3, generator=generator), dim=-1)
    plain = orbit_cameras([25.0], [10.0], 1)
    for turn in torch.linalg.qr(torch.randn(8, 3, 3, generator=generator))[0]:
        turn = turn * torch.linalg.det(turn)
        matrix = plain.world_to_camera.clone()
        matrix[:, :3] = turn @ matrix[:, :3]
        cameras = Cameras(matrix, plain.K, 1, 1)
        seen = in_camera_space(direction[:, None, None].double(), cameras).float()
        found = world_normals(ViewNormals(seen, torch.ones(1, 1, 1)), cameras)
        torch.testing.assert_close(found[:, 0, 0], direction, rtol=0, atol=1e-5)


def test_the_legacy_rotation_is_off_by_twice_the_tilt_in_front() -> None:
    """The authors' front camera looks up by 4.917 degrees; a normal in its plane of symmetry is turned by double."""
    cameras = view_preset("mesh24", 1)[8]
    toward_viewer = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 1, 3)
    normals = ViewNormals(toward_viewer, torch.ones(1, 1, 1))
    right, legacy = (world_normals(normals, cameras, name) for name in ("camera_to_world", "legacy"))
    angle = torch.rad2deg(torch.arccos((right * legacy).sum(-1)))
    assert angle.item() == pytest.approx(9.834, abs=0.01)
    with pytest.raises(InvalidInput, match="rotation is 'other'"):
        world_normals(normals, cameras, "other")


@pytest.mark.parametrize(("coding", "signs"), [("OpenGL", (1, 1, 1)), ("DirectX", (1, -1, 1)), ("OpenCV", (1, -1, -1))])
def test_codings_are_undone(coding: str, signs: tuple[int, int, int]) -> None:
    normals, _ = sphere_normals(orbit_cameras([20.0], [5.0], 32))
    coded = 0.5 * normals.normals * torch.tensor(signs) + 0.5
    found = normals_from_images(coded, normals.masks, coding)
    torch.testing.assert_close(found.normals, normals.normals, rtol=0, atol=1e-6)
    assert torch.equal(found.masks, normals.masks)


def test_pictures_come_back_from_their_normals() -> None:
    normals, _ = sphere_normals(orbit_cameras([20.0, 80.0], [5.0, 0.0], 32))
    images = normal_images_of(normals)
    assert bool((images[normals.masks == 0] == 1).all())
    found = normals_from_images(images, normals.masks)
    torch.testing.assert_close(found.normals, normals.normals, rtol=0, atol=1e-6)


def test_grey_pixels_hold_no_direction() -> None:
    grey = torch.full((1, 4, 4, 3), 0.5)
    grey[0, 0, 0] = torch.tensor([0.5, 0.5, 1.0])
    found = normals_from_images(grey, torch.ones(1, 4, 4))
    assert found.masks.sum() == 1 and found.normals.abs().sum() == 1


def test_larger_pictures_are_resampled_to_the_views() -> None:
    fine, coarse = orbit_cameras([30.0], [5.0], 96), orbit_cameras([30.0], [5.0], 32)
    (normals, _), (expected, _) = sphere_normals(fine), sphere_normals(coarse)
    views = Views(torch.zeros(1, 32, 32, 3), expected.masks, coarse, torch.ones(3))
    found = normals_for_views(normal_images_of(normals), views)
    inside = torch.nn.functional.max_pool2d(1 - expected.masks, 5, stride=1, padding=2) == 0
    angles = torch.rad2deg(torch.arccos((found.normals * expected.normals).sum(-1).clamp(-1, 1)))
    assert found.normals.shape == expected.normals.shape
    assert angles[inside].max() < 2.0
    smaller = resized_normals(normals, 32, 32)
    assert angles[inside].shape == (smaller.normals * expected.normals).sum(-1)[inside].shape
    assert (smaller.normals * expected.normals).sum(-1)[inside].min() > 0.999


def test_what_does_not_fit_is_named() -> None:
    cameras = orbit_cameras([0.0, 90.0], [0.0, 0.0], 16)
    normals, _ = sphere_normals(cameras)
    with pytest.raises(ShapeMismatch, match=r"2 pictures of 16 x 16, expected 1 of 16 x 16"):
        world_normals(normals, cameras[0])
    with pytest.raises(ShapeMismatch, match=r"expected 2 of 20 x 20"):
        world_normals(normals, cameras.resized(20, 20))
    with pytest.raises(ShapeMismatch, match="masks"):
        ViewNormals(normals.normals, normals.masks[:1])
    with pytest.raises(InvalidInput, match="values run from -0.9"):
        normals_from_images(normals.normals, normals.masks)
    with pytest.raises(InvalidInput, match="coding is 'opengl'"):
        normals_from_images(normals.normals, normals.masks, "opengl")
