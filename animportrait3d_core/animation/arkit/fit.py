"""The linear map from ARKit's 52 shapes to a body's expressions, jaw, gaze and lids, fitted by landmarks.

Lids and gaze are controls of the body itself: a blink closes the lid, a look turns the eye. Everything else is a ridge
regression: the coefficients of expression and the angles of the jaw whose landmarks come nearest to `targets.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import weakref

import torch
from torch import Tensor

from ...body.lids import SEAM_SHARE
from ...body.model import BodyModel
from ...body.parameters import BodyParameters
from ...landmarks import LEFT_BROW, LEFT_OUTER_EYE, LEFT_PUPIL, RIGHT_BROW, RIGHT_OUTER_EYE, RIGHT_PUPIL
from ...rotations import axis_angle_to_matrix
from .names import ARKIT_NAMES
from .pose import ArkitMap, arkit_parameters
from .targets import CHEEK_PLACES, MIRRORED_POINTS, NUM_POINTS, gaze_degrees, lid_shares, wanted_displacements

RIDGE = 1e-4
"""Penalty of a squared coefficient of expression against squared displacement over squared distance of the eyes:
halves what a coefficient does whose unit moves the landmarks by 1 % of that distance in all."""
BROW_RIDGE = 1e-6
JAW_RIDGE = 1e-9  # the jaw may turn as far as it has to
JAW_STEP = 0.3  # rad, where the jaw's effect is measured: halfway open
FORWARD_WEIGHT = 0.5  # of depth, which is seen less
EYE_JOINTS = {"left": 23, "right": 24}
PUPILS = {"left": LEFT_PUPIL, "right": RIGHT_PUPIL}
LID_PAIRS = {"left": ((43, 47), (44, 46)), "right": ((38, 40), (37, 41))}
"""Upper and lower landmark."""

_SILHOUETTE = (*range(7), *range(10, 17))
"""The sides of the jaw line are wherever the outline is; only the chin is a place on the face."""


@functools.lru_cache(maxsize=1)
def point_weights() -> Tensor:
    """Weight [74, 3] of each coordinate of each point in the fit."""
    weights = torch.ones(NUM_POINTS, 3, dtype=torch.float64)
    weights[:, 2] = FORWARD_WEIGHT
    weights[list(_SILHOUETTE)] = 0.0
    return weights


class FacePoints:
    """The landmarks of a body, and four places on its cheeks that landmarks do not see."""

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        self.rest = body.neutral_parameters()
        posed = body(self.rest)
        landmarks = posed.landmarks[0]
        skin = body.region_vertices("face")
        middles = torch.stack([landmarks[list(pair)].mean(0) for pair in CHEEK_PLACES])
        self.cheeks = skin[torch.cdist(middles, posed.vertices[0, skin]).argmin(dim=1)]
        self.at_rest = self._points(self.rest)[0]
        self.eye_centers = {side: posed.joints[0, joint].double() for side, joint in EYE_JOINTS.items()}
        self.unit = float((landmarks[LEFT_OUTER_EYE] - landmarks[RIGHT_OUTER_EYE]).norm())

    def _points(self, parameters: BodyParameters) -> Tensor:
        posed = self.body(parameters)
        return torch.cat([posed.landmarks, posed.vertices[:, self.cheeks]], dim=1).double()

    def displacements(self, parameters: BodyParameters) -> Tensor:
        """Displacements [B, 74, 3] of the points against the neutral body, over the distance of the outer eye
        corners."""
        chunks = [self._points(parameters[start : start + 16]) for start in range(0, len(parameters), 16)]
        return (torch.cat(chunks) - self.at_rest) / self.unit


def face_targets(name: str) -> Tensor:
    """Wanted displacements [74, 3] that expressions and the jaw have to make, over the distance of the eyes."""
    wanted = torch.zeros(NUM_POINTS, 3, dtype=torch.float64)
    for places, amount in wanted_displacements(name).items():
        wanted[list(places)] += torch.tensor(amount, dtype=torch.float64) / 100
    return wanted


def targets_of(points: FacePoints, name: str) -> Tensor:
    """All wanted displacements [74, 3] of a shape at full strength, those of lids and pupils too."""
    wanted = face_targets(name)
    for side, share in lid_shares(name).items():
        for upper, lower in LID_PAIRS[side]:
            opening = (points.at_rest[upper, 1] - points.at_rest[lower, 1]) / points.unit
            wanted[upper, 1] -= share * (1 - SEAM_SHARE) * opening
            wanted[lower, 1] += share * SEAM_SHARE * opening
    for side, (left, up) in gaze_degrees(name).items():
        turn = axis_angle_to_matrix(torch.deg2rad(torch.tensor([-up, left, 0.0], dtype=torch.float64)))
        arm = (points.at_rest[PUPILS[side]] - points.eye_centers[side]) / points.unit
        wanted[PUPILS[side]] += turn @ arm - arm
    return wanted


def _directions(points: FacePoints) -> Tensor:
    """What a unit of each expression and a radian of each of the jaw's two angles moves: [ne + 2, 74, 3]."""
    count = points.body.num_expression
    steps = points.rest.expand(count + 2)
    expression = torch.cat([torch.eye(count), torch.zeros(2, count)])
    jaw = torch.zeros(count + 2, 3)
    jaw[count, 0] = jaw[count + 1, 1] = JAW_STEP
    moved = points.displacements(steps.replace(expression=expression, jaw_pose=jaw))
    moved[count:] /= JAW_STEP
    return moved


