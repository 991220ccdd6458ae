"""A triangle mesh from a density grid: marching cubes, cleaning, Laplacian smoothing.

Upstream shears its sample points by up to a voxel and divides by 256 instead of 255; here a vertex lies where the field
crosses the level, in world coordinates.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite, check_shape
from ..meshes import Mesh, compact, face_areas, signed_volume

_WHERE = "mesh_from_density"
_EMPTY = -1000.0


@dataclasses.dataclass(frozen=True)
class SurfaceSettings:
    """How a mesh is made of a density grid.

    level: raw density (before softplus) of the surface.  border: share of the grid emptied on every side (15 of 256
    voxels as upstream).  smoothing_steps: passes of uniform Laplacian smoothing.  min_component_share: connected pieces
    with less than this share of the largest one's faces are dropped, as are cavities inside it.
    """

    level: float = 15.0
    border: float = 15 / 256
    smoothing_steps: int = 0
    min_component_share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.border < 0.5:
            raise InvalidInput(f"SurfaceSettings: border is {self.border}, expected 0 to less than 0.5.")
        if not 0 <= self.smoothing_steps <= 1000:
            raise InvalidInput(f"SurfaceSettings: smoothing_steps is {self.smoothing_steps}, expected 0 to 1000.")
        if not 0 <= self.min_component_share <= 1:
            raise InvalidInput(f"SurfaceSettings: min_component_share is {self.min_component_share}, expected 0 to 1.")


def mesh_from_density(
    values: Tensor, start: tuple[float, float, float], spacing: float, settings: SurfaceSettings | None = None
) -> Mesh:
    """Surface where `values` [X, Y, Z] cross the level, wound outward (dense inside), in world coordinates.

    The value [i, j, k] belongs to the point start + spacing (i, j, k).

    Raises `InvalidInput` if the field nowhere crosses the level inside the border.
    """
    settings = settings or SurfaceSettings()
    check_shape(_WHERE, "values", values, ["X", "Y", "Z"])
    check_finite(_WHERE, "values", values)
    if min(values.shape) < 4:
        raise InvalidInput(f"{_WHERE}: `values` has shape {list(values.shape)}, expected at least 4 points per side.")
    inner = empty_border(values, settings.border).numpy()
    low, high = float(inner.min()), float(inner.max())
    if not low < settings.level < high:
        raise InvalidInput(
            f"{_WHERE}: the density runs from {float(values.min()):.4g} to {float(values.max()):.4g} "
            f"({high:.4g} inside the border), so there is no surface at level {settings.level:g}; choose another level."
        )
    from skimage.measure import marching_cubes

    indices, faces, _, _ = marching_cubes(inner, level=settings.level)
    vertices = torch.from_numpy(indices.astype(np.float64)) * spacing + torch.tensor(start, dtype=torch.float64)
    mesh = Mesh(vertices.float(), torch.from_numpy(faces.astype(np.int64)))
    mesh = clean_mesh(mesh, settings.min_component_share)
    return smooth_mesh(mesh, settings.smoothing_steps)


def empty_border(values: Tensor, border: float) -> Tensor:
    """A copy of a density grid [X, Y, Z] whose outermost voxels are empty (at least one, so that the surface is
    closed)."""
    emptied = torch.full_like(values, _EMPTY)
    slices = []
    for size in values.shape:
        width = max(1, round(border * size))
        slices.append(slice(width, size - width))
    emptied[tuple(slices)] = values[tuple(slices)]
    return emptied


def clean_mesh(mesh: Mesh, min_component_share: float) -> Mesh:
    """The mesh without duplicate and degenerate faces, small pieces and inner cavities, wound outward.

    Vertices at the same place are joined first. Done with trimesh, which every installation has.
    """
    import trimesh

    solid = trimesh.Trimesh(mesh.vertices.double().numpy(), mesh.faces.numpy(), process=False)
    solid.merge_vertices()
    solid.update_faces(solid.unique_faces() & solid.nondegenerate_faces(height=1e-12))
    vertices = torch.from_numpy(np.asarray(solid.vertices)).float()
    merged = Mesh(vertices, torch.from_numpy(np.asarray(solid.faces, np.int64)))
    pieces = trimesh.graph.connected_components(solid.face_adjacency, nodes=np.arange(len(solid.faces)))
    merged = _outward(merged, max(pieces, key=len))
    largest = max(len(piece) for piece in pieces)
    keep = torch.zeros(len(merged.faces), dtype=torch.bool)
    for piece in pieces:
        # The surface of a hole inside a body is wound towards the hole: its volume is negative.
        solid_piece = float(signed_volume(merged.vertices.double(), merged.faces[piece])) > 0
        if len(piece) >= min_component_share * largest and solid_piece:
            keep[torch.from_numpy(np.asarray(piece))] = True
    return compact(merged, keep)


def _outward(mesh: Mesh, largest: np.ndarray) -> Mesh:
    """The mesh, turned over if its largest piece is wound inward."""
    faces = mesh.faces[torch.from_numpy(np.asarray(largest))]
    if float(signed_volume(mesh.vertices.double(), faces)) > 0:
        return mesh
    return dataclasses.replace(mesh, faces=mesh.faces.flip(1))


def smooth_mesh(mesh: Mesh, steps: int) -> Mesh:
    """Uniform Laplacian smoothing: `steps` times, every vertex becomes the mean of itself and its neighbours."""
    from scipy import sparse

    if not steps:
        return mesh
    faces, count = mesh.faces.numpy(), len(mesh.vertices)
    rows = np.concatenate([faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel(), np.arange(count)])
    columns = np.concatenate([faces[:, [1, 2, 0]].ravel(), faces[:, [0, 1, 2]].ravel(), np.arange(count)])
    neighbours = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    neighbours.data[:] = 1  # an edge of two faces is listed twice
    mean = sparse.diags(1 / np.asarray(neighbours.sum(axis=1)).ravel()) @ neighbours
    vertices = mesh.vertices.double().numpy()
    for _ in range(steps):
        vertices = mean @ vertices
    return dataclasses.replace(mesh, vertices=torch.from_numpy(vertices).float())


def roughness(mesh: Mesh) -> float:
    """Noise of a surface: area-weighted mean angle in degrees between the normals of neighbouring faces."""
    import trimesh

    solid = trimesh.Trimesh(mesh.vertices.double().numpy(), mesh.faces.numpy(), process=False)
    areas = face_areas(mesh.vertices, mesh.faces).double().numpy()
    weights = areas[solid.face_adjacency].sum(axis=1)
    return float(np.degrees(np.average(solid.face_adjacency_angles, weights=weights)))
