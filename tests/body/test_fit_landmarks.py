from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.body.fit_landmarks import LandmarkTerm, find_consensus
from animportrait3d_core.body.fit_start import start_from_landmarks
from animportrait3d_core.body.fit_variables import LinearizedBody, NormalEquations
from animportrait3d_core.body.landmarks import Landmarks, outer_eye_distance, triangulate
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.landmarks import JAWLINE
from animportrait3d_core.rotations import axis_angle_to_matrix

WIDTH = 0.012
YAWS = [-70, -50, -32, -20, -10, 0, 8, 15, 30, 45, 60, 72, 130, 180]
CAMERAS = orbit_cameras(YAWS, [0, 10, 20, -10, 30, 0, 15, -5, 25, 5, 0, 10, 0, 0], 256)
SEEN = torch.tensor([abs(yaw) < 75 for yaw in YAWS])
MIRRORED = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46]
MIRRORED += [39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]


@pytest.fixture(scope="module")
def face(mannequin_body) -> torch.Tensor:
    """68 points of a face in the world."""
    neutral = mannequin_body.neutral_parameters()
    points = 2.78 * mannequin_body(neutral).landmarks[0, :68]
    return points - points[36:48].mean(0) + torch.tensor([0.0, 0.42, 0.17])


def detected(face: torch.Tensor, noise: float = 0.0, seed: int = 0) -> Landmarks:
    """Detections in the views from the front, off by `noise` of the outer-eye distance."""
    pixels, depth = project(CAMERAS, face)
    unit = (outer_eye_distance(face) * CAMERAS.K[:, 0, 0] / depth.mean(1))[:, None, None]
    generator = torch.Generator().manual_seed(seed)
    pixels = pixels + noise * unit * torch.randn(pixels.shape, generator=generator)
    confidence = SEEN[:, None] * (0.5 + 0.5 * torch.rand(len(YAWS), 68, generator=generator))
    return Landmarks(points_2d=pixels, confidence=confidence)


