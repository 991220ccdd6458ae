"""The authors' voting against a loop that is written as their code is, and what sets it apart from ours."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras, view_preset
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.parts import PART_CLASSES, AvatarPart
from animportrait3d_core.render import rasterize_mesh
from animportrait3d_core.segmentation import RevoteSettings, ViewLabels, paint_labels, revote_faces, with_hair
from animportrait3d_core.segmentation.legacy import asked_views, legacy_parts, legacy_votes
from animportrait3d_core.views import Views

LEGACY = RevoteSettings(profile="legacy")
FACE_NUMBERS = {PART_CLASSES.index(name) for name in ("face", "eyes", "lips", "mouth")}
HAIR_NUMBER = PART_CLASSES.index("hair")


def ball(rows: int = 10) -> Mesh:
    """A closed ball around the point that the cameras look at, of rows x 2 rows quads."""
    latitude = torch.linspace(0, torch.pi, rows + 1)
    longitude = torch.arange(2 * rows) * torch.pi / rows
    y, around = torch.meshgrid(latitude, longitude, indexing="ij")
    points = torch.stack([y.sin() * around.sin(), y.cos(), y.sin() * around.cos()], -1).reshape(-1, 3)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(2 * rows), indexing="ij")
    a, b = (row * 2 * rows + column).reshape(-1), (row * 2 * rows + (column + 1) % (2 * rows)).reshape(-1)
    c, d = a + 2 * rows, b + 2 * rows
    faces = torch.stack([torch.stack([a, c, b], 1), torch.stack([b, c, d], 1)], 1).reshape(-1, 3)
    return Mesh(0.4 * points + torch.tensor([0.0, 0.228, 0.0]), faces)


def random_labels(batch: int, size: int, seed: int) -> ViewLabels:
    """Blotches of random classes, also beside the mesh."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, len(PART_CLASSES), 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return ViewLabels(fine.argmax(1).to(torch.uint8))


def loop_votes(mesh: Mesh, labels: ViewLabels, cameras, hair_mask=None) -> tuple[list[float], list[float]]:
    """Pixel by pixel, as the authors' code does: a set of faces per view and class, +1 for it, -0.5 for the other.

    hair_mask: [B, H, W] of the hair network, which alone says what hair is; a pixel may be under face and hair both.
    """
    hair, face = [0.0] * len(mesh.faces), [0.0] * len(mesh.faces)
    for view in range(len(cameras)):
        if float(cameras.camera_centers[view, 1]) < -1e-4:
            continue
        ids = rasterize_mesh(mesh.vertices, mesh.faces, cameras[view]).face_id[0]
        under_face, under_hair = set(), set()
        for row in range(ids.shape[0]):
            for column in range(ids.shape[1]):
                if int(ids[row, column]) < 0:
                    continue
                if int(labels.labels[view, row, column]) in FACE_NUMBERS:
                    under_face.add(int(ids[row, column]))
                is_hair = int(labels.labels[view, row, column]) == HAIR_NUMBER
                if hair_mask is not None:
                    is_hair = float(hair_mask[view, row, column]) >= 0.5
                if is_hair:
                    under_hair.add(int(ids[row, column]))
        for index in under_face:
            face[index] += 1.0
            hair[index] -= 0.5
        for index in under_hair:
            hair[index] += 1.0
            face[index] -= 0.5
    return hair, face


def loop_parts(mesh: Mesh, hair: list[float], face: list[float]) -> list[int]:
    """Vertex masks, one ring of dilation, and what is left over."""
    triangles = mesh.faces.tolist()
    hair_corners = {corner for triangle, vote in zip(triangles, hair) if vote > 0 for corner in triangle}
    face_corners = {corner for triangle, vote in zip(triangles, face) if vote > 0 for corner in triangle}
    grown = {c for triangle in triangles if any(corner in hair_corners for corner in triangle) for c in triangle}
    parts = []
    for triangle in triangles:
        if all(corner in grown for corner in triangle):
            parts.append(AvatarPart.HAIR)
        elif all(corner not in hair_corners and corner not in face_corners for corner in triangle):
            parts.append(AvatarPart.CLOTHES)
        else:
            parts.append(AvatarPart.SKIN)
    return parts


