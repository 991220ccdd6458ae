"""Ears: a polar sheet from the opening in the skin over the helix into the concha, sewn to the head all around."""

from __future__ import annotations

import numpy as np

from . import distance
from .fields import smoothstep
from .parameters import parameter_index
from .parts import Part, fan_faces, grid_faces

# Rings from the head to the ear canal: share of the outline, height over the head (mm) where the ear stands free,
# height where it is grown to the cheek (in front).
EAR_RINGS = (
    (0.70, 0.5, 0.2),
    (0.84, 6.0, 0.5),
    (0.97, 12.5, 1.0),
    (1.0, 15.0, 1.4),
    (0.96, 16.0, 1.8),
    (0.88, 14.6, 2.2),
    (0.78, 11.5, 2.8),
    (0.66, 13.4, 4.0),
    (0.54, 11.6, 5.5),
    (0.40, 4.5, 4.0),
    (0.22, 1.5, 0.5),
)
CANAL = (0.0, -3.0)


def ear_frame(sculpt: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Centre [3] and axes [3, 3] (rows: forward, up, outward) of the ear, in mm."""
    flare = np.deg2rad(20.0 + 4.0 * sculpt[parameter_index("ear_angle")])
    tilt = np.deg2rad(12.0)
    forward = np.array([-np.sin(flare), 0.0, np.cos(flare)])
    outward = np.array([np.cos(flare), 0.0, np.sin(flare)])
    up = np.array([0.0, 1.0, 0.0])
    forward, up = forward * np.cos(tilt) + up * np.sin(tilt), up * np.cos(tilt) - forward * np.sin(tilt)
    axes = np.stack([forward, up, outward])
    width = 1 + 0.035 * sculpt[parameter_index("head_width")]
    center = np.array(distance.EAR_CENTER) * np.array([width, 1.0, 1.0])
    return center * [side, 1, 1], axes * [side, 1, 1]


def ear_outline(angle: np.ndarray, sculpt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Silhouette (forward, up) in mm at polar angles; 0 points forward, pi / 2 up."""
    size = 1 + 0.06 * sculpt[parameter_index("ear_size")]
    lobe = np.exp(-(((angle + 1.9) / 0.55) ** 2)) * (1 + 0.5 * sculpt[parameter_index("ear_lobe")])
    cosine, sine = np.cos(angle), np.sin(angle)
    forward = (16.5 * cosine * (1 + 0.22 * sine) - 1.5 * sine + 0.8 * lobe) * size
    up = (31.5 * sine - 1.8 * lobe) * size
    return forward, up


def ear(base: int, loop: np.ndarray, side: int, skin: np.ndarray, sculpt: np.ndarray) -> Part:
    """One ear on the border `loop` of the ear opening of skin [n, 3]."""
    center, axes = ear_frame(sculpt, side)
    border = (skin[loop] - center) @ axes.T
    start = np.unwrap(np.arctan2(border[:, 1], border[:, 0]))
    angle = np.linspace(start[0], start[0] + 2 * np.pi * np.sign(start[1] - start[0]), len(loop), endpoint=False)
    angle = 0.5 * angle + 0.5 * start
    forward, up = ear_outline(angle, sculpt)
    wrapped = np.angle(np.exp(1j * angle))
    grown = smoothstep(1.25, 0.75, wrapped) * smoothstep(-1.75, -1.25, wrapped)
    tragus = np.exp(-(((wrapped + 0.25) / 0.32) ** 2))
    lobe = np.exp(-(((wrapped + 1.75) / 0.5) ** 2))
    rings = []
    for number, (share, free, front) in enumerate(EAR_RINGS):
        height = free * (1 - grown) + front * grown
        height = height * (1 - 0.25 * lobe * (number > 1))
        if number >= 6:
            height = height + lobe * (10.5 - height) * (number < 9) * 0.8 + 4.0 * tragus * (number in (7, 8))
        shrink = share * (1 - 0.12 * grown * (number in (2, 3, 4)))
        local = np.stack([forward * shrink, up * shrink, height], axis=1)
        rings.append(local @ axes + center)
    canal = np.array([CANAL[0], 0.0, CANAL[1]]) @ axes + center
    points = np.concatenate([*rings, canal[None]])
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
    return Part(
        name,
        "ear",
        name,
        "head",
        points,
        points,
        faces,
        np.concatenate([sheet_uvs, fan_uvs]),
        zeros,
        zeros.astype(np.int64),
        zeros,
    )
