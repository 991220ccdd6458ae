"""Face revoting: a cube with a label on each side, occlusion, order, corruption of true labels, bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.cameras import Cameras, orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.render import rasterize_mesh
from animportrait3d_core.rigging.parts import CLOTHES, HAIR, SKIN
from animportrait3d_core.segmentation import CLASSES, RevoteSettings, ViewLabels, paint_labels, revote_faces
from animportrait3d_core.segmentation.votes import FaceGeometry, view_votes

FACE, HAIR_LABEL, CLOTHES_LABEL = (CLASSES.index(name) for name in ("face", "hair", "clothes"))
PART_OF_LABEL = {FACE: SKIN, HAIR_LABEL: HAIR, CLOTHES_LABEL: CLOTHES}
RAW = RevoteSettings(size=64, smoothing=0.0, least_island=0.0)
SIZE = 64


def subdivided_cube(steps: int = 6, half: float = 0.4, center: tuple[float, float, float] = (0.0, 0.228, 0.0)) -> Mesh:
    """A cube of 6 x steps x steps x 2 faces wound outward; sides in the order +x, -x, +y, -y, +z, -z."""
    grid = np.linspace(-half, half, steps + 1)
    vertices, faces = [], []
    for axis in range(3):
        for sign in (1, -1):
            u, v = np.meshgrid(grid, grid, indexing="ij")
            points = np.empty((steps + 1, steps + 1, 3))
            points[..., axis] = sign * half
            points[..., (axis + 1) % 3], points[..., (axis + 2) % 3] = u, v
            base = sum(len(block) for block in vertices)
            index = base + np.arange((steps + 1) ** 2).reshape(steps + 1, steps + 1)
            a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
            quads = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
            faces.append(quads if sign > 0 else quads[:, ::-1])
            vertices.append(points.reshape(-1, 3))
    all_vertices = torch.from_numpy(np.concatenate(vertices) + np.array(center)).float()
    return Mesh(all_vertices, torch.from_numpy(np.ascontiguousarray(np.concatenate(faces))))


def side_labels(mesh: Mesh) -> torch.Tensor:
    """A true label [F] per face: the front (+z) is face, the top is hair, and so are back and sides above the middle."""
    count = len(mesh.faces) // 6
    side = torch.arange(len(mesh.faces)) // count
    labels = torch.full((len(mesh.faces),), CLOTHES_LABEL)
    high = mesh.vertices[mesh.faces].mean(dim=1)[:, 1] > 0.228
    labels[(side == 2) | ((side != 4) & high)] = HAIR_LABEL
    labels[side == 4] = FACE
    return labels


def rendered_labels(mesh: Mesh, true: torch.Tensor, cameras: Cameras) -> ViewLabels:
    face_id = rasterize_mesh(mesh.vertices, mesh.faces, cameras).face_id
    return ViewLabels(torch.where(face_id >= 0, true[face_id.clamp_min(0)], 0).to(torch.uint8))


def true_parts(true: torch.Tensor) -> torch.Tensor:
    return torch.tensor([PART_OF_LABEL[int(label)] for label in true], dtype=torch.uint8)


@pytest.fixture(scope="module")
def cube() -> Mesh:
    return subdivided_cube()


@pytest.fixture(scope="module")
def around() -> Cameras:
    return orbit_cameras([0, 60, 120, 180, 240, 300, 30, 150, 270, 0, 120, 240], [10] * 6 + [50] * 3 + [-40] * 3, SIZE)


def test_a_cube_gets_the_label_of_each_side(cube, around) -> None:
    true = side_labels(cube)
    votes = revote_faces(cube, rendered_labels(cube, true, around), around, RAW)
    assert torch.equal(votes.parts.part_of_face, true_parts(true))
    assert bool(votes.seen.all())
    assert torch.equal(votes.class_of_face.long(), true)
    assert votes.report.part_shares["skin"] == pytest.approx(1 / 6, abs=1e-6)
    assert votes.report.left_out == {}
    assert min(votes.report.agreement) > 0.99
