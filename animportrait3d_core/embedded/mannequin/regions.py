"""Face regions and condition-map labels of the mannequin, by the names that the body assets use."""

from __future__ import annotations

import numpy as np

from ...body.mouth_shapes import SACK_RINGS
from ...regions import LABEL_IRIS, LABEL_SCLERA, LABEL_TEETH
from .bust import Bust
from .eyes import EYE_RINGS, EYE_SEGMENTS, IRIS_DEGREES
from .parts import LABELS
from .topology import skin_topology


def upper_lip_edge(x: np.ndarray) -> np.ndarray:
    """Height (mm) of the border of the upper lip's red over |x|: cupid's bow."""
    ax = np.abs(x)
    arch = -66.8 - 7.4 * np.clip(ax / 24.5, 0, 1) ** 1.55
    return arch - 1.3 * np.exp(-((ax / 2.6) ** 2))


def lower_lip_edge(x: np.ndarray) -> np.ndarray:
    """Height (mm) of the border of the lower lip's red over |x|."""
    return -85.2 + 10.4 * np.clip(np.abs(x) / 24.5, 0, 1) ** 2.3


def hair_line(azimuth_degrees: np.ndarray) -> np.ndarray:
    """Height (mm) above which the skin is scalp, over the azimuth (0 = front, 180 = back)."""
    knots = (0, 20, 40, 55, 66, 76, 86, 98, 112, 130, 180)
    heights = (66, 66, 58, 40, 16, -6, 16, 18, -22, -52, -62)
    return np.interp(np.abs(azimuth_degrees), knots, heights)


def _skin_regions(points: np.ndarray) -> dict[str, np.ndarray]:
    """Vertex masks [n] of the skin regions from closed-state positions [n, 3]."""
    x, y, z = points.T
    ax = np.abs(x)
    azimuth = np.degrees(np.arctan2(ax, z + 8.0))
    scalp = (y > hair_line(azimuth)) & (y > -70)
    body = y + 0.30 * np.clip(-z - 40, -60, 60) < -172
    chin = y > -122 + 0.35 * np.clip(45 - z, 0, 60)
    face = ~scalp & (azimuth < 72) & chin & (z > 12)
    lips = (y < upper_lip_edge(x)) & (y > lower_lip_edge(x)) & (ax < 25.8) & (z > 60)
    eye = (((ax - 32.0) / 21.5) ** 2 + ((y - 2.0) / 14.5) ** 2 < 1) & (z > 35)
    cheek = (((ax - 41) / 15.0) ** 2 + ((y + 66) / 22.0) ** 2 < 1) & (z > 15) & ~lips
    return {"scalp": scalp, "body": body, "face": face, "lips": lips, "eye_region": eye, "inner_cheek": cheek}


def _iris_vertices(bust: Bust) -> np.ndarray:
    """Vertices [V] bool of pupil and iris, its border ring included."""
    mask = np.zeros(len(bust.closed), dtype=bool)
    start = skin_topology().count
    rings = sum(degrees <= IRIS_DEGREES for degrees in EYE_RINGS)
    for part in bust.parts:
        if part.label == "eyeball":
            mask[start : start + 1 + rings * EYE_SEGMENTS] = True
        start += len(part.closed)
    return mask


def vertex_parts(bust: Bust) -> np.ndarray:
    """Position in LABELS of every vertex [V]."""
    counts = [(0, skin_topology().count)] + [(LABELS.index(p.label), len(p.closed)) for p in bust.parts]
    return np.concatenate([np.full(count, label, dtype=np.uint8) for label, count in counts])


def face_parts(bust: Bust) -> np.ndarray:
    """Position in LABELS of every face [F]."""
    counts = [(0, len(skin_topology().faces))] + [(LABELS.index(p.label), len(p.faces)) for p in bust.parts]
    return np.concatenate([np.full(count, label, dtype=np.uint8) for label, count in counts])


def vertex_labels(bust: Bust) -> np.ndarray:
    """Condition-map label of every vertex [V] float64: sclera 1, teeth 125/255, iris 85/255, rest 0."""
    parts = vertex_parts(bust)
    labels = np.where(parts == LABELS.index("eyeball"), LABEL_SCLERA, 0.0)
    labels = np.where(parts == LABELS.index("teeth"), LABEL_TEETH, labels)
    return np.where(_iris_vertices(bust), LABEL_IRIS, labels)


def face_regions(bust: Bust, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Regions as masks [F] bool: a face belongs to a region if all its vertices do."""
    topology = skin_topology()
    parts, of_face = vertex_parts(bust), face_parts(bust)
    skin = _skin_regions(bust.closed[: topology.count])

    def whole(name: str) -> np.ndarray:
        mask = np.zeros(len(bust.closed), dtype=bool)
        mask[: topology.count] = skin[name]
        return mask[faces].all(axis=1) & (of_face == 0)

    is_part = {name: of_face == k for k, name in enumerate(LABELS)}
    eyeball_side = bust.opened[faces].mean(axis=1)[:, 0] > 0
    regions = {name: whole(name) for name in skin}
    sack = np.flatnonzero(parts == LABELS.index("mouth_bag"))
    red = np.zeros(len(parts), dtype=bool)
    red[: topology.count] = skin["lips"]
    red[topology.slits["mouth"].loop] = True
    red[sack[: 2 * len(sack) // SACK_RINGS]] = True
    regions["lips"] |= red[faces].all(axis=1) & ((of_face == 0) | is_part["mouth_bag"])
    regions["eye_region"] |= is_part["eyeball"] | is_part["lid_rim"]
    regions["left_eyeball"] = is_part["eyeball"] & eyeball_side
    regions["right_eyeball"] = is_part["eyeball"] & ~eyeball_side
    regions["iris"] = is_part["eyeball"] & _iris_vertices(bust)[faces].all(axis=1)
    regions["teeth"] = is_part["teeth"]
    inside = is_part["mouth_bag"] | is_part["teeth"] | is_part["gum"] | is_part["tongue"]
    regions["mouth_interior"] = inside & ~regions["lips"]
    regions["scalp"] &= ~regions["face"]
    regions["body"] &= ~regions["face"]
    regions["condition_face"] = regions["face"].copy()
    return regions