def errors(points: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
    return (points - face).norm(dim=-1) / outer_eye_distance(face)


def test_exact_detections_give_exact_points(face):
    landmarks = detected(face)
    consensus = find_consensus(CAMERAS, landmarks, WIDTH)
    assert float(errors(consensus.points, face).max()) < 1e-4
    assert bool(consensus.determined.all())
    assert int(consensus.is_outlier.sum()) == 0
    assert torch.equal(consensus.has_face, SEEN) and torch.equal(consensus.trusted, SEEN)
    assert torch.allclose(consensus.weights[:, 17:], landmarks.confidence[:, 17:])


def test_small_noise_is_averaged_as_by_least_squares(face):
    landmarks = detected(face, noise=0.015)
    robust = errors(find_consensus(CAMERAS, landmarks, WIDTH).points, face).mean()
    plain = errors(triangulate(CAMERAS, landmarks)[0], face).mean()
    assert float(robust) < 1.15 * float(plain) < 0.015


def test_scattered_wrong_detections_are_found_and_left_out(face):
    landmarks = detected(face, noise=0.01)
    wrong = (torch.rand(len(YAWS), 68, generator=torch.Generator().manual_seed(3)) < 0.2) & SEEN[:, None]
    pixels = landmarks.points_2d + wrong[..., None] * torch.tensor([14.0, -10.0])
    landmarks = dataclasses.replace(landmarks, points_2d=pixels)
    consensus = find_consensus(CAMERAS, landmarks, WIDTH)
    assert float(errors(triangulate(CAMERAS, landmarks)[0], face).mean()) > 0.05
    assert float(errors(consensus.points, face).max()) < 0.03
    assert float((consensus.is_outlier == wrong).float().mean()) > 0.99
    assert int(consensus.weights[wrong].count_nonzero()) <= 0.02 * int(wrong.sum())


@pytest.mark.parametrize("kind", ["shifted", "mirrored", "another place"])
def test_views_that_are_wrong_as_a_whole_are_left_out(face, kind):
    landmarks = detected(face, noise=0.01)
    pixels, bad = landmarks.points_2d.clone(), [2, 5, 9]
    for view in bad:
        if kind == "shifted":
            pixels[view] += torch.tensor([9.0, 7.0])
        elif kind == "mirrored":
            pixels[view] = pixels[view][MIRRORED]
        else:
            pixels[view] = 256 - pixels[view]
    consensus = find_consensus(CAMERAS, dataclasses.replace(landmarks, points_2d=pixels), WIDTH)
    assert torch.nonzero(SEEN & ~consensus.trusted).squeeze(1).tolist() == bad
    assert int(consensus.weights[bad].count_nonzero()) == 0
    assert float(errors(consensus.points, face).max()) < 0.03


def test_half_of_the_views_are_enough(face):
    landmarks = detected(face, noise=0.01)
    confidence = landmarks.confidence.clone()
    confidence[::2] = 0
    consensus = find_consensus(CAMERAS, dataclasses.replace(landmarks, confidence=confidence), WIDTH)
    assert int(consensus.has_face.sum()) == int(SEEN[1::2].sum())
    assert float(errors(consensus.points, face).max()) < 0.04


def test_points_that_one_view_sees_are_not_determined_but_keep_their_say(face):
    landmarks = detected(face)
    confidence = landmarks.confidence.clone()
    confidence[:, 40] = 0
    confidence[4, 40] = 0.7
    confidence[:, 41] = 0
    consensus = find_consensus(CAMERAS, dataclasses.replace(landmarks, confidence=confidence), WIDTH)
    assert torch.nonzero(~consensus.determined).squeeze(1).tolist() == [40, 41]
    assert float(consensus.weights[4, 40]) == pytest.approx(0.7)
    assert consensus.point_weights[[40, 41]].tolist() == [0, 0]


def test_the_jawline_counts_little_and_only_from_the_front(face):
    """Which views are from the front is measured at the face: here it looks 30 degrees to its left."""
    turned = face @ axis_angle_to_matrix(torch.tensor([0.0, torch.pi / 6, 0.0])).T
    for points, middle in ((face, 0), (turned, 30)):
        weights = find_consensus(CAMERAS, detected(points), WIDTH).weights[:, JAWLINE]
        used = [yaw for yaw, some in zip(YAWS, weights.amax(1).tolist()) if some > 0]
        assert used == [yaw for yaw in YAWS if abs(yaw - middle) < 36 and abs(yaw) < 75]
        assert float(weights.max()) < 0.61


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(len(YAWS))), seed=st.integers(0, 99))
def test_the_order_of_the_views_changes_nothing(face, order, seed):
    landmarks = detected(face, noise=0.03, seed=seed)
    first = find_consensus(CAMERAS, landmarks, WIDTH)
    mixed = Landmarks(points_2d=landmarks.points_2d[order], confidence=landmarks.confidence[order])
    second = find_consensus(CAMERAS[order], mixed, WIDTH)
    assert torch.allclose(first.points, second.points, atol=1e-5)
    assert torch.equal(first.is_outlier[order], second.is_outlier)
    assert torch.equal(first.trusted[order], second.trusted)


def test_views_without_agreement_are_refused(face):
    landmarks = detected(face)
    scattered = 256 * torch.rand(len(YAWS), 68, 2, generator=torch.Generator().manual_seed(1))
    with pytest.raises(InvalidInput, match="of 12 views with a face, [01] agree .* expected at least 2"):
        find_consensus(CAMERAS, dataclasses.replace(landmarks, points_2d=scattered), WIDTH)


