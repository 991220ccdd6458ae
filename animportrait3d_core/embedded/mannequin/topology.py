"""Connectivity of the skin: which grid points are vertices, the triangles between them, slits, ear openings.

A vertex of the grid is addressed by (row, column) with column -57..58: negative columns lie on the subject's right.
Eyes and mouth are slits: between its two ends a slit row carries every vertex twice, once for the skin above and once
for the skin below.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from .layout import FRONT_COLUMNS, LAST_COLUMN, RayGrid, cast, ray_grid
from .parameters import SCULPT_COUNT

Key = tuple[int, int, bool]  # row, column, lower side of a slit
EAR_COLUMNS = (FRONT_COLUMNS + 4, FRONT_COLUMNS + 7)
EAR_ROWS_DEGREES = (14.0, -34.0)


@dataclass(frozen=True)
class Slit:
    """One slit, from the subject's right to left: vertices above and below share their first and last entry."""

    name: str
    row: int
    columns: np.ndarray
    upper: np.ndarray
    lower: np.ndarray

    @property
    def loop(self) -> np.ndarray:
        """Closed loop of the border: along the upper side, back along the lower side."""
        return np.concatenate([self.upper, self.lower[-2:0:-1]])


@dataclass(frozen=True)
class SkinTopology:
    """Skin vertices and triangles (wound outward), slits, ear openings and the graph Laplacian."""

    grid: RayGrid
    index: np.ndarray  # [rows, 2 * LAST_COLUMN] vertex of (row, column - FIRST), -1 where the grid point is dropped
    keys: np.ndarray  # [n, 3] row, column, below
    faces: np.ndarray
    face_cell: np.ndarray  # [F] column of the cell, to place the texture seam
    slits: dict[str, Slit]
    ear_loops: dict[str, np.ndarray]
    adjacency: sparse.csr_matrix
    pole: int

    @property
    def count(self) -> int:
        return len(self.keys)

    def at(self, row: int, column: int) -> int:
        return int(self.index[row, column + LAST_COLUMN - 1])


def coarse_rows(grid: RayGrid) -> tuple[int, int]:
    """Rows above the first and below the second keep only every second front column."""
    top, bottom = grid.marks["hairline"] + 2, grid.marks["throat"] + 2
    return top - top % 2, bottom + bottom % 2


def _is_kept(row: int, column: int, top: int, bottom: int) -> bool:
    column = abs(column)
    if column <= FRONT_COLUMNS:
        return top <= row <= bottom or column % 2 == 0
    return not (top < row < bottom) or row % 2 == 0


def _cells(grid: RayGrid) -> list[tuple[int, int, int, int]]:
    """Cells (row0, row1, column0, column1) of the left half."""
    top, bottom = coarse_rows(grid)
    cells = []
    for row in range(grid.rows - 1):
        dense = top <= row < bottom
        step = 1 if dense else 2
        cells += [(row, row + 1, column, column + step) for column in range(0, FRONT_COLUMNS, step)]
        if dense and row % 2 == 1:
            continue
        cells += [(row, row + (2 if dense else 1), c, c + 1) for c in range(FRONT_COLUMNS, LAST_COLUMN)]
    return cells


def ear_rows(grid: RayGrid) -> tuple[int, int]:
    """First and last row (both even) of the opening that the ear closes."""
    points = grid.directions[:, EAR_COLUMNS[0] + 2]
    elevation = np.rad2deg(np.arcsin(points[:, 1]))
    first = int(np.argmin(np.abs(elevation - EAR_ROWS_DEGREES[0])))
    last = int(np.argmin(np.abs(elevation - EAR_ROWS_DEGREES[1])))
    return first - first % 2, last + last % 2


def _polygon(cell: tuple[int, int, int, int], grid: RayGrid, slit_spans: list[tuple[int, int, int]]) -> list[Key]:
    """Corners of a cell, counter-clockwise seen from outside, with the kept points between them."""
    row0, row1, column0, column1 = cell
    top, bottom = coarse_rows(grid)
    ring = [(row0, column) for column in range(column1, column0, -1)]
    ring += [(row, column0) for row in range(row0, row1)]
    ring += [(row1, column) for column in range(column0, column1)]
    ring += [(row, column1) for row in range(row1, row0, -1)]

    def below(row: int, column: int) -> bool:
        return row == row0 and any(row == r and a < column < b for r, a, b in slit_spans)

    return [(row, column, below(row, column)) for row, column in ring if _is_kept(row, column, top, bottom)]


