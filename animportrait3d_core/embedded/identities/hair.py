"""Hair geometry: a shell over the scalp, cut along its hairline, with a wall at the border, knots and loose locks."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...kernels import numba
from .hair_styles import STYLES, Curtain, HairStyle
from .noise import cells3, noise2, noise3, smoothstep
from .shells import Sheet, ShellGrid, clipped_sheet, hair_grid, join_sources, smooth_ramp, used_rows

RADIAL, PARTED, BACK = 0, 1, 2
FLOWS = {"radial": RADIAL, "parted": PARTED, "back": BACK}


@dataclasses.dataclass(frozen=True)
class HairShell:
    """The scalp shell of one identity and what its texture needs: sheet, wall included; fields on the grid.

    points [R, C + 1, 3], mask [R, C + 1]: the whole shell before the cut.  rows: the grid rows that the chart spans.
    """

    sheet: Sheet
    points: np.ndarray
    mask: np.ndarray
    rows: tuple[int, int]


def _interpolate(knots: tuple[tuple[float, float], ...], at: np.ndarray) -> np.ndarray:
    """Piecewise linear through knots of rising or falling abscissa."""
    table = np.array(sorted(knots))
    return np.interp(at, table[:, 0], table[:, 1])


def _softened(knots: tuple[tuple[float, float], ...], at: np.ndarray) -> np.ndarray:
    """Knots read through a window of 56 mm, so that hanging hair has no creases."""
    shifts = np.linspace(-28, 28, 9)
    weights = 1 - (shifts / 35) ** 2
    return sum(w * _interpolate(knots, at + s) for w, s in zip(weights, shifts)) / weights.sum()


def _rounded(knots: tuple[tuple[float, float], ...], at: np.ndarray, width: float) -> np.ndarray:
    """Knots with their corners rounded over `width`: the mean of five shifted readings."""
    return np.mean([_interpolate(knots, np.abs(at + width * shift)) for shift in (-1, -0.5, 0, 0.5, 1)], axis=0)


@numba.njit(cache=True, fastmath=True, forceinline=True)
def strand_coordinates(x: float, y: float, z: float, flow: int, part: float) -> tuple[float, float]:
    """Coordinates (across, along) of a point of the hair, about millimetres; strands are the lines of equal `across`.

    The seam of the angle lies where strands end (the back of a parting, under the knot).
    """
    if flow == PARTED:
        rho = np.sqrt((x - part) ** 2 + (z + 12.0) ** 2)
        # Beside the parting strands run straight across; where the head turns down they keep their azimuth.
        across = np.arccos(min(1.0, max(-1.0, (z + 12.0) / max(rho, 68.0))))
        side = 1.0 if x > part else -1.0
        return across * 95.0 + side * 2000.0, 122.0 - y + np.abs(x - part) * 0.6
    if flow == BACK:
        # spherical angle about the axis from the brow to the knot
        ay, az = 0.5, -0.866
        py, pz = y - 20.0, z + 12.0
        along = py * ay + pz * az
        v = -py * az + pz * ay
        return np.arctan2(x, -v) * 95.0, along
    return np.arctan2(x, z + 12.0) * 95.0, np.arccos(min(1.0, max(-1.0, (y - 20.0) / 125.0))) * 110.0


@numba.njit(cache=True, fastmath=True, forceinline=True)
def whorl_distance(x: float, y: float, z: float, flow: int) -> float:
    """Distance (mm) from where strands meet, at a whorl or behind it; far away if they do not."""
    if flow == PARTED:
        return 100.0
    if flow == BACK:
        below = -0.866 * (y - 20.0) - 0.5 * (z + 12.0)
    else:
        below = -(z + 12.0)
    axis = np.sqrt(x * x + below * below)
    # Behind, the angle around the axis jumps: strands of both sides meet there.
    return min(axis, 4.0 + 6.0 * abs(x)) if below > 0.0 else axis


@numba.njit(cache=True, fastmath=True)
def _relief(points, style, seed, out):
    """Height in -1..1 of locks or curls at every grid point; style = (flow, part, clump, curl)."""
    flow, part, clump, curl = int(style[0]), style[1], style[2], style[3]
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        across, along = strand_coordinates(x, y, z, flow, part)
        wander = 3.0 * (noise2(along / 35.0, across / 50.0, seed + 5) - 0.5)
        lock = noise2((across + wander) / clump, along / 70.0, seed)
        fine = noise2((across + wander) / (0.45 * clump), along / 60.0, seed + 1)
        straight = 1.35 * (0.68 * lock + 0.32 * fine - 0.5)
        if curl > 0.0:
            near, _ = cells3(x / clump, y / clump, z / clump, seed + 2)
            broad = noise3(x / 31.0, y / 31.0, z / 31.0, seed + 3) - 0.5
            straight = (1.0 - curl) * straight + curl * ((0.62 - near) * 1.1 + 0.8 * broad)
        if curl <= 0.0:
            straight *= smoothstep(4.0, 30.0, whorl_distance(x, y, z, flow))
        out[i] = straight


def relief(points: np.ndarray, style: HairStyle, seed: int) -> np.ndarray:
    """Relief [R, C] of the style at points [R, C, 3]."""
    flat = np.ascontiguousarray(points.reshape(-1, 3))
    out = np.empty(len(flat))
    _relief(flat, np.array([FLOWS[style.flow], style.part, style.clump, style.curl]), seed, out)
    return out.reshape(points.shape[:-1])


def _cap_length(grid: ShellGrid, style: HairStyle) -> np.ndarray:
    """Ray length of the smooth outer surface over the scalp, without curtain."""
    skin = grid.skin_points
    x, y, z = np.moveaxis(skin, -1, 0)
    front = np.exp(-(((z - 45) / 50) ** 2)) * smooth_ramp(40, 95, y)
    thickness = style.cap * (0.62 + 0.38 * smooth_ramp(-20, 80, y)) + style.lift * front
    if style.flow == "parted":
        groove = np.exp(-(((x - style.part) / 5.0) ** 2)) * smooth_ramp(-75, 0, z) * smooth_ramp(45, 75, y)
        lean = smooth_ramp(0, 40, (style.part - x) * np.sign(style.part)) if abs(style.part) > 18 else 0.0
        thickness = thickness * (1 - 0.55 * groove) + style.lift * 0.45 * front * lean
    if style.curl > 0.9:
        thickness = thickness * (0.5 + 0.5 * smooth_ramp(-60, 40, y))
    normal_share = 1.0
    return grid.skin_length + thickness * normal_share


def _curtain_length(grid: ShellGrid, curtain: Curtain) -> np.ndarray:
    """Ray length to the hanging hair's elliptical cross-section; solved by three fixed-point steps in height."""
    length = grid.skin_length + 10
    sine, cosine = np.sin(np.deg2rad(grid.azimuth)), np.cos(np.deg2rad(grid.azimuth))
    level = np.hypot(grid.directions[..., 0], grid.directions[..., 2])
    for _ in range(4):
        height = grid.origins[..., 1] + grid.directions[..., 1] * length
        width, depth = _softened(curtain.width, height), _softened(curtain.depth, height)
        offset = grid.origins[..., 2] + 12.0
        radius = 1 / np.sqrt((sine / width) ** 2 + (cosine / depth) ** 2) - offset * cosine
        length = 0.5 * length + 0.5 * radius / np.maximum(level, 0.25)
    return length