def linear_body(face: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Landmarks that are a linear function of four unknowns: their place at 0 and their derivatives."""
    generator = torch.Generator().manual_seed(5)
    start = face.double() + 0.01 * torch.randn(68, 3, generator=generator).double()
    return start, 0.05 * torch.randn(68, 3, 4, generator=generator).double()


@pytest.mark.parametrize("form", ["pictures", "space"])
def test_gradient_of_the_term_equals_central_differences(face, form):
    """In float64; the depth that turns pixels into world units is held, as in every Gauss-Newton step."""
    start, derivatives = linear_body(face)
    cameras = CAMERAS.to(dtype=torch.float64)
    landmarks = detected(face, noise=0.02)
    if form == "space":
        landmarks = Landmarks(points_3d=face.double(), confidence=landmarks.confidence[5])
    else:
        landmarks = dataclasses.replace(landmarks, points_2d=landmarks.points_2d.double())
    term = LandmarkTerm(landmarks, cameras, WIDTH)
    consensus = term.consensus
    width, weight = 0.02, 7.0
    held = project(term.cameras, start)[1] / term.cameras.K[:, 0, 0, None] if consensus else None

    def loss(unknowns: torch.Tensor) -> float:
        points = start + derivatives @ unknowns
        if consensus is None:
            squared, say = (points - landmarks.points_3d).square().sum(-1), landmarks.confidence_3d
        else:
            offset = project(term.cameras, points)[0] - landmarks.points_2d[term.views]
            squared = (offset * held[..., None]).square().sum(-1)
            say = consensus.weights[term.views].double() / (len(term.views) + 6)
        return float((say * weight * squared / (1 + squared / width**2)).sum())

    system = NormalEquations.of_size(4)
    none = torch.zeros(0, 3)
    term.add_to(system, LinearizedBody(none, none, start, none, derivatives), width, weight)
    step = 1e-5 * torch.eye(4, dtype=torch.float64)
    slopes = torch.tensor([(loss(row) - loss(-row)) / 2e-5 for row in step], dtype=torch.float64)
    assert float(slopes.abs().min()) > 1e-4
    # Detections of a robust weight under 0.001 are left out of the sum.
    assert torch.allclose(2 * system.gradient, slopes, rtol=2e-3, atol=1e-3 * float(slopes.abs().max()))


def test_wrong_detections_do_not_pull(face):
    start, derivatives = linear_body(face)
    landmarks = detected(face)
    wrong = landmarks.points_2d.clone()
    wrong[5] += 30.0
    wrong[:, 33] += torch.randn(len(YAWS), 2, generator=torch.Generator().manual_seed(8)) * 40
    gradients = []
    for pixels in (landmarks.points_2d, wrong):
        given_landmarks = dataclasses.replace(landmarks, points_2d=pixels)
        system = NormalEquations.of_size(4)
        none = torch.zeros(0, 3)
        posed = LinearizedBody(none, none, start.float(), none, derivatives.float())
        LandmarkTerm(given_landmarks, CAMERAS, WIDTH).add_to(system, posed, 0.05, 1.0)
        gradients.append(system.gradient)
    # One view and one landmark are missing; with the wrong ones the gradient would be several times as large.
    assert float((gradients[0] - gradients[1]).norm()) < 0.2 * float(gradients[0].norm())


def test_the_start_finds_scale_place_and_turn(mannequin_body):
    """Some landmarks are wrong; neck and head share the turn, so that the face is where and how it was."""
    turn = torch.tensor([[0.1, -0.35, 0.06]])
    true = mannequin_body.neutral_parameters().replace(
        neck_pose=turn / 2,
        head_pose=turn / 2,
        scale=torch.tensor([[2.5]]),
        translation=torch.tensor([[0.1, 0.2, -0.1]]),
    )
    points = mannequin_body(true).landmarks[0, :68].clone()
    target = points.clone()
    target[[3, 20, 40, 50, 60, 61]] += 0.2
    start = start_from_landmarks(mannequin_body, mannequin_body.neutral_parameters(), target, torch.ones(68))
    found = mannequin_body(start).landmarks[0, :68]
    assert float(errors(found, points).max()) < 0.01
    assert float(start.scale) == pytest.approx(2.5, rel=0.01)
    assert torch.allclose(start.neck_pose + start.head_pose, turn, atol=0.02)


def test_the_start_ignores_landmarks_without_weight(mannequin_body):
    neutral = mannequin_body.neutral_parameters()
    points = mannequin_body(neutral).landmarks[0, :68].clone()
    weights = torch.ones(68)
    weights[:30] = 0
    points[:30] = 5.0
    start = start_from_landmarks(mannequin_body, neutral, points, weights)
    assert float(start.scale) == pytest.approx(1.0, abs=1e-3)
    assert float(start.translation.abs().max()) < 1e-3
