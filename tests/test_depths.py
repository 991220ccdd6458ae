"""Normals of depth maps against planes and a sphere whose normals are known in closed form."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from animportrait3d_core.cameras import Cameras, orbit_cameras
from animportrait3d_core.depths import normals_of_depth
from animportrait3d_core.errors import ShapeMismatch
from animportrait3d_core.views import Views, concatenate_views, replace_images

SIZE = 64


def rays(cameras: Cameras) -> Tensor:
    """Directions [B, H, W, 3] in OpenCV camera space, of z 1, through the pixels' centres."""
    steps = torch.arange(SIZE) + 0.5
    pixels = torch.stack([steps.expand(SIZE, SIZE), steps[:, None].expand(SIZE, SIZE), torch.ones(SIZE, SIZE)], -1)
    return torch.einsum("bij,hwj->bhwi", torch.linalg.inv(cameras.K), pixels)


def to_opengl(vectors: Tensor) -> Tensor:
    return vectors * torch.tensor([1.0, -1.0, -1.0])


def plane_depth(cameras: Cameras, normal: Tensor, distance: float) -> Tensor:
    """Depth of the plane normal . point = distance, in OpenCV camera space."""
    return distance / (rays(cameras) @ normal)


def test_a_plane_has_one_normal_however_it_is_turned() -> None:
    cameras = orbit_cameras([0.0], [0.0], SIZE)
    for normal in ([0.0, 0.0, -1.0], [0.5, 0.0, -1.0], [-0.4, 0.8, -1.0]):
        unit = torch.nn.functional.normalize(torch.tensor(normal), dim=0)
        found = normals_of_depth(plane_depth(cameras, unit, -2.0), cameras)
        torch.testing.assert_close(found, to_opengl(unit).expand_as(found), atol=2e-3, rtol=0)


def test_a_sphere_is_round_and_nothing_is_said_beside_it() -> None:
    cameras = orbit_cameras([0.0, 70.0], [10.0, -20.0], SIZE)
    radius, directions = 0.5, rays(cameras)
    center = cameras.world_to_camera[:, None, None, :3, 3]  # it lies in the origin
    a, b = directions.square().sum(-1), (directions * center).sum(-1)
    inside = b.square() - a * (center.square().sum(-1) - radius**2)
    depth = torch.where(inside > 0, (b - inside.clamp_min(0).sqrt()) / a, 0.0)
    found = normals_of_depth(depth, cameras)
    truth = to_opengl((directions * depth[..., None] - center) / radius)
    squarely = (depth > 0) & (truth[..., 2] > 0.5)
    cosines = (found * truth).sum(-1)[squarely]
    assert squarely.sum() > 500 and float(cosines.min()) > 0.99
    assert not found[depth == 0].any()
    lengths = found[depth > 0].norm(dim=-1)
    assert bool((((lengths - 1).abs() < 1e-4) | (lengths == 0)).all())


def test_an_edge_belongs_to_one_of_its_sides() -> None:
    cameras = orbit_cameras([0.0], [0.0], SIZE)
    near, far = torch.tensor([0.0, 0.0, -1.0]), torch.nn.functional.normalize(torch.tensor([0.4, 0.0, -1.0]), dim=0)
    left = torch.arange(SIZE) < SIZE // 2
    depth = torch.where(left, plane_depth(cameras, near, -2.0), plane_depth(cameras, far, -3.0))
    found = normals_of_depth(depth, cameras)
    expected = torch.where(left[:, None], to_opengl(near), to_opengl(far)).expand_as(found)
    torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)


def test_views_keep_their_depth_when_they_are_chosen_joined_and_scaled() -> None:
    cameras = orbit_cameras([0.0, 40.0], [0.0, 0.0], SIZE)
    depth = plane_depth(cameras, torch.tensor([0.0, 0.0, -1.0]), -2.0)
    views = Views(torch.ones(2, SIZE, SIZE, 3), torch.ones(2, SIZE, SIZE), cameras, torch.ones(3), depth=depth)
    assert views[1].depth is not None and torch.equal(views[1].depth, depth[1:])
    joined, flat = concatenate_views([views[1], views[0]]), dataclasses.replace(views, depth=None)
    assert joined.depth is not None and torch.equal(joined.depth, depth.flip(0))
    assert concatenate_views([views, flat]).depth is None and flat.normals is None
    larger = replace_images(views, torch.ones(2, 2 * SIZE, 2 * SIZE, 3))
    assert larger.depth is not None and larger.depth.shape == (2, 2 * SIZE, 2 * SIZE)
    assert views.normals is not None and views.normals.shape == (2, SIZE, SIZE, 3)
    with pytest.raises(ShapeMismatch, match="depth"):
        dataclasses.replace(views, depth=depth[:1])
