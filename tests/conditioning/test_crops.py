"""Crop cameras: boxes of the method at 896 pixels, at any size of picture, for any number of cameras."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.conditioning import (
    CROP_REGIONS,
    FRAME_SIZE,
    crop_boxes,
    crop_cameras,
    region_prompt,
    with_view_word,
)
from animportrait3d_core.errors import InvalidInput, ShapeMismatch

ORBIT = orbit_cameras([0.0, 40.0, -20.0], [0.0, 10.0, -5.0], FRAME_SIZE)


@pytest.fixture(scope="module")
def landmarks(mannequin_body):
    parameters = mannequin_body.neutral_parameters().replace(
        scale=torch.tensor([[2.78]]), translation=torch.tensor([[0.0, -0.6, 0.0]])
    )
    return mannequin_body(parameters).landmarks[0]


@pytest.mark.parametrize("region", CROP_REGIONS.values(), ids=lambda region: region.name)
def test_a_crop_shows_the_box_and_nothing_else(region, landmarks):
    """A point of the large picture lies in the crop where cutting and scaling the picture would put it."""
    crops = crop_cameras(region, ORBIT, landmarks, 128)
    centers, side = crop_boxes(region, ORBIT, landmarks)
    assert side == region.side and (crops.width, crops.height) == (128, 128)
    large, small = project(ORBIT, landmarks)[0].double(), project(crops, landmarks)[0].double()
    cut = (large - centers[:, None] + side / 2) * 128 / side
    assert float((cut - small).abs().max()) < 0.02
    if region.landmarks:
        middle = small[:, list(region.landmarks)].mean(1)
        assert float((middle - 64.0).abs().max()) < 0.01
    else:
        assert torch.allclose(crops.K, ORBIT.resized(128, 128).K)


def test_a_batch_of_crops_equals_single_ones(landmarks):
    moved = landmarks + torch.tensor([[[0.0] * 3], [[0.1, 0.0, 0.0]], [[0.0, 0.1, 0.0]]])
    for region in CROP_REGIONS.values():
        together = crop_cameras(region, ORBIT, moved, 64)
        for view in range(3):
            alone = crop_cameras(region, ORBIT[view], moved[view], 64)
            assert torch.allclose(together.K[view], alone.K[0], rtol=1e-6, atol=1e-3), region.name


def test_boxes_do_not_depend_on_the_size_of_the_picture(landmarks):
    for region in CROP_REGIONS.values():
        large, small = (crop_cameras(region, orbit, landmarks, 64) for orbit in (ORBIT, ORBIT.resized(256, 256)))
        assert torch.allclose(large.K, small.K, rtol=1e-5, atol=2e-3), region.name


def test_scale_and_offset_move_the_box(landmarks):
    mouth = CROP_REGIONS["mouth"]
    offset = torch.tensor([[10.0, -4.0]], dtype=torch.float64).expand(3, 2)
    plain, moved = crop_cameras(mouth, ORBIT, landmarks, 100), crop_cameras(mouth, ORBIT, landmarks, 100, 2.0, offset)
    # Twice the side: half the focal length; the centre lies 10 pixels of 400 further right, 2.5 of 100.
    assert torch.allclose(moved.K[:, 0, 0], plain.K[:, 0, 0] / 2)
    middle = project(moved, landmarks)[0][:, [48, 54]].mean(1)
    assert torch.allclose(middle, torch.tensor([47.5, 51.0]), atol=0.01)


def test_the_eye_on_the_far_side_is_not_seen():
    left, right = CROP_REGIONS["left eye"], CROP_REGIONS["right eye"]
    # The picture's left eye is the subject's right one, which a camera on the subject's left does not see.
    assert [left.seen_from(yaw) for yaw in (-100, -80, 0, 29, 31, 80)] == [False, True, True, True, False, False]
    assert [right.seen_from(yaw) for yaw in (-80, -31, -29, 0, 80, 100)] == [False, False, True, True, True, False]
    assert [CROP_REGIONS["face"].seen_from(yaw) for yaw in (-95, -85, 85, 180)] == [False, True, True, False]
    assert all(CROP_REGIONS["bust"].seen_from(yaw) for yaw in (-180, 0, 180))


def test_the_left_eye_of_the_picture_is_on_its_left(landmarks):
    for region, side in (("left eye", -1), ("right eye", 1)):
        center = crop_boxes(CROP_REGIONS[region], ORBIT[0], landmarks)[0][0, 0]
        assert side * (float(center) - FRAME_SIZE / 2) > 20


def test_prompts_of_regions():
    prompts = {name: region_prompt(region, "full", "a boy") for name, region in CROP_REGIONS.items()}
    assert prompts == {
        "bust": "full",
        "face": "full",
        "left eye": "left eye region, a boy",
        "right eye": "right eye region, a boy",
        "both eyes": "eyes region, a boy",
        "mouth": "mouth region, a boy",
    }
    assert with_view_word("mouth region, a boy", "side view") == "side view mouth region, a boy"


def test_wrong_inputs_are_named(landmarks):
    with pytest.raises(InvalidInput, match="size 0, scale 1.0"):
        crop_cameras(CROP_REGIONS["face"], ORBIT, landmarks, 0)
    with pytest.raises(ShapeMismatch, match="`points` has shape \\[2, 2, 3\\]"):
        crop_cameras(CROP_REGIONS["face"], ORBIT, landmarks.expand(2, 70, 3), 64)
    with pytest.raises(ShapeMismatch, match="`landmarks` has shape \\[70\\]"):
        crop_boxes(CROP_REGIONS["face"], ORBIT, landmarks[:, 0])
