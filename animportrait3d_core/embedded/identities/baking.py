"""Light baked into the atlas: the texture of an exported identity looks, unlit, as the identity's renders do."""

from __future__ import annotations

import numba
import numpy as np
import torch

from ...cameras import Cameras
from ...render import rasterize_mesh
from .shading import Lighting, Scene, bend_normal, diffuse_light, normalize, sample_texture, to_srgb


def baked_texture(scene: Scene, lighting: Lighting) -> np.ndarray:
    """Colours [R, R, 3] float32 sRGB-coded: albedo times diffuse light of the scene's pose; no highlights, since those
    change with the view. Gaps between charts are filled from the nearest texel."""
    from scipy import ndimage

    size = scene.size
    uvs = scene.uvs.reshape(-1, 2)
    flat = np.concatenate([uvs[:, :1] * size, (1 - uvs[:, 1:]) * size, np.ones((len(uvs), 1))], axis=1)
    faces = torch.arange(len(uvs)).reshape(-1, 3)
    image = rasterize_mesh(
        torch.from_numpy(flat).float(), faces, Cameras(torch.eye(4)[None], torch.eye(3)[None], size, size)
    )
    face = image.face_id[0].numpy()
    out = np.zeros((size, size, 3), np.float32)
    _bake(scene, lighting, face, image.barycentric[0].numpy(), out)
    nearest = ndimage.distance_transform_edt(face < 0, return_distances=False, return_indices=True)
    return out[nearest[0], nearest[1]]


@numba.njit(cache=True, fastmath=True, parallel=True)
def _bake(scene, lighting, face_id, barycentric, out):
    for row in numba.prange(out.shape[0]):
        texel, second, normal, light = np.empty(7), np.empty(7), np.empty(3), np.empty(3)
        tangents = np.empty((2, 3))
        for column in range(out.shape[1]):
            face = face_id[row, column]
            if face < 0:
                continue
            w = barycentric[row, column]
            a, b, c = scene.faces[face, 0], scene.faces[face, 1], scene.faces[face, 2]
            for k in range(3):
                normal[k] = scene.normals[a, k] * w[0] + scene.normals[b, k] * w[1] + scene.normals[c, k] * w[2]
            normalize(normal)
            u, v = (column + 0.5) / scene.size, 1.0 - (row + 0.5) / scene.size
            sample_texture(scene, u, v, 0.0, texel, second)
            bend_normal(scene, face, texel, normal, tangents, 1.0)
            sky = scene.open_sky[a] * w[0] + scene.open_sky[b] * w[1] + scene.open_sky[c] * w[2]
            key = scene.key_light[a] * w[0] + scene.key_light[b] * w[1] + scene.key_light[c] * w[2]
            diffuse_light(normal, scene.parts[face], sky, key, lighting, light)
            for k in range(3):
                out[row, column, k] = to_srgb(texel[k] * light[k])