def fit_arkit(body: BodyModel) -> ArkitMap:
    """The map of a body; of a licensed one too, whose file it contains nothing of."""
    points, weights, count = FacePoints(body), point_weights(), body.num_expression
    system = (_directions(points) * weights).flatten(1)
    wanted = (torch.stack([face_targets(name) for name in ARKIT_NAMES]) * weights).flatten(1)
    ridge = torch.full((count + 2,), RIDGE, dtype=torch.float64)
    ridge[count:] = JAW_RIDGE
    solved = _ridge(system, wanted, ridge).float()
    return ArkitMap(solved[:, :count].contiguous(), solved[:, count:].contiguous(), *_controls())


def _ridge(system: Tensor, wanted: Tensor, ridge: Tensor) -> Tensor:
    """Coefficients [m, n] of the rows of `system` [n, k] that come nearest to each row of `wanted` [m, k]."""
    return torch.linalg.solve(system @ system.T + torch.diag(ridge), system @ wanted.T).T


def brow_share(body: BodyModel) -> Tensor:
    """Matrix [ne, ne]: expression coefficients (a row) times it are those that move the brows alike and little else.

    The brows' part of what an expression moves, fitted again by the same regression; mannequin and SMPL-X have no
    coefficients of one region by themselves.
    """
    points = FacePoints(body)
    moved = _directions(points)[: body.num_expression]
    brows = torch.zeros_like(moved)
    brows[:, RIGHT_BROW], brows[:, LEFT_BROW] = moved[:, RIGHT_BROW], moved[:, LEFT_BROW]
    weights = point_weights()
    ridge = torch.full((body.num_expression,), BROW_RIDGE, dtype=torch.float64)
    return _ridge((moved * weights).flatten(1), (brows * weights).flatten(1), ridge).float()


def _controls() -> tuple[Tensor, Tensor]:
    """Gaze [52, 4] and lids [52, 2], the same for every body."""
    gaze, lids = torch.zeros(len(ARKIT_NAMES), 4), torch.zeros(len(ARKIT_NAMES), 2)
    for row, name in enumerate(ARKIT_NAMES):
        for side, angles in gaze_degrees(name).items():
            start = 0 if side == "left" else 2
            gaze[row, start : start + 2] = torch.tensor([math.radians(angle) for angle in angles])
        for side, share in lid_shares(name).items():
            lids[row, 0 if side == "left" else 1] = share
    return gaze, lids


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What is fitted to a body once: see `fit_arkit` and `brow_share`."""

    arkit: ArkitMap
    brows: Tensor


_FITTED: weakref.WeakKeyDictionary[BodyModel, Fitted] = weakref.WeakKeyDictionary()


def fitted(body: BodyModel) -> Fitted:
    """Both, fitted in a fraction of a second and remembered as long as the body lives."""
    found = _FITTED.get(body)
    if found is None:
        with torch.inference_mode(False), torch.no_grad():
            found = _FITTED[body] = Fitted(fit_arkit(body), brow_share(body))
    return found


def arkit_map(body: BodyModel) -> ArkitMap:
    """The map of a body; fitted when it is asked for first."""
    return fitted(body).arkit


@dataclasses.dataclass(frozen=True)
class ShapeError:
    """How well a body makes one shape.

    wanted: largest wanted displacement of a point, over the distance of the outer eye corners.  reached: how much of
    the wanted movement is made (1 is all of it).  error: rest of the movement, wanted or not, over the wanted (0 is
    exact, 1 is as good as nothing).  wrong_side: for a shape of one side, movement of the other over that of its own.
    """

    name: str
    wanted: float
    reached: float
    error: float
    wrong_side: float | None


def shape_errors(body: BodyModel) -> list[ShapeError]:
    """How well the fitted map makes each shape, measured on the posed body: what `docs/animation.md` reports."""
    points, weights = FacePoints(body), point_weights()
    parameters = arkit_parameters(torch.eye(len(ARKIT_NAMES)), points.rest, arkit_map(body))
    moved = points.displacements(parameters)
    return [_error(name, targets_of(points, name), moved[row], weights) for row, name in enumerate(ARKIT_NAMES)]


def _error(name: str, wanted: Tensor, moved: Tensor, weights: Tensor) -> ShapeError:
    scale = float((wanted * weights).norm())
    if scale == 0:
        return ShapeError(name, 0.0, 0.0, 1.0, None)
    reached = float((moved * wanted * weights**2).sum()) / scale**2
    error = float(((moved - wanted) * weights).norm()) / scale
    sided = name.endswith(("Left", "Right")) and not name.startswith(("jaw", "mouthLeft", "mouthRight"))
    wrong_side = _wrong_side(wanted, moved) if sided else None
    return ShapeError(name, float(wanted.norm(dim=1).max()), reached, error, wrong_side)


def _wrong_side(wanted: Tensor, moved: Tensor) -> float:
    """Movement of the mirror images of the points that should move, over that of these."""
    order = torch.tensor(MIRRORED_POINTS)
    own = (wanted.norm(dim=1) > 0) & (order != torch.arange(NUM_POINTS))
    other = torch.zeros_like(own)
    other[order[own]] = True
    other &= ~own
    return float(moved[other].norm() / moved[own].norm().clamp_min(1e-12))