def _triangles(polygon: list[Key], point) -> list[tuple[Key, Key, Key]]:
    """Quads along one diagonal unless the other is clearly shorter; larger polygons as a fan from a side point.

    Beside the middle line, where both halves meet, diagonals alternate from row to row: otherwise every vertex there
    would belong to more triangles above than below, and its normal would show as a line.
    """
    count = len(polygon)
    if count == 4:
        a, b, c, d = (point(key) for key in polygon)
        start = 0 if np.sum((a - c) ** 2) <= 1.3 * np.sum((b - d) ** 2) else 1
        if any(key[1] in (0, LAST_COLUMN) for key in polygon):
            top, height = polygon[0][0], polygon[2][0] - polygon[0][0]
            start = (top // height + 1) % 2
    else:
        rows, columns = {k[0] for k in polygon}, {k[1] for k in polygon}
        corner = {(r, c) for r in (min(rows), max(rows)) for c in (min(columns), max(columns))}
        start = next(i for i, key in enumerate(polygon) if key[:2] not in corner)
    ring = polygon[start:] + polygon[:start]
    return [(ring[0], ring[i], ring[i + 1]) for i in range(1, count - 1)]


def _mirror(key: Key) -> Key:
    row, column, below = key
    return row, (-column if column < LAST_COLUMN else column), below


def _half_triangles(grid: RayGrid, template: np.ndarray) -> list[tuple[Key, Key, Key]]:
    eye, mouth = grid.marks["eye"], grid.marks["mouth"]
    spans = [(eye, *grid.eye_columns), (mouth, -grid.mouth_column, grid.mouth_column)]
    first, last = ear_rows(grid)
    triangles = []
    for cell in _cells(grid):
        row0, row1, column0, column1 = cell
        if first <= row0 and row1 <= last and EAR_COLUMNS[0] <= column0 and column1 <= EAR_COLUMNS[1]:
            continue
        polygon = _polygon(cell, grid, spans)
        triangles += _triangles(polygon, lambda key: template[key[0], abs(key[1])])
    return triangles


def _graph(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """Symmetric 0/1 adjacency of the vertices."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    graph = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    graph.data[:] = 1.0
    return graph


def _pairs(ring: list[int]) -> list[tuple[int, int]]:
    return list(zip(ring, ring[1:] + ring[:1], strict=True))


def _slit(name: str, row: int, columns: np.ndarray, number: dict[Key, int]) -> Slit:
    upper = np.array([number[row, int(c), False] for c in columns])
    lower = np.array([number.get((row, int(c), True), number[row, int(c), False]) for c in columns])
    return Slit(name, row, columns, upper, lower)


def _ear_loop(grid: RayGrid, number: dict[Key, int], side: int) -> np.ndarray:
    """Border of the ear opening: from the front upper corner down the front, along the bottom, up the back, home."""
    first, last = ear_rows(grid)
    front, back = EAR_COLUMNS
    ring = [(row, front) for row in range(first, last, 2)]
    ring += [(last, column) for column in range(front, back)]
    ring += [(row, back) for row in range(last, first, -2)]
    ring += [(first, column) for column in range(back, front, -1)]
    return np.array([number[row, side * column, False] for row, column in ring])


@lru_cache(maxsize=1)
def skin_topology() -> SkinTopology:
    """Built once; the same for every identity."""
    grid = ray_grid()
    template = grid.origins + grid.directions * cast(grid.origins, grid.directions, np.zeros(SCULPT_COUNT))[..., None]
    half = _half_triangles(grid, template)
    triangles = half + [tuple(_mirror(key) for key in reversed(triangle)) for triangle in half]
    keys = sorted({key for triangle in triangles for key in triangle}, key=lambda key: (key[2], key[0], key[1]))
    number = {key: i for i, key in enumerate(keys)}
    faces = [[number[key] for key in triangle] for triangle in triangles]
    cells = [max((key[1] for key in triangle), key=abs) for triangle in triangles]
    cells = [c if i < len(half) or c < LAST_COLUMN else -c for i, c in enumerate(cells)]
    pole = len(keys)
    crown = [number[key] for key in keys if key[0] == 0]
    faces += [[pole, a, b] for a, b in _pairs(crown)]
    cells += [int(keys[b][1]) if keys[a][1] == LAST_COLUMN else int(keys[a][1]) for a, b in _pairs(crown)]
    index = np.full((grid.rows, 2 * LAST_COLUMN), -1)
    for (row, column, below), i in number.items():
        if not below:
            index[row, column + LAST_COLUMN - 1] = i
    eye, mouth, (inner, outer) = grid.marks["eye"], grid.marks["mouth"], grid.eye_columns
    slits = {
        "right_eye": _slit("right_eye", eye, np.arange(-outer, -inner + 1), number),
        "left_eye": _slit("left_eye", eye, np.arange(inner, outer + 1), number),
        "mouth": _slit("mouth", mouth, np.arange(-grid.mouth_column, grid.mouth_column + 1), number),
    }
    face_array = np.array(faces, dtype=np.int64)
    key_array = np.array([*keys, (0, 0, False)], dtype=np.int64)
    loops = {"right": _ear_loop(grid, number, -1), "left": _ear_loop(grid, number, 1)}
    graph = _graph(face_array, len(key_array))
    return SkinTopology(grid, index, key_array, face_array, np.array(cells), slits, loops, graph, pole)
