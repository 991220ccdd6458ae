"""The avatar in a pose on the host's own sockets: splats, meshes with colours, 3D files."""

from __future__ import annotations

import functools
import sys
import types
from pathlib import Path

import pytest
import torch

from animportrait3d_core.animation import stress_clip
from animportrait3d_core.avatar import pose_avatar, render_avatar_views, resting_in
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import AnimPortraitError
from animportrait3d_core.export import baking, read_avatar_glb, read_splat_ply
from animportrait3d_core.workflow.registry import LOADED_NAME, load_pack
from tests.avatar_samples import random_avatar
from tests.export.test_glb import licensed
from tests.host.test_geometry import check_splat

ROOT = Path(__file__).parents[2]
FRAME = 20


@pytest.fixture(scope="module")
def moving(mannequin_body, rest):
    """An avatar with harmonics and a motion of its body."""
    avatar = random_avatar(mannequin_body, rest, 400, 2)
    return avatar, stress_clip(avatar.body, avatar.parameters)


@pytest.fixture()
def small_pictures(monkeypatch):
    """Bakes of pictures of 96 pixels, which are quick."""
    monkeypatch.setattr(baking, "BakeSettings", functools.partial(baking.BakeSettings, view_size=96))


def test_an_avatar_that_rests_elsewhere_looks_the_same_in_every_pose(moving) -> None:
    avatar, motion = moving
    other = resting_in(avatar, motion.parameters[[FRAME]])
    cameras = orbit_cameras([0, 90], [0, 0], 48)
    for pose in (avatar.parameters, motion.parameters[[FRAME]], motion.parameters[[60]]):
        wanted, found = (
            render_avatar_views(pose_avatar(each, pose), cameras, torch.ones(3)).images for each in (avatar, other)
        )
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert not torch.allclose(other.gaussians.sh, avatar.gaussians.sh, atol=1e-3)


def test_splats_stand_in_the_pose(moving, run_node, tmp_path) -> None:
    avatar, motion = moving
    done = run_node("AP3D_AvatarToSplat", avatar=avatar, motion=motion, frame=FRAME)
    wanted = pose_avatar(avatar, motion.parameters[[FRAME]])
    assert done.ply.format == "ply"
    path = Path(done.ply.save_to(str(tmp_path / "a.ply")))
    check_splat(done.splat, path)
    found = read_splat_ply(path)
    torch.testing.assert_close(found.means, wanted.means, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.sh, wanted.sh, atol=1e-5, rtol=1e-5)
    still = run_node("AP3D_AvatarToSplat", avatar=avatar)
    assert float((still.splat.positions - done.splat.positions).abs().max()) > 0.01


def test_the_mesh_stands_in_the_pose_in_the_avatars_colours(moving, run_node, small_pictures, tmp_path) -> None:
    avatar, motion = moving
    done = run_node("AP3D_AvatarToMesh", avatar=avatar, motion=motion, frame=FRAME, texture_size=256)
    posed = avatar.body(motion.parameters[[FRAME]]).vertices[0]
    shown = done.mesh.vertices[0]
    low, high = shown.amin(0), shown.amax(0)
    torch.testing.assert_close(torch.stack([low, high]), torch.stack([posed.amin(0), posed.amax(0)]))
    assert done.mesh.unlit  # the splats' colours hold their light
    assert done.mesh.texture.shape == (1, 256, 256, 3) and float(done.mesh.texture.std()) > 0.01
    assert len(done.mesh.faces[0]) == len(avatar.body.faces) and done.mesh.uvs.shape[2] == 2
    assert done.glb.format == "glb"
    head = read_avatar_glb(done.glb.save_to(str(tmp_path / "a.glb")))
    assert head.splats is None
    again, _ = run_node.module("AP3D_AvatarToMesh").host.mesh_of_host("test", done.glb)
    torch.testing.assert_close(torch.stack([again.vertices.amin(0), again.vertices.amax(0)]), torch.stack([low, high]))


def test_colours_of_vertices_are_in_linear_light(moving, run_node, small_pictures) -> None:
    avatar, _ = moving
    done = run_node("AP3D_AvatarToMesh", avatar=avatar, texture_size=0)
    assert not hasattr(done.mesh, "texture") and done.mesh.vertex_colors.shape == (1, avatar.body.num_vertices, 3)
    assert "text" not in done.ui, "who asks for no texture misses none"


def test_what_cannot_be_handed_on_is_told(moving, run_node, rest) -> None:
    avatar, motion = moving
    with pytest.raises(AnimPortraitError, match="AP3D_AvatarToSplat: there is no frame 1: no motion is connected"):
        run_node("AP3D_AvatarToSplat", avatar=avatar, frame=1)
    with pytest.raises(
        AnimPortraitError, match=f"no frame {len(motion)}: the motion has {len(motion)} frames; choose 0"
    ):
        run_node("AP3D_AvatarToSplat", avatar=avatar, motion=motion, frame=len(motion))
    other = stress_clip(avatar.body, rest.replace(betas=rest.betas + 1))
    with pytest.raises(AnimPortraitError, match="is of a body of another shape"):
        run_node("AP3D_AvatarToSplat", avatar=avatar, motion=other)
    with pytest.raises(AnimPortraitError, match="AP3D_AvatarToMesh: the body .* is licensed.*include_licensed_body"):
        run_node("AP3D_AvatarToMesh", avatar=licensed(avatar))
    assert run_node("AP3D_AvatarToSplat", avatar=licensed(avatar)).splat.positions.shape == (1, 400, 3)


@pytest.mark.parametrize(
    ("known", "splats", "meshes"),
    [
        (["MESH"], None, ("MESH",)),
        (["MESH", "FILE_3D", "FILE_3D_GLB"], None, ("MESH", "FILE_3D_GLB")),
        (["MESH", "SPLAT", "FILE_3D_GLB", "FILE_3D_PLY"], ("SPLAT", "FILE_3D_PLY"), ("MESH", "FILE_3D_GLB")),
    ],
)
def test_sockets_are_those_that_the_host_knows(monkeypatch, known, splats, meshes) -> None:
    sockets = types.ModuleType("comfy_api.latest._io")
    for kind in known:
        setattr(sockets, kind.title(), type(kind, (), {"io_type": kind}))
    folders = types.ModuleType("folder_paths")
    folders.models_dir, folders.folder_names_and_paths = "models", {}
    folders.add_model_folder_path = lambda *_: None
    for module in (folders, sockets):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    sys.modules.pop(LOADED_NAME, None)
    classes = load_pack(ROOT).NODE_CLASS_MAPPINGS
    found = classes.get("AP3D_AvatarToSplat")
    assert (found.RETURN_TYPES if found else None) == splats
    assert classes["AP3D_AvatarToMesh"].RETURN_TYPES == meshes
