"""The held-out set, and the metrics against the truth: closed forms, and the identity measured against itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.avatar import RiggedAvatar
from animportrait3d_core.avatar.io import save_avatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.cli import main
from animportrait3d_core.embedded.identities import prepare_identity, sample_identity, true_parameters
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.evaluation.heldout import GROUPS, HeldOutFrame, held_out_frames
from animportrait3d_core.evaluation.truth import (
    TRUTH_LABELS,
    TRUTH_REGIONS,
    camera_before,
    evaluate_against_identity,
    label_iou,
    masked_ssim,
    splat_labels,
    true_masks,
)
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.parts import part_of_faces
from animportrait3d_core.portrait.alignment import HandAlignment, align_by_hand
from animportrait3d_core.rigging import triangle_frames
from animportrait3d_core.similarity import ssim_map


@pytest.fixture(scope="module")
def prepared():
    """A person whose shape lies within the body's directions, so that the body can be in the true place exactly."""
    identity = sample_identity(77, hair_style="buzz cut")
    identity = dataclasses.replace(identity, displacement=np.zeros_like(identity.displacement))
    return prepare_identity(identity, texture_size=256, sky_directions=4)


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
            mouth = regions[TRUTH_REGIONS.index("mouth")]
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
    sclera, iris, teeth, lips = (TRUTH_LABELS.index(name) for name in ("sclera", "iris", "teeth", "lips"))
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


@pytest.fixture(scope="module")
def bare_body(mannequin_body: BodyModel, prepared) -> RiggedAvatar:
    """The bare body in the identity's true pose and shape: four opaque flakes on each face."""
    faces = mannequin_body.faces
    rest = true_parameters(prepared.identity)
    corners = mannequin_body(rest).vertices[0][faces]
    points = torch.cat([corners.mean(1), *(0.6 * corners[:, k] + 0.4 * corners.mean(1) for k in range(3))])
    binding = torch.arange(len(faces)).repeat(4)
    frames = triangle_frames(mannequin_body(rest).vertices[0], faces)[binding]
    local = ((points - frames.center)[:, None] @ frames.rotation)[:, 0] / frames.scale[:, None]
    count = len(binding)
    gaussians = Gaussians(
        local, torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4).contiguous(),
        torch.log(torch.tensor([0.2, 0.03, 0.2])).expand(count, 3).contiguous(), torch.full((count,), 6.0),
        torch.zeros(count, 1, 3),
    )  # fmt: skip
    parts = part_of_faces(mannequin_body.assets.face_regions)[binding]
    return RiggedAvatar(gaussians, binding, parts, mannequin_body, rest)


def test_the_bare_body_in_the_true_pose(bare_body: RiggedAvatar, prepared) -> None:
    steps = []
    frames = [frame for frame in held_out_frames() if frame.close][:4]
    metrics = evaluate_against_identity(
        bare_body, prepared.identity, size=224, frames=frames, progress=lambda step, *_: steps.append(step),
        detector=lambda images: (torch.zeros(4, 68, 2), torch.zeros(4, 68), torch.arange(4) < 1),
    )  # fmt: skip
    assert steps == [1, 2, 3, 4]
    regions = ("image", "face", "eyes", "eyes_closed", "mouth")
    names = {f"{kind}_{region}" for kind in ("psnr", "ssim") for region in regions}
    names |= {f"psnr_flat_{region}" for region in regions if region != "image"}
    names |= {"landmark_error_splat", "label_iou", "landmark_error", "expression_error", "faces_missed"}
    assert set(metrics) == names
    assert metrics["label_iou"] > 0.5  # the lids' flakes hang over the white of the eyes
    assert metrics["landmark_error_splat"] < 0.03
    assert metrics["faces_missed"] == 0.75
    assert metrics["landmark_error"] > 1  # of a detector that answers with the corner of the picture


def test_labels_in_the_wrong_place_count_less(bare_body: RiggedAvatar, prepared) -> None:
    frames = held_out_frames()[:4]
    right = evaluate_against_identity(bare_body, prepared.identity, size=96, frames=frames)
    lifted = bare_body.parameters.replace(translation=bare_body.parameters.translation + torch.tensor([[0, 0.05, 0]]))
    wrong = evaluate_against_identity(
        dataclasses.replace(bare_body, parameters=lifted), prepared.identity, size=96, frames=frames
    )
    assert wrong["label_iou"] < 0.5 * right["label_iou"]
    assert wrong["psnr_image"] < right["psnr_image"]


def test_hair_and_clothes_carry_no_labels(bare_body: RiggedAvatar) -> None:
    codes = splat_labels(bare_body)
    assert codes.sum(0).min() > 50
    assert splat_labels(dataclasses.replace(bare_body, part_id=torch.zeros_like(bare_body.part_id))).sum() == 0


@pytest.mark.slow
def test_the_command_measures_an_avatar(bare_body: RiggedAvatar, tmp_path: Path, capsys) -> None:
    save_avatar(bare_body, tmp_path / "avatar.safetensors")
    arguments = [str(tmp_path / "avatar.safetensors"), "--portrait", "amara", "--identity", "amara", "--size", "64"]
    assert main(["evaluate", *arguments, "--output", str(tmp_path / "metrics.json"), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert {"psnr_portrait", "coverage", "psnr_mouth", "label_iou", "landmark_error_fit"} <= set(metrics)
    # Another person's body: the face is off by more than a fit may be.
    assert metrics["landmark_error_fit"] > 0.03


def test_the_command_refuses_strangers(bare_body: RiggedAvatar, tmp_path: Path, capsys) -> None:
    save_avatar(bare_body, tmp_path / "avatar.safetensors")
    assert main(["evaluate", str(tmp_path / "avatar.safetensors"), "--identity", "nobody"]) == 2
    assert "'nobody', expected one of amara" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "none.safetensors")]) == 3
