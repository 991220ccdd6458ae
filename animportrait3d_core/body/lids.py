"""Eyelids by geometry: the skin around an eye opening is turned about the eye until the opening is closed.

A place near an eye has two coordinates: x, from the eye's centre to the subject's left, and its angle about that axis
(0 = straight ahead, up is positive). Both borders of the opening are functions angle(x); closing turns every place by
what the border of its lid has to turn at its x, less and less with the distance from the border. A body moves its lids
on straight ways from open to closed: they end so far out that no place dips into the eyeball half-way.
"""

from __future__ import annotations

import dataclasses

import numpy as np

SEAM_SHARE = 0.2  # where the lids meet, from the lower border to the upper one: the upper lid does most of the way
OVERLAP = np.deg2rad(1.0)  # of the closed lids in the middle: no ray slips between borders of different vertices
SPAN = np.deg2rad(45.0)  # behind the border, where the skin rests
CLEARANCE = 1.05  # of the eyeball's radius: between two vertices that far out, the skin stays off the eyeball
GRAZE = 1.01  # of the eyeball's radius: half-closed lids, which move on a straight way, need not pass it farther out
MOST_LIFT = 1.2  # of the eyeball's radius: no closed lid is pushed farther out for the sake of its way
NEAR, FAR = 1.3, 2.2  # of the eyeball's radius: up to the first all skin turns, from the second none


@dataclasses.dataclass(frozen=True)
class EyeOpening:
    """One eye: its ball and the border of its opening.

    center: [3] and radius, metres.  upper, lower: vertices of the two borders, both with both corners, from the
    subject's right to the left.  inside: [V] bool, skin behind the border.
    """

    center: np.ndarray
    radius: float
    upper: np.ndarray
    lower: np.ndarray
    inside: np.ndarray


def fitted_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of the sphere that fits points [n, 3] best, by linear least squares.

    |p|^2 = 2 p . c + (r^2 - |c|^2) is linear in c and the last bracket.
    """
    middle = points.mean(axis=0)
    shifted = points - middle
    system = np.concatenate([2 * shifted, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(system, (shifted**2).sum(axis=1), rcond=None)[0]
    return middle + solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def lid_offsets(vertices: np.ndarray, skin: np.ndarray, eye: EyeOpening) -> np.ndarray:
    """Offsets [V, 3] that close one eye, zero outside of its lids.

    vertices: [V, 3] of the template.  skin: [V] bool, what may move.
    """
    relative = vertices - eye.center
    angle = np.arctan2(relative[:, 1], relative[:, 2])
    x = relative[:, 0]
    upper, lower = _border(x, angle, eye.upper, x), _border(x, angle, eye.lower, x)
    seam = lower + SEAM_SHARE * (upper - lower)
    turn, share = _turns(relative, angle, (upper, lower, seam), eye)
    share = np.where(skin, share, 0.0)
    turned = _turned(relative, turn * share)
    distance = np.linalg.norm(turned, axis=1)
    wanted = np.maximum(distance, CLEARANCE * eye.radius)
    # What lies behind the border stays behind it: it is turned, not lifted.
    lift = np.where(eye.inside, 0.0, share * np.minimum(1.0, np.abs(turn) / 0.1))
    factor = 1 + lift * (wanted / np.maximum(distance, 1e-9) - 1)
    factor = np.maximum(factor, _passing(relative, turned, eye.radius) / np.maximum(distance, 1e-9))
    return np.where(share[:, None] > 0, turned * factor[:, None] - relative, 0.0)


def _passing(relative: np.ndarray, turned: np.ndarray, radius: float) -> np.ndarray:
    """Distance [V] from the eye's centre at which a place must end, so that its straight way passes the eyeball.

    A way between distances a and b that is seen under an angle passes a sphere of radius r if the angle is at most
    arccos(r / a) + arccos(r / b). Half of the room that the skin has is given up on the way. Places that begin inside
    the eyeball have no such way: 0.
    """
    start = np.maximum(np.linalg.norm(relative, axis=1), 1e-9)
    angle = np.arccos(np.clip((relative * turned).sum(axis=1) / start**2, -1, 1))
    near = np.minimum(GRAZE * radius, 0.5 * (radius + start))
    left = np.maximum(angle - np.arccos(np.clip(near / start, -1, 1)), 0)
    end = np.minimum(near / np.cos(np.minimum(left, 1.4)), MOST_LIFT * radius)
    return np.where(start >= radius, end, 0.0)


def _border(x: np.ndarray, angle: np.ndarray, border: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Angle of a border at the places `at`; outside of it that of its corners."""
    order = border[np.argsort(x[border], kind="stable")]
    return np.interp(at, x[order], angle[order])


def _turns(
    relative: np.ndarray, angle: np.ndarray, lines: tuple[np.ndarray, np.ndarray, np.ndarray], eye: EyeOpening
) -> tuple[np.ndarray, np.ndarray]:
    """How far each place would turn as part of its border [V], in radians, and how much of that it does [V] in 0..1."""
    upper, lower, seam = lines
    above = angle > 0.5 * (upper + lower)
    above[eye.upper] = True
    above[eye.lower[1:-1]] = False
    overlap = OVERLAP * np.clip((upper - lower) / (10 * OVERLAP), 0, 1)
    turn = np.where(above, seam - overlap - upper, seam - lower)
    beyond = np.where(above, angle - upper, lower - angle) / SPAN
    distance = np.linalg.norm(relative, axis=1) / eye.radius
    share = _falling(beyond, 0.0, 1.0) * _falling(distance, NEAR, FAR)
    share = np.where(relative[:, 2] > -0.5 * eye.radius, share, 0.0)
    border = np.concatenate([eye.upper, eye.lower[1:-1]])
    share[border] = 1.0
    behind = np.flatnonzero(eye.inside)
    if len(behind):
        gaps = np.linalg.norm(relative[behind, None] - relative[border][None], axis=2)
        nearest = border[gaps.argmin(axis=1)]
        turn[behind] = turn[nearest]
        share[behind] = _falling(gaps.min(axis=1) / eye.radius, 0.5, 1.5)
    return turn, share


def _falling(value: np.ndarray, first: float, last: float) -> np.ndarray:
    """1 up to `first`, 0 from `last`, smooth between."""
    t = np.clip((value - first) / (last - first), 0, 1)
    return 1 - t * t * (3 - 2 * t)


def _turned(points: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Points [n, 3] turned about x by angles [n]; positive lifts what is in front."""
    cos, sin = np.cos(angles), np.sin(angles)
    x, y, z = points.T
    return np.stack([x, cos * y + sin * z, cos * z - sin * y], axis=1)
