"""Multi-view fit of a body to a static portrait: shape, expression, pose, scale and translation.

Upstream tracks FLAME in nine views and regresses SMPL-X onto it. Here SMPL-X is fitted at once, by damped Gauss-Newton
steps on its distances to the portrait's surface, masks and landmarks, robust (Geman-McClure) and coarse to fine: place
the neutral body (turned as the landmarks say, if there are any), then turn neck and head, then shape and expression.
Lids and mouth are closed where landmarks show them closed (`closed_features`). There is no photometric term: measured,
it did not help (docs/experiments/fit.md). Deterministic for a given generator.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..head_frame import HEAD_SCALE
from ..landmarks import NUM_FACE_LANDMARKS
from ..meshes import Mesh
from ..progress import Progress
from ..socket_values import SocketValue
from ..views import Views
from .closed_features import ClosedFeatures, closed_features, shut
from .fit_inputs import check_inputs, few_views
from .fit_landmarks import LandmarkTerm
from .fit_start import start_from_landmarks, start_from_mesh
from .fit_terms import BodyRegions, SilhouetteTerm, SurfaceTerm, body_regions
from .fit_variables import (
    Column,
    LinearizedBody,
    NormalEquations,
    columns_of,
    get_values,
    pose_with_derivatives,
    set_values,
)
from .landmarks import Landmarks, outer_eye_distance
from .model import BodyModel
from .parameters import BodyParameters
from .personal_fit import PersonalTarget, find_offsets
from .visible_skin import visible_face

SCHEMA_VERSION = 1
_MIN_SKIN = 0.05  # of face, ears and neck that must lie at skin of the mesh, so that a distance says something
_RENEW_DERIVATIVES = 4  # steps
_LAST_WIDTH = 0.012  # of the robust losses, in world units
_MIN_SCALE, _MAX_SCALE = HEAD_SCALE / 4, HEAD_SCALE * 4


@dataclasses.dataclass(frozen=True)
class BodyFitSettings:
    """Weights and limits of a fit; lengths in world units, angles in radians.

    Each *_noise is the distance that counts as one standard deviation; surface_points and silhouette_points are the
    numbers of independent observations that the whole term stands for (neighbouring points err together); fewer of the
    surface beside landmarks, since a surface may be wrong where they are right. Each
    *_spread is the standard deviation of a prior around the neutral body. num_betas, num_expression: how many
    coefficients are fitted, at most the body's own; the rest stay 0.  fit_expression: False keeps the face neutral.
    consensus_width: distance within which detections of different views agree (`find_consensus`).  view_count,
    view_size: how many views, and how large, the silhouettes use.  max_surface_error: limit of the metric
    `surface_rms`.  max_shape_error: the same before personal offsets where landmarks show that there is a face, if it
    is the larger one: offsets find their places from near by.  max_landmark_error: limit of `landmark_error` and
    `landmark_reprojection`.  allow_poor_fit: return a fit beyond the limits.  personal_offsets: where there is a
    surface, a fit within the limits is given offsets that make the body this person (`personal_fit`).
    """

    num_betas: int = 40
    num_expression: int = 20
    fit_expression: bool = True
    surface_noise: float = 0.004
    surface_points: float = 400.0
    surface_points_beside_landmarks: float = 150.0
    silhouette_noise: float = 0.01
    silhouette_points: float = 400.0
    landmark_noise: float = 0.0018
    consensus_width: float = 0.012
    betas_spread: float = 0.7
    expression_spread: float = 0.5
    rotation_spread: float = 0.15
    jaw_spread: float = 0.05
    scale_spread: float = 0.3
    place_iterations: int = 10
    turn_iterations: int = 8
    shape_iterations: int = 20
    max_points: int = 4000
    view_count: int = 8
    view_size: int = 128
    max_surface_error: float = 0.035
    max_shape_error: float = 0.05
    max_landmark_error: float = 0.1
    allow_poor_fit: bool = False
    personal_offsets: bool = True

    def of_shape(self) -> BodyFitSettings:
        """The same with the limit for a fit that personal offsets will follow."""
        return dataclasses.replace(self, max_surface_error=max(self.max_surface_error, self.max_shape_error))


@dataclasses.dataclass(frozen=True)
class BodyFit(SocketValue):
    """A body posed as a portrait.

    parameters: batch of one.  body: the model they belong to, with personal offsets if there are any.  metrics, each
    only if what it needs was given, lengths over the outer-eye distance:
    `surface_rms`: root mean square distance of the closest 80 % of face, ears and neck to the mesh, without what is
    known to lie under hair or cloth; the rest may do so too. Infinite if next to nothing lies at skin.
    `surface_rms_face`: the same of the face alone, of all of it that can be seen, none left out.
    `surface_rms_before`, `landmark_error_before`: without personal offsets, where the body has some.
    `landmark_error`: mean distance to the landmarks in space, given or agreed on by the views.
    `landmark_reprojection`: mean distance to the detections that agree, in the pictures; `worst_view_reprojection` and
    `worst_view`: the largest mean of one view, and its number.
    `views_with_face`, `views_left_out`, `landmark_outliers`: how many views have detections, how many of them were not
    believed, and how many single detections were not (`find_consensus`).
    `silhouette_iou`, `silhouette_inside`: of the body's picture and the masks; share of the first inside the second.
    `silhouettes_left_out`: masks that contradict the others, of those that were used.
    warnings: what was given and not used, and why.
    landmarks: points [68, 3] in the world and weights [68] in 0..1 that the body was drawn to, if there were any.
    """

    parameters: BodyParameters
    body: BodyModel
    metrics: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    landmarks: tuple[Tensor, Tensor] | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def shape_surface_rms(self) -> float:
        """`surface_rms` by the body's own shapes: with personal offsets every surface is near."""
        return self.metrics.get("surface_rms_before", self.metrics["surface_rms"])


