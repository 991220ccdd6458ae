"""The skin, painted in space: for every texel's place on the template, colour, relief and gloss.

Everything is a function of the template position in millimetres (origin between the eyes, x to the subject's left, y
up, z out of the face), so that paint follows anatomy and knows no seams of the chart. Colours are sRGB-coded 0..1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...kernels import numba
from ...render.threads import run_parallel
from .noise import bump, cells3, fractal3, lattice_hash, noise2, noise3, smoothstep


class SkinLook(NamedTuple):
    """What the skin of one identity looks like; values 0..1 unless said otherwise. Colours and spots travel beside it
    (`SkinPaint`), because arrays in a tuple cost time at every call of a compiled function.

    brow_width: half thickness in mm; brow_arch: mm; brow_density.  beard_cheek, beard_chin, moustache: density;
    beard_length: 0 stubble to 1 full.  scalp_density: shaven hair under the hairline.  depth: how deep the tone is.
    pores: 0 where texels are too coarse to show them.  hair_covers: 1 if hair hides crown and back of the head.
    """

    brow_width: float
    brow_arch: float
    brow_density: float
    beard_cheek: float
    beard_chin: float
    moustache: float
    beard_length: float
    scalp_density: float
    freckles: float
    blush: float
    age: float
    lipstick: float
    depth: float
    pores: float
    hair_covers: float
    seed: int


TONE, LIP, BROW, BEARD, SCALP = range(5)  # rows of `SkinPaint.colors`


class SkinPaint(NamedTuple):
    """look; colors: [5, 3] sRGB of TONE, LIP, BROW, BEARD, SCALP; spots: [M, 5] place and radius (mm), 1 for a mole or
    0 for an age spot."""

    look: SkinLook
    colors: np.ndarray
    spots: np.ndarray


_jit = numba.njit(cache=True, fastmath=True, forceinline=True)
_SEAM_Y = -74.3
_MOUTH_HALF_WIDTH = 25.6


@_jit
def lip_share(x: float, y: float, z: float) -> float:
    """How much a point of the skin belongs to the red of the lips, 0..1, with an edge of about a millimetre."""
    ax = abs(x)
    if ax > _MOUTH_HALF_WIDTH or z < 62.0 or y > -60.0 or y < -92.0:
        return 0.0
    share = ax / _MOUTH_HALF_WIDTH
    bow = 1.0 - 0.17 * math.exp(-((x / 2.8) ** 2)) + 0.05 * math.exp(-(((ax - 5.5) / 3.5) ** 2))
    upper = _SEAM_Y + 8.9 * bow * max(0.0, 1.0 - share**1.9) ** 0.85
    lower = _SEAM_Y - 0.8 - 10.3 * max(0.0, 1.0 - share**2.3) ** 0.9
    return smoothstep(-0.5, 0.7, min(upper - y, y - lower))


@_jit
def _mix(out, r, g, b, share):
    out[0] += (r - out[0]) * share
    out[1] += (g - out[1]) * share
    out[2] += (b - out[2]) * share


@_jit
def _scale(out, r, g, b, share):
    out[0] *= 1.0 + (r - 1.0) * share
    out[1] *= 1.0 + (g - 1.0) * share
    out[2] *= 1.0 + (b - 1.0) * share


@_jit
def _complexion(out, x, y, z, look):
    """Base tone with blood near the surface, thin skin round the eyes, and mottling."""
    ax = abs(x)
    front = smoothstep(10.0, 55.0, z)
    broad = fractal3(x / 23.0, y / 23.0, z / 23.0, 3, look.seed) - 0.5
    fine = fractal3(x / 3.1, y / 3.1, z / 3.1, 2, look.seed + 9) - 0.5
    _scale(out, 1.0 + 0.05 * broad, 1.0 + 0.11 * broad, 1.0 + 0.10 * broad, 1.0)
    _scale(out, 1.0 + 0.05 * fine, 1.0 + 0.09 * fine, 1.0 + 0.09 * fine, 1.0 + 0.7 * look.age)
    cheek = math.exp(-(((ax - 43.0) / 17.0) ** 2) - (((y + 37.0) / 16.0) ** 2)) * front
    tip = math.exp(-((x / 13.0) ** 2) - (((y + 43.0) / 11.0) ** 2)) * smoothstep(84.0, 98.0, z)
    chin = math.exp(-((x / 16.0) ** 2) - (((y + 103.0) / 11.0) ** 2)) * front
    ear = (
        smoothstep(70.0, 80.0, ax) * smoothstep(-65.0, -45.0, y) * smoothstep(30.0, 10.0, y) * smoothstep(14.0, 0.0, z)
    )
    red = 0.32 * cheek + 0.45 * tip + 0.18 * chin + 0.45 * ear + look.age * 0.15 * (cheek + tip)
    red *= 1.0 - 0.35 * look.depth
    _scale(out, 1.015, 0.83, 0.80, min(1.0, red * (0.8 + 0.9 * (broad + 0.5) * 0.5)))
    if look.blush > 0.0:
        apple = math.exp(-(((ax - 38.0) / 17.0) ** 2) - (((y + 34.0 - 0.25 * (ax - 38.0)) / 13.0) ** 2)) * front
        _scale(out, 1.01, 0.76, 0.78, 0.42 * look.blush * apple)
    under = math.exp(-(((ax - 31.0) / 17.0) ** 2) - (((y + 9.5) / 5.5) ** 2)) * front
    lid = math.exp(-(((ax - 32.0) / 17.0) ** 2) - (((y - 8.5) / 6.5) ** 2)) * front
    inner = math.exp(-(((ax - 17.0) / 5.0) ** 2) - (((y - 4.0) / 9.0) ** 2)) * front
    _scale(out, 0.90, 0.84, 0.87, min(1.0, under * (0.5 + 0.5 * look.age) + 0.5 * inner))
    _scale(out, 0.93, 0.83, 0.82, 0.62 * lid)
    forehead = math.exp(-((x / 45.0) ** 2) - (((y - 48.0) / 24.0) ** 2)) * front
    _scale(out, 1.01, 1.01, 0.965, 0.8 * forehead)
    neck = smoothstep(-108.0, -150.0, y)
    _scale(out, 0.985, 0.97, 0.96, neck)


@_jit
def _spots(out, x, y, z, look):
    """Freckles over nose and cheeks, a few on the forehead."""
    ax = abs(x)
    if look.freckles > 0.0 and z > 20.0:
        zone = math.exp(-((ax / 52.0) ** 4) - (((y + 30.0) / 26.0) ** 2)) + 0.18 * math.exp(-(((y - 40.0) / 30.0) ** 2))
        patch = noise3(x / 14.0, y / 14.0, z / 14.0, look.seed + 50)
        for layer in range(2 if zone > 0.04 else 0):
            size = 2.5 + 1.4 * layer
            near, number = cells3(x / size, y / size, z / size, look.seed + 40 + layer)
            radius = 0.13 + 0.20 * number
            if lattice_hash(int(number * 1e6), 0, 0, 3) < zone * (0.35 + 0.75 * patch):
                spot_share = smoothstep(radius + 0.10, radius - 0.08, near)
                _scale(out, 0.83, 0.70, 0.58, spot_share * (0.45 + 0.5 * number))


@_jit
def _moles(out, x, y, z, spots, seed):
    """Moles and age spots."""
    for n in range(spots.shape[0]):
        radius = spots[n, 3]
        squared = (x - spots[n, 0]) ** 2 + (y - spots[n, 1]) ** 2 + (z - spots[n, 2]) ** 2
        if squared > 4.0 * radius**2:
            continue
        if spots[n, 4] > 0.5:
            _scale(out, 0.45, 0.34, 0.30, 0.85 * smoothstep(1.15 * radius, 0.75 * radius, math.sqrt(squared)))
        else:
            ragged = radius * (0.6 + 0.9 * noise3(x / 2.0, y / 2.0, z / 2.0, seed + 61))
            _scale(out, 0.84, 0.74, 0.66, 0.5 * smoothstep(ragged, 0.55 * ragged, math.sqrt(squared)))


@_jit
def _relief(x, y, z, look):
    """Fine relief in mm: pores, and with age lines of the forehead, crow's feet, folds beside nose and mouth."""
    ax = abs(x)
    front = smoothstep(15.0, 50.0, z)
    height = 0.0
    if look.pores > 0.0 and front > 0.0:
        near, number = cells3(x / 1.5, y / 1.5, z / 1.5, look.seed + 80)
        zone = math.exp(-((ax / 30.0) ** 2) - (((y + 36.0) / 24.0) ** 2)) * front
        height = -(0.030 + 0.075 * zone) * smoothstep(0.42, 0.10, near) * (0.4 + 0.6 * number)
    height += 0.07 * (fractal3(x / 2.3, y / 2.3, z / 2.3, 2, look.seed + 81) - 0.5)
    if look.age <= 0.0:
        return height
    deep = look.age
    wobble = 2.6 * (noise2(x / 17.0, y / 60.0, look.seed + 82) - 0.5)
    if 26.0 < y < 76.0 and z > 20.0:
        fade = math.exp(-((ax / 42.0) ** 4)) * smoothstep(28.0, 34.0, y) * smoothstep(74.0, 62.0, y)
        phase = (y + wobble - 0.0035 * x * x) / 9.5
        line = phase - math.floor(phase)
        strength = 0.35 + 0.65 * noise2(x / 24.0, math.floor(phase) * 3.7, look.seed + 83)
        height -= 0.42 * deep * fade * strength * bump((line - 0.5) / 0.30)
    frown = bump((ax - 6.0 - 0.05 * (y - 20.0) + 0.4 * wobble) / 2.0) * bump((y - 22.0) / 13.0) * front
    height -= 0.38 * deep * frown
    # crow's feet fan out from the outer corner of the eye
    dx, dy = ax - 47.0, y - 1.0
    reach = math.sqrt(dx * dx + dy * dy)
    if dx > 0.0 and reach < 24.0:
        angle = math.atan2(dy, dx) * 2.9 + 0.5 * wobble + 0.05 * reach
        ray = angle - math.floor(angle)
        height -= 0.26 * deep * bump((ray - 0.5) / 0.30) * smoothstep(2.0, 8.0, reach) * smoothstep(21.0, 9.0, reach)
    # nasolabial fold from the wing of the nose past the corner of the mouth, and on to the jaw with age
    t = (-40.0 - y) / 42.0
    fold_x = 19.0 + 13.5 * t + 4.0 * t * t + 0.4 * wobble
    fold = bump((ax - fold_x) / 4.2) * smoothstep(-38.0, -44.0, y) * smoothstep(-90.0, -76.0, y) * front
    height -= 0.75 * deep * fold
    marionette = bump((ax - 27.5 - 0.05 * (-78.0 - y) + 0.3 * wobble) / 3.6)
    height -= 0.42 * deep * marionette * smoothstep(-76.0, -82.0, y) * smoothstep(-104.0, -92.0, y) * front
    bag = bump((y + 14.5 - 0.010 * (ax - 31.0) ** 2) / 2.4) * math.exp(-(((ax - 31.0) / 13.0) ** 4)) * front
    height -= 0.40 * deep * bag
    neck = (y + 0.004 * x * x + 2.0 * wobble) / 15.0
    ring = neck - math.floor(neck)
    height -= 0.34 * deep * bump((ring - 0.5) / 0.22) * smoothstep(-118.0, -128.0, y) * smoothstep(-200.0, -185.0, y)
    return height


