"""Along time: lines stay lines, even turns stay even, nothing jumps where motions meet."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.animation import Motion, rest_motion
from animportrait3d_core.animation.blinks import BlinkSettings, blink_curve
from animportrait3d_core.animation.smoothing import smoothed
from animportrait3d_core.animation.timing import between_rotations, joined, looped, ramp, repeated, retimed
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.rotations import axis_angle_to_matrix, turned


def moving(frames: int, fps: float = 25.0, speed: float = 1.0) -> Motion:
    """One coefficient rises evenly and the head turns evenly about a slanted axis, from a bent start."""
    steps = speed * torch.arange(frames)[:, None] / fps
    axis = torch.tensor([[0.3, 0.8, -0.2]])
    head = turned(torch.tensor([[0.4, -0.2, 0.1]]).expand(frames, 3), steps * axis)
    poses = BodyParameters.neutral(frames).replace(expression=steps * torch.ones(1, 10), head_pose=head)
    return Motion(poses, fps, tuple(f"{index}" for index in range(frames)))


@pytest.mark.parametrize("fps", [60.0, 24.0, 10.0, 25.0])
def test_retiming_keeps_a_line_and_a_turn_of_constant_speed(fps: float) -> None:
    motion = moving(26)
    done = retimed(motion, fps)
    wanted = moving(len(done), fps)
    assert done.fps == fps and len(done) == 1 + math.floor(25 / 25 * fps + 1e-6)
    torch.testing.assert_close(done.parameters.expression, wanted.parameters.expression, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        axis_angle_to_matrix(done.parameters.head_pose), axis_angle_to_matrix(wanted.parameters.head_pose), atol=1e-5,
        rtol=0,
    )  # fmt: skip


def test_twice_as_fast_is_half_as_long() -> None:
    done = retimed(moving(21), 25.0, speed=2.0)
    assert len(done) == 11 and done.names[-1] == "20"
    torch.testing.assert_close(done.parameters.expression, moving(11, speed=2.0).parameters.expression)
    assert torch.equal(retimed(moving(4), 25.0).parameters.head_pose, moving(4).parameters.head_pose)
    with pytest.raises(InvalidInput, match="speed 0"):
        retimed(moving(3), 25.0, speed=0.0)


def test_rotations_take_the_shortest_way_at_constant_speed() -> None:
    first, second = torch.tensor([[0.0, 3.0, 0.0]]), torch.tensor([[0.0, -3.0, 0.0]])
    half = between_rotations(first, second, torch.tensor([[0.5]]))
    # From 3 to -3 rad over pi, not over 0: a vector's mean would be no turn at all.
    assert float(half.norm()) == pytest.approx(math.pi, abs=1e-3)


@given(st.integers(1, 40), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_smoothing_keeps_parabolas(frames: int, half: int) -> None:
    time = torch.arange(frames, dtype=torch.float64)[:, None]
    curve = torch.cat([0.3 * time - 2, 0.02 * time**2 - time], dim=1)
    torch.testing.assert_close(smoothed(curve, 2 * half + 1), curve, atol=1e-7, rtol=0)


def test_smoothing_takes_noise_away() -> None:
    noise = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    done = smoothed(noise, 11)
    # Of the variance, a parabola over 2 m + 1 frames keeps 3 (3 m^2 + 3 m - 1) / ((2m - 1)(2m + 1)(2m + 3)).
    kept = 3 * (3 * 25 + 3 * 5 - 1) / (9 * 11 * 13)
    assert float(done[10:-10].var()) == pytest.approx(kept, rel=0.15)
    with pytest.raises(InvalidInput, match="window of 4"):
        smoothed(noise, 4)


def test_joined_motions_are_faded_into_each_other() -> None:
    low = Motion(BodyParameters.neutral(10), 25.0, ("a",) * 10)
    high = Motion(BodyParameters.neutral(8).replace(eyelids=torch.ones(8, 2)), 25.0)
    hard = joined([low, high])
    assert len(hard) == 18 and hard.names == ("a",) * 10 + ("",) * 8
    soft = joined([low, high], 4)
    assert len(soft) == 14
    lids = soft.parameters.eyelids[:, 0]
    torch.testing.assert_close(lids[6:10], ramp(4))
    assert lids[5] == 0 and lids[10] == 1 and lids.diff().max() < 0.4
    assert len(joined([low])) == 10


def test_motions_of_another_frame_rate_are_retimed() -> None:
    done = joined([rest_motion(BodyParameters.neutral(), 10, 25.0), rest_motion(BodyParameters.neutral(), 21, 50.0)])
    assert len(done) == 10 + 11 and done.fps == 25.0


def test_a_loop_does_not_jump() -> None:
    motion = moving(40)
    done = looped(motion, 10)
    assert len(done) == 30 and len(done.names) == 30
    values = done.parameters.expression[:, 0]
    step = float(motion.parameters.expression[:, 0].diff().max())
    # The frame after the last one of the loop is the first: where it was to go on, at frame 30 of the motion.
    assert abs(float(values[0] - values[-1])) < 2 * step
    assert float(values[10]) == pytest.approx(float(motion.parameters.expression[10, 0]))
    twice = repeated(done, 2)
    assert len(twice) == 60 and torch.equal(twice.parameters.expression[30:], done.parameters.expression)
    with pytest.raises(InvalidInput, match="25 frames of cross-fade in a motion of 40"):
        looped(motion, 25)


def test_motions_that_do_not_fit_are_refused() -> None:
    motion = rest_motion(BodyParameters.neutral(), 5)
    for other in (BodyParameters.neutral(1, 10, 100), BodyParameters.neutral().replace(betas=torch.ones(1, 10))):
        with pytest.raises(InvalidInput, match="motion 1 was made for another avatar"):
            joined([motion, rest_motion(other, 5)])
    with pytest.raises(InvalidInput, match="fewer than the 6"):
        joined([motion, motion], 6)


def test_blinks_close_and_open_as_often_as_asked() -> None:
    def curve(seed: int, per_minute: float = 15.0, fps: float = 25.0, seconds: int = 1200) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return blink_curve(int(seconds * fps), fps, generator, BlinkSettings(per_minute))

    closing = curve(0)
    assert float(closing.min()) == 0 and float(closing.max()) == 1
    starts = int(((closing[1:] == 1) & (closing[:-1] < 1)).sum())
    assert starts == pytest.approx(300, abs=60)  # 20 minutes; three standard deviations
    closed = torch.nonzero((closing[1:] > 0) & (closing[:-1] == 0)).squeeze(1)
    assert int(closed.diff().min()) >= int(0.6 * 25)
    assert torch.equal(closing, curve(0)) and not torch.equal(closing, curve(1))
    assert curve(0, per_minute=0.0).abs().max() == 0
    # However few frames there are, each blink is seen closed.
    slow = curve(0, fps=5.0)
    assert int((slow == 1).sum()) >= int(0.9 * starts)
    with pytest.raises(InvalidInput, match="blinks per minute"):
        BlinkSettings(per_minute=100.0)
