"""ARKit shapes move the landmarks that they should, on the side that they should, by what their data say."""

from __future__ import annotations

import math
import runpy
import sys
from pathlib import Path

import pytest
import torch

from animportrait3d_core.animation.arkit import (
    ARKIT_NAMES,
    ARKIT_REGIONS,
    ArkitTrack,
    TrackSettings,
    arkit_map,
    arkit_motion,
    arkit_parameters,
    processed_track,
    shape_errors,
)
from animportrait3d_core.animation.arkit.face_landmarks import track_of_face_landmarks
from animportrait3d_core.animation.arkit.fit import FacePoints, brow_share, face_targets
from animportrait3d_core.animation.arkit.frames import filled, shape_name, track_weights
from animportrait3d_core.animation.arkit.names import MIRRORED_SHAPES
from animportrait3d_core.animation.arkit.targets import MIRRORED_POINTS
from animportrait3d_core.animation.clips import turn_head
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.rotations import axis_angle_to_matrix

HEAD = 15
SCRIPT = Path(__file__).parents[2] / "scripts" / "fit_arkit.py"
LEFT_LIDS, RIGHT_LIDS = ((43, 44), (47, 46)), ((37, 38), (41, 40))


@pytest.fixture(scope="module")
def points(mannequin_body: BodyModel) -> FacePoints:
    return FacePoints(mannequin_body)


@pytest.fixture(scope="module")
def moved(mannequin_body: BodyModel, points: FacePoints):
    """moved(jawOpen=1): displacements [74, 3] in the distance of the outer eye corners."""

    def displacements(**strengths: float) -> torch.Tensor:
        weights = torch.tensor([[strengths.get(name, 0.0) for name in ARKIT_NAMES]])
        return points.displacements(arkit_parameters(weights, points.rest, arkit_map(mannequin_body)))[0]

    return displacements


