"""An avatar with personal offsets, one eye closed at rest: every export is the shape that `pose_avatar` gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import Motion, stress_clip
from animportrait3d_core.animation.arkit import arkit_map
from animportrait3d_core.animation.clips import StressClipSettings, open_jaw
from animportrait3d_core.avatar import RiggedAvatar, pose_avatar
from animportrait3d_core.avatar.io import load_avatar, save_avatar
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.export import (
    GlbSettings,
    read_animated_ply,
    read_avatar_glb,
    read_avatar_page,
    read_rigged_ply,
    read_splat_ply,
    write_animated_ply,
    write_avatar_glb,
    write_avatar_page,
    write_frame_plys,
    write_rigged_ply,
    write_splat_ply,
)
from animportrait3d_core.export.baking import BakeSettings, SurfacePoints, bake_colors
from animportrait3d_core.export.page_data import pose_vectors
from animportrait3d_core.gaussians import Gaussians, rgb_to_sh0
from tests.avatar_samples import sleeping_person
from tests.export.test_glb import distance

TINY = GlbSettings(bake=BakeSettings(texture_size=0, view_size=16))


@pytest.fixture(scope="module")
def saved(mannequin_body, tmp_path_factory):
    """The file of such an avatar, as all exports start from."""
    path = tmp_path_factory.mktemp("person") / "person.safetensors"
    save_avatar(sleeping_person(mannequin_body, 700), path)
    return path


@pytest.fixture(scope="module")
def avatar(saved) -> RiggedAvatar:
    return load_avatar(saved)


@pytest.fixture(scope="module")
def clip(avatar: RiggedAvatar) -> Motion:
    return stress_clip(avatar.body, avatar.parameters, settings=StressClipSettings(frames_per_move=1))


@pytest.fixture(scope="module")
def head(avatar: RiggedAvatar, clip: Motion, tmp_path_factory):
    still = Motion(open_jaw(avatar.parameters.awake(), 9.0), 25.0)
    path = tmp_path_factory.mktemp("glb") / "a.glb"
    report = write_avatar_glb(avatar, path, {"stress": clip, "jaw": still}, None, arkit_map(avatar.body), TINY)
    assert report.deviation < 1e-6
    return read_avatar_glb(path).head


def apart(found: Gaussians, avatar: RiggedAvatar, parameters: BodyParameters) -> float:
    return float((found.means - pose_avatar(avatar, parameters).means).norm(dim=1).max())


def test_the_file_is_that_of_a_person(avatar, mannequin_body) -> None:
    plain = mannequin_body.shape(avatar.parameters.betas).vertices
    assert float((avatar.body.shape(avatar.parameters.betas).vertices - plain).norm(dim=-1).max()) > 0.01
    assert avatar.parameters.eyelids.tolist() == [[1.0, 0.0]]


def test_ply_files_are_the_shape(avatar, clip, tmp_path) -> None:
    write_splat_ply(pose_avatar(avatar, avatar.parameters), tmp_path / "s.ply")
    assert apart(read_splat_ply(tmp_path / "s.ply"), avatar, avatar.parameters) < 1e-6
    write_rigged_ply(avatar, tmp_path / "r.ply")
    rigged = read_rigged_ply(tmp_path / "r.ply", avatar.body, avatar.parameters)
    frames = write_frame_plys(avatar, clip, tmp_path / "frames")
    write_animated_ply(avatar, clip, tmp_path / "a.ply", quantize=False)
    animated = read_animated_ply(tmp_path / "a.ply")
    for index in range(len(clip)):
        pose = clip.parameters[index]
        assert apart(pose_avatar(rigged, pose), avatar, pose) < 1e-6, clip.names[index]
        assert apart(read_splat_ply(frames[index]), avatar, pose) < 1e-6, clip.names[index]
        assert apart(animated.frame(index), avatar, pose) < 1e-6, clip.names[index]


def test_the_glb_is_the_shape_at_rest_and_in_every_frame(head, avatar, clip) -> None:
    assert distance(head.vertices(), head.faces, avatar, avatar.parameters) < 1e-5
    for index in range(len(clip)):
        assert distance(head.vertices("stress", index), head.faces, avatar, clip.parameters[index]) < 1e-5, index
    # Nothing but the jaw moves there: without a track for the lids the closed eye would stay closed.
    jaw = open_jaw(avatar.parameters.awake(), 9.0)
    assert distance(head.vertices("jaw", 0), head.faces, avatar, jaw) < 1e-5


def test_who_drives_the_glb_by_its_morphs_can_open_the_eye(head, avatar) -> None:
    """0 is open and 1 closed, whatever the lids are at rest; ARKit's shapes start from open eyes."""
    awake = avatar.parameters.awake()
    mesh = head.source.items("meshes")[0]
    standing = dict(zip(head.morph_names, mesh["weights"]))
    assert {name: weight for name, weight in standing.items() if weight} == {"left_eyelid": 1.0}
    shapes = {"nothing": [0, 0], "left_eyelid": [1, 0], "eyeBlinkLeft": [1, 0], "eyeBlinkRight": [0, 1]}
    for name, lids in shapes.items():
        weights = np.array([float(name == other) for other in head.morph_names])
        pose = awake.replace(eyelids=torch.tensor([lids], dtype=torch.float32))
        assert distance(head.vertices(weights=weights), head.faces, avatar, pose) < 1e-5, name


