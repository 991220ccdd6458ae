"""Built-in motions: holding still, and the stress clip that shows every way an avatar can break."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..body.parameters import BodyParameters, stack_parameters
from ..errors import InvalidInput
from ..rotations import axis_angle_to_matrix, matrix_to_axis_angle, turned
from .motion import Motion

if TYPE_CHECKING:
    from ..body.model import BodyModel

DEFAULT_FPS = 25.0


@dataclasses.dataclass(frozen=True)
class StressClipSettings:
    """Extremes of the stress clip."""

    frames_per_move: int = 12
    """From rest to the extreme, held for a moment, and back: half a second at 25 frames per second."""
    jaw_degrees: float = 22.0
    """A wide open mouth of SMPL-X."""
    gaze_sideways_degrees: float = 28.0
    gaze_up_down_degrees: float = 18.0
    """As far as people turn their eyes before they turn the head."""
    head_turn_degrees: float = 60.0
    """Of the head against the shoulders, to each side."""
    neck_share: float = 0.4
    """Part of the turn that the neck takes; the head joint does the rest."""
    expression: float = 2.0
    """Coefficient of each expression direction at its extreme: two standard deviations."""
    max_expressions: int = 10
    """The first, strongest directions; SMPL-X has up to 100."""

    def __post_init__(self) -> None:
        if self.frames_per_move < 1 or self.max_expressions < 0 or not 0 <= self.neck_share <= 1:
            raise InvalidInput(
                f"StressClipSettings: `frames_per_move` {self.frames_per_move}, `max_expressions` "
                f"{self.max_expressions}, `neck_share` {self.neck_share}; expected at least 1, at least 0, and 0..1."
            )


def rest_motion(parameters: BodyParameters, frames: int, fps: float = DEFAULT_FPS) -> Motion:
    """One pose (a batch of one), held for `frames` frames."""
    if frames < 1:
        raise InvalidInput(f"rest_motion: {frames} frames, expected at least 1.")
    return Motion(parameters[0].expand(frames), fps, ("rest",) * frames)


def envelope(frames: int) -> Tensor:
    """Strength [frames] of a move: a raised cosine from 0 towards 1 and back that reaches 1 in the middle.

    >>> envelope(5).tolist()
    [0.25, 0.75, 1.0, 0.75, 0.25]
    """
    position = (torch.arange(frames, dtype=torch.float64) + 1) / (frames + 1)
    rising = torch.minimum(position, 1 - position) * 2
    peak = rising.max()
    return (0.5 - 0.5 * torch.cos(math.pi * rising / peak)).float()


def stress_clip(
    body: BodyModel,
    rest: BodyParameters,
    fps: float = DEFAULT_FPS,
    settings: StressClipSettings = StressClipSettings(),
) -> Motion:
    """Jaw open, blink, gaze to its four limits, head turned to both sides, each expression, all at once.

    rest: the pose (a batch of one) in which every move begins and ends, but for lids that are closed in it.
    """
    strength = envelope(settings.frames_per_move)
    start, frames, names = rest[0].awake(), [], []
    for name, move in _moves(body, settings).items():
        frames += [move(start, float(amount)) for amount in strength]
        names += [name] * len(strength)
    return Motion(stack_parameters(frames), fps, tuple(names))


_Move = Callable[[BodyParameters, float], BodyParameters]


def _moves(body: BodyModel, settings: StressClipSettings) -> dict[str, _Move]:
    """The moves of the clip by name: each maps the rest pose and a strength in 0..1 to a pose."""
    sideways, up_down = settings.gaze_sideways_degrees, settings.gaze_up_down_degrees
    turn, share = settings.head_turn_degrees, settings.neck_share
    moves: dict[str, _Move] = {
        "jaw open": lambda rest, a: open_jaw(rest, a * settings.jaw_degrees),
        "blink": close_lids,
        "look left": lambda rest, a: turn_eyes(rest, a * sideways, 0.0),
        "look right": lambda rest, a: turn_eyes(rest, -a * sideways, 0.0),
        "look up": lambda rest, a: turn_eyes(rest, 0.0, a * up_down),
        "look down": lambda rest, a: turn_eyes(rest, 0.0, -a * up_down),
        "head left": lambda rest, a: turn_head(rest, a * turn, share),
        "head right": lambda rest, a: turn_head(rest, -a * turn, share),
    }
    for index in range(min(body.num_expression, settings.max_expressions)):
        moves[f"expression {index}"] = partial(_express, index, settings.expression)

    def everything(rest: BodyParameters, a: float) -> BodyParameters:
        pose = turn_eyes(open_jaw(rest, a * settings.jaw_degrees), -a * sideways, a * up_down)
        pose = close_lids(turn_head(pose, 0.5 * a * turn, share), 0.5 * a)
        return add_expression(pose, 0, a * settings.expression) if body.num_expression else pose

    return moves | {"everything": everything}


def _express(index: int, extreme: float, rest: BodyParameters, amount: float) -> BodyParameters:
    return add_expression(rest, index, amount * extreme)


def _rotated(first: Tensor, degrees: tuple[float, float, float]) -> Tensor:
    """Axis-angle [1, 3] of the rotation by `degrees` (about x, y and z, small or about one axis) after `first`."""
    return turned(first, torch.deg2rad(first.new_tensor([degrees])))


def open_jaw(pose: BodyParameters, degrees: float) -> BodyParameters:
    """The jaw turned down about the ear-to-ear axis, from where it is."""
    return pose.replace(jaw_pose=_rotated(pose.jaw_pose, (degrees, 0.0, 0.0)))


def close_lids(pose: BodyParameters, amount: float | Tensor) -> BodyParameters:
    """The lids moved by the fraction `amount` (of both, or [B, 2] left and right) of the way from where they are to
    closed."""
    return pose.replace(eyelids=pose.eyelids + amount * (1 - pose.eyelids))


def move_lids(pose: BodyParameters, amount: Tensor) -> BodyParameters:
    """The lids [B, 2] closed by the share `amount` of what they are open, or opened wider by it where it is below 0."""
    share = amount * torch.where(amount > 0, 1 - pose.eyelids, torch.ones_like(amount))
    return pose.replace(eyelids=pose.eyelids + share)


def turn_eyes(pose: BodyParameters, left_degrees: float, up_degrees: float) -> BodyParameters:
    """Both eyes turned to the subject's left and up, from where they look."""
    turn = (-up_degrees, left_degrees, 0.0)
    return pose.replace(
        left_eye_pose=_rotated(pose.left_eye_pose, turn), right_eye_pose=_rotated(pose.right_eye_pose, turn)
    )


