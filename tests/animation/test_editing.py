"""Edits: what is asked and nothing else; the defaults change no bit."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.animation import Motion, stress_clip
from animportrait3d_core.animation.clips import StressClipSettings
from animportrait3d_core.animation.editing import EditSettings, edited
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.rotations import turned


@pytest.fixture(scope="module")
def clip(mannequin_body, rest) -> Motion:
    return stress_clip(mannequin_body, rest, settings=StressClipSettings(frames_per_move=4))


@pytest.fixture(scope="module")
def edit(mannequin_body, rest):
    def run(motion: Motion, **changes) -> Motion:
        return edited(motion, mannequin_body, rest, EditSettings(**changes))

    return run


def test_the_defaults_change_nothing(clip: Motion, edit) -> None:
    done = edit(clip)
    assert all(torch.equal(value, getattr(clip.parameters, name)) for name, value in done.parameters.items())
    assert done.names == clip.names and done.fps == clip.fps


@pytest.mark.parametrize("neutral", ["first frame", "median"])
def test_the_neutral_of_a_recording_becomes_the_avatars(edit, rest, neutral: str) -> None:
    """A person whose rest is another one, recorded at rest but for one frame."""
    moves = torch.zeros(9, 1)
    moves[4] = 0.4
    jaw = turned(torch.tensor([[0.2, 0.1, 0.0]]).expand(9, 3), moves * torch.tensor([[1.0, 0.0, 0.0]]))
    motion = Motion(rest.replace(expression=rest.expression + 0.7 + moves, jaw_pose=jaw), 25.0)
    done = edit(motion, neutral=neutral).parameters
    torch.testing.assert_close(done.expression, rest.expression + moves, atol=1e-6, rtol=0)
    torch.testing.assert_close(done.jaw_pose[[0, 8]], rest.jaw_pose.expand(2, 3), atol=1e-6, rtol=0)
    assert float(done.jaw_pose[4, 0]) == pytest.approx(0.4, abs=0.02)


def test_a_stronger_turn_is_about_the_same_axis_after_the_rest_pose(mannequin_body, rest) -> None:
    bent, turn = rest.replace(head_pose=torch.tensor([[0.5, -0.3, 0.2]])), torch.tensor([[0.0, 0.3, 0.1]])
    motion = Motion(bent.replace(head_pose=turned(bent.head_pose, turn)), 25.0)
    done = edited(motion, mannequin_body, bent, EditSettings(head=2.0)).parameters.head_pose
    torch.testing.assert_close(done, turned(bent.head_pose, 2 * turn), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("region", "held", "free"),
    [
        ("mouth", ["jaw_pose"], ["eyelids", "left_eye_pose", "head_pose"]),
        ("eyes", ["eyelids", "left_eye_pose", "right_eye_pose"], ["jaw_pose", "head_pose", "expression"]),
        ("head", ["neck_pose", "head_pose"], ["jaw_pose", "eyelids", "expression"]),
    ],
)
def test_strength_zero_holds_a_region_and_leaves_the_others(clip, edit, rest, region, held, free) -> None:
    done = edit(clip, **{region: 0.0}).parameters
    for name in held:
        wanted = getattr(rest, name).expand(len(clip), -1)
        torch.testing.assert_close(getattr(done, name), wanted, atol=1e-6, rtol=0)
    for name in free:
        assert torch.equal(getattr(done, name), getattr(clip.parameters, name))
    if region == "head":
        locked = edit(clip, lock_neck=True).parameters
        assert torch.equal(locked.head_pose, done.head_pose)


def test_brows_and_mouth_have_their_own_strength(clip: Motion, edit, rest) -> None:
    from animportrait3d_core.embedded.mannequin.expressions import EXPRESSION_NAMES

    brows = torch.tensor([name.startswith("brow") for name in EXPRESSION_NAMES])
    offsets = clip.parameters.expression - rest.expression
    doubled = edit(clip, brows=2.0).parameters.expression - rest.expression
    torch.testing.assert_close(doubled[:, brows], 2 * offsets[:, brows], atol=0.05, rtol=0)
    torch.testing.assert_close(doubled[:, ~brows], offsets[:, ~brows], atol=0.05, rtol=0)
    both = edit(clip, brows=0.5, mouth=0.5).parameters.expression - rest.expression
    torch.testing.assert_close(both, 0.5 * offsets, atol=1e-5, rtol=0)


def test_a_dead_zone_is_continuous(edit, rest) -> None:
    values = torch.tensor([0.0, 0.05, 0.1, 0.100001, 0.5])
    motion = Motion(rest.replace(expression=rest.expression + values[:, None], jaw_pose=torch.stack(
        [values, 0 * values, 0 * values], dim=1)), 25.0)  # fmt: skip
    done = edit(motion, dead_zone=0.1).parameters
    wanted = torch.tensor([0.0, 0.0, 0.0, 1e-6, 0.4])
    torch.testing.assert_close(done.expression[:, 0], rest.expression[0, 0] + wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(done.jaw_pose[:, 0], rest.jaw_pose[0, 0] + wanted, atol=1e-6, rtol=0)


def test_smoothing_leaves_an_even_turn(edit, rest) -> None:
    turn = torch.linspace(0, 0.8, 30)[:, None] * torch.tensor([[0.0, 1.0, 0.0]])
    motion = Motion(rest.replace(jaw_pose=turn), 25.0)
    done = edit(motion, smoothing=9).parameters.jaw_pose
    torch.testing.assert_close(done, turn, atol=1e-5, rtol=0)
    noisy = Motion(
        rest.replace(jaw_pose=turn + 0.02 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))), 25.0
    )
    calm = edit(noisy, smoothing=9).parameters.jaw_pose
    assert (calm - turn).norm() < 0.6 * (noisy.parameters.jaw_pose - turn).norm()


def test_blinks_close_the_lids_from_where_they_are(edit, rest) -> None:
    motion = Motion(rest.replace(eyelids=torch.full((1500, 2), 0.3)), 25.0)
    lids = edit(motion, blinks_per_minute=15.0).parameters.eyelids
    assert float(lids.min()) == pytest.approx(0.3) and float(lids.max()) == pytest.approx(1.0)
    assert torch.equal(lids, edit(motion, blinks_per_minute=15.0).parameters.eyelids)
    assert not torch.equal(lids, edit(motion, blinks_per_minute=15.0, seed=1).parameters.eyelids)


def test_edits_that_cannot_work_are_refused(clip, mannequin_body, rest, edit) -> None:
    with pytest.raises(InvalidInput, match="neutral 'mean'"):
        edit(clip, neutral="mean")
    with pytest.raises(InvalidInput, match="window of 2"):
        edit(clip, smoothing=2)
    wide = Motion(clip.parameters.replace(expression=torch.zeros(len(clip), 100)), 25.0)
    with pytest.raises(ShapeMismatch, match="100 expression coefficients, the avatar 10"):
        edited(wide, mannequin_body, rest, EditSettings())


@pytest.mark.parametrize("changes", [{"neutral": "first frame"}, {"eyes": 0.5}, {"eyes": 0.0}, {"dead_zone": 0.1}])
def test_edits_of_a_sleeping_portrait_start_from_open_eyes(mannequin_body, rest, changes) -> None:
    """A recording whose own lids never move leaves them open, as it would without edits."""
    sleeping = rest.replace(eyelids=torch.ones(1, 2))
    motion = Motion(sleeping.awake().replace(jaw_pose=torch.linspace(0.0, 0.3, 8)[:, None] * torch.eye(3)[:1]), 25.0)
    done = edited(motion, mannequin_body, sleeping, EditSettings(**changes)).parameters
    torch.testing.assert_close(done.eyelids, torch.zeros(8, 2))
