"""Which faces of a portrait mesh can be seen from outside."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras, view_preset
from ..errors import InvalidInput
from ..meshes import Mesh
from ..render import rasterize_mesh

PROBE_SIZE = 384
"""Pixels of the pictures that look for visible faces; smaller faces are caught by their neighbours."""


def visible_faces(mesh: Mesh, cameras: Cameras | None = None) -> Tensor:
    """Mask [F] of the faces that some camera sees, and of the faces that share a corner with one of those.

    Portraits from modelling tools often hold a whole body under the clothes, a skull, teeth: points sampled there would
    be wasted, and colours taken from there are wrong. cameras: default the 24 of the `mesh24` preset.
    """
    cameras = view_preset("mesh24", PROBE_SIZE) if cameras is None else cameras
    seen = torch.zeros(len(mesh.faces), dtype=torch.bool)
    for index in range(len(cameras)):
        image = rasterize_mesh(mesh.vertices, mesh.faces, cameras[index])
        seen[image.face_id[image.mask]] = True
    if not bool(seen.any()):
        low, high = (value.tolist() for value in (mesh.vertices.amin(0), mesh.vertices.amax(0)))
        raise InvalidInput(
            f"visible_faces: none of {len(cameras)} cameras sees the mesh, which spans {low} to {high}; align it "
            "to the head frame first (about 1 unit high around y = 0.2)."
        )
    touched = torch.zeros(len(mesh.vertices), dtype=torch.bool)
    touched[mesh.faces[seen].reshape(-1)] = True
    return seen | touched[mesh.faces].any(dim=1)
