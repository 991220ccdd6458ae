"""Numba z-buffer: face ids, perspective-correct barycentrics and depth, in parallel over bands of rows.

Coverage is tested in sheared camera space: with d the ray of a pixel at depth 1, u_i = v_i.xy - d.xy v_i.z is the
offset of vertex i from the ray, and the perspective-correct barycentrics are proportional to the 2D cross products
u_j x u_k (Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997). That needs no clipping:
faces that cross the camera plane are right as well. The products of two faces that share an edge are exact negatives of
each other, so no pixel between them is lost; a pixel exactly on the edge goes to the nearer face, then the lower id.
The twin is `torch_mesh.py`.
"""

from __future__ import annotations

import numpy as np

from ..kernels import numba
from .scene import NEAR_PLANE
from .threads import run_parallel

_BAND_ROWS = 8
_FACE_CHUNK = 8192
_SLACK = 1e-3  # pixels; keeps a pixel centre that lies exactly on a box's side inside in spite of rounding
_INWARD, _OUTWARD = np.float32(0.5 + _SLACK), np.float32(0.5 - _SLACK)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _to_camera(vertices, camera, points, pixels, begin, end):
    """Camera-space points [V, 3] float64, and [V, 3] float32 pixel x, y (meaningless behind the camera) and depth."""
    for v in range(begin, end):
        x, y, z = np.float64(vertices[v, 0]), np.float64(vertices[v, 1]), np.float64(vertices[v, 2])
        for row in range(3):
            points[v, row] = camera[3 * row] * x + camera[3 * row + 1] * y + camera[3 * row + 2] * z + camera[9 + row]
        pixels[v, 0] = camera[12] * points[v, 0] / points[v, 2] + camera[14]
        pixels[v, 1] = camera[13] * points[v, 1] / points[v, 2] + camera[15]
        pixels[v, 2] = points[v, 2]


