"""Compiled geometry of figures: welded vertex normals and linear blend skinning."""

from __future__ import annotations

import math

import numpy as np

from ...kernels import numba


@numba.njit(cache=True, fastmath=True)
def welded_normals(vertices, faces, weld):
    """Unit normals [V, 3], area-weighted; vertices with the same representative `weld` [V] share one normal."""
    normals = np.zeros((vertices.shape[0], 3))
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        wx, wy, wz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for corner in range(3):
            v = weld[faces[f, corner]]
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(vertices.shape[0]):
        if weld[v] == v:
            length = math.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + 1e-30
            normals[v, 0] /= length
            normals[v, 1] /= length
            normals[v, 2] /= length
    for v in range(vertices.shape[0]):
        if weld[v] != v:
            normals[v, 0], normals[v, 1], normals[v, 2] = normals[weld[v], 0], normals[weld[v], 1], normals[weld[v], 2]
    return normals


@numba.njit(cache=True, fastmath=True)
def bent_rest(rest, lids, follows, eyelids, offset):
    """Rest vertices [V, 3] with eyelids [2] along lids [2, V, 3] and the expression offset [n, 3] of the bust's
    vertices that they follow [V], -1 for none."""
    out = np.empty_like(rest)
    for v in range(rest.shape[0]):
        leader = follows[v]
        for k in range(3):
            moved = rest[v, k] + eyelids[0] * lids[0, v, k] + eyelids[1] * lids[1, v, k]
            out[v, k] = moved + offset[leader, k] if leader >= 0 else moved
    return out


@numba.njit(cache=True, fastmath=True)
def skin_vertices(rest, weights, transforms):
    """Linear blend skinning: rest [V, 3], weights [V, J], transforms [J, 3, 4] -> [V, 3]."""
    out = np.empty((rest.shape[0], 3))
    joints = weights.shape[1]
    for v in range(rest.shape[0]):
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        px, py, pz = 0.0, 0.0, 0.0
        for j in range(joints):
            w = weights[v, j]
            if w != 0.0:
                t = transforms[j]
                px += w * (t[0, 0] * x + t[0, 1] * y + t[0, 2] * z + t[0, 3])
                py += w * (t[1, 0] * x + t[1, 1] * y + t[1, 2] * z + t[1, 3])
                pz += w * (t[2, 0] * x + t[2, 1] * y + t[2, 2] * z + t[2, 3])
        out[v, 0], out[v, 1], out[v, 2] = px, py, pz
    return out


@numba.njit(cache=True, fastmath=True)
def smoothed_over_mesh(values, faces, weld, rounds):
    """Values [V, k] averaged `rounds` times with those of their neighbours; welded vertices stay equal."""
    for _ in range(rounds):
        total = np.zeros_like(values)
        count = np.zeros(values.shape[0])
        for f in range(faces.shape[0]):
            a, b, c = weld[faces[f, 0]], weld[faces[f, 1]], weld[faces[f, 2]]
            for k in range(values.shape[1]):
                mean = (values[a, k] + values[b, k] + values[c, k]) / 3.0
                total[a, k] += mean
                total[b, k] += mean
                total[c, k] += mean
            count[a] += 1.0
            count[b] += 1.0
            count[c] += 1.0
        result = values.copy()
        for v in range(values.shape[0]):
            if count[weld[v]] > 0.0:
                for k in range(values.shape[1]):
                    result[v, k] = total[weld[v], k] / count[weld[v]]
        values = result
    return values


@numba.njit(cache=True)
def nearer_samples(first, second, offset):
    """Samples (face_id [H, W], barycentric [H, W, 3], depth [H, W]) of two meshes drawn together.

    offset: is added to the second mesh's face ids. At equal depth the first mesh is seen.
    """
    face_id, barycentric, depth = first[0].copy(), first[1].copy(), first[2].copy()
    for y in range(face_id.shape[0]):
        for x in range(face_id.shape[1]):
            if second[0][y, x] >= 0 and (face_id[y, x] < 0 or second[2][y, x] < depth[y, x]):
                face_id[y, x] = second[0][y, x] + offset
                depth[y, x] = second[2][y, x]
                for k in range(3):
                    barycentric[y, x, k] = second[1][y, x, k]
    return face_id, barycentric, depth
