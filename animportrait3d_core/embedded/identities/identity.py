"""Identity: a person's attributes, seed, shape inside and outside the fitted basis, and true placement in the world."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ...body.parameters import BodyParameters
from ...head_frame import EYE_HEIGHT, HEAD_SCALE
from ..mannequin import PARAMETER_NAMES, build_mannequin, identity_skin_displacement, parameter_index
from .attributes import Attributes, sample_attributes
from .prompts import attributes_from_prompt, describe, describe_abstractly

# How far men lie from the mean in standardised parameters; women lie as far on the other side.
_MALE_SHAPE = {
    "head_width": 0.25, "jaw_width": 0.75, "chin_height": 0.3, "chin_projection": 0.25, "cheek_fullness": -0.35,
    "brow_ridge": 0.8, "nose_width": 0.3, "nose_projection": 0.3, "lip_fullness": -0.45, "neck_width": 0.9,
    "shoulder_width": 0.85, "neck_muscle": 0.6, "chin_width": 0.6, "jaw_angle": 0.35, "forehead_bulge": -0.4,
    "brow_height": -0.35, "nose_bridge": 0.3, "cheekbone": -0.15,
}  # fmt: skip
_OLD_SHAPE = {
    "nasolabial_fold": 1.3, "cheek_fullness": -0.6, "lip_fullness": -0.7, "temple_hollow": 0.9, "nose_length": 0.7,
    "ear_size": 0.9, "ear_lobe": 0.9, "socket_depth": 0.7, "nose_tip_height": -0.5, "lower_face_width": 0.4,
    "jaw_angle": -0.4,
}  # fmt: skip
_AGE_SHARE = {"young": 0.0, "middle-aged": 0.45, "old": 1.0}


@dataclasses.dataclass(frozen=True, eq=False)
class Identity:
    """One person of the embedded world.

    attributes, seed.  betas: [10] coefficients of the mannequin's shape directions.  displacement: [V, 3] metres, shape
    outside those directions.  hairline_shift: mm by which the forehead is higher.  placement: (scale, translation [3],
    neck pose [3], head pose [3]) of the portrait in the world, which a fit has to find.
    """

    attributes: Attributes
    seed: int
    betas: np.ndarray
    displacement: np.ndarray
    hairline_shift: float
    scale: float
    translation: np.ndarray
    neck_pose: np.ndarray
    head_pose: np.ndarray

    @property
    def prompt(self) -> str:
        """The full attribute prompt."""
        return describe(self.attributes)

    @property
    def abstract_prompt(self) -> str:
        """Age, sex and skin tone alone, e.g. "a young man, fair skin"; what the eye and mouth crops are told."""
        return describe_abstractly(self.attributes)


def sample_identity(seed: int, **known: str | bool) -> Identity:
    """The identity of a seed; keyword arguments fix attributes (`sample_identity(3, age="old")`)."""
    generator = np.random.default_rng(seed)
    return _embody(sample_attributes(generator, dict(known)), seed, generator)


def identity_from_prompt(text: str, seed: int) -> tuple[Identity, tuple[str, ...]]:
    """An identity that fits an attribute prompt, what it leaves open drawn from the seed; and the unknown words.

    Raises `InvalidInput` when nothing of the text is understood.
    """
    generator = np.random.default_rng(seed)
    attributes, unknown = attributes_from_prompt(text, generator)
    return _embody(attributes, seed, generator), unknown


def _embody(attributes: Attributes, seed: int, generator: np.random.Generator) -> Identity:
    """Shape and placement for given attributes."""
    sign = 1.0 if attributes.sex == "man" else -1.0
    age = _AGE_SHARE[attributes.age]
    betas = np.clip(0.75 * generator.normal(size=10), -1.8, 1.8)
    betas[0] += 0.25 * sign
    betas[4] += 0.55 * sign
    betas[7] -= 0.35 * sign
    betas[9] += 0.9 * sign
    parameters = np.clip(0.8 * generator.normal(size=len(PARAMETER_NAMES)), -1.8, 1.8)
    for table, amount in ((_MALE_SHAPE, sign), (_OLD_SHAPE, age)):
        for name, value in table.items():
            parameters[parameter_index(name)] += value * amount
    displacement = identity_skin_displacement(parameters)
    shift = generator.uniform(-4, 5) + age * (7.0 if attributes.sex == "man" else 2.0)
    scale = HEAD_SCALE * generator.uniform(0.97, 1.03)
    body = build_mannequin()
    eyes = body.joints[[23, 24]].mean(axis=0)
    translation = np.array([0.0, EYE_HEIGHT, 0.0]) - scale * eyes * [1, 1, 0]
    translation = translation + generator.uniform(-1, 1, 3) * [0.012, 0.015, 0.012]
    neck = generator.uniform(-1, 1, 3) * [0.05, 0.05, 0.03]
    head = generator.uniform(-1, 1, 3) * [0.06, 0.06, 0.04]
    return Identity(attributes, seed, betas, displacement, float(shift), float(scale), translation, neck, head)


def true_parameters(identity: Identity) -> BodyParameters:
    """Body parameters [1] of the identity's portrait pose: for evaluation and ground truth, never for the method."""

    def row(values: np.ndarray | list[float]) -> torch.Tensor:
        return torch.tensor(np.asarray(values, dtype=np.float32))[None]

    return BodyParameters.neutral().replace(
        betas=row(identity.betas),
        scale=row([identity.scale]),
        translation=row(identity.translation),
        neck_pose=row(identity.neck_pose),
        head_pose=row(identity.head_pose),
    )
