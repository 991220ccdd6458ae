"""Motions: the stress clip goes where it says, starts and ends near rest, and turns the head by exactly its angle."""

from __future__ import annotations

import math

import pytest
import torch

from animportrait3d_core.animation import Motion, rest_motion, stress_clip
from animportrait3d_core.animation.clips import StressClipSettings, envelope, turn_eyes, turn_head
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.rotations import axis_angle_to_matrix, matrix_to_axis_angle

HEAD, JAW, LEFT_EYE = 15, 22, 23


@pytest.fixture(scope="module")
def rest(mannequin_body: BodyModel):
    return mannequin_body.neutral_parameters().replace(
        neck_pose=torch.tensor([[0.1, 0.05, -0.03]]),
        head_pose=torch.tensor([[-0.08, 0.1, 0.06]]),
        jaw_pose=torch.tensor([[0.03, 0.0, 0.0]]),
        eyelids=torch.tensor([[0.1, 0.2]]),
    )


@pytest.mark.parametrize("degrees", [60.0, -60.0, 10.0])
def test_the_head_turns_by_the_whole_angle_about_the_vertical(mannequin_body, rest, degrees: float) -> None:
    before = mannequin_body(rest).joint_transforms[0, HEAD, :3, :3]
    after = mannequin_body(turn_head(rest, degrees)).joint_transforms[0, HEAD, :3, :3]
    turn = matrix_to_axis_angle(after @ torch.linalg.inv(before))
    torch.testing.assert_close(turn, torch.tensor([0.0, math.radians(degrees), 0.0]), rtol=0, atol=1e-5)


def test_a_left_turn_points_the_nose_to_the_subjects_left(mannequin_body, rest) -> None:
    nose = [mannequin_body(pose).landmarks[0, 30] for pose in (rest, turn_head(rest, 60.0))]
    assert nose[1][0] - nose[0][0] > 0.05


def test_eyes_turn_left_and_up(mannequin_body, rest) -> None:
    def gaze(left: float, up: float) -> torch.Tensor:
        return mannequin_body(turn_eyes(rest, left, up)).joint_transforms[0, LEFT_EYE, :3, :3] @ torch.tensor(
            [0.0, 0, 1]
        )

    straight = gaze(0.0, 0.0)
    assert gaze(20.0, 0.0)[0] > straight[0] + 0.3
    assert gaze(0.0, 15.0)[1] > straight[1] + 0.2


def test_the_stress_clip_reaches_every_extreme(mannequin_body, rest) -> None:
    settings = StressClipSettings(frames_per_move=5)
    clip = stress_clip(mannequin_body, rest, fps=30.0, settings=settings)
    moves = list(dict.fromkeys(clip.names))
    assert len(clip) == 5 * len(moves) == len(clip.names)
    assert len(moves) == 9 + min(10, mannequin_body.num_expression)
    assert clip.fps == 30.0

    def peak(name: str) -> int:
        return clip.names.index(name) + 2

    parameters = clip.parameters
    jaw = axis_angle_to_matrix(parameters.jaw_pose[peak("jaw open")]) @ axis_angle_to_matrix(rest.jaw_pose[0]).T
    assert float(matrix_to_axis_angle(jaw)[0]) == pytest.approx(math.radians(settings.jaw_degrees), abs=1e-5)
    torch.testing.assert_close(parameters.eyelids[peak("blink")], torch.ones(2))
    for index in range(min(10, mannequin_body.num_expression)):
        reached = parameters.expression[peak(f"expression {index}")]
        assert float(reached[index]) == pytest.approx(settings.expression)
    for name, value in parameters.items():
        if name in ("betas", "scale", "translation", "global_orient"):
            assert torch.equal(value, getattr(rest, name).expand_as(value))


def test_an_opened_jaw_lowers_the_chin_and_a_blink_lowers_the_upper_lid(mannequin_body, rest) -> None:
    clip = stress_clip(mannequin_body, rest, settings=StressClipSettings(frames_per_move=1))
    before = mannequin_body(rest).landmarks[0]
    opened = mannequin_body(clip.parameters[clip.names.index("jaw open")]).landmarks[0]
    closed = mannequin_body(clip.parameters[clip.names.index("blink")]).landmarks[0]
    assert opened[8, 1] < before[8, 1] - 0.01
    assert closed[[37, 38, 43, 44], 1].mean() < before[[37, 38, 43, 44], 1].mean() - 0.002


def test_the_envelope_is_symmetric_and_gentle() -> None:
    for frames in (1, 2, 7, 12):
        strength = envelope(frames)
        torch.testing.assert_close(strength, strength.flip(0))
        assert strength.max() == 1.0
        assert strength.min() > 0


def test_a_held_pose_and_bad_input(rest) -> None:
    held = rest_motion(rest, 4, 10.0)
    assert len(held) == 4
    assert torch.equal(held.parameters.jaw_pose, rest.jaw_pose.expand(4, 3))
    assert len(held[1:3]) == 2
    with pytest.raises(InvalidInput, match="0 frames"):
        rest_motion(rest, 0)
    with pytest.raises(InvalidInput, match="frames per second"):
        Motion(rest, 0.0)
    with pytest.raises(InvalidInput, match="3 names for 1 frames"):
        Motion(rest, 25.0, ("a", "b", "c"))
    with pytest.raises(InvalidInput, match="`neck_share` 2"):
        StressClipSettings(neck_share=2.0)


def test_highlights_are_the_middle_of_each_move(mannequin_body, rest) -> None:
    motion = Motion(rest.expand(6), 25.0, ("a", "a", "a", "b", "a", "a"))
    assert motion.highlights() == [1, 3, 4]
    clip = stress_clip(mannequin_body, rest)
    heights = clip.highlights()
    assert [clip.names[index] for index in heights][:2] == ["jaw open", "blink"]
    assert float(clip.parameters.eyelids[heights[1]].min()) == 1.0
    assert len(Motion(rest.expand(3), 25.0).highlights()) == 1
