"""Metrics against closed forms, scikit-image and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.evaluation import (
    coverage,
    frame_coverage,
    iou,
    landmark_error,
    landmark_error_splat,
    mean_normal_angle,
    nearest_splats,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_coverage_takes_the_worst_seen_frame_and_ignores_the_rim() -> None:
    masks = torch.zeros(3, 20, 20, dtype=torch.bool)
    masks[:2, 4:16, 4:16] = True
    alphas = masks.float()
    alphas[0, 4:16, 4] = 0.0  # on the rim: eroded away
    alphas[1, 8:10, 8:10] = 0.0  # a hole of 4 pixels among 8 x 8
    frames = frame_coverage(alphas, masks, erosion_pixels=2)
    assert frames[0] == 1.0
    assert frames[1] == pytest.approx(1 - 4 / 64)
    assert torch.isnan(frames[2])
    assert coverage(alphas, masks, 2) == pytest.approx(1 - 4 / 64)
    with pytest.raises(InvalidInput, match="empty in all 1 frames"):
        coverage(alphas[2:], masks[2:])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10), st.integers(2, 3))
def test_landmark_error_is_free_of_scale_and_rigid_motion(seed: int, scale: float, dimensions: int) -> None:
    points, reference = noise(2, 70, dimensions, seed=seed), noise(2, 70, dimensions, seed=seed + 1)
    angle = 0.3 + seed
    turn = torch.eye(dimensions, dtype=torch.float64)
    cosine, sine = math.cos(angle), math.sin(angle)
    turn[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    moved = [scale * value @ turn.T + 3.0 for value in (points, reference)]
    assert landmark_error(*moved) == pytest.approx(landmark_error(points, reference), rel=1e-9)


def test_landmark_error_by_hand() -> None:
    points, reference = noise(3, 68, 3), noise(3, 68, 3, seed=1)
    expected = np.mean(
        [
            np.linalg.norm((points - reference)[i].numpy(), axis=1).mean()
            / np.linalg.norm((reference[i, 45] - reference[i, 36]).numpy())
            for i in range(3)
        ]
    )
    assert landmark_error(points, reference) == pytest.approx(expected)
    with pytest.raises(ShapeMismatch, match="68 or more"):
        landmark_error(points[:, :5], reference[:, :5])


def test_landmark_error_splat_is_the_error_in_pixels() -> None:
    cameras = orbit_cameras([0.0, 40.0], [0.0, 10.0], 128)
    landmarks = 0.3 * (noise(2, 68, 3) - 0.5)
    means = torch.cat([landmarks[0] + 1e-4, landmarks[0] + 1.0])
    chosen = nearest_splats(means, landmarks[0])
    assert chosen.tolist() == list(range(68))
    splats = landmarks + torch.tensor([0.01, 0.0, 0.0])
    pixels = [project(cameras.to(dtype=torch.float64), value)[0] for value in (splats, landmarks)]
    assert landmark_error_splat(splats, landmarks, cameras) == pytest.approx(landmark_error(*pixels))
    assert landmark_error_splat(landmarks, landmarks, cameras) == 0.0


def test_normal_angle_is_exact_for_tiny_and_large_angles() -> None:
    angles = torch.tensor([1e-6, 45.0, 179.9999], dtype=torch.float64)
    radians = torch.deg2rad(angles)
    turned = torch.stack([radians.cos(), radians.sin(), torch.zeros(3, dtype=torch.float64)], dim=1)
    along_x = torch.tensor([[1.0, 0, 0]], dtype=torch.float64).expand(3, 3)
    for index in range(3):
        mask = torch.arange(3) == index
        assert mean_normal_angle(3 * turned, along_x, mask) == pytest.approx(float(angles[index]), rel=1e-6)


def test_iou_of_empty_masks_is_one() -> None:
    empty = torch.zeros(4, dtype=torch.bool)
    assert iou(empty, empty) == 1.0
    assert iou(empty, ~empty) == 0.0
