"""Traits: what people of the embedded world may have beyond what `identities` draws, so that networks meet them.

Here live shapes far from the mean, surfaces without texture, hard and flat light, tone curves, things that are worn,
cut necks and low-poly facets: each drawn as data, each applied by one function. People without traits stay as they
were, bit for bit. Nothing of the method may import this package.
"""

from .drawing import TONES, TRAITS, Traits, sample_traits
from .figures import prepare_with_traits, sample_identity_with_traits, state_with_traits
from .surfaces import toned

__all__ = [
    "TONES",
    "TRAITS",
    "Traits",
    "prepare_with_traits",
    "sample_identity_with_traits",
    "sample_traits",
    "state_with_traits",
    "toned",
]