def test_there_are_52_shapes_in_pairs() -> None:
    assert len(set(ARKIT_NAMES)) == 52
    assert [MIRRORED_SHAPES[index] for index in MIRRORED_SHAPES] == list(range(52))
    assert ARKIT_NAMES[MIRRORED_SHAPES[ARKIT_NAMES.index("eyeLookInLeft")]] == "eyeLookInRight"
    assert {name for name, region in zip(ARKIT_NAMES, ARKIT_REGIONS) if region == "brows"} == {
        "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    }  # fmt: skip
    assert ARKIT_REGIONS.count("eyes") == 14


def test_targets_of_the_right_are_the_mirror_image_of_those_of_the_left() -> None:
    order = list(MIRRORED_POINTS)
    for name in ARKIT_NAMES:
        mirrored = ARKIT_NAMES[MIRRORED_SHAPES[ARKIT_NAMES.index(name)]]
        image = face_targets(name)[order] * torch.tensor([-1.0, 1, 1])
        torch.testing.assert_close(face_targets(mirrored), image)
    assert face_targets("mouthSmileLeft")[54, 0] > 0 and face_targets("mouthSmileLeft")[48, 0] == 0


def test_the_jaw_opens_the_mouth_by_what_was_asked(moved) -> None:
    opened = moved(jawOpen=1.0)
    gap = float(opened[62, 1] - opened[66, 1])
    assert gap == pytest.approx(0.28, abs=0.03)  # `targets.py`: 28 % of the distance of the eyes
    assert float(opened[8, 1]) < -0.1
    assert opened[[36, 39, 42, 45, 19, 24]].abs().max() < 1e-3
    half = moved(jawOpen=0.5)
    assert float(half[62, 1] - half[66, 1]) == pytest.approx(gap / 2, rel=0.1)


def test_a_smile_raises_and_widens_both_corners(moved) -> None:
    smile = moved(mouthSmileLeft=1.0, mouthSmileRight=1.0)
    for corner, side in ((54, 1), (48, -1)):
        assert float(smile[corner, 1]) == pytest.approx(0.07, abs=0.015)
        assert float(side * smile[corner, 0]) == pytest.approx(0.07, abs=0.015)
    frown = moved(mouthFrownLeft=1.0, mouthFrownRight=1.0)
    assert max(float(frown[54, 1]), float(frown[48, 1])) < -0.05


def test_a_smile_of_one_side_is_larger_there(moved) -> None:
    """The mannequin's smile has two sides: one alone is made by shifting the mouth, which docs/animation.md says."""
    left = moved(mouthSmileLeft=1.0)
    assert float(left[54].norm()) > 1.5 * float(left[48].norm())
    right = moved(mouthSmileRight=1.0)
    torch.testing.assert_close(left[54], right[48] * torch.tensor([-1.0, 1, 1]), atol=4e-3, rtol=0)


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_blink_closes_the_lids_of_its_side_alone(moved, points: FacePoints, side: str) -> None:
    blink = moved(**{f"eyeBlink{side}": 1.0})
    own, other = (LEFT_LIDS, RIGHT_LIDS) if side == "Left" else (RIGHT_LIDS, LEFT_LIDS)
    place = points.at_rest / points.unit
    for upper, lower in zip(*own):
        opening = float(place[upper, 1] - place[lower, 1])
        assert float(blink[upper, 1] - blink[lower, 1]) == pytest.approx(-opening, abs=0.12 * opening)
    assert blink[[*other[0], *other[1]]].abs().max() == 0
    wide = moved(**{f"eyeWide{side}": 1.0})
    assert all(float(wide[upper, 1]) > 0.01 for upper in own[0])


@pytest.mark.parametrize(
    ("shape", "pupil", "axis", "sign"),
    [
        ("eyeLookOutLeft", 68, 0, 1), ("eyeLookInLeft", 68, 0, -1), ("eyeLookOutRight", 69, 0, -1),
        ("eyeLookInRight", 69, 0, 1), ("eyeLookUpLeft", 68, 1, 1), ("eyeLookDownRight", 69, 1, -1),
    ],
)  # fmt: skip
def test_gaze_turns_the_pupil_of_its_eye(moved, points, shape: str, pupil: int, axis: int, sign: int) -> None:
    look = moved(**{shape: 1.0})
    radius = float((points.at_rest[68] - points.eye_centers["left"]).norm()) / points.unit
    degrees = {"O": 28, "I": 28, "U": 20, "D": 24}[shape.removeprefix("eyeLook")[0]]
    assert float(look[pupil, axis]) == pytest.approx(sign * radius * math.sin(math.radians(degrees)), rel=0.02)
    assert look[137 - pupil].abs().max() < 1e-6


def test_brows_go_up_and_down(moved) -> None:
    up = moved(browInnerUp=1.0)
    assert min(float(up[21, 1]), float(up[22, 1])) > 0.03
    outer = moved(browOuterUpLeft=1.0, browOuterUpRight=1.0)
    assert min(float(outer[19, 1]), float(outer[24, 1])) > 0.04
    down = moved(browDownLeft=1.0, browDownRight=1.0)
    assert max(float(down[21, 1]), float(down[22, 1])) < -0.03
    assert up[48:68].abs().max() < 5e-3


def test_shapes_that_only_turn_eyes_touch_nothing_else(moved) -> None:
    assert moved(eyeLookUpLeft=1.0, eyeBlinkRight=1.0)[48:68].abs().max() == 0
    assert moved(tongueOut=1.0).abs().max() == 0


def test_the_errors_say_what_the_body_cannot_make(mannequin_body: BodyModel) -> None:
    found = {error.name: error for error in shape_errors(mannequin_body)}
    assert found["eyeLookOutLeft"].error < 0.01 and found["eyeBlinkLeft"].reached == pytest.approx(1, abs=0.05)
    assert found["jawOpen"].reached > 0.85 and found["mouthPucker"].reached > 0.7
    assert found["browDownLeft"].wrong_side == pytest.approx(1, abs=0.02)  # one coefficient for both brows
    assert found["tongueOut"].error == 1.0 and found["mouthRollLower"].error > 0.8
    both = [found[f"mouthSmile{side}"].wrong_side for side in ("Left", "Right")]
    assert all(share is not None and 0.3 < share < 0.7 for share in both)


def test_the_table_of_the_docs_is_what_the_script_fits_today(monkeypatch, capsys) -> None:
    """Seconds of work: the page is not to tell of another body or another fit than those that are shipped."""
    monkeypatch.setattr(sys, "argv", ["fit_arkit.py", "--check"])
    assert (runpy.run_path(str(SCRIPT))["main"](), capsys.readouterr().err) == (0, "")


def test_the_fit_is_the_minimum(mannequin_body: BodyModel, points: FacePoints) -> None:
    """Any other expression is farther from the target: central differences of the regression's own objective."""
    from animportrait3d_core.animation.arkit.fit import RIDGE, point_weights

    row = ARKIT_NAMES.index("mouthPucker")
    fitted = arkit_map(mannequin_body).expression[row]

    def objective(expression: torch.Tensor) -> float:
        poses = points.rest.replace(
            expression=expression[None], jaw_pose=torch.tensor([[*arkit_map(mannequin_body).jaw[row].tolist(), 0.0]])
        )
        difference = (points.displacements(poses)[0] - face_targets("mouthPucker")) * point_weights()
        return float((difference**2).sum()) + RIDGE * float((expression**2).sum())

    best = objective(fitted)
    for index in range(len(fitted)):
        for step in (-0.1, 0.1):
            assert objective(fitted + step * torch.eye(len(fitted))[index]) > best


def test_brows_are_told_from_the_mouth(mannequin_body: BodyModel) -> None:
    from animportrait3d_core.embedded.mannequin.expressions import EXPRESSION_NAMES

    share = brow_share(mannequin_body)
    wanted = torch.diag(torch.tensor([float(name.startswith("brow")) for name in EXPRESSION_NAMES]))
    torch.testing.assert_close(share, wanted, atol=0.02, rtol=0)


def test_poses_start_from_the_rest_pose(mannequin_body: BodyModel, rest) -> None:
    half = rest.replace(eyelids=torch.tensor([[0.2, 0.4]]), expression=torch.full((1, 10), 0.3))
    arkit = arkit_map(mannequin_body)
    poses = arkit_parameters(torch.zeros(3, 52), half, arkit)
    for name, value in poses.items():
        torch.testing.assert_close(value, getattr(half, name).expand_as(value), atol=1e-6, rtol=0)
    closed = torch.zeros(1, 52)
    closed[0, ARKIT_NAMES.index("eyeBlinkLeft")] = 1.0
    torch.testing.assert_close(arkit_parameters(closed, half, arkit).eyelids, torch.tensor([[1.0, 0.4]]))
    with pytest.raises(ShapeMismatch, match=r"\[1, 51\]"):
        arkit_parameters(torch.zeros(1, 51), half, arkit)
    with pytest.raises(ShapeMismatch, match="4 expression coefficients"):
        arkit_parameters(torch.zeros(1, 52), rest.replace(expression=torch.zeros(1, 4)), arkit)


def test_the_head_turns_as_recorded(mannequin_body: BodyModel, rest) -> None:
    head = torch.tensor([[0.0, math.radians(30), 0.0]])
    motion = arkit_motion(ArkitTrack(torch.zeros(1, 52), 30.0, head), rest, arkit_map(mannequin_body))
    wanted = mannequin_body(turn_head(rest, 30.0)).joint_transforms[0, HEAD]
    torch.testing.assert_close(mannequin_body(motion.parameters).joint_transforms[0, HEAD], wanted, atol=1e-5, rtol=0)


AS_IT_IS = TrackSettings(dead_zone=0.0, smoothing=1)


def test_a_track_is_cleaned_as_asked() -> None:
    weights = torch.rand(40, 52, generator=torch.Generator().manual_seed(0))
    track = ArkitTrack(weights, 30.0, 0.1 * weights[:, :3])
    same = processed_track(track, AS_IT_IS)
    assert torch.equal(same.weights, weights) and torch.equal(same.head, track.head)
    strengths = processed_track(track, TrackSettings("none", 0.0, 1, mouth=0.5, eyes=2.0, brows=3.0, head=0.0))
    factors = {"mouth": 0.5, "eyes": 2.0, "brows": 3.0}
    for index, region in enumerate(ARKIT_REGIONS):
        torch.testing.assert_close(strengths.weights[:, index], factors[region] * weights[:, index])
    assert strengths.head.abs().max() == 0
    quiet = processed_track(ArkitTrack(torch.tensor([[0.02] * 26 + [1.0] * 26]), 30.0), TrackSettings(smoothing=1))
    torch.testing.assert_close(quiet.weights, torch.tensor([[0.0] * 26 + [1.0] * 26]))
    first = processed_track(track, TrackSettings("first frame", 0.0, 1))
    assert first.weights[0].abs().max() == 0 and first.head[0].abs().max() < 1e-6
    median = processed_track(track, TrackSettings("median", 0.0, 1))
    assert median.weights.median(dim=0).values.abs().max() < 1e-6


def test_a_mirrored_track_swaps_sides_and_turns() -> None:
    weights = torch.zeros(1, 52)
    weights[0, ARKIT_NAMES.index("eyeBlinkLeft")] = 0.7
    done = processed_track(ArkitTrack(weights, 30.0, torch.tensor([[0.1, 0.2, 0.3]])), TrackSettings(
        dead_zone=0.0, smoothing=1, mirrored=True))  # fmt: skip
    assert float(done.weights[0, ARKIT_NAMES.index("eyeBlinkRight")]) == pytest.approx(0.7)
    torch.testing.assert_close(done.head, torch.tensor([[0.1, -0.2, -0.3]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"baseline": "last"}, "baseline 'last'"), ({"dead_zone": 1.0}, "dead_zone"), ({"smoothing": 4}, "odd")],
)
def test_track_settings_that_cannot_work_are_refused(settings, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TrackSettings(**settings)


def test_names_are_known_however_they_are_written() -> None:
    for text in ("eyeBlinkLeft", "EyeBlinkLeft", "eye_blink_left", "eyeBlink_L"):
        assert shape_name(text) == "eyeBlinkLeft"
    assert shape_name("_neutral") is None and shape_name("HeadYaw") is None


def test_frames_without_a_face_lie_between_their_neighbours() -> None:
    frames = [None, {"jawOpen": 0.2}, {}, None, {"jawOpen": 0.8}, None]
    weights, notes = track_weights("here", frames)
    found = weights[:, ARKIT_NAMES.index("jawOpen")]
    torch.testing.assert_close(found, torch.tensor([0.2, 0.2, 0.4, 0.6, 0.8, 0.8]))
    assert "4 of 6 frames have no face" in notes[0] and "51 of 52 shapes" in notes[1]
    line = torch.arange(9.0)[:, None]
    torch.testing.assert_close(filled(line.clone(), [0, 4, 8]), line)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([None, {}], "none of the 2 frames"),
        ([{"smile": 1}], "none of the names"),
        ([{"jawOpen": float("nan")}], "frame 0: 'jawOpen' is nan"),
        ([{"jawOpen": "wide"}], "'wide', expected a number"),
        ([{"jawOpen": 0.1}, {"jawOpen": 55}], "frame 1: 'jawOpen' is 55"),
    ],
)
def test_frames_that_cannot_be_read_are_refused(frames, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        track_weights("here", frames)


def face(x: float = 0.0, turn: float = 0.0, **blendshapes: float) -> dict:
    matrix = torch.eye(4)
    matrix[:3, :3] = 7.5 * axis_angle_to_matrix(torch.tensor([0.0, turn, 0.0]))
    return {
        "bbox_xyxy": torch.tensor([x, 0.0, x + 10, 10.0]).numpy(), "score": 0.9,
        "blendshapes": {"_neutral": 0.5, **blendshapes}, "transformation_matrix": matrix.numpy(),
    }  # fmt: skip


def test_the_hosts_faces_become_a_track_of_one_person() -> None:
    frames = [
        [face(0, 0.1, jawOpen=0.1), face(100, 0.0, jawOpen=0.9)],
        [face(98, 0.0, jawOpen=0.8), face(3, 0.2, jawOpen=0.2)],  # the detector's order changes
        [],
        [face(5, 0.4, jawOpen=0.4)],
    ]
    track = track_of_face_landmarks({"frames": frames, "image_size": (64, 64)}, 24.0)
    torch.testing.assert_close(track.weights[:, ARKIT_NAMES.index("jawOpen")], torch.tensor([0.1, 0.2, 0.3, 0.4]))
    torch.testing.assert_close(track.head[:, 1], torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=1e-5, rtol=0)
    assert track.fps == 24.0 and "1 of 4 frames have no face" in track.notes[0]
    other = track_of_face_landmarks({"frames": frames[:2]}, 24.0, face=1)
    torch.testing.assert_close(other.weights[:, ARKIT_NAMES.index("jawOpen")], torch.tensor([0.9, 0.8]))


def test_somebody_else_is_not_taken_for_a_person_who_is_not_seen() -> None:
    mine, other = face(0, 0.0, jawOpen=0.2), face(100, 0.0, jawOpen=0.9)
    frames = [[mine, other], [other], [face(12, 0.0, jawOpen=0.2), other]]
    jaw = ARKIT_NAMES.index("jawOpen")
    assert track_of_face_landmarks({"frames": frames}, 24.0).weights[:, jaw].tolist() == pytest.approx([0.2] * 3)
    # Nobody else is in the film: it was cut.
    cut = track_of_face_landmarks({"frames": [[mine], [other]]}, 24.0)
    assert cut.weights[:, jaw].tolist() == pytest.approx([0.2, 0.9])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "NoneType is no FACE_LANDMARKS"),
        ({"frames": 3}, "is no FACE_LANDMARKS"),
        ({"frames": []}, "no face 0 in 0 frames"),
        ({"frames": [[], []]}, "no face 0 in 2 frames"),
        ({"frames": [[{"blendshapes": {"jawOpen": 0.1}, "transformation_matrix": [1.0]}]]}, "of 1 numbers"),
    ],
)
def test_values_that_are_no_face_landmarks_are_refused(value, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        track_of_face_landmarks(value, 25.0)
