"""The node that shows the page: its picture and pose need no browser, its page is one per avatar."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.animation import stress_clip
from animportrait3d_core.animation.viewer import ViewerCamera, ViewerPose
from animportrait3d_core.avatar import pose_avatar
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export import read_avatar_page
from animportrait3d_core.render import render_gaussians

NODE = "AP3D_PreviewAvatar"
POSE, CAMERA = '{"jaw": 18, "turn": -25, "expression": [1.5]}', '{"yaw": 35, "elevation": 10, "radius": 2.2}'


def test_picture_and_motion_are_the_chosen_pose_and_camera(make_avatar, run_node) -> None:
    avatar = make_avatar(800)
    shown = run_node(NODE, avatar=avatar, pose=POSE, camera=CAMERA, width=96, height=64, background="grey")
    chosen = ViewerPose.read(POSE).motion(avatar.parameters, None)[0]
    assert len(shown.motion) == 1
    assert all(torch.equal(getattr(shown.motion.parameters, name), value) for name, value in chosen.parameters.items())
    cameras = ViewerCamera.read(CAMERA).cameras(96, 64)
    drawn = render_gaussians(pose_avatar(avatar, chosen.parameters), cameras, background=torch.full((3,), 0.5))
    assert shown.image.shape == (1, 64, 96, 3)
    torch.testing.assert_close(shown.image, drawn.color.clamp(0, 1))
    for other in ({"pose": "{}"}, {"camera": "{}"}, {"background": "black"}):
        again = run_node(NODE, **{"avatar": avatar, "pose": POSE, "camera": CAMERA, "width": 96, "height": 64, **other})
        assert float((again.image - shown.image).abs().max()) > 0.1, other


def test_one_avatar_has_one_page(make_avatar, run_node, run_context) -> None:
    avatar = make_avatar(300)
    clip = stress_clip(avatar.body, avatar.parameters)[:20]

    def page(**inputs):
        (entry,) = run_node(NODE, **{"avatar": avatar, "width": 64, "height": 64, **inputs}).ui["ap3d_page"]
        assert (entry["type"], entry["subfolder"]) == ("temp", "")
        return run_context.temp_directory / entry["filename"]

    first = page()
    written = first.stat().st_mtime_ns
    assert page(pose=POSE, camera=CAMERA, width=96) == first and first.stat().st_mtime_ns == written
    header, arrays = read_avatar_page(first)
    assert header["splats"] == 300 and header["clips"] == [] and "arkit" not in arrays
    assert "ap3d-node" in first.read_text(encoding="utf-8")
    small, moving = page(budget=100), page(motion=clip)
    assert len({first, small, moving, page(avatar=make_avatar(300, seed=1))}) == 4
    assert read_avatar_page(small)[0]["splats"] == 100
    assert [entry["frames"] for entry in read_avatar_page(moving)[0]["clips"]] == [20]


def test_a_frame_that_is_not_there_is_told_on_the_node(make_avatar, run_node) -> None:
    shown = run_node(NODE, avatar=make_avatar(100), pose='{"frame": 3}', width=64, height=64)
    assert "no motion is connected" in shown.ui["text"][0]


def test_a_licensed_body_is_drawn_but_its_page_waits_for_the_switch(make_avatar, run_node) -> None:
    avatar = make_avatar(100)
    assets = dataclasses.replace(avatar.body.assets, redistributable=False)
    avatar = dataclasses.replace(avatar, body=type(avatar.body)(avatar.body._tensors, assets))
    shown = run_node(NODE, avatar=avatar, width=64, height=64)
    assert "ap3d_page" not in shown.ui and shown.image.shape == (1, 64, 64, 3)
    assert "is licensed" in shown.ui["text"][0] and "`include_licensed_body`" in shown.ui["text"][0]
    asked = run_node(NODE, avatar=avatar, width=64, height=64, include_licensed_body=True)
    assert "ap3d_page" in asked.ui and "text" not in asked.ui


@pytest.mark.parametrize("inputs", [{"pose": "{"}, {"camera": '{"yaw": "left"}'}])
def test_what_is_no_choice_is_refused(make_avatar, run_node, inputs) -> None:
    with pytest.raises(InvalidInput, match="^Viewer"):
        run_node(NODE, avatar=make_avatar(50), **inputs)
