"""The stages of dynamic optimization: their numbers, what they change, what they cost, and what they refuse."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.avatar.io import load_avatar, save_avatar
from animportrait3d_core.body.parameters import stack_parameters
from animportrait3d_core.diffusion import Prediction
from animportrait3d_core.diffusion.perceptual import VGG_FILE, LatentDistance, perceptual_distance
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.optimization.dynamic import OPEN_JAW, Staging, Workplace, optimize_regions, states_of
from animportrait3d_core.optimization.edits import EditSettings
from animportrait3d_core.optimization.presets import DRAFT, PRESETS, dynamic_stage
from animportrait3d_core.optimization.region_guidance import RegionGuidance, crops_per_call
from animportrait3d_core.optimization.region_scenes import CameraRanges
from animportrait3d_core.parts import AvatarPart
from tests.optimization.wishes import PROMPTS, Wishes

STAGES = ("eyes", "mouth", "full", "refine")
FRONT = CameraRanges(((1.0, -10.0, 10.0),))


@pytest.fixture(scope="module")
def start(make_avatar):
    return make_avatar(3000, seed=5)


def short(stage, steps=4, preset="standard"):
    """A stage of few steps with cameras that see all its regions."""
    (one, *_) = dynamic_stage(stage, preset, 2.0)
    return (dataclasses.replace(one.longer(steps / one.stage.iterations), cameras=FRONT),)


def changed_parts(before, after):
    moved = (before.gaussians.sh != after.gaussians.sh).flatten(1).any(1)
    return {AvatarPart(part) for part in before.part_id[moved].tolist()}


def test_paper_has_the_authors_numbers() -> None:
    (eyes,), (ism, again), (full,), (refine,) = (dynamic_stage(stage, "paper", 7.5) for stage in STAGES)
    assert [one.stage.iterations for one in (eyes, ism, again, full, refine)] == [500, 500, 500, 1000, 750]
    assert (eyes.asks.sampling.strength, eyes.asks.sampling.guidance_scale) == (0.9, pytest.approx(10))
    assert (again.asks.sampling.strength, refine.asks.sampling.strength) == (0.35, 0.3)
    assert (ism.asks.score.guidance_scale, full.asks.score.guidance_scale) == (7.5, pytest.approx(100))
    assert ism.asks.intervals.at(0)[0] == 750 and ism.asks.intervals.at(499)[0] == 15
    assert full.asks.intervals.at(0) == (300, 200, 50) and full.asks.intervals.at(600)[:2] == (128, 78)
    assert ism.asks.intervals.at(399)[0] - ism.asks.intervals.at(399)[1] == 51
    assert full.crops == pytest.approx(10.0) and ism.crops == pytest.approx(3.0)  # 0.7 (2 + 4/3) + 1 for each of three
    # method: 3221 calls in the inversions of 1000 steps, less 127 that repeat another; and the two of the guided one
    assert full.evaluations() == pytest.approx(10 * (3221 - 127 + 2000), rel=1e-3)
    assert all(use.controlled for use in (*eyes.uses, *ism.uses)) and not any(use.controlled for use in refine.uses)
    assert [use.controlled for use in full.uses] == [False, True, True, True, True]


@pytest.mark.parametrize("stage", STAGES)
def test_presets_differ_in_length_only_by_what_they_say(stage) -> None:
    for standard, draft in zip(*(dynamic_stage(stage, preset, 2.0) for preset in ("standard", "draft")), strict=True):
        ratio = draft.evaluations() / standard.evaluations()
        assert ratio == pytest.approx(DRAFT, rel=0.03)
        assert draft.stage.frozen_parts == standard.stage.frozen_parts and draft.uses == standard.uses
        if not isinstance(draft.asks, EditSettings):
            first, last = draft.asks.intervals.at(0), draft.asks.intervals.at(draft.stage.iterations - 1)
            assert first == standard.asks.intervals.at(0) and last[0] == 15


@pytest.mark.parametrize("stage", STAGES)
def test_the_cost_that_is_told_is_the_cost(start, stage) -> None:
    guidance, passes = Wishes(), short(stage)
    optimize_regions(start, guidance, PROMPTS, passes)
    guided = len(guidance.texts)
    asked = sum(pictures for _, _, pictures in guidance.calls) + guided  # a guided call asks twice
    assert asked == passes[0].evaluations()


@pytest.mark.parametrize(
    ("stage", "preset", "free"),
    [
        ("eyes", "standard", {AvatarPart.EYELIDS, AvatarPart.EYES}),
        ("mouth", "standard", {AvatarPart.TEETH, AvatarPart.MOUTH_INTERIOR, AvatarPart.LIPS}),
        ("mouth", "paper", {AvatarPart.TEETH, AvatarPart.MOUTH_INTERIOR}),
        ("full", "standard", set(AvatarPart)),
    ],
)
def test_a_stage_changes_what_it_is_for_and_nothing_else(start, stage, preset, free) -> None:
    after = optimize_regions(start, Wishes(), PROMPTS, short(stage, 6, preset))
    found = changed_parts(start, after)
    assert found <= free and found & {AvatarPart.EYES, AvatarPart.TEETH}


def test_only_regions_that_the_model_knows_are_asked_about(start) -> None:
    known = ("face", "left eye", "right eye", "mouth")
    (every,), (fewer,) = (dynamic_stage("full", "draft", 2.0, regions) for regions in (None, known))
    assert {use.region.name for use in every.uses} - {use.region.name for use in fewer.uses} == {"bust"}
    assert every.stage.frozen_parts == () and fewer.stage.frozen_parts == (AvatarPart.HAIR, AvatarPart.CLOTHES)
    assert not any(use.within_condition for use in every.uses) and all(use.within_condition for use in fewer.uses)
    guidance, passes = Wishes(), (fewer.longer(30 / fewer.stage.iterations).with_score(rule="sds"),)
    optimize_regions(start, guidance, PROMPTS, passes)
    assert {controlled for _, controlled, _ in guidance.calls} == {True}  # the bust alone goes without
    asked = sum(pictures for _, _, pictures in guidance.calls) + len(guidance.texts)
    assert asked == pytest.approx(passes[0].evaluations(), rel=0.1)  # cameras from behind are drawn again
    with pytest.raises(InvalidInput, match="pretrain_mouth: the model knows face, and none of mouth"):
        dynamic_stage("mouth", "draft", 2.0, ("face",))


def test_latents_stand_in_for_lpips_and_it_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (refine,) = dynamic_stage("refine", "paper", 7.5)
    assert re.search("latents stand in for LPIPS: .*vgg16-397923af.pth' is not there", refine.stand_in())
    assert dynamic_stage("refine", "standard", 7.5)[0].stand_in() == ""
    assert isinstance(perceptual_distance("lpips", Wishes()), LatentDistance)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / VGG_FILE).write_bytes(b"")
    assert refine.stand_in() == ""


def test_lpips_is_a_distance(monkeypatch, tmp_path) -> None:
    """torchmetrics' own, with drawn weights of VGG: nought for equal pictures, with a gradient towards them."""
    import torchvision

    drawn = torchvision.models.vgg16
    monkeypatch.setattr(torchvision.models, "vgg16", lambda weights: drawn(weights=None, init_weights=False))
    monkeypatch.setattr("animportrait3d_core.diffusion.perceptual.lpips_is_missing", lambda: "")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        distance = perceptual_distance("lpips", Wishes())
    assert distance.name == "LPIPS of VGG-16"
    wanted = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    images = (0.5 * wanted + 0.25).requires_grad_()
    assert float(distance(wanted, wanted)) == 0
    before = distance(images, wanted)
    (gradient,) = torch.autograd.grad(before, images)
    step = 1e-3 * gradient / gradient.norm()
    assert 0 < float(before.detach()) and float(distance(images.detach() - step, wanted)) < float(before.detach())


