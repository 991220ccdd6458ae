"""Random states of a body: expression, jaw, gaze, lids and head, as the regions of the method need them.

Gaze and lids follow the ranges of the authors' sampling; where they draw rows of recorded motion, single expressions
and mixtures are drawn here.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ...body.parameters import BodyParameters
from ...training.shards import BODY_WIDTHS

GAZE_PITCH, GAZE_YAW = 0.3, 0.4  # radians, uniform on either side
LARGEST_JAW = 0.42
WIDE_OPEN_LIDS = -0.22
_NECK_SPREAD = np.deg2rad([5.5, 4.0, 2.5])
_HEAD_SPREAD = np.deg2rad([5.0, 2.5, 3.0])


@dataclasses.dataclass(frozen=True)
class BodyState:
    """expression [10]; jaw, gaze (both eyes), neck and head (added to the portrait's) axis-angle [3]; eyelids [2], 0
    open to 1 closed, below 0 wider than at rest."""

    expression: np.ndarray
    jaw: np.ndarray
    gaze: np.ndarray
    eyelids: np.ndarray
    neck: np.ndarray
    head: np.ndarray


def neutral_state() -> BodyState:
    """The portrait itself."""
    return BodyState(np.zeros(10), np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(3))


def sample_state(region: str, generator: np.random.Generator) -> BodyState:
    """A random state for a picture of one of the regions.

    Eyes: lids uniform from wide open to closed, often exactly open or closed. Mouth: jaws from closed (often exactly)
    to wide. In half of the crops the head is turned, in the others it rests, as in the method's eye and mouth stages.
    """
    lids = _lids_of_eyes(generator) if region == "eyes" else _lids(generator)
    turned = region in ("bust", "face") or generator.random() < 0.5
    return BodyState(
        expression=_expression(generator, 1.0 if region != "eyes" else 0.8),
        jaw=_jaw(generator, {"mouth": 0.8, "eyes": 0.25}.get(region, 0.5)),
        gaze=np.array([generator.uniform(-GAZE_PITCH, GAZE_PITCH), generator.uniform(-GAZE_YAW, GAZE_YAW), 0.0]),
        eyelids=lids,
        neck=_turn(generator, _NECK_SPREAD, turned),
        head=_turn(generator, _HEAD_SPREAD, turned),
    )


def _expression(generator: np.random.Generator, strength: float) -> np.ndarray:
    """A soft mixture [10], in two thirds of the cases with one or two clear expressions on top."""
    values = 0.15 * generator.normal(size=10)
    for _ in range(generator.integers(0, 3)):
        values[generator.integers(10)] += generator.uniform(0.4, 1.0) * (1 if generator.random() < 0.85 else -0.6)
    return strength * np.clip(values, -0.7, 1.0)


def _jaw(generator: np.random.Generator, open_share: float) -> np.ndarray:
    """Jaw [3], exactly closed but for `open_share` of the cases, else uniform up to wide open."""
    opening, sideways = generator.uniform(0.0, LARGEST_JAW), generator.uniform(-0.04, 0.04)
    return np.array([opening, sideways, 0.0]) if generator.random() < open_share else np.zeros(3)


def _lids(generator: np.random.Generator) -> np.ndarray:
    """The authors' mixture: closed or nearly so in three of ten cases, else open."""
    closure = generator.uniform(0.5, 1.1) if generator.random() < 0.3 else generator.uniform(WIDE_OPEN_LIDS, 0.5)
    return np.full(2, min(closure, 1.0))


def _lids_of_eyes(generator: np.random.Generator) -> np.ndarray:
    kind, closure = generator.random(), generator.uniform(WIDE_OPEN_LIDS, 1.0, 2)
    if kind < 0.15:
        return np.ones(2)
    if kind < 0.25:
        return np.zeros(2)
    # Both lids move together but for a wink now and then.
    return closure if kind < 0.35 else np.full(2, closure[0])


def _turn(generator: np.random.Generator, spread: np.ndarray, turned: bool) -> np.ndarray:
    values = np.clip(generator.normal(size=3), -2.2, 2.2) * spread
    return values if turned else np.zeros(3)


def state_parameters(portrait: BodyParameters, state: BodyState) -> BodyParameters:
    """Body parameters [1] of a state of the person whose portrait pose is `portrait` [1]."""

    def row(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, dtype=np.float32))[None]

    return portrait.replace(
        expression=row(state.expression),
        jaw_pose=row(state.jaw),
        left_eye_pose=row(state.gaze),
        right_eye_pose=row(state.gaze),
        eyelids=row(state.eyelids),
        neck_pose=portrait.neck_pose + row(state.neck),
        head_pose=portrait.head_pose + row(state.head),
    )


def body_vector(parameters: BodyParameters) -> torch.Tensor:
    """The `body` tensor [27] of a sample: the fields of BODY_WIDTHS of a state [1] side by side."""
    return torch.cat([getattr(parameters, name)[0] for name in BODY_WIDTHS])
