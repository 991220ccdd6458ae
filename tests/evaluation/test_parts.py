"""Overlap of parts by area, and the true parts of a surface."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.cameras import view_preset
from animportrait3d_core.embedded.identities import exported_identity, identity_mesh
from animportrait3d_core.embedded.identities.figure import build_figure
from animportrait3d_core.errors import ShapeMismatch
from animportrait3d_core.evaluation.parts import parts_iou, true_mesh_parts, visible_areas
from animportrait3d_core.meshes import face_areas
from animportrait3d_core.parts import FIGURE_PARTS, AvatarPart
from animportrait3d_core.render import rasterize_mesh


def test_overlap_counts_areas_and_not_faces() -> None:
    found = torch.tensor([AvatarPart.HAIR, AvatarPart.HAIR, AvatarPart.CLOTHES, AvatarPart.SKIN])
    truth = torch.tensor([AvatarPart.HAIR, AvatarPart.CLOTHES, AvatarPart.CLOTHES, AvatarPart.LIPS])
    scores = parts_iou(found, truth, torch.tensor([1.0, 3.0, 6.0, 5.0]))
    assert scores == {"hair": 0.25, "face": 0.0, "clothes": pytest.approx(6 / 9)}
    assert parts_iou(found, truth, torch.tensor([1.0, 0.0, 1.0, 0.0])) == {"hair": 1.0, "face": 1.0, "clothes": 1.0}
    with pytest.raises(ShapeMismatch):
        parts_iou(found, truth[:3], torch.ones(4))


def test_the_true_figure_has_its_own_parts() -> None:
    identity = exported_identity("amara")
    mesh = identity_mesh(identity, texture_size=128)
    own = torch.from_numpy(build_figure(identity).face_parts).long()
    expected = torch.full((len(own),), AvatarPart.SKIN, dtype=torch.uint8)
    expected[own == FIGURE_PARTS.index("hair")] = AvatarPart.HAIR
    expected[own == FIGURE_PARTS.index("clothes")] = AvatarPart.CLOTHES
    assert 0.2 < float(visible_areas(mesh).sum() / face_areas(mesh.vertices, mesh.faces).sum()) < 1.0
    # Skin that lies half under the clothes is of little interest: faces count by the pixels in which they are seen.
    cameras = view_preset("heldout", 192)
    ids = torch.cat([rasterize_mesh(mesh.vertices, mesh.faces, cameras[view]).face_id.reshape(-1) for view in range(6)])
    pixels = torch.bincount(ids[ids >= 0], minlength=len(own)).float()
    scores = parts_iou(true_mesh_parts(mesh, identity), expected, pixels)
    assert min(scores.values()) > 0.97, scores
