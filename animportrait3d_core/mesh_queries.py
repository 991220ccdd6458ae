"""Questions to a mesh's surface: closest points (libigl) and the colour at a place on it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from .errors import InvalidInput, check_finite, check_shape
from .meshes import Mesh, sample_texture


@dataclasses.dataclass(frozen=True)
class ClosestPoints:
    """Where N query points touch a surface.

    points: [N, 3] float32 on the surface.  faces: [N] int64, the face that holds each of them.  barycentric: [N, 3]
    float32 weights of that face's corners, in 0..1, summing to one.  distances: [N] float32, never negative.
    """

    points: Tensor
    faces: Tensor
    barycentric: Tensor
    distances: Tensor


class SurfaceTree:
    """Bounding-box tree over a triangle mesh, built once and asked often (`closest_points` is the one-off form)."""

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        """vertices: [V, 3], finite.  faces: [F, 3] int64, F at least 1; faces of no area are allowed."""
        import igl

        check_shape("SurfaceTree", "vertices", vertices, ["V", 3])
        check_shape("SurfaceTree", "faces", faces, ["F", 3])
        check_finite("SurfaceTree", "vertices", vertices)
        if len(faces) == 0:
            raise InvalidInput("SurfaceTree: the mesh has 0 faces, expected at least 1.")
        self._vertices = np.ascontiguousarray(vertices.detach().cpu().numpy(), dtype=np.float64)
        self._faces = np.ascontiguousarray(faces.detach().cpu().numpy(), dtype=np.int64)
        self._tree = igl.AABB()
        self._tree.init(self._vertices, self._faces)

    def closest(self, points: Tensor) -> ClosestPoints:
        """The surface points closest to `points` [N, 3] (finite); float64 inside."""
        check_shape("SurfaceTree.closest", "points", points, ["N", 3])
        check_finite("SurfaceTree.closest", "points", points)
        if len(points) == 0:
            empty = torch.zeros(0, 3)
            return ClosestPoints(empty, torch.zeros(0, dtype=torch.int64), empty, torch.zeros(0))
        query = np.ascontiguousarray(points.detach().cpu().numpy(), dtype=np.float64)
        squared, index, closest = self._tree.squared_distance(self._vertices, self._faces, query)
        barycentric = _barycentric(closest, self._vertices[self._faces[index]])
        return ClosestPoints(
            points=torch.from_numpy(closest.astype(np.float32)),
            faces=torch.from_numpy(index.astype(np.int64)),
            barycentric=torch.from_numpy(barycentric.astype(np.float32)),
            distances=torch.from_numpy(np.sqrt(np.maximum(squared, 0)).astype(np.float32)),
        )


def closest_points(mesh: Mesh, points: Tensor) -> ClosestPoints:
    """The points of a mesh's surface closest to `points` [N, 3]."""
    return SurfaceTree(mesh.vertices, mesh.faces).closest(points)


def surface_colors(mesh: Mesh, points: Tensor) -> Tensor:
    """Colours [N, 3] of the mesh at the surface points closest to `points` [N, 3]: texture, else vertex colours."""
    closest = closest_points(mesh, points)
    return colors_at(mesh, closest.faces, closest.barycentric)


def colors_at(mesh: Mesh, faces: Tensor, barycentric: Tensor) -> Tensor:
    """Colours [..., 3] of the mesh at places given by face [...] and barycentric weights [..., 3].

    The texture decides where there is one, the vertex colours elsewhere. A mesh with neither is refused.
    """
    weights = barycentric[..., None]
    if mesh.texture is not None and mesh.corner_uvs is not None:
        return sample_texture(mesh.texture, (mesh.corner_uvs[faces] * weights).sum(-2))
    if mesh.vertex_colors is not None:
        return (mesh.vertex_colors[mesh.faces[faces]] * weights).sum(-2)
    raise InvalidInput(
        "colors_at: the mesh has neither a texture nor vertex colours, expected one of them; give it `vertex_colors`."
    )


def _barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Weights [N, 3] of points [N, 3] that lie on triangles [N, 3, 3]; the nearest corner where a triangle has no area.

    Ericson, Real-Time Collision Detection, section 3.4.
    """
    first, second, inside = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    d00, d01, d11 = (first * first).sum(1), (first * second).sum(1), (second * second).sum(1)
    d20, d21 = (inside * first).sum(1), (inside * second).sum(1)
    determinant = d00 * d11 - d01 * d01
    flat = determinant <= 1e-24 + 1e-12 * d00 * d11
    safe = np.where(flat, 1.0, determinant)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    weights = np.clip(np.stack([1 - v - w, v, w], axis=1), 0, None)
    if flat.any():
        nearest = ((corners[flat] - points[flat, None]) ** 2).sum(-1).argmin(1)
        weights[flat] = np.eye(3)[nearest]
    return weights / weights.sum(1, keepdims=True)
