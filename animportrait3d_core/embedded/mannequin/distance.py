"""The sculpture: a signed distance function of the bust's skin, in millimetres, with lids and lips closed.

Local frame: origin between the eyes, x to the subject's left, y up, z out of the face. The function is mirror
symmetric in x. It is a smooth union of ellipsoids, capsules and spheres after Quilez, "Smooth minimum" (2013);
distances are approximate, which is enough for ray marching with shortened steps. `shape` holds the SCULPT parameters.
"""

from __future__ import annotations

import math

import numpy as np

from ...kernels import numba
from ...render.threads import run_parallel
from . import parameters

EYE_CENTER = (32.0, 3.0, 63.8)
EYEBALL_RADIUS = 13.2
LID_RADIUS = 15.0
EAR_CENTER = (71.5, -18.0, -13.0)

_INDEX = {name: position for position, name in enumerate(parameters.SCULPT_PARAMETERS)}
HEAD_WIDTH, HEAD_HEIGHT, HEAD_DEPTH = _INDEX["head_width"], _INDEX["head_height"], _INDEX["head_depth"]
JAW_WIDTH, CHIN_HEIGHT, CHIN_PROJECTION = _INDEX["jaw_width"], _INDEX["chin_height"], _INDEX["chin_projection"]
CHEEK_FULLNESS, CHEEKBONE, BROW_RIDGE = _INDEX["cheek_fullness"], _INDEX["cheekbone"], _INDEX["brow_ridge"]
SOCKET_DEPTH, MUZZLE, NECK_WIDTH = _INDEX["socket_depth"], _INDEX["muzzle"], _INDEX["neck_width"]
SHOULDER_WIDTH, SHOULDER_HEIGHT = _INDEX["shoulder_width"], _INDEX["shoulder_height"]
FOREHEAD_BULGE, TEMPLE_HOLLOW = _INDEX["forehead_bulge"], _INDEX["temple_hollow"]
NASOLABIAL_FOLD, CHIN_WIDTH, JAW_ANGLE = _INDEX["nasolabial_fold"], _INDEX["chin_width"], _INDEX["jaw_angle"]
NECK_MUSCLE = _INDEX["neck_muscle"]
EYE_X, EYE_Y, EYE_Z = EYE_CENTER

_jit = numba.njit(cache=True, fastmath=True, forceinline=True)


@_jit
def _ellipsoid(x, y, z, cx, cy, cz, rx, ry, rz):
    ax, ay, az = (x - cx) / rx, (y - cy) / ry, (z - cz) / rz
    scaled = math.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax / rx, ay / ry, az / rz
    slope = math.sqrt(ax * ax + ay * ay + az * az)
    if slope < 1e-9:
        return -min(rx, min(ry, rz))
    return scaled * (scaled - 1.0) / slope


@_jit
def _sphere(x, y, z, cx, cy, cz, radius):
    return math.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) - radius


@_jit
def _capsule(x, y, z, ax, ay, az, bx, by, bz, ra, rb):
    """Distance to the segment a-b, thickness going linearly from ra to rb."""
    dx, dy, dz = bx - ax, by - ay, bz - az
    along = ((x - ax) * dx + (y - ay) * dy + (z - az) * dz) / (dx * dx + dy * dy + dz * dz)
    along = min(1.0, max(0.0, along))
    px, py, pz = x - ax - along * dx, y - ay - along * dy, z - az - along * dz
    return math.sqrt(px * px + py * py + pz * pz) - (ra + (rb - ra) * along)


@_jit
def _union(a, b, k):
    h = max(k - abs(a - b), 0.0) / k
    return min(a, b) - h * h * k * 0.25


@_jit
def _carve(a, b, k):
    return -_union(-a, b, k)


@_jit
def _skull(x, y, z, shape):
    wide, high, deep = 1 + 0.035 * shape[HEAD_WIDTH], 1 + 0.035 * shape[HEAD_HEIGHT], 1 + 0.03 * shape[HEAD_DEPTH]
    jaw = 1 + 0.06 * shape[JAW_WIDTH]
    d = _ellipsoid(x, y, z, 0, 34, -10, 76.0 * wide, 88 * high, 97 * deep)
    d = _union(d, _ellipsoid(x, y, z, 0, 50, 32 + 1.2 * shape[FOREHEAD_BULGE], 52 * wide, 40, 53), 20)
    d = _union(d, _ellipsoid(x, y, z, 0, -32, 20, 61.0 * (0.5 * wide + 0.5 * jaw), 78, 65), 35)
    hollow = 15.5 + 1.5 * shape[TEMPLE_HOLLOW]
    return _carve(d, _ellipsoid(x, y, z, 84 * wide, 14, 50, hollow, 24, 28), 24)


