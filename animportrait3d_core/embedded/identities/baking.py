"""Light baked into the atlas: the texture of an exported identity looks, unlit, as the identity's renders do."""

from __future__ import annotations

import numpy as np
import torch

from ...cameras import Cameras
from ...kernels import numba
from ...render import rasterize_mesh
from ...render.threads import run_parallel
from . import palette
from .atlas import texel_window
from .shading import (
    KEY,
    NORMAL,
    SKY,
    Lighting,
    Scene,
    bend_normal,
    diffuse_light,
    interpolate,
    packed_lighting,
    sample_texture,
    to_srgb,
)


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
    run_parallel(_bake, size, scene, packed_lighting(lighting), face, image.barycentric[0].numpy(), out)
    nearest = ndimage.distance_transform_edt(face < 0, return_distances=False, return_indices=True)
    filled = out[nearest[0], nearest[1]]
    # All corners of the lashes lie on one texel, so that no face covers their window: its neighbours must not fill it.
    filled[texel_window("lash", size)] = palette.LASH
    return filled


@numba.njit(cache=True, fastmath=True, nogil=True)
def _bake(scene, lights, face_id, barycentric, out, begin, end):
    for row in range(begin, end):
        texel, second, normal, light = np.empty(7), np.empty(7), np.empty(3), np.empty(3)
        tangents, point = np.empty((2, 3)), np.empty(10)
        for column in range(out.shape[1]):
            face = face_id[row, column]
            if face < 0:
                continue
            w0, w1, w2 = barycentric[row, column, 0], barycentric[row, column, 1], barycentric[row, column, 2]
            interpolate(scene.attributes, scene.faces, face, w0, w1, w2, point)
            for k in range(3):
                normal[k] = point[NORMAL + k]
            u, v = (column + 0.5) / scene.size, 1.0 - (row + 0.5) / scene.size
            sample_texture(scene.texels, scene.starts, scene.size, u, v, 0.0, texel, second)
            bend_normal(scene.attributes, scene.faces, scene.uvs, face, texel, normal, tangents, scene.relief_scale)
            diffuse_light(normal, scene.parts[face], point[SKY], point[KEY], lights, light)
            for k in range(3):
                out[row, column, k] = to_srgb(texel[k] * light[k])
