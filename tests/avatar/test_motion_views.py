"""Views of a moving avatar: each keeps its pose, through other nodes too, and an avatar can be trained on them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from animportrait3d_core.animation import Motion
from animportrait3d_core.avatar import pose_avatar, render_avatar_views, render_motion_views
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.cameras import orbit_cameras, view_preset
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.gaussians import sh0_to_rgb
from animportrait3d_core.optimization import FitViewsSettings, LearningRates, fit_to_views
from animportrait3d_core.parts import AvatarPart
from animportrait3d_core.portrait.mesh import MeshPortrait
from animportrait3d_core.views import concatenate_views, replace_images

WHITE = torch.ones(3)
SIZE = 32


@pytest.fixture(scope="module")
def start(make_avatar):
    return make_avatar(1500, seed=5)


@pytest.fixture(scope="module")
def motion(start):
    """The jaw opens, and the head turns, over five frames."""
    jaw = torch.linspace(0, 0.4, 5)[:, None] * torch.tensor([1.0, 0, 0])
    head = torch.linspace(0, 0.5, 5)[:, None] * torch.tensor([0, 1.0, 0])
    return Motion(start.parameters.replace(jaw_pose=jaw, head_pose=head), 25.0)


@pytest.mark.parametrize(("frames", "cameras"), [(5, 3), (2, 3), (1, 3), (5, 1)])
def test_frames_and_cameras_go_around_until_all_were_used(start, motion, frames, cameras):
    some, seen = motion.parameters[list(range(frames))], orbit_cameras([0.0, 30.0, -30.0], [0.0] * 3, SIZE)[:cameras]
    views = render_motion_views(start, some, seen, WHITE)
    assert len(views) == max(frames, cameras)
    for k in range(len(views)):
        pose = BodyParameters.from_tensors(views[k].body)
        assert torch.equal(pose.jaw_pose, some[k % frames].jaw_pose)
        wanted = render_avatar_views(pose_avatar(start, some[k % frames]), seen[k % cameras : k % cameras + 1], WHITE)
        torch.testing.assert_close(views.images[k], wanted.images[0], rtol=0, atol=2e-5)
        assert torch.equal(views.cameras[k].world_to_camera, seen[k % cameras].world_to_camera)


def test_poses_stay_with_their_pictures(start, motion):
    views = render_motion_views(start, motion.parameters, view_preset("heldout", SIZE)[:5], WHITE)
    jaws = motion.parameters.jaw_pose
    assert torch.equal(views[[3, 1]].body["jaw_pose"], jaws[[3, 1]])
    larger = replace_images(views, torch.zeros(5, 64, 64, 3))
    assert torch.equal(larger.body["jaw_pose"], jaws) and larger.cameras.width == 64
    twice = concatenate_views([views, views[:2]])
    assert torch.equal(twice.body["jaw_pose"], torch.cat([jaws, jaws[:2]]))
    assert views.to(dtype=torch.float64).body["jaw_pose"].dtype == torch.float64
    still = dataclasses.replace(views, body=None)
    assert concatenate_views([still, still]).body is None
    with pytest.raises(InvalidInput, match="1 of 2 parts carry the pose"):
        concatenate_views([views, still])
    with pytest.raises(ShapeMismatch, match="jaw_pose"):
        dataclasses.replace(views, body={"jaw_pose": jaws[:2]})


def painted(views):
    """The same views with everything red where the avatar is."""
    red = torch.tensor([0.9, 0.1, 0.1]) * views.masks[..., None] + (1 - views.masks[..., None])
    return replace_images(views, red)


def test_an_avatar_is_trained_in_the_poses_of_its_views(start, motion):
    """Pictures of an open mouth, trained on as such, fit; trained on as pictures at rest they do not."""
    wide = motion.parameters[[4] * 4]
    cameras = orbit_cameras([0.0, 20.0, -20.0, 10.0], [0.0] * 4, SIZE)
    views = painted(render_motion_views(start, wide, cameras, WHITE))
    settings = FitViewsSettings().with_stage(iterations=40, lrs=LearningRates(sh0=0.1), frozen_parts=())

    def remaining(seen):
        trained = fit_to_views(start, seen, settings)
        return float((render_motion_views(trained, wide, cameras, WHITE).images - views.images).abs().mean())

    before = float((render_motion_views(start, wide, cameras, WHITE).images - views.images).abs().mean())
    in_motion, at_rest = remaining(views), remaining(dataclasses.replace(views, body=None))
    assert in_motion < 0.4 * before and in_motion < 0.7 * at_rest


def test_the_nodes(start, motion, run_node):
    rendered = run_node("AP3D_RenderViews", subject=start, motion=motion, preset="heldout", size=SIZE)
    assert len(rendered.images) == 12 and torch.equal(rendered.views.body["jaw_pose"][6], motion.parameters.jaw_pose[1])
    red = painted(rendered.views)
    replaced = run_node("AP3D_ReplaceViewImages", views=rendered.views, images=red.images).views
    done = run_node("AP3D_FitToViews", avatar=start, views=replaced, iterations=60)
    hidden = torch.isin(start.part_id.long(), torch.tensor([AvatarPart.TEETH, AvatarPart.MOUTH_INTERIOR]))
    assert not torch.equal(done.avatar.gaussians.sh[hidden], start.gaussians.sh[hidden])
    assert done.image.shape[1] > 2 * SIZE and len(done.ui["images"]) == 1
    again = run_node("AP3D_RenderViews", subject=done.avatar, motion=motion, preset="heldout", size=SIZE)
    difference = [(seen.images - red.images).abs().mean() for seen in (rendered, again)]
    assert difference[1] < 0.8 * difference[0]
    still = run_node("AP3D_RenderViews", subject=start, preset="heldout", size=SIZE)
    assert still.views.body is None
    kept = run_node("AP3D_FitToViews", avatar=start, views=still.views, iterations=3).avatar
    assert torch.equal(kept.gaussians.sh[hidden], start.gaussians.sh[hidden])


def test_an_avatar_shows_its_view_dependent_colours_from_the_first_step(make_avatar, run_node, run_context):
    """What the node shows of its first step is one of the views, which are the avatar's own pictures."""
    avatar, shown = make_avatar(1200, sh_degree=2, seed=5), []
    views = run_node("AP3D_RenderViews", subject=avatar, preset="heldout", size=SIZE).views
    plain = dataclasses.replace(avatar, gaussians=dataclasses.replace(avatar.gaussians, sh=avatar.gaussians.sh[:, :1]))
    without = run_node("AP3D_RenderViews", subject=plain, preset="heldout", size=SIZE).views.images
    run_context.listener = SimpleNamespace(node_progress=lambda *event: shown.append(event[-1]))
    fitted = run_node("AP3D_FitToViews", avatar=avatar, views=painted(views), iterations=1).avatar
    place = int((views.images - shown[0]).abs().mean((1, 2, 3)).argmin())
    torch.testing.assert_close(shown[0], views.images[place], rtol=0, atol=1e-5)
    assert float((without[place] - views.images[place]).abs().max()) > 0.1
    assert not torch.equal(fitted.gaussians.sh[:, 1:], avatar.gaussians.sh[:, 1:])
    lids = avatar.part_id == AvatarPart.EYELIDS
    assert not torch.equal(fitted.gaussians.sh[lids], avatar.gaussians.sh[lids]), "pictures may be of painted lids"


