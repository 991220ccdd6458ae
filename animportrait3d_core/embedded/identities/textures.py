"""The texture atlas of an identity, painted procedurally: colour, relief, gloss; and its mip levels."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from ...kernels import numba
from ...render.threads import run_parallel
from ..mannequin import build_mannequin
from . import palette
from .atlas import CHANNELS, body_texels, chart_grid, texel_window
from .clothes import thread_lengths
from .eye_texture import paint_eye
from .figure import Figure, template_origin
from .hair import relief
from .hair_styles import STYLES
from .identity import Identity
from .locks import strand_seeds
from .looks import cloth_look, hair_look, iris_color, skin_paint
from .sheet_textures import paint_cloth, paint_collar, paint_hair, paint_knot, paint_locks
from .shells import chart_rows
from .skin_texture import LIP, TONE, paint_skin


@dataclasses.dataclass(frozen=True)
class _Texels:
    """Covered texels of a kind: flat index in the atlas [N], template position in mm [N, 3], piece code [N]."""

    index: np.ndarray
    points: np.ndarray
    pieces: np.ndarray

    def where(self, chosen: np.ndarray) -> _Texels:
        return _Texels(self.index[chosen], np.ascontiguousarray(self.points[chosen]), self.pieces[chosen])


@lru_cache(maxsize=3)
def _bust_texels(size: int) -> tuple[_Texels, _Texels]:
    """Texels of the bare bust: those painted as skin, and those of eyes, teeth and mouth."""
    body = build_mannequin()
    face, barycentric, _ = body_texels(size)
    index = np.flatnonzero(face.reshape(-1) >= 0)
    faces = face.reshape(-1)[index]
    corners = body.vertices[body.faces[faces]]
    points = np.einsum("nk,nkc->nc", barycentric.reshape(-1, 3)[index], corners)
    texels = _Texels(index, (points - template_origin()) * 1e3, body.face_parts[faces])
    skin_like = np.isin(texels.pieces, [body.part_names.index(name) for name in ("skin", "ear", "lid_rim")])
    return texels.where(skin_like), texels.where(~skin_like)


def paint_atlas(identity: Identity, figure: Figure, size: int) -> np.ndarray:
    """The atlas [size, size, 5] float32 of an identity: sRGB-coded colour 0..1, relief (mm), gloss 0..1."""
    skin, inside = _bust_texels(size)
    names = build_mannequin().part_names
    paint = skin_paint(identity, pores=size >= 1024)
    flat = np.zeros((size * size, CHANNELS), np.float32)
    painted = np.empty((len(skin.index), CHANNELS), np.float32)
    paint_skin(skin.points, paint, painted)
    rim = np.flatnonzero(skin.pieces == names.index("lid_rim"))
    painted[rim] *= 0.45
    painted[rim, :3] += 0.55 * np.asarray(palette.LID_RIM) * (0.45 + 0.55 * paint.colors[TONE])
    painted[rim, 3:] = (0.0, 0.8)
    flat[skin.index] = painted
    flat[inside.index] = _inside_paint(inside.points, inside.pieces, paint.colors[LIP], names)
    atlas = flat[body_texels(size)[2]].reshape(size, size, CHANNELS)
    for name, side in (("left_eye", 1), ("right_eye", 2)):
        rows, columns = texel_window(name, size)
        eye = np.empty((rows.stop - rows.start, columns.stop - columns.start, CHANNELS), np.float32)
        paint_eye(iris_color(identity), identity.seed % 977 + side, paint.look.age, eye)
        atlas[rows, columns] = eye
    _paint_sheets(atlas, identity, figure, size)
    atlas[texel_window("lash", size)] = (*palette.LASH, 0.0, 0.2)
    return atlas


def _inside_paint(points: np.ndarray, pieces: np.ndarray, lip: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Paint [N, 5] of teeth, gums, tongue and mouth from their place; the dark of the cavity lies in the colour."""
    x, y, z = points.T
    out = np.zeros((len(points), CHANNELS))
    behind = np.clip((74.0 - z) / 34.0, 0, 1)[:, None]
    tooth, gum, tongue = (pieces == names.index(name) for name in ("teeth", "gum", "tongue"))
    shade = 1 - 0.72 * behind
    near_gum = np.clip(1 - np.minimum(np.abs(y + 66.8), np.abs(y + 87.2)) / 3.5, 0, 1)[:, None]
    enamel = np.asarray(palette.TEETH) * (1 - 0.10 * near_gum * np.array([0.4, 0.8, 1.6]))
    out[:, :3] = np.where(tooth[:, None], enamel * shade, out[:, :3])
    out[:, :3] = np.where(gum[:, None], np.asarray(palette.GUM) * shade, out[:, :3])
    rough = 0.9 + 0.2 * np.sin(x * 2.9 + 1.3 * np.sin(z * 1.7)) * np.sin(z * 2.3 + y)
    out[:, :3] = np.where(tongue[:, None], np.asarray(palette.TONGUE) * shade * rough[:, None] ** 0.3, out[:, :3])
    bag = ~(tooth | gum | tongue)
    depth = np.clip((86.0 - z - 0.012 * x * x) / 16.0, 0, 1)[:, None]
    wet = np.asarray(lip) * 0.82 * (1 - depth) + np.asarray(palette.MOUTH_DEPTH) * depth
    deep = np.clip((70.0 - z) / 40.0, 0, 1)[:, None]
    out[:, :3] = np.where(bag[:, None], wet * (1 - 0.85 * deep), out[:, :3])
    out[:, 4] = np.where(tooth, 0.9, 0.6) * (1 - behind[:, 0])
    return out


