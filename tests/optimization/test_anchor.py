"""An anchor: reference views of the portrait beside what a guidance wants."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import pose_avatar, render_avatar_views, render_motion_views
from animportrait3d_core.body.parameters import stack_parameters
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.optimization import Crops
from animportrait3d_core.optimization.anchor import Anchor, Anchored, AnchoredScenes
from animportrait3d_core.optimization.dynamic import Staging, optimize_regions
from animportrait3d_core.optimization.presets import dynamic_stage
from animportrait3d_core.optimization.region_scenes import CameraRanges, DrawnStates, RegionScenes
from animportrait3d_core.optimization.stage import LearningRates
from tests.optimization.wishes import PROMPTS, SIZE, USES, Wishes


@pytest.fixture(scope="module")
def start(make_avatar):
    return make_avatar(2000, seed=5)


@pytest.fixture(scope="module")
def views(start):
    cameras = orbit_cameras([-30.0, 0.0, 30.0], [0.0, 5.0, 0.0], 64)
    return render_avatar_views(pose_avatar(start, start.parameters), cameras, torch.ones(3))


def scenes_of(avatar):
    return RegionScenes(avatar, DrawnStates(avatar.parameters, "face"), USES, SIZE, poses=2)


def test_a_scene_gets_the_avatar_at_rest_in_the_camera_of_a_view(start, views) -> None:
    anchor = Anchor(views).resized(SIZE)
    plain, with_anchor = scenes_of(start), AnchoredScenes(scenes_of(start), start, anchor)
    shown = []
    for step in range(6):
        scene, more = plain.at(step, 3), with_anchor.at(step, 3)
        assert len(more.cameras) == len(scene.cameras) + 1 and more.poses.tolist() == [*scene.poses.tolist(), 2]
        for name in ("rows", "conditions", "ignored", "vertices"):
            assert torch.equal(getattr(more, name)[:-1], getattr(scene, name))
        row = int(more.rows[-1])
        assert torch.equal(more.cameras.K[-1], anchor.views.cameras.K[row])
        assert torch.equal(more.parameters[2].jaw_pose, start.parameters.jaw_pose)
        shown.append(row)
    assert sorted(shown[:3]) == sorted(shown[3:]) == [0, 1, 2]


def test_views_that_carry_depth_are_resized_without_it(views) -> None:
    deep = dataclasses.replace(views, depth=torch.where(views.masks > 0.5, 2.5, 0.0))
    assert Anchor(deep).resized(64).views.depth is deep.depth
    resized, plain = Anchor(deep).resized(SIZE).views, Anchor(views).resized(SIZE).views
    assert resized.depth is None and torch.equal(resized.images, plain.images)


class Nothing:
    """An objective that asks for nothing, and keeps what it is shown."""

    fingerprint = "nothing"

    def losses(self, crops, step):
        self.crops = crops
        return {"nothing": crops.images.sum() * 0}


def test_the_term_is_the_difference_to_the_view_and_the_rest_goes_to_the_objective(start, views) -> None:
    anchor = Anchor(views, 2.5).resized(SIZE)
    scene = AnchoredScenes(scenes_of(start), start, anchor).at(0, 3)
    images = torch.rand(len(scene.cameras), SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    inner = Nothing()
    losses = Anchored(inner, anchor).losses(Crops(images, images[..., 0], scene), 0)
    wanted = anchor.views.images[int(scene.rows[-1])]
    assert float(losses["anchor"]) == pytest.approx(2.5 * float((images[-1] - wanted).abs().mean()), rel=1e-5)
    plain, seen = scenes_of(start).at(0, 3), inner.crops
    assert torch.equal(seen.images, images[:-1]) and torch.equal(seen.scene.rows, plain.rows)
    assert seen.scene.poses.tolist() == plain.poses.tolist() and len(seen.scene.parameters) == 2
    black = dataclasses.replace(scene, background=torch.zeros(3))
    losses = Anchored(inner, anchor).losses(Crops(images, images[..., 0], black), 0)
    row = int(scene.rows[-1])
    over_black = anchor.views.images[row] - (1 - anchor.views.masks[row, ..., None])
    assert float(losses["anchor"]) == pytest.approx(2.5 * float((images[-1] - over_black).abs().mean()), rel=1e-5)


def test_pictures_behind_the_crops_leave_the_view_its_colour(start, views) -> None:
    plain = RegionScenes(start, DrawnStates(start.parameters, "face"), USES, SIZE, background=torch.rand(8, 8, 3))
    anchor = Anchor(views, 1.0).resized(SIZE)
    scene, more = plain.at(0, 3), AnchoredScenes(plain, start, anchor).at(0, 3)
    assert torch.equal(more.background[:-1], scene.background)
    assert torch.equal(more.background[-1], anchor.views.background.expand(SIZE, SIZE, 3))
    inner, images = Nothing(), torch.rand(len(more.cameras), SIZE, SIZE, 3)
    losses = Anchored(inner, anchor).losses(Crops(images, images[..., 0], more), 0)
    wanted = anchor.views.images[int(more.rows[-1])]
    assert float(losses["anchor"]) == pytest.approx(float((images[-1] - wanted).abs().mean()), rel=1e-5)
    assert torch.equal(inner.crops.scene.background, scene.background)


@pytest.mark.parametrize("stage", ["full", "refine"])
def test_an_anchored_avatar_stays_nearer_to_the_portrait(start, views, stage) -> None:
    (one,) = dynamic_stage(stage, "standard", 2.0)
    quick = dataclasses.replace(one.longer(12 / one.stage.iterations), cameras=CameraRanges(((1.0, -10.0, 10.0),)))
    passes = (dataclasses.replace(quick, stage=dataclasses.replace(quick.stage, lrs=LearningRates())),)

    def distance(avatar):
        seen = render_avatar_views(pose_avatar(avatar, avatar.parameters), views.cameras, torch.ones(3))
        return float((seen.images - views.images).abs().mean())

    free = optimize_regions(start, Wishes(), PROMPTS, passes)
    held = optimize_regions(start, Wishes(), PROMPTS, passes, Staging(anchor=Anchor(views, 100.0)))
    assert distance(held) < 0.6 * distance(free)


def test_what_cannot_be_an_anchor_is_refused(start, views) -> None:
    moving = render_motion_views(
        start, stack_parameters([start.parameters] * 3), orbit_cameras([0.0] * 3, [0.0] * 3, 32), torch.ones(3)
    )
    with pytest.raises(InvalidInput, match="in motion, expected square ones of the avatar at rest"):
        Anchor(moving)
    with pytest.raises(InvalidInput, match="weight 0"):
        Anchor(views, 0.0)
    with pytest.raises(InvalidInput, match="0 views"):
        Anchor(views[[]])
