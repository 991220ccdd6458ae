"""Class maps, label pictures, probabilities, hair masks, corrections: right answers and named errors."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.parts import PART_CLASSES
from animportrait3d_core.segmentation import (
    LABEL_SETS,
    ViewLabels,
    labels_from_image,
    labels_from_numbers,
    labels_from_probabilities,
    paint_labels,
    parse_view_indices,
    with_hair,
)
from animportrait3d_core.segmentation.images import class_images, label_overlay
from animportrait3d_core.segmentation.labels import CLASS_COLORS


def names_of(labels: ViewLabels) -> list[str]:
    return [labels.classes[int(number)] for number in labels.labels.reshape(-1)]


def numbers_of(count: int) -> torch.Tensor:
    return torch.arange(count).reshape(1, 1, count)


@pytest.mark.parametrize(
    ("label_set", "count", "expected"),
    [
        # The authors take 2 and 23 to 27 of Sapiens for the face; 3 is hair there.
        ("sapiens goliath (28)", 28, {0: "background", 1: "clothes", 2: "face", 3: "hair", 21: "clothes",
                                      22: "clothes", 23: "lips", 24: "lips", 25: "mouth", 26: "mouth", 27: "mouth"}),
        ("CelebAMask-HQ (19)", 19, {0: "background", 1: "face", 2: "face", 4: "eyes", 10: "mouth", 11: "lips",
                                    3: "hair", 13: "hair", 14: "hair", 15: "hair", 17: "face", 18: "clothes"}),
        ("face-parsing.PyTorch (19)", 19, {1: "face", 2: "face", 5: "eyes", 10: "face", 11: "mouth", 12: "lips",
                                           6: "hair", 14: "face", 16: "clothes", 17: "hair", 18: "hair"}),
        ("LIP (20)", 20, {0: "background", 1: "hair", 2: "hair", 4: "hair", 5: "clothes", 13: "face", 14: "clothes"}),
        ("ATR (18)", 18, {0: "background", 1: "hair", 2: "hair", 3: "hair", 4: "clothes", 11: "face", 17: "clothes"}),
        ("animportrait3d", 7, dict(enumerate(PART_CLASSES))),
    ],
)  # fmt: skip
def test_well_known_label_sets(label_set, count, expected) -> None:
    assert len(LABEL_SETS[label_set]) == count
    found = names_of(labels_from_numbers(numbers_of(count), LABEL_SETS[label_set]))
    assert {number: found[number] for number in expected} == expected
    image = (numbers_of(count).float() / 255)[..., None].expand(1, 1, count, 3)
    assert names_of(labels_from_image(image, label_set)) == found


def test_unknown_class_names_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"\['tree'\] of \['background', 'tree'\] are unknown.*'face neck'"):
        labels_from_numbers(numbers_of(2), ["background", "tree"])
    with pytest.raises(InvalidInput, match="none of the class names .* is the background"):
        labels_from_numbers(numbers_of(2), ["face", "hair"])


def test_numbers_of_a_larger_label_set_are_refused_with_those_that_fit() -> None:
    with pytest.raises(InvalidInput, match=r"lie in 0 to 27, expected 0 to 18.*9 pixels.*sapiens goliath") as error:
        labels_from_numbers(numbers_of(28), LABEL_SETS["CelebAMask-HQ (19)"])
    assert "LIP" not in str(error.value)


def test_class_colours_go_there_and_back() -> None:
    numbers = torch.randint(0, 7, (2, 9, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = class_images(ViewLabels(numbers))
    noisy = images + 0.05 * (torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 0.5)
    assert torch.equal(labels_from_image(noisy, "class colours").labels, numbers)
    permuted = ViewLabels(numbers, PART_CLASSES[::-1])
    assert torch.equal(class_images(permuted)[0, 0, 0], CLASS_COLORS[6 - int(numbers[0, 0, 0])])
    with pytest.raises(InvalidInput, match="100 % of the pixels have none of the class colours"):
        labels_from_image(torch.zeros(1, 4, 4, 3) + torch.tensor([0.0, 1.0, 0.0]), "class colours")


def test_coloured_pictures_and_unknown_sets_are_refused() -> None:
    colored = class_images(ViewLabels(torch.full((1, 4, 4), 2, dtype=torch.uint8)))
    with pytest.raises(InvalidInput, match="channels of the label picture differ by up to 138 of 255"):
        labels_from_image(colored, "LIP (20)")
    with pytest.raises(InvalidInput, match="label set 'mine'"):
        labels_from_image(colored, "mine")


def test_probabilities_of_one_meaning_are_added_before_the_best_is_taken() -> None:
    names = ["background", "hair", "skin", "nose", "neck"]
    probabilities = torch.tensor([0.1, 0.36, 0.2, 0.19, 0.15]).reshape(1, 1, 1, 5)
    labels = labels_from_probabilities(probabilities, names)
    assert names_of(labels) == ["face"]
    assert float(labels.confidence) == pytest.approx(0.54)


def test_view_labels_refuse_what_they_cannot_hold() -> None:
    good = torch.zeros(1, 2, 2, dtype=torch.uint8)
    with pytest.raises(InvalidInput, match="torch.int64, expected torch.uint8"):
        ViewLabels(good.long())
    with pytest.raises(InvalidInput, match="go up to 7, but there are 7 classes"):
        ViewLabels(good + 7)
    with pytest.raises(InvalidInput, match="expected different names out of"):
        ViewLabels(good, ("background", "nose"))
    with pytest.raises(InvalidInput, match="'background' among them"):
        ViewLabels(good, ("face", "hair"))
    with pytest.raises(InvalidInput, match="confidence lies in 0 to 2"):
        ViewLabels(good, PART_CLASSES, torch.tensor([[[0.0, 2.0], [0.0, 1.0]]]))
    with pytest.raises(ShapeMismatch, match="confidence"):
        ViewLabels(good, PART_CLASSES, torch.ones(1, 2, 3))


def test_hair_mask_wins_and_doubtful_hair_is_silent() -> None:
    numbers = torch.tensor([[[PART_CLASSES.index("hair"), PART_CLASSES.index("hair"), 1, 3]]], dtype=torch.uint8)
    labels = with_hair(ViewLabels(numbers), torch.tensor([[[0.9, 0.1, 0.7, 0.2]]]))
    assert names_of(labels) == ["hair", "hair", "hair", "clothes"]
    torch.testing.assert_close(labels.confidence, torch.tensor([[[0.9, 0.0, 0.7, 1.0]]]))
    with pytest.raises(ShapeMismatch):
        with_hair(ViewLabels(numbers), torch.ones(1, 2, 4))


def test_painting_some_views() -> None:
    labels = ViewLabels(torch.ones(3, 4, 4, dtype=torch.uint8), PART_CLASSES, torch.full((3, 4, 4), 0.25))
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1.0
    painted = paint_labels(labels, mask, "hair", [2])
    assert painted.mask("hair").sum(dim=(1, 2)).tolist() == [0, 0, 8]
    assert torch.equal(painted.painted, painted.mask("hair"))
    assert painted.confidence[2, :2].unique().tolist() == [1.0] and painted.confidence[:2].unique().tolist() == [0.25]
    again = paint_labels(painted, mask.flip(1), "clothes", [0])
    assert again.painted.sum(dim=(1, 2)).tolist() == [8, 0, 8]


@pytest.mark.parametrize(
    ("masks", "name", "views", "message"),
    [
        (torch.ones(1, 4, 4), "background", [0], "the surface has no background"),
        (torch.ones(1, 4, 4), "nose", [0], "class 'nose'"),
        (torch.ones(2, 4, 4), "hair", [0], r"expected \[1, 4, 4\]: one mask"),
        (torch.ones(1, 4, 4), "hair", [3], "expected different numbers from 0 to 2"),
        (torch.ones(2, 4, 4), "hair", [1, 1], "expected different numbers"),
        (torch.ones(1, 4, 8), "hair", [0], "masks are 8 x 4, the labels 4 x 4"),
        (torch.full((1, 4, 4), 0.4), "hair", [0], "the masks are empty .largest value 0.40"),
        (torch.full((1, 4, 4), torch.nan), "hair", [0], "16 non-finite"),
    ],
)
def test_bad_corrections_are_refused(masks, name, views, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        paint_labels(ViewLabels(torch.ones(3, 4, 4, dtype=torch.uint8)), masks, name, views)


def test_view_indices() -> None:
    assert parse_view_indices("", 3) == [0, 1, 2]
    assert parse_view_indices(" 2 , 0-1", 3) == [2, 0, 1]
    for text in ("a", "2-1", "1,,2", "-1", "1-x"):
        with pytest.raises(InvalidInput, match="no view number"):
            parse_view_indices(text, 3)
    for text in ("3", "0,0", "0-2,1"):
        with pytest.raises(InvalidInput, match="different numbers from 0 to 2"):
            parse_view_indices(text, 3)


def test_the_overlay_shows_classes_and_keeps_the_background() -> None:
    numbers = torch.zeros(1, 8, 8, dtype=torch.uint8)
    numbers[:, :4] = 2
    images = torch.full((1, 16, 16, 3), 0.25)
    overlay = label_overlay(images, ViewLabels(numbers), strength=1.0)
    assert overlay.shape == (1, 8, 8, 3)
    torch.testing.assert_close(overlay[0, 0, 0], CLASS_COLORS[2])
    torch.testing.assert_close(overlay[0, 7, 7], torch.full((3,), 0.25))
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1.0
    painted = label_overlay(images, paint_labels(ViewLabels(numbers), mask, "clothes"))[0]
    dark = painted.amax(-1) < 0.1
    assert int(dark.sum()) == 12 and not bool(dark[3:5, 3:5].any())
