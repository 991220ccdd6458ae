"""Attribute prompts in both directions: attributes to words, and words to attributes.

The grammar is one of phrases separated by commas. In a phrase, adjectives wait for a noun ("short red" for "hair"); a
noun takes the ones it understands. Order of phrases does not matter, hyphens equal blanks, and words that mean nothing
here are handed back to the caller instead of being dropped in silence.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from ...errors import InvalidInput
from . import attributes as vocabulary
from .attributes import Attributes, sample_attributes

_HAIR_PHRASES = {
    "bald": "bald",
    "buzz cut": "{color} buzz cut",
    "short hair": "short {color} hair",
    "side parting": "side-parted {color} hair",
    "bob": "{color} bob",
    "long hair": "long {color} hair",
    "bun": "{color} hair in a bun",
    "ponytail": "{color} ponytail",
    "afro": "{color} afro",
    "curly hair": "curly {color} hair",
}
# A mark that a prompt does not mention is absent; every other attribute that it does not mention is drawn.
_UNSAID_MARKS: dict[str, str | bool] = {"freckles": False, "blush": False, "beard": "none", "lips": "natural"}

_WHOLE_PHRASES: dict[str, dict[str, str | bool]] = {
    **{age: {"age": age.replace(" ", "-")} for age in ("young", "middle aged", "old")},
    **dict.fromkeys(("teenage", "teen", "youthful"), {"age": "young"}),
    **dict.fromkeys(("adult", "mature", "middle age"), {"age": "middle-aged"}),
    **dict.fromkeys(("elderly", "aged", "senior"), {"age": "old"}),
    **dict.fromkeys(("man", "male", "gentleman", "guy"), {"sex": "man"}),
    **dict.fromkeys(("woman", "female", "lady"), {"sex": "woman"}),
    "boy": {"sex": "man", "age": "young"},
    "girl": {"sex": "woman", "age": "young"},
    "grandfather": {"sex": "man", "age": "old"},
    "grandmother": {"sex": "woman", "age": "old"},
    **dict.fromkeys(("freckles", "freckled"), {"freckles": True}),
    **dict.fromkeys(("blush", "blushing", "rosy cheeks"), {"blush": True}),
    **dict.fromkeys(("bald", "shaved head", "hairless"), {"hair_style": "bald"}),
    **dict.fromkeys(("stubble", "unshaven"), {"beard": "stubble"}),
    **dict.fromkeys(("no beard", "clean shaven", "beardless"), {"beard": "none"}),
    **dict.fromkeys(("moustache", "mustache"), {"beard": "moustache"}),
    **dict.fromkeys(("full beard", "beard", "bearded"), {"beard": "full beard"}),
    "goatee": {"beard": "goatee"},
    "no freckles": {"freckles": False},
    "redhead": {"hair_color": "red"},
    **dict.fromkeys(("brunette", "brunet"), {"hair_color": "brown"}),
}
_ADJECTIVES: dict[str, str] = {
    **dict.fromkeys(("gray", "silver"), "grey"),
    **dict.fromkeys(("blonde", "golden", "fair haired"), "blond"),
    **dict.fromkeys(("ginger", "auburn", "red haired"), "red"),
    **dict.fromkeys(("bushy", "heavy"), "thick"),
    **dict.fromkeys(("fine", "narrow"), "thin"),
    **dict.fromkeys(("tanned", "bronze"), "tan"),
    **dict.fromkeys(("light", "white skinned"), "fair"),
    **dict.fromkeys(("porcelain", "very pale"), "pale"),
    **dict.fromkeys(("stripy", "stripes"), "striped"),
    **dict.fromkeys(("checkered", "plaid", "chequered", "checks"), "checked"),
    **dict.fromkeys(("spotted", "polka dot", "polka dotted", "dots"), "dotted"),
    **dict.fromkeys(("solid", "unpatterned"), "plain"),
    **dict.fromkeys(("curls", "wavy", "frizzy"), "curly"),
    **dict.fromkeys(("side parted", "parted", "side swept"), "side parted"),
    **dict.fromkeys(("violet",), "purple"),
    **dict.fromkeys(("turquoise", "cyan"), "teal"),
    **dict.fromkeys(("dark blue",), "navy"),
    **dict.fromkeys(("cream", "sand"), "beige"),
}
_HAIR_STYLE_ADJECTIVES = {
    "short": "short hair",
    "long": "long hair",
    "curly": "curly hair",
    "side parted": "side parting",
    "shoulder length": "long hair",
}
_HAIR_COLORS = dict(zip(vocabulary.HAIR_COLORS, vocabulary.HAIR_COLORS))


@dataclasses.dataclass(frozen=True)
class _Noun:
    """A noun: what it says by itself, and which adjectives it takes (adjective -> value) for which attribute."""

    says: dict[str, str | bool]
    takes: dict[str, dict[str, str]]


def _nouns() -> dict[str, _Noun]:
    def same(values: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(values, values))

    hair = {"hair_style": _HAIR_STYLE_ADJECTIVES, "hair_color": _HAIR_COLORS}
    nouns = {"hair": _Noun({}, hair), "hairstyle": _Noun({}, hair)}
    for style, words in {
        "buzz cut": ("buzz cut", "buzzcut", "crew cut"),
        "side parting": ("side parting", "side part"),
        "bob": ("bob", "bob cut"),
        "bun": ("bun", "topknot"),
        "ponytail": ("ponytail", "pony tail"),
        "afro": ("afro",),
    }.items():
        for word in words:
            nouns[word] = _Noun({"hair_style": style}, {"hair_color": _HAIR_COLORS})
    eyes = _Noun({}, {"iris_color": same(vocabulary.IRIS_COLORS)})
    brows = _Noun({}, {"brow_shape": same(vocabulary.BROW_SHAPES), "brow_color": _HAIR_COLORS})
    tones = {**same(vocabulary.SKIN_TONES), "black": "dark", "white": "fair"}
    skin = _Noun({}, {"skin_tone": tones})
    lips = _Noun({}, {"lips": {**same(vocabulary.LIPS), "purple": "plum", "dark red": "plum"}})
    nouns.update(dict.fromkeys(("eyes", "eye", "eyed", "irises"), eyes))
    nouns.update(dict.fromkeys(("eyebrows", "eyebrow", "brows", "brow"), brows))
    nouns.update(dict.fromkeys(("skin", "skinned", "complexion"), skin))
    nouns.update(dict.fromkeys(("lips", "lipstick"), lips))
    for garment, words in {
        "sweater": ("sweater", "jumper", "pullover", "knitwear"),
        "t-shirt": ("t shirt", "tee", "tshirt", "tee shirt"),
        "turtleneck": ("turtleneck", "roll neck", "turtleneck sweater", "polo neck"),
        "v-neck": ("v neck", "v neck sweater", "v neck jumper"),
        "shirt": ("shirt", "collared shirt", "dress shirt", "shirt collar"),
    }.items():
        takes = {"garment_color": same(vocabulary.GARMENT_COLORS), "pattern": same(vocabulary.PATTERNS)}
        for word in words:
            nouns[word] = _Noun({"garment": garment}, takes)
    return nouns


_NOUNS = _nouns()
_EMPTY_WORDS = frozenset(
    "a an the of with and in on who is has having wearing wears portrait photo picture head face person human".split()
)
_ADJECTIVE_WORDS = {value for noun in _NOUNS.values() for takes in noun.takes.values() for value in takes}
_LONGEST = 3


@dataclasses.dataclass(frozen=True)
class ParsedPrompt:
    """What a text says: `known` attribute -> value, and the `unknown` words in the order of the text."""

    known: dict[str, str | bool]
    unknown: tuple[str, ...]


def describe(attributes: Attributes) -> str:
    """The full prompt of a person, every attribute said or, for marks, left out when absent."""
    a = attributes
    parts = [f"a {a.age} {a.sex}" if a.age != "old" else f"an old {a.sex}"]
    parts.append(_HAIR_PHRASES[a.hair_style].format(color=a.hair_color))
    parts += [f"{a.iris_color} eyes", f"{a.skin_tone} skin", f"{a.brow_shape} {a.brow_color} eyebrows"]
    parts += ["freckles"] if a.freckles else []
    parts += ["blush"] if a.blush else []
    parts += [a.beard] if a.beard != "none" else []
    parts += [f"{a.lips} lipstick"] if a.lips != "natural" else []
    pattern = "" if a.pattern == "plain" else f"{a.pattern} "
    parts.append(f"{a.garment_color} {pattern}{a.garment}")
    return ", ".join(parts)


def describe_abstractly(attributes: Attributes) -> str:
    """Age, sex and skin tone: "a young man, fair skin"."""
    article = "an" if attributes.age == "old" else "a"
    return f"{article} {attributes.age} {attributes.sex}, {attributes.skin_tone} skin"


def parse_prompt(text: str) -> ParsedPrompt:
    """Read an attribute prompt, in any order.

    Marks that are not mentioned (freckles, blush, beard, lipstick, and the pattern of a garment that is) are known to
    be absent. Raises `InvalidInput`, listing what is understood, when nothing is recognised.

    >>> parse_prompt("blue sweater, a young man with short ginger hair, monocle").known["hair_color"]
    'red'
    >>> parse_prompt("a young man with a monocle").unknown
    ('monocle',)
    """
    known: dict[str, str | bool] = {}
    unknown: list[str] = []
    for phrase in re.split(r"[,.;:!?\n]+", text.lower()):
        _read_phrase(re.findall(r"[^\s\-_]+", phrase), known, unknown)
    if not known:
        raise InvalidInput(f"parse_prompt: nothing was recognised in {text!r}. Understood are: {understood()}.")
    for name, absent in _UNSAID_MARKS.items():
        known.setdefault(name, absent)
    if "garment" in known:
        known.setdefault("pattern", "plain")
    if known.get("hair_style") == "bald" and "brow_color" in known:
        known["hair_color"] = known["brow_color"]
    return ParsedPrompt(known, tuple(unknown))


def attributes_from_prompt(text: str, generator: np.random.Generator) -> tuple[Attributes, tuple[str, ...]]:
    """Attributes of a prompt, unsaid ones drawn from `generator`, and the words that were not understood."""
    parsed = parse_prompt(text)
    return sample_attributes(generator, parsed.known), parsed.unknown


def understood() -> str:
    """The vocabulary in one line, for messages and help pages."""
    lists = {name.replace("_", " "): ", ".join(values) for name, values in vocabulary.CHOICES.items()}
    lists["marks"] = ", ".join(vocabulary.FLAGS)
    return "; ".join(f"{name} ({values})" for name, values in lists.items())


def _read_phrase(words: list[str], known: dict[str, str | bool], unknown: list[str]) -> None:
    """Scan one phrase for the longest entries of the vocabulary and apply them to `known`."""
    waiting: list[str] = []
    last_noun: _Noun | None = None
    position = 0
    while position < len(words):
        for length in range(min(_LONGEST, len(words) - position), 0, -1):
            term = " ".join(words[position : position + length])
            if term in _NOUNS:
                last_noun = _NOUNS[term]
                known.update(last_noun.says)
                waiting = _attach(waiting, last_noun, known)
            elif term in _WHOLE_PHRASES:
                known.update(_WHOLE_PHRASES[term])
            elif term in _ADJECTIVES or term in _ADJECTIVE_WORDS:
                waiting.append(_ADJECTIVES.get(term, term))
            elif term not in _EMPTY_WORDS:
                continue
            position += length
            break
        else:
            unknown.append(words[position])
            position += 1
    if last_noun is not None:
        waiting = _attach(waiting, last_noun, known)
    if "blond" in waiting and "hair_color" not in known:
        # "a blond man": of all colours this one is said of hair alone.
        waiting.remove("blond")
        known["hair_color"] = "blond"
    unknown.extend(waiting)


def _attach(waiting: list[str], noun: _Noun, known: dict[str, str | bool]) -> list[str]:
    """Give `noun` the waiting adjectives that it takes, at most one per attribute; return the others."""
    left, used = [], set()
    for adjective in waiting:
        slots = [name for name, takes in noun.takes.items() if adjective in takes and name not in used]
        if not slots:
            left.append(adjective)
            continue
        known[slots[0]] = noun.takes[slots[0]][adjective]
        used.add(slots[0])
    return left
