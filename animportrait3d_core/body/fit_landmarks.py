"""Detected landmarks of many pictures, some of them wrong: what they agree on, and their pull on a body.

A detector errs in three ways: a point is off, a whole picture is off (another face, left and right exchanged), or a
point means something else in another view, as the jawline does, which slides along the outline as the head turns.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..cameras import Cameras, project
from ..errors import InvalidInput
from ..landmarks import JAWLINE, LEFT_EYE, MOUTH, NUM_FACE_LANDMARKS, RIGHT_EYE
from ..meshes import Mesh
from ..progress import may_stop
from .fit_terms import image_derivatives
from .fit_variables import LinearizedBody, NormalEquations, geman_mcclure_weights
from .landmarks import Landmarks, closest_to_rays, degrees_from_front, outer_eye_distance, viewing_rays
from .lid_holes import lids_at_holes
from .surface_landmarks import landmarks_on_surface

_MIN_AGREEING_SHARE = 0.5  # of a view's detections; under it the view as a whole is not believed
_MIN_VIEW_ANGLE = 3.0  # degrees between two rays that place a point in space
_PAIRS_AT_ONCE = 64
_ROBUST_STEPS = 10
_VIEWS_OF_BIAS = 6  # a landmark errs alike in all views as much as the mean of so many views errs by chance
_APART = 0.015  # of the outer-eye distance: views that differ so much from a point know it no better than a surface
_JAWLINE_WEIGHT = 0.6
_JAWLINE_DEGREES = 35.0  # from the front: turned further, the jawline that is seen is another line on the head


@dataclasses.dataclass(frozen=True)
class LandmarkConsensus:
    """What B pictures' detections agree on.

    points: [68, 3] float32 in the world.  determined: [68] bool, which of them at least two views place.  weights:
    [B, 68], each detection's confidence, 0 for wrong ones, less on the jawline.  is_outlier: [B, 68] bool, detections
    that are farther than twice the width from the point that the others give.  has_face, trusted: [B] bool, views with
    any detection, and those of them that agree with the others.
    """

    points: Tensor
    determined: Tensor
    weights: Tensor
    is_outlier: Tensor
    has_face: Tensor
    trusted: Tensor

    @property
    def point_weights(self) -> Tensor:
        """Weights [68] in 0..1 of the points in space: that of their best detection."""
        return self.weights.amax(0) * self.determined


def find_consensus(cameras: Cameras, landmarks: Landmarks, width: float) -> LandmarkConsensus:
    """The points on which most views agree, within about `width` world units.

    Each pair of views proposes points; the proposal that most views support wins, point by point, and is refined by
    robust least squares (Geman-McClure). A view where fewer than half of the detections agree is left out and all is
    done again without it. No random numbers: the order of views does not matter.

    Raises `InvalidInput` if no view or only one has a face, or if fewer than two views agree.
    """
    has_face = _views_with_a_face(landmarks)
    pixels, confidence = (values[has_face] for values in landmarks.detections)
    confidence = confidence.double()
    chosen = cameras[torch.nonzero(has_face).squeeze(1)]
    origins, directions = viewing_rays(chosen, pixels)
    points = _refined(origins, directions, confidence, width)[0]
    agrees = _ray_distances(origins, directions, points) < 2 * width
    share = (confidence * agrees).sum(1) / confidence.sum(1)
    trusted = share >= _MIN_AGREEING_SHARE
    if int(trusted.sum()) < 2:
        raise InvalidInput(
            f"fit_body: of {len(share)} views with a face, {int(trusted.sum())} agree with the others, expected at "
            f"least 2 (best: {float(share.max()):.0%} of its landmarks, {_MIN_AGREEING_SHARE:.0%} are needed). Look "
            "at the detected landmarks; disconnect them to fit by the surface alone."
        )
    points, determined = _refined(origins, directions, confidence * trusted[:, None], width)
    agrees = _ray_distances(origins, directions, points) < 2 * width
    facing = _jawline_weights(chosen, points, determined)
    weights = confidence * trusted[:, None] * (agrees | ~determined) * facing
    return LandmarkConsensus(
        points=points.float(),
        determined=determined,
        weights=_spread(weights.float(), has_face),
        is_outlier=_spread((confidence > 0) & determined & ~agrees, has_face),
        has_face=has_face,
        trusted=_spread(trusted, has_face),
    )


def _views_with_a_face(landmarks: Landmarks) -> Tensor:
    _, confidence = landmarks.detections
    has_face = (confidence > 0).any(1)
    if not bool(has_face.any()):
        raise InvalidInput(
            f"fit_body: no face found in any of the {len(confidence)} views. Check that views from the front are among "
            "them and show one face upright and large enough; or disconnect the landmarks to fit by the surface alone."
        )
    if int(has_face.sum()) == 1:
        raise InvalidInput(
            f"fit_body: a face was found in 1 of {len(confidence)} views (view {int(has_face.nonzero()[0])}), expected "
            "at least 2, which place landmarks in space. Add views from the front, or disconnect the landmarks."
        )
    return has_face


def _spread(values: Tensor, where: Tensor) -> Tensor:
    """Rows [b, ...] put back at the b places that `where` [B] names; the others are zero."""
    full = values.new_zeros(len(where), *values.shape[1:])
    full[where] = values
    return full


def _ray_distances(origins: Tensor, directions: Tensor, points: Tensor) -> Tensor:
    """Distances [..., B, 68] of points [..., 68, 3] to the rays of B views; infinite behind a camera."""
    offset = points[..., None, :, :] - origins[:, None]
    along = (offset * directions).sum(-1)
    across = (offset.square().sum(-1) - along.square()).clamp(min=0).sqrt()
    return torch.where(along > 0, across, torch.full_like(across, torch.inf))


def _apart(origins: Tensor, directions: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Root mean square distance [68] of the points [68, 3] to their rays, by weights [B, 68]; 0 where none counts."""
    squared = torch.where(weights > 0, _ray_distances(origins, directions, points).square() * weights, 0.0)
    return (squared.sum(0) / weights.sum(0).clamp(min=1e-9)).sqrt()