def test_an_eyeball_that_is_hidden_at_rest_is_baked_from_the_open_eye(avatar) -> None:
    """Red irises on eyeballs that are else as green as the skin; the left eye is closed at rest, the right one open."""
    body, count = avatar.body, len(avatar.body.faces)
    colors = torch.tensor([[0.0, 1, 0]]).repeat(count, 1)
    for side in ("left", "right"):
        colors[_front_faces(avatar, side, 60)] = torch.tensor([1.0, 0, 0])
    flat = torch.tensor([[-0.7, -4.0, -0.7]]).repeat(count, 1)
    upright = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    opaque = torch.full((count,), 6.0)
    gaussians = Gaussians(torch.zeros(count, 3), upright, flat, opaque, rgb_to_sh0(colors)[:, None])
    painted = RiggedAvatar(
        gaussians, torch.arange(count), torch.zeros(count, dtype=torch.uint8), body, avatar.parameters
    )
    centers = SurfacePoints(torch.arange(count), torch.full((count, 3), 1 / 3))
    baked = bake_colors(painted, centers, BakeSettings(view_size=384))
    for side in ("left", "right"):
        iris = baked[_front_faces(avatar, side, 5)].mean(dim=0)
        assert float(iris[0]) > 0.8 and float(iris[1]) < 0.2, (side, iris)


def _front_faces(avatar: RiggedAvatar, side: str, count: int) -> torch.Tensor:
    """The faces of an eyeball that lie farthest in front."""
    faces = avatar.body.region_faces(f"{side}_eyeball")
    depth = avatar.body(avatar.parameters).vertices[0][avatar.body.faces[faces], 2].mean(dim=1)
    return faces[depth.topk(count).indices]


def test_the_page_holds_the_shape_and_the_open_eye(avatar, tmp_path) -> None:
    write_avatar_page(avatar, tmp_path / "a.html")
    header, arrays = read_avatar_page(tmp_path / "a.html")
    carriers = torch.unique(avatar.binding)
    corners = avatar.body.shape(avatar.parameters.betas).vertices[0][avatar.body.faces[carriers]].numpy()
    assert np.array_equal(arrays["template"].values[arrays["faces"].values.astype(int)], corners)
    assert header["rest"][-6:-4] == [1, 0] and header["awake"][-6:-4] == [0, 0]
    assert header["awake"] == pose_vectors(avatar.parameters.awake())[0].tolist()