@dataclasses.dataclass(frozen=True)
class _Problem:
    """A fit's fixed side: body, terms and priors."""

    body: BodyModel
    settings: BodyFitSettings
    surface: SurfaceTerm | None
    regions: BodyRegions
    silhouette: SilhouetteTerm
    landmarks: LandmarkTerm | None
    centre: BodyParameters  # of the priors
    closed: ClosedFeatures = ClosedFeatures()


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Unknowns of one stage, and the width of the robust loss from its first to its last step."""

    columns: Sequence[Column]
    iterations: int
    first_width: float
    last_width: float


def fit_body(
    views: Views,
    body: BodyModel,
    mesh: Mesh | None = None,
    landmarks: Landmarks | None = None,
    settings: BodyFitSettings | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
    covering: Tensor | None = None,
) -> BodyFit:
    """Fit a body to a portrait.

    views: pictures with masks and cameras.  mesh: the portrait's surface in the world, wound outward.  covering: [F]
    bool, which of its faces are hair or clothes, if known: the body has to stay under them, and is drawn to the others
    alone.  landmarks: of the same views, or with cameras of their own, if known; detections in pictures that show no
    face, or contradict a surface that fits without them, are left out with a warning. At least one of mesh and
    landmarks is needed: silhouettes alone do not tell a face from hair.  generator: chooses the points of the mesh that
    are compared; None stands for seed 0.  progress: called after each step; what it raises ends the fit.

    Raises `InvalidInput` if inputs are not finite, the fit diverges, or it ends beyond the limits of the settings.
    """
    settings = settings or BodyFitSettings()
    with torch.inference_mode(False), torch.no_grad():
        check_inputs(views, mesh, covering, landmarks)
        generator = generator or torch.Generator().manual_seed(0)
        regions = body_regions(body, settings.max_points)
        few = few_views(views, settings.view_count, settings.view_size)
        problem = _Problem(
            body=body,
            settings=settings,
            surface=None if mesh is None else SurfaceTerm(mesh, regions, settings.max_points, generator, covering),
            regions=regions,
            silhouette=SilhouetteTerm(few, body, regions, settings.max_points),
            landmarks=None,
            centre=body.neutral_parameters().replace(scale=torch.full((1, 1), HEAD_SCALE)),
        )
        if landmarks is None:
            return _fit(problem, mesh, few, progress)
        try:
            return _fit(_with_landmarks(problem, landmarks, views), mesh, few, progress)
        except InvalidInput as error:
            # Landmarks in space are somebody's word, detections a network's guess.
            if mesh is None or landmarks.points_3d is not None:
                raise
            return _without_landmarks(problem, mesh, few, progress, error)


def _with_landmarks(problem: _Problem, landmarks: Landmarks, views: Views) -> _Problem:
    """The problem with landmarks, and with what they show to be closed. Raises what `find_consensus` raises."""
    width, cameras = problem.settings.consensus_width, landmarks.cameras_beside(views)
    term = LandmarkTerm(landmarks, cameras, width)
    closed = closed_features(*term.in_space)
    if closed.pairs:
        term = LandmarkTerm(shut(landmarks, closed), cameras, width)
    if problem.surface is not None:
        term.lay_on(problem.surface.mesh, problem.surface.covering)
    return dataclasses.replace(problem, landmarks=term, closed=closed)


def _fit(problem: _Problem, mesh: Mesh | None, few: Views, progress: Progress | None) -> BodyFit:
    """The fit to all that the problem holds, within its limits."""
    starts = _starts(problem, mesh)
    parameters = _run(problem, starts, _Counter(progress, _total_steps(problem.settings, len(starts))))
    metrics = _metrics(problem, parameters, few)
    personal = problem.settings.personal_offsets and problem.surface is not None
    follows = personal and problem.landmarks is not None
    _check_limits(metrics, problem.settings.of_shape() if follows else problem.settings)
    landmarks = None if problem.landmarks is None else problem.landmarks.in_space
    if not personal:
        return BodyFit(parameters, problem.body, metrics, landmarks=landmarks)
    fit = _personalized(problem, parameters, few, metrics)
    _check_limits(fit.metrics, problem.settings)
    return dataclasses.replace(fit, landmarks=landmarks)


def _personalized(problem: _Problem, parameters: BodyParameters, few: Views, before: Mapping[str, float]) -> BodyFit:
    """The fit with the offsets that make the body this person."""
    assert problem.surface is not None
    landmarks = None if problem.landmarks is None else problem.landmarks.in_space
    surface = problem.surface
    target = PersonalTarget(surface.mesh, surface.covering if surface.knows_covering else None, landmarks)
    body = problem.body.personalized(find_offsets(problem.body, parameters, target))
    metrics = _metrics(dataclasses.replace(problem, body=body), parameters, few)
    kept = {f"{name}_before": before[name] for name in ("surface_rms", "landmark_error") if name in before}
    return BodyFit(parameters, body, metrics | kept)


def _without_landmarks(
    problem: _Problem, mesh: Mesh, few: Views, progress: Progress | None, reason: InvalidInput
) -> BodyFit:
    """The fit to the surface, if that is good; `reason` says why the landmarks were not."""
    try:
        fit = _fit(problem, mesh, few, progress)
    except InvalidInput as error:
        raise InvalidInput(f"{error} The landmarks had been left out: {reason}") from reason
    warning = (
        f"the landmarks are left out, the surface fits without them (surface_rms {fit.shape_surface_rms:.3f}): {reason}"
    )
    return dataclasses.replace(fit, warnings=(warning,))


def _starts(problem: _Problem, mesh: Mesh | None) -> list[BodyParameters]:
    neutral = problem.body.neutral_parameters()
    if problem.landmarks is not None:
        return [start_from_landmarks(problem.body, neutral, *problem.landmarks.in_space)]
    if mesh is None:
        raise InvalidInput(
            "fit_body: neither mesh nor landmarks are given; masks alone cannot tell the face from hair and clothes. "
            "Connect the portrait's mesh, or landmarks."
        )
    return start_from_mesh(problem.body, neutral, mesh, problem.regions)


def _stages(problem: _Problem) -> tuple[_Stage, _Stage, _Stage]:
    body, settings = problem.body, problem.settings
    placement = columns_of(scale=1, translation=3)
    rotation = columns_of(neck_pose=3, head_pose=3)
    shape = columns_of(betas=min(settings.num_betas, body.num_betas))
    if settings.fit_expression:
        jaw = 0 if problem.closed.mouth else 1
        shape += columns_of(expression=min(settings.num_expression, body.num_expression), jaw_pose=jaw)
    return (
        _Stage(placement, settings.place_iterations, 0.15, 0.06),
        _Stage(placement + rotation, settings.turn_iterations, 0.06, 0.04),
        _Stage(placement + rotation + shape, settings.shape_iterations, 0.04, _LAST_WIDTH),
    )


def _total_steps(settings: BodyFitSettings, num_starts: int) -> int:
    return num_starts * settings.place_iterations + settings.turn_iterations + settings.shape_iterations


class _Counter:
    """Counts steps and reports them."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, None)


