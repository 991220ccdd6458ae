"""Motions along time: another frame rate, one after the other, in a loop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..body.parameters import BodyParameters, stack_parameters
from ..errors import InvalidInput
from ..rotations import axis_angle_to_matrix, matrix_to_axis_angle, turned
from .motion import Motion

ROTATIONS = ("global_orient", "neck_pose", "head_pose", "jaw_pose", "left_eye_pose", "right_eye_pose")
"""Parameters that are axis-angle vectors; the others are numbers that may be averaged."""


def between_rotations(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Axis-angle vectors [T, 3] on the shortest way from `first` to `second` [T, 3] (slerp), share [T, 1] of it."""
    start = axis_angle_to_matrix(first)
    way = matrix_to_axis_angle(axis_angle_to_matrix(second) @ start.mT)
    return turned(first, share * way)


def between(first: BodyParameters, second: BodyParameters, share: Tensor) -> BodyParameters:
    """States between two batches of T: share [T] of the way, 0 is the first; rotations turn at constant speed."""
    weight = share.to(first.expression)[:, None]
    changed = {}
    for name, value in first.items():
        other = getattr(second, name)
        if torch.equal(value, other):
            changed[name] = value
        elif name in ROTATIONS:
            changed[name] = between_rotations(value, other, weight)
        else:
            changed[name] = value + weight * (other - value)
    return first.replace(**changed)


def retimed(motion: Motion, fps: float, speed: float = 1.0) -> Motion:
    """The motion at another frame rate, or faster (`speed` above 1); the first and the last pose stay the first and
    the last, the latter if a frame falls on it. Names are those of the nearest frame."""
    if not 0 < fps <= 1000 or not 0.01 <= speed <= 100:
        raise InvalidInput(f"retimed: {fps} frames per second at speed {speed}; expected 0 to 1000 and 0.01 to 100.")
    if fps == motion.fps and speed == 1.0:
        return motion
    step = motion.fps * speed / fps
    count = 1 + math.floor((len(motion) - 1) / step + 1e-6)
    places = (torch.arange(count, dtype=torch.float64) * step).clamp_max(len(motion) - 1)
    before = places.floor().long().clamp_max(max(0, len(motion) - 2))
    after = (before + 1).clamp_max(len(motion) - 1)
    poses = between(motion.parameters[before], motion.parameters[after], places - before)
    nearest = places.round().long().tolist()
    return Motion(poses, fps, tuple(motion.names[index] for index in nearest) if motion.names else ())


def ramp(frames: int) -> Tensor:
    """Shares [frames] that rise smoothly from above 0 to below 1.

    >>> ramp(3).tolist()
    [0.15625, 0.5, 0.84375]
    """
    share = (torch.arange(frames, dtype=torch.float64) + 1) / (frames + 1)
    return (3 * share**2 - 2 * share**3).float()


def joined(motions: Sequence[Motion], crossfade: int = 0) -> Motion:
    """Motions one after the other at the frame rate of the first; `crossfade` frames of each two lie over each other.

    Raises `InvalidInput` where a motion is too short for its fades or made for another avatar.
    """
    if not motions or crossfade < 0:
        raise InvalidInput(f"joined: {len(motions)} motions and {crossfade} frames of cross-fade; expected 1 and 0.")
    result = motions[0]
    for index, motion in enumerate(motions[1:], start=1):
        _check_same_subject(result, motion, index)
        motion = retimed(motion, result.fps)
        if crossfade > min(len(result), len(motion)):
            raise InvalidInput(
                f"joined: motion {index} has {len(motion)} frames after {len(result)}, fewer than the {crossfade} of "
                "the cross-fade; shorten it."
            )
        result = _faded(result, motion, crossfade)
    return result


def looped(motion: Motion, crossfade: int) -> Motion:
    """The motion with its end led into its beginning: played again and again, no frame jumps.

    The last `crossfade` frames are laid over the first ones, so that it is that much shorter.
    """
    if not 1 <= crossfade <= len(motion) // 2:
        raise InvalidInput(
            f"looped: {crossfade} frames of cross-fade in a motion of {len(motion)}; expected 1 to {len(motion) // 2}."
        )
    end, start = len(motion) - crossfade, motion.parameters[:crossfade]
    over = between(motion.parameters[end:], start, ramp(crossfade))
    poses = stack_parameters([over, motion.parameters[crossfade:end]]) if end > crossfade else over
    return dataclasses.replace(motion, parameters=poses, names=motion.names[:end])


def repeated(motion: Motion, times: int) -> Motion:
    """The motion `times` times."""
    if not 1 <= times <= 10000:
        raise InvalidInput(f"repeated: {times} times, expected 1 to 10000.")
    return dataclasses.replace(
        motion, parameters=stack_parameters([motion.parameters] * times), names=motion.names * times
    )


def _faded(first: Motion, second: Motion, crossfade: int) -> Motion:
    """Two motions of one frame rate as one."""
    cut = len(first) - crossfade
    parts = [first.parameters[:cut]] if cut else []
    if crossfade:
        parts.append(between(first.parameters[cut:], second.parameters[:crossfade], ramp(crossfade)))
    if len(second) > crossfade:
        parts.append(second.parameters[crossfade:])
    names = (first.names or ("",) * len(first))[:cut] + (second.names or ("",) * len(second))
    return Motion(stack_parameters(parts), first.fps, names if first.names or second.names else ())


def _check_same_subject(first: Motion, second: Motion, index: int) -> None:
    """Refuse motions of bodies with other coefficients or another shape: between them the head would swell."""
    for name in ("betas", "expression", "scale"):
        one, other = getattr(first.parameters, name), getattr(second.parameters, name)
        fits = one.shape[1] == other.shape[1]
        if not fits or (name != "expression" and not torch.equal(one[:1], other[:1])):
            found = f"{other.shape[1]} and {one.shape[1]} {name}" if not fits else f"other `{name}`"
            raise InvalidInput(
                f"joined: motion {index} was made for another avatar than the first ({found}); load both for the same."
            )
