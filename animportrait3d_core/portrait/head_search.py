"""Finding the head in a mesh of unknown axes, units and crop: a coarse search over poses, then trimmed ICP.

Coarse: a head is symmetric, and the normal of a mirror plane is a principal axis of the surface, so the candidates are
the axis-aligned orientations and, about each principal axis, a full turn of nods; each with several guesses of how much
of the mesh's height is head. The target's face is laid into each, and the mean distance to the surface decides.
Fine: point-to-plane ICP with scale (Chen and Medioni, "Object modelling by registration of multiple range images",
1992, with a seventh unknown), from the target's outer surface to the mesh: hair and clothes, which the target lacks,
have no say. Far pairs are trimmed.
Last: a face must be there. The relief of the surface in front of the target's face (nose, orbits, lips; what is
smoother is filtered out) is compared with the target's own; a sphere, a box or a car body has none of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import torch

from ..errors import InvalidInput
from ..mesh_queries import SurfaceTree
from ..meshes import Mesh
from .alignment import HandAlignment, HeadAlignment
from .head_target import FACE_WEIGHT, HeadTarget

# Share of the mesh's height between chin and crown: a head alone, with neck, with shoulders, with torso, whole bodies.
HEAD_SHARES = tuple(1.12 * 0.84**step for step in range(13))
# How far the mesh's top stands above the body's bald crown, in head heights: hair, hats.
TOP_OFFSETS = (0.03, 0.16)
NODS = 24
SEARCH_POINTS, COARSE_POINTS, FINE_POINTS = 200, 300, 1500
COARSE_SURFACE, FINE_SURFACE = 2500, 12000
STARTS = 24
# Relief, in shares of the head's height: ray spacing, width of the filter (about half a nose), largest value.
RELIEF_STEP, RELIEF_SIGMA, RELIEF_CLIP = 0.015, 0.08, 0.08
SEARCH_CAP = 0.2  # of the head's height: distances beyond it count as this


@dataclasses.dataclass(frozen=True)
class SearchLimits:
    """What counts as a head.

    residual: largest mean distance of the face to the surface, as a share of the head's height.  relief: least
    agreement of the face's relief.  body_heads: largest distance from chin to the mesh's lowest point, in heads.
    """

    residual: float = 0.03
    relief: float = 0.4
    body_heads: float = 3.5


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


def find_head(mesh: Mesh, target: HeadTarget, limits: SearchLimits | None = None) -> HeadAlignment:
    """The alignment of a mesh of any orientation, unit and crop (head, bust, torso) onto the target; deterministic.

    Raises `InvalidInput`, with what was measured and the limit, when there is no head in it, or a whole body below.
    """
    limits = limits or SearchLimits()
    center, radius = _bounds(mesh.vertices.double().numpy())
    unit = dataclasses.replace(mesh, vertices=((mesh.vertices.double() - torch.from_numpy(center)) / radius).float())
    search = _Search(unit, target)
    starts = search.coarse_poses()
    likely = search.refine(starts, search.coarse, COARSE_POINTS, rounds=15)[:5]
    best = search.finish(search.refine(likely, search.fine, FINE_POINTS, rounds=30)[0])
    residual, relief = search.residual(best) / target.height, search.relief(best)
    scale = best.scale / radius
    translation = torch.from_numpy(best.translation - scale * best.rotation @ center).float()
    found = HeadAlignment(
        torch.from_numpy(best.rotation).float(), scale, translation, "found", residual * target.height, relief
    )
    _check_head(found, mesh, target, limits)
    return found


def _bounds(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    low, high = vertices.min(0), vertices.max(0)
    return (low + high) / 2, float(np.linalg.norm(high - low)) / 2


def _check_head(found: HeadAlignment, mesh: Mesh, target: HeadTarget, limits: SearchLimits) -> None:
    placement = f"The placement that was found, for the alignment `by hand`: {HandAlignment.of(found).words()}."
    residual, relief = found.residual / target.height, found.relief or 0.0
    if not (residual <= limits.residual and relief >= limits.relief):
        raise InvalidInput(
            f"find_head: there is no head in the mesh: the best placement leaves the face {100 * residual:.1f} % of a "
            f"head's height from the surface (limit {100 * limits.residual:.1f} %) with a relief agreement of "
            f"{relief:.2f} (at least {limits.relief:.2f}). If it is a head, align it by landmarks or by hand. "
            f"{placement}"
        )
    lowest = float(found.apply(mesh.vertices.double())[:, 1].min())
    below = (target.chin - lowest) / target.height
    if below > limits.body_heads:
        raise InvalidInput(
            f"find_head: the mesh goes on for {below:.1f} head heights below the chin, expected at most "
            f"{limits.body_heads:.1f}: it seems to be a whole body. Cut it at the chest and keep head and shoulders. "
            f"{placement}"
        )


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


class _Surface:
    """Samples of the mesh's surface in a tree."""

    def __init__(self, samples: _Samples) -> None:
        from scipy.spatial import cKDTree

        self.samples = samples
        self.tree = cKDTree(samples.points)

    def closest(self, pose: _Pose, samples: _Samples, cap: float) -> tuple[np.ndarray, np.ndarray]:
        """Distances [N] in head units, at most `cap`, from the target's samples to these, and the indices of these."""
        distance, index = self.tree.query(pose.to_file(samples.points), distance_upper_bound=cap / pose.scale)
        return np.minimum(distance * pose.scale, cap), np.minimum(index, len(self.samples.points) - 1)


