"""The ray grid: from where and in which direction the skin is sampled, and which grid points become vertices.

Rows run from the crown to the chest, columns from the middle of the face (column 0) round to the back of the head.
Only the subject's left half is described; the right half is its mirror image (column -c). The grid is dense on the
face, drops every second column on scalp and neck, and every second row behind the cheeks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...body.shape_grids import smoothstep
from . import distance
from .parameters import SCULPT_COUNT

FRONT_COLUMNS = 42
FRONT_LIMIT_DEGREES = 64.0
# The columns behind the front half (degrees); the ear sits between the fourth and the seventh.
BACK_DEGREES = (68.0, 72.8, 78.2, 84.0, 94.0, 104.0, 113.0, 125.5, 139.0, 152.5, 166.0, 180.0)
LAST_COLUMN = FRONT_COLUMNS + len(BACK_DEGREES)  # the column at the back of the head, its own mirror image

# rows to the next knot, height of the ray origin (mm), ray elevation (degrees) at front, back and side
ROW_KNOTS: tuple[tuple[str, int, float, float, float, float], ...] = (
    ("crown", 7, 0, 84, 84, 84),
    ("hairline", 7, 0, 44, 46, 46),
    ("brow", 10, 0, 18.5, 16, 14),
    ("eye", 9, 0, 1.2, 2, 0),
    ("cheek", 6, 0, -11, -5.5, -9),
    ("nose_tip", 5, 0, -20.0, -11, -16),
    ("nose_under", 8, 0, -25.2, -15, -21),
    ("nose_base", 8, 0, -30.6, -19, -26),
    ("mouth", 9, 0, -37.2, -26, -36),
    ("lip_bottom", 6, 0, -43.5, -32, -44),
    ("chin", 4, 0, -54.0, -38, -51),
    ("throat", 4, -38, -56, -29, -46),
    ("neck", 5, -112, -36, -12, -20),
    ("collar", 4, -174, -28, -4, -8),
    ("shoulder", 4, -230, -8, 6, 9),
    ("chest", 1, -300, -9, -8, -3),
    ("bottom", 0, -345, -18, -18, -10),
)
# Columns of the front half, as (share of the columns, degrees): one profile for the height of the eyes, one for mouth.
EYE_PROFILE = ((0.0, 0.0), (8.0, 11.0), (12.0, 15.5), (35.0, 42.5), (FRONT_COLUMNS, FRONT_LIMIT_DEGREES))
MOUTH_PROFILE = ((0.0, 0.0), (21.0, 18.0), (30.0, 32.0), (FRONT_COLUMNS, FRONT_LIMIT_DEGREES))
EYE_CORNERS = (17.6, 46.4)  # inner and outer canthus, mm from the middle
MOUTH_CORNER = 25.0


@dataclass(frozen=True)
class RayGrid:
    """Rays of the left half: origins, directions [rows, LAST_COLUMN + 1, 3] in mm; marks: knot name -> row."""

    origins: np.ndarray
    directions: np.ndarray
    marks: dict[str, int]
    eye_columns: tuple[int, int]
    mouth_column: int

    @property
    def rows(self) -> int:
        return self.origins.shape[0]


def row_table() -> tuple[np.ndarray, dict[str, int]]:
    """Origin height and elevations per row [rows, 4], smoothed along the rows, and the row of every knot."""
    marks: dict[str, int] = {}
    rows: list[np.ndarray] = []
    for (name, count, *start), (_, _, *end) in zip(ROW_KNOTS[:-1], ROW_KNOTS[1:], strict=True):
        marks[name] = len(rows)
        for step in range(count):
            rows.append(np.asarray(start) + (np.asarray(end) - np.asarray(start)) * step / count)
    marks[ROW_KNOTS[-1][0]] = len(rows)
    rows.append(np.asarray(ROW_KNOTS[-1][2:]))
    table = np.array(rows, dtype=np.float64)
    pinned = [marks[name] for name in ("eye", "mouth")]
    for _ in range(6):
        smoothed = table.copy()
        smoothed[1:-1] = 0.25 * table[:-2] + 0.5 * table[1:-1] + 0.25 * table[2:]
        smoothed[pinned] = table[pinned]
        table = smoothed
    return table, marks


def _smooth_profile(knots: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Azimuth (degrees) per front column from (column, degrees) knots, monotone and without kinks."""
    columns = np.arange(FRONT_COLUMNS + 1, dtype=np.float64)
    azimuth = np.interp(columns, *np.array(knots).T)
    for _ in range(5):
        azimuth[1:-1] = 0.25 * azimuth[:-2] + 0.5 * azimuth[1:-1] + 0.25 * azimuth[2:]
    return azimuth


