"""What a person's pictures are told: by region and side, and the abstract prompt taken from the full one."""

from __future__ import annotations

import numpy as np
import pytest

from animportrait3d_core.conditioning import CROP_REGIONS, Prompts
from animportrait3d_core.conditioning.prompts import abstract_prompt_of
from animportrait3d_core.embedded.identities.attributes import sample_attributes
from animportrait3d_core.embedded.identities.prompts import describe, describe_abstractly
from animportrait3d_core.errors import InvalidInput

PROMPTS = Prompts("a boy, red hair", "a boy", "blur")


@pytest.mark.parametrize(
    ("region", "yaw", "text"),
    [
        ("face", 0.0, "front view a boy, red hair"),
        ("bust", 180.0, "back view a boy, red hair"),
        ("bust", -60.0, "side view a boy, red hair"),
        ("left eye", -60.0, "side view left eye region, a boy"),
        ("both eyes", 10.0, "front view eyes region, a boy"),
        ("mouth", None, "mouth region, a boy"),
    ],
)
def test_a_region_from_a_side_has_its_text(region, yaw, text):
    assert PROMPTS.text(CROP_REGIONS[region], yaw) == text
    plain = Prompts("a boy, red hair", "a boy", view_words=False)
    assert plain.text(CROP_REGIONS[region], yaw) == PROMPTS.text(CROP_REGIONS[region])


def test_the_texts_are_all_that_can_be_asked_for():
    asked = {
        PROMPTS.text(region, float(yaw))
        for region in CROP_REGIONS.values()
        for yaw in range(-179, 181)
        if region.seen_from(float(yaw))
    }
    assert set(PROMPTS.texts()) == asked and len(PROMPTS.texts()) == len(asked) == 10
    assert PROMPTS.texts()[0] == "front view a boy, red hair"
    assert PROMPTS.summary().splitlines() == [*PROMPTS.texts(), "negative: blur"]


def test_the_abstract_prompt_of_the_embedded_people_is_the_one_they_have():
    for seed in range(200):
        person = sample_attributes(np.random.default_rng(seed))
        assert abstract_prompt_of(describe(person)) == describe_abstractly(person)


@pytest.mark.parametrize(
    ("prompt", "abstract"),
    [
        ("a teen boy, pensive look, dark hair, preppy sweater", "a teen boy"),
        ("Portrait of an ELDERLY bearded gentleman", "an elderly gentleman"),
        ("blue eyes; a middle aged woman, dark  brown skin.", "a middle-aged woman, dark brown skin"),
        ("a man with an old hat, leather skin shoes", "a man"),
        ("an 80-year-old lady", "an 80-year-old lady"),
        ("a womanly mannequin", ""),
    ],
)
def test_age_and_sex_are_taken_from_free_texts(prompt, abstract):
    assert abstract_prompt_of(prompt) == abstract


def test_what_is_written_stands():
    prompts = Prompts.of("  a boy,\n red hair ", " a child ", " blur ", False)
    assert prompts == Prompts("a boy, red hair", "a child", "blur", False)
    assert Prompts.of("a boy, red hair").abstract_prompt == "a boy"


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(InvalidInput, match="^Prompts: the prompt is empty; describe the person, for example"):
        Prompts.of(prompt, "a boy")
    with pytest.raises(InvalidInput, match="^Prompts: the prompt is empty"):
        Prompts(prompt, "a boy")


def test_a_prompt_without_a_person_asks_for_the_abstract_one():
    with pytest.raises(InvalidInput, match="^Prompts: the abstract prompt is empty, and 'Mona Lisa' has no word for a"):
        Prompts.of("Mona Lisa")
    assert Prompts.of("Mona Lisa", "a woman").text(CROP_REGIONS["mouth"]) == "mouth region, a woman"
