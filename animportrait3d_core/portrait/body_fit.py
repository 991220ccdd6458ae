"""The fit of a body to a portrait whose landmarks may have failed: then its relief says where the lids are."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from ..body.fit import BodyFit, BodyFitSettings, fit_body
from ..body.landmarks import Landmarks, outer_eye_distance
from ..body.model import BodyModel
from ..errors import InvalidInput
from ..landmarks import LEFT_EYE, RIGHT_EYE
from ..meshes import Mesh
from ..progress import Progress
from ..views import Views
from .alignment import HandAlignment, align_by_hand
from .face_relief import face_relief
from .head_target import head_target
from .relief_landmarks import EyesByRelief, eyes_by_relief

LEAST_FACE = 0.35  # agreement of the relief under which nothing speaks for a face
APART = 0.06  # of the outer-eye distance: lids of the surface's fit and of the relief that disagree
MOST_WORSE = 1.35  # of the surface's fit: how far off the surface a fit to the relief's lids may be, if it is not good


def fit_to_portrait(
    views: Views,
    body: BodyModel,
    mesh: Mesh | None = None,
    landmarks: Landmarks | None = None,
    settings: BodyFitSettings | None = None,
    progress: Progress | None = None,
    covering: Tensor | None = None,
) -> BodyFit:
    """`fit_body`; where the landmarks are of no use, the fit to the surface and to the lids that its relief shows.

    Raises what `fit_body` raises, and `InvalidInput` if neither pictures nor relief show a face.
    """
    reason: InvalidInput | None = None
    fit: BodyFit | None = None
    try:
        fit = fit_body(views, body, mesh, landmarks, settings, progress=progress, covering=covering)
    except InvalidInput as error:
        reason = error
    if fit is not None and not fit.warnings:
        return fit
    if mesh is None or landmarks is None or landmarks.points_3d is not None:
        return _given(fit, reason)
    eyes = _eyes(mesh, body)
    if not eyes.is_sure or (fit is not None and _agree(body, fit, eyes)):
        return _given(fit, reason)
    try:
        by_relief = fit_body(views, body, mesh, eyes.landmarks, settings, progress=progress, covering=covering)
    except InvalidInput:  # no better than what is there
        return _given(fit, reason)
    limit = (settings or BodyFitSettings()).max_surface_error / 2
    if fit is not None and by_relief.shape_surface_rms > max(MOST_WORSE * fit.shape_surface_rms, limit):
        return fit
    warnings = fit.warnings if fit is not None else (f"the landmarks are left out: {reason}",)
    note = f"the lids are where the relief shows eyes (correlation {eyes.correlation:.2f}); look at them in the picture"
    return dataclasses.replace(by_relief, warnings=(*warnings, note))


def _given(fit: BodyFit | None, reason: InvalidInput | None) -> BodyFit:
    if fit is None:
        raise reason or InvalidInput("fit_to_portrait: there is no fit.")
    return fit


def _eyes(mesh: Mesh, body: BodyModel) -> EyesByRelief:
    target = head_target(body)
    relief = face_relief(mesh, target, align_by_hand(HandAlignment()))
    if relief.agreement < LEAST_FACE:
        raise InvalidInput(
            f"fit_to_portrait: neither the pictures nor the surface show a face (relief agreement "
            f"{relief.agreement:.2f}, at least {LEAST_FACE}; {relief.words()}). Check that the portrait is a head that "
            "faces +z in the usual frame; if so, disconnect the landmarks to fit by the surface alone."
        )
    return eyes_by_relief(mesh, target)


def _agree(body: BodyModel, fit: BodyFit, eyes: EyesByRelief) -> bool:
    """Whether the lids of a fit, without personal offsets, are where the relief has them."""
    fitted, found = body(fit.parameters).landmarks[0], eyes.landmarks.positions
    lids = list(range(RIGHT_EYE.start, LEFT_EYE.stop))
    distance = (fitted[lids] - found[lids]).norm(dim=-1).mean()
    return bool(distance < APART * outer_eye_distance(fitted))
