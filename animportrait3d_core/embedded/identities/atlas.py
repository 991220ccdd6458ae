"""Where each surface of an identity lies in its texture: rectangles (u, v, width, height) in 0..1, v up.

The skin gets the upper part, because the face is looked at most; hair, cloth, eyes and the inside of the mouth share
the rest. Every texel belongs to one place of the surface, so that light can be baked into the texture.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

CHANNELS = 5  # red, green, blue (sRGB-coded 0..1), relief (mm), gloss 0..1
RECTANGLES: dict[str, tuple[float, float, float, float]] = {
    "skin": (0.0, 0.44, 1.0, 0.56),
    "hair": (0.0, 0.0, 0.56, 0.23),
    "cloth": (0.0, 0.23, 0.56, 0.21),
    "left_eye": (0.56, 0.29, 0.15, 0.15),
    "right_eye": (0.71, 0.29, 0.15, 0.15),
    "knot": (0.86, 0.29, 0.14, 0.15),
    "left_ear": (0.56, 0.17, 0.11, 0.12),
    "right_ear": (0.67, 0.17, 0.11, 0.12),
    "mouth_bag": (0.78, 0.17, 0.11, 0.12),
    "tongue": (0.89, 0.17, 0.06, 0.12),
    "lash": (0.95, 0.17, 0.05, 0.03),
    "worn": (0.95, 0.20, 0.05, 0.09),
    "collar": (0.56, 0.11, 0.44, 0.06),
    "locks": (0.56, 0.0, 0.22, 0.11),
    "upper_teeth": (0.78, 0.07, 0.22, 0.04),
    "lower_teeth": (0.78, 0.03, 0.22, 0.04),
    "upper_gum": (0.78, 0.015, 0.11, 0.015),
    "lower_gum": (0.89, 0.015, 0.11, 0.015),
    "left_eye_rim": (0.78, 0.0, 0.11, 0.015),
    "right_eye_rim": (0.89, 0.0, 0.11, 0.015),
}
_GAP = 0.0015


def placed(name: str, chart: np.ndarray) -> np.ndarray:
    """Texture coordinates [..., 2] (v up) of a chart's own coordinates in 0..1 (v up)."""
    u, v, width, height = RECTANGLES[name]
    low = np.array([u + _GAP, v + _GAP])
    return low + chart * (np.array([width, height]) - 2 * _GAP)


def texel_window(name: str, size: int) -> tuple[slice, slice]:
    """Rows and columns of a chart in an atlas of `size` x `size` texels, row 0 at the top."""
    u, v, width, height = RECTANGLES[name]
    rows = slice(round((1 - v - height) * size), round((1 - v) * size))
    return rows, slice(round(u * size), round((u + width) * size))


def chart_grid(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Chart coordinates (across, down) in about 0..1 of the texel centres of a window: [W], [H]."""
    u, v, width, height = RECTANGLES[name]
    rows, columns = texel_window(name, size)
    across = ((np.arange(columns.start, columns.stop) + 0.5) / size - u - _GAP) / (width - 2 * _GAP)
    up = ((size - np.arange(rows.start, rows.stop) - 0.5) / size - v - _GAP) / (height - 2 * _GAP)
    return across, 1 - up


@lru_cache(maxsize=4)
def _body_layout() -> np.ndarray:
    from ..mannequin import build_mannequin
    from .eye_texture import eye_chart

    body = build_mannequin()
    uvs = np.empty_like(body.corner_uvs)
    for name, span in body.part_faces.items():
        low, high = np.array(body.charts[name][:2]), np.array(body.charts[name][2:])
        chart = (body.corner_uvs[span] - low) / (high - low)
        if name in ("left_eye", "right_eye"):
            corners = body.vertices[body.faces[span]]
            points = body.vertices[body.part_vertices[name]]
            chart = eye_chart(corners - 0.5 * (points.min(axis=0) + points.max(axis=0)))
        uvs[span] = placed(name, np.clip(chart, 0, 1))
    return uvs


def body_corner_uvs() -> np.ndarray:
    """Texture coordinates [F, 3, 2] of the bare bust in the identities' atlas."""
    return _body_layout()


@lru_cache(maxsize=3)
def body_texels(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the bare bust's texels show: face [size, size] (-1 outside), barycentrics [size, size, 3], and the flat
    index of the nearest covered texel [size * size], which fills the gaps between charts."""
    import torch
    from scipy import ndimage

    from ...cameras import Cameras
    from ...render import rasterize_mesh
    from ..mannequin import build_mannequin

    uvs = body_corner_uvs().reshape(-1, 2)
    flat = np.concatenate([uvs[:, :1] * size, (1 - uvs[:, 1:]) * size, np.ones((len(uvs), 1))], axis=1)
    faces = torch.arange(3 * len(build_mannequin().faces)).reshape(-1, 3)
    # A camera whose pixels are the texels: the chart lies flat at depth 1.
    camera = Cameras(torch.eye(4)[None], torch.eye(3)[None], size, size)
    image = rasterize_mesh(torch.from_numpy(flat).float(), faces, camera)
    face = image.face_id[0].numpy()
    nearest = ndimage.distance_transform_edt(face < 0, return_distances=False, return_indices=True)
    fill = nearest[0] * size + nearest[1]
    return face, image.barycentric[0].numpy(), fill.reshape(-1)