def turn_head(pose: BodyParameters, left_degrees: float, neck_share: float = 0.4) -> BodyParameters:
    """The head turned to the subject's left about the body's vertical axis, by exactly this angle."""
    return rotate_head(pose, pose.neck_pose.new_tensor([[0.0, math.radians(left_degrees), 0.0]]), neck_share)


def rotate_head(pose: BodyParameters, turn: Tensor, neck_share: float = 0.4) -> BodyParameters:
    """The head turned by axis-angle vectors [B, 3] about the body's axes, from where it is.

    The neck joint takes `neck_share` of it; the head joint does what remains, so that the head's final rotation is the
    whole turn after its present rotation, also when neck and head are already bent.
    """
    neck, head = axis_angle_to_matrix(pose.neck_pose), axis_angle_to_matrix(pose.head_pose)
    turned_neck = axis_angle_to_matrix(neck_share * turn) @ neck
    turned_head = turned_neck.mT @ axis_angle_to_matrix(turn) @ neck @ head
    return pose.replace(neck_pose=matrix_to_axis_angle(turned_neck), head_pose=matrix_to_axis_angle(turned_head))


def add_expression(pose: BodyParameters, index: int, amount: float) -> BodyParameters:
    """One expression coefficient increased by `amount`."""
    expression = pose.expression.clone()
    expression[:, index] += amount
    return pose.replace(expression=expression)
