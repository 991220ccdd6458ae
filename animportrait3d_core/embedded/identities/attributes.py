"""What can be said about an identity in words, and how unsaid attributes are drawn.

The vocabulary is small on purpose: each word must be visible at 128 pixels, because the embedded diffusion prior learns
from renders of these identities. The grammar lives in `prompts`; colours behind the words live in `palette`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ...errors import InvalidInput

AGES = ("young", "middle-aged", "old")
SEXES = ("man", "woman")
SKIN_TONES = ("pale", "fair", "olive", "tan", "brown", "dark")
IRIS_COLORS = ("brown", "hazel", "green", "blue", "grey")
LIPS = ("natural", "pink", "red", "plum")
BROW_SHAPES = ("straight", "arched", "thick", "thin")
HAIR_COLORS = ("black", "dark brown", "brown", "blond", "red", "grey", "white")
HAIR_STYLES = (
    "bald", "buzz cut", "short hair", "side parting", "bob", "long hair", "bun", "ponytail", "afro", "curly hair",
)  # fmt: skip
BEARDS = ("none", "stubble", "moustache", "goatee", "full beard")
GARMENTS = ("sweater", "t-shirt", "turtleneck", "v-neck", "shirt")
GARMENT_COLORS = (
    "red", "blue", "navy", "green", "teal", "yellow", "orange", "pink", "purple", "black", "white", "grey", "beige",
)  # fmt: skip
PATTERNS = ("plain", "striped", "checked", "dotted")

CHOICES: dict[str, tuple[str, ...]] = {
    "age": AGES,
    "sex": SEXES,
    "skin_tone": SKIN_TONES,
    "iris_color": IRIS_COLORS,
    "hair_style": HAIR_STYLES,
    "hair_color": HAIR_COLORS,
    "brow_shape": BROW_SHAPES,
    "brow_color": HAIR_COLORS,
    "beard": BEARDS,
    "lips": LIPS,
    "garment": GARMENTS,
    "garment_color": GARMENT_COLORS,
    "pattern": PATTERNS,
}
FLAGS = ("freckles", "blush")


@dataclasses.dataclass(frozen=True)
class Attributes:
    """One person in words. Every value is one of the strings of `CHOICES`; `freckles` and `blush` are bool.

    A bald person's `hair_color` equals the `brow_color` (it colours the beard), so that each person has one prompt.
    """

    age: str
    sex: str
    skin_tone: str
    iris_color: str
    hair_style: str
    hair_color: str
    brow_shape: str
    brow_color: str
    beard: str
    lips: str
    garment: str
    garment_color: str
    pattern: str
    freckles: bool = False
    blush: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise InvalidInput(f"Attributes: `{name}` is {value!r}, expected one of {', '.join(choices)}.")
        for name in FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"Attributes: `{name}` is {getattr(self, name)!r}, expected True or False.")
        if self.hair_style == "bald" and self.hair_color != self.brow_color:
            raise InvalidInput(
                f"Attributes: a bald person has hair_color {self.hair_color!r} but brow_color {self.brow_color!r}; "
                "they must be equal."
            )


def _weights_given(name: str, known: dict[str, str | bool]) -> dict[str, float]:
    """Odds of each value of attribute `name` given those already known; values that are not named here have odds 0."""
    woman, old = known["sex"] == "woman", known["age"] == "old"
    skin = known["skin_tone"] if "skin_tone" in known else "fair"
    light, deep = skin in ("pale", "fair"), skin in ("brown", "dark")
    if name == "iris_color":
        if deep:
            return {"brown": 0.85, "hazel": 0.1, "green": 0.05}
        if light:
            return {"brown": 0.22, "hazel": 0.13, "green": 0.2, "blue": 0.3, "grey": 0.15}
        return {"brown": 0.5, "hazel": 0.2, "green": 0.15, "blue": 0.1, "grey": 0.05}
    if name in ("hair_color", "brow_color"):
        return _hair_color_weights(name, known, old, light, deep)
    if name == "hair_style":
        if woman:
            odds = {"bob": 2.0, "long hair": 2.5, "bun": 1.4, "ponytail": 1.4, "short hair": 0.7, "curly hair": 1.0}
            return {**odds, "afro": 1.5 if deep else 0.1, "side parting": 0.5, "buzz cut": 0.15, "bald": 0.05}
        odds = {"short hair": 2.2, "side parting": 1.8, "buzz cut": 1.3, "curly hair": 0.8, "long hair": 0.5}
        return {**odds, "bald": 1.6 if old else 0.7, "afro": 1.2 if deep else 0.1, "bun": 0.2, "ponytail": 0.2}
    if name == "brow_shape":
        return dict(zip(BROW_SHAPES, (0.2, 0.45, 0.1, 0.25) if woman else (0.4, 0.15, 0.4, 0.05)))
    if name == "beard":
        if woman:
            return {"none": 1.0}
        return dict(zip(BEARDS, (0.52, 0.16, 0.08, 0.08, 0.16)))
    if name == "lips":
        return dict(zip(LIPS, (0.45, 0.2, 0.22, 0.13))) if woman else {"natural": 1.0}
    if name == "pattern":
        return dict(zip(PATTERNS, (0.6, 0.18, 0.12, 0.1)))
    return dict.fromkeys(CHOICES[name], 1.0)


def _hair_color_weights(
    name: str, known: dict[str, str | bool], old: bool, light: bool, deep: bool
) -> dict[str, float]:
    """Hair follows age and skin; brows follow the hair, a shade darker when it is light."""
    if name == "brow_color" and "hair_color" in known:
        hair = str(known["hair_color"])
        darker = {"blond": "brown", "white": "grey"}.get(hair, hair)
        return {hair: 0.6, darker: 0.4} if darker != hair else {hair: 1.0}
    if old:
        return {"grey": 0.45, "white": 0.35, "brown": 0.08, "black": 0.07, "dark brown": 0.05}
    if deep:
        odds = {"black": 0.6, "dark brown": 0.3, "brown": 0.1}
    elif light:
        odds = {"black": 0.14, "dark brown": 0.2, "brown": 0.22, "blond": 0.26, "red": 0.18}
    else:
        odds = {"black": 0.35, "dark brown": 0.3, "brown": 0.22, "blond": 0.1, "red": 0.03}
    if known["age"] == "middle-aged":
        odds = {**odds, "grey": 0.12}
    return odds


_DRAW_ORDER = (
    "age", "sex", "skin_tone", "iris_color", "hair_style", "hair_color", "brow_shape", "brow_color", "beard", "lips",
    "garment", "garment_color", "pattern",
)  # fmt: skip


def sample_attributes(generator: np.random.Generator, known: dict[str, str | bool] | None = None) -> Attributes:
    """Draw what `known` (attribute name -> value) leaves open, with correlations between age, sex, skin and hair.

    One uniform number is spent per attribute whether it is known or not, so that fixing one attribute leaves the
    others near what the same seed gave before. Raises `InvalidInput` for unknown names or values.
    """
    drawn: dict[str, str | bool] = dict(known or {})
    strange = [name for name in drawn if name not in CHOICES and name not in FLAGS]
    if strange:
        raise InvalidInput(f"sample_attributes: unknown attributes {strange}, expected {[*CHOICES, *FLAGS]}.")
    if drawn.get("hair_style") == "bald" and "hair_color" in drawn:
        drawn.setdefault("brow_color", drawn["hair_color"])
    for name in _DRAW_ORDER:
        spin = float(generator.random())
        if name in drawn:
            continue
        if name == "hair_color" and drawn["hair_style"] == "bald" and "brow_color" in drawn:
            drawn[name] = drawn["brow_color"]
        elif name in ("age", "sex"):
            drawn[name] = CHOICES[name][int(spin * len(CHOICES[name]))]
        else:
            drawn[name] = _pick(_weights_given(name, drawn), spin)
    if drawn["hair_style"] == "bald":
        drawn["hair_color"] = drawn["brow_color"]
    freckle_odds = {"pale": 0.35, "fair": 0.25, "olive": 0.08, "tan": 0.06}.get(str(drawn["skin_tone"]), 0.0)
    freckle_odds += 0.35 if drawn["hair_color"] == "red" else 0.0
    for name, odds in (("freckles", freckle_odds), ("blush", 0.3 if drawn["sex"] == "woman" else 0.12)):
        spin = float(generator.random())
        drawn.setdefault(name, spin < odds)
    return Attributes(**drawn)  # type: ignore[arg-type]


def _pick(weights: dict[str, float], spin: float) -> str:
    """The value at position `spin` in 0..1 of the cumulative odds."""
    total = sum(weights.values())
    position = spin * total
    for value, weight in weights.items():
        position -= weight
        if position < 0:
            return value
    return next(reversed(weights))
