"""Triangle meshes with vertex colours or a texture; geometry only, files are read in `mesh_files`."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import InvalidInput, check_shape
from .socket_values import SocketValue

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Mesh(SocketValue):
    """A triangle mesh, counter-clockwise when seen from outside.

    vertices: [V, 3] float32.  faces: [F, 3] int64.  vertex_colors: [V, 3] float32 in 0..1 or None.
    corner_uvs: [F, 3, 2] float32, v upwards as in OpenGL, or None.  texture: [H, W, 3] float32 in 0..1 with row 0 at
    the top (v = 1), or None.
    """

    vertices: Tensor
    faces: Tensor
    vertex_colors: Tensor | None = None
    corner_uvs: Tensor | None = None
    texture: Tensor | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_shape("Mesh", "vertices", self.vertices, ["V", 3])
        check_shape("Mesh", "faces", self.faces, ["F", 3])
        if self.faces.dtype != torch.int64:
            raise InvalidInput(f"Mesh: `faces` has type {self.faces.dtype}, expected torch.int64.")
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < len(self.vertices):
            raise InvalidInput(
                f"Mesh: `faces` points at vertices {int(self.faces.min())} to {int(self.faces.max())}, "
                f"but there are {len(self.vertices)}."
            )
        if self.vertex_colors is not None:
            check_shape("Mesh", "vertex_colors", self.vertex_colors, [len(self.vertices), 3])
        if self.corner_uvs is not None:
            check_shape("Mesh", "corner_uvs", self.corner_uvs, [len(self.faces), 3, 2])
        if self.texture is not None:
            check_shape("Mesh", "texture", self.texture, ["H", "W", 3])
            if self.corner_uvs is None:
                raise InvalidInput("Mesh: a texture needs `corner_uvs`.")


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Normals [..., F, 3] of the faces, of twice their area; by the right-hand rule, vertices [..., V, 3]."""
    # Not vertices[..., faces, :], whose gradient torch adds up in any order on several threads.
    corners = vertices.index_select(-2, faces.reshape(-1)).unflatten(-2, faces.shape)
    first = corners[..., 1, :] - corners[..., 0, :]
    second = corners[..., 2, :] - corners[..., 0, :]
    return torch.linalg.cross(first, second, dim=-1)


def face_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """Areas [..., F] of the faces."""
    return 0.5 * face_normals(vertices, faces).norm(dim=-1)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals [..., V, 3], the area-weighted mean of the adjacent faces; zero at vertices of no face."""
    per_face = face_normals(vertices, faces)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(-2, faces[:, corner], per_face)
    return torch.nn.functional.normalize(total, dim=-1)


def sample_texture(texture: Tensor, uvs: Tensor) -> Tensor:
    """Colours [..., C] of a texture [H, W, C] at uvs [..., 2], bilinear, repeating outside 0..1 as in glTF.

    Texel centres lie at half integers; v points up, row 0 is at the top.
    """
    height, width, channels = texture.shape
    x = uvs[..., 0] * width - 0.5
    y = (1 - uvs[..., 1]) * height - 0.5
    left, top = x.floor(), y.floor()
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    x0, y0 = left.long() % width, top.long() % height
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    flat = texture.reshape(-1, channels)
    above = flat[y0 * width + x0] * (1 - fx) + flat[y0 * width + x1] * fx
    below = flat[y1 * width + x0] * (1 - fx) + flat[y1 * width + x1] * fx
    return above * (1 - fy) + below * fy


def compact(mesh: Mesh, keep_faces: Tensor) -> Mesh:
    """The mesh of the faces chosen by `keep_faces` [F] bool, without the vertices that no longer have a face."""
    faces = mesh.faces[keep_faces]
    used = torch.zeros(len(mesh.vertices), dtype=torch.bool)
    used[faces.reshape(-1)] = True
    renumber = torch.cumsum(used, 0) - 1
    return dataclasses.replace(
        mesh,
        vertices=mesh.vertices[used],
        faces=renumber[faces],
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[used],
        corner_uvs=None if mesh.corner_uvs is None else mesh.corner_uvs[keep_faces],
    )


class SplitMesh(NamedTuple):
    """A mesh with one texture coordinate per vertex: vertices [V, 3], faces [F, 3] int64, uvs [V, 2]."""

    vertices: Tensor
    faces: Tensor
    uvs: Tensor


def split_at_seams(mesh: Mesh) -> SplitMesh:
    """The mesh as files want it that index places and texture coordinates at once: vertices are split where texture
    coordinates meet."""
    if mesh.corner_uvs is None:
        raise InvalidInput("split_at_seams: the mesh has no `corner_uvs`.")
    places = mesh.faces.reshape(-1, 1).double()
    corners = torch.cat([places, mesh.corner_uvs.reshape(-1, 2).double()], dim=1)
    unique, inverse = torch.unique(corners, dim=0, return_inverse=True)
    return SplitMesh(mesh.vertices[unique[:, 0].long()], inverse.reshape(-1, 3), unique[:, 1:].float())


def colored_by_face(mesh: Mesh, colors: Tensor) -> Mesh:
    """The mesh in flat colours [F, 3] (0..1), one for each face: each has vertices of its own."""
    corners = torch.arange(3 * len(mesh.faces)).reshape(-1, 3)
    return Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), corners, vertex_colors=colors.repeat_interleave(3, dim=0))


def signed_volume(vertices: Tensor, faces: Tensor) -> Tensor:
    """Volume (scalar) enclosed by a closed mesh of vertices [V, 3] and faces [F, 3], positive when its faces are wound
    outward (divergence theorem)."""
    a, b, c = vertices[faces].unbind(1)
    return (torch.linalg.cross(a, b, dim=-1) * c).sum() / 6