def test_poses_come_from_the_motion_where_there_is_one(start) -> None:
    rest = start.parameters
    jaws = [0.0, 0.05, 0.2, 0.4]
    frames = stack_parameters([
        rest.replace(
            jaw_pose=torch.tensor([[jaw, 0.0, 0.0]]), head_pose=rest.head_pose + 0.3, neck_pose=rest.neck_pose + 0.1
        )
        for jaw in jaws
    ])  # fmt: skip
    generator = np.random.default_rng(0)
    drawn = {stage: states_of(short(stage)[0], start, frames).draw(40, generator) for stage in STAGES}
    assert set(drawn["full"].jaw_pose[:, 0].tolist()) == set(frames.jaw_pose[:, 0].tolist())
    assert bool((drawn["mouth"].jaw_pose[:, 0] > OPEN_JAW).all())
    for stage in ("eyes", "mouth"):
        assert torch.equal(drawn[stage].head_pose, rest.head_pose.expand(40, -1))
        assert torch.equal(drawn[stage].neck_pose, rest.neck_pose.expand(40, -1))
    assert torch.equal(drawn["full"].head_pose, (rest.head_pose + 0.3).expand(40, -1))
    assert len(set(drawn["full"].eyelids[:, 0].tolist())) > 20  # lids and gaze are drawn anew