class _Search:
    """One mesh and one target, prepared for many poses. The mesh is centred with radius 1; poses map it to the head."""

    def __init__(self, mesh: Mesh, target: HeadTarget) -> None:
        self.mesh, self.target = mesh, target
        self.coarse = _Surface(sample_surface(mesh, None, COARSE_SURFACE))
        self.fine = _Surface(sample_surface(mesh, None, FINE_SURFACE))
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
        chosen: list[_Pose] = []
        for pose in poses:
            if all(_differ(pose, other) for other in chosen):
                chosen.append(pose)
                if len(chosen) == STARTS:
                    break
        return chosen

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
        top, tall = turned[:, 1].max(), np.ptp(turned[:, 1])
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
        samples = self.samples[count]
        refined = []
        for pose in poses:
            for _ in range(rounds):
                distance, index = surface.closest(pose, samples, math.inf)
                pose = _icp_step(pose, samples, surface.samples.points[index], surface.samples.normals[index], distance)
            pose.score = self.score(pose, samples, surface)
            refined.append(pose)
        return sorted(refined, key=lambda pose: pose.score)

    def finish(self, pose: _Pose, rounds: int = 15) -> _Pose:
        """ICP against the exact surface instead of samples of it."""
        samples = self.samples[FINE_POINTS]
        tree = SurfaceTree(self.mesh.vertices, self.mesh.faces)
        corners = self.mesh.vertices.double().numpy()[self.mesh.faces.numpy()]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
        for _ in range(rounds):
            closest = tree.closest(torch.from_numpy(pose.to_file(samples.points)))
            distance = closest.distances.double().numpy() * pose.scale
            pose = _icp_step(pose, samples, closest.points.double().numpy(), normals[closest.faces.numpy()], distance)
        return pose

    def residual(self, pose: _Pose) -> float:
        """Mean distance of the target's face to the mesh in head units, the farthest tenth (fringe, beard) left out."""
        samples = self.samples[FINE_POINTS]
        face = samples.points[samples.weights >= FACE_WEIGHT]
        closest = SurfaceTree(self.mesh.vertices, self.mesh.faces).closest(torch.from_numpy(pose.to_file(face)))
        distance = np.sort(closest.distances.double().numpy() * pose.scale)
        return float(distance[: max(1, int(0.9 * len(distance)))].mean())

    def relief(self, pose: _Pose) -> float:
        """Agreement of the relief of the mesh and of the target over the target's face, seen from the front."""
        face = self.target.weights >= FACE_WEIGHT
        return relief_agreement(self.mesh, self.target, face, pose)


def _differ(pose: _Pose, other: _Pose) -> bool:
    """Whether two starts lie apart enough that ICP may lead them to different ends."""
    cosine = (np.trace(pose.rotation @ other.rotation.T) - 1) / 2
    return cosine < math.cos(math.radians(17)) or abs(math.log(pose.scale / other.scale)) > 0.12


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


def relief_agreement(mesh: Mesh, target: HeadTarget, face: torch.Tensor, pose: _Pose) -> float:
    """How well the relief of a mesh agrees with the target's over its faces `face` [F] bool, seen along -z: -1 to 1.

    Both depth maps lose what is smoother than a nose; then <a, b> / max(<a, a>, <b, b>): 1 for the same relief, near 0
    for a smooth surface or an unrelated one.
    """
    from scipy.ndimage import gaussian_filter

    vertices = target.mesh.vertices.double().numpy()
    corners = vertices[target.mesh.faces[face].numpy()].reshape(-1, 3)
    low, high = corners.min(0), corners.max(0)
    step = RELIEF_STEP * target.height
    x, y = np.meshgrid(np.arange(low[0], high[0], step), np.arange(low[1], high[1], step))
    start = np.stack([x.ravel(), y.ravel(), np.full(x.size, high[2] + 0.3 * target.height)], axis=1)
    own_hit, own = _first_hits(vertices, target.mesh.faces.numpy(), start, np.array([0.0, 0.0, -1.0]))
    other_hit, other = _first_hits(
        mesh.vertices.double().numpy(), mesh.faces.numpy(), pose.to_file(start), -pose.rotation[2]
    )
    seen = (own_hit >= 0) & face.numpy()[np.maximum(own_hit, 0)] & (other_hit >= 0)
    if seen.mean() < 0.2:
        return 0.0
    sigma, limit = RELIEF_SIGMA / RELIEF_STEP, RELIEF_CLIP * target.height
    mask = seen.reshape(x.shape).astype(np.float64)
    weight = np.maximum(gaussian_filter(mask, sigma, mode="constant"), 1e-6)
    columns = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)[mask > 0]
    reliefs = []
    for depth in (own, other * pose.scale):
        rest = np.zeros(x.shape)
        # Bulge and slope go first: at the rim of the face a filter would mistake them for relief.
        rest[mask > 0] = depth[seen] - columns @ np.linalg.lstsq(columns, depth[seen], rcond=None)[0]
        relief = (rest - gaussian_filter(rest, sigma, mode="constant") / weight) * mask
        # A lock of hair or a hole stands out by more than any face does.
        reliefs.append(np.clip(relief, -limit, limit).ravel())
    strongest = max(float(relief @ relief) for relief in reliefs)
    return float(reliefs[0] @ reliefs[1] / strongest) if strongest > 1e-12 else 0.0


def _first_hits(
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