@_jit
def brow_cover(x, y, z, look):
    """Cover 0..1 of the brow hairs at a point: short strokes that lean outward, denser inside."""
    ax = abs(x)
    if ax < 7.0 or ax > 56.0 or y < 8.0 or y > 38.0 or z < 30.0:
        return 0.0
    s = (ax - 9.5) / 42.0
    center = 20.6 + look.brow_arch * (bump((s - 0.62) / 0.75) - 0.30) - 4.0 * max(0.0, s - 0.72)
    width = look.brow_width * (0.92 - 0.62 * max(0.0, s - 0.42) / 0.58) * smoothstep(-0.06, 0.14, s)
    if width <= 0.05:
        return 0.0
    d = (y - center) / width
    if abs(d) > 1.7 or s > 1.08:
        return 0.0
    lean = 0.95 - 0.75 * s if d < 0.25 else 0.55 - 0.5 * s
    along = ax - lean * (y - center)
    side = 500 if x > 0.0 else 0
    stroke = noise2(along / 0.62 + side, (y - center) / 5.0 + 40.0 * s, look.seed + 90)
    second = noise2((ax - (lean - 0.5) * (y - center)) / 0.8 + side, (y - center) / 6.0, look.seed + 91)
    ragged = 0.35 * (noise2(along / 1.2 + side, 3.0, look.seed + 92) - 0.5)
    body = (
        smoothstep(1.15, 0.45, abs(d) + ragged) * smoothstep(-0.05, 0.10, s + 0.2 * ragged) * smoothstep(1.06, 0.86, s)
    )
    hairs = smoothstep(0.30, 0.62, 0.6 * stroke + 0.4 * second + 0.30 * body)
    return min(1.0, body * (0.38 + 0.75 * hairs)) * look.brow_density


