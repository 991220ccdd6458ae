"""Finding the head in a mesh of unknown axes, units and crop: a coarse search over poses, then trimmed ICP.

Coarse: a head is symmetric, and the normal of a mirror plane is a principal axis of the surface, so the candidates are
the axis-aligned orientations and, about each principal axis, a full turn of nods; each with several guesses of how much
of the mesh's height is head. The target's face is laid into each, and the mean distance to the surface decides.
Fine: point-to-plane ICP with scale (Chen and Medioni, "Object modelling by registration of multiple range images",
1992, with a seventh unknown), from the target's outer surface to the mesh: hair and clothes, which the target lacks,
have no say. Far pairs are trimmed.
Last: a face must be there (`face_relief`). Where that is in doubt, the search goes on: heads that are turned on their
shoulders, and the other places that came out near the best; the one that looks most like a face is taken.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import torch

from ..errors import InvalidInput
from ..landmarks import NOSE
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh
from ..progress import may_stop
from .alignment import HandAlignment, HeadAlignment
from .face_relief import FaceRelief, face_relief
from .head_target import FACE_WEIGHT, HeadTarget

# Share of the mesh's height between chin and crown: a head alone, with neck, with shoulders, with torso, whole bodies.
HEAD_SHARES = tuple(1.12 * 0.84**step for step in range(13))
# How far the mesh's top stands above the body's bald crown, in head heights: hair, hats.
TOP_OFFSETS = (0.03, 0.16)
NODS = 24
SEARCH_POINTS, COARSE_POINTS, FINE_POINTS = 200, 300, 1500
COARSE_SURFACE, FINE_SURFACE = 2500, 12000
STARTS = 24
TURN_DEGREES = 25.0  # of a head on its shoulders, about each axis: tried from the most likely places
SURE = 0.7  # agreement of a face about which there is no doubt
TRIED = 4  # places that are looked at if there is
SEARCH_CAP = 0.2  # of the head's height: distances beyond it count as this


@dataclasses.dataclass(frozen=True)
class SearchLimits:
    """What counts as a head.

    residual: largest mean distance of the face to the surface, as a share of the head's height.  relief: least
    agreement of the face's relief (`FaceRelief.agreement`): heads that others made, cartoons among them, have 0.56 and
    more, things 0.47 and less.
    """

    residual: float = 0.03
    relief: float = 0.5


class NoHead(InvalidInput):
    """Nothing in the mesh has the relief of a face."""


@dataclasses.dataclass
class _Pose:
    """head = scale * rotation @ file + translation, with its score (lower is better)."""

    rotation: np.ndarray
    scale: float
    translation: np.ndarray
    score: float = math.inf

    def to_file(self, points: np.ndarray) -> np.ndarray:
        return (points - self.translation) @ self.rotation / self.scale


@dataclasses.dataclass(frozen=True)
class _Samples:
    points: np.ndarray  # [N, 3]
    normals: np.ndarray  # [N, 3] unit
    weights: np.ndarray  # [N] importance

    def part(self, chosen: np.ndarray) -> _Samples:
        """Those that `chosen` [N] bool names."""
        return _Samples(self.points[chosen], self.normals[chosen], self.weights[chosen])


def find_head(mesh: Mesh, target: HeadTarget, limits: SearchLimits | None = None) -> HeadAlignment:
    """The alignment of a mesh of any orientation, unit and crop (head to whole body) onto the target; deterministic.

    Raises `NoHead`, with what was measured and the limit, when there is no head in it; `InvalidInput` for half a face.
    """
    limits = limits or SearchLimits()
    center, radius = _bounds(mesh.vertices.double().numpy())
    unit = dataclasses.replace(mesh, vertices=((mesh.vertices.double() - torch.from_numpy(center)) / radius).float())
    search = _Search(unit, target)
    starts = search.coarse_poses()
    refined = search.refine(starts, search.coarse, COARSE_POINTS, rounds=15)
    best = search.judged(search.refine(refined[:5], search.fine, FINE_POINTS, rounds=30)[0])
    if best.relief.agreement < SURE:
        best = search.most_face(best, refined, limits)
    pose = best.pose
    scale = pose.scale / radius
    translation = torch.from_numpy(pose.translation - scale * pose.rotation @ center).float()
    rotation = torch.from_numpy(pose.rotation).float()
    found = HeadAlignment(rotation, scale, translation, "found", best.residual, best.relief.agreement)
    _check_head(found, best.relief, target, limits)
    return found


def _bounds(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    low, high = vertices.min(0), vertices.max(0)
    return (low + high) / 2, float(np.linalg.norm(high - low)) / 2


def _check_head(found: HeadAlignment, relief: FaceRelief, target: HeadTarget, limits: SearchLimits) -> None:
    residual = found.residual / target.height
    is_face, (right, left) = relief.agreement >= limits.relief, relief.seen
    if is_face and relief.is_half:
        raise InvalidInput(
            f"find_head: only half of a face is in the mesh: {right:.0%} of its right side and {left:.0%} of its left "
            f"have a surface. Mirror the half or complete the scan. {_placement(found)}"
        )
    if is_face and residual <= limits.residual:
        return
    raise NoHead(
        f"find_head: there is no head in the mesh: the best placement leaves the face {100 * residual:.1f} % of a "
        f"head's height from the surface (limit {100 * limits.residual:.1f} %) with a relief agreement of "
        f"{relief.agreement:.2f} (at least {limits.relief:.2f}; {relief.words()}). If it is a head, align it by "
        f"landmarks or by hand. {_placement(found)}"
    )


def _placement(found: HeadAlignment) -> str:
    return f"The placement that was found, for the alignment `by hand`: {HandAlignment.of(found).words()}."


def sample_surface(mesh: Mesh, weights: torch.Tensor | None, count: int) -> _Samples:
    """`count` points spread over a mesh in proportion to area times weight [F]; low-discrepancy, no randomness."""
    corners = mesh.vertices.double().numpy()[mesh.faces.numpy()]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = 0.5 * np.linalg.norm(normals, axis=1)
    importance = np.ones(len(areas)) if weights is None else weights.double().numpy()
    total = np.cumsum(areas * importance)
    places = (np.arange(count) + 0.5) / count * total[-1]
    faces = np.minimum(np.searchsorted(total, places), len(total) - 1)
    # The R2 sequence (Roberts 2018): consecutive points fill the unit square evenly.
    u, v = (np.arange(1, count + 1)[:, None] * [0.7548776662466927, 0.5698402909980532] % 1).T
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    points = (np.stack([1 - u - v, u, v], axis=1)[..., None] * corners[faces]).sum(1)
    unit = normals[faces] / np.maximum(2 * areas[faces], 1e-30)[:, None]
    return _Samples(points, unit, importance[faces])


@dataclasses.dataclass(frozen=True)
class _Judged:
    """A pose at the exact surface. residual: mean distance of the face in head units.  relief: is it a face?"""

    pose: _Pose
    residual: float
    relief: FaceRelief


class _Surface:
    """Samples of the mesh's surface in a tree."""

    def __init__(self, samples: _Samples) -> None:
        from scipy.spatial import cKDTree

        self.samples = samples
        self.tree = cKDTree(samples.points)

    def closest(self, pose: _Pose, samples: _Samples, cap: float) -> tuple[np.ndarray, np.ndarray]:
        """Distances [N] in head units, at most `cap`, from the target's samples to these, and the indices of these."""
        may_stop()
        distance, index = self.tree.query(pose.to_file(samples.points), distance_upper_bound=cap / pose.scale)
        return np.minimum(distance * pose.scale, cap), np.minimum(index, len(self.samples.points) - 1)


