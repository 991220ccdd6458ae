"""Shapes far from the mean: displacements of the template that keep lips sealed and eyeballs in their lids."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..identities import Identity
from ..identities.figure import template_origin
from ..identities.noise_fields import fractal_field
from ..identities.shells import smooth_ramp
from ..mannequin import PARAMETER_NAMES, build_mannequin, parameter_index
from ..mannequin.bust import displacement, lid_zone
from ..mannequin.distance import EYE_CENTER

_CHILD = {
    "forehead_bulge": 2.4, "chin_height": -2.2, "chin_projection": -1.2, "nose_length": -2.6, "nose_projection": -2.2,
    "nose_bridge": -2.4, "jaw_width": -1.4, "cheek_fullness": 2.4, "brow_ridge": -2.2, "neck_width": -2.6,
    "shoulder_width": -2.8, "neck_muscle": -2.0, "face_length": -2.6, "head_width": 1.2, "cheekbone": -1.0,
    "temple_hollow": -1.6, "nasolabial_fold": -1.6, "eye_spacing": 1.0, "nose_width": -0.6, "ear_size": -0.8,
}  # fmt: skip
_VERY_OLD = {
    "nasolabial_fold": 3.2, "cheek_fullness": -2.6, "lip_fullness": -2.2, "temple_hollow": 2.6, "nose_length": 2.4,
    "ear_size": 2.4, "ear_lobe": 2.8, "socket_depth": 2.4, "nose_tip_height": -2.0, "lower_face_width": 1.2,
    "jaw_angle": -1.4, "cheekbone": 1.8, "nose_hump": 1.4, "neck_muscle": 1.8,
}  # fmt: skip
_METRES = 1e-3
_EYE_REACH = (21.0, 44.0)
"""Millimetres from an eye's centre within which everything grows with it, and beyond which nothing does."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """displacement: [V, 3] metres, added to the identity's.  lid_scale: [3], by which the ways of the lids grow."""

    displacement: np.ndarray
    lid_scale: np.ndarray


def shape_of(trait: str, identity: Identity, generator: np.random.Generator) -> Shape:
    """The further shape of an identity by one of `SHAPES`."""
    same = np.ones(3)
    if trait == "exaggerated":
        own = identity.displacement + build_mannequin().shape_directions @ identity.betas
        return Shape(own * generator.uniform(0.7, 1.8), same)
    if trait == "asymmetric":
        return Shape(_asymmetric(generator), same)
    if trait == "child":
        eyes = _big_eyes(generator.uniform(1.08, 1.28))
        small = _by_parameters(_CHILD, generator) + _small_face(generator.uniform(0.5, 1.2))
        return dataclasses.replace(eyes, displacement=eyes.displacement + small)
    if trait == "very old":
        return Shape(_by_parameters(_VERY_OLD, generator), same)
    if trait == "stretched":
        factors = np.exp(generator.uniform(-1, 1, 3) * [0.26, 0.2, 0.2])
        return Shape(_from_origin() * (factors - 1), factors)
    return _big_eyes(generator.uniform(1.15, 1.65))


def _from_origin() -> np.ndarray:
    """Rest vertices [V, 3] of the template, metres from the point between the eyes."""
    return build_mannequin().vertices - template_origin()


def _by_parameters(table: dict[str, float], generator: np.random.Generator) -> np.ndarray:
    parameters = 0.35 * generator.normal(size=len(PARAMETER_NAMES))
    for name, value in table.items():
        parameters[parameter_index(name)] += value * generator.uniform(0.6, 1.1)
    return displacement(parameters) * _METRES


def _small_face(amount: float) -> np.ndarray:
    """A high, round skull over a short face, and a thin neck on narrow shoulders."""
    points = _from_origin()
    skull = smooth_ramp(0.0, 0.07, points[:, 1])
    low = smooth_ramp(-0.05, -0.13, points[:, 1])
    moved = amount * 0.10 * skull[:, None] * points * [1.0, 0.7, 1.0]
    moved[:, 1] += amount * 0.012 * low
    torso = smooth_ramp(-0.13, -0.2, points[:, 1])[:, None]
    return moved - amount * 0.16 * torso * points * [1.0, 0.0, 1.0]


def _asymmetric(generator: np.random.Generator) -> np.ndarray:
    """Shifted nose, chin, mouth and cheeks, and a head that is uneven at large."""
    parameters = np.zeros(len(PARAMETER_NAMES))
    for name, most in (("nose_shift", 5.0), ("chin_shift", 6.0), ("mouth_slant", 5.0), ("cheek_asymmetry", 6.0)):
        parameters[parameter_index(name)] = generator.uniform(-most, most)
    points, seed = _from_origin() * 1e3, int(generator.integers(2**16))

    def uneven(places: np.ndarray) -> np.ndarray:
        fields = [fractal_field(places / 90.0 + 40.0 * axis, 1, seed + axis) for axis in range(3)]
        return (np.stack(fields, -1) - 0.5) * 0.022

    # Rigid about the eyeballs, which are round and have to turn in their lids.
    zone, moved = lid_zone()[:, None], uneven(points)
    for side in (-1, 1):
        center = np.array(EYE_CENTER) * [side, 1, 1]
        near = zone * (points[:, :1] * side > 0)
        moved = moved * (1 - near) + uneven(center[None]) * near
    return displacement(parameters) * _METRES + moved


def _big_eyes(factor: float) -> Shape:
    """Eyes with lids and sockets that are larger by a factor, about their centres."""
    points = _from_origin() * 1e3
    total = np.zeros_like(points)
    low, high = _EYE_REACH
    for side in (-1, 1):
        offset = points - np.array(EYE_CENTER) * [side, 1, 1]
        share = np.clip((np.linalg.norm(offset, axis=1) - low) / (high - low), 0, 1)
        falloff = 1 - share**2 * (3 - 2 * share)
        total += (factor - 1) * 1e-3 * falloff[:, None] * offset
    return Shape(total, np.full(3, factor))
