"""Lids that the relief of a surface shows, and fits whose landmarks are of no use."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.body.fit import BodyFitSettings, fit_body
from animportrait3d_core.body.landmarks import Landmarks, outer_eye_distance
from animportrait3d_core.cameras import project, view_preset
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.portrait.body_fit import fit_to_portrait
from animportrait3d_core.portrait.head_target import head_target
from animportrait3d_core.portrait.mesh import MeshPortrait
from animportrait3d_core.portrait.relief_landmarks import eyes_by_relief
from animportrait3d_core.portrait.views import render_views
from tests.head_samples import HEADS, HeadSample, bare, thing

QUICK = BodyFitSettings(max_points=1500, view_count=6, view_size=64, allow_poor_fit=True)
LIDS = slice(36, 48)


def moved(sample: HeadSample, up: float) -> HeadSample:
    shift = torch.tensor([0.0, up, 0.0])
    mesh = dataclasses.replace(sample.mesh, vertices=sample.mesh.vertices + shift)
    return HeadSample(mesh, sample.landmarks + shift)


def lid_error(points: torch.Tensor, sample: HeadSample) -> float:
    return float((points[LIDS] - sample.landmarks[LIDS]).norm(dim=1).mean() / outer_eye_distance(sample.landmarks))


@pytest.mark.parametrize(
    "trait, up", [("bare", 0.0), ("bare", 0.05), ("laugh", 0.0), ("marble", -0.03), ("cartoon", 0)]
)
def test_lids_are_found_by_the_relief(mannequin_body, trait, up):
    sample = moved(HEADS[trait](mannequin_body, 3), up)
    eyes = eyes_by_relief(sample.mesh, head_target(mannequin_body))
    assert eyes.is_sure and lid_error(eyes.landmarks.positions, sample) < 0.065
    assert eyes.landmarks.confidence_3d[LIDS].min() == 1 and eyes.landmarks.confidence_3d.sum() == 12


@pytest.mark.parametrize("trait", ["glasses", "fringe"])
def test_hidden_eyes_are_not_believed(mannequin_body, trait):
    assert not eyes_by_relief(HEADS[trait](mannequin_body, 0).mesh, head_target(mannequin_body)).is_sure


@pytest.fixture(scope="module")
def low_eyes(mannequin_body):
    """A head whose eyes lie a quarter of their distance lower than any of the body's shapes has them, its views, and
    detections that are none."""
    sample = bare(mannequin_body, 0)

    def lowered(points: torch.Tensor) -> torch.Tensor:
        height = points[:, 1:2] - sample.landmarks[LIDS, 1].mean()
        share = torch.exp(-((height / 0.12) ** 2)) * (points[:, 2:] > 0.02)
        return points - share * torch.tensor([0.0, 0.045, 0.0])

    mesh = dataclasses.replace(sample.mesh, vertices=lowered(sample.mesh.vertices))
    views = render_views(MeshPortrait(mesh), view_preset("mesh24", 64))
    none = Landmarks(points_2d=torch.zeros(len(views), 68, 2), confidence=torch.zeros(len(views), 68))
    return HeadSample(mesh, lowered(sample.landmarks)), views, none


def test_without_detections_the_relief_places_the_lids(mannequin_body, low_eyes):
    sample, views, none = low_eyes
    blind = fit_body(views, mannequin_body, sample.mesh, none, QUICK)
    helped = fit_to_portrait(views, mannequin_body, sample.mesh, none, QUICK)
    errors = [lid_error(fit.body(fit.parameters).landmarks[0], sample) for fit in (blind, helped)]
    assert errors[1] < 0.07 and errors[1] < 0.8 * errors[0], errors
    assert "no face found" in helped.warnings[0] and "where the relief shows eyes" in helped.warnings[1]


def test_good_detections_and_their_absence_change_nothing(mannequin_body, low_eyes):
    sample, views, _ = low_eyes
    seen = Landmarks(points_2d=project(views.cameras, sample.landmarks)[0])
    for landmarks in (seen, None):
        plain = fit_body(views, mannequin_body, sample.mesh, landmarks, QUICK)
        fit = fit_to_portrait(views, mannequin_body, sample.mesh, landmarks, QUICK)
        assert torch.equal(fit.parameters.betas, plain.parameters.betas) and fit.warnings == plain.warnings


def test_no_face_in_pictures_and_none_in_the_surface(mannequin_body, low_eyes):
    _, views, none = low_eyes
    ball = thing("ball")
    ball = dataclasses.replace(ball, vertices=(ball.vertices - 3) / 17 * 0.35 + torch.tensor([0.0, 0.4, -0.15]))
    with pytest.raises(InvalidInput, match="neither the pictures nor the surface show a face"):
        fit_to_portrait(views, mannequin_body, ball, none, QUICK)