def test_a_portrait_does_not_move(motion, run_node):
    import numpy as np
    import trimesh

    from animportrait3d_core.meshes import Mesh

    solid = trimesh.creation.icosphere(radius=0.4)
    vertices, faces = torch.from_numpy(np.array(solid.vertices)).float(), torch.from_numpy(np.array(solid.faces))
    portrait = MeshPortrait(Mesh(vertices, faces, vertex_colors=vertices + 0.5))
    with pytest.raises(InvalidInput, match="AP3D_RenderViews: a motion is connected, but the subject is a static"):
        run_node("AP3D_RenderViews", subject=portrait, motion=motion, size=SIZE)


def test_primitives_are_shown_in_colors_of_their_own(start, run_node) -> None:
    shown = run_node("AP3D_ShowPrimitives", avatar=start, seed=3).avatar
    colors = sh0_to_rgb(shown.gaussians.sh[:, 0])
    assert len(torch.unique(colors, dim=0)) == len(start) and 0 <= float(colors.min()) and float(colors.max()) <= 1
    assert abs(float(colors.mean()) - 0.5) < 0.02
    for name in ("means", "quats", "log_scales", "logit_opacities"):
        assert torch.equal(getattr(shown.gaussians, name), getattr(start.gaussians, name))
    assert torch.equal(run_node("AP3D_ShowPrimitives", avatar=start, seed=3).avatar.gaussians.sh, shown.gaussians.sh)