def _run(problem: _Problem, starts: Sequence[BodyParameters], counter: _Counter) -> BodyParameters:
    """Place the body from every start, then turn and shape the best one."""
    place, turn, shape = _stages(problem)
    placed = [_optimize(problem, place, start, counter) for start in starts]
    energies = [energy for energy, _ in placed]
    best = placed[energies.index(min(energies))][1]
    _, parameters = _optimize(problem, turn, best, counter)
    return _optimize(problem, shape, parameters.replace(eyelids=problem.closed.eyelids), counter)[1]


def _optimize(
    problem: _Problem, stage: _Stage, parameters: BodyParameters, counter: _Counter
) -> tuple[float, BodyParameters]:
    """The stage's damped Gauss-Newton steps; returns the last energy and the parameters."""
    energy, posed = 0.0, None
    for iteration in range(stage.iterations):
        share = iteration / max(stage.iterations - 1, 1)
        width = stage.first_width * (stage.last_width / stage.first_width) ** share
        posed = pose_with_derivatives(
            problem.body,
            parameters,
            stage.columns,
            problem.regions.outer_faces,
            nearby=posed if iteration % _RENEW_DERIVATIVES else None,
        )
        system = _linearize(problem, stage, parameters, posed, width)
        step = _limited(system.step(damping=0.02), stage.columns)
        values = get_values(parameters, stage.columns) + step
        scale = values[stage.columns.index(("scale", 0))]
        if not bool(torch.isfinite(values).all()) or not _MIN_SCALE < float(scale) < _MAX_SCALE:
            raise InvalidInput(
                f"fit_body: the fit diverged at step {counter.done + 1} (scale {float(scale):.3g}, expected "
                f"{_MIN_SCALE:.2f} to {_MAX_SCALE:.1f}); check that the mesh is a head that faces +z in the usual "
                "frame, or give landmarks."
            )
        energy, parameters = system.energy, set_values(parameters, stage.columns, values)
        counter.step()
    return energy, parameters


