"""Named faces as strengths of ARKit's shapes, so that they work on every body, and motions of sliders."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

import torch

from ..body.model import BodyModel
from ..body.parameters import BodyParameters
from ..errors import InvalidInput
from .arkit import ARKIT_NAMES, ArkitTrack, arkit_map, arkit_motion
from .arkit.frames import shape_name
from .arkit.names import ARKIT_INDEX
from .clips import DEFAULT_FPS, envelope
from .motion import Motion

MOVES = ("hold", "there and back")


def _both(**strengths: float) -> dict[str, float]:
    """Strengths of pairs: eyeBlink stands for eyeBlinkLeft and eyeBlinkRight."""
    names: dict[str, float] = {}
    for name, value in strengths.items():
        names |= {name: value} if name in ARKIT_INDEX else {f"{name}Left": value, f"{name}Right": value}
    return names


PRESETS: dict[str, dict[str, float]] = {
    "rest": {},
    "smile": _both(mouthSmile=0.8, cheekSquint=0.4, eyeSquint=0.3),
    "laugh": _both(mouthSmile=1.0, jawOpen=0.55, cheekSquint=0.7, eyeSquint=0.6, mouthUpperUp=0.3),
    "sad": _both(mouthFrown=0.8, browInnerUp=0.9, eyeSquint=0.2, eyeLookDown=0.3, mouthShrugLower=0.3),
    "angry": _both(browDown=1.0, noseSneer=0.6, eyeSquint=0.4, mouthFrown=0.4, mouthPress=0.4),
    "surprised": _both(jawOpen=0.5, browInnerUp=0.9, browOuterUp=0.9, eyeWide=0.9),
    "afraid": _both(browInnerUp=1.0, eyeWide=1.0, mouthStretch=0.7, jawOpen=0.2),
    "disgusted": _both(noseSneer=1.0, mouthUpperUp=0.6, browDown=0.6, eyeSquint=0.5, mouthFrown=0.3),
    "kiss": _both(mouthPucker=1.0, eyeSquint=0.2),
    "wink": {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.7, "cheekSquintLeft": 0.6, "mouthSmileRight": 0.3},
    "sleepy": _both(eyeBlink=0.6, browInnerUp=0.2, jawOpen=0.08),
    "eyes closed": _both(eyeBlink=1.0),
    "shout": _both(jawOpen=1.0, mouthLowerDown=0.5, mouthUpperUp=0.4, browDown=0.5),
    "puffed cheeks": _both(cheekPuff=1.0),
}
"""Strengths by ARKit name."""


@dataclasses.dataclass(frozen=True)
class FaceSliders:
    """A face by sliders, on top of a preset; -1..1 where there are two ways, else 0..1."""

    mouth_open: float = 0.0
    smile: float = 0.0
    """Below 0: mouth corners down."""
    pucker: float = 0.0
    mouth_left: float = 0.0
    """To the subject's left; below 0 to the right."""
    brows: float = 0.0
    """Raised; below 0 drawn together."""
    sneer: float = 0.0
    cheek_puff: float = 0.0
    blink_left: float = 0.0
    """Closed; below 0 wide open."""
    blink_right: float = 0.0
    look_left: float = 0.0
    """To the subject's left; below 0 to the right."""
    look_up: float = 0.0
    """Below 0 down."""
    turn_degrees: float = 0.0
    """Of the head to the subject's left."""
    nod_degrees: float = 0.0
    """Of the head up."""
    tilt_degrees: float = 0.0
    """Of the head to the subject's left shoulder."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not math.isfinite(value) or abs(value) > 180:
                raise InvalidInput(f"FaceSliders: `{name}` is {value}, expected a finite number of usual size.")


_SLIDERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mouth_open": (("jawOpen",), ()),
    "smile": (("mouthSmileLeft", "mouthSmileRight"), ("mouthFrownLeft", "mouthFrownRight")),
    "pucker": (("mouthPucker",), ()),
    "mouth_left": (("mouthLeft",), ("mouthRight",)),
    "brows": (("browInnerUp", "browOuterUpLeft", "browOuterUpRight"), ("browDownLeft", "browDownRight")),
    "sneer": (("noseSneerLeft", "noseSneerRight"), ()),
    "cheek_puff": (("cheekPuff",), ()),
    "blink_left": (("eyeBlinkLeft",), ("eyeWideLeft",)),
    "blink_right": (("eyeBlinkRight",), ("eyeWideRight",)),
    "look_left": (("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")),
    "look_up": (("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight")),
}
"""Slider -> the shapes of its way up and of its way down."""


def slider_strengths(preset: str, strength: float, sliders: FaceSliders) -> dict[str, float]:
    """Strengths by ARKit name of a preset with sliders on top."""
    if preset not in PRESETS:
        raise InvalidInput(f"slider_strengths: no preset '{preset}', expected one of {', '.join(PRESETS)}.")
    found = {name: strength * value for name, value in PRESETS[preset].items()}
    for slider, (up, down) in _SLIDERS.items():
        value = getattr(sliders, slider)
        for name in up if value >= 0 else down:
            found[name] = found.get(name, 0.0) + abs(value)
    return found


def parse_strengths(text: str) -> dict[str, float]:
    """Strengths by ARKit name from a text; `InvalidInput` for what is none.

    >>> parse_strengths("jawLeft 0.4, mouthFunnel=1")
    {'jawLeft': 0.4, 'mouthFunnel': 1.0}
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
        match = re.fullmatch(r"(\w+)\s*[\s=:]\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)", part)
        name = shape_name(match[1]) if match else None
        if match is None or name is None:
            raise InvalidInput(
                f"parse_strengths: '{part[:60]}' is no ARKit shape with a strength; expected as in 'jawLeft 0.4, "
                "mouthFunnel 1'."
            )
        found[name] = found.get(name, 0.0) + float(match[2])
    return found


def arkit_weights(strengths: Mapping[str, float]) -> torch.Tensor:
    """Strengths by name as a row [1, 52]; `InvalidInput` for unknown names."""
    unknown = sorted(set(strengths) - set(ARKIT_NAMES))
    if unknown:
        raise InvalidInput(f"arkit_weights: no shape '{unknown[0]}' in ARKit, only {', '.join(ARKIT_NAMES)}.")
    return torch.tensor([[strengths.get(name, 0.0) for name in ARKIT_NAMES]])


@dataclasses.dataclass(frozen=True)
class FaceMotion:
    """How a face becomes a motion."""

    frames: int = 25
    fps: float = DEFAULT_FPS
    move: str = "hold"
    """hold: in every frame. there and back: from rest to the face and back to rest."""

    def __post_init__(self) -> None:
        if self.move not in MOVES or not 1 <= self.frames <= 100000:
            raise InvalidInput(
                f"FaceMotion: {self.frames} frames of '{self.move}', expected 1 to 100000 and {' or '.join(MOVES)}."
            )


def face_motion(
    body: BodyModel, rest: BodyParameters, strengths: Mapping[str, float], sliders: FaceSliders, timing: FaceMotion
) -> Motion:
    """A face, given by ARKit strengths, and the head's turn of the sliders, held or reached and left again."""
    amount = torch.ones(timing.frames) if timing.move == "hold" else envelope(timing.frames)
    head = torch.tensor([[-sliders.nod_degrees, sliders.turn_degrees, -sliders.tilt_degrees]])
    track = ArkitTrack(amount[:, None] * arkit_weights(strengths), timing.fps, amount[:, None] * torch.deg2rad(head))
    return arkit_motion(track, rest, arkit_map(body))