def _refined(origins: Tensor, directions: Tensor, confidence: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Points [68, 3] and a mask of those that are determined: the best proposal, then robust least squares."""
    points = _best_proposals(origins, directions, confidence, width)
    determined = torch.zeros(len(points), dtype=torch.bool)
    for _ in range(_ROBUST_STEPS):
        robust = geman_mcclure_weights(_ray_distances(origins, directions, points), width) * confidence
        points, determined = closest_to_rays(origins, directions, robust)
    return points, determined


def _best_proposals(origins: Tensor, directions: Tensor, confidence: Tensor, width: float) -> Tensor:
    """For each landmark, of the points [68, 3] that pairs of views give, the one with the most support."""
    pairs = torch.combinations(torch.arange(len(origins)))
    best = origins.new_full((NUM_FACE_LANDMARKS,), -1.0)
    points = origins.new_zeros(NUM_FACE_LANDMARKS, 3)
    min_sine = torch.sin(torch.deg2rad(torch.tensor(_MIN_VIEW_ANGLE)))
    for some in pairs.split(_PAIRS_AT_ONCE):
        may_stop()
        pair_directions = directions[some]
        sine = torch.linalg.cross(pair_directions[:, 0], pair_directions[:, 1]).norm(dim=-1)
        usable = (sine > min_sine) & (confidence[some] > 0).all(1)
        proposed, _ = closest_to_rays(origins[some], pair_directions, torch.ones_like(pair_directions[..., 0]))
        distances = _ray_distances(origins, directions, proposed)
        support = (confidence / (1 + (distances / width) ** 2)).sum(1)
        support, winner = torch.where(usable, support, torch.full_like(support, -1.0)).max(0)
        better = support > best
        best = torch.where(better, support, best)
        points = torch.where(better[:, None], proposed.gather(0, winner[None, :, None].expand(1, -1, 3))[0], points)
    return points


def _jawline_weights(cameras: Cameras, points: Tensor, determined: Tensor) -> Tensor:
    """Weights [B, 68]: 1, and on the jawline little, or nothing if the camera is far from the front of the face."""
    weights = points.new_ones(len(cameras), NUM_FACE_LANDMARKS)
    groups = [points[part][determined[part]] for part in (RIGHT_EYE, LEFT_EYE, MOUTH)]
    if any(len(group) == 0 for group in groups):  # the front of the face is unknown
        weights[:, JAWLINE] = 0.0
        return weights
    frontal = (degrees_from_front(cameras, *(group.mean(0) for group in groups)) <= _JAWLINE_DEGREES).to(weights)
    weights[:, JAWLINE] = _JAWLINE_WEIGHT * frontal[:, None]
    return weights


class LandmarkTerm:
    """Distances to given landmarks, in space and in pictures (pixels times depth over focal length).

    in_space: points [68, 3] and weights [68] in 0..1, the given ones or those that the pictures agree on.
    pull_in_space: [68] weights of those that are not left to the pictures.
    """

    def __init__(self, landmarks: Landmarks, cameras: Cameras, consensus_width: float) -> None:
        """cameras: of the pictures, if the landmarks are pixels.  Raises what `find_consensus` raises."""
        self.landmarks = landmarks
        self.consensus = None
        if landmarks.points_2d is not None:
            self.consensus = find_consensus(cameras, landmarks, consensus_width)
            self.views = torch.nonzero(self.consensus.trusted).squeeze(1)
            self.cameras, self.pixels = cameras[self.views], landmarks.points_2d[self.views]
            self.in_space = self.consensus.points, self.consensus.point_weights
        self.pull_in_space = torch.zeros(NUM_FACE_LANDMARKS)
        if landmarks.points_3d is not None:
            self.in_space = landmarks.points_3d, landmarks.confidence_3d
            self.pull_in_space = landmarks.confidence_3d

    def lay_on(self, mesh: Mesh, covering: Tensor) -> None:
        """Moves `in_space`, if it was not given, towards where the detections meet the surface: the more, the less the
        views agree. Lids go to the borders of the surface's holes, where its eyes are holes: those are known, and
        detections of them no longer count. covering: [F] bool, faces that hide a face."""
        if self.consensus is None or self.landmarks.points_3d is not None:
            return
        points, weights = self.in_space
        found = self.consensus.weights[self.views]
        unit = outer_eye_distance(points)
        apart = _apart(*viewing_rays(self.cameras, self.pixels), points.double(), found) / unit
        share = (apart**4 / (apart**4 + _APART**4)).float()[:, None]
        on_surface = landmarks_on_surface(mesh, covering, self.cameras, self.pixels, found, points)
        points = torch.lerp(points, on_surface, share)
        lids = lids_at_holes(mesh, points)
        if lids is not None:
            number = slice(RIGHT_EYE.start, LEFT_EYE.stop)
            points[number], weights = lids, weights.clone()
            weights[number] = self.pull_in_space[number] = 1.0
            seen = self.consensus.weights.clone()
            seen[:, number] = 0.0
            self.consensus = dataclasses.replace(self.consensus, weights=seen)
        self.in_space = points, weights

    def add_to(self, system: NormalEquations, posed: LinearizedBody, width: float, weight: float) -> None:
        """Adds both forms; `weight` counts one whole landmark of confidence 1, in space or in very many views."""
        points, derivatives = posed.landmarks[:NUM_FACE_LANDMARKS], posed.d_landmarks[:NUM_FACE_LANDMARKS]
        if bool((self.pull_in_space > 0).any()):
            offset = points - self.in_space[0]
            robust = geman_mcclure_weights(offset.norm(dim=-1), width) * self.pull_in_space * weight
            system.add(offset.flatten(), derivatives.flatten(0, 1), robust.repeat_interleave(3))
        if self.consensus is not None:
            offset, pixels = self.reprojection(points)
            robust = geman_mcclure_weights(offset.norm(dim=-1), width) * self.consensus.weights[self.views]
            chosen = robust > 1e-3
            view, number = torch.nonzero(chosen, as_tuple=True)
            flat = image_derivatives(self.cameras, view, pixels[chosen], derivatives[number])
            share = robust[chosen] * (weight / (len(self.views) + _VIEWS_OF_BIAS))
            system.add(offset[chosen].flatten(), flat.flatten(0, 1), share.repeat_interleave(2))

    def reprojection(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets [b, 68, 2] from the detections in the b trusted views, in world units at the points' depth, and the
        pixels [b, 68, 2] of points [68, 3]."""
        pixels, depth = project(self.cameras, points)
        scale = depth / self.cameras.K[:, 0, 0, None]
        return (pixels - self.pixels) * scale[..., None], pixels

    def metrics(self, points: Tensor, unit: float) -> dict[str, float]:
        """How far fitted points [68, 3] are from the landmarks, over the length `unit`, and how good those are.

        Keys: see `fit.BodyFit`.
        """
        target, weights = self.in_space
        found = {"landmark_error": float(((points - target).norm(dim=-1) * weights).sum() / weights.sum()) / unit}
        if self.consensus is not None:
            distances, weights = self.reprojection(points)[0].norm(dim=-1), self.consensus.weights[self.views]
            per_view = (distances * weights).sum(1) / weights.sum(1).clamp(min=1e-9) / unit
            worst = int(per_view.argmax())
            found |= {
                "landmark_reprojection": float((distances * weights).sum() / weights.sum()) / unit,
                "worst_view_reprojection": float(per_view[worst]),
                "worst_view": float(self.views[worst]),
                "views_with_face": float(self.consensus.has_face.sum()),
                "views_left_out": float((self.consensus.has_face & ~self.consensus.trusted).sum()),
                "landmark_outliers": float(self.consensus.is_outlier.sum()),
            }
        return found
