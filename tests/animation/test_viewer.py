"""What the page's user chose, as JSON: to a motion of one frame, to a camera, or to a clear refusal."""

from __future__ import annotations

import json
import math

import pytest
import torch

from animportrait3d_core.animation import stress_clip
from animportrait3d_core.animation.viewer import ViewerCamera, ViewerPose
from animportrait3d_core.cameras import project
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.head_frame import FOV_DEGREES, LOOK_AT, ORBIT_RADIUS
from animportrait3d_core.rotations import axis_angle_to_matrix

CHOICE = {
    "jaw": 20, "gazeLeft": 10, "gazeUp": -5, "lidLeft": 0.25, "lidRight": -0.5, "turn": 30, "nod": 10, "tilt": -15,
    "expression": [0, 1.5],
}  # fmt: skip


def turned(vector: torch.Tensor, by: list[float]) -> torch.Tensor:
    """Matrix [1, 3, 3] of the rotation by an axis-angle vector in degrees after another rotation."""
    return axis_angle_to_matrix(torch.deg2rad(torch.tensor([by]))) @ axis_angle_to_matrix(vector)


def test_every_slider_does_what_its_name_says(rest) -> None:
    rest = rest.replace(eyelids=torch.tensor([[0.2, 0.1]]))
    motion, notes = ViewerPose.read(json.dumps(CHOICE)).motion(rest, None)
    pose = motion.parameters
    assert (len(motion), notes) == (1, [])
    torch.testing.assert_close(axis_angle_to_matrix(pose.jaw_pose), turned(rest.jaw_pose, [20, 0, 0]))
    for eye in ("left_eye_pose", "right_eye_pose"):
        torch.testing.assert_close(axis_angle_to_matrix(getattr(pose, eye)), turned(getattr(rest, eye), [5, 10, 0]))
    torch.testing.assert_close(pose.eyelids, torch.tensor([[0.2 + 0.25 * 0.8, 0.1 - 0.5]]))
    before, after = (
        axis_angle_to_matrix(each.neck_pose) @ axis_angle_to_matrix(each.head_pose) for each in (rest, pose)
    )
    by = axis_angle_to_matrix(torch.deg2rad(torch.tensor([[-10.0, 30.0, 15.0]])))
    torch.testing.assert_close(after, by @ before, atol=1e-5, rtol=0)
    added = pose.expression - rest.expression
    torch.testing.assert_close(added, torch.tensor([[0, 1.5] + [0.0] * (added.shape[1] - 2)]))
    for name in ("betas", "global_orient", "translation", "scale"):
        assert torch.equal(getattr(pose, name), getattr(rest, name))


@pytest.mark.parametrize("text", ["{}", "", "  "])
def test_nothing_chosen_is_rest_and_the_front(rest, text: str) -> None:
    pose = ViewerPose.read(text).motion(rest, None)[0].parameters
    for name, value in rest.items():
        torch.testing.assert_close(getattr(pose, name), value, atol=1e-6, rtol=0)
    cameras = ViewerCamera.read(text).cameras(64, 64)
    eye = torch.tensor(LOOK_AT) + torch.tensor([0, 0, ORBIT_RADIUS])
    torch.testing.assert_close(cameras.camera_centers[0], eye)
    assert float(cameras.K[0, 1, 1]) == pytest.approx(32 / math.tan(math.radians(FOV_DEGREES / 2)))


def test_a_frame_of_the_motion_is_where_sliders_start(mannequin_body, rest) -> None:
    clip = stress_clip(mannequin_body, rest, fps=30)
    chosen, notes = ViewerPose.read('{"frame": 5}').motion(rest, clip)
    torch.testing.assert_close(chosen.parameters.jaw_pose, clip.parameters.jaw_pose[5:6], atol=1e-5, rtol=0)
    assert (chosen.fps, notes) == (30, [])
    late, notes = ViewerPose.read('{"frame": 5000}').motion(rest, clip)
    torch.testing.assert_close(late.parameters.head_pose, clip.parameters.head_pose[-1:], atol=1e-5, rtol=0)
    assert notes == [f"frame 5000 was chosen, the motion ends at {len(clip) - 1}: that is used"]
    alone, notes = ViewerPose.read('{"frame": 5}').motion(rest, None)
    torch.testing.assert_close(alone.parameters.jaw_pose, rest.jaw_pose, atol=1e-6, rtol=0)
    assert "no motion is connected" in notes[0]


def test_the_camera_looks_at_its_target_from_where_it_stands() -> None:
    text = '{"yaw": 30, "elevation": -20, "radius": 2, "fov": 40, "target": [0.1, 0.3, -0.2]}'
    cameras = ViewerCamera.read(text).cameras(96, 64)
    pixel, depth = project(cameras, torch.tensor([[0.1, 0.3, -0.2]]))
    torch.testing.assert_close(pixel[0, 0], torch.tensor([48.0, 32.0]), atol=1e-3, rtol=0)
    assert float(depth) == pytest.approx(2, abs=1e-5)
    flat = 2 * math.cos(math.radians(-20))
    eye = [
        0.1 + flat * math.sin(math.radians(30)),
        0.3 + 2 * math.sin(math.radians(-20)),
        -0.2 + flat * math.cos(math.radians(30)),
    ]
    torch.testing.assert_close(cameras.camera_centers[0], torch.tensor(eye))
    focal = 32 / math.tan(math.radians(20))
    assert float(cameras.K[0, 0, 0]) == pytest.approx(focal)
    narrow = ViewerCamera.read(text).cameras(32, 64)
    assert float(narrow.K[0, 0, 0]) == pytest.approx(focal * 48 / 64)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{jaw: 1}", "is no JSON"),
        ("[1]", "is no JSON object"),
        ("[" * 100000, "nested too deep"),
        ('{"jaws": 1}', "knows no `jaws`, only jaw, gazeLeft"),
        ('{"jaw": "wide"}', "`jaw` is wide, expected a number of -90 to 90"),
        ('{"jaw": true}', "`jaw` is True"),
        ('{"jaw": NaN}', "`jaw` is nan"),
        ('{"turn": 500}', "`turn` is 500, expected a number of -180 to 180"),
        ('{"expression": 3}', "`expression` is 3, expected numbers"),
        ('{"expression": [0, Infinity]}', "`expression` is .*expected numbers of at most 100"),
        ('{"frame": -1}', "`frame` is -1, expected a whole number"),
        ('{"frame": 1.5}', "`frame` is 1.5"),
    ],
)
def test_a_pose_that_is_none_is_told(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=f"^ViewerPose: .*{told}"):
        ViewerPose.read(text)


def test_a_pose_of_a_body_with_more_expressions_is_told(rest) -> None:
    own = rest.expression.shape[1]
    with pytest.raises(InvalidInput, match=f"{own + 1} expression coefficients, the body has {own}"):
        ViewerPose.read(json.dumps({"expression": [1] * (own + 1)})).motion(rest, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "is no JSON"),
        ('{"zoom": 2}', "knows no `zoom`, only yaw"),
        ('{"elevation": 90}', "`elevation` is 90, expected a number of -89 to 89"),
        ('{"radius": 0}', "`radius` is 0"),
        ('{"fov": 180}', "`fov` is 180"),
        ('{"target": [0, 1]}', "`target` has 2 numbers, expected 3"),
        ('{"target": [0, 1, null]}', "`target` is "),
    ],
)
def test_a_camera_that_is_none_is_told(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=f"^ViewerCamera: .*{told}"):
        ViewerCamera.read(text)
