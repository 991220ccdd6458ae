"""What comes with a head: other heads, a body, faces that look inwards."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.meshes import Mesh, compact
from animportrait3d_core.portrait.alignment import HandAlignment, align_by_hand
from animportrait3d_core.portrait.head_target import head_target
from animportrait3d_core.portrait.preparation import PlacedHead, body_note, find_largest_head, turned_outward
from tests.head_samples import bare, grey, whole_body


@pytest.fixture(scope="module")
def target(mannequin_body):
    return head_target(mannequin_body)


def beside(first: Mesh, second: Mesh) -> Mesh:
    return grey(
        Mesh(torch.cat([first.vertices, second.vertices]), torch.cat([first.faces, second.faces + len(first.vertices)]))
    )


def test_of_several_heads_the_largest_is_taken_alone(mannequin_body, target):
    """A bust, and a larger one a metre to its left: the second comes out, and the note says where the first is."""
    small = bare(mannequin_body, 0).mesh
    large = dataclasses.replace(bare(mannequin_body, 1).mesh)
    large = dataclasses.replace(large, vertices=1.3 * large.vertices + torch.tensor([2.2, 0.1, 0.0]))
    head = find_largest_head(beside(small, large), target)
    assert len(head.mesh.faces) == len(large.faces)
    assert abs(head.alignment.scale - 1 / 1.3) < 0.02
    middle = head.alignment.apply(torch.tensor([[2.2, 0.1 + 1.3 * 0.42, 0.0]]))[0]
    assert (middle[:2] - torch.tensor([0.0, 0.42])).norm() < 0.03
    assert len(head.notes) == 1 and head.notes[0].startswith("2 heads in the mesh")
    assert "up +y, face +z" in head.notes[0]


def test_pieces_that_are_no_heads_stay(mannequin_body, target):
    sample = whole_body(mannequin_body, 0)
    head = find_largest_head(sample.mesh, target)
    assert head.mesh is sample.mesh and head.notes == ()
    (note,) = body_note(head, target)
    assert "whole body the bust is taken" in note and "5.6 heads below the chin" in note
    assert body_note(find_largest_head(bare(mannequin_body, 0).mesh, target), target) == []


def test_faces_that_look_inwards_are_turned_over(mannequin_body, target):
    mesh = bare(mannequin_body, 0).mesh
    corners = torch.rand(len(mesh.faces), 3, 2, generator=torch.Generator().manual_seed(0))
    painted = Mesh(mesh.vertices, mesh.faces, corner_uvs=corners, texture=torch.rand(2, 2, 3))
    inside_out = dataclasses.replace(painted, faces=painted.faces.flip(1), corner_uvs=corners.flip(1))
    here = align_by_hand(HandAlignment())
    turned = turned_outward(PlacedHead(inside_out, here), target)
    assert torch.equal(turned.mesh.faces, painted.faces) and torch.equal(turned.mesh.corner_uvs, corners)
    assert "100% of the face is wound inside out" in turned.notes[0]
    as_it_is = PlacedHead(painted, here)
    assert turned_outward(as_it_is, target) is as_it_is


def test_a_hole_in_the_face_does_not_turn_it(mannequin_body, target):
    """Looking through an eye socket one sees the inside of the skull's back, far away: that is not the face."""
    regions = mannequin_body.assets.face_regions
    sample = bare(mannequin_body, 0)
    keep = torch.ones(len(sample.mesh.faces), dtype=torch.bool)
    keep[: len(regions["face"])] = ~(regions["left_eyeball"] | regions["right_eyeball"] | regions["eye_region"])
    opened = PlacedHead(compact(sample.mesh, keep), align_by_hand(HandAlignment()))
    assert turned_outward(opened, target) is opened
