"""Numba kernel that turns a raster of a coloured mesh, finer than the picture, into the picture, its mask and depth."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..kernels import numba

NO_COLORS = np.zeros((0, 3, 3), np.float32)
NO_UVS = np.zeros((0, 3, 2), np.float32)
NO_TEXTURE = np.zeros((0, 0, 3), np.float32)
NO_NORMALS = np.zeros((0, 3), np.float32)


class Raster(NamedTuple):
    """Samples of a picture, s per pixel side: face_id [H*s, W*s], barycentric [H*s, W*s, 3], depth [H*s, W*s]."""

    face_id: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray


class Surface(NamedTuple):
    """faces [F, 3], vertices [V, 3], corner_colors [F, 3, 3] or corner_uvs [F, 3, 2] with texture [h, w, 3]; what is
    not used is empty."""

    faces: np.ndarray
    vertices: np.ndarray
    corner_colors: np.ndarray
    corner_uvs: np.ndarray
    texture: np.ndarray


class Lighting(NamedTuple):
    """normals [V, 3] (empty: unlit), eye [3], light [5]: direction, ambient, key."""

    normals: np.ndarray
    eye: np.ndarray
    light: np.ndarray


class Canvas(NamedTuple):
    """What is filled: image [H, W, 3], mask [H, W], depth [H, W]."""

    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray


@numba.njit(error_model="numpy", nogil=True)
def _texture_color(texture, u, v, color):
    """Bilinear colour into color [3]; by the rules of `meshes.sample_texture`: repeating, v up."""
    height, width = texture.shape[0], texture.shape[1]
    x, y = u * width - 0.5, (1.0 - v) * height - 0.5
    left, top = math.floor(x), math.floor(y)
    fx, fy = x - left, y - top
    x0, y0 = int(left) % width, int(top) % height
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    for channel in range(3):
        above = texture[y0, x0, channel] * (1.0 - fx) + texture[y0, x1, channel] * fx
        below = texture[y1, x0, channel] * (1.0 - fx) + texture[y1, x1, channel] * fx
        color[channel] = above * (1.0 - fy) + below * fy


@numba.njit(error_model="numpy", nogil=True)
def _light_factor(corners, weights, vertices, normals, eye, light):
    """Ambient plus key light on the side of the surface that the eye sees; light [5] is direction, ambient, key."""
    nx, ny, nz, px, py, pz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for corner in range(3):
        vertex, weight = corners[corner], weights[corner]
        nx, ny, nz = (
            nx + weight * normals[vertex, 0],
            ny + weight * normals[vertex, 1],
            nz + weight * normals[vertex, 2],
        )
        px, py, pz = (
            px + weight * vertices[vertex, 0],
            py + weight * vertices[vertex, 1],
            pz + weight * vertices[vertex, 2],
        )
    length = max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    toward = nx * (eye[0] - px) + ny * (eye[1] - py) + nz * (eye[2] - pz)
    cosine = (nx * light[0] + ny * light[1] + nz * light[2]) / length
    if toward < 0.0:
        cosine = -cosine
    return light[3] + light[4] * max(cosine, -0.3)


@numba.njit(error_model="numpy", nogil=True, cache=True)
def shade_rows(raster, surface, lighting, background, samples, canvas, first_row, last_row):
    """Fill rows of a `Canvas` from a `Raster` of samples^2 per pixel, over a background [3]."""
    face_id, barycentric, sample_depth = raster
    faces, vertices, corner_colors, corner_uvs, texture = surface
    normals, eye, light = lighting
    image, mask, depth = canvas
    color = np.empty(3)
    for row in range(first_row, last_row):
        for column in range(mask.shape[1]):
            red, green, blue, covered, nearest = 0.0, 0.0, 0.0, 0, np.inf
            for y in range(row * samples, (row + 1) * samples):
                for x in range(column * samples, (column + 1) * samples):
                    face = face_id[y, x]
                    if face < 0:
                        continue
                    weights = barycentric[y, x]
                    if texture.shape[0] > 0:
                        u, v = 0.0, 0.0
                        for corner in range(3):
                            u += weights[corner] * corner_uvs[face, corner, 0]
                            v += weights[corner] * corner_uvs[face, corner, 1]
                        _texture_color(texture, u, v, color)
                    else:
                        for channel in range(3):
                            color[channel] = (
                                weights[0] * corner_colors[face, 0, channel]
                                + weights[1] * corner_colors[face, 1, channel]
                                + weights[2] * corner_colors[face, 2, channel]
                            )
                    factor = 1.0
                    if normals.shape[0] > 0:
                        factor = _light_factor(faces[face], weights, vertices, normals, eye, light)
                    red, green, blue = red + factor * color[0], green + factor * color[1], blue + factor * color[2]
                    covered += 1
                    nearest = min(nearest, sample_depth[y, x])
            total = samples * samples
            behind = 1.0 - covered / total
            mask[row, column] = covered / total
            depth[row, column] = nearest if covered > 0 else 0.0
            image[row, column, 0] = min(max(red / total + behind * background[0], 0.0), 1.0)
            image[row, column, 1] = min(max(green / total + behind * background[1], 0.0), 1.0)
            image[row, column, 2] = min(max(blue / total + behind * background[2], 0.0), 1.0)
