"""Which traits a person has: a small frozen object, drawn with the probabilities that stand here."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...errors import InvalidInput

SHAPES = ("exaggerated", "asymmetric", "child", "very old", "stretched", "big eyes")
PAINTS = ("grey", "one colour", "smooth colours", "marble", "tinted")
LIGHTS = ("strong light", "flat light", "dim light")
TONES = ("toon", "photo")
WORN = ("glasses", "sunglasses", "earrings", "hat", "beard", "collar")
OTHERS = ("no hair", "open mouth", "cut neck", "facets", "other lids", "hollow eyes", "no lashes")

TRAITS: tuple[str, ...] = (*SHAPES, *PAINTS, *LIGHTS, *TONES, *WORN, *OTHERS)
"""All traits by name; a sample's bit k stands for the k-th."""

CHANCES: dict[tuple[str, ...], float] = {
    SHAPES: 0.5, PAINTS: 0.45, LIGHTS: 0.4, TONES: 0.2,
    ("glasses", "sunglasses"): 0.25, ("earrings",): 0.12, ("hat",): 0.22, ("beard",): 0.14, ("collar",): 0.15,
    ("no hair",): 0.15, ("open mouth",): 0.2, ("cut neck",): 0.18, ("facets",): 0.15,
    ("other lids",): 0.45, ("hollow eyes",): 0.15, ("no lashes",): 0.3,
}  # fmt: skip
"""How often a person with traits has one of each group; within a group all are equally frequent."""


@dataclasses.dataclass(frozen=True)
class Traits:
    """What one person has of `TRAITS`; `seed` decides the details of each."""

    names: frozenset[str] = frozenset()
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(self.names - set(TRAITS))
        if unknown:
            raise InvalidInput(f"Traits: {unknown} are unknown, expected some of {', '.join(TRAITS)}.")

    def one_of(self, group: tuple[str, ...]) -> str | None:
        """The trait of a group that the person has, if any."""
        return next((name for name in group if name in self.names), None)

    @property
    def bits(self) -> int:
        """Bit k is set for the k-th of `TRAITS`."""
        return sum(1 << index for index, name in enumerate(TRAITS) if name in self.names)

    def generator(self, name: str) -> np.random.Generator:
        """The draws of one trait, which do not depend on the others."""
        return np.random.default_rng([self.seed, TRAITS.index(name)])


def sample_traits(generator: np.random.Generator, share: float) -> Traits:
    """Traits of a person: none at all but for `share` of the people, else each group by its `CHANCES`."""
    if generator.random() >= share:
        return Traits()
    seed, names = int(generator.integers(2**31)), set()
    for group, chance in CHANCES.items():
        has, which = generator.random() < chance, int(generator.integers(len(group)))
        if has:
            names.add(group[which])
    return Traits(frozenset(names), seed)