def _lobes(points: np.ndarray, style: HairStyle, seed: int) -> np.ndarray:
    """Offset [R, C] of the border in about -1..1, constant along strands: the points in which locks end."""
    flat = points.reshape(-1, 3)
    out = np.empty(len(flat))
    _lobe_kernel(np.ascontiguousarray(flat), np.array([FLOWS[style.flow], style.part, style.clump]), seed, out)
    return out.reshape(points.shape[:-1])


@numba.njit(cache=True, fastmath=True)
def _lobe_kernel(points, style, seed, out):
    for i in range(points.shape[0]):
        across, _ = strand_coordinates(points[i, 0], points[i, 1], points[i, 2], int(style[0]), style[1])
        broad = noise2(across / style[2], 0.5, seed + 11)
        narrow = noise2(across / (0.55 * style[2]), 7.5, seed + 12)
        out[i] = (broad - 0.5) * 1.3 + (narrow - 0.5) * 0.9


def build_hair_shell(style_name: str, seed: int, hairline_shift: float = 0.0) -> HairShell | None:
    """The scalp shell of a style; None for bald. `hairline_shift` raises the hairline of the forehead (mm)."""
    style = STYLES[style_name]
    if style is None:
        return None
    grid = hair_grid()
    azimuth = np.broadcast_to(grid.azimuth, grid.shape)
    cap = _cap_length(grid, style)
    length = cap
    curtain_share = np.zeros(grid.shape)
    if style.curtain is not None:
        hanging = _curtain_length(grid, style.curtain)
        height = grid.skin_points[..., 1]
        low = smooth_ramp(75, 35, height)
        hanging = cap + (hanging - cap) * low
        gap = np.clip(0.5 + (hanging - cap) / 12.0, 0, 1)
        length = cap * (1 - gap) + hanging * gap + 3.0 * gap * (1 - gap)
        behind = smooth_ramp(95, 125, np.abs(azimuth)) * smooth_ramp(-10, -80, height)
        over = np.where(grid.skin_length < length + 9.0, grid.skin_length + 7.0, length)
        length = np.maximum(length, over * behind)
        ahead = smooth_ramp(75, 60, np.abs(azimuth)) * smooth_ramp(-100, -150, height)
        length = np.maximum(length, over * ahead)
        curtain_share = gap
    smooth = grid.points(length)
    mask = _mask(grid, style, smooth, azimuth, seed, hairline_shift)
    rise = relief(smooth, style, seed) * style.relief
    border = smooth_ramp(0.0, style.taper, mask)
    edge = style.edge + (3.0 * curtain_share if style.curtain is not None else 0.0)
    thick = np.maximum(length - grid.skin_length, 0.4)
    kept = np.minimum(thick, edge) + (thick - np.minimum(thick, edge)) * border
    if style.curtain is not None:
        kept = kept * (1 - curtain_share) + thick * curtain_share
    points = grid.points(grid.skin_length + np.maximum(kept + rise * (0.25 + 0.75 * border), 0.25))
    sheet = clipped_sheet(grid, points, mask)
    return HairShell(_with_wall(sheet), points, mask, used_rows(mask))


