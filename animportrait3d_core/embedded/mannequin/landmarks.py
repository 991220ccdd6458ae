"""The 68 iBUG landmarks and the two pupils, as points on triangles.

Skin points are found by casting a ray from inside through the place an anatomist would mark; eye and lip contours are
vertices of the slits.
"""

from __future__ import annotations

import numpy as np

from .bust import Bust
from .topology import skin_topology

# Height (mm) and azimuth (degrees) of the jaw line, from the ear of one side down to the chin.
JAW_LINE = ((-4, 80), (-20, 80), (-38, 80), (-56, 79), (-73, 71), (-88, 58), (-100, 42), (-109, 22), (-114.5, 0))
# (|x|, y) in mm, found along +z.
BROW = ((52.0, 15.5), (45.5, 21.0), (36.5, 23.8), (27.0, 23.2), (17.0, 19.6))
NOSE_BRIDGE = ((0.0, 4.0), (0.0, -11.0), (0.0, -26.0), (0.0, -41.0))
NOSE_BASE = ((12.5, -53.0), (6.0, -56.0), (0.0, -57.0))
UPPER_LIP = ((16.0, -70.6), (5.5, -66.6), (0.0, -67.6))
LOWER_LIP = ((15.5, -80.0), (7.0, -84.2), (0.0, -85.0))
EYE_SHARES = (0.33, 0.66)  # of the way from the outer to the inner corner
INNER_LIP_SHARES = (0.88, 0.34, 0.0)
_OFFSET = 1e-4  # keeps rays off mesh edges


def _cast(vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> tuple[int, np.ndarray]:
    """Last hit of a ray from inside: face and barycentric coordinates (Moeller and Trumbore 1997)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    edge1, edge2 = b - a, c - a
    cross = np.cross(direction, edge2)
    determinant = np.einsum("ij,ij->i", edge1, cross)
    determinant = np.where(np.abs(determinant) < 1e-12, np.inf, determinant)
    to_origin = origin - a
    u = np.einsum("ij,ij->i", to_origin, cross) / determinant
    second = np.cross(to_origin, edge1)
    v = second @ direction / determinant
    along = np.einsum("ij,ij->i", edge2, second) / determinant
    hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (along > 0)
    if not hit.any():
        raise RuntimeError(f"_cast: no skin lies along {direction.round(3)} from {origin.round(1)} mm")
    face = int(np.argmax(np.where(hit, along, -np.inf)))
    return face, np.array([1 - u[face] - v[face], u[face], v[face]])


def _at_vertex(faces: np.ndarray, vertex: int) -> tuple[int, np.ndarray]:
    face, corner = np.argwhere(faces == vertex)[0]
    return int(face), np.eye(3)[corner]


def _mirrored_pairs(points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """(x, y) from the subject's right over the middle to the left; the last given point lies in the middle."""
    right = [(-x, y) for x, y in points]
    return right + [(-x, y) for x, y in right[-2::-1]]


def _eye_contour(name: str) -> list[int]:
    """Six slit vertices: corner, two on the upper lid, other corner, two on the lower lid (iBUG order)."""
    slit = skin_topology().slits[name]
    last = len(slit.columns) - 1
    right = name == "right_eye"  # iBUG starts at the outer corner of the right eye, at the inner one of the left
    first, second = (round(share * last) for share in EYE_SHARES)
    upper, lower = slit.upper, slit.lower
    if not right:
        first, second = last - second, last - first
    return [upper[0], upper[first], upper[second], upper[last], lower[second], lower[first]]


def _inner_lips() -> list[int]:
    slit = skin_topology().slits["mouth"]
    half = len(slit.columns) // 2
    steps = [round(share * half) for share in INNER_LIP_SHARES]
    far, near, middle = steps
    upper = [slit.upper[half - far], slit.upper[half - near], slit.upper[half], slit.upper[half + near]]
    lower = [slit.lower[half + near], slit.lower[half + middle], slit.lower[half - near]]
    return [*upper, slit.upper[half + far], *lower]


def landmark_embedding(bust: Bust, faces: np.ndarray, pupils: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Faces [70] and barycentric coordinates [70, 3]; `pupils` are the vertices of the left and right pupil."""
    topology = skin_topology()
    skin_faces = topology.faces
    vertices = bust.opened
    found: list[tuple[int, np.ndarray]] = []

    def front(points: list[tuple[float, float]]) -> None:
        for x, y in points:
            found.append(_cast(vertices, skin_faces, np.array([x + _OFFSET, y, 0.0]), np.array([0.0, 0.0, 1.0])))

    degrees = [(y, -a) for y, a in JAW_LINE] + [(y, a) for y, a in JAW_LINE[-2::-1]]
    for y, azimuth in degrees:
        angle = np.deg2rad(azimuth) + _OFFSET
        direction = np.array([np.sin(angle), 0.0, np.cos(angle)])
        found.append(_cast(vertices, skin_faces, np.array([0.0, y, 0.0]), direction))
    front([(-x, y) for x, y in BROW])
    front([(x, y) for x, y in BROW[::-1]])
    front(list(NOSE_BRIDGE))
    front(_mirrored_pairs(NOSE_BASE))
    found += [_at_vertex(skin_faces, v) for v in _eye_contour("right_eye") + _eye_contour("left_eye")]
    mouth = topology.slits["mouth"]
    found.append(_at_vertex(skin_faces, mouth.upper[0]))
    front(_mirrored_pairs(UPPER_LIP))
    found.append(_at_vertex(skin_faces, mouth.upper[-1]))
    front([(-x, y) for x, y in _mirrored_pairs(LOWER_LIP)])
    found += [_at_vertex(skin_faces, v) for v in _inner_lips()]
    found += [_at_vertex(faces, v) for v in pupils]
    return np.array([face for face, _ in found]), np.stack([weights for _, weights in found])