def _chart_fields(fields: np.ndarray, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the fields [R, C, k] (position in mm first) at every texel centre of a chart: [H], [W]."""
    across, down = chart_grid(name, size)
    rows = chart_rows(fields[..., :3], (0, len(fields) - 1))
    return np.interp(down, rows, np.arange(len(rows))), np.clip(across, 0, 1) * (fields.shape[1] - 1)


def _paint_sheets(atlas: np.ndarray, identity: Identity, figure: Figure, size: int) -> None:
    """Paint hair, locks, knot, cloth and collar into their windows of the atlas."""
    look = hair_look(identity)
    style = STYLES[identity.attributes.hair_style]
    if figure.hair is not None and look is not None and style is not None:
        low, high = figure.hair.rows
        points = figure.hair.points[low : high + 1]
        extra = np.stack([figure.hair.mask[low : high + 1], relief(points, style, identity.seed + 17)], axis=-1)
        fields = np.ascontiguousarray(np.concatenate([points, extra], axis=-1))
        window = np.empty_like(atlas[texel_window("hair", size)])
        run_parallel(paint_hair, len(window), fields, *_chart_fields(fields, "hair", size), look, window)
        atlas[texel_window("hair", size)] = window
        if figure.locks is not None:
            window = np.empty_like(atlas[texel_window("locks", size)])
            paint_locks(look, strand_seeds(figure.locks, style), window)
            atlas[texel_window("locks", size)] = window
        if style.knot != "none":
            window = np.empty_like(atlas[texel_window("knot", size)])
            paint_knot(look, 210.0, 190.0 if style.knot == "ponytail" else 90.0, window)
            atlas[texel_window("knot", size)] = window
    cloth = cloth_look(identity)
    low, high = figure.cloth.rows
    points = figure.cloth.points[low : high + 1]
    fields = np.ascontiguousarray(np.concatenate([points, thread_lengths(points)], axis=-1))
    window = np.empty_like(atlas[texel_window("cloth", size)])
    run_parallel(paint_cloth, len(window), fields, *_chart_fields(fields, "cloth", size), cloth, window)
    atlas[texel_window("cloth", size)] = window
    if figure.cloth.collar:
        window = np.empty_like(atlas[texel_window("collar", size)])
        paint_collar(cloth, figure.cloth.collar[0].length, window)
        atlas[texel_window("collar", size)] = window


@numba.njit(cache=True)
def _halve(fine, coarse):
    for i in range(coarse.shape[0]):
        for j in range(coarse.shape[1]):
            for k in range(coarse.shape[2]):
                coarse[i, j, k] = 0.25 * (
                    fine[2 * i, 2 * j, k] + fine[2 * i, 2 * j + 1, k]
                    + fine[2 * i + 1, 2 * j, k] + fine[2 * i + 1, 2 * j + 1, k]
                )  # fmt: skip


_TABLE_STEPS = 8192


@lru_cache(maxsize=1)
def _linear_table() -> np.ndarray:
    """Linear light of sRGB-coded 0..1 in equal steps; between two the error of a straight line is below 1e-8."""
    coded = np.linspace(0.0, 1.0, _TABLE_STEPS + 1)
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


@numba.njit(cache=True, fastmath=True)
def _to_linear(atlas, table, out):
    for i in range(atlas.shape[0]):
        for j in range(atlas.shape[1]):
            for k in range(3):
                place = min(1.0, max(0.0, atlas[i, j, k])) * _TABLE_STEPS
                low = min(int(place), _TABLE_STEPS - 1)
                out[i, j, k] = table[low] + (table[low + 1] - table[low]) * (place - low)
            for k in range(3, atlas.shape[2]):
                out[i, j, k] = atlas[i, j, k]


def mip_levels(atlas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels of an atlas in linear light, one behind the other: texels [N, 5] float32 and each level's start [L].

    Level k has size / 2^k texels a side; the smallest has at least 16.
    """
    level = np.empty_like(atlas)
    _to_linear(atlas, _linear_table(), level)
    levels, starts, total = [], [], 0
    while True:
        starts.append(total)
        levels.append(level.reshape(-1, level.shape[2]))
        total += level.shape[0] ** 2
        if level.shape[0] % 2 or level.shape[0] < 32:
            break
        coarse = np.empty((level.shape[0] // 2, level.shape[1] // 2, level.shape[2]), np.float32)
        _halve(level, coarse)
        level = coarse
    return np.concatenate(levels), np.array(starts)
