"""The words that the diffusion prior is told about a picture, in training and in use."""

from __future__ import annotations

import dataclasses
import re

from ..cameras import view_word
from ..errors import InvalidInput
from ..socket_values import SocketValue
from .crops import CROP_REGIONS, CropRegion

SCHEMA_VERSION = 1
_PEOPLE = (
    "man woman boy girl male female lady gentleman guy person teenager child baby toddler grandfather grandmother"
).split()
_AGES = "young youthful teen teenage adult mature middle-aged old older elderly aged senior little newborn".split()
_YEARS = re.compile(r"\d+-years?-old")
_SEEN_FROM = (0.0, -60.0, 60.0, 180.0)
"""Yaws that between them show every region under each word that its view can have."""


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


def abstract_prompt_of(prompt: str) -> str:
    """Age and sex of the person in a full prompt, and the colour of the skin where a phrase says it; "" if nobody is.

    Eyes and mouths are told no more, since details spoil their pictures (paper A1.5). The authors write age and sex by
    hand; the embedded prior has learnt to read the skin with them.

    >>> abstract_prompt_of("a bearded old man with blue eyes, fair skin, navy shirt")
    'an old man, fair skin'
    >>> abstract_prompt_of("the Mona Lisa")
    ''
    """
    phrases = [" ".join(phrase.split()) for phrase in re.split(r"[,.;:\n]+", prompt.lower())]
    for phrase in phrases:
        words = phrase.replace("middle aged", "middle-aged").split()
        person = next((index for index, word in enumerate(words) if word in _PEOPLE), None)
        if person is not None:
            ages = [word for word in words[:person] if word in _AGES or _YEARS.fullmatch(word)]
            said = " ".join([*ages, words[person]])
            skin = next((other for other in phrases if re.fullmatch(r"[\w-]+( [\w-]+)? skin", other)), "")
            return f"{'an' if said[0] in 'aeiou8' else 'a'} {said}" + (f", {skin}" if skin else "")
    return ""


@dataclasses.dataclass(frozen=True)
class Prompts(SocketValue):
    """What the diffusion prior is told about one person.

    prompt: the whole description, for bust and face.  abstract_prompt: what eyes and mouths are told after the name of
    their region.  negative_prompt: what guidance leads away from; may be empty.  view_words: whether texts begin with
    the word of their view. Raises `InvalidInput` without a prompt.
    """

    prompt: str
    abstract_prompt: str
    negative_prompt: str = ""
    view_words: bool = True
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InvalidInput(
                "Prompts: the prompt is empty; describe the person, for example 'a young man, short brown hair'."
            )
        if not self.abstract_prompt.strip():
            raise InvalidInput(
                f"Prompts: the abstract prompt is empty, and '{self.prompt}' has no word for a person to take it from "
                f"({', '.join(_PEOPLE[:4])}, ...). Write one with age and sex alone, for example 'a young man'."
            )

    @classmethod
    def of(cls, prompt: str, abstract_prompt: str = "", negative_prompt: str = "", view_words: bool = True) -> Prompts:
        """Texts as a user writes them, without blanks around them; an empty abstract prompt is taken from the full one.

        Raises `InvalidInput` when the prompt is empty, or has nothing to take from.
        """
        full, abstract = " ".join(prompt.split()), " ".join(abstract_prompt.split())
        return cls(full, abstract or abstract_prompt_of(full), " ".join(negative_prompt.split()), view_words)

    def text(self, region: CropRegion, yaw_degrees: float | None = None) -> str:
        """What a picture of `region` from that yaw is told; without yaw no view word, as in the authors' SDEdit.

        >>> mouth = CROP_REGIONS["mouth"]
        >>> Prompts("a boy, red hair", "a boy").text(mouth, 40.0)
        'side view mouth region, a boy'
        """
        text = region_prompt(region, self.prompt, self.abstract_prompt)
        if yaw_degrees is None or not self.view_words:
            return text
        return with_view_word(text, view_word(yaw_degrees))

    def texts(self) -> tuple[str, ...]:
        """Every text that any region has from any side, each once; the first is that of the whole from the front."""
        seen = [
            self.text(region, yaw) for region in CROP_REGIONS.values() for yaw in _SEEN_FROM if region.seen_from(yaw)
        ]
        return tuple(dict.fromkeys(seen))

    def summary(self) -> str:
        """All texts, one a line."""
        negative = self.negative_prompt or "(none)"
        return "\n".join([*self.texts(), f"negative: {negative}"])
