"""Regressed expressions: exact landmarks give the driving expression back, unseen ones leave the rest pose."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.animation.clips import open_jaw, turn_head
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.evaluation import expression
from animportrait3d_core.evaluation.expression import expression_distance, regress_expression
from animportrait3d_core.head_frame import CLOSE_FOV_DEGREES, CLOSE_TARGET


@pytest.fixture
def scene(mannequin_body: BodyModel):
    """A turned head with an open jaw and an expression, and its landmarks in a close picture."""
    draw = torch.Generator().manual_seed(3)
    rest = mannequin_body.neutral_parameters()
    state = turn_head(open_jaw(rest, 12.0), 20.0)
    driving = torch.randn(rest.expression.shape[1], generator=draw)
    state = state.replace(expression=driving[None])
    camera = orbit_cameras([10.0], [5.0], 256, target=CLOSE_TARGET, fov_degrees=CLOSE_FOV_DEGREES)
    points = project(camera, mannequin_body(state).landmarks[0, :68])[0][0]
    return mannequin_body, state, rest.expression[0], camera, points, driving


def test_exact_landmarks_give_the_expression_back(scene, monkeypatch) -> None:
    body, state, rest, camera, points, driving = scene
    monkeypatch.setattr(expression, "LANDMARK_NOISE", 1e-4)  # so that the prior does not pull
    found = regress_expression(body, state, rest, camera, points, torch.ones(68))
    assert expression_distance(found[None], driving[None]) < 0.02


def test_with_the_usual_noise_it_comes_near(scene) -> None:
    body, state, rest, camera, points, driving = scene
    eyes = (points[36] - points[45]).norm()
    noise = torch.randn(68, 2, generator=torch.Generator().manual_seed(4)) * 0.01 * eyes
    found = regress_expression(body, state, rest, camera, points + noise, torch.ones(68))
    assert expression_distance(found[None], driving[None]) < 0.5 * expression_distance(rest[None], driving[None])


def test_the_answer_is_the_most_likely_one(scene, monkeypatch) -> None:
    """The posterior, landmarks and prior together, is lower everywhere around it; here both matter alike."""
    body, state, rest, camera, points, _ = scene
    monkeypatch.setattr(expression, "LANDMARK_NOISE", 0.1)
    found = regress_expression(body, state, rest, camera, points, torch.ones(68))
    at_rest = project(camera, body(state.replace(expression=rest[None])).landmarks[0, :68])[0][0]
    noise = 0.1 * (at_rest[36] - at_rest[45]).norm()

    def energy(coefficients) -> float:
        shown = project(camera, body(state.replace(expression=coefficients[None])).landmarks[0, :68])[0][0]
        return float(((shown - points)[17:] / noise).square().sum() + (coefficients - rest).square().sum())

    draw = torch.Generator().manual_seed(6)
    for _ in range(20):
        step = torch.nn.functional.normalize(torch.randn(len(rest), generator=draw), dim=0) * 0.2
        assert energy(found) < energy(found + step)
    assert expression_distance(found[None], rest[None]) > 0.1


def test_landmarks_without_confidence_leave_the_rest_pose(scene) -> None:
    body, state, rest, camera, points, _ = scene
    found = regress_expression(body, state, rest + 0.3, camera, points, torch.zeros(68))
    torch.testing.assert_close(found, rest + 0.3)


def test_motion_of_pixels_is_that_of_differences(scene) -> None:
    body, state, _, camera, _, _ = scene
    draw = torch.Generator().manual_seed(5)
    points = body(state).landmarks[0, :68].double()
    basis = torch.randn(2, 68, 3, generator=draw).double()
    _, slopes = expression._project_with_basis(camera, points, basis)
    for index in range(2):
        ahead, behind = (
            expression._project_with_basis(camera, points + sign * 1e-5 * basis[index], basis)[0] for sign in (1, -1)
        )
        torch.testing.assert_close(slopes[index], (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-6)


def test_wrong_points_are_refused(scene) -> None:
    body, state, rest, camera, points, _ = scene
    with pytest.raises(InvalidInput, match="not finite"):
        regress_expression(body, state, rest, camera, points * float("nan"), torch.ones(68))
    with pytest.raises(ShapeMismatch, match="points"):
        regress_expression(body, state, rest, camera, points[:5], torch.ones(68))
