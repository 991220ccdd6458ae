"""Eyeballs and the rims that join the lids to the inside: lid margin, conjunctiva, caruncle corner."""

from __future__ import annotations

import numpy as np

from ...body.shape_grids import fan_faces, grid_faces
from . import distance
from .parts import Part, still_part
from .skin import mirrored, opening_profile, rotate_about_eye
from .topology import Slit

EYE_SEGMENTS = 24
# Degrees from the pole of the cornea; pupil edge at 9.5, iris edge at 26.5.
EYE_RINGS = (5.0, 9.5, 11.0, 16.0, 21.0, 25.0, 26.5, 29.0, 35.0, 44.0, 56.0, 70.0, 90.0, 115.0, 148.0)
IRIS_DEGREES = 26.5
CORNEA_BULGE = 0.01
CORNEA_DEGREES = 29.0
# Rings of the rim under an open lid: radius (mm), degrees under the lid.
OPEN_RINGS = ((14.15, 0.5), (13.75, 7.0), (12.6, 24.0))
# Rings under a closed lid: depth under the lid's border (mm), degrees under the lid. The margin reaches a little past
# the slit, behind the other lid, so that the skin stays smooth across the lash line. The last ring ends in the eyeball.
CLOSED_RINGS = ((0.5, -1.3), (0.9, 4.0), (None, 24.0))


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


def _open_rings(border: np.ndarray, center: np.ndarray, lean: np.ndarray) -> np.ndarray:
    """Rings [3, m, 3] inward from the border [m, 3] of open lids; at the corners they pass beside the eyeball."""
    relative = border - center
    corner = 1 - np.abs(lean[:, None])
    flattened = relative + corner * relative * [0, 0, -0.38]
    unit = flattened / np.linalg.norm(flattened, axis=1, keepdims=True)
    rings = [rotate_about_eye(center + unit * radius, center, np.deg2rad(under) * lean) for radius, under in OPEN_RINGS]
    reach = np.linalg.norm(border - rings[1], axis=1, keepdims=True)
    share = np.minimum(1.0, 1.3 / np.maximum(reach, 1e-6))
    rings[0] = rings[0] * (1 - corner) + corner * (border + (rings[1] - border) * share)
    return np.stack(rings)


def _closed_rings(border: np.ndarray, center: np.ndarray, lean: np.ndarray) -> np.ndarray:
    """Rings [3, m, 3] inward from the border [m, 3] of closed lids."""
    relative = border - center
    # Near the corners the skin around the slit turns inward: there the rim has to lie deeper to stay behind it.
    radius = np.linalg.norm(relative, axis=1, keepdims=True) - 2.4 * (1 - np.abs(lean[:, None]))
    unit = relative / np.linalg.norm(relative, axis=1, keepdims=True)
    return np.stack(
        [
            rotate_about_eye(
                center + unit * (OPEN_RINGS[-1][0] if depth is None else radius - depth),
                center,
                np.deg2rad(under) * lean,
            )
            for depth, under in CLOSED_RINGS
        ]
    )


def lid_rim(base: int, slit: Slit, side: int, closed_skin: np.ndarray, open_skin: np.ndarray) -> Part:
    """The rim of one eye's slit, joined to the skin along the slit border."""
    loop = slit.loop
    center = mirrored(np.array(distance.EYE_CENTER), side)
    upper, lower = opening_profile(slit, side)
    lean = np.concatenate([np.minimum(1.0, upper * 1.3), -np.minimum(1.0, lower[-2:0:-1] * 1.3)])
    closed = _closed_rings(closed_skin[loop], center, lean).reshape(-1, 3)
    opened = _open_rings(open_skin[loop], center, lean).reshape(-1, 3)
    rings = len(OPEN_RINGS)
    ids = np.concatenate([loop[None], base + np.arange(rings * len(loop)).reshape(rings, -1)])
    faces, uvs = grid_faces(ids, wrap=True)
    follows, zeros = np.tile(loop, rings), np.zeros(rings * len(loop))
    name = f"{slit.name}_rim"
    return Part(name, "lid_rim", name, "head", closed, opened, faces, uvs, zeros, follows, zeros + 1.0)
