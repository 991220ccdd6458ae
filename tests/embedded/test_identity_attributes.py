"""Attributes and their prompts: what is said comes back, what is not said is drawn, what is not understood is told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from animportrait3d_core.embedded.identities import Attributes, parse_prompt, sample_attributes
from animportrait3d_core.embedded.identities.attributes import CHOICES, FLAGS
from animportrait3d_core.embedded.identities.prompts import attributes_from_prompt, describe, describe_abstractly
from animportrait3d_core.errors import InvalidInput


@st.composite
def any_attributes(draw) -> Attributes:
    values = {name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items()}
    values.update({name: draw(st.booleans()) for name in FLAGS})
    if values["hair_style"] == "bald":
        values["hair_color"] = values["brow_color"]
    return Attributes(**values)


@given(any_attributes(), st.randoms(use_true_random=False))
def test_a_full_prompt_gives_its_attributes_back_in_any_order(attributes, random):
    phrases = describe(attributes).split(", ")
    random.shuffle(phrases)
    parsed = parse_prompt(", ".join(phrases))
    assert parsed.unknown == ()
    assert Attributes(**parsed.known) == attributes


def test_the_example_of_the_documentation():
    known = parse_prompt("a young man, short red hair, freckles, blue sweater").known
    said = {"age": "young", "sex": "man", "hair_style": "short hair", "hair_color": "red", "freckles": True}
    assert said.items() <= known.items()
    assert (known["garment"], known["garment_color"], known["pattern"]) == ("sweater", "blue", "plain")
    assert "iris_color" not in known and known["beard"] == "none"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an elderly lady with grey curls", {"age": "old", "sex": "woman"}),
        ("ginger bob", {"hair_style": "bob", "hair_color": "red"}),
        (
            "a bearded blond guy in a navy striped jumper",
            {"beard": "full beard", "hair_color": "blond", "pattern": "striped"},
        ),
        ("eyes green, skin dark", {"iris_color": "green", "skin_tone": "dark"}),
        ("a bald man with bushy black eyebrows", {"hair_style": "bald", "hair_color": "black", "brow_shape": "thick"}),
        ("dark brown hair in a bun, plum lipstick", {"hair_style": "bun", "hair_color": "dark brown", "lips": "plum"}),
    ],
)
def test_synonyms(text, expected):
    assert expected.items() <= parse_prompt(text).known.items()


def test_unknown_words_are_handed_back_in_order():
    parsed = parse_prompt("a young pirate woman with an eyepatch, green parrot")
    assert parsed.unknown == ("pirate", "eyepatch", "parrot", "green")


@pytest.mark.parametrize("text", ["", "   ", "a sunset over the sea", ",,,"])
def test_nothing_recognised_is_an_error_that_lists_the_words(text):
    with pytest.raises(InvalidInput, match="parse_prompt: nothing was recognised.*freckles"):
        parse_prompt(text)


@given(st.integers(0, 2**32 - 1))
def test_sampling_depends_on_the_seed_alone(seed):
    first, second = (sample_attributes(np.random.default_rng(seed)) for _ in range(2))
    assert first == second


@given(st.integers(0, 10_000), st.sampled_from(sorted(CHOICES)), st.data())
def test_known_attributes_are_kept(seed, name, data):
    value = data.draw(st.sampled_from(CHOICES[name]))
    drawn = sample_attributes(np.random.default_rng(seed), {name: value})
    if name == "hair_color" and drawn.hair_style == "bald":
        assert drawn.brow_color == value
    assert getattr(drawn, name) == value


def test_all_values_occur_and_correlate():
    drawn = [sample_attributes(np.random.default_rng(seed)) for seed in range(3000)]
    for name, choices in CHOICES.items():
        assert {getattr(a, name) for a in drawn} == set(choices), name
    women = [a for a in drawn if a.sex == "woman"]
    assert all(a.beard == "none" for a in women)
    grey = [a.hair_color in ("grey", "white") for a in drawn if a.age == "old" and a.hair_style != "bald"]
    assert np.mean(grey) > 0.6
    assert not any(a.hair_color in ("grey", "white") for a in drawn if a.age == "young")
    dark_eyes = [a.iris_color == "brown" for a in drawn if a.skin_tone == "dark"]
    assert np.mean(dark_eyes) > 0.7


def test_the_seed_fills_what_a_prompt_leaves_open():
    first, unknown = attributes_from_prompt("an old woman", np.random.default_rng(1))
    assert unknown == () and (first.age, first.sex) == ("old", "woman")
    others = {describe(attributes_from_prompt("an old woman", np.random.default_rng(seed))[0]) for seed in range(20)}
    assert len(others) > 10


def test_wrong_values_are_named():
    good = sample_attributes(np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="`beard` is 'braids', expected one of none, stubble"):
        dataclasses.replace(good, beard="braids")
    with pytest.raises(InvalidInput, match="unknown attributes"):
        sample_attributes(np.random.default_rng(0), {"hat": "red"})
    with pytest.raises(InvalidInput, match="bald person"):
        dataclasses.replace(good, hair_style="bald", hair_color="red", brow_color="black")


def test_abstract_prompt():
    attributes = sample_attributes(np.random.default_rng(0), {"age": "old", "sex": "man", "skin_tone": "tan"})
    assert describe_abstractly(attributes) == "an old man, tan skin"
