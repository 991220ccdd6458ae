"""The verdict on a fit: what is off is named with its number, and the contours lie where the landmarks are."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.body.fit import BodyFit
from animportrait3d_core.body.landmarks import outer_eye_distance
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.head_frame import FACE_CENTER
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.fit_report import CONTOUR_COLOR, FitVerdict, contour_image, fit_verdict
from animportrait3d_core.portrait.head_target import standard_placement


@pytest.fixture(scope="module")
def fitted(mannequin_body):
    """A fit, and where its landmarks [68, 3] are."""
    parameters = standard_placement(mannequin_body)
    points = mannequin_body(parameters).landmarks[0, :68].detach()
    return BodyFit(parameters, mannequin_body, {"surface_rms": 0.012}), points


def test_what_is_off_is_named_and_the_rest_is_good(fitted):
    fit, points = fitted
    moved, unit = points.clone(), outer_eye_distance(points)
    moved[7:10, 1] -= 0.08 * unit
    moved[36:42, 0] += 0.045 * unit
    lines = fit_verdict(dataclasses.replace(fit, landmarks=(moved, torch.ones(68)))).lines()
    assert lines[0] == "chin 8% off: look here" and lines[1] == "right lids within 6%: fair"
    assert lines[2] == "left lids, lips, nose, brows within 3%: good"
    assert lines[3] == "skin 1.2% from the surface: good" and len(lines) == 4


def test_closed_eyes_are_told(fitted):
    fit, _ = fitted
    asleep = fit.parameters.replace(eyelids=torch.tensor([[1.0, 0.0]]))
    assert "the eyes of the portrait are closed" in fit_verdict(dataclasses.replace(fit, parameters=asleep)).lines()[-1]
    assert not fit_verdict(fit).closed


def test_without_landmarks_the_surface_alone_is_judged(fitted):
    fit, points = fitted
    assert fit_verdict(fit).lines() == ["skin 1.2% from the surface: good"]
    assert FitVerdict({}, 0.03).lines() == ["skin 3.0% from the surface: fair: look at the close picture"]
    assert fit_verdict(dataclasses.replace(fit, landmarks=(points, torch.zeros(68)))).off == {}


def test_contours_lie_on_lids_and_lips(fitted):
    fit, points = fitted
    vertices = fit.body(fit.parameters).vertices[0].detach()
    image = contour_image(fit, Mesh(vertices, fit.body.faces_outward), 256)
    cameras = orbit_cameras([0.0, 30.0], [0.0, 0.0], 256, target=list(FACE_CENTER), fov_degrees=11.0)
    blue = (image - torch.tensor(CONTOUR_COLOR)).abs().amax(-1) < 1e-6
    places = project(cameras, points)[0].floor().long()
    for view in range(2):
        for number in (*range(36, 68),):
            x, y = places[view, number].tolist()
            assert blue[view, y, x], (view, number)
        assert not blue[view, places[view, 30, 1], places[view, 30, 0]]  # the nose
