"""Whether there is a face in a surface: the relief of nose, eyes and mouth, each compared with the body's own.

A face that laughs, wears glasses, hides behind a fringe or has hollow sockets lacks one or two of its features, not
all; features of another face lie a little higher or lower; and its relief may be twice as deep. So each feature is
looked for by itself around its place, by normalized correlation, and the best three count. What has such lumps by
chance is rarely the same on both sides: faces are.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from ..landmarks import LEFT_EYE, MOUTH, NOSE, NUM_FACE_LANDMARKS, RIGHT_EYE
from ..meshes import Mesh
from .alignment import HeadAlignment
from .head_target import FACE_WEIGHT, HeadTarget

# In shares of the head's height: ray spacing, width of the filter (about half a nose), largest relief, size of a
# feature's window, margin around the face, how far from the body's face another surface is another thing.
STEP, SIGMA, CLIP, WINDOW, MARGIN, BEYOND = 0.015, 0.08, 0.08, 0.09, 0.06, 0.3
SHIFTS_X, SHIFTS_Y = range(-2, 3), range(-4, 5)  # in ray spacings
MIRROR_SHIFTS = range(-5, 6)
LEAST_RELIEF = 0.15  # of the energy of the body's: what is smoother does not count in full
LEAST_SEEN = 0.5  # of a window, or of half a face
HALF_SEEN = 0.4  # of the other side
COUNTED = 3  # of four features
FEATURES = {"nose": NOSE, "right eye": RIGHT_EYE, "left eye": LEFT_EYE, "mouth": MOUTH}


@dataclasses.dataclass(frozen=True)
class FaceRelief:
    """What a surface in front of the body's face looks like.

    features: correlation of each of `FEATURES` with the body's, -1 to 1.  symmetry: correlation of the relief with its
    mirror image, -1 to 1.  seen: share of the body's face that has a surface near it, on its right and its left.
    inward: share of that surface which faces away from the viewer.
    """

    features: dict[str, float]
    symmetry: float
    seen: tuple[float, float]
    inward: float

    @property
    def agreement(self) -> float:
        """How surely it is a face, -1 to 1: the mean of the best features, less if its sides differ."""
        best = sorted(self.features.values(), reverse=True)[:COUNTED]
        return sum(best) / len(best) * math.sqrt(max(self.symmetry, 0.0))

    @property
    def is_half(self) -> bool:
        """Whether one side of the face is missing."""
        return min(self.seen) < HALF_SEEN * max(self.seen)

    def words(self) -> str:
        """The numbers, for a message."""
        found = ", ".join(f"{name} {value:.2f}" for name, value in self.features.items())
        return f"{found}, symmetry {self.symmetry:.2f}"


@dataclasses.dataclass(frozen=True)
class DepthMaps:
    """Maps [H, W] of rays along -z: their places, depths of the body and of the mesh, where those are, and whether the
    mesh faces away there."""

    x: np.ndarray
    y: np.ndarray
    own: np.ndarray
    other: np.ndarray
    own_seen: np.ndarray
    other_seen: np.ndarray
    inward: np.ndarray


def face_relief(mesh: Mesh, target: HeadTarget, placed: HeadAlignment) -> FaceRelief:
    """The relief of a mesh, brought into the head frame by `placed`, beside that of the target's face."""
    depths = depth_maps(mesh, target, placed)
    on_face = depths.own_seen & depths.other_seen
    right = depths.x < 0
    seen = tuple(float(on_face[side].sum() / max(depths.own_seen[side].sum(), 1)) for side in (right, ~right))
    inward = float(depths.inward[on_face].mean()) if on_face.any() else 0.0
    if on_face.mean() < 0.1:
        return FaceRelief(dict.fromkeys(FEATURES, 0.0), 0.0, (seen[0], seen[1]), inward)
    own, other = (
        relief_of(depth, mask, target.height)
        for depth, mask in ((depths.own, depths.own_seen), (depths.other, depths.other_seen))
    )
    weights = depths.own_seen.astype(np.float64), depths.other_seen.astype(np.float64)
    places = target.landmarks[:NUM_FACE_LANDMARKS].double().numpy()
    found = {}
    for name, points in FEATURES.items():
        window = window_at(depths, places[points].mean(0), WINDOW * target.height)
        found[name] = correlations(own, other, window * weights[0], weights[1], SHIFTS_Y, SHIFTS_X)
    return FaceRelief(_best_shifts(found), _symmetry(other, weights), (seen[0], seen[1]), inward)