@_jit
def _jaw(d, x, y, z, shape):
    wide, drop, out = 1 + 0.06 * shape[JAW_WIDTH], 3.5 * shape[CHIN_HEIGHT], 3.0 * shape[CHIN_PROJECTION]
    angle_y = -60 - 3.0 * shape[JAW_ANGLE]
    chin_x = 13.0 + 2.0 * shape[CHIN_WIDTH]
    d = _union(d, _capsule(x, y, z, 49.5 * wide, angle_y, 4, chin_x + 3, -99 - drop, 69 + out, 11.0, 12.0), 27)
    d = _union(d, _capsule(x, y, z, 53.0 * wide, -22, 6, 50.5 * wide, angle_y, 4, 13.0, 11.0), 24)
    d = _union(d, _ellipsoid(x, y, z, 0, -103.0 - drop, 75.5 + out, chin_x + 4.0, 14.0, 14.5), 16)
    return _carve(d, _capsule(x, y, z, 0, -89.0, 106.0, 12, -88.5, 101.0, 6.0, 5.0), 12)


@_jit
def _cheeks(d, x, y, z, shape):
    wide = 1 + 0.025 * shape[HEAD_WIDTH]
    bone = 1.3 * shape[CHEEKBONE]
    full = 2.2 * shape[CHEEK_FULLNESS]
    d = _union(d, _capsule(x, y, z, 44 * wide, -17.5, 57.5 + 0.6 * bone, 59 * wide, -11, 27, 11 + bone, 8 + bone), 30)
    d = _union(d, _ellipsoid(x, y, z, 30, -33, 66, 17 + 0.6 * full, 17, 15.5 + 0.6 * full), 24)
    d = _union(d, _sphere(x, y, z, 37, -54, 52, 21 + full), 26)
    fold = 1.6 + 0.8 * shape[NASOLABIAL_FOLD]
    return _carve(d, _capsule(x, y, z, 20.5, -47, 91.5, 33, -72, 86.5, fold, 0.6 * fold), 7)


@_jit
def _brow_and_socket(d, x, y, z, shape):
    ridge = 2.4 * shape[BROW_RIDGE]
    d = _union(d, _capsule(x, y, z, 10, 20.0, 80.5 + ridge, 43, 21.0, 63.5 + 0.6 * ridge, 6.8, 6.4), 16)
    deep = 1.2 * shape[SOCKET_DEPTH]
    d = _carve(d, _ellipsoid(x, y, z, EYE_X - 1.0, EYE_Y + 0.5, EYE_Z + 29, 21.0, 13.0, 14.0 + 0.9 * deep), 13)
    return _carve(d, _sphere(x, y, z, 16.5, 4.0, 93.5, 8.2 + 0.4 * deep), 11)


@_jit
def _nose(d, x, y, z):
    d = _union(d, _capsule(x, y, z, 0, 16, 79.5, 0, -12, 90.0, 4.6, 4.9), 16)
    d = _union(d, _capsule(x, y, z, 0, -12, 90.0, 0, -38, 102.5, 5.4, 6.6), 10)
    d = _union(d, _sphere(x, y, z, 0, -42, 103.8, 8.2), 7)
    d = _union(d, _sphere(x, y, z, 3.6, -43.0, 103.6, 6.6), 5)
    d = _union(d, _ellipsoid(x, y, z, 0, -32.0, 86.0, 11.5, 25.0, 13.5), 9)
    d = _union(d, _ellipsoid(x, y, z, 12.2, -46.8, 93.6, 5.4, 6.6, 9.4), 6.5)
    d = _union(d, _capsule(x, y, z, 0, -48, 106.0, 0, -55, 97.0, 3.4, 3.6), 5)
    d = _carve(d, _capsule(x, y, z, 5.3, -50.6, 104.0, 7.8, -51.6, 96.8, 2.7, 3.3), 2.0)
    return _carve(d, _capsule(x, y, z, 18.4, -41.5, 91.0, 17.6, -53.0, 90.0, 1.5, 1.6), 5)


@_jit
def _lips(d, x, y, z, shape):
    d = _union(d, _ellipsoid(x, y, z, 0, -73, 66.5 + 1.1 * shape[MUZZLE], 31.0, 27.0, 27.5), 20)
    d = _carve(d, _capsule(x, y, z, 0, -57.5, 103.2, 0, -64.5, 104.4, 2.2, 2.5), 5)
    d = _union(d, _capsule(x, y, z, 3.2, -58, 95.0, 4.4, -66.5, 96.0, 2.6, 2.6), 5)
    d = _union(d, _capsule(x, y, z, 4.0, -69.3, 94.2, 23.5, -73.4, 81.5, 5.4, 2.4), 5)
    d = _union(d, _ellipsoid(x, y, z, 0, -71.0, 95.4, 5.0, 4.0, 4.6), 4)
    d = _union(d, _capsule(x, y, z, 0, -79.6, 92.8, 21.5, -75.6, 81.5, 6.5, 2.4), 5)
    d = _union(d, _ellipsoid(x, y, z, 6.5, -79.4, 93.0, 7.0, 4.6, 6.2), 4)
    return _carve(d, _sphere(x, y, z, 29.5, -75.0, 87.0, 4.5), 9)


