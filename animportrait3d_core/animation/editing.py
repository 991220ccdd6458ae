"""A motion made calmer, stronger or weaker: all edits work on what a frame does beyond the avatar's rest pose, with
open eyes if they are closed in it, as every motion begins."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..body.model import BodyModel
from ..body.parameters import BodyParameters
from ..errors import InvalidInput, ShapeMismatch
from ..randomness import generator_at
from ..rotations import axis_angle_to_matrix, matrix_to_axis_angle, turned
from .arkit.fit import fitted
from .arkit.track import BASELINES
from .blinks import BlinkSettings, blink_curve
from .clips import close_lids
from .motion import Motion
from .smoothing import check_window, smoothed

OFFSETS = ("expression", "neck_pose", "head_pose", "jaw_pose", "left_eye_pose", "right_eye_pose", "eyelids")
"""What edits change; shape and placement stay."""

_TURNS = tuple(name for name in OFFSETS if name.endswith("_pose"))
_REGION = {"neck_pose": "head", "head_pose": "head", "jaw_pose": "mouth", "left_eye_pose": "eyes",
           "right_eye_pose": "eyes", "eyelids": "eyes"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class EditSettings:
    """What is done to a motion, in this order; the defaults do nothing."""

    neutral: str = "none"
    """The recorded face at rest, which becomes the avatar's: nothing, the first frame, or the median of all frames."""
    smoothing: int = 1
    """Frames of the Savitzky-Golay window, odd; 1 does nothing."""
    dead_zone: float = 0.0
    """Movements smaller than this do nothing: coefficients of expression, closing of lids, radians."""
    mouth: float = 1.0
    eyes: float = 1.0
    brows: float = 1.0
    head: float = 1.0
    """Strength of each region; 1 leaves it, 0 holds it at rest."""
    lock_neck: bool = False
    """Neck and head stay as they are at rest."""
    blinks_per_minute: float = 0.0
    """Blinks that are added."""
    seed: int = 0
    """Of the blinks."""

    def __post_init__(self) -> None:
        if self.neutral not in BASELINES:
            raise InvalidInput(f"EditSettings: neutral '{self.neutral}', expected one of {', '.join(BASELINES)}.")
        if not 0 <= self.dead_zone <= 10:
            raise InvalidInput(f"EditSettings: `dead_zone` {self.dead_zone}, expected 0 to 10.")
        check_window("EditSettings", self.smoothing)


def edited(motion: Motion, body: BodyModel, rest: BodyParameters, settings: EditSettings) -> Motion:
    """The edited motion of the avatar whose body and rest pose (a batch of one) are given.

    Raises `ShapeMismatch` if the motion was made for another number of expression coefficients.
    """
    rest = rest[0].awake()
    if motion.parameters.expression.shape[1] != rest.expression.shape[1]:
        raise ShapeMismatch(
            f"edited: the motion has {motion.parameters.expression.shape[1]} expression coefficients, the avatar "
            f"{rest.expression.shape[1]}; load the motion for this avatar."
        )
    offsets = _offsets(motion.parameters, rest)
    if settings.neutral != "none":
        offsets = {name: _without_neutral(name, value, settings.neutral) for name, value in offsets.items()}
    offsets = {name: smoothed(value, settings.smoothing) for name, value in offsets.items()}
    if settings.dead_zone:
        offsets = {name: _quieted(name, value, settings.dead_zone) for name, value in offsets.items()}
    offsets = _strengthened(offsets, body, settings)
    poses = _with_offsets(motion.parameters, rest, offsets)
    if settings.blinks_per_minute:
        generator, blinks = generator_at(settings.seed, "blinks"), BlinkSettings(settings.blinks_per_minute)
        poses = close_lids(poses, blink_curve(len(motion), motion.fps, generator, blinks)[:, None])
    return dataclasses.replace(motion, parameters=poses)


def _offsets(poses: BodyParameters, rest: BodyParameters) -> dict[str, Tensor]:
    """What each frame does beyond the rest pose: differences, and rotations after the one at rest."""
    found = {}
    for name in OFFSETS:
        value, base = getattr(poses, name), getattr(rest, name)
        found[name] = _turn_from(value, base) if name in _TURNS else value - base
    return found


def _turn_from(poses: Tensor, base: Tensor) -> Tensor:
    return matrix_to_axis_angle(axis_angle_to_matrix(poses) @ axis_angle_to_matrix(base).mT)


def _with_offsets(poses: BodyParameters, rest: BodyParameters, offsets: dict[str, Tensor]) -> BodyParameters:
    """Inverse of `_offsets`; what no edit has changed keeps its very bits."""
    before, changed = _offsets(poses, rest), {}
    for name, value in offsets.items():
        base = getattr(rest, name)
        if not torch.equal(value, before[name]):
            changed[name] = turned(base, value) if name in _TURNS else base + value
    return poses.replace(**changed)


def _without_neutral(name: str, offsets: Tensor, neutral: str) -> Tensor:
    base = offsets[:1] if neutral == "first frame" else offsets.median(dim=0, keepdim=True).values
    return _turn_from(offsets, base) if name in _TURNS else offsets - base


def _quieted(name: str, offsets: Tensor, dead_zone: float) -> Tensor:
    """Offsets without the dead zone, continuous at its border; the size of a rotation is its angle."""
    size = offsets.norm(dim=1, keepdim=True) if name in _TURNS else offsets.abs()
    return offsets * ((size - dead_zone).clamp_min(0) / size.clamp_min(1e-12))


def _strengthened(offsets: dict[str, Tensor], body: BodyModel, settings: EditSettings) -> dict[str, Tensor]:
    head = 0.0 if settings.lock_neck else settings.head
    strength = {"mouth": settings.mouth, "eyes": settings.eyes, "brows": settings.brows, "head": head}
    changed = {name: value * strength[_REGION[name]] for name, value in offsets.items() if name != "expression"}
    expression = offsets["expression"]
    if settings.mouth != 1 or settings.brows != 1:
        brows = expression @ fitted(body).brows.to(expression)
        expression = settings.mouth * (expression - brows) + settings.brows * brows
    return changed | {"expression": expression}
