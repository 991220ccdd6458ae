"""Random states of a body: expression, jaw, gaze, lids and head, as the regions of the method need them.

Gaze and lids follow the ranges of the authors' sampling. Where no recorded motion is at hand, single expressions and
mixtures are drawn instead of its rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ..body.parameters import BodyParameters


@dataclasses.dataclass(frozen=True)
class StateRanges:
    """How far a body moves; the defaults are the embedded mannequin's.

    expressions: number of coefficients.  gaze_pitch, gaze_yaw: radians, uniform on either side.  largest_jaw: radians.
    widest_lids: below 0, wider than at rest; the authors draw SMPL-X's from -1 on.  neck, head: degrees about x, y and
    z, the standard deviations of turns.
    """

    expressions: int = 10
    gaze_pitch: float = 0.3
    gaze_yaw: float = 0.4
    largest_jaw: float = 0.42
    widest_lids: float = -0.22
    neck: tuple[float, float, float] = (5.5, 4.0, 2.5)
    head: tuple[float, float, float] = (5.0, 2.5, 3.0)


@dataclasses.dataclass(frozen=True)
class BodyState:
    """expression [ne]; jaw, gaze (both eyes), neck and head (added to the portrait's) axis-angle [3]; eyelids [2], 0
    open to 1 closed, below 0 wider than at rest."""

    expression: np.ndarray
    jaw: np.ndarray
    gaze: np.ndarray
    eyelids: np.ndarray
    neck: np.ndarray
    head: np.ndarray


def neutral_state(ranges: StateRanges = StateRanges()) -> BodyState:
    """The portrait itself."""
    return BodyState(np.zeros(ranges.expressions), np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(3))


def sample_state(region: str, generator: np.random.Generator, ranges: StateRanges = StateRanges()) -> BodyState:
    """A random state for a picture of one of `regions.IMAGE_REGIONS`.

    Eyes: lids uniform from wide open to closed, often exactly open or closed. Mouth: jaws from closed (often exactly)
    to wide. In half of the crops the head is turned, in the others it rests, as in the method's eye and mouth stages.
    """
    lids = _lids_of_eyes(generator, ranges) if region == "eyes" else _lids(generator, ranges)
    turned = region in ("bust", "face") or generator.random() < 0.5
    return BodyState(
        expression=_expression(generator, 1.0 if region != "eyes" else 0.8, ranges.expressions),
        jaw=_jaw(generator, {"mouth": 0.8, "eyes": 0.25}.get(region, 0.5), ranges.largest_jaw),
        gaze=_gaze(generator, ranges),
        eyelids=lids,
        neck=_turn(generator, np.deg2rad(ranges.neck), turned),
        head=_turn(generator, np.deg2rad(ranges.head), turned),
    )


def _expression(generator: np.random.Generator, strength: float, count: int) -> np.ndarray:
    """A soft mixture [count], in two thirds of the cases with one or two clear expressions on top."""
    values = 0.15 * generator.normal(size=count)
    for _ in range(generator.integers(0, 3)):
        values[generator.integers(count)] += generator.uniform(0.4, 1.0) * (1 if generator.random() < 0.85 else -0.6)
    return strength * np.clip(values, -0.7, 1.0)


def _jaw(generator: np.random.Generator, open_share: float, largest: float) -> np.ndarray:
    """Jaw [3], exactly closed but for `open_share` of the cases, else uniform up to wide open."""
    opening, sideways = generator.uniform(0.0, largest), generator.uniform(-0.04, 0.04)
    return np.array([opening, sideways, 0.0]) if generator.random() < open_share else np.zeros(3)


def _gaze(generator: np.random.Generator, ranges: StateRanges) -> np.ndarray:
    """Axis-angle [3] of both eyes, uniform in a rectangle."""
    pitch, yaw = ranges.gaze_pitch, ranges.gaze_yaw
    return np.array([generator.uniform(-pitch, pitch), generator.uniform(-yaw, yaw), 0.0])


def _lids(generator: np.random.Generator, ranges: StateRanges) -> np.ndarray:
    """The authors' mixture: closed or nearly so in three of ten cases, else open."""
    closure = generator.uniform(0.5, 1.1) if generator.random() < 0.3 else generator.uniform(ranges.widest_lids, 0.5)
    return np.full(2, min(closure, 1.0))


def _lids_of_eyes(generator: np.random.Generator, ranges: StateRanges) -> np.ndarray:
    kind, closure = generator.random(), generator.uniform(ranges.widest_lids, 1.0, 2)
    if kind < 0.15:
        return np.ones(2)
    if kind < 0.25:
        return np.zeros(2)
    # Both lids move together but for a wink now and then.
    return closure if kind < 0.35 else np.full(2, closure[0])


def _turn(generator: np.random.Generator, spread: np.ndarray, turned: bool) -> np.ndarray:
    values = np.clip(generator.normal(size=3), -2.2, 2.2) * spread
    return values if turned else np.zeros(3)


def _row(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))[None].to(like)


def sample_eyes(
    poses: BodyParameters, generator: np.random.Generator, ranges: StateRanges = StateRanges()
) -> BodyParameters:
    """Recorded poses [B] with gaze and lids drawn anew, as the authors' loops do: records hold hardly any of either."""
    gaze = torch.cat([_row(_gaze(generator, ranges), poses.betas) for _ in range(len(poses))])
    lids = torch.cat([_row(_lids(generator, ranges), poses.betas) for _ in range(len(poses))])
    return poses.replace(left_eye_pose=gaze, right_eye_pose=gaze, eyelids=lids)


def state_parameters(portrait: BodyParameters, state: BodyState) -> BodyParameters:
    """Body parameters [1] of a state of the person whose portrait pose is `portrait` [1], on its device."""
    return portrait.replace(
        expression=_row(state.expression, portrait.betas),
        jaw_pose=_row(state.jaw, portrait.betas),
        left_eye_pose=_row(state.gaze, portrait.betas),
        right_eye_pose=_row(state.gaze, portrait.betas),
        eyelids=_row(state.eyelids, portrait.betas),
        neck_pose=portrait.neck_pose + _row(state.neck, portrait.betas),
        head_pose=portrait.head_pose + _row(state.head, portrait.betas),
    )
