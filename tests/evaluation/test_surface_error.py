"""Errors between surfaces against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.evaluation.surface import (
    away_from_cuts,
    surface_error,
    visible_faces,
    weighted_mean,
    weighted_quantile,
)
from animportrait3d_core.meshes import Mesh

CAMERAS = orbit_cameras([0.0, 90.0, 180.0, 270.0, 0.0, 180.0], [0.0, 0.0, 0.0, 0.0, 55.0, -55.0], 192)


def sphere(radius: float, detail: int = 4) -> Mesh:
    solid = trimesh.creation.icosphere(subdivisions=detail, radius=radius)
    return Mesh(torch.tensor(np.array(solid.vertices)).float(), torch.tensor(np.array(solid.faces)))


def joined(*parts: Mesh) -> Mesh:
    vertices, faces, start = [], [], 0
    for part in parts:
        vertices.append(part.vertices)
        faces.append(part.faces + start)
        start += len(part.vertices)
    return Mesh(torch.cat(vertices), torch.cat(faces))


def test_a_surface_has_no_error_to_itself() -> None:
    error = surface_error(sphere(0.5), sphere(0.5), CAMERAS)
    assert error.mean_angle < 0.25, "flat faces against interpolated normals of the same mesh"
    assert error.mean_distance < 1e-6 and error.back_distance < 1e-6


def test_a_larger_sphere_is_as_far_as_its_radius_tells() -> None:
    error = surface_error(sphere(0.55), sphere(0.5), CAMERAS)
    assert error.mean_distance == pytest.approx(0.05, rel=0.03)
    assert error.p90_distance == pytest.approx(0.05, rel=0.03)
    assert error.back_distance == pytest.approx(0.05, rel=0.03)
    assert error.mean_angle < 0.5


def test_a_sheared_plane_has_its_angle() -> None:
    """A wall whose every second strip leans by 20 degrees against the flat truth: the mean over areas is known."""
    count, lean = 40, np.radians(20.0)
    edges = np.linspace(-0.5, 0.5, count + 1)
    depth = np.concatenate([[0.0], np.cumsum(np.diff(edges) * np.tan(lean) * np.resize([1.0, -1.0], count))])
    points = np.array([[x, y, z] for y in (-0.5, 0.5) for x, z in zip(edges, depth, strict=True)])
    lower, upper = np.arange(count), np.arange(count) + count + 1
    strips = np.stack([lower, lower + 1, upper + 1, lower, upper + 1, upper], axis=1).reshape(-1, 3)
    bent = Mesh(torch.tensor(points).float(), torch.from_numpy(strips))
    flat = Mesh(torch.tensor(points * [1, 1, 0]).float(), torch.from_numpy(strips))
    error = surface_error(bent, flat, CAMERAS[:1])
    assert error.mean_angle == pytest.approx(20.0, abs=0.1) and error.p90_angle == pytest.approx(20.0, abs=0.1)


def test_a_face_wound_inward_is_wrong_by_all_the_way() -> None:
    mesh = sphere(0.5)
    error = surface_error(Mesh(mesh.vertices, mesh.faces.flip(1)), mesh, CAMERAS)
    assert error.mean_angle > 179.5


def test_what_is_hidden_does_not_count() -> None:
    """A crumpled ball inside the truth's sphere changes nothing, in either of the two."""
    inner = sphere(0.3, 2)
    noise = torch.randn(inner.vertices.shape, generator=torch.Generator().manual_seed(0))
    crumpled = Mesh(inner.vertices + 0.05 * noise, inner.faces)
    plain = surface_error(sphere(0.55), sphere(0.5), CAMERAS)
    assert surface_error(joined(sphere(0.55), crumpled), sphere(0.5), CAMERAS) == plain
    assert surface_error(sphere(0.55), joined(sphere(0.5), crumpled), CAMERAS) == plain


def test_only_faces_in_sight_are_visible() -> None:
    mesh = sphere(0.5)
    seen = visible_faces(mesh, CAMERAS[:1])
    middles = mesh.vertices[mesh.faces[seen]].mean(dim=1)
    assert middles[:, 2].min() > -0.05
    assert int(seen.sum()) < len(mesh.faces) / 2


def test_cuts_of_a_bust_are_left_out() -> None:
    mesh = sphere(0.5)
    kept = mesh.vertices[mesh.faces[away_from_cuts(mesh, (torch.full((3,), -0.4), torch.full((3,), 0.4)), 0.1)]]
    middles = kept.mean(dim=1)
    assert middles[:, 0].abs().max() < 0.3 and middles[:, 1].min() > -0.3 and middles[:, 1].max() > 0.45


def test_weighted_statistics() -> None:
    values, weights = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 8.0, 1.0])
    assert weighted_mean(values, weights) == pytest.approx(1.3)
    assert [weighted_quantile(values, weights, share) for share in (0.5, 0.79, 0.85, 0.95)] == [1.0, 1.0, 2.0, 3.0]


def test_what_no_camera_sees_is_named() -> None:
    away = Mesh(sphere(0.5).vertices + torch.tensor([0.0, 50.0, 0.0]), sphere(0.5).faces)
    with pytest.raises(InvalidInput, match="see no face of `mesh`"):
        surface_error(away, sphere(0.5), CAMERAS)
