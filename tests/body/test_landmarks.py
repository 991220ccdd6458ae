from __future__ import annotations

import pytest
import torch

from animportrait3d_core.body.landmarks import (
    Landmarks,
    closest_to_rays,
    mean_landmark_error,
    triangulate,
    viewing_rays,
)
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput, ShapeMismatch


def test_triangulation_is_exact_and_knows_what_it_cannot_see():
    cameras = orbit_cameras([0, 40, -70], [0, 10, 0], 256)
    points = 0.1 * torch.randn(68, 3, generator=torch.Generator().manual_seed(4))
    pixels, _ = project(cameras, points)
    confidence = torch.ones(3, 68)
    confidence[1:, :5] = 0
    garbage = pixels.clone()
    garbage[1:, :5] = 7.0
    found, determined = triangulate(cameras, Landmarks(points_2d=garbage, confidence=confidence))
    assert determined.tolist() == [False] * 5 + [True] * 63
    assert torch.allclose(found[5:], points[5:], atol=1e-4)


def test_mean_landmark_error_in_closed_form():
    truth = torch.zeros(68, 3)
    truth[45, 0] = 2.0
    assert mean_landmark_error(truth + torch.tensor([0.0, 0.1, 0.0]), truth) == pytest.approx(0.05)


def test_a_form_that_is_not_there_is_named():
    with pytest.raises(InvalidInput, match="there are no points_3d"):
        _ = Landmarks(points_2d=torch.zeros(2, 68, 2)).positions
    with pytest.raises(InvalidInput, match="there are no points_2d"):
        _ = Landmarks(points_3d=torch.zeros(68, 3)).detections


def test_bad_landmarks_are_refused():
    with pytest.raises(InvalidInput, match="neither points_3d"):
        Landmarks()
    with pytest.raises(ShapeMismatch, match=r"\[70, 3\], expected \[68, 3\]"):
        Landmarks(points_3d=torch.zeros(70, 3))
    with pytest.raises(InvalidInput, match="non-finite"):
        Landmarks(points_3d=torch.full((68, 3), float("nan")))
    with pytest.raises(ShapeMismatch, match="confidence"):
        Landmarks(points_2d=torch.zeros(2, 68, 2), confidence=torch.ones(68))
    with pytest.raises(InvalidInput, match="1.5"):
        Landmarks(points_3d=torch.zeros(68, 3), confidence=torch.full((68,), 1.5))
    cameras = orbit_cameras([0, 40], [0, 0], 64)
    with pytest.raises(InvalidInput, match="2 cameras for 3 pictures"):
        Landmarks(points_2d=torch.zeros(3, 68, 2), cameras=cameras)
    with pytest.raises(InvalidInput, match="2 cameras for no pictures"):
        Landmarks(points_3d=torch.zeros(68, 3), cameras=cameras)


def test_rays_go_through_what_they_see():
    cameras = orbit_cameras([0, 40, -70], [0, 10, 0], 256)
    points = 0.1 * torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    origins, directions = viewing_rays(cameras, project(cameras, points)[0])
    assert torch.allclose(origins.float(), cameras.camera_centers, atol=1e-6)
    expected = torch.nn.functional.normalize(points.double() - origins[:, None], dim=-1)
    assert torch.allclose(directions, expected, atol=1e-6)


def test_closest_to_rays_in_closed_form():
    """Two rays at right angles that pass each other at distance 2: the weights divide the gap between them."""
    origins = torch.tensor([[-5.0, 0, 0], [0.0, 2, -5]], dtype=torch.float64)
    directions = torch.tensor([[[1.0, 0, 0]], [[0.0, 0, 1]]], dtype=torch.float64)
    for first, height in ((1.0, 1.0), (3.0, 0.5)):
        weights = torch.tensor([[first], [1.0]], dtype=torch.float64)
        points, determined = closest_to_rays(origins, directions, weights)
        assert determined.tolist() == [True]
        assert points[0].tolist() == pytest.approx([0, height, 0])
    batched, _ = closest_to_rays(origins.expand(3, 2, 3), directions.expand(3, 2, 1, 3), weights.expand(3, 2, 1))
    assert torch.equal(batched, points.expand(3, 1, 3))
    _, determined = closest_to_rays(origins, directions, torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    assert determined.tolist() == [False]
