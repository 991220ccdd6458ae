"""Meshes of density grids against closed forms."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.meshes import Mesh, face_normals, signed_volume
from animportrait3d_core.surface import SurfaceSettings, clean_mesh, mesh_from_density, roughness, smooth_mesh

START, SPACING = (-1.0, -1.2, -0.9), 0.05
RAW = SurfaceSettings(smoothing_steps=0, border=0.0)


def grid(function, shape=(41, 47, 37)) -> torch.Tensor:
    axes = [begin + SPACING * torch.arange(size) for begin, size in zip(START, shape)]
    return function(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1))


def ball(center, radius: float):
    return lambda points: 15 + 100 * (radius - (points - torch.tensor(center)).norm(dim=-1))


def test_sphere_lies_where_it_is_and_is_wound_outward() -> None:
    center = (0.1, -0.2, 0.05)
    mesh = mesh_from_density(grid(ball(center, 0.5)), START, SPACING, RAW)
    offsets = mesh.vertices - torch.tensor(center)
    torch.testing.assert_close(offsets.norm(dim=-1), torch.full((len(offsets),), 0.5), rtol=0, atol=2e-3)
    volume = 4 / 3 * torch.pi * 0.5**3
    assert signed_volume(mesh.vertices, mesh.faces).item() == pytest.approx(volume, rel=0.02)
    outward = (face_normals(mesh.vertices, mesh.faces) * offsets[mesh.faces].mean(dim=1)).sum(-1)
    assert (outward > 0).all()


def test_axes_are_not_mixed_up() -> None:
    """Three balls of different sizes on the axes come out where they went in."""
    places = [((0.6, 0.0, 0.0), 0.15), ((0.0, 0.7, 0.0), 0.2), ((0.0, 0.0, 0.5), 0.25)]
    values = torch.stack([grid(ball(*place)) for place in places]).amax(dim=0)
    mesh = mesh_from_density(values, START, SPACING, RAW)
    for center, radius in places:
        distance = (mesh.vertices - torch.tensor(center)).norm(dim=-1)
        assert distance.min().item() == pytest.approx(radius, abs=5e-3)


def test_a_body_cut_by_the_border_is_closed() -> None:
    mesh = mesh_from_density(grid(lambda points: 30 - 40 * points[..., 0]), START, SPACING, RAW)
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    assert (edges.sort(dim=1).values.unique(dim=0, return_counts=True)[1] == 2).all()
    cut = SurfaceSettings(smoothing_steps=0, border=0.2)
    inner = mesh_from_density(grid(lambda points: 30 - 40 * points[..., 0]), START, SPACING, cut)
    assert inner.vertices[:, 1].abs().max() < 0.6 * 1.2 + SPACING


def test_small_pieces_and_cavities_go() -> None:
    big = grid(ball((0.0, 0.0, 0.0), 0.6))
    crumb = grid(ball((-0.8, 0.8, 0.6), 0.1))
    hollow = 30 - grid(ball((0.1, 0.0, 0.0), 0.3))
    values = torch.maximum(torch.minimum(big, hollow), crumb)
    mesh = mesh_from_density(values, START, SPACING, RAW)
    assert mesh.vertices.norm(dim=-1).min() > 0.58
    assert mesh.vertices.norm(dim=-1).max() < 0.62
    everything = mesh_from_density(values, START, SPACING, SurfaceSettings(min_component_share=0.0, smoothing_steps=0))
    assert everything.vertices.norm(dim=-1).max() > 1.0


def test_cleaning_drops_duplicate_and_degenerate_faces() -> None:
    mesh = mesh_from_density(grid(ball((0.0, 0.0, 0.0), 0.5)), START, SPACING, RAW)
    extra = torch.tensor([[0, 0, 1], [5, 5, 5]])
    dirty = Mesh(mesh.vertices, torch.cat([mesh.faces, mesh.faces[:7].roll(1, dims=1), extra]))
    clean = clean_mesh(dirty, 0.05)
    assert len(clean.faces) == len(mesh.faces)
    inward = clean_mesh(Mesh(mesh.vertices, mesh.faces.flip(1)), 0.05)
    assert signed_volume(inward.vertices, inward.faces) > 0


def test_smoothing_is_the_mean_of_the_neighbours() -> None:
    vertices = torch.tensor([[0.0, 0, 1], [1, 0, 0], [-1, 0, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 3], [0, 3, 2], [0, 2, 1], [1, 2, 3]])
    smoothed = smooth_mesh(Mesh(vertices, faces), 1)
    torch.testing.assert_close(smoothed.vertices, vertices.mean(dim=0).expand(4, 3))
    assert torch.equal(smooth_mesh(Mesh(vertices, faces), 0).vertices, vertices)


def test_smoothing_removes_noise_and_keeps_the_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    values = grid(ball((0.0, 0.0, 0.0), 0.5))
    noisy = values + 2 * torch.randn(values.shape, generator=generator)
    rough = mesh_from_density(noisy, START, SPACING, RAW)
    smooth = mesh_from_density(noisy, START, SPACING, SurfaceSettings(border=0.0, smoothing_steps=16))
    assert roughness(smooth) < 0.5 * roughness(rough)
    assert signed_volume(smooth.vertices, smooth.faces) > 0.85 * signed_volume(rough.vertices, rough.faces)


def test_bad_grids_are_named() -> None:
    values = grid(ball((0.0, 0.0, 0.0), 0.5))
    with pytest.raises(InvalidInput, match="no surface at level 900"):
        mesh_from_density(values, START, SPACING, SurfaceSettings(level=900.0))
    with pytest.raises(InvalidInput, match="1 non-finite"):
        broken = values.clone()
        broken[3, 4, 5] = float("nan")
        mesh_from_density(broken, START, SPACING)
    with pytest.raises(ShapeMismatch, match="values"):
        mesh_from_density(values[0], START, SPACING)
    with pytest.raises(InvalidInput, match="border is 0.5"):
        SurfaceSettings(border=0.5)
