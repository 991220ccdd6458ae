"""The graph of faces: neighbours, pieces, votes that spread (against a dense solve and closed forms), islands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.segmentation.face_graph import absorb_islands, face_graph, spread_votes


def strip(count: int, stretch: float = 1.0) -> Mesh:
    """A strip of `count` equilateral triangles, each sharing one edge with the next."""
    index = torch.arange(count + 2)
    vertices = torch.stack([0.5 * index * stretch, (index % 2) * 3**0.5 / 2, torch.zeros(count + 2)], 1).float()
    return Mesh(vertices, torch.stack([index[:-2], index[1:-1], index[2:]], 1))


def field(size: int) -> Mesh:
    """A square of size x size quads, two triangles each."""
    grid = torch.arange(size + 1).float()
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    vertices = torch.stack([x, y, 0 * x], -1).reshape(-1, 3) / size
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    a = (row * (size + 1) + column).reshape(-1)
    b, c, d = a + 1, a + size + 2, a + size + 1
    return Mesh(vertices, torch.stack([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)], 1).reshape(-1, 3))


def test_neighbours_lengths_and_areas_of_a_strip() -> None:
    graph = face_graph(strip(5))
    assert sorted(map(tuple, graph.pairs.tolist())) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    np.testing.assert_allclose(graph.lengths, 1.0, atol=1e-6)
    np.testing.assert_allclose(graph.distances, 2 * 3**0.5 / 6, atol=1e-6)
    np.testing.assert_allclose(graph.areas, 3**0.5 / 4, atol=1e-6)


def test_seams_of_doubled_vertices_do_not_cut_the_surface() -> None:
    mesh = field(3)
    torn = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), torch.arange(3 * len(mesh.faces)).reshape(-1, 3))
    whole, seamed = face_graph(mesh), face_graph(torn)
    assert set(map(tuple, whole.pairs.tolist())) == set(map(tuple, seamed.pairs.tolist()))
    assert len(set(whole.pieces())) == 1


def test_an_edge_of_three_faces_connects_all_of_them() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]])
    graph = face_graph(Mesh(vertices, torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])))
    assert len(set(graph.pieces())) == 1


def test_pieces_are_counted() -> None:
    mesh = strip(4)
    far = Mesh(torch.cat([mesh.vertices, mesh.vertices + 10]), torch.cat([mesh.faces, mesh.faces + 6]))
    assert face_graph(far).pieces().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    groups = np.array([0, 0, 1, 1, 0, 1, 1, 0])
    assert len(set(face_graph(far).pieces(groups))) == 5


def dense_solution(mesh: Mesh, votes: torch.Tensor, evidence: torch.Tensor, radius: float) -> np.ndarray:
    """The screened Poisson equation written out face by face in float64."""
    corners = mesh.vertices.double().numpy()[mesh.faces.numpy()]
    count = len(corners)
    matrix, target = np.zeros((count, count)), np.zeros((count, votes.shape[1]))
    for i in range(count):
        area = 0.5 * np.linalg.norm(np.cross(corners[i, 1] - corners[i, 0], corners[i, 2] - corners[i, 0]))
        matrix[i, i] += area * float(evidence[i])
        target[i] = area * float(evidence[i]) * votes[i].double().numpy()
        for j in range(count):
            shared = [k for k in mesh.faces[i].tolist() if k in mesh.faces[j].tolist()]
            if i == j or len(shared) != 2:
                continue
            start, end = mesh.vertices[shared].double().numpy()
            middle = 0.5 * (start + end)
            distance = sum(np.linalg.norm(corners[k].mean(0) - middle) for k in (i, j))
            strength = radius**2 * np.linalg.norm(end - start) / distance
            matrix[i, i] += strength
            matrix[i, j] -= strength
    return np.linalg.solve(matrix, target)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.sampled_from([0.01, 0.1, 1.0]))
def test_spreading_solves_the_written_out_equation(seed, radius) -> None:
    generator = torch.Generator().manual_seed(seed)
    mesh = field(4)
    mesh = Mesh(mesh.vertices + 0.05 * torch.randn(mesh.vertices.shape, generator=generator), mesh.faces)
    votes = torch.rand(32, 3, generator=generator, dtype=torch.float64)
    evidence = torch.rand(32, generator=generator) * (torch.rand(32, generator=generator) < 0.5)
    evidence[0] = 0.5
    found = spread_votes(face_graph(mesh), votes, evidence, radius)
    np.testing.assert_allclose(found.numpy(), dense_solution(mesh, votes, evidence, radius), atol=1e-6)


def test_unknown_faces_between_two_known_ones_change_evenly() -> None:
    """The discrete harmonic function on an even strip is a straight line, however small the radius."""
    votes = torch.zeros(9, 2, dtype=torch.float64)
    votes[0, 0] = votes[8, 1] = 1.0
    evidence = torch.zeros(9)
    evidence[[0, 8]] = 1e6
    for radius in (0.0, 0.02):
        found = spread_votes(face_graph(strip(9)), votes, evidence, radius)
        torch.testing.assert_close(found[:, 1], torch.linspace(0, 1, 9, dtype=torch.float64), rtol=0, atol=1e-4)
        torch.testing.assert_close(found.sum(1), torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-6)


def test_radius_zero_leaves_known_faces_alone() -> None:
    votes = torch.rand(32, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread_votes(face_graph(field(4)), votes, torch.ones(32), 0.0), votes, rtol=0, atol=1e-6)


def test_smoothing_does_not_depend_on_how_finely_the_surface_is_divided() -> None:
    """A step blended with radius r leaves exp(-x / r) / 2 of the other side at a distance x, at any fineness.

    On equilateral triangles, where the way between centroids crosses edges at right angles and the scheme is exact in
    the limit.
    """
    radius, height = 0.08, 3**0.5 / 2
    for size, tolerance in ((20, 0.06), (40, 0.02), (80, 0.008)):
        square = field(size)
        x, y = square.vertices[:, 0], square.vertices[:, 1]
        mesh = Mesh(torch.stack([x - 0.5 * y, height * y, 0 * x], 1), square.faces)
        centers = mesh.vertices[mesh.faces].mean(1).double()
        away = centers[:, 1] - 0.5 * height
        votes = torch.stack([(away < 0).double(), (away >= 0).double()], 1)
        found = spread_votes(face_graph(mesh), votes, torch.ones(len(away)), radius)[:, 1]
        other_side = 0.5 * torch.exp(-away.abs() / radius)
        expected = torch.where(away < 0, other_side, 1 - other_side)
        inner = (away.abs() < 0.25) & ((centers[:, 0] - 0.25).abs() < 0.15)
        assert float((found - expected)[inner].abs().max()) < tolerance, size


def test_pieces_without_evidence_take_the_nearest_votes() -> None:
    mesh = strip(4)
    vertices = torch.cat([mesh.vertices, mesh.vertices + 10, mesh.vertices + 13])
    far = Mesh(vertices, torch.cat([mesh.faces + 6 * piece for piece in range(3)]))
    votes = torch.zeros(12, 2)
    votes[:4, 0] = votes[4:8, 1] = 1.0
    evidence = torch.ones(12)
    evidence[8:] = 0.0
    found = spread_votes(face_graph(far), votes, evidence, 0.1)
    torch.testing.assert_close(found[8:], votes[4:8], rtol=0, atol=1e-6)


def test_no_evidence_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no face has any evidence"):
        spread_votes(face_graph(strip(4)), torch.ones(4, 2), torch.zeros(4), 0.1)
    with pytest.raises(InvalidInput, match="0 faces"):
        face_graph(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)))


AREA = 3**0.5 / 4


@pytest.mark.parametrize(
    ("groups", "least", "expected"),
    [
        ([0, 0, 0, 1, 0, 0, 0], 1.5, [0] * 7),
        ([0, 0, 0, 1, 0, 0, 0], 0.5, [0, 0, 0, 1, 0, 0, 0]),
        ([0, 0, 0, 0, 2, 1, 1, 1], 1.5, None),
        ([0, 0, 0, 1, 1, 2, 0, 0, 0], 2.5, [0] * 9),
        ([1, 1, 1], 99.0, [1, 1, 1]),
    ],
)
def test_islands_join_their_surroundings(groups, least, expected) -> None:
    found = absorb_islands(face_graph(strip(len(groups))), torch.tensor(groups), least * AREA).tolist()
    if expected is None:
        assert found in ([0] * 5 + [1] * 3, [0] * 4 + [1] * 4)
    else:
        assert found == expected


def test_two_small_neighbours_do_not_swap_for_ever() -> None:
    found = absorb_islands(face_graph(strip(2)), torch.tensor([0, 1]), 10 * AREA)
    assert len(set(found.tolist())) == 1


def test_kept_islands_stay() -> None:
    groups = torch.tensor([0, 0, 0, 1, 0, 0, 2, 0])
    keep = torch.tensor([False] * 3 + [True] + [False] * 4)
    assert absorb_islands(face_graph(strip(8)), groups, 1.5 * AREA, keep).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_small_island_is_left(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    graph = face_graph(field(8))
    groups = torch.randint(0, 3, (128,), generator=generator)
    least = 5.5 / 128
    found = absorb_islands(graph, groups, least)
    island = graph.pieces(found.numpy())
    assert np.bincount(island, weights=graph.areas).min() >= least - 1e-9
