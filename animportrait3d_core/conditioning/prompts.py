"""The words that the diffusion prior is told about a picture, in training and in use."""

from __future__ import annotations

from .crops import CropRegion


def region_prompt(region: CropRegion, full: str, abstract: str) -> str:
    """The full prompt for bust and face, else the region and the abstract prompt (paper A1.5).

    >>> from animportrait3d_core.conditioning import CROP_REGIONS
    >>> region_prompt(CROP_REGIONS["left eye"], "a boy, red hair", "a boy")
    'left eye region, a boy'
    """
    return full if region.words is None else f"{region.words}, {abstract}"


def with_view_word(prompt: str, word: str) -> str:
    """A prompt under the word of its view (`cameras.view_word`), as in the authors' distillation.

    >>> with_view_word("a boy", "front view")
    'front view a boy'
    """
    return f"{word} {prompt}"
