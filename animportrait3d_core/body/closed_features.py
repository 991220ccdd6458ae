"""Closed eyes and a closed mouth, as landmarks show them.

Detectors leave a gap where lids or lips meet. Fitted as it is, it becomes an open jaw with teeth in a mouth that is
closed, and lids that open too wide.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..landmarks import LEFT_EYE, RIGHT_EYE
from .landmarks import Landmarks, is_closed

MOUTH_CLOSED = 0.09
"""Gap of the inner lips over their width, below which a mouth counts as closed. Detections on closed mouths that others
made leave up to 0.08."""
_LEFT_LIDS, _RIGHT_LIDS = ((43, 47), (44, 46)), ((37, 41), (38, 40))
_LIPS, _CORNERS = ((61, 67), (62, 66), (63, 65)), (60, 64)


@dataclasses.dataclass(frozen=True)
class ClosedFeatures:
    """What is closed; the sides are the subject's."""

    left_eye: bool = False
    right_eye: bool = False
    mouth: bool = False

    @property
    def eyelids(self) -> Tensor:
        """[1, 2], as `BodyParameters` have them."""
        return torch.tensor([[self.left_eye, self.right_eye]], dtype=torch.float32)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Landmarks that lie on each other."""
        pairs = ((self.left_eye, _LEFT_LIDS), (self.right_eye, _RIGHT_LIDS), (self.mouth, _LIPS))
        return sum((pair for is_shut, pair in pairs if is_shut), ())


def closed_features(points: Tensor, weights: Tensor) -> ClosedFeatures:
    """What is closed by landmarks [68, 3] in space, of those whose weights [68] are all above 0."""

    def known(*numbers: int) -> bool:
        return bool((weights[list(numbers)] > 0).all())

    left, right = (known(*range(eye.start, eye.stop)) and is_closed(points[eye]) for eye in (LEFT_EYE, RIGHT_EYE))
    lips = [number for pair in _LIPS for number in pair]
    gap = torch.stack([(points[upper] - points[lower]).norm() for upper, lower in _LIPS]).mean()
    width = (points[_CORNERS[0]] - points[_CORNERS[1]]).norm()
    return ClosedFeatures(left, right, known(*lips, *_CORNERS) and bool(gap < MOUTH_CLOSED * width))


def shut(landmarks: Landmarks, closed: ClosedFeatures) -> Landmarks:
    """The same without the gaps: where lids or lips meet, upper and lower are their mean, if both are known."""
    changes = {}
    for name, weights in (("points_3d", landmarks.confidence_3d), ("points_2d", landmarks.confidence)):
        points = getattr(landmarks, name)
        if points is None:
            continue
        points = changes[name] = points.clone()
        for upper, lower in closed.pairs:
            known = torch.ones(points.shape[:-2], dtype=torch.bool)
            if weights is not None:
                known = (weights[..., upper] > 0) & (weights[..., lower] > 0)
            mean = (points[..., upper, :] + points[..., lower, :]) / 2
            for number in (upper, lower):
                points[..., number, :] = torch.where(known[..., None], mean, points[..., number, :])
    return dataclasses.replace(landmarks, **changes)
