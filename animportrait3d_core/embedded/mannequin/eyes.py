"""Eyeballs and the rims that join the lids to the inside: lid margin, conjunctiva, caruncle corner."""

from __future__ import annotations

import numpy as np

from . import distance
from .parts import Part, fan_faces, grid_faces, still_part
from .skin import mirrored, opening_profile, rotate_about_eye
from .topology import Slit

EYE_SEGMENTS = 24
# Degrees from the pole of the cornea; pupil edge at 9.5, iris edge at 26.5.
EYE_RINGS = (5.0, 9.5, 11.0, 16.0, 21.0, 25.0, 26.5, 29.0, 35.0, 44.0, 56.0, 70.0, 90.0, 115.0, 148.0)
IRIS_DEGREES = 26.5
CORNEA_BULGE = 0.01
CORNEA_DEGREES = 29.0
# radius (mm) with open and with closed lid, degrees under the lid
RIM_RINGS = ((14.15, 14.9, 0.5), (13.75, 14.75, 7.0), (13.7, 14.65, 22.0))


def eyeball_points(center: np.ndarray) -> np.ndarray:
    """Vertices [1 + rings * segments + 1, 3]: front pole, rings, back pole."""
    polar = np.deg2rad(np.array(EYE_RINGS))[:, None]
    around = np.linspace(0, 2 * np.pi, EYE_SEGMENTS, endpoint=False)[None]
    swell = CORNEA_BULGE * np.clip(1 - (np.rad2deg(polar) / CORNEA_DEGREES) ** 2, 0, 1)
    radius = distance.EYEBALL_RADIUS * (1 + swell)
    rings = np.stack(
        [
            np.sin(polar) * np.cos(around) * radius,
            np.sin(polar) * np.sin(around) * radius,
            np.cos(polar) * radius + 0 * around,
        ],
        axis=-1,
    ).reshape(-1, 3)
    front = [[0, 0, distance.EYEBALL_RADIUS * (1 + CORNEA_BULGE)]]
    return np.concatenate([front, rings, [[0, 0, -distance.EYEBALL_RADIUS]]]) + center


def eyeball_chart(degrees: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Planar map of the eyeball seen from the front: radius 0.5 at the back pole, the iris fills the inner 0.2."""
    radius = 0.5 * np.sqrt(np.clip(degrees, 0, 180) / 180.0)
    return np.stack([0.5 + radius * np.cos(around), 0.5 + radius * np.sin(around)], axis=-1)


def eyeball(base: int, side: int) -> Part:
    """One eyeball; side +1 is the subject's left."""
    points = eyeball_points(mirrored(np.array(distance.EYE_CENTER), side))
    rings = base + 1 + np.arange(len(EYE_RINGS) * EYE_SEGMENTS).reshape(len(EYE_RINGS), EYE_SEGMENTS)
    back = base + len(points) - 1
    faces = np.concatenate(
        [fan_faces(base, rings[0]), grid_faces(rings, wrap=True)[0], fan_faces(back, rings[-1], flip=True)]
    )
    degrees = np.concatenate([[0.0], np.repeat(EYE_RINGS, EYE_SEGMENTS), [180.0]])
    around = np.tile(np.linspace(0, 2 * np.pi, EYE_SEGMENTS, endpoint=False), len(EYE_RINGS))
    chart = eyeball_chart(degrees, np.concatenate([[0.0], around, [0.0]]))
    name = "left_eye" if side > 0 else "right_eye"
    return still_part(name, "eyeball", name, name, points, (faces, chart[faces - base]))


def _rim_rings(loop_points: np.ndarray, center: np.ndarray, lean: np.ndarray, is_open: bool) -> np.ndarray:
    """Rings [3, m, 3] inward from the lid border; lean [m] in -1..1 says how far the border is from the corners."""
    relative = loop_points - center
    rings = []
    for radius_open, radius_closed, under in RIM_RINGS:
        radius = radius_open if is_open else radius_closed
        flattened = relative * np.array([1.0, 1.0, 1.0]) + (1 - np.abs(lean[:, None])) * relative * [0, 0, -0.38]
        unit = flattened / np.linalg.norm(flattened, axis=1, keepdims=True)
        rings.append(rotate_about_eye(center + unit * radius, center, np.deg2rad(under) * lean))
    reach = np.linalg.norm(loop_points - rings[1], axis=1, keepdims=True)
    share = np.minimum(1.0, 1.3 / np.maximum(reach, 1e-6))
    corner = 1 - np.abs(lean[:, None])
    rings[0] = rings[0] * (1 - corner) + corner * (loop_points + (rings[1] - loop_points) * share)
    return np.stack(rings)


def lid_rim(base: int, slit: Slit, side: int, closed_skin: np.ndarray, open_skin: np.ndarray) -> Part:
    """The rim of one eye's slit, joined to the skin along the slit border."""
    loop = slit.loop
    center = mirrored(np.array(distance.EYE_CENTER), side)
    upper, lower = opening_profile(slit, side)
    lean = np.concatenate([np.minimum(1.0, upper * 1.3), -np.minimum(1.0, lower[-2:0:-1] * 1.3)])
    closed = _rim_rings(closed_skin[loop], center, lean, is_open=False).reshape(-1, 3)
    opened = _rim_rings(open_skin[loop], center, lean, is_open=True).reshape(-1, 3)
    rings = len(RIM_RINGS)
    ids = np.concatenate([loop[None], base + np.arange(rings * len(loop)).reshape(rings, -1)])
    faces, uvs = grid_faces(ids, wrap=True)
    follows, zeros = np.tile(loop, rings), np.zeros(rings * len(loop))
    name = f"{slit.name}_rim"
    return Part(name, "lid_rim", name, "head", closed, opened, faces, uvs, zeros, follows, zeros + 1.0)
