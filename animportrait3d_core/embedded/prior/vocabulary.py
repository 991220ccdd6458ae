"""The prior's words: a tokenizer of whole words in transformers' files, and the texts that pictures are told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from ...cameras import view_word
from ...conditioning import CROP_REGIONS, with_view_word
from ..identities.attributes import CHOICES, FLAGS, Attributes
from ..identities.prompts import describe, describe_abstractly

MAX_TOKENS = 40
"""Length of every encoded text; the longest prompt has 28 words, a view word two, and two mark its ends."""
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
_SPECIAL = ("<pad>", BEGIN, END, UNKNOWN)
_VIEWS = " ".join(view_word(yaw) for yaw in (0, 90, 180))
_BASE = Attributes(
    age="young", sex="man", hair_style="short hair", hair_color="brown", iris_color="brown", skin_tone="fair",
    brow_shape="straight", brow_color="brown", freckles=False, blush=False, beard="none", lips="natural",
    garment="sweater", garment_color="blue", pattern="plain",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TextVariation:
    """How often a text of the training differs from the sample's prompt.

    drop: the text is empty, for classifier-free guidance.  view: the view word stands in front, as the method's ISM
    says it (its SDEdit does not).  shorten: each later phrase is left out with one half, as users do.  forget: a word
    becomes the unknown word, so that this is one the networks have met.
    """

    drop: float = 0.1
    view: float = 0.7
    shorten: float = 0.15
    forget: float = 0.02


def prior_words() -> tuple[str, ...]:
    """Every word that a prompt of the embedded world may have, in alphabetical order."""
    people = [_BASE]
    for name, values in CHOICES.items():
        people += [_with(name, value) for value in values]
    people += [_with(name, True) for name in FLAGS]
    texts = [text for person in people for text in (describe(person), describe_abstractly(person))]
    texts += [_VIEWS, *(region.words for region in CROP_REGIONS.values() if region.words is not None)]
    return tuple(sorted({word for text in texts for word in text.replace(",", " , ").split()}))


def _with(name: str, value: Any) -> Attributes:
    """A person who is like the others but for one attribute."""
    return dataclasses.replace(_BASE, **{name: value})


def build_tokenizer(words: tuple[str, ...] | None = None) -> Any:
    """A fast tokenizer of transformers: lower case, words between blanks, commas apart, everything else unknown."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = prior_words() if words is None else words
    numbers = {word: number for number, word in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", "isolated")]
    )
    ends = [(mark, numbers[mark]) for mark in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=ends)
    # As with CLIP's own tokenizer, what follows the end is the end again.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END, unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
    )  # fmt: skip


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Write the tokenizer's folder so that transformers 4 and 5 load it by its class's name."""
    tokenizer.save_pretrained(str(folder))
    path = Path(folder) / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def varied_text(prompt: str, view_word: str, variation: TextVariation, generator: torch.Generator) -> str:
    """One text of the training for a picture with this prompt and view word."""
    draws = torch.rand(3, generator=generator).tolist()
    if draws[0] < variation.drop:
        return ""
    phrases = [phrase.strip() for phrase in prompt.split(",")]
    # The place ("mouth region") and the person ("a young man") stay.
    fixed = 2 if phrases[0].endswith(" region") else 1
    if draws[1] < variation.shorten:
        kept = torch.rand(len(phrases), generator=generator) < 0.5
        phrases = [phrase for k, phrase in enumerate(phrases) if k < fixed or kept[k]]
    words = ", ".join(phrases).split(" ")
    forgotten = torch.rand(len(words), generator=generator) < variation.forget
    text = " ".join(
        UNKNOWN + ("," if word.endswith(",") else "") if lost else word for word, lost in zip(words, forgotten.tolist())
    )
    return with_view_word(text, view_word) if draws[2] < variation.view else text