def _limited(step: Tensor, columns: Sequence[Column]) -> Tensor:
    """No unknown moves further in one step than correspondences stay meaningful."""
    limits = {"scale": 0.3, "translation": 0.1, "betas": 1.0, "expression": 0.5}
    limit = torch.tensor([limits.get(name, 0.2) for name, _ in columns])
    return torch.maximum(torch.minimum(step, limit), -limit)


def _linearize(
    problem: _Problem, stage: _Stage, parameters: BodyParameters, posed: LinearizedBody, width: float
) -> NormalEquations:
    """All terms and priors around the parameters."""
    settings, columns = problem.settings, stage.columns
    system = NormalEquations.of_size(len(columns))
    if problem.surface is not None:
        count = settings.surface_points if problem.landmarks is None else settings.surface_points_beside_landmarks
        problem.surface.add_to(system, posed, width, count / settings.surface_noise**2)
    problem.silhouette.add_to(system, posed, width, settings.silhouette_points / settings.silhouette_noise**2)
    if problem.landmarks is not None:
        problem.landmarks.add_to(system, posed, 2 * width, 1 / settings.landmark_noise**2)
    spreads = {
        "betas": settings.betas_spread,
        "expression": settings.expression_spread,
        "neck_pose": settings.rotation_spread,
        "head_pose": settings.rotation_spread,
        "jaw_pose": settings.jaw_spread,
        "scale": settings.scale_spread,
    }
    weights = torch.tensor([spreads[name] ** -2 if name in spreads else 0.0 for name, _ in columns])
    offset = get_values(parameters, columns) - get_values(problem.centre, columns)
    system.add(offset, torch.eye(len(columns)), weights)
    return system


