"""Metrics of the 2D networks as sums over many pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ShapeMismatch
from ..landmarks import OUTER_EYE_CORNERS


class ConfusionCounts:
    """How often class i (truth) was taken for class j, summed over pictures."""

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, found: Tensor, truth: Tensor) -> None:
        """Count labels [...] (integers, 0 to classes - 1) of any equal shape."""
        if found.shape != truth.shape:
            raise ShapeMismatch(f"ConfusionCounts: labels {list(found.shape)} and truth {list(truth.shape)} differ.")
        size = len(self.counts)
        pairs = truth.flatten().long() * size + found.flatten().long()
        self.counts += torch.bincount(pairs, minlength=size * size).view(size, size)

    @property
    def total(self) -> int:
        """Pixels counted."""
        return int(self.counts.sum())

    def iou(self) -> Tensor:
        """Intersection over union [classes]; NaN for a class that is neither there nor found.

        >>> counts = ConfusionCounts(2); counts.add(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
        >>> [round(value, 3) for value in counts.iou().tolist()]
        [0.5, 0.667]
        """
        both = self.counts.diagonal().double()
        return both / (self.counts.sum(0) + self.counts.sum(1) - both)

    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return float(self.iou().nanmean())


def angles_between(first: Tensor, second: Tensor) -> Tensor:
    """Angles [...] in degrees between vectors [..., 3] of any length."""
    cross = torch.linalg.cross(first.double(), second.double(), dim=-1).norm(dim=-1)
    return torch.rad2deg(torch.atan2(cross, (first.double() * second.double()).sum(-1)))


def normalized_landmark_errors(points: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """Mean distance [B] over the counted [B, 68] points of each picture, over the projected outer-eye distance.

    NaN where no point is counted.
    """
    right, left = (truth[:, corner] for corner in OUTER_EYE_CORNERS)
    distance = (points - truth).norm(dim=-1) * counted
    return distance.sum(1) / counted.sum(1) / (left - right).norm(dim=-1)