class _Search:
    """One mesh and one target, prepared for many poses. The mesh is centred with radius 1; poses map it to the head."""

    def __init__(self, mesh: Mesh, target: HeadTarget) -> None:
        self.mesh, self.target = mesh, target
        self.coarse = _Surface(sample_surface(mesh, None, COARSE_SURFACE))
        self.fine = _Surface(sample_surface(mesh, None, FINE_SURFACE))
        self.tree = SurfaceTree(mesh.vertices, mesh.faces)
        corners = mesh.vertices.double().numpy()[mesh.faces.numpy()]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.face_normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
        self.cap = SEARCH_CAP * target.height
        self.samples = {
            count: sample_surface(target.mesh, target.weights, count)
            for count in (SEARCH_POINTS, COARSE_POINTS, FINE_POINTS)
        }

    def score(self, pose: _Pose, samples: _Samples, surface: _Surface) -> float:
        """Mean distance of the target's samples from the mesh, plus a share for normals that disagree; capped."""
        distance, index = surface.closest(pose, samples, self.cap)
        facing = np.abs((samples.normals @ pose.rotation * surface.samples.normals[index]).sum(1))
        return float(np.mean(distance + 0.5 * self.cap * (1 - facing)))

    def coarse_poses(self) -> list[_Pose]:
        """The most promising starts, best first, different from each other."""
        samples = self.samples[SEARCH_POINTS]
        poses = [pose for rotation in self._orientations() for pose in self._placements(rotation)]
        for pose in poses:
            pose.score = self.score(pose, samples, self.coarse)
        poses.sort(key=lambda pose: pose.score)
        return _different(poses, STARTS)

    def _orientations(self) -> list[np.ndarray]:
        """Rotations [3, 3] whose rows are the file's directions of the head's left, up and face."""
        found = []
        for left, up in itertools.product(range(3), range(3)):
            if left != up:
                for signs in itertools.product((1, -1), repeat=2):
                    rows = np.zeros((3, 3))
                    rows[0, left], rows[1, up] = signs
                    rows[2] = np.cross(rows[0], rows[1])
                    found.append(rows)
        points = self.fine.samples.points
        centered = points - points.mean(0)
        _, axes = np.linalg.eigh(centered.T @ centered)
        for axis in range(3):
            normal, first = axes[:, axis], axes[:, (axis + 1) % 3]
            second = np.cross(normal, first)
            for step in range(NODS):
                angle = 2 * math.pi * step / NODS
                nod = math.cos(angle) * first + math.sin(angle) * second
                for sign in (1, -1):
                    found.append(np.stack([sign * normal, nod, np.cross(sign * normal, nod)]))
        return found

    def _placements(self, rotation: np.ndarray) -> list[_Pose]:
        """Scales and positions for one orientation: the mesh's top at the crown, its front at the nose."""
        turned = self.coarse.samples.points @ rotation.T
        top, tall = turned[:, 1].max(), max(np.ptp(turned[:, 1]), 1e-6)  # a flat sheet has no height
        height, vertices = self.target.height, self.target.mesh.vertices
        crown, nose = float(vertices[:, 1].max()), float(vertices[:, 2].max())
        poses = []
        for share, offset in itertools.product(HEAD_SHARES, TOP_OFFSETS):
            scale = (1 + offset) * height / (share * tall)
            slab = turned[turned[:, 1] > top - (1 + offset) * height / scale]
            if len(slab) < 20:
                continue
            middle = 0.5 * (slab[:, 0].min() + slab[:, 0].max())
            front = slab[:, 2].max()
            corner = np.array([0.0, crown + offset * height, nose])
            poses.append(_Pose(rotation, scale, corner - scale * np.array([middle, top, front])))
        return poses

    def refine(self, poses: list[_Pose], surface: _Surface, count: int, rounds: int) -> list[_Pose]:
        """The poses after `rounds` of ICP with `count` samples each, best first."""
        return self._icp(poses, self.samples[count], surface, rounds)

    def _icp(self, poses: list[_Pose], samples: _Samples, surface: _Surface, rounds: int) -> list[_Pose]:
        refined = []
        for pose in poses:
            for _ in range(rounds):
                distance, index = surface.closest(pose, samples, math.inf)
                pose = _icp_step(pose, samples, surface.samples.points[index], surface.samples.normals[index], distance)
            pose.score = self.score(pose, samples, surface)
            refined.append(pose)
        return sorted(refined, key=lambda pose: pose.score)

    def judged(self, pose: _Pose) -> _Judged:
        """The pose after ICP against the exact surface instead of samples of it, and what is there."""
        for _ in range(15):
            pose = self._exact_step(pose, self.samples[FINE_POINTS])
        return self._measured(pose)

    def most_face(self, best: _Judged, refined: list[_Pose], limits: SearchLimits) -> _Judged:
        """Of the best, the other likely poses, and all of them with the head turned: what looks most like a face."""
        face = self.samples[FINE_POINTS].part(self.samples[FINE_POINTS].weights >= FACE_WEIGHT)
        few = self.samples[COARSE_POINTS].part(self.samples[COARSE_POINTS].weights >= FACE_WEIGHT)
        turned = [pose for start in [best.pose, *refined[:TRIED]] for pose in self._turned(start)]
        turned = self._icp(turned, few, self.coarse, rounds=20)
        others = [pose for pose in refined[1 : 2 * TRIED] if _differ(pose, best.pose)]
        for pose in _different([*turned[:TRIED], *others[:TRIED]], 2 * TRIED):
            for _ in range(15):
                pose = self._exact_step(pose, face)
            found = self._measured(pose)
            fits = found.residual <= limits.residual * self.target.height
            if (fits or found.relief.is_half) and found.relief.agreement > best.relief.agreement:
                best = found
        return best

    def _turned(self, pose: _Pose) -> list[_Pose]:
        """The pose with the head nodded, turned and tilted about the middle of the target's face."""
        middle = self.target.landmarks[: NOSE.stop].double().mean(0).numpy()
        poses = []
        for axis, sign in itertools.product(np.eye(3), (1, -1)):
            turn = _rotation(axis * sign * math.radians(TURN_DEGREES))
            poses.append(_Pose(turn @ pose.rotation, pose.scale, turn @ (pose.translation - middle) + middle))
        return poses

    def _exact_step(self, pose: _Pose, samples: _Samples) -> _Pose:
        closest = self.tree.closest(torch.from_numpy(pose.to_file(samples.points)))
        distance = closest.distances.double().numpy() * pose.scale
        return _icp_step(
            pose, samples, closest.points.double().numpy(), self.face_normals[closest.faces.numpy()], distance
        )

    def _measured(self, pose: _Pose) -> _Judged:
        """Mean distance of the target's face to the mesh, without the farthest tenth (fringe, beard); its relief."""
        samples = self.samples[FINE_POINTS]
        face = samples.points[samples.weights >= FACE_WEIGHT]
        closest = self.tree.closest(torch.from_numpy(pose.to_file(face)))
        distance = np.sort(closest.distances.double().numpy() * pose.scale)
        rotation, translation = torch.from_numpy(pose.rotation).float(), torch.from_numpy(pose.translation).float()
        placed = HeadAlignment(rotation, pose.scale, translation, "found")
        residual = float(distance[: max(1, int(0.9 * len(distance)))].mean())
        return _Judged(pose, residual, face_relief(self.mesh, self.target, placed))


