"""Score matching on an avatar: what its scenes show, what it asks, and that the avatar follows what is wanted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from animportrait3d_core.avatar import AvatarRig, pose_avatar, render_avatar_views
from animportrait3d_core.body.model import JOINTS
from animportrait3d_core.cameras import orbit_cameras, project
from animportrait3d_core.conditioning import CROP_REGIONS
from animportrait3d_core.diffusion.score import IntervalSchedule, ScoreSettings
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.optimization import AvatarOptimizer, Crops, LearningRates, Stage, optimize_avatar
from animportrait3d_core.optimization.region_guidance import RegionGuidance
from animportrait3d_core.optimization.region_scenes import (
    CameraRanges,
    DrawnStates,
    RecordedStates,
    RegionScenes,
    RegionUse,
    yaw_from_head,
)
from animportrait3d_core.optimization.scenes import render_scene
from animportrait3d_core.optimization.score_matching import ScoreMatching, ScoreMatchingSettings
from tests.optimization.wishes import PROMPTS, RED, SIZE, USES, Wishes


@pytest.fixture(scope="module")
def start(make_avatar):
    return make_avatar(1500, seed=5)


def scenes_of(avatar, uses=USES, kind="face", **changes):
    return RegionScenes(avatar, DrawnStates(avatar.parameters, kind), uses, SIZE, **changes)


def matching(guidance=None, uses=USES, rule="sds", iterations=20, micro_batch=16, **changes):
    asked = RegionGuidance(guidance or Wishes(), PROMPTS, uses, micro_batch)
    settings = ScoreMatchingSettings(IntervalSchedule(300, iterations), ScoreSettings(rule), **changes)
    return ScoreMatching(asked, settings)


def test_a_scene_shows_each_region_that_its_camera_sees(start) -> None:
    scenes = scenes_of(start, poses=3, cameras=CameraRanges(((0.5, -75.0, 75.0), (0.5, 75.0, 285.0))))
    fronts = 0
    for step in range(12):
        scene = scenes.at(step, 7)
        landmarks = start.body(scene.parameters).landmarks
        for pose in range(3):
            rows = scene.rows[scene.cameras_of(pose)].tolist()
            assert 0 in rows and len(set(rows)) == len(rows)
            fronts += len(rows) > 1
            for row, camera in zip(rows, range(*scene.cameras_of(pose).indices(len(scene.rows)))):
                region = USES[row].region
                if region.landmarks:
                    points = landmarks[pose, list(region.landmarks)]
                    found = project(scene.cameras[camera : camera + 1], points)[0][0].mean(0)
                    assert found.tolist() == pytest.approx([SIZE / 2, SIZE / 2], abs=0.01)
        assert scene.conditions.shape == (len(scene.rows), SIZE, SIZE, 4)
        assert torch.equal(scene.vertices, scenes.at(step, 7).vertices)
        assert torch.equal(scene.cameras.K, scenes.at(step, 7).cameras.K)
    assert 8 < fronts < 33
    assert not torch.equal(scenes.at(0, 7).vertices, scenes.at(0, 8).vertices)
    assert not torch.equal(scenes.at(0, 7).vertices, scenes.at(1, 7).vertices)


def test_a_turned_head_hides_an_eye_from_a_camera_in_front(start) -> None:
    turned = start.parameters.replace(head_pose=torch.tensor([[0.0, math.radians(50), 0.0]]))
    camera = orbit_cameras([0.0], [0.0], 896)
    straight = yaw_from_head(start.body(start.parameters), camera)
    away = yaw_from_head(start.body(turned), camera)
    assert abs(straight) < 8 and away - straight == pytest.approx(-50, abs=8)  # it sees the right side of the face
    assert yaw_from_head(start.body(start.parameters), orbit_cameras([60.0], [0.0], 896)) == pytest.approx(60, abs=12)


def test_a_scene_leaves_out_the_eye_that_a_turned_head_hides(start) -> None:
    turned = start.parameters.replace(head_pose=torch.tensor([[0.0, math.radians(55), 0.0]]))
    front = CameraRanges(((1.0, -1.0, 1.0),))
    for step in range(4):
        scene = RegionScenes(start, DrawnStates(turned, "face"), USES, SIZE, front).at(step, 0)
        assert [USES[row].region.name for row in scene.rows.tolist()] == ["bust", "face", "left eye", "mouth"]


def test_the_face_is_ignored_in_the_whole_picture_while_it_is_seen(start) -> None:
    front = scenes_of(start, cameras=CameraRanges(((1.0, -5.0, 5.0),))).at(0, 0)
    side = SIZE * 512 / 896
    (whole,) = front.ignored[front.rows == 0]
    assert float(whole.sum()) == pytest.approx(side**2, rel=0.15)
    assert not front.ignored[front.rows != 0].any()
    landmarks = start.body(front.parameters).landmarks[0]
    ys, xs = whole.nonzero(as_tuple=True)
    eyes = project(front.cameras[front.rows == 0], landmarks[-2:])[0][0].mean(0)
    assert [float(xs.float().mean()) + 0.5, float(ys.float().mean()) + 0.5] == pytest.approx(eyes.tolist(), abs=1.5)
    back = scenes_of(start, cameras=CameraRanges(((1.0, 170.0, 190.0),))).at(0, 0)
    assert back.rows.tolist() == [0] and not back.ignored.any()


def test_only_the_face_is_asked_about_where_the_condition_is_the_limit(start) -> None:
    """Eyes and the inside of the mouth, which the maps leave white, belong to it; neck and background do not."""
    limited = tuple(dataclasses.replace(use, within_condition=True) for use in USES if use.controlled)
    front = CameraRanges(((1.0, -5.0, 5.0),), (85.0, 95.0))
    scene = RegionScenes(start, DrawnStates(start.parameters, "mouth"), limited, 64, front).at(0, 0)
    posed = start.body(scene.parameters)
    found = {limited[row].region.name: k for k, row in enumerate(scene.rows.tolist())}
    places = {
        "lips": posed.landmarks[0, [48, 51, 54, 57]], "mouth": posed.landmarks[0, 60:68].mean(0)[None],
        "eyes": posed.landmarks[0, -2:], "neck": posed.joint_transforms[0, [JOINTS["neck"]], :3, 3],
    }  # fmt: skip

    def ignored(region, place):
        camera = scene.cameras[[found[region]]]
        x, y = project(camera, places[place])[0][0].long().T
        return scene.ignored[found[region]][y.clamp(0, 63), x.clamp(0, 63)].tolist()

    assert ignored("face", "eyes") == [False, False] and ignored("face", "lips") == [False] * 4
    assert ignored("face", "mouth") == ignored("mouth", "mouth") == [False] and ignored("mouth", "lips") == [False] * 4
    assert ignored("face", "neck") == [True] and scene.ignored[found["face"]][0, 0]


def test_a_picture_stands_behind_all_crops_in_its_place(start) -> None:
    """Red is the column of the whole picture, green the row: every pixel without avatar shows where it lies."""
    steps = (torch.arange(64) + 0.5) / 64
    picture = torch.stack([steps.expand(64, 64), steps[:, None].expand(64, 64), torch.zeros(64, 64)], dim=-1)
    scenes = scenes_of(start, poses=2, background=picture)
    scene = scenes.at(0, 0)
    clear = torch.full_like(start.gaussians.logit_opacities, -20.0)
    empty = dataclasses.replace(start.gaussians, logit_opacities=clear)
    seen = render_scene(AvatarRig(dataclasses.replace(start, gaussians=empty)), scene)
    assert seen.shape == (len(scene.cameras), SIZE, SIZE, 3)
    focal = scene.cameras[scene.rows == 0].K[0, 0, 0]  # of the whole picture
    for crop, (K, shown) in enumerate(zip(scene.cameras.K, seen, strict=True)):
        pixels = (torch.arange(SIZE) + 0.5).clamp(0, SIZE)
        for axis, values in ((0, shown[SIZE // 2, :, 0]), (1, shown[:, SIZE // 2, 1])):
            there = ((pixels - K[axis, 2]) / K[axis, axis] * focal + SIZE / 2) / SIZE
            torch.testing.assert_close(values, there.clamp(0.5 / 64, 1 - 0.5 / 64), atol=2e-3, rtol=0, msg=f"{crop}")
    assert scenes.fingerprint != scenes_of(start, poses=2).fingerprint
    grey = torch.full((3,), 0.4)
    colour, filled = (scenes_of(start, background=behind).at(0, 0) for behind in (grey, grey.expand(8, 8, 3)))
    assert filled.background.shape == (len(filled.cameras), SIZE, SIZE, 3)
    torch.testing.assert_close(render_scene(AvatarRig(start), filled), render_scene(AvatarRig(start), colour))
    stage = Stage("optimize", 3)
    work = AvatarOptimizer(start, stage, scenes, matching())
    work.step()
    assert math.isfinite(sum(work.losses.values())) and work.image.shape == (SIZE, SIZE, 3)


def test_recorded_frames_keep_their_jaws_and_get_new_eyes(start) -> None:
    jaws = torch.tensor([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]])
    frames = start.parameters.replace(jaw_pose=jaws)
    drawn = RecordedStates(frames).draw(40, np.random.default_rng(0))
    assert {round(float(jaw), 3) for jaw in drawn.jaw_pose[:, 0]} == {0.1, 0.2, 0.3}
    assert float(drawn.left_eye_pose.std()) > 0.05 and float(drawn.eyelids.std()) > 0.05
    assert RecordedStates(frames).fingerprint != RecordedStates(frames[1:]).fingerprint


def test_what_no_camera_can_see_is_refused(start) -> None:
    eyes = (RegionUse(CROP_REGIONS["left eye"]),)
    with pytest.raises(InvalidInput, match="see none of left eye"):
        scenes_of(start, eyes, cameras=CameraRanges(((1.0, 170.0, 190.0),))).at(0, 0)
    with pytest.raises(InvalidInput, match="0 regions"):
        scenes_of(start, ())


def one_step(start, objective, scenes, **changes):
    stage = Stage("score", 20, LearningRates(sh0=0.1))
    return AvatarOptimizer(start, stage, scenes, objective, **changes)


def test_crops_with_and_without_controlnet_are_two_calls(start) -> None:
    guidance = Wishes()
    scenes = scenes_of(start, poses=2, cameras=CameraRanges(((1.0, -20.0, 20.0),)))
    one_step(start, matching(guidance, rule="ism"), scenes).step()
    # Inversion without it, then the guided call: for crops of regions with, for whole pictures without.
    t, s, s0 = IntervalSchedule(300, 20).at(0)
    asked = [(step, on) for step, on, _ in guidance.calls]
    inversion = [(step, False) for step in (s0, s0 + 50, s0 + 100, s)]
    assert asked == [*inversion, (t, True), *inversion, (t, False)]
    assert [count for _, on, count in guidance.calls if on] == [8]
    assert sorted(set(guidance.texts)) == [
        "front view a young man, red hair", "front view left eye region, a young man",
        "front view mouth region, a young man", "front view right eye region, a young man",
    ]  # fmt: skip


def test_a_micro_batch_changes_nothing(start) -> None:
    def moments(count):
        optimizer = one_step(start, matching(rule="ism", micro_batch=count), scenes_of(start, poses=2))
        optimizer.step()
        return {name: value for name, value in optimizer.state().tensors.items() if "optimizer.first" in name}

    whole, parts = moments(16), moments(1)
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-5, atol=1e-9)


def test_the_gradient_is_the_difference_to_what_is_wished_and_nothing_where_pixels_are_ignored(start) -> None:
    """In closed form for a guidance that always sees one colour: images - colour, a mean over the poses."""
    for poses in (1, 2):
        scene = scenes_of(start, poses=poses, cameras=CameraRanges(((1.0, -5.0, 5.0),))).at(0, 0)
        images = torch.rand(*scene.ignored.shape, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        (loss,) = matching(weight=3.0).losses(Crops(images, images[..., 0], scene), 3).values()
        (gradient,) = torch.autograd.grad(loss, images)
        wanted = 3.0 * (images.detach() - torch.tensor(RED)) / poses
        assert scene.ignored.any()
        torch.testing.assert_close(gradient, wanted.masked_fill(scene.ignored[..., None], 0), rtol=1e-3, atol=1e-4)
        assert float(loss.detach()) == pytest.approx(float(gradient.abs().mean()), rel=1e-4)


@pytest.mark.parametrize("rule", ["sds", "ism"])
def test_the_avatar_becomes_what_is_wished(start, rule) -> None:
    uses = tuple(RegionUse(CROP_REGIONS[name]) for name in ("face", "mouth"))
    scenes = scenes_of(start, uses, poses=2, cameras=CameraRanges(((1.0, -30.0, 30.0),)))
    stage = Stage("score", 30, LearningRates(sh0=0.1))
    objective = matching(uses=uses, rule=rule, iterations=30)
    after = optimize_avatar(AvatarOptimizer(start, stage, scenes, objective))
    camera = orbit_cameras([0.0], [5.0], 64, target=(0.0, 0.36, 0.15), fov_degrees=10.0)

    def distance(avatar):
        seen = render_avatar_views(pose_avatar(avatar, avatar.parameters), camera, torch.ones(3))
        return float((seen.images - torch.tensor(RED))[seen.masks > 0.8].abs().mean())

    assert distance(after) < 0.6 * distance(start)


def test_a_stopped_stage_ends_as_one_that_was_not(start, tmp_path) -> None:
    def make():
        stage = Stage("score", 6, LearningRates(sh0=0.1))
        return AvatarOptimizer(start, stage, scenes_of(start), matching(rule="ism", iterations=6))

    whole = optimize_avatar(make())

    def cancel(step, total, preview):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize_avatar(make(), tmp_path, cancel)
    steps = []
    again = optimize_avatar(make(), tmp_path, lambda step, *_: steps.append(step))
    assert steps == [4, 5, 6]
    for field in dataclasses.fields(whole.gaussians):
        assert torch.equal(getattr(whole.gaussians, field.name), getattr(again.gaussians, field.name))
