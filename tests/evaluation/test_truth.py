"""The held-out set, and the metrics against the truth: closed forms, and the identity measured against itself."""

from __future__ import annotations

import dataclasses
import doctest

import pytest
import torch

from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.embedded.identities import prepare_identity, sample_identity, true_parameters
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.evaluation import heldout, truth
from animportrait3d_core.evaluation.heldout import GROUPS, HeldOutFrame, held_out_frames
from animportrait3d_core.evaluation.similarity import ssim_map
from animportrait3d_core.evaluation.truth import (
    LABELS,
    REGIONS,
    camera_before,
    evaluate_against_identity,
    label_iou,
    masked_ssim,
    true_masks,
)
from animportrait3d_core.portrait.alignment import HandAlignment, align_by_hand


@pytest.fixture(scope="module")
def prepared():
    return prepare_identity(sample_identity(77, hair_style="buzz cut"), texture_size=256, sky_directions=4)


@pytest.mark.parametrize("module", [heldout, truth])
def test_doctests(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_set_is_fixed_balanced_and_without_twins() -> None:
    frames = held_out_frames()
    assert frames == held_out_frames()
    assert len(set(frames)) == len(frames) == 32
    assert {frame.group for frame in frames} == set(GROUPS)
    assert sum(frame.close for frame in frames) == 16
    for frame in frames:
        assert (min(frame.lids) == 1.0) == (frame.group == "eyes_closed")
        assert (frame.jaw >= 8) == (frame.group == "mouth")


def test_a_frame_poses_the_body_as_it_says() -> None:
    frame = HeldOutFrame("mouth", 0.0, 0.0, False, jaw=20.0, lids=(0.5, 1.0), expression=((2, 1.5), (99, 3.0)))
    rest = BodyParameters.neutral().replace(eyelids=torch.tensor([[0.2, 0.0]]))
    pose = frame.pose(rest)
    assert pose.jaw_pose[0].tolist() == pytest.approx([0.349066, 0, 0], abs=1e-6)
    assert pose.eyelids[0].tolist() == pytest.approx([0.6, 1.0])
    # The body has ten directions: the hundredth is left out.
    assert pose.expression[0].tolist() == [0, 0, 1.5, *[0.0] * 7]
    assert rest.jaw_pose.abs().max() == 0


def test_close_frames_hold_the_whole_open_mouth(prepared) -> None:
    for frame in held_out_frames():
        if frame.close and frame.group == "mouth":
            regions, _ = true_masks(prepared, frame.pose(true_parameters(prepared.identity)), frame.camera(96))
            mouth = regions[REGIONS.index("mouth")]
            assert mouth.sum() > 60
            border = torch.cat([mouth[0], mouth[-1], mouth[:, 0], mouth[:, -1]])
            assert not border.any()


def test_masks_of_the_truth_follow_lids_and_jaw(prepared) -> None:
    rest = true_parameters(prepared.identity)
    frame = HeldOutFrame("eyes", 0.0, 0.0, True)
    shut = dataclasses.replace(frame, lids=(1.0, 1.0))
    wide = dataclasses.replace(frame, jaw=20.0)
    labels = {
        name: true_masks(prepared, one.pose(rest), one.camera(128))[1].sum(dim=(1, 2)).tolist()
        for name, one in (("open", frame), ("shut", shut), ("wide", wide))
    }
    sclera, iris, teeth, lips = (LABELS.index(name) for name in ("sclera", "iris", "teeth", "lips"))
    assert labels["open"][sclera] > 20 and labels["open"][iris] > 10 and labels["open"][teeth] == 0
    assert labels["shut"][sclera] == labels["shut"][iris] == 0
    assert labels["wide"][teeth] > 20 and labels["wide"][lips] > 50


def test_from_behind_there_are_neither_eyes_nor_mouth(prepared) -> None:
    rest = true_parameters(prepared.identity)
    regions, labels = true_masks(prepared, rest, orbit_cameras([180.0, 0.0], [0.0, 0.0], 64)[0])
    front, _ = true_masks(prepared, rest, orbit_cameras([0.0], [0.0], 64))
    assert not regions[1:].any() and not labels.any()
    assert regions[0].sum() < 0.02 * front[0].sum()  # the rim of the face region, beside the ears


def test_label_iou_is_the_mean_over_labels_that_occur() -> None:
    here, there = torch.zeros(2, 4, 8, 8, dtype=torch.bool), torch.zeros(2, 4, 8, 8, dtype=torch.bool)
    here[:, 0, :4], there[:, 0, :2] = True, True  # 16 of 32 pixels a frame
    here[0, 1, 0], there[0, 1, 0] = True, True
    there[1, 2, 0] = True
    assert label_iou(here, there) == pytest.approx((0.5 + 1 + 0) / 3)
    with pytest.raises(InvalidInput, match="none of the labels"):
        label_iou(torch.zeros_like(here), torch.zeros_like(there))


def test_masked_ssim_averages_the_map_over_the_mask() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.rand(1, 32, 32, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros(1, 32, 32)
    mask[0, 10, 12] = mask[0, 20, 8] = 1
    whole = ssim_map(a, b, border="crop").mean(-1)
    assert masked_ssim(a, b, mask) == pytest.approx(float((whole[0, 5, 7] + whole[0, 15, 3]) / 2), abs=1e-12)
    with pytest.raises(InvalidInput, match="empty"):
        masked_ssim(a, b, torch.zeros(1, 32, 32))


def test_a_moved_subject_is_seen_as_the_file_was() -> None:
    alignment = align_by_hand(HandAlignment("+z", "-y", (4.0, -7.0, 2.0), 0.37, (0.1, 0.2, -0.05)))
    camera = orbit_cameras([23.0], [11.0], 200)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    before, _ = project(camera_before(alignment, camera), points)
    after, _ = project(camera, alignment.apply(points))
    assert (before - after).abs().max() < 2e-3


def test_no_frames_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no frames"):
        evaluate_against_identity(None, sample_identity(77), frames=())