@pytest.mark.parametrize("seed", range(3))
def test_votes_and_parts_equal_the_literal_loop(seed) -> None:
    mesh, cameras = ball(), view_preset("mesh24", 24)
    labels = random_labels(24, 24, seed)
    hair, face = loop_votes(mesh, labels, cameras)
    votes, seen = legacy_votes(mesh, labels, cameras)
    assert votes[:, 0].tolist() == hair and votes[:, 1].tolist() == face
    assert legacy_parts(mesh, votes)[0].tolist() == loop_parts(mesh, hair, face)
    assert {True, False} == set(seen.tolist())
    whole = revote_faces(mesh, labels, cameras, LEGACY)
    assert whole.parts.part_of_face.tolist() == loop_parts(mesh, hair, face)
    assert whole.votes[:, HAIR_NUMBER].tolist() == hair


def test_a_separate_hair_mask_votes_beside_the_part_labels(run_node) -> None:
    """Through the nodes: hair of the part labels outside of the mask is none, face beneath the mask still votes."""
    mesh, cameras = ball(), view_preset("mesh24", 24)
    labels = random_labels(24, 24, 5)
    mask = 0.9 * random_labels(24, 24, 6).mask("hair").float()
    hair, face = loop_votes(mesh, labels, cameras, mask)
    assert (hair, face) != loop_votes(mesh, with_hair(labels, mask), cameras)
    assert legacy_votes(mesh, with_hair(labels, mask), cameras)[0].T.tolist() == [hair, face]
    views = Views(torch.zeros(24, 24, 24, 3), torch.ones(24, 24, 24), cameras, torch.ones(3))
    numbers = (labels.labels.float() / 255)[..., None].expand(-1, -1, -1, 3)
    chosen = {"network": "label images", "label_set": "animportrait3d", "label_images": numbers, "hair_mask": mask}
    labelled = run_node("AP3D_SegmentViews", views=views, **chosen).labels
    voted = run_node("AP3D_FaceRevote", mesh=mesh, labels=labelled, views=views, profile="legacy")
    assert voted.parts.part_of_face.tolist() == loop_parts(mesh, hair, face)


def test_paint_overrules_the_hair_mask_too() -> None:
    mesh, cameras = ball(), view_preset("mesh24", 24)
    bald = ViewLabels(torch.full((24, 24, 24), PART_CLASSES.index("face"), dtype=torch.uint8))
    under_hair = with_hair(bald, torch.ones(24, 24, 24))
    everywhere = torch.ones(24, 24, 24)
    votes, seen = legacy_votes(mesh, paint_labels(under_hair, everywhere, "face"), cameras)
    assert bool((votes[seen, 0] < 0).all()) and bool((votes[seen, 1] > 0).all())
    votes, seen = legacy_votes(mesh, paint_labels(with_hair(bald, 0 * everywhere), everywhere, "hair"), cameras)
    assert bool((votes[seen, 0] > 0).all()) and bool((votes[seen, 1] < 0).all())


def test_sixteen_of_the_papers_24_views_are_asked() -> None:
    assert asked_views(view_preset("mesh24", 8)) == list(range(8, 24))
    with pytest.raises(InvalidInput, match="all 3 cameras are below"):
        asked_views(orbit_cameras([0, 90, 180], [-10, -20, -30], 8))


def test_pixels_beside_the_mesh_vote_for_nothing() -> None:
    """In the authors' code they voted for the last face."""
    mesh, cameras = ball(), orbit_cameras([0.0], [0.0], 32)
    covered = rasterize_mesh(mesh.vertices, mesh.faces, cameras).mask
    beside = ViewLabels(torch.where(covered, 0, PART_CLASSES.index("face")).to(torch.uint8))
    votes, _ = legacy_votes(mesh, beside, cameras)
    assert not bool(votes.any())


def test_legacy_says_which_views_it_left_out_and_ignores_the_other_settings() -> None:
    mesh, cameras = ball(), view_preset("mesh24", 24)
    labels = random_labels(24, 24, 0)
    votes = revote_faces(mesh, labels, cameras, LEGACY)
    assert sorted(votes.report.left_out) == list(range(8))
    assert "views 0, 1, 2, 3, 4, 5, 6, 7: the camera is below" in votes.report.summary()
    other = dataclasses.replace(LEGACY, smoothing=0.2, least_island=1.0, size=512)
    assert torch.equal(revote_faces(mesh, labels, cameras, other).parts.part_of_face, votes.parts.part_of_face)
