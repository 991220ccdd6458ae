"""Numba twin of `silhouettes.py`: the same crossings, in one pass over the edges."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..kernels import numba
from .scene import NEAR_PLANE
from .silhouettes import DEPTH_TOLERANCE, Crossings
from .threads import run_parallel


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _mark_silhouettes(pixels, depth, edges, marks, begin, end):
    """marks[e] = 1 where both faces of an edge lie on one side of it in the image, or where it has one face only."""
    for e in range(begin, end):
        u, v, a, b = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        if not (depth[u] > NEAR_PLANE and depth[v] > NEAR_PLANE):
            continue
        if b < 0:
            marks[e] = 1
            continue
        x, y = pixels[u, 0], pixels[u, 1]
        along_x, along_y = pixels[v, 0] - x, pixels[v, 1] - y
        side_a = along_x * (pixels[a, 1] - y) - along_y * (pixels[a, 0] - x)
        side_b = along_x * (pixels[b, 1] - y) - along_y * (pixels[b, 0] - x)
        if side_a * side_b >= 0:
            marks[e] = 1


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _find_along(pixels, depth, ends, face_id, z_image, axis, best):
    """Fills best [H * W] with the outermost crossing edge (its row of `ends`) of each first pixel, -1 where none.

    Returns near_first [H * W]. axis 0: horizontal neighbours and steep edges; axis 1: vertical ones and flat edges.
    """
    height, width = face_id.shape
    across = 1 - axis
    lines, cells = (height, width) if axis == 0 else (width, height)
    reaches, near_first = np.empty(height * width), np.empty(height * width, np.bool_)
    for k in range(ends.shape[0]):
        u, v = ends[k, 0], ends[k, 1]
        from_line, to_line = np.float64(pixels[u, across]), np.float64(pixels[v, across])
        from_cell, to_cell = np.float64(pixels[u, axis]), np.float64(pixels[v, axis])
        rise, run = abs(to_line - from_line), abs(to_cell - from_cell)
        if rise < run or (axis == 1 and rise == run):
            continue
        low, high = math.ceil(min(from_line, to_line) - 0.5), math.ceil(max(from_line, to_line) - 0.5)
        for line in range(max(low, 0), min(high, lines)):
            t = (line + 0.5 - from_line) / (to_line - from_line)
            position = from_cell + t * (to_cell - from_cell)
            if not 0.5 <= position < cells - 0.5:
                continue
            cell = int(math.floor(position - 0.5))
            row, column = (line, cell) if axis == 0 else (cell, line)
            next_row, next_column = row + axis, column + 1 - axis
            if face_id[row, column] == face_id[next_row, next_column]:
                continue
            z_first = z_image[row, column] if face_id[row, column] >= 0 else np.inf
            z_second = z_image[next_row, next_column] if face_id[next_row, next_column] >= 0 else np.inf
            near, far = min(z_first, z_second), max(z_first, z_second)
            z_edge = 1.0 / ((1.0 - t) / depth[u] + t / depth[v])
            if not far - near > 0.5 * DEPTH_TOLERANCE * near or z_edge < near * (1.0 - DEPTH_TOLERANCE):
                continue
            if z_edge > far * (1.0 - 0.25 * DEPTH_TOLERANCE):
                continue
            offset = position - (cell + 0.5)
            reach = offset if z_first < z_second else 1.0 - offset
            first = row * width + column
            if best[first] < 0 or reach > reaches[first]:
                best[first], reaches[first], near_first[first] = k, reach, z_first < z_second
    return near_first


def find_crossings(
    pixels: torch.Tensor, depth: torch.Tensor, edges: torch.Tensor, face_id: torch.Tensor, z_image: torch.Tensor
) -> tuple[Crossings, Crossings]:
    """Same as `silhouettes.find_crossings`, of the same shapes (pixels [V, 2], face_id [H, W]), for CPU tensors."""
    pixel_array, depth_array = pixels.detach().contiguous().numpy(), depth.detach().contiguous().numpy()
    marks = np.zeros(len(edges), np.uint8)
    run_parallel(_mark_silhouettes, len(edges), pixel_array, depth_array, edges.numpy(), marks)
    ends = edges[:, :2][torch.from_numpy(np.flatnonzero(marks))].contiguous()
    found = []
    for axis in (0, 1):
        best = np.full(face_id.numel(), -1, np.int64)
        near_first = _find_along(pixel_array, depth_array, ends.numpy(), face_id.numpy(), z_image.numpy(), axis, best)
        first = np.flatnonzero(best >= 0)
        u, v = ends[torch.from_numpy(best[first])].unbind(1)
        found.append(Crossings(u, v, torch.from_numpy(first), torch.from_numpy(near_first[first])))
    return found[0], found[1]
