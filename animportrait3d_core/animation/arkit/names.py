"""The 52 shapes of ARKit, in the order of Live Link Face; left and right are the subject's."""

from __future__ import annotations

ARKIT_NAMES: tuple[str, ...] = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft",
    "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip

ARKIT_INDEX = {name: index for index, name in enumerate(ARKIT_NAMES)}


def arkit_region(name: str) -> str:
    """Which region a shape moves: 'mouth' (jaw, cheeks, nose and tongue with it), 'eyes' or 'brows'.

    >>> arkit_region("eyeBlinkLeft"), arkit_region("cheekPuff")
    ('eyes', 'mouth')
    """
    return "eyes" if name.startswith("eye") else "brows" if name.startswith("brow") else "mouth"


def mirrored_name(name: str) -> str:
    """What a shape is called in the mirrored picture.

    >>> mirrored_name("jawLeft"), mirrored_name("jawOpen")
    ('jawRight', 'jawOpen')
    """
    if name.endswith("Left"):
        return name.removesuffix("Left") + "Right"
    return name.removesuffix("Right") + "Left" if name.endswith("Right") else name


ARKIT_REGIONS: tuple[str, ...] = tuple(arkit_region(name) for name in ARKIT_NAMES)
"""The region of each shape."""

MIRRORED_SHAPES: tuple[int, ...] = tuple(ARKIT_INDEX[mirrored_name(name)] for name in ARKIT_NAMES)
"""For each shape, the place of its mirror image."""
