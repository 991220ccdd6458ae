"""What each view says about each face of the mesh: class weights under the pixels in which the face is visible."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras, project
from ..errors import InvalidInput
from ..meshes import Mesh, face_normals
from ..progress import may_stop
from ..render import rasterize_mesh
from .labels import ViewLabels

MIN_VISIBLE = 0.1


@dataclasses.dataclass(frozen=True)
class ViewVotes:
    """One view's votes on the n faces it sees.

    faces: [n] int64.  shares: [n, C] class shares under the face's pixels, background left out; rows sum to 1 where the
    weight is positive.  weights: [n] how much the view says about the face: mean of facing x confidence over its pixels
    (pixels labelled background count as 0), times the visible share of its projection.  painted: [n, C] share of the
    face's pixels that were corrected by hand, by class.  overlap: intersection over union of the mesh's silhouette and
    the labels' foreground.
    """

    faces: np.ndarray
    shares: np.ndarray
    weights: np.ndarray
    painted: np.ndarray
    overlap: float


def fitted_cameras(where: str, labels: ViewLabels, cameras: Cameras) -> Cameras:
    """The cameras at the labels' size; refused where number or proportions differ."""
    batch, height, width = labels.labels.shape
    if batch != len(cameras):
        raise InvalidInput(f"{where}: there are {batch} label maps and {len(cameras)} cameras, expected one for each.")
    if abs(width * cameras.height - height * cameras.width) > max(width, height, cameras.width, cameras.height):
        raise InvalidInput(
            f"{where}: labels are {width} x {height}, the views {cameras.width} x {cameras.height}; expected the same "
            "proportions: label the views themselves, not cropped or padded copies of them."
        )
    return cameras.resized(width, height)


def sampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [H, W] at another size (width, height), each pixel from the nearest centre."""
    height, width = maps.shape
    rows = ((torch.arange(size[1]) + 0.5) * (height / size[1])).long().clamp(max=height - 1)
    columns = ((torch.arange(size[0]) + 0.5) * (width / size[0])).long().clamp(max=width - 1)
    return maps[rows][:, columns]


def with_doubtful_borders(labels: ViewLabels, width: float, weight: float) -> ViewLabels:
    """The labels with the confidence of pixels near another label, and of specks, multiplied by `weight`.

    width: reach in shares of the picture's smaller side, at least one pixel.  Specks are pixels that their surroundings
    of 5 x 5 outvote; they do not make a border of their own.
    """
    height, across = labels.labels.shape[1:]
    reach = max(1, round(width * min(height, across)))
    confidence = torch.ones(labels.labels.shape) if labels.confidence is None else labels.confidence.clone()
    for view, numbers in enumerate(labels.labels):
        may_stop()
        clean = _outvoted(numbers, len(labels.classes)).float()
        # Highest and lowest label within the reach differ where there is more than one.
        high = torch.nn.functional.max_pool2d(clean[None], 2 * reach + 1, stride=1, padding=reach)[0]
        low = -torch.nn.functional.max_pool2d(-clean[None], 2 * reach + 1, stride=1, padding=reach)[0]
        confidence[view][(high != low) | (numbers != clean)] *= weight
    return dataclasses.replace(labels, confidence=confidence)


def _outvoted(numbers: Tensor, classes: int, side: int = 5) -> Tensor:
    """The commonest label [H, W] in the square of `side` pixels around each pixel of `numbers` [H, W]."""
    planes = torch.nn.functional.one_hot(numbers.long(), classes).permute(2, 0, 1).float()
    return torch.nn.functional.avg_pool2d(planes, side, stride=1, padding=side // 2).argmax(0)


@dataclasses.dataclass(frozen=True)
class FaceGeometry:
    """normals: [F, 3] unit.  centroids: [F, 3].  Of a mesh's faces, worked out once for all views."""

    normals: Tensor
    centroids: Tensor

    @classmethod
    def of(cls, mesh: Mesh) -> FaceGeometry:
        normals = torch.nn.functional.normalize(face_normals(mesh.vertices, mesh.faces), dim=-1)
        return cls(normals, mesh.vertices[mesh.faces].mean(dim=1))

    def facing(self, faces: Tensor, camera: Cameras) -> Tensor:
        """Cosine [n] in 0..1 of the angle between the normals of `faces` [n], of either winding, and the view."""
        to_camera = torch.nn.functional.normalize(camera.camera_centers - self.centroids[faces], dim=-1)
        return (to_camera * self.normals[faces]).sum(-1).abs()


def projected_areas(mesh: Mesh, faces: Tensor, camera: Cameras) -> Tensor:
    """Area [n] of the projection of `faces` [n], in pixels, whether hidden or not."""
    corners, _ = project(camera, mesh.vertices[mesh.faces[faces]].reshape(-1, 3))
    a, b, c = corners[0].reshape(-1, 3, 2).unbind(1)
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()


def view_votes(
    mesh: Mesh,
    geometry: FaceGeometry,
    labels: ViewLabels,
    camera: Cameras,
    least_facing: float = 0.0,
    facing_power: float = 1.0,
) -> ViewVotes:
    """The votes of one view: labels of one view, camera of one, at the size to rasterise.

    least_facing: faces seen at less than this cosine do not vote.  facing_power: to which the cosine weighs.  Faces of
    which less than a tenth is visible do not vote.
    """
    size, count = (camera.width, camera.height), len(labels.classes)
    face_id = rasterize_mesh(mesh.vertices, mesh.faces, camera).face_id[0].reshape(-1)
    label = sampled(labels.labels[0], size).reshape(-1)
    foreground = label != labels.classes.index("background")
    covered = face_id >= 0
    union = int((covered | foreground).sum())
    overlap = int((covered & foreground).sum()) / union if union else 0.0

    id_of_pixel = face_id[covered].numpy()
    faces, row = np.unique(id_of_pixel, return_inverse=True)
    label_of_pixel = label[covered].long().numpy()
    weight = foreground[covered].double().numpy()
    if labels.confidence is not None:
        weight = weight * sampled(labels.confidence[0], size).reshape(-1)[covered].double().numpy()
    cell = row.reshape(-1) * count + label_of_pixel
    votes = np.bincount(cell, weights=weight, minlength=len(faces) * count).reshape(-1, count)
    painted = np.zeros_like(votes)
    if labels.painted is not None:
        by_hand = sampled(labels.painted[0], size).reshape(-1)[covered].double().numpy()
        painted = np.bincount(cell, weights=by_hand, minlength=len(faces) * count).reshape(-1, count)

    pixels = np.bincount(row.reshape(-1), minlength=len(faces))
    index = torch.from_numpy(faces)
    cosine = geometry.facing(index, camera).double().numpy()
    expected = projected_areas(mesh, index, camera).double().numpy()
    visible = np.minimum(pixels / np.maximum(expected, 1.0), 1.0)
    usable = (cosine >= least_facing) & (visible >= MIN_VISIBLE)
    total = votes.sum(axis=1)
    weights = np.where(usable, total / pixels * cosine**facing_power * visible, 0.0)
    shares = votes / np.maximum(total, 1e-12)[:, None]
    return ViewVotes(faces, shares, weights, painted / pixels[:, None] * usable[:, None], overlap)