@_jit
def _neck_and_shoulders(d, x, y, z, shape):
    neck, wide, drop = 1 + 0.07 * shape[NECK_WIDTH], 1 + 0.05 * shape[SHOULDER_WIDTH], -6.0 * shape[SHOULDER_HEIGHT]
    muscle = 7.0 + 0.9 * shape[NECK_MUSCLE]
    d = _union(d, _capsule(x, y, z, 0, -50, -27, 0, -215, -40, 46.0 * neck, 51.0 * neck), 26)
    d = _union(d, _capsule(x, y, z, 7, -10, -60, 9 * neck, -150, -54, 32, 33 * neck), 30)
    d = _union(d, _capsule(x, y, z, 50 * neck, -60, -22, 13, -203, 7, muscle, muscle - 1.5), 13)
    d = _union(d, _capsule(x, y, z, 0, -125, 14, 0, -155, 7, 6.5, 6.5), 16)
    d = _union(d, _capsule(x, y, z, 18, -138, -58, 138 * wide, -228 - drop, -46, 20, 27), 36)
    d = _union(d, _capsule(x, y, z, 30, -225, -45, 168 * wide, -258 - drop, -42, 36, 47), 42)
    d = _union(d, _ellipsoid(x, y, z, 0, -350, -32, 172 * wide, 160, 100), 45)
    d = _union(d, _capsule(x, y, z, 170 * wide, -262 - drop, -42, 190 * wide, -420, -35, 46, 40), 30)
    d = _union(d, _capsule(x, y, z, 40, -206, -4, 95 * wide, -212 - drop, -22, 13, 16), 22)
    d = _union(d, _capsule(x, y, z, 15, -217, 22, 68 * wide, -213, 15, 5.5, 5.0), 18)
    d = _union(d, _capsule(x, y, z, 68 * wide, -213, 15, 140 * wide, -220 - drop, -24, 5.0, 6.0), 20)
    return _carve(d, _sphere(x, y, z, 0, -207, 38, 9.0), 14)


@_jit
def signed_distance(x, y, z, shape):
    """Approximate signed distance in millimetres, negative inside, of the closed-eyed skin at one point."""
    # Rounding |x| keeps shapes beside the middle from meeting their mirror images in a crease.
    fine = math.sqrt(x * x + 0.2)
    x = math.sqrt(x * x + 12.0)
    d = _skull(x, y, z, shape)
    if y > -150.0:
        d = _jaw(d, x, y, z, shape)
        d = _cheeks(d, x, y, z, shape)
        if z > 20.0:
            d = _brow_and_socket(d, x, y, z, shape)
            if x < 45.0 and z > 50.0:
                d = _nose(d, fine, y, z)
                d = _lips(d, fine, y, z, shape)
            d = _union(d, _sphere(x, y, z, EYE_X, EYE_Y, EYE_Z, LID_RADIUS), 4)
    if y < 60.0:
        d = _neck_and_shoulders(d, x, y, z, shape)
    return d


@numba.njit(cache=True, fastmath=True, nogil=True)
def _cast(origins, directions, shape, lengths, begin, end):
    for i in range(begin, end):
        ox, oy, oz = origins[i, 0], origins[i, 1], origins[i, 2]
        dx, dy, dz = directions[i, 0], directions[i, 1], directions[i, 2]
        inside, outside, inner, outer = 0.0, 4.0, -1.0, 0.0
        for _ in range(400):
            outer = signed_distance(ox + outside * dx, oy + outside * dy, oz + outside * dz, shape)
            if outer > 0 or outside > 450.0:
                break
            inside, inner = outside, outer
            outside += max(-outer * 0.6, 0.35)
        # Illinois method: regula falsi that halves the value of an end that stays.
        for _ in range(18):
            if outside - inside < 1e-5 or inner >= 0 or outer <= 0:
                break
            middle = inside + (outside - inside) * inner / (inner - outer)
            value = signed_distance(ox + middle * dx, oy + middle * dy, oz + middle * dz, shape)
            if value > 0:
                outside, outer, inner = middle, value, inner * 0.5
            else:
                inside, inner, outer = middle, value, outer * 0.5
            if abs(value) < 1e-6:
                inside, outside = middle, middle
        lengths[i] = 0.5 * (inside + outside)


def cast_rays(origins: np.ndarray, directions: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Distance [N] along each ray (from inside) to the first exit through the skin; origins, directions: [N, 3]
    float64."""
    lengths = np.empty(len(origins))
    run_parallel(_cast, len(origins), origins, directions, shape, lengths)
    return lengths
