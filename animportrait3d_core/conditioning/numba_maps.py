"""The compiled half of `maps`: samples of one view, coded and averaged into its pixels."""

from __future__ import annotations

import numpy as np

from ..kernels import numba


@numba.njit(cache=True, fastmath=True)
def pack_view(face_id, barycentric, whole_id, faces, normals, labels, out):
    """Code and average the samples of each pixel.

    face_id [h, w], barycentric [h, w, 3]: of the shown faces [F', 3].  whole_id [h, w]: of all faces, with labels [F].
    normals: [V, 3] unit, camera space.  out: [H, W, 4], H and W divide h and w by the same number.
    """
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
