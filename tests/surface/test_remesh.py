"""Remeshing and decimation of random blobs: volume, genus, manifoldness, edge lengths and budgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.mesh_queries import closest_points
from animportrait3d_core.meshes import Mesh, face_areas, signed_volume, vertex_normals
from animportrait3d_core.surface import decimate, isotropic_remesh
from animportrait3d_core.surface.edges import edge_table, faces_around
from animportrait3d_core.surface.remesh import collapse_short_edges, edge_lengths, split_long_edges, topology

FAST = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def as_mesh(solid: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(np.array(solid.vertices)).float(), torch.tensor(np.array(solid.faces, dtype=np.int64)))


def blob(seed: int, shape: str = "ball", detail: int = 3) -> Mesh:
    """A ball or a ring with random smooth bumps."""
    random = np.random.default_rng(seed)
    if shape == "ball":
        solid = trimesh.creation.icosphere(subdivisions=detail)
    else:
        solid = trimesh.creation.torus(1.0, 0.4, major_sections=8 * detail, minor_sections=5 * detail)
    points = np.array(solid.vertices)
    waves = random.normal(size=(4, 3)) * 1.5
    bumps = 1 + 0.08 * np.sin(points @ waves.T + random.uniform(0, 6, size=4)).sum(axis=1)
    return as_mesh(trimesh.Trimesh(points * bumps[:, None], solid.faces, process=False))


def volume(mesh: Mesh) -> float:
    return float(signed_volume(mesh.vertices.double(), mesh.faces))


def test_edges_of_a_tetrahedron_with_a_fin() -> None:
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2], [0, 1, 4]])
    table = edge_table(faces, 5)
    assert sorted(map(tuple, table.ends.tolist())) == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3)]
    regular = {tuple(ends) for ends in table.ends[table.regular].tolist()}
    assert regular == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert table.irregular_vertices().tolist() == [True, True, False, False, True]
    for edge in np.nonzero(table.regular)[0]:
        start, end = table.ends[edge]
        for side, (first, second) in enumerate(((start, end), (end, start))):
            face = faces[table.faces[edge, side]].tolist()
            assert face[(face.index(first) + 1) % 3] == second
            assert set(face) == {first, second, table.opposite[edge, side]}
    starts, listing = faces_around(faces, 5)
    assert sorted(listing[starts[1] : starts[2]].tolist()) == [0, 1, 2, 4]


@FAST
@given(seed=st.integers(0, 10**6), shape=st.sampled_from(["ball", "ring"]), size=st.floats(0.08, 0.25))
def test_remeshing_keeps_volume_genus_and_manifold(seed: int, shape: str, size: float) -> None:
    mesh = blob(seed, shape)
    before = topology(mesh)
    assert before.closed and before.manifold
    after = isotropic_remesh(mesh, size)
    assert topology(after) == before
    # Flat triangles cut off what bulges above them: by the square of edge over radius (that of a ball of the same
    # volume, and 0.3 for the ring).
    radius = (3 * volume(mesh) / (4 * math.pi)) ** (1 / 3)
    cut = 0.4 * (size / radius) ** 2 if shape == "ball" else 0.15 * (size / 0.3) ** 2
    assert volume(mesh) * (1 - 0.005 - cut) < volume(after) < volume(mesh) * 1.005
    assert len(torch.unique(after.faces)) == len(after.vertices)
    assert closest_points(mesh, after.vertices).distances.max() < 1e-5


@pytest.mark.parametrize("size", [0.08, 0.15])
def test_edges_come_near_the_length_and_valences_near_six(size: float) -> None:
    after = isotropic_remesh(blob(5), size, rounds=4)
    table = edge_table(after.faces.numpy(), len(after.vertices))
    lengths = edge_lengths(after.vertices.double().numpy(), table.ends)
    assert lengths.mean() == pytest.approx(size, rel=0.08)
    assert np.mean((lengths > 0.6 * size) & (lengths < 1.5 * size)) > 0.97
    valences = np.bincount(table.ends.reshape(-1))
    assert np.mean(np.abs(valences - 6) <= 1) > 0.98
    corners = after.vertices[after.faces].double()
    area, sides = face_areas(after.vertices.double(), after.faces), (corners - corners.roll(1, 1)).norm(dim=-1)
    quality = 4 * 3**0.5 * area / (sides**2).sum(-1)  # 1 for an equilateral triangle
    assert quality.mean() > 0.9 and quality.min() > 0.3


def test_a_thin_tube_is_not_pinched() -> None:
    """Three edges around a tube bound no face: the tube would be closed by collapsing one of them (link condition)."""
    rings = 9
    angles = np.arange(3) * 2 * np.pi / 3
    circle = 0.05 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices = np.array([[*point, 0.3 * ring] for ring in range(rings) for point in circle])
    sides = [[3 * r + k, 3 * r + (k + 1) % 3, 3 * r + 3 + (k + 1) % 3] for r in range(rings - 1) for k in range(3)]
    sides += [[3 * r + k, 3 * r + 3 + (k + 1) % 3, 3 * r + 3 + k] for r in range(rings - 1) for k in range(3)]
    top = 3 * (rings - 1)
    faces = np.array([*sides, [0, 2, 1], [top, top + 1, top + 2]])
    after = collapse_short_edges(vertices, faces, 0.1, 2.0)
    kind = topology(Mesh(torch.from_numpy(after[0]).float(), torch.from_numpy(after[1])))
    assert len(after[1]) < len(faces) and kind.closed and kind.manifold and kind.euler == 2


def test_faces_keep_their_side() -> None:
    mesh = blob(7)
    after = isotropic_remesh(mesh, 0.12)
    closest = closest_points(mesh, after.vertices)
    expected = vertex_normals(mesh.vertices, mesh.faces)[mesh.faces[closest.faces]]
    expected = (expected * closest.barycentric[..., None]).sum(1)
    cosine = torch.nn.functional.cosine_similarity(expected, vertex_normals(after.vertices, after.faces), dim=-1)
    assert cosine.min() > 0.7


def test_splitting_changes_no_surface() -> None:
    mesh = blob(2, detail=2)
    vertices, faces = split_long_edges(mesh.vertices.double().numpy(), mesh.faces.numpy(), 0.11)
    split = Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces))
    assert topology(split) == topology(mesh)
    assert volume(split) == pytest.approx(volume(mesh), rel=1e-6)
    area = face_areas(mesh.vertices.double(), mesh.faces).sum()
    torch.testing.assert_close(face_areas(split.vertices.double(), split.faces).sum(), area, rtol=1e-6, atol=0)
    assert edge_lengths(vertices, edge_table(faces, len(vertices)).ends).max() <= 0.11


def test_an_open_border_stays_where_it_is() -> None:
    """A disc: its rim is neither collapsed nor moved, so that it keeps its area."""
    solid = trimesh.creation.icosphere(subdivisions=4)
    solid.update_faces(solid.vertices[solid.faces].mean(axis=1)[:, 2] > 0)
    solid.remove_unreferenced_vertices()
    half = as_mesh(solid)
    after = isotropic_remesh(half, 0.15)
    kind = topology(after)
    assert not kind.closed and kind.euler == 1
    area = float(face_areas(half.vertices, half.faces).sum())
    assert float(face_areas(after.vertices, after.faces).sum()) == pytest.approx(area, rel=0.02)
    rim = edge_table(after.faces.numpy(), len(after.vertices))
    rim_vertices = after.vertices[torch.from_numpy(rim.irregular_vertices())]
    assert rim_vertices[:, 2].abs().max() < 0.1


@FAST
@given(seed=st.integers(0, 10**6), shape=st.sampled_from(["ball", "ring"]), budget=st.integers(150, 700))
def test_decimation_reaches_the_budget(seed: int, shape: str, budget: int) -> None:
    mesh = blob(seed, shape)
    fewer = decimate(mesh, budget)
    assert budget - 2 <= len(fewer.faces) <= budget
    assert topology(fewer) == topology(mesh)
    assert volume(fewer) == pytest.approx(volume(mesh), rel=0.05)


def test_decimation_leaves_small_meshes_and_refuses_tangled_ones() -> None:
    mesh = blob(0)
    assert decimate(mesh, len(mesh.faces)) is mesh
    fin = torch.tensor([[0, int(mesh.faces[0, 1]), 5], [0, int(mesh.faces[0, 1]), 9]])
    tangled = Mesh(mesh.vertices, torch.cat([mesh.faces, mesh.faces[:1, [0, 1, 2]].roll(1, 1), fin]))
    with pytest.raises(InvalidInput, match="edges have more than two faces"):
        decimate(tangled, 100)
    with pytest.raises(InvalidInput, match="face_budget is 3"):
        decimate(mesh, 3)
    with pytest.raises(InvalidInput, match="edge_length is 0"):
        isotropic_remesh(mesh, 0.0)
