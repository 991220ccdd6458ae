"""What the user of the page chose: a pose and a camera, each as a JSON text. `export/page/bridge.js` writes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..body.parameters import BodyParameters
from ..cameras import Cameras, look_at
from ..errors import InvalidInput
from ..files import parse_json
from ..head_frame import FOV_DEGREES, LOOK_AT, ORBIT_RADIUS
from .clips import DEFAULT_FPS, move_lids, open_jaw, rotate_head, turn_eyes
from .motion import Motion

LIMITS = {
    "jaw": (-90, 90), "gazeLeft": (-90, 90), "gazeUp": (-90, 90), "lidLeft": (-1, 1), "lidRight": (-1, 1),
    "turn": (-180, 180), "nod": (-180, 180), "tilt": (-180, 180),
    "yaw": (-1e6, 1e6), "elevation": (-89, 89), "radius": (0.05, 100), "fov": (1, 120),
}  # fmt: skip
"""Of the numbers by their names in the texts: degrees; lids in shares of what they are open; radius in world units."""

MAX_EXPRESSION, MAX_PLACE = 100.0, 100.0


@dataclasses.dataclass(frozen=True)
class ViewerPose:
    """Sliders on top of the rest pose, or of a frame of a motion.

    sliders: by the page's names: jaw (down), gazeLeft, gazeUp, turn (left), nod (up), tilt (to the left shoulder) in
    degrees, left being the subject's; lidLeft, lidRight: closed by this share of what they are open, below 0 wider.
    expression: added coefficients, the first ones.  frame: of the motion, or None for the rest pose.
    """

    sliders: Mapping[str, float] = dataclasses.field(default_factory=dict)
    expression: tuple[float, ...] = ()
    frame: int | None = None

    NAMES = ("jaw", "gazeLeft", "gazeUp", "lidLeft", "lidRight", "turn", "nod", "tilt")

    @classmethod
    def read(cls, text: str) -> ViewerPose:
        """From {"jaw": 12.5, "expression": [0, 1.5], "frame": 30}; what is absent rests. Raises `InvalidInput`."""
        told = _object("ViewerPose", text, (*cls.NAMES, "expression", "frame"))
        expression = _numbers("ViewerPose", "expression", told.pop("expression", []), MAX_EXPRESSION)
        frame = told.pop("frame", None)
        if frame is not None and (isinstance(frame, bool) or not isinstance(frame, int) or frame < 0):
            raise InvalidInput(f"ViewerPose: `frame` is {str(frame)[:40]}, expected a whole number from 0 on.")
        return cls(_within_limits("ViewerPose", told), expression, frame)

    def motion(self, rest: BodyParameters, motion: Motion | None) -> tuple[Motion, list[str]]:
        """The pose as a motion of one frame, and notes about what could not be kept. rest: a batch of one.

        Raises `InvalidInput` for more expression coefficients than the body has.
        """
        start, notes = self._start(rest, motion)
        own = start.expression.shape[1]
        if len(self.expression) > own:
            raise InvalidInput(f"ViewerPose: {len(self.expression)} expression coefficients, the body has {own}.")
        added = torch.zeros_like(start.expression)
        added[:, : len(self.expression)] = torch.tensor(self.expression)
        jaw, left, up, *lids, turn, nod, tilt = (float(self.sliders.get(name, 0.0)) for name in self.NAMES)
        pose = turn_eyes(open_jaw(start.replace(expression=start.expression + added), jaw), left, up)
        pose = move_lids(pose, torch.tensor([lids]))
        pose = rotate_head(pose, torch.deg2rad(torch.tensor([[-nod, turn, -tilt]])))
        return Motion(pose, motion.fps if motion is not None else DEFAULT_FPS), notes

    def _start(self, rest: BodyParameters, motion: Motion | None) -> tuple[BodyParameters, list[str]]:
        if self.frame is None:
            return rest[0], []
        if motion is None:
            return rest[0], [f"frame {self.frame} was chosen, but no motion is connected: the rest pose is used"]
        if self.frame >= len(motion):
            last = len(motion) - 1
            return motion.parameters[last], [f"frame {self.frame} was chosen, the motion ends at {last}: that is used"]
        return motion.parameters[self.frame], []


@dataclasses.dataclass(frozen=True)
class ViewerCamera:
    """A camera on a sphere around the point that it looks at. Angles and vertical field of view in degrees."""

    yaw: float = 0.0
    elevation: float = 0.0
    radius: float = ORBIT_RADIUS
    fov: float = FOV_DEGREES
    target: tuple[float, ...] = tuple(LOOK_AT)

    @classmethod
    def read(cls, text: str) -> ViewerCamera:
        """From {"yaw": 30, "target": [0, 0.2, 0]}; what is absent is that of the page. Raises `InvalidInput`."""
        told = _object("ViewerCamera", text, ("yaw", "elevation", "radius", "fov", "target"))
        target = _numbers("ViewerCamera", "target", told.pop("target", list(LOOK_AT)), MAX_PLACE)
        if len(target) != 3:
            raise InvalidInput(f"ViewerCamera: `target` has {len(target)} numbers, expected 3.")
        return cls(**_within_limits("ViewerCamera", told), target=target)

    def cameras(self, width: int, height: int) -> Cameras:
        """The camera, as a batch of one, of a picture of this size. A picture narrower than two thirds of its height
        shows what fits between its sides, as the page does."""
        yaw, elevation = math.radians(self.yaw), math.radians(self.elevation)
        flat = math.cos(elevation)
        away = torch.tensor([math.sin(yaw) * flat, math.sin(elevation), math.cos(yaw) * flat], dtype=torch.float64)
        target = torch.tensor(self.target, dtype=torch.float64)
        focal = 0.5 * min(1.5 * width, height) / math.tan(math.radians(self.fov) / 2)
        K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float32)
        return Cameras(look_at((target + self.radius * away)[None], target), K[None], width, height)


def _object(where: str, text: str, names: Sequence[str]) -> dict[str, Any]:
    """The JSON object of a text, which has only these names."""
    try:
        told = parse_json(text.strip() or "{}")
    except ValueError as error:
        raise InvalidInput(f"{where}: '{text[:80]}' is no JSON ({error}); empty it to begin anew.") from error
    if not isinstance(told, dict):
        raise InvalidInput(f"{where}: '{text[:80]}' is no JSON object such as {{}}; empty it to begin anew.")
    unknown = [name for name in told if name not in names]
    if unknown:
        raise InvalidInput(f"{where}: knows no `{unknown[0][:40]}`, only {', '.join(names)}.")
    return told


def _within_limits(where: str, told: Mapping[str, Any]) -> dict[str, float]:
    for name, value in told.items():
        low, high = LIMITS[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise InvalidInput(f"{where}: `{name}` is {str(value)[:40]}, expected a number of {low:g} to {high:g}.")
    return {name: float(value) for name, value in told.items()}


def _numbers(where: str, name: str, values: Any, most: float) -> tuple[float, ...]:
    listed: list[Any] = values if isinstance(values, list) else [None]
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= most:
            raise InvalidInput(f"{where}: `{name}` is {str(values)[:60]}, expected numbers of at most {most:g}.")
    return tuple(float(value) for value in listed)
