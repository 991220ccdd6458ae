"""Shapes with known parts that the tests of segmentation share."""

from __future__ import annotations

import numpy as np
import torch

from animportrait3d_core.cameras import Cameras, orbit_cameras
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.parts import PART_CLASSES, AvatarPart
from animportrait3d_core.render import rasterize_mesh
from animportrait3d_core.segmentation import ViewLabels

BACKGROUND, FACE, HAIR_LABEL, CLOTHES_LABEL, EYES = (
    PART_CLASSES.index(name) for name in ("background", "face", "hair", "clothes", "eyes")
)
PART_OF_LABEL = {
    FACE: AvatarPart.SKIN,
    HAIR_LABEL: AvatarPart.HAIR,
    CLOTHES_LABEL: AvatarPart.CLOTHES,
    EYES: AvatarPart.SKIN,
}
SIZE = 64
CENTER = (0.0, 0.228, 0.0)
FRONT = 4


def box(half: float, center: tuple[float, float, float], steps: int) -> Mesh:
    """A cube of 6 x steps x steps x 2 faces wound outward, welded; sides in the order +x, -x, +y, -y, +z, -z."""
    grid = np.linspace(-half, half, steps + 1)
    corners = []
    for axis in range(3):
        for sign in (1, -1):
            u, v = np.meshgrid(grid, grid, indexing="ij")
            points = np.empty((steps + 1, steps + 1, 3))
            points[..., axis] = sign * half
            points[..., (axis + 1) % 3], points[..., (axis + 2) % 3] = u, v
            a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
            halves = [np.stack(half, 2).reshape(-1, 3, 3) for half in ((a, b, c), (a, c, d))]
            triangles = np.concatenate(halves)
            corners.append(triangles if sign > 0 else triangles[:, ::-1])
    vertices, faces = np.unique(np.concatenate(corners).reshape(-1, 3), axis=0, return_inverse=True)
    return Mesh(torch.from_numpy(vertices + np.array(center)).float(), torch.from_numpy(faces.reshape(-1, 3)))


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = torch.cat([mesh.faces + int(start) for mesh, start in zip(meshes, starts)])
    return Mesh(torch.cat([mesh.vertices for mesh in meshes]), faces)


def side_of(mesh: Mesh) -> torch.Tensor:
    return torch.arange(len(mesh.faces)) // (len(mesh.faces) // 6)


def side_labels(mesh: Mesh) -> torch.Tensor:
    """A true label [F] per face of a box: the front is face; of the rest, what lies above the middle is hair."""
    high = mesh.vertices[mesh.faces].mean(dim=1)[:, 1] > CENTER[1]
    labels = torch.where(high, HAIR_LABEL, CLOTHES_LABEL)
    labels[side_of(mesh) == FRONT] = FACE
    return labels


def rendered(mesh: Mesh, true: torch.Tensor, cameras: Cameras) -> ViewLabels:
    face_id = rasterize_mesh(mesh.vertices, mesh.faces, cameras).face_id
    return ViewLabels(torch.where(face_id >= 0, true[face_id.clamp_min(0)], BACKGROUND).to(torch.uint8))


def parts_of(true: torch.Tensor) -> torch.Tensor:
    return torch.tensor([PART_OF_LABEL[int(label)] for label in true], dtype=torch.uint8)


def head() -> tuple[Mesh, torch.Tensor]:
    """A ball on a box, like a bust, with true labels [F]: face in front, hair above and behind, clothes below."""
    ball = box(1.0, (0.0, 0.0, 0.0), 16)
    points = torch.nn.functional.normalize(ball.vertices, dim=-1) * 0.32 + torch.tensor([0.0, 0.36, 0.0])
    mesh = joined(Mesh(points, ball.faces), box(0.4, (0.0, -0.42, 0.0), 12))
    centers = mesh.vertices[mesh.faces].mean(1)
    true = torch.where((centers[:, 2] > 0.0) & (centers[:, 1] < 0.5), FACE, HAIR_LABEL)
    true[len(ball.faces) :] = CLOTHES_LABEL
    return mesh, true


def around_cameras() -> Cameras:
    """Twelve views, level, from above and from below, that together see every side."""
    yaws = [0, 60, 120, 180, 240, 300, 30, 150, 270, 0, 120, 240]
    return orbit_cameras(yaws, [10] * 6 + [50] * 3 + [-40] * 3, SIZE)