def _metrics(problem: _Problem, parameters: BodyParameters, few: Views) -> dict[str, float]:
    from ..render import rasterize_mesh

    output = problem.body(parameters)
    unit = float(outer_eye_distance(output.landmarks[0]))
    metrics = {}
    if problem.surface is not None:
        distances = problem.surface.distances(output.vertices[0]).sort().values
        closest = distances[: max(1, int(0.8 * len(distances)))]
        enough = len(distances) >= _MIN_SKIN * len(problem.regions.attracted)
        metrics["surface_rms"] = float(closest.square().mean().sqrt()) / unit if enough else math.inf
        seen = problem.surface.distances_of(output.vertices[0][visible_face(problem.body, output)])
        metrics["surface_rms_face"] = float(seen.square().mean().sqrt()) / unit if len(seen) else math.inf
    if problem.landmarks is not None:
        metrics |= problem.landmarks.metrics(output.landmarks[0, :NUM_FACE_LANDMARKS], unit)
    drawn = rasterize_mesh(output.vertices[0], problem.regions.outer_faces, few.cameras).face_id >= 0
    masks = few.masks > 0.5
    both = float((drawn & masks).sum())
    metrics["silhouette_iou"] = both / max(float((drawn | masks).sum()), 1.0)
    metrics["silhouette_inside"] = both / max(float(drawn.sum()), 1.0)
    metrics["silhouettes_left_out"] = float(problem.silhouette.contradicting(output.vertices[0], _LAST_WIDTH).sum())
    return metrics


def _check_limits(metrics: Mapping[str, float], settings: BodyFitSettings) -> None:
    """Raise `InvalidInput` that names the term, its numbers and what to change."""
    if settings.allow_poor_fit:
        return
    unit = "of the outer-eye distance"
    if metrics.get("surface_rms", 0.0) > settings.max_surface_error:
        raise InvalidInput(
            f"fit_body: surface_rms is {metrics['surface_rms']:.3f} {unit}, expected at most "
            f"{settings.max_surface_error:.3f}: the body's face does not lie on the mesh. The portrait may be no head, "
            "or not face +z in the usual frame: align it, give landmarks, or allow a poor fit (error_limit)."
        )
    for name in ("landmark_error", "landmark_reprojection"):
        if metrics.get(name, 0.0) > settings.max_landmark_error:
            worst = ""
            if "worst_view" in metrics:
                number, error = int(metrics["worst_view"]), metrics["worst_view_reprojection"]
                worst = f" View {number} is the farthest off ({error:.3f}); look at its landmarks first."
            raise InvalidInput(
                f"fit_body: {name} is {metrics[name]:.3f} {unit}, expected at most {settings.max_landmark_error:.3f}: "
                f"body and landmarks do not meet.{worst} Check that mesh and views show the same portrait, or "
                "disconnect the landmarks."
            )
