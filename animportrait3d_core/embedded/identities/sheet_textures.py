"""Paint of hair and cloth: strands, locks, curls; knit, weave and patterns. Colours are sRGB-coded 0..1."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...kernels import numba
from .hair import strand_coordinates, whorl_distance
from .noise import bump, cells3, fractal3, noise2, smoothstep

KNITS = {"sweater": 0, "t-shirt": 1, "turtleneck": 2, "v-neck": 3, "shirt": 4}
PATTERN_CODES = {"plain": 0, "striped": 1, "checked": 2, "dotted": 3}

_jit = numba.njit(cache=True, fastmath=True, forceinline=True)


class HairLook(NamedTuple):
    """Colour [3], share of white hairs, flow and parting of the style, width of locks (mm), curl of the style, seed."""

    color: np.ndarray
    white: float
    flow: int
    part: float
    clump: float
    curl: float
    seed: int


class ClothLook(NamedTuple):
    """Main and second colour [3], knit and pattern codes, seed."""

    color: np.ndarray
    second: np.ndarray
    knit: int
    pattern: int
    seed: int


@_jit
def paint_strand(texel, across, along, look, shade, contrast):
    """One texel of straight hair from its strand coordinates (mm); `shade` multiplies the colour, `contrast` 0..1
    fades the strands out where they crowd together at a whorl."""
    wander = 2.2 * (noise2(along / 30.0, across / 25.0, look.seed + 4) - 0.5)
    a = across + wander
    strand = noise2(a / 0.85, along / 55.0, look.seed)
    thread = noise2(a / 2.1, along / 70.0, look.seed + 1)
    lock = noise2(a / (0.55 * look.clump), along / 90.0, look.seed + 2)
    value = 0.5 + contrast * (0.42 * strand + 0.34 * thread + 0.24 * lock - 0.5)
    light = shade * (0.50 + 0.98 * value)
    grey = smoothstep(1.0 - look.white, 1.02 - look.white, noise2(a / 0.8, along / 160.0, look.seed + 3))
    for k in range(3):
        own = look.color[k] * light
        # sun-bleached strands are warmer and lighter, deep ones more saturated
        own *= 1.0 + (0.06, 0.0, -0.08)[k] * (thread - 0.5) * 2.0
        texel[k] = min(1.0, max(0.0, own + (0.66 * light - own) * 0.75 * grey))
    texel[3] = contrast * (0.9 * (0.55 * strand + 0.45 * thread) + 0.5 * lock)
    texel[4] = 0.35 + 0.65 * strand


@_jit
def _paint_curls(texel, x, y, z, look, shade):
    """One texel of curly hair: coils seen as bright ridges round dark cells."""
    size = 0.30 * look.clump
    near, number = cells3(x / size, y / size, z / size, look.seed + 5)
    bend = fractal3(x / 4.0, y / 4.0, z / 4.0, 2, look.seed + 6)
    coil = 0.5 + 0.5 * math.sin(near * 11.0 + 6.0 * bend + 6.3 * number)
    broad, _ = cells3(x / look.clump, y / look.clump, z / look.clump, look.seed + 2)
    light = shade * (0.58 + 0.52 * coil) * (1.12 - 0.42 * min(1.0, broad))
    for k in range(3):
        own = look.color[k] * light
        texel[k] = min(1.0, max(0.0, own + (0.8 * light - own) * look.white * 0.8))
    texel[3] = 0.8 * coil + 0.9 * (0.7 - near)
    texel[4] = 0.25 + 0.3 * coil


@_jit
def _paint_stubble(texel, x, y, z, look, shade):
    """One texel of shaven hair: dots a millimetre apart, lighter between."""
    near, number = cells3(x / 0.9, y / 0.9, z / 0.9, look.seed + 8)
    broad = fractal3(x / 14.0, y / 14.0, z / 14.0, 2, look.seed + 9)
    light = shade * (1.18 - 0.40 * smoothstep(0.6, 0.1, near) + 0.25 * (broad - 0.5))
    grey = 1.0 if number < look.white else 0.0
    for k in range(3):
        own = look.color[k] * light
        texel[k] = min(1.0, own + (0.7 * light - own) * grey * 0.7)
    texel[3] = 0.5 * smoothstep(0.6, 0.1, near)
    texel[4] = 0.12


@numba.njit(cache=True, fastmath=True, nogil=True)
def paint_hair(fields, rows, columns, look, out, begin, end):
    """Paint rows begin..end of a hair chart: fields [R, C, 5] on the grid (x, y, z in mm, border distance, relief);
    rows [H], columns [W] of the texels in it; out [H, W, 5]."""
    for i in range(begin, end):
        field = np.empty(5)
        for j in range(out.shape[1]):
            _bilinear(fields, rows[i], columns[j], field)
            x, y, z, border, rise = field[0], field[1], field[2], field[3], field[4]
            across, along = strand_coordinates(x, y, z, look.flow, look.part)
            shade = 0.80 + 0.20 * smoothstep(0.0, 9.0, border)
            shade *= 0.92 + 0.16 * min(1.0, max(-1.0, rise))
            if look.curl < -0.5:
                _paint_stubble(out[i, j], x, y, z, look, shade)
            elif look.curl > 0.5:
                _paint_curls(out[i, j], x, y, z, look, shade)
            else:
                paint_strand(
                    out[i, j], across, along, look, shade, smoothstep(4.0, 34.0, whorl_distance(x, y, z, look.flow))
                )


@numba.njit(cache=True, fastmath=True)
def paint_locks(look, seeds, out):
    """Paint the chart of loose locks side by side: out [H, W, 5], one column per lock of seeds [N], roots on top."""
    height, width = out.shape[0], out.shape[1]
    count = seeds.shape[0]
    for i in range(height):
        for j in range(width):
            place = (j + 0.5) / width * count
            n = min(int(place), count - 1)
            side = place - n - 0.5
            shade = (0.93 + 0.14 * noise2(seeds[n], 0.0, look.seed + 7)) * (1.0 - 0.5 * side * side)
            paint_strand(out[i, j], seeds[n] + side * 6.0, 40.0 * (i + 0.5) / height, look, shade, 1.0)


@numba.njit(cache=True, fastmath=True)
def paint_knot(look, around, along, out):
    """Paint a bun or ponytail: out [H, W, 5]; girth and length in mm."""
    height, width = out.shape[0], out.shape[1]
    for i in range(height):
        for j in range(width):
            turn = 2.0 * math.pi * (j + 0.5) / width
            shade = 0.80 + 0.22 * smoothstep(0.0, 0.15, (i + 0.5) / height)
            paint_strand(out[i, j], turn / (2.0 * math.pi) * around, along * (i + 0.5) / height, look, shade, 1.0)


@numba.njit(cache=True, fastmath=True)
def paint_collar(look, length, out):
    """Paint a collar band: out [H, W, 5], length in mm along the width; ribs across knitted ones."""
    height, width = out.shape[0], out.shape[1]
    ribs = max(1.0, math.floor(length / 3.4))
    for i in range(height):
        for j in range(width):
            u = (j + 0.5) / width
            rib = 0.5 + 0.5 * math.cos(2.0 * math.pi * u * ribs)
            knitted = 1.0 if look.knit != 4 and look.knit != 1 else 0.25
            shade = (0.82 + 0.16 * rib) * knitted + 0.95 * (1.0 - knitted)
            fuzz = 0.97 + 0.06 * noise2(u * length / 0.9, i * 1.0, look.seed + 1)
            for k in range(3):
                out[i, j, k] = min(1.0, look.color[k] * shade * fuzz * 0.97)
            out[i, j, 3] = 0.45 * rib * knitted
            out[i, j, 4] = 0.12


@_jit
def _bilinear(fields, row, column, out):
    r, c = min(int(row), fields.shape[0] - 2), min(int(column), fields.shape[1] - 2)
    fr, fc = row - r, column - c
    for k in range(fields.shape[2]):
        top = fields[r, c, k] * (1.0 - fc) + fields[r, c + 1, k] * fc
        low = fields[r + 1, c, k] * (1.0 - fc) + fields[r + 1, c + 1, k] * fc
        out[k] = top * (1.0 - fr) + low * fr


@_jit
def _knit(u, v, look):
    """(relief in mm, shade) of the cloth's structure at thread coordinates in mm."""
    if look.knit == 0:
        column = u / 4.2
        side = column - math.floor(column) - 0.5
        row = v / 3.0 - 1.1 * abs(side)
        stitch = row - math.floor(row) - 0.5
        loop = (1.0 - 3.2 * side * side) * (1.0 - 2.6 * stitch * stitch)
        return 0.55 * loop, 0.80 + 0.24 * loop
    if look.knit == 2 or look.knit == 3:
        width = 4.4 if look.knit == 2 else 2.6
        rib = 0.5 + 0.5 * math.cos(2.0 * math.pi * u / width)
        purl = 0.5 + 0.5 * math.cos(2.0 * math.pi * v / 2.2)
        return 0.45 * rib + 0.10 * purl * rib, 0.84 + 0.16 * rib + 0.03 * purl
    weave = 0.5 + 0.25 * math.cos(2.0 * math.pi * (u + v) / 1.7) + 0.25 * math.cos(2.0 * math.pi * (u - v) / 1.7)
    return 0.10 * weave, 0.95 + 0.06 * weave


