"""Following edits: what is edited and how, that the avatar follows, and that nothing is made twice."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import pose_avatar, render_avatar_views
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.conditioning import CROP_REGIONS
from animportrait3d_core.diffusion import NoiseSchedule, Prediction
from animportrait3d_core.diffusion.sampling import SamplingSettings
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.optimization import Crops, LearningRates, Stage
from animportrait3d_core.optimization.edits import EditMaker, EditSettings, FollowEdits, follow_edits
from animportrait3d_core.optimization.region_guidance import RegionGuidance
from animportrait3d_core.optimization.region_scenes import CameraRanges, DrawnStates, RegionScenes, RegionUse
from tests.optimization.wishes import PROMPTS, RED, SIZE, USES, Wishes

SETTINGS = EditSettings(3, SamplingSettings(20, 7.5, strength=0.35))
STAGE = Stage("refine", 12, LearningRates(sh0=0.1))


@pytest.fixture(scope="module")
def start(make_avatar):
    return make_avatar(1500, seed=5)


def maker(avatar, guidance=None, settings=SETTINGS, uses=USES, micro_batch=9, **changes):
    """micro_batch: up to 9 crops are those of one scene of `USES`."""
    front = CameraRanges(((1.0, -10.0, 10.0),))
    scenes = RegionScenes(avatar, DrawnStates(avatar.parameters, "face"), uses, SIZE, front, **changes)
    return EditMaker(avatar, scenes, RegionGuidance(guidance or Wishes(), PROMPTS, uses, micro_batch), settings)


class Mirror(Wishes):
    """A guidance that likes what it sees: it takes the noise it was given for all the noise there is."""

    first = None

    def encode(self, images, noise=None):
        self.seen = images
        return super().encode(images, noise)

    def _seeing(self, latents, timesteps, color):
        self.first = latents if self.first is None else self.first
        abar = self.alphas_cumprod[timesteps]
        x0 = self.seen.permute(0, 3, 1, 2)
        return Prediction((latents - abar.sqrt() * x0) / (1 - abar).sqrt(), x0)


def test_edits_begin_at_the_frozen_avatar_and_end_where_the_guidance_leads(start) -> None:
    work = maker(start, Mirror(), poses=2)
    work.step()
    scene = work._scenes.at(0, 0)
    (kept,) = work.edits()
    seen = torch.cat([
        render_avatar_views(
            pose_avatar(start, scene.parameters[pose]), scene.cameras[scene.cameras_of(pose)], torch.ones(3)
        ).images
        for pose in range(2)
    ])  # fmt: skip
    assert float((kept - seen.clamp(0, 1)).abs().max()) < 0.01  # half of 1/255, and the sampler's rounding
    work = maker(start, Wishes())
    work.step()
    assert float((work.edits()[0] - torch.tensor(RED)).abs().max()) < 0.005


def test_edits_begin_with_the_pictures_under_the_noise_of_their_strength(start) -> None:
    guidance = Mirror()
    work = maker(start, guidance, uses=USES[1:], micro_batch=4)
    work.step()
    schedule = NoiseSchedule(guidance.alphas_cumprod)
    noise = work._asked.noise(work._scenes.at(0, 0), 0, "edit", 0)
    first = SETTINGS.sampling.timesteps(schedule)[0]
    torch.testing.assert_close(guidance.first, schedule.add_noise(guidance.seen.permute(0, 3, 1, 2), noise, first))
    assert 300 < first < 360


def test_calls_and_texts(start) -> None:
    guidance = Wishes()
    maker(start, guidance).step()
    assert len(guidance.calls) == 2 * 7  # int(20 x 0.35) steps, with the ControlNet and without
    assert [on for _, on, _ in guidance.calls] == [True] * 7 + [False] * 7
    assert guidance.calls[0][2] == 4 and guidance.calls[-1][2] == 1
    assert "left eye region, a young man" in guidance.texts and not any("view" in text for text in guidance.texts)


class Gradual(Wishes):
    """A guidance whose answer to a picture depends on that picture and its noise alone."""

    def _seeing(self, latents, timesteps, color):
        abar = self.alphas_cumprod[timesteps]
        x0 = 0.5 * latents.tanh() + 0.5 * color[:, None, None]
        return Prediction((latents - abar.sqrt() * x0) / (1 - abar).sqrt(), x0)


def test_scenes_that_are_edited_together_get_what_each_gets_alone(start) -> None:
    settings, together, alone = dataclasses.replace(SETTINGS, scenes=5), Gradual(), Gradual()
    many, one = maker(start, together, settings, micro_batch=13), maker(start, alone, settings)
    many.step()
    assert many.step_index == 2  # of five crops each; a third scene would be more than a call takes
    for work in (many, one):
        while work.step_index < work.steps:
            work.step()
    assert many.step_index == 5 and len(together.calls) == 3 * 14 and len(alone.calls) == 5 * 14
    for found, wanted in zip(many.edits(), one.edits(), strict=True):
        assert float((found - wanted).abs().max()) <= 1.01 / 255
    assert len({float(edit.mean()) for edit in many.edits()}) == 5


def test_a_cancel_within_a_step_leaves_what_was_made(start) -> None:
    settings, heard = dataclasses.replace(SETTINGS, scenes=4), []
    work = maker(start, settings=settings, micro_batch=10)
    work.step()

    def cancel() -> None:
        heard.append(work.step_index)
        if len(heard) == 3:
            raise KeyboardInterrupt

    work.on_the_way = cancel
    with pytest.raises(KeyboardInterrupt):
        work.step()
    assert work.step_index == 2 and len(work.edits()) == 2 and heard == [2, 2, 2]


def test_the_avatar_becomes_its_edits(start) -> None:
    uses = tuple(RegionUse(CROP_REGIONS[name]) for name in ("face", "mouth"))
    settings = dataclasses.replace(SETTINGS, scenes=4)
    after = follow_edits(maker(start, settings=settings, uses=uses), start, dataclasses.replace(STAGE, iterations=30))
    camera = orbit_cameras([0.0], [5.0], 64, target=(0.0, 0.36, 0.15), fov_degrees=10.0)

    def distance(avatar):
        seen = render_avatar_views(pose_avatar(avatar, avatar.parameters), camera, torch.ones(3))
        return float((seen.images - torch.tensor(RED))[seen.masks > 0.8].abs().mean())

    assert distance(after) < 0.6 * distance(start)


def test_losses_are_means_without_what_is_ignored(start) -> None:
    scene = maker(start)._scenes.at(0, 0)
    images = torch.rand(*scene.ignored.shape, 3, generator=torch.Generator().manual_seed(0))
    edits = [torch.zeros_like(images), torch.ones_like(images)]
    settings = dataclasses.replace(SETTINGS, l1_weight=0.8, l2_weight=0.5)
    kept = (~scene.ignored)[..., None]
    for step, wanted in ((0, 0.0), (1, 1.0), (2, 0.0)):
        found = FollowEdits(edits, settings).losses(Crops(images, images[..., 0], scene), step)
        difference = (images - wanted) * kept
        assert float(found["l1"]) == pytest.approx(0.8 * float(difference.abs().mean()), rel=1e-5)
        assert float(found["l2"]) == pytest.approx(0.5 * float(difference.square().mean()), rel=1e-5)
    assert set(FollowEdits(edits, SETTINGS).losses(Crops(images, images[..., 0], scene), 0)) == {"l1"}


@pytest.mark.parametrize("stop", [("edits", 2), ("refine", 5)])
def test_a_stopped_run_makes_nothing_twice_and_ends_equal(start, tmp_path, monkeypatch, stop) -> None:
    monkeypatch.setattr("animportrait3d_core.runs.Run.save_if_due", lambda run, work: None)  # only what must be saved
    whole = follow_edits(maker(start), start, STAGE)

    def stages(name):
        def progress(step, total, preview):
            if (name, step) == stop:
                raise KeyboardInterrupt

        return progress

    with pytest.raises(KeyboardInterrupt):
        follow_edits(maker(start), start, STAGE, tmp_path, stages)
    guidance, steps = Wishes(), []
    again = follow_edits(
        maker(start, guidance), start, STAGE, tmp_path, lambda name: lambda step, *_: steps.append((name, step))
    )
    assert len(guidance.calls) == (14 if stop[0] == "edits" else 0)  # one scene of three is left, or none
    # While a scene is edited, those before it are told.
    assert steps[0] == {"edits": ("edits", 2), "refine": ("refine", 6)}[stop[0]] and steps[-1] == ("refine", 12)
    assert steps == sorted(steps)
    for field in dataclasses.fields(whole.gaussians):
        assert torch.equal(getattr(whole.gaussians, field.name), getattr(again.gaussians, field.name))
    assert list(tmp_path.iterdir()) == []


def test_a_fit_poses_each_scene_once(start) -> None:
    work, made = maker(start), []
    for _ in range(SETTINGS.scenes):
        work.step()
    at = work._scenes.at
    work._scenes.at = lambda step, seed: made.append(step) or at(step, seed)
    optimizer = work.optimizer(start, STAGE)
    for _ in range(7):
        optimizer.step()
    assert made == [0, 1, 2]


def test_other_inputs_have_another_key(start) -> None:
    known = maker(start).key()
    moved = dataclasses.replace(
        start, gaussians=dataclasses.replace(start.gaussians, means=start.gaussians.means * 1.01)
    )
    assert maker(moved).key()["avatar"] != known["avatar"]
    assert maker(start, poses=2).key()["scenes"] != known["scenes"]
    assert maker(start, settings=dataclasses.replace(SETTINGS, scenes=4)).key()["settings"] != known["settings"]
    assert maker(start).key() == known


def test_settings_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(InvalidInput, match="0 scenes"):
        dataclasses.replace(SETTINGS, scenes=0)
    with pytest.raises(InvalidInput, match="all weights are 0"):
        dataclasses.replace(SETTINGS, l1_weight=0.0)
