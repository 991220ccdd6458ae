"""The held-out set: fixed expressions, poses, gazes, lids and cameras that every avatar is measured in.

No training sees these states: the numbers below are used nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ..cameras import Cameras, orbit_cameras
from ..head_frame import CLOSE_FOV_DEGREES, CLOSE_TARGET, FOV_DEGREES, LOOK_AT

if TYPE_CHECKING:
    from ..body.parameters import BodyParameters

GROUPS = ("eyes", "eyes_closed", "mouth", "turned")
FRAMES_PER_GROUP = 8
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclasses.dataclass(frozen=True)
class HeldOutFrame:
    """One state and the camera that sees it; angles in degrees, relative to the rest pose.

    group: what the frame is about, one of `GROUPS`.  jaw: opening.  lids: share of the way to closed, left and right.
    gaze: to the subject's left, and up.  turn: of the head to the subject's left.  expression: (index, amount) pairs.
    close: a close view of the face instead of the whole bust.
    """

    group: str
    yaw: float
    elevation: float
    close: bool
    jaw: float = 0.0
    lids: tuple[float, float] = (0.0, 0.0)
    gaze: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    expression: tuple[tuple[int, float], ...] = ()

    def camera(self, size: int) -> Cameras:
        """The camera of this frame, square pictures of `size` pixels."""
        target, fov = (CLOSE_TARGET, CLOSE_FOV_DEGREES) if self.close else (LOOK_AT, FOV_DEGREES)
        return orbit_cameras([self.yaw], [self.elevation], size, target=target, fov_degrees=fov)

    def pose(self, rest: BodyParameters) -> BodyParameters:
        """The state of this frame, reached from the rest pose `rest` (a batch of one)."""
        from ..animation.clips import add_expression, close_lids, open_jaw, turn_eyes, turn_head

        pose = turn_head(open_jaw(rest, self.jaw), self.turn)
        pose = turn_eyes(pose, *self.gaze)
        pose = close_lids(pose, pose.eyelids.new_tensor([self.lids]))
        for index, amount in self.expression:
            if index < pose.expression.shape[1]:
                pose = add_expression(pose, index, amount)
        return pose


def _spread(index: int, step: int, low: float, high: float) -> float:
    """Value `index` of a low-discrepancy sequence in low..high; sequences of different `step` are unrelated."""
    return low + (high - low) * ((0.5 + index * _GOLDEN * step + 0.37 * step) % 1.0)


def held_out_frames() -> tuple[HeldOutFrame, ...]:
    """The 32 frames of the set, eight per group, every second one a close view.

    eyes: open to half closed, looking around.  eyes_closed: shut.  mouth: jaw open by 8 to 22 degrees, with and
    without an expression.  turned: head turned by up to 40 degrees, with two expressions at once.

    >>> [sum(frame.group == group for frame in held_out_frames()) for group in GROUPS]
    [8, 8, 8, 8]
    """
    frames = []
    for index in range(FRAMES_PER_GROUP):
        close = index % 2 == 1
        yaw, elevation = _spread(index, 1, -35, 35), _spread(index, 2, -12, 22)
        seen: dict[str, Any] = {"yaw": yaw, "elevation": elevation, "close": close}
        gaze = (_spread(index, 3, -24, 24), _spread(index, 5, -14, 14))
        half = _spread(index, 7, 0.0, 0.5)
        expression = ((index, _spread(index, 4, 0.6, 1.8)),)
        turned = ((index, 1.2), ((index + 3) % 10, _spread(index, 6, 0.5, 1.5)))
        frames += [
            HeldOutFrame("eyes", **seen, gaze=gaze, lids=(half, half)),
            HeldOutFrame("eyes_closed", **seen, lids=(1.0, 1.0)),
            HeldOutFrame("mouth", **seen, jaw=8 + 2 * index, expression=expression if index % 3 == 0 else ()),
            HeldOutFrame("turned", **seen, turn=_spread(index, 8, -40, 40), expression=turned),
        ]
    return tuple(frames)
