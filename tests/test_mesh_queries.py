"""Closest points and surface colours against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.mesh_queries import SurfaceTree, closest_points, colors_at, surface_colors
from animportrait3d_core.meshes import Mesh


def random_mesh(seed: int, count: int = 40) -> Mesh:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(count, 3, generator=generator)
    faces = torch.stack([torch.randperm(count, generator=generator)[:3] for _ in range(2 * count)])
    colors = torch.rand(count, 3, generator=generator)
    return Mesh(vertices, faces, vertex_colors=colors)


def dense_distance(points: torch.Tensor, mesh: Mesh, steps: int = 60) -> torch.Tensor:
    """Distances by sampling every triangle on a fine barycentric grid: an upper bound, close from above."""
    grid = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    weights = torch.tensor(grid, dtype=torch.float64) / steps
    samples = torch.einsum("gk,fkc->fgc", weights, mesh.vertices.double()[mesh.faces]).reshape(-1, 3)
    return torch.cdist(points.double(), samples).min(dim=1).values


def test_distances_agree_with_dense_sampling():
    mesh = random_mesh(0)
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)) * 1.5
    found = closest_points(mesh, points).distances.double()
    dense = dense_distance(points, mesh)
    assert (found <= dense + 1e-6).all()
    assert (dense - found).max() < 0.03


def test_barycentric_rebuilds_the_point_and_sums_to_one():
    mesh = random_mesh(2)
    closest = closest_points(mesh, torch.randn(200, 3, generator=torch.Generator().manual_seed(3)))
    rebuilt = (mesh.vertices[mesh.faces[closest.faces]] * closest.barycentric[..., None]).sum(1)
    assert torch.allclose(rebuilt, closest.points, atol=2e-6)
    assert torch.allclose(closest.barycentric.sum(1), torch.ones(200), atol=1e-6)
    assert closest.barycentric.min() >= 0


def test_colors_are_linear_over_a_face_and_exact_at_corners():
    mesh = random_mesh(4)
    used = torch.isin(torch.arange(len(mesh.vertices)), mesh.faces[7])
    assert torch.allclose(surface_colors(mesh, mesh.vertices[used]), mesh.vertex_colors[used], atol=1e-5)
    middle = colors_at(mesh, torch.tensor([7]), torch.tensor([[1 / 3, 1 / 3, 1 / 3]]))
    assert torch.allclose(middle[0], mesh.vertex_colors[mesh.faces[7]].mean(0), atol=1e-6)


def test_texture_is_sampled_upright():
    texture = torch.zeros(2, 2, 3)
    texture[0, :] = torch.tensor([1.0, 0, 0])  # row 0 is the top, v near 1
    texture[1, :] = torch.tensor([0, 0, 1.0])
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    mesh = Mesh(vertices, faces, corner_uvs=vertices[faces][..., :2], texture=texture)
    colors = surface_colors(mesh, torch.tensor([[0.5, 0.75, 0.3], [0.5, 0.25, -0.3]]))
    assert torch.allclose(colors, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]), atol=1e-6)


def test_faces_without_area_give_finite_weights():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    tree = SurfaceTree(vertices, torch.tensor([[0, 1, 2], [1, 1, 1]]))
    closest = tree.closest(torch.tensor([[1.9, 1.0, 0.0], [-3.0, 0, 0]]))
    assert torch.isfinite(closest.barycentric).all()
    assert torch.allclose(closest.distances, torch.tensor([1.0, 3.0]))
    assert np.allclose(closest.barycentric.sum(1), 1)


def test_bad_input_is_refused_by_name():
    mesh = random_mesh(5)
    with pytest.raises(InvalidInput, match="1 non-finite"):
        closest_points(mesh, torch.tensor([[0.0, float("nan"), 0]]))
    with pytest.raises(InvalidInput, match="0 faces"):
        SurfaceTree(mesh.vertices, torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(InvalidInput, match="neither a texture nor vertex colours"):
        surface_colors(Mesh(mesh.vertices, mesh.faces), mesh.vertices)
    assert len(closest_points(mesh, torch.zeros(0, 3)).points) == 0
