"""Distances of marks to contours, in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from animportrait3d_core.portrait.contours import CONTOURS, contour_points, distances_to_contours


@pytest.fixture
def rings() -> torch.Tensor:
    """68 landmarks whose contours are regular polygons with corners at distance 1 of a centre of their own."""
    points = torch.zeros(68, 3)
    for index, contour in enumerate(CONTOURS):
        numbers = contour[:-1]
        for step, number in enumerate(numbers):
            angle = 2 * math.pi * step / len(numbers)
            points[number] = torch.tensor([math.cos(angle) + 5 * index, math.sin(angle), 0.0])
    return points


def test_a_mark_counts_its_distance_to_its_own_contour_and_not_where_along_it(rings):
    middle = (rings[37] + rings[38]) / 2
    marks = {36: middle, 44: torch.tensor([5.0, 0.0, 0.0]), 50: torch.tensor([10.0, 0.0, 2.0]), 63: rings[60]}
    found = distances_to_contours(rings, marks)
    assert found[36] == pytest.approx(0, abs=1e-6) and found[63] == pytest.approx(0, abs=1e-6)
    assert found[44] == pytest.approx(math.cos(math.pi / 6), abs=1e-5)  # the hexagon's inner radius
    assert found[50] == pytest.approx(math.hypot(math.cos(math.pi / 12), 2), abs=1e-5)


def test_a_mark_on_the_nose_is_on_no_contour(rings):
    with pytest.raises(KeyError):
        distances_to_contours(rings, {30: torch.zeros(3)})


def test_drawn_points_lie_on_the_contours(rings):
    drawn = contour_points(rings)
    assert len(drawn) == 12 * sum(len(contour) - 1 for contour in CONTOURS)
    for index, contour in enumerate(CONTOURS):
        own = drawn[(drawn[:, 0] - 5 * index).abs() < 2]
        worst = max(distances_to_contours(rings, {contour[0]: point})[contour[0]] for point in own)
        assert worst == pytest.approx(0, abs=1e-5)
