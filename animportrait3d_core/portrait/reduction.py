"""Fewer faces for scans that have more than a head needs: by pymeshlab where it is installed, else by clusters.

Clusters of vertices in a grid become one vertex each (Rossignac and Borrel, "Multi-resolution 3D approximations for
rendering complex scenes", 1993): any mesh will do, a million faces take seconds, and the faces that are left
keep their corners' texture coordinates.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..meshes import Mesh, compact, face_areas

MOST_FACES = 300_000
"""More are reduced, to `FACES`: views of some hundred pixels show no finer ones."""

FACES = 200_000
_ROUNDS = 6


@dataclasses.dataclass(frozen=True)
class ReducedMesh:
    """mesh: with about `FACES` faces at most.  note: what was done, how and for how long; empty if nothing."""

    mesh: Mesh
    note: str = ""


def reduce_faces(mesh: Mesh, most: int = MOST_FACES, faces: int = FACES) -> ReducedMesh:
    """A mesh of more than `most` faces with about `faces` of them; another one as it is."""
    if faces < 4 or most < faces:
        raise InvalidInput(f"reduce_faces: {faces} faces of meshes over {most}, expected at least 4 and no more.")
    if len(mesh.faces) <= most:
        return ReducedMesh(mesh)
    started, before = time.perf_counter(), len(mesh.faces)
    package = _pymeshlab()
    if package is not None and mesh.texture is None:
        made, way = _collapsed(package, mesh, faces), "pymeshlab's edge collapses"
    else:
        made, way = _clustered(mesh, faces), "vertex clusters"
    seconds = time.perf_counter() - started
    size = sum(value.nbytes for value in (mesh.vertices, mesh.faces)) / 2**20
    return ReducedMesh(
        made, f"{before:,} faces ({size:.0f} MiB) are reduced to {len(made.faces):,} by {way} in {seconds:.1f} s"
    )


def _pymeshlab() -> Any:
    """The package, or None: it is never needed."""
    try:
        return importlib.import_module("pymeshlab")
    except ImportError:
        return None


def _collapsed(package: Any, mesh: Mesh, faces: int) -> Mesh:
    """Quadric edge collapses; colours of vertices go with them."""
    colors = {}
    if mesh.vertex_colors is not None:
        opaque = torch.cat([mesh.vertex_colors, torch.ones(len(mesh.vertices), 1)], dim=1)
        colors = {"v_color_matrix": opaque.double().numpy()}
    meshes = package.MeshSet()
    meshes.add_mesh(package.Mesh(mesh.vertices.double().numpy(), mesh.faces.int().numpy(), **colors))
    meshes.apply_filter("meshing_decimation_quadric_edge_collapse", targetfacenum=faces, preservenormal=True)
    found = meshes.current_mesh()
    found_colors = torch.from_numpy(found.vertex_color_matrix()[:, :3]).float().clamp(0, 1) if colors else None
    return Mesh(
        torch.from_numpy(found.vertex_matrix()).float(),
        torch.from_numpy(found.face_matrix().astype(np.int64)),
        vertex_colors=found_colors,
    )


def _clustered(mesh: Mesh, faces: int) -> Mesh:
    """The mesh on a grid whose cells are chosen so that about `faces` faces are left."""
    area = float(face_areas(mesh.vertices.double(), mesh.faces).sum())
    cell = (2 * area / faces) ** 0.5  # two faces of a surface for each cell that it passes
    made = mesh
    for _ in range(_ROUNDS):
        made = _on_grid(mesh, cell)
        if 0.8 * faces < len(made.faces) <= faces:
            break
        cell *= max(0.5, min(2.0, (len(made.faces) / (0.9 * faces)) ** 0.5))
    return made


def _on_grid(mesh: Mesh, cell: float) -> Mesh:
    """The mesh with one vertex, the mean, for all in a cell; faces that lost a corner are gone, and repeated ones."""
    places = mesh.vertices.double()
    cells = ((places - places.amin(0)) / cell).floor().long()
    sizes = cells.amax(0) + 1
    keys = (cells[:, 0] * sizes[1] + cells[:, 1]) * sizes[2] + cells[:, 2]
    _, cluster, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    faces = cluster[mesh.faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    keep = whole & _first_of_its_kind(faces, len(counts))
    colors = None if mesh.vertex_colors is None else _means(mesh.vertex_colors.double(), cluster, counts).float()
    moved = dataclasses.replace(
        mesh, vertices=_means(places, cluster, counts).float(), faces=faces, vertex_colors=colors
    )
    return compact(moved, keep)


def _means(values: Tensor, cluster: Tensor, counts: Tensor) -> Tensor:
    total = torch.zeros(len(counts), values.shape[1], dtype=values.dtype).index_add(0, cluster, values)
    return total / counts[:, None]


def _first_of_its_kind(faces: Tensor, count: int) -> Tensor:
    """Faces [F] bool that no earlier one repeats, whatever its order of corners."""
    ordered = faces.sort(1).values
    keys = (ordered[:, 0] * count + ordered[:, 1]).numpy(), ordered[:, 2].numpy()
    _, first = np.unique(np.stack(keys, axis=1), axis=0, return_index=True)
    kept = torch.zeros(len(faces), dtype=torch.bool)
    kept[torch.from_numpy(first)] = True
    return kept
