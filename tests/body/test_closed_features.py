"""Closed eyes and mouths, with the gap that detectors leave."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.body.closed_features import ClosedFeatures, closed_features, shut
from animportrait3d_core.body.fit import fit_body
from animportrait3d_core.body.landmarks import Landmarks
from animportrait3d_core.portrait.head_target import standard_placement
from tests.body.test_fit import QUICK, views_of
from tests.head_samples import skin_of

EVERYTHING = torch.ones(68)


def points_of(body, jaw: float = 0.0, eyelids=(0.0, 0.0)):
    pose = standard_placement(body).replace(
        jaw_pose=torch.tensor([[jaw, 0.0, 0.0]]), eyelids=torch.tensor([eyelids], dtype=torch.float32)
    )
    return body(pose).landmarks[0, :68]


@pytest.mark.parametrize(
    ("jaw", "eyelids", "closed"),
    [
        (0.0, (0, 0), ClosedFeatures(mouth=True)),
        (0.03, (1, 0), ClosedFeatures(left_eye=True, mouth=True)),  # as far as detections on closed mouths are apart
        (0.06, (0, 1), ClosedFeatures(right_eye=True)),
        (0.3, (1, 1), ClosedFeatures(left_eye=True, right_eye=True)),
        (0.3, (0.5, 0.5), ClosedFeatures()),
    ],
)
def test_what_is_closed_is_seen(mannequin_body, jaw, eyelids, closed) -> None:
    points = points_of(mannequin_body, jaw, eyelids)
    assert closed_features(points, EVERYTHING) == closed
    assert closed.eyelids.tolist() == [[float(closed.left_eye), float(closed.right_eye)]]


@pytest.mark.parametrize(
    ("number", "left"), [(40, "left_eye mouth"), (47, "right_eye mouth"), (66, "left_eye right_eye")]
)
def test_what_is_not_known_is_not_closed(mannequin_body, number: int, left: str) -> None:
    weights = EVERYTHING.clone()
    weights[number] = 0.0
    found = closed_features(points_of(mannequin_body, eyelids=(1, 1)), weights)
    assert found == ClosedFeatures(**dict.fromkeys(left.split(), True))


def test_gaps_are_shut_where_both_sides_are_known() -> None:
    generator = torch.Generator().manual_seed(0)
    space, pixels = (torch.rand(shape, generator=generator) for shape in ((68, 3), (2, 68, 2)))
    confidence = torch.ones(2, 68)
    confidence[1, 37] = 0.0
    found = shut(Landmarks(space, pixels, confidence), ClosedFeatures(right_eye=True, mouth=True))
    for upper, lower in ((37, 41), (38, 40), (61, 67), (62, 66), (63, 65)):
        torch.testing.assert_close(found.points_3d[[upper, lower]], space[[upper, lower]].mean(0).expand(2, 3))
        torch.testing.assert_close(found.points_2d[0, [upper, lower]], pixels[0, [upper, lower]].mean(0).expand(2, 2))
    assert torch.equal(found.points_2d[1, [37, 41]], pixels[1, [37, 41]])
    others = [number for number in range(68) if number not in (37, 38, 40, 41, 61, 62, 63, 65, 66, 67)]
    assert torch.equal(found.points_3d[others], space[others]) and torch.equal(found.confidence, confidence)


def test_a_closed_mouth_shows_no_teeth(mannequin_body) -> None:
    """Whatever gap its detections leave: the jaw is not opened, and the lips of the fit meet."""
    mesh = skin_of(mannequin_body, mannequin_body(standard_placement(mannequin_body)).vertices[0])
    points = points_of(mannequin_body)
    width = (points[60] - points[64]).norm()
    points[61:64, 1] += 0.04 * width
    points[65:68, 1] -= 0.04 * width
    fit = fit_body(views_of(mesh), mannequin_body, mesh, Landmarks(points_3d=points), QUICK)
    assert not bool(fit.parameters.jaw_pose.any())
    lips = fit.body(fit.parameters).landmarks[0]
    assert float((lips[62] - lips[66]).norm() / width) < 0.02


def test_an_open_mouth_stays_open(mannequin_body) -> None:
    pose = standard_placement(mannequin_body).replace(jaw_pose=torch.tensor([[0.25, 0.0, 0.0]]))
    mesh = skin_of(mannequin_body, mannequin_body(pose).vertices[0])
    landmarks = Landmarks(points_3d=points_of(mannequin_body, 0.25))
    fit = fit_body(views_of(mesh), mannequin_body, mesh, landmarks, QUICK)
    found, wanted = fit.body(fit.parameters).landmarks[0], landmarks.positions
    gap = (wanted[62] - wanted[66]).norm()
    assert float((found[62] - found[66]).norm() / gap) == pytest.approx(1.0, abs=0.15)