@_jit
def _beard_zone(x, y, z, look):
    """Density 0..1 of facial hair at a point."""
    ax = abs(x)
    if z < 2.0 or y > 2.0 or y < -165.0:
        return 0.0
    if look.beard_cheek + look.beard_chin + look.moustache <= 0.0:
        return 0.0
    ragged = 3.0 * (noise2(x / 4.0, y / 4.0, look.seed + 100) - 0.5) + 2.0 * (
        noise2(x / 1.6, y / 3.0, look.seed + 101) - 0.5
    )
    # the cheek line falls from the sideburn to the corner of the mouth
    line = -68.0 + 14.0 * smoothstep(28.0, 52.0, ax) + 70.0 * smoothstep(50.0, 70.0, ax) ** 2 + ragged
    soft = 2.4 if look.beard_length < 0.3 else 1.0  # stubble thins out, a beard is trimmed
    cheek = smoothstep(4.5 * soft, -5.5 * soft, y - line) * smoothstep(-140.0, -120.0, y + ragged + 0.12 * ax)
    cheek *= smoothstep(2.0, 5.0 + 8.0 * soft, z + 0.5 * ragged) * smoothstep(2.0, -14.0, y)
    # hair ends under the chin and does not run down the neck
    throat = 1.0 - smoothstep(-104.0, -112.0, y) * (1.0 - smoothstep(22.0, 42.0, z + 0.6 * ragged))
    cheek *= throat
    wide = 20.0 + 9.0 * smoothstep(-90.0, -97.0, y)
    below_lip = smoothstep(wide, wide - 8.0, ax + ragged) * throat
    chin = smoothstep(-86.5, -91.0, y + ragged * 0.4) * below_lip * smoothstep(-136.0, -118.0, y)
    side = smoothstep(5.5, 3.0, abs(ax - 25.0 + 0.12 * (y + 80.0)) + 0.5 * ragged) * smoothstep(-70.0, -75.0, y)
    goatee = max(chin, side * smoothstep(-100.0, -92.0, y))
    upper = smoothstep(-55.5, -59.0, y + 0.10 * ax + 0.3 * ragged) * smoothstep(-80.0, -72.0, y)
    moustache = upper * smoothstep(31.0, 26.0, ax + 0.4 * ragged) * (1.0 - 0.55 * math.exp(-((x / 2.2) ** 2)))
    clear = math.exp(-((x / 13.0) ** 2) - (((y + 87.0) / 2.6) ** 2))
    cover = max(
        look.beard_cheek * cheek * (1.0 - 0.75 * clear), max(look.beard_chin * goatee, look.moustache * moustache)
    )
    return cover * (1.0 - lip_share(x, y, z))