@numba.njit(error_model="numpy")
def _clipped_bounds(face, points, camera):
    """Pixel bounds (x0, x1, y0, y1) of the part of a face beyond the near plane."""
    x0, x1, y0, y1 = np.float32(np.inf), np.float32(-np.inf), np.float32(np.inf), np.float32(-np.inf)
    for i in range(3):
        first, second = points[face[i]], points[face[(i + 1) % 3]]
        here, there = first[2] - NEAR_PLANE, second[2] - NEAR_PLANE
        for end in range(2):  # the corner itself, then where its edge meets the plane
            t = 0.0
            if end == 1 and here * there < 0.0:
                t = here / (here - there)
            elif end == 1 or here < 0.0:
                continue
            z = max(first[2] + t * (second[2] - first[2]), NEAR_PLANE)
            x = np.float32(camera[12] * (first[0] + t * (second[0] - first[0])) / z + camera[14])
            y = np.float32(camera[13] * (first[1] + t * (second[1] - first[1])) / z + camera[15])
            x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
    return x0, x1, y0, y1


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _find_boxes(faces, projected, camera, size, boxes, counts, begin, end):
    """Inclusive pixel boxes (x0, y0, x1, y1) of the faces of chunks begin..end, [F, 4], with y0 > y1 where no pixel
    centre is covered, and how many faces of a chunk touch a band, counts [chunks, bands].

    Written without helpers and row views: at some 15 ns per face, a call with arrays would double the time.
    """
    points, pixels = projected
    width, height = np.float32(size[0]), np.float32(size[1])
    near, zero, one = np.float32(NEAR_PLANE), np.float32(0), np.float32(1)
    for chunk in range(begin, end):
        for f in range(chunk * _FACE_CHUNK, min(faces.shape[0], (chunk + 1) * _FACE_CHUNK)):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            boxes[f, 1], boxes[f, 3] = 1, 0
            ax, ay, az = pixels[a, 0], pixels[a, 1], pixels[a, 2]
            bx, by, bz = pixels[b, 0], pixels[b, 1], pixels[b, 2]
            cx, cy, cz = pixels[c, 0], pixels[c, 1], pixels[c, 2]
            x0, x1, y0, y1 = min(min(ax, bx), cx), max(max(ax, bx), cx), min(min(ay, by), cy), max(max(ay, by), cy)
            if min(min(az, bz), cz) <= near:
                if max(max(az, bz), cz) <= near:
                    continue
                x0, x1, y0, y1 = _clipped_bounds(faces[f], points, camera)
            left, right = np.ceil(x0 - _INWARD), np.floor(x1 - _OUTWARD)
            top, bottom = np.ceil(y0 - _INWARD), np.floor(y1 - _OUTWARD)
            if left <= right and top <= bottom and left < width and top < height and right >= zero and bottom >= zero:
                boxes[f, 0], boxes[f, 1] = max(left, zero), max(top, zero)
                boxes[f, 2], boxes[f, 3] = min(right, width - one), min(bottom, height - one)
                for band in range(boxes[f, 1] // _BAND_ROWS, boxes[f, 3] // _BAND_ROWS + 1):
                    counts[chunk, band] += 1


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _fill_bands(boxes, cursor, members, begin, end):
    """Writes the faces of chunks begin..end into their bands at cursor [chunks, bands], in ascending order."""
    for chunk in range(begin, end):
        for f in range(chunk * _FACE_CHUNK, min(boxes.shape[0], (chunk + 1) * _FACE_CHUNK)):
            if boxes[f, 1] <= boxes[f, 3]:
                for band in range(boxes[f, 1] // _BAND_ROWS, boxes[f, 3] // _BAND_ROWS + 1):
                    members[cursor[chunk, band]] = f
                    cursor[chunk, band] += 1


def _bin_faces(faces, projected, camera, size):
    """Faces per band of rows: (starts [bands + 1], face ids in ascending order within a band, boxes [F, 4])."""
    bands, chunks = -(-size[1] // _BAND_ROWS), -(-len(faces) // _FACE_CHUNK)
    boxes, counts = np.empty((len(faces), 4), np.int32), np.zeros((chunks, bands), np.int64)
    run_parallel(_find_boxes, chunks, faces, projected, camera, size, boxes, counts)
    ends = np.cumsum(counts.T).reshape(bands, chunks).T  # band by band, and within a band chunk by chunk
    members = np.empty(int(ends[-1, -1]), np.int32)
    run_parallel(_fill_bands, chunks, boxes, np.ascontiguousarray(ends - counts), members)
    return np.concatenate([[0], ends[-1]]), members, boxes


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _draw_bands(faces, points, camera, bins, outputs, begin, end):
    """Fills one camera's face_id [H, W], barycentric [H, W, 3] (zero on entry) and depth [H, W]."""
    starts, members, boxes = bins
    face_id, barycentric, depth = outputs
    height, width = face_id.shape
    ray_x = (np.arange(width) + 0.5 - camera[14]) / camera[12]
    for band in range(begin, end):
        first_row, last_row = band * _BAND_ROWS, min(height, (band + 1) * _BAND_ROWS) - 1
        for y in range(first_row, last_row + 1):
            for x in range(width):
                face_id[y, x] = -1
                depth[y, x] = np.inf
        for k in range(starts[band], starts[band + 1]):
            f = members[k]
            box = boxes[f]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
            bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
            cx, cy, cz = points[c, 0], points[c, 1], points[c, 2]
            for y in range(max(box[1], first_row), min(box[3], last_row) + 1):
                ray_y = (y + 0.5 - camera[15]) / camera[13]
                av, bv, cv = ay - ray_y * az, by - ray_y * bz, cy - ray_y * cz
                for x in range(box[0], box[2] + 1):
                    au, bu, cu = ax - ray_x[x] * az, bx - ray_x[x] * bz, cx - ray_x[x] * cz
                    wa, wb, wc = bu * cv - bv * cu, cu * av - cv * au, au * bv - av * bu
                    if min(min(wa, wb), wc) >= 0.0 or max(max(wa, wb), wc) <= 0.0:
                        total = wa + wb + wc
                        if total == 0.0:
                            continue
                        inverse = 1.0 / total
                        z = np.float32((wa * az + wb * bz + wc * cz) * inverse)
                        if z > NEAR_PLANE and z < depth[y, x]:
                            depth[y, x], face_id[y, x] = z, f
                            barycentric[y, x, 0], barycentric[y, x, 1] = wa * inverse, wb * inverse
                            barycentric[y, x, 2] = wc * inverse
        for y in range(first_row, last_row + 1):
            for x in range(width):
                if face_id[y, x] < 0:
                    depth[y, x] = 0.0


def draw_mesh(
    vertices: np.ndarray, faces: np.ndarray, cameras: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rasterises float32 vertices [1|B, V, 3] and faces [F, 3] (F > 0) for camera rows [B, 16]; see `MeshImage`."""
    width, height = size
    num_cameras, num_vertices = cameras.shape[0], vertices.shape[1]
    face_id = np.empty((num_cameras, height, width), np.int64)
    barycentric = np.zeros((num_cameras, height, width, 3), np.float32)
    depth = np.empty((num_cameras, height, width), np.float32)
    points, pixels = np.empty((num_vertices, 3)), np.empty((num_vertices, 3), np.float32)
    for b in range(num_cameras):
        run_parallel(_to_camera, num_vertices, vertices[b % len(vertices)], cameras[b], points, pixels)
        bins = _bin_faces(faces, (points, pixels), cameras[b], size)
        outputs = (face_id[b], barycentric[b], depth[b])
        run_parallel(_draw_bands, len(bins[0]) - 1, faces, points, cameras[b], bins, outputs)
    return face_id, barycentric, depth