def _differ(pose: _Pose, other: _Pose) -> bool:
    """Whether two starts lie apart enough that ICP may lead them to different ends."""
    cosine = (np.trace(pose.rotation @ other.rotation.T) - 1) / 2
    return cosine < math.cos(math.radians(17)) or abs(math.log(pose.scale / other.scale)) > 0.12


def _different(poses: list[_Pose], most: int) -> list[_Pose]:
    """The first `most` poses without those that are like an earlier one."""
    chosen: list[_Pose] = []
    for pose in poses:
        if len(chosen) < most and all(_differ(pose, other) for other in chosen):
            chosen.append(pose)
    return chosen


def _icp_step(pose: _Pose, samples: _Samples, closest: np.ndarray, normals: np.ndarray, distance: np.ndarray) -> _Pose:
    """One damped Gauss-Newton step of weighted point-to-plane distances in rotation, scale and translation.

    closest, normals: [N, 3] of the mesh, in its frame, for each sample of the target.
    """
    turned = normals @ pose.rotation.T
    facing = np.abs((turned * samples.normals).sum(1))
    scale = max(np.quantile(distance, 0.7), 1e-4)
    # Tukey's weights trim far pairs; pairs whose normals disagree are on another part of the surface.
    weights = np.clip(1 - (distance / (2.5 * scale)) ** 2, 0, None) ** 2 * np.clip(facing, 0, 1) ** 2
    placed = pose.scale * closest @ pose.rotation.T + pose.translation
    middle = samples.points.mean(0)
    arm = placed - middle
    error = ((samples.points - placed) * turned).sum(1)
    columns = np.concatenate([np.cross(arm, turned), (arm * turned).sum(1, keepdims=True), turned], axis=1)
    normal_matrix = columns.T @ (weights[:, None] * columns)
    # A trace of point-to-point distance keeps what slides freely (a sphere's turn, a cylinder's length) in place.
    damping = 1e-3 * np.trace(normal_matrix) / 7
    step = np.linalg.solve(normal_matrix + damping * np.eye(7), columns.T @ (weights * error))
    turn = _rotation(np.clip(step[:3], -0.3, 0.3))
    growth = math.exp(float(np.clip(step[3], -0.1, 0.1)))
    translation = growth * turn @ (pose.translation - middle) + middle + step[4:]
    return _Pose(turn @ pose.rotation, growth * pose.scale, translation)


def _rotation(vector: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()
