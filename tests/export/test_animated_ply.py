"""A motion as PLY files, and as one animated PLY."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import Motion, stress_clip
from animportrait3d_core.animation.clips import StressClipSettings
from animportrait3d_core.avatar import RiggedAvatar, pose_avatar
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export import (
    read_animated_ply,
    read_splat_ply,
    write_animated_ply,
    write_frame_plys,
    write_splat_ply,
)
from animportrait3d_core.export.ply_files import read_elements
from animportrait3d_core.gaussians import Gaussians
from tests.export.test_glb import licensed


@pytest.fixture(scope="module")
def avatar(make_avatar) -> RiggedAvatar:
    return make_avatar(700, sh_degree=2)


@pytest.fixture(scope="module")
def clip(avatar: RiggedAvatar) -> Motion:
    whole = stress_clip(avatar.body, avatar.parameters, settings=StressClipSettings(frames_per_move=1))
    return dataclasses.replace(whole, parameters=whole.parameters[[0, 6, 18]], names=())


def check_splats(found: Gaussians, expected: Gaussians, tolerance: float) -> None:
    unit = dataclasses.replace(expected, quats=torch.nn.functional.normalize(expected.quats, dim=-1))
    sign = (found.quats * unit.quats).sum(-1, keepdim=True).sign()
    found = dataclasses.replace(found, quats=sign * torch.nn.functional.normalize(found.quats, dim=-1))
    for name in ("means", "quats", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(found, name), getattr(unit, name), rtol=0, atol=tolerance)


@pytest.mark.parametrize("y_down", [True, False])
def test_plain_splats_come_back(avatar, clip, tmp_path, y_down: bool):
    world = pose_avatar(avatar, clip.parameters[1])
    write_splat_ply(world, tmp_path / "a.ply", y_down)
    check_splats(read_splat_ply(tmp_path / "a.ply", y_down), world, 2e-6)


def test_every_frame_has_its_file_and_the_folder_is_new(avatar, clip, tmp_path):
    folder = tmp_path / "deep" / "frames"
    paths = write_frame_plys(avatar, clip, folder)
    assert paths == sorted(folder.iterdir()) == [folder / f"0000{index}.ply" for index in range(3)]
    for index, path in enumerate(paths):
        check_splats(read_splat_ply(path), pose_avatar(avatar, clip.parameters[index]), 2e-6)
    before = paths[0].read_bytes()
    with pytest.raises(InvalidInput, match="is there already"):
        write_frame_plys(avatar, clip, folder)
    assert paths[0].read_bytes() == before and list(folder.parent.iterdir()) == [folder]


def test_a_stopped_export_leaves_no_folder(avatar, clip, tmp_path):
    def stop(step: int, total: int, preview: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frame_plys(avatar, clip, tmp_path / "frames", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("quantize", "tolerance"), [(False, 1e-6), (True, 2e-3)])
def test_the_animated_file_holds_the_motion(avatar, clip, tmp_path, quantize: bool, tolerance: float):
    path = tmp_path / "a.ply"
    error = write_animated_ply(avatar, clip, path, quantize)
    read = read_animated_ply(path)
    with torch.no_grad():
        vertices = avatar.body(clip.parameters).vertices
    found = float((read.vertices - vertices).norm(dim=-1).max())
    assert found == pytest.approx(error, abs=3e-7) and error < tolerance
    assert torch.equal(read.faces, avatar.body.faces) and torch.equal(read.binding, avatar.binding)
    torch.testing.assert_close(read.gaussians.means, avatar.gaussians.means, rtol=0, atol=0)
    if not quantize:  # the last bit of a vertex turns a triangle with sides of 0.003 by up to 1e-4
        for index in range(len(clip)):
            check_splats(read.frame(index), pose_avatar(avatar, clip.parameters[index]), 1e-4)


def test_offsets_of_a_byte_are_off_by_half_a_step_at_most(avatar, clip, tmp_path):
    write_animated_ply(avatar, clip, tmp_path / "a.ply")
    elements, read = read_elements(tmp_path / "a.ply", "test"), read_animated_ply(tmp_path / "a.ply")
    with torch.no_grad():
        vertices = avatar.body(clip.parameters).vertices.numpy()
    for index in range(len(clip)):
        ends = [elements[f"meta_delta_{end}_{index:05}"] for end in ("min", "max")]
        steps = np.array([(ends[1][axis][0] - ends[0][axis][0]) / 255 for axis in "xyz"])
        assert (np.abs(read.vertices[index].numpy() - vertices[index]) <= 0.5 * steps + 1e-6).all()


def test_the_layout_is_that_of_the_viewer(avatar, clip, tmp_path):
    """Names, order and types as in CAP4D's gaussianavatars/utils/export_utils.py."""
    write_animated_ply(avatar, clip, tmp_path / "a.ply")
    elements = read_elements(tmp_path / "a.ply", "test")
    frames = [f"{end}_{index:05}" for index in range(3) for end in ("meta_delta_min", "meta_delta_max", "delta_vertex")]
    assert list(elements) == ["faces", "base_vertex", "vertex", *frames]
    assert elements["faces"].dtype == np.dtype([(f"index_{corner}", "<u4") for corner in range(3)])
    assert elements["delta_vertex_00001"].dtype == np.dtype([(axis, "u1") for axis in "xyz"])
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *[f"f_rest_{index}" for index in range(45)], "opacity"]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "binding"]
    assert elements["vertex"].dtype == np.dtype([(name, "<f4") for name in names])
    assert np.array_equal(elements["vertex"]["rot_0"], avatar.gaussians.quats[:, 0].numpy())


def test_a_licensed_body_needs_the_switch(avatar, clip, tmp_path):
    own = licensed(avatar)
    with pytest.raises(InvalidInput, match="include_licensed_body"):
        write_animated_ply(own, clip, tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []
    write_animated_ply(own, clip, tmp_path / "a.ply", include_licensed_body=True)
    assert len(read_animated_ply(tmp_path / "a.ply").vertices) == 3


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"element base_vertex", b"element xase_vertex", "lacks the elements base_vertex"),
        (b"element delta_vertex_00001 12939", b"element delta_vertex_00001 99999999", "cannot be"),
        (b"property float binding", b"property float xinding", "no whole element 'vertex'"),
        (b"element faces 25338", b"element faces two", "expected 'element NAME COUNT'"),
    ],
)
def test_damaged_files_are_refused(avatar, clip, tmp_path, before: bytes, after: bytes, message: str):
    path = tmp_path / "a.ply"
    write_animated_ply(avatar, clip, path)
    data = path.read_bytes()
    assert before in data
    path.write_bytes(data.replace(before, after, 1))
    with pytest.raises(InvalidInput, match=message):
        read_animated_ply(path)
    path.write_bytes(data[:-100])
    with pytest.raises(InvalidInput, match="is cut off"):
        read_animated_ply(path)
