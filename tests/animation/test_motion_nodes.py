"""The nodes that make and edit motions, run as a host runs them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import Motion
from animportrait3d_core.errors import InvalidInput
from tests.animation.test_arkit import face

LID, MOUTH = 37, (62, 66)


@pytest.fixture()
def landmarks(mannequin_body):
    return lambda motion, frame=-1: mannequin_body(motion.parameters[frame % len(motion)]).landmarks[0]


def test_sliders_make_the_face_they_say(run_node, mannequin_body, landmarks) -> None:
    def posed(**sliders):
        return run_node("AP3D_PoseSliders", avatar=mannequin_body, **{"preset": "rest", **sliders}).motion

    rest = landmarks(posed())
    opened = landmarks(posed(mouth_open=1.0))
    assert float((opened[MOUTH[0]] - opened[MOUTH[1]])[1]) > 0.05
    assert float(landmarks(posed(blink_right=1.0))[LID, 1]) < float(rest[LID, 1]) - 0.01
    assert float(landmarks(posed(look_left=1.0))[68, 0]) > float(rest[68, 0]) + 0.01
    assert float(landmarks(posed(turn_degrees=20.0))[30, 0]) > float(rest[30, 0]) + 0.03
    assert float(landmarks(posed(nod_degrees=20.0))[30, 1]) > float(rest[30, 1]) + 0.01
    # Tilted to the left shoulder, the left eye is lower than the right one.
    tilted = landmarks(posed(tilt_degrees=20.0))
    assert float(tilted[45, 1]) < float(tilted[36, 1]) - 0.03
    assert float(landmarks(posed(preset="smile"))[54, 1]) > float(rest[54, 1]) + 0.005
    assert torch.equal(landmarks(posed(shapes="jawOpen 1")), opened)
    with pytest.raises(InvalidInput, match="'smile 1' is no ARKit shape"):
        posed(shapes="jawOpen 1, smile 1")


def test_a_face_is_reached_and_left_again(run_node, mannequin_body, landmarks) -> None:
    done = run_node("AP3D_PoseSliders", avatar=mannequin_body, preset="surprised", move="there and back", frames=9)
    assert done.frames == 9 and len(done.motion) == 9
    gaps = [
        float((landmarks(done.motion, frame)[MOUTH[0]] - landmarks(done.motion, frame)[MOUTH[1]])[1])
        for frame in range(9)
    ]
    assert max(gaps) == gaps[4] and gaps[0] < 0.3 * gaps[4] and gaps[0] == pytest.approx(gaps[8], abs=1e-5)


def test_a_file_is_read_and_its_notes_are_shown(run_node, run_context, mannequin_body) -> None:
    run_context.input_directory.mkdir(parents=True)
    np.save(run_context.input_directory / "exp.npy", np.zeros((4, 100), np.float32))
    np.save(run_context.input_directory / "pose.npy", np.full((4, 15), 0.1, np.float32))
    done = run_node("AP3D_LoadMotionFile", avatar=mannequin_body, file="exp.npy")
    assert done.frames == 4 and "of 'smplx'" in done.notes and done.ui["text"] == [done.notes]
    torch.testing.assert_close(done.motion.parameters.jaw_pose, torch.full((4, 3), 0.1))
    saved = run_node("AP3D_SaveMotion", avatar=mannequin_body, motion=done.motion, filename="take")
    again = run_node("AP3D_LoadMotionFile", avatar=mannequin_body, file=saved.path).motion
    assert torch.equal(again.parameters.jaw_pose, done.motion.parameters.jaw_pose)


def test_faces_of_a_video_drive_the_body(run_node, mannequin_body, landmarks) -> None:
    frames = [[face(0, 0.0, jawOpen=strength)] for strength in (0.0, 1.0)]
    plain = {"smoothing": 1, "dead_zone": 0.0}
    done = run_node("AP3D_MotionFromFaceLandmarks", avatar=mannequin_body, face_landmarks={"frames": frames}, **plain)
    closed, opened = landmarks(done.motion, 0), landmarks(done.motion, 1)
    assert float(opened[66, 1] - closed[66, 1]) < -0.05
    half = run_node(
        "AP3D_MotionFromFaceLandmarks", avatar=mannequin_body, face_landmarks={"frames": frames}, mouth=0.5, **plain
    )
    assert float(landmarks(half.motion)[66, 1] - closed[66, 1]) > 0.6 * float(opened[66, 1] - closed[66, 1])


def test_motions_are_edited_and_joined(run_node, mannequin_body) -> None:
    smile = run_node("AP3D_PoseSliders", avatar=mannequin_body, preset="smile", frames=20).motion
    rest = run_node("AP3D_PoseSliders", avatar=mannequin_body, preset="rest", frames=20).motion
    same = run_node("AP3D_EditMotion", avatar=mannequin_body, motion=smile).motion
    assert isinstance(same, Motion) and torch.equal(same.parameters.expression, smile.parameters.expression)
    fast = run_node("AP3D_EditMotion", avatar=mannequin_body, motion=smile, fps=50.0, blinks_per_minute=60.0)
    assert fast.motion.fps == 50.0 and fast.frames == 39
    joined = run_node("AP3D_JoinMotions", motion=rest, motion_2=smile, motion_4=rest, crossfade=5)
    assert joined.frames == 20 + 15 + 15
    loop = run_node("AP3D_JoinMotions", motion=rest, motion_2=smile, crossfade=5, loop=True, repeat=2)
    assert loop.frames == 2 * (35 - 5)
