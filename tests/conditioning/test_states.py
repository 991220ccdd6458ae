"""Random states: the numbers that the shipped data sets were drawn with, ranges, and recorded poses."""

from __future__ import annotations

import numpy as np
import torch

from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.conditioning import StateRanges, neutral_state, sample_eyes, sample_state, state_parameters

GOLDEN = (  # sums of expression, jaw, gaze, lids, neck and head over twenty states of bust, face, eyes and mouth
    (
        14.861605962691053,
        2.451914606439033,
        1.981763830724953,
        14.868334176153233,
        -0.5790261081607178,
        0.021457025131749477,
    ),
    (
        15.740463861327456,
        1.9841102586723065,
        1.2600893025619924,
        18.41145923479447,
        0.2689029508157428,
        0.006827517036697706,
    ),
    (
        9.305746703661477,
        1.4936153494569984,
        -1.93063218011828,
        14.524206634186877,
        -0.11692017109471003,
        -0.48659005412851963,
    ),
    (
        13.275508365048449,
        3.4378004526948858,
        -2.5983605359251047,
        15.089588001485684,
        0.11184166839975361,
        -0.0517982301767503,
    ),
)


def test_a_seed_gives_the_states_that_data_sets_were_drawn_with():
    """NumPy's streams do not change; whoever reorders a draw changes every data set."""
    generator = np.random.default_rng(11)
    for region, expected in zip(("bust", "face", "eyes", "mouth"), GOLDEN):
        states = [sample_state(region, generator) for _ in range(20)]
        sums = [sum(float(np.sum(getattr(state, name))) for state in states) for name in vars(states[0])]
        assert np.allclose(sums, expected, rtol=0, atol=1e-9), region


def test_ranges_of_another_body_are_kept():
    ranges = StateRanges(expressions=100, gaze_pitch=0.1, gaze_yaw=0.2, largest_jaw=0.05, widest_lids=-1.0)
    generator = np.random.default_rng(0)
    states = [sample_state("face", generator, ranges) for _ in range(400)]
    gaze = np.abs([state.gaze for state in states]).max(0)
    assert 0.09 < gaze[0] <= 0.1 and 0.19 < gaze[1] <= 0.2 and gaze[2] == 0
    assert 0.045 < max(state.jaw[0] for state in states) <= 0.05
    lids = np.array([state.eyelids for state in states])
    assert -1.0 <= lids.min() < -0.9 and lids.max() == 1.0
    assert states[0].expression.shape == (100,)
    portrait = BodyParameters.neutral(1, 300, 100)
    assert state_parameters(portrait, states[0]).expression.shape == (1, 100)
    assert state_parameters(portrait, neutral_state(ranges)).expression.abs().max() == 0


def test_states_add_head_turns_to_the_portrait():
    portrait = BodyParameters.neutral().to(dtype=torch.float64)
    portrait = portrait.replace(head_pose=torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64))
    state = sample_state("bust", np.random.default_rng(2))
    parameters = state_parameters(portrait, state)
    assert parameters.head_pose.dtype == torch.float64
    turn = (parameters.head_pose - portrait.head_pose)[0]
    assert np.allclose(turn, state.head, atol=1e-7) and float(turn.abs().max()) > 0.01
    assert torch.equal(parameters.left_eye_pose, parameters.right_eye_pose)


def test_recorded_poses_get_new_gaze_and_lids_alone():
    poses = BodyParameters.neutral(200).replace(jaw_pose=torch.linspace(0, 0.4, 600).view(200, 3))
    drawn = sample_eyes(poses, np.random.default_rng(1))
    for name, value in drawn.items():
        changed = name in ("left_eye_pose", "right_eye_pose", "eyelids")
        assert torch.equal(value, getattr(poses, name)) != changed, name
    assert torch.equal(drawn.left_eye_pose, drawn.right_eye_pose)
    closed = float((drawn.eyelids[:, 0] > 0.5).float().mean())
    assert 0.2 < closed < 0.4 and len(drawn.eyelids[:, 0].unique()) > 150
    assert torch.equal(drawn.eyelids, sample_eyes(poses, np.random.default_rng(1)).eyelids)