def depth_maps(mesh: Mesh, target: HeadTarget, placed: HeadAlignment) -> DepthMaps:
    """How far rays along -z through the face of the target lie from its surface and from a mesh placed like it."""
    face = (target.weights >= FACE_WEIGHT).numpy()
    vertices, faces = target.mesh.vertices.double().numpy(), target.mesh.faces.numpy()
    corners = vertices[faces[face]].reshape(-1, 3)
    low, high = corners.min(0) - MARGIN * target.height, corners.max(0) + MARGIN * target.height
    half = max(-low[0], high[0])  # the same rays on both sides of x = 0
    across = np.arange(0.5, half / (STEP * target.height)) * STEP * target.height
    x, y = np.meshgrid(np.concatenate([-across[::-1], across]), np.arange(low[1], high[1], STEP * target.height))
    start = np.stack([x.ravel(), y.ravel(), np.full(x.size, high[2] + 0.3 * target.height)], axis=1)
    direction = np.array([0.0, 0.0, -1.0])
    own_hit, own = first_hits(vertices, faces, start, direction)
    in_file = placed.inverse_apply(torch.from_numpy(start)).numpy()
    toward = direction @ placed.rotation.double().numpy()
    places, triangles = mesh.vertices.double().numpy(), mesh.faces.numpy()
    other_hit, other = first_hits(places, triangles, in_file, toward)
    other = other * placed.scale
    own_seen = (own_hit >= 0) & face[np.maximum(own_hit, 0)]
    both = (own_hit >= 0) & (other_hit >= 0)
    if (both & own_seen).any():
        gap = other - own
        both &= np.abs(gap - np.median(gap[both & own_seen])) < BEYOND * target.height
    corners = places[triangles[np.maximum(other_hit, 0)]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    maps = (own, other, own_seen, both, normals @ toward > 0)
    return DepthMaps(x, y, *(values.reshape(x.shape) for values in maps))


def relief_of(depth: np.ndarray, mask: np.ndarray, height: float) -> np.ndarray:
    """A depth map without what is smoother than a nose, 0 outside of its mask; all [H, W].

    Bulge and slope go first: at the rim of the face a filter would mistake them for relief.
    """
    from scipy.ndimage import gaussian_filter

    sigma, limit = SIGMA / STEP, CLIP * height
    rows, columns = np.nonzero(mask)
    terms = np.stack([np.ones(len(rows)), rows, columns, rows**2, rows * columns, columns**2], axis=-1)
    rest = np.zeros(depth.shape)
    values = depth[mask] - terms @ np.linalg.lstsq(terms, depth[mask], rcond=None)[0]
    rest[mask] = np.clip(values, -BEYOND * height, BEYOND * height)
    weight = np.maximum(gaussian_filter(mask.astype(np.float64), sigma, mode="constant"), 1e-6)
    relief = (rest - gaussian_filter(rest, sigma, mode="constant") / weight) * mask
    # A lock of hair or a hole stands out by more than any face does.
    return np.clip(relief, -limit, limit)


def window_at(depths: DepthMaps, middle: np.ndarray, size: float) -> np.ndarray:
    """A Gaussian window [H, W] around a place [2 or 3]."""
    return np.exp(-((depths.x - middle[0]) ** 2 + (depths.y - middle[1]) ** 2) / (2 * size**2))


def correlations(
    own: np.ndarray, other: np.ndarray, window: np.ndarray, seen: np.ndarray, down: range, across: range
) -> np.ndarray:
    """Correlations of two reliefs [H, W] under a window for each shift of the second, down and across."""
    found = np.zeros((len(down), len(across)))
    for row, dy in enumerate(down):
        for column, dx in enumerate(across):
            moved, weight = (np.roll(values, (dy, dx), (0, 1)) for values in (other, seen))
            weight = weight * window
            if weight.sum() > LEAST_SEEN * window.sum():
                found[row, column] = _correlation(own, moved, weight, LEAST_RELIEF)
    return found


def _best_shifts(found: dict[str, np.ndarray]) -> dict[str, float]:
    """The best of each feature's correlations. Nose and mouth lie in the middle; the eyes at mirrored places, and each
    counts for both: one alone may be chance."""
    middle = slice(len(SHIFTS_X) // 2 - 1, len(SHIFTS_X) // 2 + 2)
    right, left = found["right eye"], found["left eye"][:, ::-1]
    eyes = float((right + left).max()) / 2
    return {name: eyes if "eye" in name else float(found[name][:, middle].max()) for name in found}


def _symmetry(relief: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> float:
    """Correlation of a relief [H, W] with its mirror image, over small shifts; weights: of the body's and its own."""
    best = 0.0
    for shift in MIRROR_SHIFTS:
        mirrored, seen = (np.roll(values[:, ::-1], shift, 1) for values in (relief, weights[1]))
        best = max(best, _correlation(relief, mirrored, weights[0] * weights[1] * seen, 1.0))
    return best


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray, least: float) -> float:
    """Weighted normalized correlation; `least`: of the first's energy, what the second is taken to have at least."""
    total = max(float(weight.sum()), 1e-12)
    a, b = first - (weight * first).sum() / total, second - (weight * second).sum() / total
    energy, other = float((weight * a * a).sum()), float((weight * b * b).sum())
    floor = least * energy if least < 1 else 0.0
    return float((weight * a * b).sum()) / math.sqrt(max(energy * max(other, floor), 1e-20))


def first_hits(
    vertices: np.ndarray, faces: np.ndarray, start: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First face [N] (-1 if none) along rays from start [N, 3], and how far away it is [N]."""
    import igl

    tree = igl.AABB()
    vertices, faces = np.ascontiguousarray(vertices), np.ascontiguousarray(faces)
    tree.init(vertices, faces)
    directions = np.ascontiguousarray(np.broadcast_to(direction, start.shape))
    face, distance, _ = tree.intersect_ray_first(vertices, faces, np.ascontiguousarray(start), directions)
    return face, np.where(face >= 0, distance, 0.0)