@_jit
def _beard(out, x, y, z, look, colors):
    """Paint facial hair; returns its relief in mm."""
    zone = _beard_zone(x, y, z, look)
    if zone <= 0.003:
        return 0.0
    if look.beard_length < 0.3:
        near, number = cells3(x / 0.95, y / 0.95, z / 0.95, look.seed + 110)
        dot = smoothstep(0.42, 0.18, near) * smoothstep(0.0, 0.5, zone)
        _mix(out, colors[BEARD, 0], colors[BEARD, 1], colors[BEARD, 2], 0.24 * zone)
        _mix(
            out,
            colors[BEARD, 0] * 0.7,
            colors[BEARD, 1] * 0.7,
            colors[BEARD, 2] * 0.7,
            0.6 * zone * dot * (0.4 + 0.6 * number),
        )
        return 0.05 * dot
    sway = 2.5 * (noise2(x / 9.0, y / 9.0, look.seed + 111) - 0.5)
    across = x * (1.0 + 0.004 * (y + 90.0)) + 0.25 * abs(z - 60.0) * (1.0 if x > 0 else -1.0) + sway
    strand = noise2(across / 0.75, y / 9.0, look.seed + 112)
    tuft = noise2(across / 2.6, y / 12.0, look.seed + 113)
    hair = 0.6 * strand + 0.4 * tuft
    shade = 0.55 + 0.85 * hair
    cover = smoothstep(0.05, 0.55, zone * (0.55 + 0.9 * hair))
    _mix(out, colors[BEARD, 0] * shade, colors[BEARD, 1] * shade, colors[BEARD, 2] * shade, 0.94 * cover)
    return cover * (0.35 + 1.1 * hair)


