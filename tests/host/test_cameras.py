"""Cameras of the host's 3D nodes: there and back, and as its own renderer takes them."""

from __future__ import annotations

import math

import pytest
import torch

from animportrait3d_core.animation.viewer import ViewerCamera
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.errors import InvalidInput

TARGET = (0.1, 0.3, -0.2)
SEEN = ViewerCamera(yaw=40, elevation=-15, radius=2, fov=35, target=TARGET)


@pytest.fixture(scope="session")
def host(pack):
    import importlib

    return importlib.import_module(f"{pack.__name__}.nodes.host")


@pytest.mark.parametrize("size", [(96, 64), (64, 64), (60, 64)])
def test_a_camera_goes_there_and_back(host, size) -> None:
    cameras = SEEN.cameras(*size)
    told = host.host_cameras(cameras, TARGET)
    assert told["target"] == {"x": 0.1, "y": 0.3, "z": -0.2} and told["cameraType"] == "perspective"
    back = host.cameras_of_host("Test", told, *size)
    torch.testing.assert_close(back.world_to_camera, cameras.world_to_camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.K, cameras.K, atol=1e-3, rtol=0)


def test_several_cameras_are_a_list(host) -> None:
    cameras = orbit_cameras([0, 90, 200], [0, 20, -30], 64)
    told = host.host_cameras(cameras, (0, 0, 0))
    assert isinstance(told, list) and len(told) == 3
    back = host.cameras_of_host("Test", told, 64, 64)
    torch.testing.assert_close(back.world_to_camera, cameras.world_to_camera, atol=1e-5, rtol=0)


def test_a_camera_looks_along_its_own_minus_z_with_y_up(host) -> None:
    """By hand: at (0, 0, 3), unturned; the middle is what lies before it, up is up, the subject's left is right."""
    camera = {
        "position": {"x": 0, "y": 0, "z": 3},
        "quaternion": {"x": 0, "y": 0, "z": 0, "w": 2},
        "fov": 90,
        "zoom": 2,
    }
    cameras = host.cameras_of_host("Test", camera, 100, 80)
    pixels, depth = project(cameras, torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0, 0.3, 0]]))
    torch.testing.assert_close(depth[0], torch.full((3,), 3.0))
    step = 0.3 / 3 * 2 * 40  # zoom 2, 40 pixels from the middle to the edge at 45 degrees
    torch.testing.assert_close(pixels[0], torch.tensor([[50.0, 40], [50 + step, 40], [50, 40 - step]]))


def test_without_a_rotation_it_looks_at_its_target(host) -> None:
    cameras = SEEN.cameras(64, 64)
    told = host.host_cameras(cameras, TARGET)
    back = host.cameras_of_host("Test", {name: told[name] for name in ("position", "target")}, 64, 64)
    torch.testing.assert_close(back.world_to_camera, cameras.world_to_camera, atol=1e-5, rtol=0)
    assert float(back.K[0, 1, 1]) == pytest.approx(32 / math.tan(math.radians(35 / 2)))


PLACE = {"x": 0, "y": 0, "z": 3}


@pytest.mark.parametrize(
    ("camera", "told"),
    [
        ([], "the list of cameras is empty"),
        (["front"], "got a str, expected a camera"),
        ({}, "`position` of the camera is None"),
        ({"position": {"x": 0, "y": 0}}, "`position.z` of the camera is None"),
        ({"position": {**PLACE, "x": math.nan}}, "`position.x` of the camera is nan"),
        ({"position": PLACE, "quaternion": {"x": 0, "y": 0, "z": 0, "w": 0}}, "`quaternion` of the camera is zero"),
        ({"position": PLACE, "target": {**PLACE, "z": 0}, "cameraType": "orthographic"}, "is orthographic"),
        ({"position": PLACE, "target": {**PLACE, "z": 0}, "fov": 200}, "`fov` of the camera is 200, expected 1 to 170"),
    ],
)
def test_what_is_no_camera_is_told(host, camera, told) -> None:
    with pytest.raises(InvalidInput, match=f"^Test: .*{told}"):
        host.cameras_of_host("Test", camera, 64, 64)


def test_the_preview_is_seen_by_the_hosts_cameras(make_avatar, run_node) -> None:
    node, avatar = "AP3D_PreviewAvatar", make_avatar(400)
    camera = '{"yaw": 35, "elevation": 10, "radius": 2.2}'
    own = run_node(node, avatar=avatar, camera=camera, width=64, height=64)
    assert own.camera_info["position"]["x"] > 1
    again = run_node(node, avatar=avatar, camera_info=own.camera_info, width=64, height=64)
    torch.testing.assert_close(again.image, own.image, atol=2e-3, rtol=0)
    listed = [own.camera_info, run_node(node, avatar=avatar, width=64, height=64).camera_info]
    both = run_node(node, avatar=avatar, camera_info=listed, width=64, height=64)
    assert both.image.shape == (2, 64, 64, 3) and both.camera_info == listed and len(both.motion) == 1
    torch.testing.assert_close(both.image[:1], own.image, atol=2e-3, rtol=0)
