"""Skeleton and skinning in the SMPL-X joint layout; only spine3, neck, head, jaw and the eyes carry vertices."""

from __future__ import annotations

import numpy as np

from ...body.shape_grids import smoothstep
from . import distance
from .bust import Bust, jaw_field
from .topology import skin_topology

JOINT_COUNT = 55
SPINE, NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE = 9, 12, 15, 22, 23, 24
PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
    + [20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38]
    + [21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53]
)
_SPINE_AT = (0.0, -285.0, -32.0)
_NAMED = {SPINE: _SPINE_AT, NECK: (0.0, -190.0, -40.0), HEAD: (0.0, -75.0, -28.0), JAW: (0.0, -24.0, 6.0)}
_SHOULDER = {13: (60.0, -230.0, -38.0), 16: (150.0, -258.0, -42.0)}
_ARM_AT = (150.0, -305.0, -42.0)  # elbows, wrists and fingers do not exist: their joints rest in the upper arm


def joint_locations() -> np.ndarray:
    """Joint positions [55, 3] in mm."""
    joints = np.tile(np.array(_SPINE_AT) + [0, -40.0, 0], (JOINT_COUNT, 1))
    for joint, place in _NAMED.items():
        joints[joint] = place
    for joint, place in _SHOULDER.items():
        joints[joint], joints[joint + 1] = place, np.array(place) * [-1, 1, 1]
    left_arm = [18, 20, *range(25, 40)]
    right_arm = [19, 21, *range(40, 55)]
    joints[left_arm], joints[right_arm] = _ARM_AT, np.array(_ARM_AT) * [-1, 1, 1]
    joints[LEFT_EYE] = distance.EYE_CENTER
    joints[RIGHT_EYE] = np.array(distance.EYE_CENTER) * [-1, 1, 1]
    return joints


def skinning_weights(bust: Bust) -> np.ndarray:
    """Skinning weights [V, 55]; rows sum to one."""
    topology = skin_topology()
    count = len(bust.closed)
    x, y, z = bust.opened.T
    head = smoothstep(-168.0, -88.0, y + 0.25 * np.clip(-z - 30, 0, 100) + 0.6 * np.clip(z - 15, 0, 70))
    # Shoulders belong to the torso up to the root of the neck, however high: a turned head must not drag them.
    from_neck_axis = np.hypot(x, z + 40.0)
    shoulders = smoothstep(55.0, 105.0, from_neck_axis) * smoothstep(-118.0, -150.0, y)
    torso = np.maximum(1 - smoothstep(-238.0, -172.0, y), shoulders)
    jaw = np.zeros(count)
    jaw[: topology.count] = jaw_field()
    start = topology.count
    rigid: list[tuple[slice, int]] = []
    rigid_joint = {"head": HEAD, "jaw": JAW, "left_eye": LEFT_EYE, "right_eye": RIGHT_EYE}
    for part in bust.parts:
        span = slice(start, start + len(part.closed))
        if part.joint == "blend":
            jaw[span], head[span], torso[span] = part.jaw, 1.0, 0.0
        else:
            rigid.append((span, rigid_joint[part.joint]))
        start = span.stop
    weights = np.zeros((count, JOINT_COUNT))
    weights[:, SPINE], weights[:, HEAD] = torso, head * (1 - torso)
    weights[:, NECK] = 1 - weights[:, SPINE] - weights[:, HEAD]
    weights *= (1 - jaw)[:, None]
    weights[:, JAW] = jaw
    for span, joint in rigid:
        weights[span], weights[span, joint] = 0.0, 1.0
    return weights / weights.sum(axis=1, keepdims=True)


def _convex_weights(points: np.ndarray, target: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Positive weights [k] with sum 1 and weighted mean `target`, as near to `base` [k] as relative entropy allows.

    They have the form base * exp(points @ slope) (maximum entropy under moment constraints); Newton finds the slope.
    """
    scale = np.abs(points - target).max()
    offset = (points - target) / scale
    slope = np.zeros(3)
    for _ in range(100):
        exponent = offset @ slope
        weights = base * np.exp(exponent - exponent.max())
        weights /= weights.sum()
        mean = weights @ offset
        spread = (offset - mean).T @ ((offset - mean) * weights[:, None])
        step = np.linalg.solve(spread + 1e-12 * np.eye(3), mean)
        slope -= step / max(1.0, float(np.linalg.norm(step)))
        if np.abs(mean).max() < 1e-13:
            break
    return weights


def joint_regressor(bust: Bust, joints: np.ndarray) -> np.ndarray:
    """Regressor [55, V]: eyes from their eyeballs, the others from nearby skin all around."""
    topology = skin_topology()
    regressor = np.zeros((JOINT_COUNT, len(bust.closed)))
    start = topology.count
    for part in bust.parts:
        if part.label == "eyeball":
            span = np.arange(start, start + len(part.closed))
            joint = LEFT_EYE if part.joint == "left_eye" else RIGHT_EYE
            regressor[joint, span] = _convex_weights(bust.opened[span], joints[joint], np.ones(len(span)))
        start += len(part.closed)
    skin = bust.opened[: topology.count]
    solved: dict[tuple[float, ...], np.ndarray] = {}
    for joint in range(JOINT_COUNT):
        if joint in (LEFT_EYE, RIGHT_EYE):
            continue
        place = tuple(joints[joint])
        if place not in solved:
            distances = np.linalg.norm(skin - joints[joint], axis=1)
            near = np.exp(-0.5 * (distances / (0.6 * distances.min() + 25.0)) ** 2)
            row = np.zeros(len(bust.closed))
            row[: topology.count] = _convex_weights(skin, joints[joint], near)
            solved[place] = np.where(row > 1e-12, row, 0.0)
        regressor[joint] = solved[place]
    return regressor
