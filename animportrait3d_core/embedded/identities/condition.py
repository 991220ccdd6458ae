"""The condition map of the bare bust: what a body model alone can tell the diffusion prior about a view."""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
import torch
from torch import Tensor

from ...cameras import Cameras
from ...render import MeshImage, rasterize_mesh
from ..mannequin import build_mannequin


@lru_cache(maxsize=1)
def _condition_faces() -> tuple[Tensor, Tensor, np.ndarray]:
    """All faces of the bust, those of the condition map, and the label of every face."""
    body = build_mannequin()
    labels = body.vertex_labels[body.faces].max(axis=1)
    # The ring between iris and sclera belongs to the sclera only outside the iris' border.
    labels = np.where(body.face_regions["iris"], body.vertex_labels[body.faces].min(axis=1), labels)
    region = body.faces[body.face_regions["condition_face"]]
    return torch.from_numpy(body.faces), torch.from_numpy(region), labels


def condition_map(
    vertices: np.ndarray, normals: np.ndarray, camera: Cameras, grain: int = 2, whole: MeshImage | None = None
) -> Tensor:
    """Condition map [H, W, 4] in 0..1 of the bare bust: world vertices and unit normals [V, 3], one camera.

    Channels 0..2: camera-space OpenGL normals of the face region alone, coded n / 2 + 1 / 2; where it is not, 1.
    Channel 3: sclera 1, teeth 125/255, iris 85/255, seen past the whole head; else 0. grain: samples per pixel, axis.
    whole: the samples of all faces of the bust, if they were drawn before.
    """
    faces, region, labels = _condition_faces()
    fine = camera.resized(camera.width * grain, camera.height * grain)
    world = torch.from_numpy(vertices).float()
    whole = rasterize_mesh(world, faces, fine) if whole is None else whole
    face = rasterize_mesh(world, region, fine)
    turned = normals @ camera.world_to_camera[0, :3, :3].double().numpy().T * [1.0, -1.0, -1.0]
    packed = np.empty((camera.height, camera.width, 4), np.float32)
    seen, inside, past = face.face_id[0].numpy(), face.barycentric[0].numpy(), whole.face_id[0].numpy()
    _pack(seen, inside, past, region.numpy(), turned, labels, packed)
    return torch.from_numpy(packed)


@numba.njit(cache=True, fastmath=True)
def _pack(face_id, barycentric, whole_id, faces, normals, labels, out):
    """Code and average the samples of each pixel; normals [V, 3] in camera space."""
    grain = face_id.shape[0] // out.shape[0]
    weight = 1.0 / (grain * grain)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            red, green, blue, label = 0.0, 0.0, 0.0, 0.0
            for sample in range(grain * grain):
                y, x = row * grain + sample // grain, column * grain + sample % grain
                whole = whole_id[y, x]
                label += labels[whole] if whole >= 0 else 0.0
                face = face_id[y, x]
                if face < 0:
                    red, green, blue = red + 1.0, green + 1.0, blue + 1.0
                    continue
                nx, ny, nz = 0.0, 0.0, 0.0
                for corner in range(3):
                    v, w = faces[face, corner], barycentric[y, x, corner]
                    nx, ny, nz = nx + w * normals[v, 0], ny + w * normals[v, 1], nz + w * normals[v, 2]
                half = 0.5 / (np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-20)
                red, green, blue = red + 0.5 + half * nx, green + 0.5 + half * ny, blue + 0.5 + half * nz
            out[row, column, 0], out[row, column, 1] = red * weight, green * weight
            out[row, column, 2], out[row, column, 3] = blue * weight, label * weight
