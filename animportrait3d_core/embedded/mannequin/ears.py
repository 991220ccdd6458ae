"""Ears: a polar sheet from the opening in the skin over the helix into the concha, sewn to the head all around."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from ...body.shape_grids import fan_faces, grid_faces, smoothstep
from . import distance
from .parameters import parameter_index
from .parts import Part

# Silhouette (forward, up) in mm around the ear: from the root of the helix over the top, down the back, to the lobe,
# up the front along the tragus.
OUTLINE = (
    (12.0, 9.0), (13.0, 18.5), (8.5, 27.5), (-1.5, 32.0), (-11.5, 29.0), (-18.0, 20.0), (-19.5, 8.5), (-17.5, -3.5),
    (-13.5, -14.0), (-9.0, -22.5), (-4.5, -29.0), (1.5, -31.5), (6.8, -28.5), (9.3, -21.5), (10.5, -11.5), (12.0, -1.5),
)  # fmt: skip
# Rings from the head to the ear canal: share of the outline; height over the head (mm) where the ear stands free;
# height where it is grown to the cheek in front; share of the way that the ring lies on the head itself.
EAR_RINGS = (
    (0.74, 0.0, 0.0, 1.0), (0.74, 0.4, 0.0, 1.0), (0.86, 6.5, 0.3, 0.25), (0.98, 13.0, 0.6, 0.0), (1.0, 15.2, 0.8, 0.0),
    (0.955, 16.3, 1.0, 0.0), (0.875, 15.2, 1.0, 0.0), (0.785, 12.2, 1.0, 0.0), (0.68, 13.6, 1.4, 0.0),
    (0.57, 13.0, 1.8, 0.0), (0.44, 6.0, -1.5, 0.0), (0.24, 3.0, -3.0, 0.0),
)  # fmt: skip
CANAL_HEIGHT = -4.0
TRAGUS_RING = 8
TRAGUS_HEIGHT = {6: 1.0, 7: 3.0, 8: 4.8, 9: 4.4}  # mm over the cheek, per ring


def ear_frame(sculpt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre [3] and axes [3, 3] (rows: forward, up, outward) of the left ear, in mm."""
    flare, tilt = np.deg2rad(21.0), np.deg2rad(10.0)
    forward = np.array([-np.sin(flare), 0.0, np.cos(flare)])
    outward = np.array([np.cos(flare), 0.0, np.sin(flare)])
    up = np.array([0.0, 1.0, 0.0])
    forward, up = forward * np.cos(tilt) + up * np.sin(tilt), up * np.cos(tilt) - forward * np.sin(tilt)
    width = 1 + 0.035 * sculpt[parameter_index("head_width")]
    return np.array(distance.EAR_CENTER) * np.array([width, 1.0, 1.0]), np.stack([forward, up, outward])


def ear_outline(angle: np.ndarray) -> np.ndarray:
    """Silhouette [m, 2] (forward, up) in mm at polar angles [m]; 0 points forward, pi / 2 up."""
    points = np.array(OUTLINE)
    polar = np.unwrap(np.arctan2(points[:, 1], points[:, 0]))
    radius = np.linalg.norm(points, axis=1)
    spline = CubicSpline(np.append(polar, polar[0] + 2 * np.pi), np.append(radius, radius[0]), bc_type="periodic")
    length = spline(polar[0] + np.mod(angle - polar[0], 2 * np.pi))
    return np.stack([np.cos(angle) * length, np.sin(angle) * length], axis=1)


def _relief(number: int, angle: np.ndarray, free: float) -> np.ndarray:
    """Height (mm) of one ring where the ear stands free: fading helix, fork of the antihelix, antitragus, lobe."""

    def near(center: float, width: float) -> np.ndarray:
        return np.exp(-((np.angle(np.exp(1j * (angle - center))) / width) ** 2))

    height = np.full_like(angle, free)
    if number in (5, 6, 7, 8):  # towards the lobe, helix, scapha and antihelix run out into a flat cushion
        height = height * (1 - near(-1.6, 0.62)) + (12.6 - 0.5 * (number - 5)) * near(-1.6, 0.62)
    if number in (8, 9):  # fork of the antihelix: a hollow between its two legs
        height = height - 2.2 * near(1.45, 0.30) + 0.8 * near(2.2, 0.5)
    if number == 9:
        height = height + 1.2 * near(-2.0, 0.35) - 2.5 * near(-1.2, 0.3)
    if number >= 10:  # the leg of the helix divides the concha
        height = height + 2.5 * near(0.55, 0.35) * (number == 10)
    return height