@_jit
def pattern_share(u, y, arc, down, pattern):
    """How much of the second colour shows, 0..1: thread coordinate u, height y, own arc lengths across and down; mm."""
    if pattern == 1:
        band = y / 27.0
        return smoothstep(0.30, 0.34, abs(band - math.floor(band) - 0.5))
    if pattern == 2:
        one = smoothstep(0.22, 0.27, abs(y / 30.0 - math.floor(y / 30.0) - 0.5))
        two = smoothstep(0.22, 0.27, abs(u / 30.0 - math.floor(u / 30.0) - 0.5))
        return 0.5 * one + 0.5 * two
    if pattern == 3:
        row = math.floor(down / 17.0)
        shifted = arc / 19.0 + 0.5 * (row % 2.0)
        du, dv = (shifted - math.floor(shifted) - 0.5) * 19.0, (down / 17.0 - row - 0.5) * 17.0
        return smoothstep(4.6, 3.8, math.sqrt(du * du + dv * dv))
    return 0.0


@_jit
def _placket(texel, arc, down):
    """The button border of a shirt: two seams and a button every 64 mm; arc and down in mm from the middle front."""
    if abs(arc) > 15.0:
        return
    seam = max(bump((abs(arc) - 12.0) / 1.1), 0.6 * bump((abs(arc) - 10.2) / 0.8))
    spot = down / 64.0
    along = (spot - math.floor(spot) - 0.5) * 64.0
    radius = math.sqrt(arc * arc + along * along)
    button = smoothstep(5.4, 4.8, radius)
    holes = min(1.0, bump((abs(arc) - 1.3) / 0.8) * bump((abs(along) - 1.3) / 0.8))
    for k in range(3):
        texel[k] *= 1.0 - 0.38 * seam
        texel[k] += ((0.86, 0.84, 0.78)[k] * (1.0 - 0.7 * holes) - texel[k]) * button
        texel[k] *= 1.0 - 0.3 * bump((radius - 5.7) / 0.8)
    texel[3] += 1.2 * button - 0.3 * seam
    texel[4] += 0.5 * button