def _mask(
    grid: ShellGrid, style: HairStyle, points: np.ndarray, azimuth: np.ndarray, seed: int, shift: float
) -> np.ndarray:
    """Distance (mm, roughly) inside the border of the hair [R, C + 1]."""
    skin = grid.skin_points
    line = _rounded(style.hairline, azimuth, 3.0) + shift * smooth_ramp(62, 40, np.abs(azimuth))
    slope = np.gradient(line, axis=1) / np.maximum(1.6, 1e-6)
    mask = (skin[..., 1] - line) / np.sqrt(1 + np.minimum(slope**2, 9.0))
    if style.curtain is None:
        return mask + style.lobes * _lobes(skin, style, seed)
    height = points[..., 1]
    lobes = _lobes(points, style, seed)
    front = (np.abs(azimuth) - _interpolate(style.curtain.front, height)) * 1.5 + lobes
    bottom = height - _interpolate(style.curtain.bottom, np.abs(azimuth)) + style.lobes * lobes
    # Where it would lie inside the shoulders it ends, instead of spreading over them.
    outside = np.linalg.norm(points - grid.origins, axis=-1) - grid.skin_length - 5.5
    return np.maximum(mask + lobes, np.minimum(np.minimum(front, bottom), outside + 30.0 * (height > -110)))


def _with_wall(sheet: Sheet) -> Sheet:
    """Close the gap between the cut border and the skin with a wall, so that the hair has thickness."""
    border = sheet.border
    ring = np.unique(border)
    lower = np.full(len(sheet.points), -1)
    lower[ring] = len(sheet.points) + np.arange(len(ring))
    inward = sheet.anchors[ring] - sheet.points[ring]
    depth = np.linalg.norm(inward, axis=1, keepdims=True)
    # A wall reaches the skin under thin hair; hanging hair gets a rim as deep as hair is thick.
    reach = np.where(depth < 9.0, depth + 0.6, 7.0)
    points = sheet.points[ring] + inward / np.maximum(depth, 1e-6) * reach
    # Shifted across the strands, so that a wall beside hanging hair shows strands along it and not bars across it.
    wall_chart = np.clip(sheet.chart[ring] + np.array([0.014, 0.0]), 0, 1)
    a, b = border.T
    faces = np.concatenate([np.stack([b, a, lower[a]], 1), np.stack([b, lower[a], lower[b]], 1)])
    return Sheet(
        np.concatenate([sheet.points, points]), np.concatenate([sheet.faces, faces]),
        np.concatenate([sheet.chart, wall_chart]), np.concatenate([sheet.anchors, sheet.anchors[ring]]),
        border, np.concatenate([sheet.weld, lower[sheet.weld[ring]]]),
        join_sources([sheet.source, sheet.source.take(ring)]),
    )  # fmt: skip