def _surface_x(points: np.ndarray, sculpt: np.ndarray) -> np.ndarray:
    """How far out (mm) the bare head reaches at the height and depth of points [n, 3]."""
    origins = points.copy()
    origins[:, 0] = 0.0
    return distance.cast_rays(origins, np.tile([1.0, 0.0, 0.0], (len(points), 1)), sculpt)


def ear_points(border: np.ndarray, sculpt: np.ndarray) -> np.ndarray:
    """Vertices [rings * m + 1, 3] of the left ear on the border [m, 3] of its opening."""
    center, axes = ear_frame(sculpt)
    local = (border - center) @ axes.T
    start = np.unwrap(np.arctan2(local[:, 1], local[:, 0]))
    turn = 2 * np.pi * np.sign(start[len(start) // 2] - start[0])
    angle = 0.5 * np.linspace(start[0], start[0] + turn, len(border), endpoint=False) + 0.5 * start
    outline = ear_outline(angle)
    wrapped = np.angle(np.exp(1j * angle))
    grown = smoothstep(1.05, 0.40, wrapped) * smoothstep(-1.45, -1.05, wrapped)
    tragus = np.exp(-(((wrapped + 0.12) / 0.42) ** 2))
    shares = np.array([ring[0] for ring in EAR_RINGS])
    planes = shares[:, None, None] * outline[None]
    planes[0] = 0.6 * planes[0] + 0.4 * local[:, :2]  # between the root of the ear and the opening
    planes[TRAGUS_RING, :, 0] -= 0.6 * tragus  # the tragus leans back over the canal
    flat = planes @ axes[:2] + center
    reach = _surface_x(np.concatenate([center[None], flat.reshape(-1, 3)]), sculpt)
    base, surface = np.array([reach[0], center[1], center[2]]), reach[1:].reshape(planes.shape[:2])
    rings = []
    for number, (_, free, front, on_head) in enumerate(EAR_RINGS):
        height = _relief(number, angle, free)
        lifted = planes[number] @ axes[:2] + height[:, None] * axes[2] + base
        resting = flat[number].copy()
        resting[:, 0] = surface[number] + front + tragus * TRAGUS_HEIGHT.get(number, 0.0)
        share_on_head = np.maximum(grown, on_head)[:, None]
        rings.append(lifted * (1 - share_on_head) + resting * share_on_head)
    canal = np.array([2.0, 0.0, CANAL_HEIGHT]) @ axes + base
    return np.concatenate([*rings, canal[None]])


def ear(base: int, loop: np.ndarray, side: int, left_points: np.ndarray) -> Part:
    """One ear sewn to the border `loop` of its opening; side +1 is the subject's left, -1 mirrors `left_points`."""
    points = left_points * np.array([side, 1.0, 1.0])
    count = len(EAR_RINGS)
    ids = np.concatenate([loop[None], base + np.arange(count * len(loop)).reshape(count, -1)])
    flip = side > 0
    sheet, sheet_uvs = grid_faces(ids, wrap=True, flip=flip)
    faces = np.concatenate([sheet, fan_faces(base + len(points) - 1, ids[-1], flip=not flip)])
    column = np.arange(len(loop)) / len(loop)
    ring = np.stack([column, np.zeros_like(column)], axis=1)
    following, middle = ring + [1 / len(loop), 0.0], ring + [0.5 / len(loop), 0.0]
    fan_uvs = np.stack([middle, following, ring] if not flip else [middle, ring, following], axis=1)
    zeros = np.zeros(len(points))
    name = "left_ear" if side > 0 else "right_ear"
    uvs = np.concatenate([sheet_uvs, fan_uvs])
    return Part(name, "ear", name, "head", points, points, faces, uvs, zeros, zeros.astype(np.int64), zeros)