def column_azimuths(marks: dict[str, int], rows: int) -> np.ndarray:
    """Azimuth [rows, LAST_COLUMN + 1] in radians; the front columns gather at eyes and mouth in turn."""
    eye, mouth = _smooth_profile(EYE_PROFILE), _smooth_profile(MOUTH_PROFILE)
    toward_mouth = np.interp(np.arange(rows), [marks["eye"] + 5, marks["nose_tip"]], [0.0, 1.0])
    toward_mouth = toward_mouth**2 * (3 - 2 * toward_mouth)
    front = eye[None] * (1 - toward_mouth[:, None]) + mouth[None] * toward_mouth[:, None]
    return np.deg2rad(np.concatenate([front, np.broadcast_to(BACK_DEGREES, (rows, len(BACK_DEGREES)))], axis=1))


def _directions(table: np.ndarray, azimuth: np.ndarray, extra_elevation: np.ndarray) -> np.ndarray:
    front, back, side = (np.deg2rad(table[:, k : k + 1]) for k in (1, 2, 3))
    cosine = np.cos(azimuth)
    elevation = side + 0.5 * (front - back) * cosine + (0.5 * (front + back) - side) * cosine**2 + extra_elevation
    return np.stack([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), cosine * np.cos(elevation)], axis=-1)


def eye_line(x: np.ndarray) -> np.ndarray:
    """Height (mm) of the closed lid line over |x|: it sags between the corners, the outer corner lies higher."""
    inner, outer = EYE_CORNERS
    share = np.clip((np.abs(x) - inner) / (outer - inner), 0, 1)
    ends = 0.2 + 1.6 * share
    return ends - 2.8 * (4 * share * (1 - share)) ** 0.8


def mouth_line(x: np.ndarray) -> np.ndarray:
    """Height (mm) of the seam of the closed lips over |x|: tubercle in the middle, a dip beside it, corners level."""
    share = np.minimum(np.abs(x) / MOUTH_CORNER, 1.0)
    return -74.3 - 0.9 * np.exp(-((share / 0.16) ** 2)) + 0.7 * np.exp(-(((share - 0.42) / 0.22) ** 2)) - 0.5 * share**2


def _line_correction(points: np.ndarray, row: int, target: np.ndarray, reach: float) -> np.ndarray:
    """Extra elevation (radians) [rows, columns] that brings one row onto a target height, fading over `reach` rows."""
    span = np.linalg.norm(points[row][:, [0, 2]], axis=1)
    current = np.arctan2(points[row, :, 1], span)
    change = np.arctan2(target, span) - current
    fade = np.exp(-(((np.arange(points.shape[0]) - row) / reach) ** 2))
    return fade[:, None] * change[None]


@lru_cache(maxsize=1)
def ray_grid() -> RayGrid:
    """The fixed rays of all identities; two correction passes lay the slit rows onto lid line and lip seam."""
    table, marks = row_table()
    rows = len(table)
    azimuth = column_azimuths(marks, rows)
    origins = np.zeros((rows, LAST_COLUMN + 1, 3))
    origins[..., 1] = table[:, :1]
    origins[..., 2] = -30.0 * np.clip(-table[:, :1] / 60.0, 0, 1)
    extra = np.zeros_like(azimuth)
    template = np.zeros(SCULPT_COUNT)
    near_front = np.clip((np.deg2rad(60) - azimuth) / np.deg2rad(12), 0, 1)
    for _ in range(3):
        directions = _directions(table, azimuth, extra)
        points = origins + directions * cast(origins, directions, template)[..., None]
        eye, mouth = marks["eye"], marks["mouth"]
        x = points[..., 0]
        to_lids = _line_correction(points, eye, eye_line(x[eye]), 7.0)
        to_lips = _line_correction(points, mouth, mouth_line(x[mouth]), 6.0)
        extra = extra + near_front * (to_lids + to_lips * (1 - smoothstep(27.0, 50.0, x[mouth])))
    directions = _directions(table, azimuth, extra)
    points = origins + directions * cast(origins, directions, template)[..., None]
    near = [int(np.argmin(np.abs(points[marks["eye"], :FRONT_COLUMNS, 0] - corner))) for corner in EYE_CORNERS]
    mouth_column = int(np.argmin(np.abs(points[marks["mouth"], :FRONT_COLUMNS, 0] - MOUTH_CORNER)))
    return RayGrid(origins, directions, marks, (near[0], near[1]), mouth_column)


def cast(origins: np.ndarray, directions: np.ndarray, sculpt: np.ndarray) -> np.ndarray:
    """Ray lengths [rows, columns] for one set of SCULPT parameters."""
    lengths = distance.cast_rays(
        np.ascontiguousarray(origins.reshape(-1, 3)), np.ascontiguousarray(directions.reshape(-1, 3)), sculpt
    )
    return lengths.reshape(origins.shape[:-1])
