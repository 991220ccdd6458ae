"""Fewer faces: quadric edge collapses down to a budget."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InvalidInput
from ..meshes import Mesh
from .edges import edge_table


def decimate(mesh: Mesh, face_budget: int) -> Mesh:
    """The surface with at most `face_budget` faces, by quadric edge collapses (Garland 1997; libigl keeps manifolds).

    Raises `InvalidInput` for a mesh whose edges do not all have two faces at most, or a budget below 4.
    """
    import igl

    if face_budget < 4:
        raise InvalidInput(f"decimate: face_budget is {face_budget}, expected at least 4.")
    if len(mesh.faces) <= face_budget:
        return mesh
    tangled = int((~simple_edges(mesh)).sum())
    if tangled:
        raise InvalidInput(
            f"decimate: {tangled} edges have more than two faces or two that disagree about the winding, expected "
            "none; clean the mesh with `prepare_mesh` first."
        )
    vertices = np.asfortranarray(mesh.vertices.double().numpy())
    new_vertices, new_faces, *_ = igl.qslim(vertices, np.asfortranarray(mesh.faces.numpy()), face_budget)
    return Mesh(torch.from_numpy(new_vertices).float(), torch.from_numpy(np.ascontiguousarray(new_faces)).long())


def simple_edges(mesh: Mesh) -> np.ndarray:
    """[E] bool: edges with one face, or two that run along it in opposite directions."""
    table = edge_table(mesh.faces.numpy(), len(mesh.vertices))
    uses = np.bincount(table.of_corner.reshape(-1), minlength=len(table.ends))
    return table.regular | (uses == 1)