@_jit
def _lips(out, x, y, z, look, colors):
    """Paint the lips; returns (share, relief in mm)."""
    share = lip_share(x, y, z)
    if share <= 0.0:
        return 0.0, 0.0
    lines = noise2(x / 1.05, y / 9.0, look.seed + 120)
    broad = noise3(x / 4.0, y / 4.0, z / 4.0, look.seed + 121)
    shade = 0.93 + 0.10 * lines + 0.08 * (broad - 0.5)
    rim = smoothstep(1.0, 0.75, share)
    _mix(
        out,
        colors[LIP, 0] * shade,
        colors[LIP, 1] * shade,
        colors[LIP, 2] * shade,
        share * (0.80 + 0.2 * look.lipstick),
    )
    _scale(out, 0.93, 0.86, 0.86, 0.35 * share * rim * look.lipstick)
    seam = math.exp(-(((y - _SEAM_Y) / 1.5) ** 2))
    _scale(out, 0.62, 0.45, 0.45, 0.6 * share * seam)
    return share, -0.22 * share * smoothstep(0.55, 0.2, lines)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _paint(points, look, colors, spots, out, begin, end):
    """See `paint_skin`; points begin..end."""
    for i in range(begin, end):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        texel = out[i]
        if y < -232.0 or (look.hair_covers > 0.0 and (y > 104.0 or (y > 30.0 and z < -8.0))):
            # always under cloth or hair
            dark = 1.0 if y < 0.0 else 0.6
            texel[0], texel[1], texel[2] = colors[TONE, 0] * dark, colors[TONE, 1] * dark, colors[TONE, 2] * dark
            texel[3], texel[4] = 0.0, 0.3
            continue
        texel[0], texel[1], texel[2] = colors[TONE, 0], colors[TONE, 1], colors[TONE, 2]
        _complexion(texel, x, y, z, look)
        _spots(texel, x, y, z, look)
        if spots.shape[0] > 0:
            _moles(texel, x, y, z, spots, look.seed)
        height = _relief(x, y, z, look)
        groove = min(1.0, max(0.0, -height - 0.12) * 0.62)
        _scale(texel, 0.72, 0.60, 0.56, groove)
        shine = 0.30 + 0.25 * math.exp(-((x / 22.0) ** 2) - (((y + 5.0) / 60.0) ** 2)) * smoothstep(60.0, 85.0, z)
        lips, grooves = _lips(texel, x, y, z, look, colors)
        height += grooves
        shine += lips * (0.35 + 0.35 * look.lipstick)
        brow = brow_cover(x, y, z, look)
        if brow > 0.0:
            _mix(texel, colors[BROW, 0], colors[BROW, 1], colors[BROW, 2], brow)
            height += 0.35 * brow
            shine *= 1.0 - 0.6 * brow
        fuzz = _beard(texel, x, y, z, look, colors)
        height += fuzz
        if look.scalp_density > 0.0 and y > -75.0:
            cover = look.scalp_density * smoothstep(64.0, 82.0, y + 0.55 * max(0.0, 30.0 - z))
            if cover > 0.0:
                dots = noise3(x / 0.8, y / 0.8, z / 0.8, look.seed + 130)
                _mix(
                    texel,
                    colors[SCALP, 0],
                    colors[SCALP, 1],
                    colors[SCALP, 2],
                    cover * (0.35 + 0.4 * smoothstep(0.4, 0.7, dots)),
                )
        texel[3] = height
        texel[4] = shine
        for k in range(3):
            texel[k] = min(1.0, max(0.0, texel[k]))


def paint_skin(points: np.ndarray, paint: SkinPaint, out: np.ndarray) -> None:
    """Paint texels: points [N, 3] mm, out [N, 5] receives red, green, blue, relief (mm), gloss 0..1."""
    run_parallel(_paint, len(points), points, paint.look, paint.colors, paint.spots, out)
