"""Lids of surfaces whose eyes are holes lie on the borders of the holes, whatever the detections say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.body.fit_landmarks import LandmarkTerm
from animportrait3d_core.body.landmarks import Landmarks, outer_eye_distance
from animportrait3d_core.body.lid_holes import lids_at_holes
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.embedded.mannequin import build_mannequin
from animportrait3d_core.landmarks import LEFT_EYE, RIGHT_EYE
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.head_target import standard_placement

LIDS = slice(RIGHT_EYE.start, LEFT_EYE.stop)
CAMERAS = orbit_cameras([-30.0, -15.0, 0.0, 15.0, 30.0], [5.0] * 5, 256)


@pytest.fixture(scope="module")
def head(mannequin_body):
    """A head's whole surface, the same without eyeballs and the rims behind the lids, and its landmarks [68, 3]."""
    output = mannequin_body(standard_placement(mannequin_body))
    whole = Mesh(output.vertices[0].detach(), mannequin_body.faces_outward)
    names = build_mannequin().part_names
    part = torch.from_numpy(build_mannequin().face_parts.astype(np.int64))
    kept = ~torch.isin(part, torch.tensor([names.index("eyeball"), names.index("lid_rim")]))
    return whole, dataclasses.replace(whole, faces=whole.faces[kept]), output.landmarks[0, :68].detach()


def wrong(points: torch.Tensor, amount: float, seed: int = 0) -> torch.Tensor:
    """Points with lids that are off by `amount` outer-eye distances."""
    random = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
    moved = points.clone()
    moved[LIDS] += amount * outer_eye_distance(points) * random / random.norm(dim=-1, keepdim=True)
    return moved


def off(lids: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return (lids - points[LIDS]).norm(dim=-1) / outer_eye_distance(points)


def test_detections_go_to_the_border_of_the_holes(head):
    _, hollow, points = head
    for seed in range(4):
        lids = lids_at_holes(hollow, wrong(points, 0.06, seed))
        # Corners are the mannequin's own; between them its landmarks stand at other shares of the way than thirds.
        assert float(off(lids, points)[[0, 3, 6, 9]].max()) < 0.012
        assert float(off(lids, points).max()) < 0.035
    border = torch.from_numpy(
        np.concatenate([np.concatenate(build_mannequin().slits[e]) for e in ("left_eye", "right_eye")])
    )
    apart = torch.cdist(lids, hollow.vertices[border]).min(1).values / outer_eye_distance(points)
    assert float(apart.max()) < 0.01


def test_seams_of_textures_are_no_holes_and_cut_none(head):
    """Every face with vertices of its own, as files with a chart for each face have them."""
    whole, hollow, points = head
    apart = Mesh(hollow.vertices[hollow.faces].reshape(-1, 3), torch.arange(3 * len(hollow.faces)).reshape(-1, 3))
    detected = wrong(points, 0.05)
    assert torch.allclose(lids_at_holes(apart, detected), lids_at_holes(hollow, detected), atol=1e-4)
    exploded = Mesh(whole.vertices[whole.faces].reshape(-1, 3), torch.arange(3 * len(whole.faces)).reshape(-1, 3))
    assert lids_at_holes(exploded, detected) is None


def test_holes_that_are_no_eyes_say_nothing(head):
    whole, hollow, points = head
    assert lids_at_holes(whole, points) is None
    detected = wrong(points, 0.02)
    far = points.clone()
    far[LIDS] += torch.tensor([0.0, 0.2, 0.0]) * outer_eye_distance(points)
    assert lids_at_holes(hollow, far) is None
    # One eye alone: the other's hole is filled.
    one = torch.cat([hollow.faces, whole.faces[(whole.vertices[whole.faces][..., 0] > 0).all(-1)]])
    assert lids_at_holes(Mesh(whole.vertices, one), detected) is None
    # Cards of lashes: strips along the upper lids have borders of their own.
    lids = points[LIDS].reshape(2, 6, 3)
    cards = torch.stack([torch.stack([eye[:4], eye[:4] + torch.tensor([0.0, 0.004, 0.01])]) for eye in lids])
    corners = torch.tensor([[0, 1, 5], [0, 5, 4], [1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6]])
    count = len(whole.vertices)
    strips = torch.cat([corners + count + 8 * k for k in range(2)])
    lashed = Mesh(torch.cat([whole.vertices, cards.reshape(-1, 3)]), torch.cat([whole.faces, strips]))
    assert lids_at_holes(lashed, detected) is None


def test_a_fit_follows_the_holes_and_leaves_the_pictures_lids(head):
    whole, hollow, points = head
    pixels = project(CAMERAS, wrong(points, 0.06))[0]
    nothing = torch.zeros(len(hollow.faces), dtype=torch.bool)
    term = LandmarkTerm(Landmarks(points_2d=pixels), CAMERAS, 0.04)
    before = off(term.in_space[0][LIDS], points)
    term.lay_on(hollow, nothing)
    after = off(term.in_space[0][LIDS], points)
    assert float(before.mean()) > 0.04 and float(after.mean()) < 0.02
    assert not term.consensus.weights[:, LIDS].any() and term.consensus.weights[:, :36].any()
    assert bool((term.pull_in_space[LIDS] == 1).all()) and float(term.pull_in_space.sum()) == 12
    closed = LandmarkTerm(Landmarks(points_2d=pixels), CAMERAS, 0.04)
    closed.lay_on(whole, torch.zeros(len(whole.faces), dtype=torch.bool))
    assert not closed.pull_in_space.any()