def test_what_cannot_be_learned_is_refused(start) -> None:
    closed = start.parameters.replace(jaw_pose=torch.tensor([[0.04, 0.0, 0.0]]))
    with pytest.raises(InvalidInput, match="jaws open by at most 0.04 rad"):
        optimize_regions(start, Wishes(), PROMPTS, short("mouth"), Staging(closed))
    bare = dataclasses.replace(start, part_id=torch.full_like(start.part_id, AvatarPart.HAIR))
    with pytest.raises(InvalidInput, match="no Gaussians of lips, teeth, mouth_interior"):
        optimize_regions(bare, Wishes(), PROMPTS, short("mouth"))
    with pytest.raises(InvalidInput, match="preset 'fast', expected one of draft, standard, paper"):
        dynamic_stage("eyes", "fast", 2.0)
    with pytest.raises(InvalidInput, match="stage 'ears'"):
        dynamic_stage("ears", PRESETS[0], 2.0)


class Overflowing(Wishes):
    """A guidance whose half precision overflows in some steps."""

    def __init__(self, steps):
        super().__init__()
        self._steps, self._asked = steps, 0

    def predict_guided_noise(self, *arguments, **named):
        found = super().predict_guided_noise(*arguments, **named)
        self._asked += 1
        bad = self._asked - 1 in self._steps
        return Prediction(found.eps * math.nan, found.x0) if bad else found


def test_a_passing_overflow_costs_a_step_and_is_told(start, caplog) -> None:
    after = optimize_regions(start, Overflowing({1, 3}), PROMPTS, short("mouth", 6))
    assert "pretrain_mouth: 2 of 6 steps were passed over" in caplog.text
    assert all(bool(torch.isfinite(value).all()) for value in vars(after.gaussians).values())
    assert changed_parts(start, after)


def test_a_guidance_that_only_overflows_ends_the_stage(start) -> None:
    with pytest.raises(InvalidInput, match="score was not finite in 10 steps in a row, up to step 12"):
        optimize_regions(start, Overflowing(set(range(2, 100))), PROMPTS, short("mouth", 40))


def test_a_stopped_stage_of_two_passes_goes_on_in_the_second(start, tmp_path) -> None:
    passes = tuple(
        dataclasses.replace(one.longer(4 / one.stage.iterations), cameras=FRONT)
        for one in dynamic_stage("mouth", "paper", 2.0)
    )
    whole = optimize_regions(start, Wishes(), PROMPTS, passes, Staging(seed=3))

    def stages(name):
        def progress(step, total, preview):
            if (name, step) == ("refine_mouth", 2):
                raise KeyboardInterrupt

        return progress

    with pytest.raises(KeyboardInterrupt):
        optimize_regions(start, Wishes(), PROMPTS, passes, Staging(seed=3), place=Workplace(tmp_path, stages))
    guidance = Wishes()
    again = optimize_regions(start, guidance, PROMPTS, passes, Staging(seed=3), place=Workplace(tmp_path))
    for name, value in vars(whole.gaussians).items():
        assert torch.equal(value, getattr(again.gaussians, name))
    assert guidance.calls == []  # neither the first pass nor the edits were made again
    assert list(tmp_path.iterdir()) == []


def test_the_picture_of_a_step_shows_crop_condition_and_wish(start) -> None:
    shown = []
    stages = lambda name: lambda step, total, preview: shown.append(preview)  # noqa: E731
    optimize_regions(start, Wishes(), PROMPTS, short("mouth"), place=Workplace(stages=stages))
    picture = shown[-1]
    assert picture.shape == (32, 4 * 32, 3) and 0 <= float(picture.min()) and float(picture.max()) <= 1
    assert float((picture[:, 96:] - Wishes().color).abs().max()) < 1e-3


def test_how_many_crops_go_into_a_call() -> None:
    small, large = Wishes(), Wishes()
    small.image_size, large.image_size = 128, 512
    assert crops_per_call(small) == 16 and crops_per_call(large) == 1
    with pytest.raises(InvalidInput, match="0 crops per call"):
        RegionGuidance(small, PROMPTS, (), micro_batch=0)


@pytest.mark.slow
def test_the_script_of_the_page_runs(make_avatar, tmp_path, monkeypatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dynamic-optimization.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    before = dataclasses.replace(make_avatar(500, seed=5), prompt=PROMPTS.prompt)
    save_avatar(before, tmp_path / "avatar.safetensors")
    monkeypatch.chdir(tmp_path)

    def brief(*asked):
        return tuple(one.longer(2 / one.stage.iterations) for one in dynamic_stage(*asked))

    monkeypatch.setattr("animportrait3d_core.optimization.presets.dynamic_stage", brief)
    exec(compile(script, "dynamic-optimization.md", "exec"), {})
    after = load_avatar(tmp_path / "avatar_dynamic.safetensors")
    assert {AvatarPart.EYES, AvatarPart.TEETH, AvatarPart.SKIN} <= changed_parts(before, after)
