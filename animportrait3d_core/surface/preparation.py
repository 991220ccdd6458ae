"""A mesh before and after refinement: its pieces, its winding, its number of faces, and what must hold at the end."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras, orbit_cameras
from ..errors import InvalidInput, check_finite
from ..meshes import Mesh, compact, face_normals, signed_volume
from ..render import rasterize_mesh
from .decimation import simple_edges
from .edges import edge_table

LARGEST_INVERTED_SHARE = 0.02
CHECK_SIZE = 192


@dataclasses.dataclass(frozen=True)
class PreparedMesh:
    """mesh: vertices at one place joined, pieces and cavities below the limit gone, wound outward, no colours.

    notes: what was done about it, in words for the user.
    """

    mesh: Mesh
    notes: tuple[str, ...]


def prepare_mesh(mesh: Mesh, min_piece_share: float) -> PreparedMesh:
    """Makes one outward surface of a mesh.

    min_piece_share: connected pieces with a smaller share of the largest one's faces are dropped, and so are cavities:
    pieces inside out. Raises `InvalidInput` for an empty mesh or one with vertices that are not finite.
    """
    where = "refine_mesh"
    check_finite(where, "vertices", mesh.vertices)
    if len(mesh.faces) < 4:
        raise InvalidInput(f"{where}: the mesh has {len(mesh.faces)} faces, expected at least 4; extract it again.")
    notes = []
    joined = _joined(mesh)
    tangled = int((~simple_edges(joined)).sum())
    if tangled:
        joined = _untangled(joined)
        notes.append(f"{tangled} edges with more than two faces, or with faces that disagree, were taken apart.")
    sorted_out = _sorted_pieces(joined, min_piece_share)
    kept = torch.from_numpy(sorted_out.kept)
    turned = torch.from_numpy(sorted_out.inward)
    faces = torch.where(turned[:, None], joined.faces.flip(1), joined.faces)
    notes += sorted_out.notes(min_piece_share)
    return PreparedMesh(compact(dataclasses.replace(joined, faces=faces), kept), tuple(notes))


@dataclasses.dataclass(frozen=True)
class _SortedPieces:
    """Which faces stay [F] and which of them have to be turned over [F]; sizes of the pieces that stay and that go."""

    kept: np.ndarray
    inward: np.ndarray
    large: list[int]
    small: list[int]
    hollow: list[int]

    def notes(self, min_piece_share: float) -> list[str]:
        """What the user should know of it."""
        notes, faces = [], len(self.kept)
        if len(self.large) > 1:
            sizes = ", ".join(str(size) for size in sorted(self.large, reverse=True)[:6])
            notes.append(
                f"The mesh is in {len(self.large)} pieces ({sizes} faces), and all are kept; if that is not meant, "
                "raise smallest_piece of Extract Mesh, or mend the mesh."
            )
        if self.small:
            notes.append(
                f"Dropped {len(self.small)} small separate pieces ({sum(self.small)} of {faces} faces), each with less "
                f"than {100 * min_piece_share:g} % of the largest one's faces (min_piece_share)."
            )
        if self.hollow:
            notes.append(f"Dropped {len(self.hollow)} cavities in the surface ({sum(self.hollow)} of {faces} faces).")
        if self.inward.any():
            notes.append("The mesh was wound inward; its faces were turned over.")
        return notes


def _sorted_pieces(mesh: Mesh, min_piece_share: float) -> _SortedPieces:
    """Pieces that stay: the largest, and others of some size that are no cavities (wound inward in an outward mesh)."""
    pieces = connected_pieces(mesh)
    sizes = np.bincount(pieces)
    sign = 1 if _volume(mesh, pieces == int(sizes.argmax())) > 0 else -1
    result = _SortedPieces(np.zeros(len(pieces), dtype=bool), np.zeros(len(pieces), dtype=bool), [], [], [])
    for piece, size in enumerate(sizes.tolist()):
        if size < min_piece_share * sizes.max():
            result.small.append(size)
        elif _volume(mesh, pieces == piece) * sign <= 0:
            result.hollow.append(size)
        else:
            result.kept[pieces == piece] = True
            result.large.append(size)
    result.inward[:] = result.kept & (sign < 0)
    return result


def _joined(mesh: Mesh) -> Mesh:
    """The geometry with vertices at the same place made one, without degenerate and repeated faces."""
    import trimesh

    solid = trimesh.Trimesh(mesh.vertices.double().numpy(), mesh.faces.numpy(), process=False)
    solid.merge_vertices()
    solid.update_faces(solid.unique_faces() & solid.nondegenerate_faces(height=1e-12))
    return Mesh(
        torch.from_numpy(np.array(solid.vertices)).float(), torch.from_numpy(np.array(solid.faces, dtype=np.int64))
    )


def _untangled(mesh: Mesh) -> Mesh:
    """The surface as an orientable manifold: vertices are doubled where it is none."""
    import igl

    faces, births, *_ = igl.split_nonmanifold(np.asfortranarray(mesh.faces.numpy()))
    return Mesh(mesh.vertices[torch.from_numpy(births)], torch.from_numpy(np.ascontiguousarray(faces)).long())


def connected_pieces(mesh: Mesh) -> np.ndarray:
    """[F] number of the connected piece that each face belongs to; pieces touch at edges or corners."""
    from scipy.sparse import csgraph

    from .edges import neighbour_matrix

    matrix = neighbour_matrix(mesh.faces.numpy(), len(mesh.vertices))
    _, of_vertex = csgraph.connected_components(matrix, directed=False)
    return np.unique(of_vertex[mesh.faces[:, 0].numpy()], return_inverse=True)[1].reshape(-1)


def _volume(mesh: Mesh, members: np.ndarray) -> float:
    """Signed volume of some faces about their middle, so that an open bust has a sign as well."""
    faces = mesh.faces[torch.from_numpy(members)]
    vertices = mesh.vertices.double()
    return float(signed_volume(vertices - vertices[faces].mean(dim=(0, 1)), faces))


def mesh_volume(mesh: Mesh) -> float:
    """Signed volume about the middle of a mesh, float64."""
    return _volume(mesh, np.ones(len(mesh.faces), dtype=bool))


def face_pairs(faces: Tensor, count: int) -> Tensor:
    """Pairs [P, 2] of faces that share an edge of exactly two faces."""
    table = edge_table(faces.numpy(), count)
    return torch.from_numpy(table.faces[table.regular])


def inverted_share(mesh: Mesh, cameras: Cameras | None = None) -> float:
    """Share of the pixels around a mesh in which the inner side of a face is seen; 0 for a sound outward surface."""
    cameras = cameras or orbit_cameras([0, 60, 120, 180, 240, 300, 0, 180], [0] * 6 + [50, -20], CHECK_SIZE)
    seen = rasterize_mesh(mesh.vertices, mesh.faces, cameras).face_id
    normals = face_normals(mesh.vertices, mesh.faces)
    centers = mesh.vertices[mesh.faces].mean(dim=1)
    away, total = 0, 0
    for face_id, center in zip(seen, cameras.camera_centers):
        visible = face_id[face_id >= 0]
        away += int(((normals[visible] * (center - centers[visible])).sum(-1) < 0).sum())
        total += len(visible)
    return away / max(total, 1)
