"""People with traits: what the data set's builder calls, in the order in which a person is made."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...conditioning import BodyState
from ..identities import Identity, PreparedIdentity, sample_identity
from ..identities.figure import Figure, build_figure
from ..identities.looks import skin_paint
from ..identities.rendering import prepare_figure
from ..identities.shading import Lighting
from ..identities.skin_texture import SkinPaint
from ..identities.textures import paint_atlas
from .cuts import cut_at_the_neck, faceted
from .drawing import LIGHTS, PAINTS, SHAPES, WORN, Traits
from .eyes import with_other_lids, without_eyeballs, without_lashes
from .shapes import shape_of
from .surfaces import relit, repainted
from .worn import dressed, paint_worn

_WIDE_JAW = (0.22, 0.5)
"""Radians of an open mouth."""
_HIGH_HAIR = ("afro", "curly hair", "bun")
"""No hat fits over these."""


def sample_identity_with_traits(seed: int, traits: Traits) -> Identity:
    """The person of a seed, of an age and with hair that fit the traits."""
    known: dict[str, str | bool] = {}
    if "no hair" in traits.names:
        known |= {"hair_style": "bald", "beard": "none"}
    elif "hat" in traits.names and sample_identity(seed).attributes.hair_style in _HIGH_HAIR:
        known |= {"hair_style": "short hair"}
    if "very old" in traits.names:
        known |= {"age": "old"}
    if "child" in traits.names:
        known |= {"age": "young", "beard": "none"}
    return sample_identity(seed, **known)


def prepare_with_traits(
    identity: Identity, traits: Traits, texture_size: int, lighting: Lighting, sky_directions: int
) -> tuple[PreparedIdentity, Lighting]:
    """The prepared figure of an identity with its traits, and the light that it stands in."""
    light = traits.one_of(LIGHTS)
    if light is not None:
        lighting = relit(lighting, light, traits.generator(light))
    identity, figure = _shaped(identity, traits)
    if "other lids" in traits.names:
        figure = with_other_lids(figure, traits.generator("other lids"))
    if "hollow eyes" in traits.names:
        figure = without_eyeballs(figure)
    if "no lashes" in traits.names:
        figure = without_lashes(figure)
    for trait in WORN:
        if trait in traits.names:
            figure = dressed(figure, trait, traits.generator(trait))
    if "cut neck" in traits.names:
        figure = cut_at_the_neck(figure, traits.generator("cut neck"))
    atlas = _painted(identity, figure, traits, texture_size)
    prepared = prepare_figure(identity, figure, atlas, lighting, sky_directions)
    if "facets" in traits.names:
        prepared = faceted(prepared, traits.generator("facets"))
    return prepared, lighting


def _shaped(identity: Identity, traits: Traits) -> tuple[Identity, Figure]:
    shape_trait = traits.one_of(SHAPES)
    if shape_trait is None:
        return identity, build_figure(identity)
    shape = shape_of(shape_trait, identity, traits.generator(shape_trait))
    identity = dataclasses.replace(identity, displacement=identity.displacement + shape.displacement)
    figure = build_figure(identity)
    return identity, dataclasses.replace(figure, lids=figure.lids * shape.lid_scale)


def _painted(identity: Identity, figure: Figure, traits: Traits, size: int) -> np.ndarray:
    atlas = paint_atlas(identity, figure, size)
    worn = [trait for trait in WORN if trait in traits.names]
    if worn:
        paint: SkinPaint = skin_paint(identity, pores=False)
        paint_worn(atlas, paint.colors[-2], traits.generator(worn[0]))
    trait = traits.one_of(PAINTS)
    return atlas if trait is None else repainted(atlas, trait, traits.generator(trait))


def state_with_traits(state: BodyState, traits: Traits, generator: np.random.Generator) -> BodyState:
    """A state of the body with the mouth open, if that is a trait of the person."""
    if "open mouth" not in traits.names:
        return state
    return dataclasses.replace(
        state, jaw=np.array([generator.uniform(*_WIDE_JAW), generator.uniform(-0.05, 0.05), 0.0])
    )
