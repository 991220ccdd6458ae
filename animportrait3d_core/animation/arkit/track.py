"""A recording of ARKit shapes, and how it is cleaned before a body is posed."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from ...errors import InvalidInput, check_finite, check_shape
from ...rotations import axis_angle_to_matrix, matrix_to_axis_angle
from ..smoothing import check_window, smoothed
from .names import ARKIT_NAMES, ARKIT_REGIONS, MIRRORED_SHAPES

BASELINES = ("none", "first frame", "median")


@dataclasses.dataclass(frozen=True)
class ArkitTrack:
    """T frames of a tracked face.

    weights: [T, 52] float32, strengths in the order of `ARKIT_NAMES`, usually 0..1.  fps: frames per second.  head:
    [T, 3] axis-angle in radians about the world's axes (x to the subject's left, y up, z forward), or None.  notes:
    what a reader had to mend or leave out, for the user.
    """

    weights: Tensor
    fps: float
    head: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_shape("ArkitTrack", "weights", self.weights, ["T", len(ARKIT_NAMES)])
        check_finite("ArkitTrack", "weights", self.weights)
        if len(self.weights) == 0:
            raise InvalidInput("ArkitTrack: 0 frames, expected at least 1.")
        if not 0 < self.fps <= 1000:
            raise InvalidInput(f"ArkitTrack: {self.fps} frames per second, expected more than 0 and at most 1000.")
        if self.head is not None:
            check_shape("ArkitTrack", "head", self.head, [len(self.weights), 3])
            check_finite("ArkitTrack", "head", self.head)


@dataclasses.dataclass(frozen=True)
class TrackSettings:
    """How a track is cleaned; the defaults are those of the host's own face nodes."""

    baseline: str = "none"
    """What counts as the face at rest and is subtracted: nothing, the first frame, or the median of all frames."""
    dead_zone: float = 0.02
    """Strengths below this are nothing; above it they begin at zero, so that none jumps."""
    smoothing: int = 7
    """Frames of the Savitzky-Golay window, odd; 1 does nothing."""
    mouth: float = 1.0
    eyes: float = 1.0
    brows: float = 1.0
    head: float = 1.0
    """Strength of each region."""
    mirrored: bool = False
    """The picture was a mirror image: left and right are swapped."""

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise InvalidInput(f"TrackSettings: baseline '{self.baseline}', expected one of {', '.join(BASELINES)}.")
        if not 0 <= self.dead_zone < 1:
            raise InvalidInput(f"TrackSettings: `dead_zone` {self.dead_zone}, expected 0 to below 1.")
        check_window("TrackSettings", self.smoothing)


def beyond(values: Tensor, dead_zone: float) -> Tensor:
    """Values without the dead zone about zero, continuous at its border.

    >>> import torch
    >>> beyond(torch.tensor([-1.0, 0.25, 1.0]), 0.5).tolist()
    [-0.5, 0.0, 0.5]
    """
    return values.sign() * (values.abs() - dead_zone).clamp_min(0)


def mirrored(track: ArkitTrack) -> ArkitTrack:
    """The track of the mirrored face."""
    head = None if track.head is None else track.head * track.head.new_tensor([1.0, -1.0, -1.0])
    return dataclasses.replace(track, weights=track.weights[:, list(MIRRORED_SHAPES)], head=head)


def processed_track(track: ArkitTrack, settings: TrackSettings) -> ArkitTrack:
    """The cleaned track; strengths may leave 0..1 where the settings drive them there.

    The dead zone is widened back, so that full strength stays full: (|x| - d) / (1 - d).
    """
    track = mirrored(track) if settings.mirrored else track
    weights, head = track.weights, track.head
    if settings.baseline == "first frame":
        weights = weights - weights[:1]
        head = None if head is None else _against(head, head[:1])
    elif settings.baseline == "median":
        weights = weights - weights.median(dim=0, keepdim=True).values
        head = None if head is None else _against(head, head.median(dim=0, keepdim=True).values)
    weights = beyond(weights, settings.dead_zone) / (1 - settings.dead_zone)
    strength = weights.new_tensor([getattr(settings, region) for region in ARKIT_REGIONS])
    weights = smoothed(weights, settings.smoothing) * strength
    head = None if head is None else smoothed(head, settings.smoothing) * settings.head
    return dataclasses.replace(track, weights=weights, head=head)


def _against(head: Tensor, base: Tensor) -> Tensor:
    """Rotations [T, 3] after the inverse of a base rotation [1, 3]."""
    return matrix_to_axis_angle(axis_angle_to_matrix(head) @ axis_angle_to_matrix(base).mT)