@numba.njit(cache=True, fastmath=True, nogil=True)
def paint_cloth(fields, rows, columns, look, out, begin, end):
    """Paint rows begin..end of a cloth chart: fields [R, C, 6] on the grid (x, y, z, thread coordinates across and
    down, own arc length across; mm); rows [H], columns [W] of the texels in it; out [H, W, 5]."""
    for i in range(begin, end):
        field = np.empty(6)
        for j in range(out.shape[1]):
            _bilinear(fields, rows[i], columns[j], field)
            x, y, z, u, v = field[0], field[1], field[2], field[3], field[4]
            relief, shade = _knit(u, v, look)
            share = pattern_share(u, y, field[5], v, look.pattern)
            mottle = 0.94 + 0.12 * fractal3(x / 19.0, y / 19.0, z / 19.0, 2, look.seed)
            fuzz = 0.97 + 0.06 * noise2(u / 0.9, v / 0.9, look.seed + 1)
            for k in range(3):
                base = look.color[k] + (look.second[k] - look.color[k]) * share
                out[i, j, k] = min(1.0, base * shade * mottle * fuzz)
            out[i, j, 3] = relief
            out[i, j, 4] = 0.12
            if look.knit == 4 and z > 0.0:
                _placket(out[i, j], field[5], v)
