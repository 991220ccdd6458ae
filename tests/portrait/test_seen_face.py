"""Heads that are placed by the face in their pictures, with the network that ships."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.cameras import project, yaw_of
from animportrait3d_core.embedded.identities import embedded_portrait_files
from animportrait3d_core.embedded.weights import embedded_network_folder
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.mesh_files import load_mesh
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.networks import detect_landmarks, load_network
from animportrait3d_core.portrait.alignment import HeadAlignment
from animportrait3d_core.portrait.head_search import SearchLimits
from animportrait3d_core.portrait.head_target import head_target
from animportrait3d_core.portrait.preparation import find_largest_head
from animportrait3d_core.portrait.seen_face import _moved, place_by_sight

NO_RELIEF = SearchLimits(relief=1.1)
"""As if no relief were a face's."""


@pytest.fixture(scope="module")
def target(mannequin_body):
    return head_target(mannequin_body)


@pytest.fixture(scope="module")
def detect():
    network = load_network(embedded_network_folder("landmarks"), "landmarks")
    return lambda views: detect_landmarks(network, views.images, None, views.normals)


@pytest.fixture(scope="module")
def viktor() -> Mesh:
    return load_mesh(embedded_portrait_files("viktor")[0])


def moved(mesh: Mesh, rows: list[list[float]], scale: float) -> Mesh:
    """The mesh as another program would write it."""
    return dataclasses.replace(mesh, vertices=scale * mesh.vertices @ torch.tensor(rows).T + 3.0)


@pytest.mark.parametrize(
    ("rows", "scale"),
    [([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], 100.0), ([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]], 0.02)],
    ids=["z up", "facing backwards"],
)
def test_a_face_is_seen_whatever_the_axes_and_units(target, detect, viktor, rows, scale):
    plain = find_largest_head(viktor, target).alignment
    mesh = moved(viktor, rows, scale)
    head = find_largest_head(mesh, target, NO_RELIEF, detect)
    few = slice(None, None, len(mesh.vertices) // 50)
    distance = (plain.apply(viktor.vertices[few]) - head.alignment.apply(mesh.vertices[few])).norm(dim=-1)
    assert float(distance.mean()) < 0.04 * target.height
    assert "placed by the face in its pictures" in head.notes[0]


def seeing(points: torch.Tensor, most_yaw: float = 180.0):
    """A network that finds these points [68, 3] of the head frame in each view up to so many degrees from the front."""

    def detect(views):
        pixels, _ = project(views.cameras, points)
        found = yaw_of(views.cameras).abs() <= most_yaw
        return pixels, torch.ones(len(views), 68), found

    return detect


def test_the_alignment_is_moved_by_what_views_agree_on(target):
    """Landmarks that are 5 % too large, turned by 0.2 and moved lie on the target after a step."""
    turn = torch.tensor([[0.98, 0.0, 0.199], [0.0, 1.0, 0.0], [-0.199, 0.0, 0.98]])
    points = 1.05 * target.landmarks[:68] @ turn.T + torch.tensor([0.02, -0.03, 0.01])
    start = HeadAlignment(torch.eye(3), 2.0, torch.tensor([0.1, 0.2, 0.3]), "seen")
    moved, error = _moved(start, points, torch.ones(68), target)
    assert error < 1e-3
    of_file = (points - start.translation) / start.scale
    torch.testing.assert_close(moved.apply(of_file), target.landmarks[:68], atol=1e-3, rtol=0)


def test_points_that_are_no_face_are_not_believed_however_views_agree(target):
    cloud = target.landmarks[:68] + 0.1 * torch.randn(68, 3, generator=torch.Generator().manual_seed(0))
    assert place_by_sight(ball(), target, seeing(cloud)) is None
    assert place_by_sight(ball(), target, seeing(target.landmarks[:68])) is not None


def test_a_face_that_is_seen_from_the_front_alone_is_not_believed(target):
    assert place_by_sight(ball(), target, seeing(target.landmarks[:68], 10.0)) is None


def ball(radius: float = 1.0) -> Mesh:
    steps = torch.linspace(0, 2 * torch.pi, 41)[:-1]
    rings = torch.linspace(0.05, torch.pi - 0.05, 30)
    x, z = torch.outer(rings.sin(), steps.cos()), torch.outer(rings.sin(), steps.sin())
    points = torch.stack([x, rings.cos()[:, None].expand(-1, 40), z], -1).reshape(-1, 3)
    first = torch.arange(29)[:, None] * 40 + torch.arange(40)
    right = torch.arange(29)[:, None] * 40 + (torch.arange(40) + 1) % 40
    faces = torch.stack([first, right, first + 40, right, right + 40, first + 40], -1).reshape(-1, 3)
    return Mesh(radius * points, faces, vertex_colors=torch.full((len(points), 3), 0.6))


def boxes() -> Mesh:
    """A chair."""
    corners = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    sides = [
        (0, 1, 3),
        (0, 3, 2),
        (4, 6, 7),
        (4, 7, 5),
        (0, 4, 5),
        (0, 5, 1),
        (2, 3, 7),
        (2, 7, 6),
        (0, 2, 6),
        (0, 6, 4),
    ]
    sides += [(1, 5, 7), (1, 7, 3)]
    places = [((0, 4, 0), (5, 1, 5)), ((0, 5, 0), (5, 6, 1))]
    places += [((x, 0, z), (1, 4, 1)) for x in (0, 4) for z in (0, 4)]
    points = torch.cat([torch.tensor(place) + corners * torch.tensor(size) for place, size in places])
    faces = torch.cat([torch.tensor(sides) + 8 * number for number in range(len(places))])
    return Mesh(points, faces, vertex_colors=torch.full((len(points), 3), 0.4))


@pytest.mark.parametrize("thing", [ball(), boxes()], ids=["ball", "chair"])
def test_what_is_no_head_is_not_seen_as_one(target, detect, thing):
    assert place_by_sight(thing, target, detect) is None
    with pytest.raises(InvalidInput, match="there is no head in the mesh"):
        find_largest_head(thing, target, None, detect)
