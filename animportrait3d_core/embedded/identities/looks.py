"""From attributes to the numbers that the painters take."""

from __future__ import annotations

import numpy as np

from ..mannequin import build_mannequin
from . import palette
from .hair import FLOWS
from .hair_styles import STYLES
from .identity import Identity
from .sheet_textures import KNITS, PATTERN_CODES, ClothLook, HairLook
from .skin_texture import SkinLook, SkinPaint

_AGE = {"young": 0.0, "middle-aged": 0.42, "old": 1.0}
_DEPTH = {"pale": 0.0, "fair": 0.1, "olive": 0.3, "tan": 0.45, "brown": 0.75, "dark": 1.0}
_BROWS = {"straight": (2.9, 1.0, 0.80), "arched": (2.5, 5.5, 0.80), "thick": (4.2, 2.6, 0.92), "thin": (1.6, 4.2, 0.70)}
# density on the cheeks, on the chin, of the moustache; length 0 stubble to 1 full
_BEARDS = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "stubble": (0.75, 0.85, 0.85, 0.0),
    "moustache": (0.0, 0.0, 1.0, 1.0),
    "goatee": (0.0, 1.0, 0.9, 1.0),
    "full beard": (1.0, 1.0, 1.0, 1.0),
}


def _spots(generator: np.random.Generator, count: int, size: tuple[float, float], is_mole: bool) -> np.ndarray:
    """Spots [count, 5] of `SkinPaint` scattered over the face of the template."""
    from .figure import template_origin

    body = build_mannequin()
    corners = body.vertices[body.faces[body.face_regions["face"]]]
    points = (corners[generator.integers(len(corners), size=count)].mean(axis=1) - template_origin()) * 1e3
    kind = np.full((count, 1), float(is_mole))
    return np.concatenate([points.reshape(count, 3), generator.uniform(*size, (count, 1)), kind], axis=1)


def skin_paint(identity: Identity, pores: bool = True) -> SkinPaint:
    """Everything that the painter of the skin needs to know."""
    a = identity.attributes
    generator = np.random.default_rng(identity.seed + 41)
    tone = palette.varied(palette.SKIN[a.skin_tone], generator, 0.04)
    lip = tone * np.array([0.90, 0.68, 0.67])
    if a.sex == "woman":
        lip = lip * np.array([1.0, 0.93, 0.95])
    if a.lips != "natural":
        lip = palette.varied(palette.LIPS[a.lips], generator, 0.06)
    hair = palette.varied(palette.HAIR[a.hair_color], generator, 0.06)
    brow = np.asarray(palette.HAIR[a.brow_color]) * (0.80 if a.brow_color in ("blond", "red", "brown") else 0.9) + 0.02
    width, arch, density = _BROWS[a.brow_shape]
    cheek, chin, moustache, length = _BEARDS[a.beard]
    bald = a.hair_style == "bald"
    look = SkinLook(
        brow_width=width * (1.12 if a.sex == "man" else 0.95), brow_arch=arch, brow_density=density,
        beard_cheek=cheek, beard_chin=chin, moustache=moustache, beard_length=length,
        scalp_density=0.10 if bald else 0.85, freckles=float(a.freckles), blush=float(a.blush), age=_AGE[a.age],
        lipstick=float(a.lips != "natural"), depth=_DEPTH[a.skin_tone], pores=float(pores),
        hair_covers=float(not bald), seed=identity.seed * 1000 % 65536,
    )  # fmt: skip
    moles = _spots(generator, int(generator.integers(0, 5)), (0.6, 1.1), True)
    age_spots = _spots(generator, 14 if a.age == "old" else 0, (1.5, 4.0), False)
    return SkinPaint(look, np.stack([tone, lip, brow, hair * 0.85, hair * 0.6]), np.concatenate([moles, age_spots]))


def iris_color(identity: Identity) -> np.ndarray:
    """Colour [3] of the iris."""
    return palette.varied(palette.IRIS[identity.attributes.iris_color], np.random.default_rng(identity.seed + 43), 0.08)


def hair_look(identity: Identity) -> HairLook | None:
    """Paint of the hair; None for a bald head."""
    a = identity.attributes
    style = STYLES[a.hair_style]
    if style is None:
        return None
    color = palette.varied(palette.HAIR[a.hair_color], np.random.default_rng(identity.seed + 41), 0.06)
    white = {"grey": 0.45}.get(a.hair_color, 0.22 if a.age == "old" else 0.06 if a.age == "middle-aged" else 0.0)
    white = 0.0 if a.hair_color in ("white", "blond") else white
    return HairLook(color, white, FLOWS[style.flow], style.part, style.clump, style.curl, identity.seed % 9973)


def cloth_look(identity: Identity) -> ClothLook:
    """Paint of the garment."""
    a = identity.attributes
    generator = np.random.default_rng(identity.seed + 47)
    color = palette.varied(palette.GARMENT[a.garment_color], generator, 0.06)
    second = np.asarray(palette.GARMENT_SECOND[a.garment_color])
    return ClothLook(color, second, KNITS[a.garment], PATTERN_CODES[a.pattern], identity.seed % 9973)
