"""Landmarks on a surface: where the views disagree it decides, where they agree they do."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.body.fit_landmarks import LandmarkTerm
from animportrait3d_core.body.landmarks import Landmarks, outer_eye_distance
from animportrait3d_core.body.surface_landmarks import landmarks_on_surface
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.landmarks import INNER_FACE
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.head_target import standard_placement

YAWS = [-60.0, -45.0, -30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 45.0, 60.0]
CAMERAS = orbit_cameras(YAWS, [5.0] * len(YAWS), 256)


@pytest.fixture(scope="module")
def head(mannequin_body):
    """A head's surface, the faces that cover nothing, and its landmarks [68, 3]."""
    output = mannequin_body(standard_placement(mannequin_body))
    mesh = Mesh(output.vertices[0].detach(), mannequin_body.faces_outward)
    return mesh, torch.zeros(len(mesh.faces), dtype=torch.bool), output.landmarks[0, :68].detach()


def _term(points: torch.Tensor, noise: float) -> LandmarkTerm:
    """Detections that are exact from the front, and off by `noise` outer-eye distances in views that see less of it."""
    pixels, depth = project(CAMERAS, points)
    unit = (outer_eye_distance(points) * CAMERAS.K[:, 0, 0] / depth.mean(1))[:, None, None]
    aside = torch.tensor([abs(yaw) > 35 for yaw in YAWS])[:, None, None]
    random = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
    return LandmarkTerm(Landmarks(points_2d=pixels + noise * unit * aside * random), CAMERAS, 0.04)


def _errors(term: LandmarkTerm, points: torch.Tensor) -> torch.Tensor:
    return ((term.in_space[0] - points).norm(dim=-1) / outer_eye_distance(points))[INNER_FACE]


def test_views_that_disagree_are_corrected_by_the_surface(head):
    mesh, covering, points = head
    term = _term(points, 0.1)
    before = _errors(term, points)
    term.lay_on(mesh, covering)
    after = _errors(term, points)
    assert float(before.mean()) > 0.02
    assert float(after.mean()) < 0.4 * float(before.mean())
    assert term.in_space[0].dtype == torch.float32


def test_views_that_agree_are_believed_more_than_a_surface_that_lies_elsewhere(head):
    mesh, covering, points = head
    swollen = Mesh(mesh.vertices + torch.tensor([0.0, 0.0, 0.03]) * outer_eye_distance(points), mesh.faces)
    term = _term(points, 0.004)
    before = _errors(term, points)
    term.lay_on(swollen, covering)
    assert float((_errors(term, points) - before).abs().max()) < 0.002


def test_hair_in_front_and_rays_that_miss_leave_points_where_they_are(head):
    mesh, covering, points = head
    pixels = project(CAMERAS, points)[0]
    weights = torch.ones(pixels.shape[:2])
    off = points + torch.tensor([0.0, 0.0, 0.02]) * outer_eye_distance(points)
    moved = landmarks_on_surface(mesh, covering, CAMERAS, pixels, weights, off)
    assert float((moved - points).norm(dim=-1)[INNER_FACE].mean()) < 0.3 * float((off - points).norm(dim=-1).mean())
    for hidden, seen in ((~covering, weights), (covering, torch.zeros_like(weights))):
        assert torch.equal(landmarks_on_surface(mesh, hidden, CAMERAS, pixels, seen, off), off)
    assert torch.equal(landmarks_on_surface(mesh, covering, CAMERAS, pixels + 500, weights, off), off)
    from_the_side = CAMERAS[torch.tensor([0, 1, 9, 10])]
    pixels = project(from_the_side, points)[0]
    assert torch.equal(landmarks_on_surface(mesh, covering, from_the_side, pixels, torch.ones(4, 68), off), off)


def test_what_stands_before_the_face_moves_nothing(head):
    """A pane in front of the whole face, as glasses or a visor that nobody labelled."""
    mesh, _, points = head
    pixels = project(CAMERAS, points)[0]
    pane = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]) * torch.tensor([0.4, 0.6, 0.45])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]]) + len(mesh.vertices)
    masked = Mesh(torch.cat([mesh.vertices, pane]), torch.cat([mesh.faces, faces]))
    covering = torch.zeros(len(masked.faces), dtype=torch.bool)
    moved = landmarks_on_surface(masked, covering, CAMERAS, pixels, torch.ones(pixels.shape[:2]), points)
    assert torch.equal(moved, points)


def test_landmarks_given_in_space_are_not_moved(head):
    mesh, covering, points = head
    given = points + 0.01
    term = LandmarkTerm(Landmarks(points_3d=given), CAMERAS, 0.04)
    term.lay_on(mesh, covering)
    assert torch.equal(term.in_space[0], given)
