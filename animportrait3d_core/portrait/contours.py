"""Contours of lids and lips through the landmarks of a face, and how far marked points are from them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

CONTOURS = ((36, 37, 38, 39, 40, 41, 36), (42, 43, 44, 45, 46, 47, 42), (*range(48, 60), 48), (*range(60, 68), 60))
"""Landmarks along the right and the left lids, the outer and the inner lips."""
_STEPS = 12  # points between two landmarks, in pictures


def contour_points(points: Tensor) -> Tensor:
    """Close points [N, 3] along the contours of landmarks [68, 3]."""
    steps = torch.linspace(0, 1, _STEPS + 1)[:-1, None]
    lines = [points[a] + steps * (points[b] - points[a]) for contour in CONTOURS for a, b in zip(contour, contour[1:])]
    return torch.cat(lines)


def distances_to_contours(points: Tensor, marks: Mapping[int, Tensor]) -> dict[int, float]:
    """Distance of each mark [3] to the contour of the landmarks [68, 3] that its own landmark, the key, lies on.

    Where along a contour a landmark lies is a convention; that lids and lips lie where they are seen is not.

    Raises `KeyError` for a mark that is on no contour.
    """
    contour_of = {number: contour for contour in CONTOURS for number in contour}
    return {number: _distance(points[list(contour_of[number])], mark) for number, mark in marks.items()}


def _distance(line: Tensor, point: Tensor) -> float:
    """Of a point [3] to a line through points [N, 3]."""
    starts, ways = line[:-1], line[1:] - line[:-1]
    share = ((point - starts) * ways).sum(-1) / ways.square().sum(-1).clamp(min=1e-12)
    nearest = starts + share.clamp(0, 1)[:, None] * ways
    return float((point - nearest).norm(dim=-1).min())
