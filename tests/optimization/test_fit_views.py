"""Training: it learns, it can stop and go on, it leaves alone what it must, and its parts match their formulas."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import DensifySettings, RiggedAvatar, pose_avatar, render_avatar_views
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.optimization import FitViewsSettings, LearningRates, fit_to_views, views_optimizer
from animportrait3d_core.parts import AvatarPart
from animportrait3d_core.render import available_backends, gaussian_device
from animportrait3d_core.render.gsplat_gaussians import compile_extension
from animportrait3d_core.similarity import psnr
from animportrait3d_core.views import Views

SIZE = 48
WHITE = torch.ones(3)


@pytest.fixture(scope="module")
def truth(make_avatar) -> RiggedAvatar:
    return make_avatar(1200, seed=5)


@pytest.fixture(scope="module")
def views(truth: RiggedAvatar) -> Views:
    cameras = orbit_cameras([0.0, 60.0, -60.0, 120.0, -120.0, 180.0], [0.0, 10.0, 20.0, -10.0, 0.0, 5.0], SIZE)
    return render_avatar_views(pose_avatar(truth, truth.parameters), cameras, WHITE)


@pytest.fixture(scope="module")
def start(truth: RiggedAvatar) -> RiggedAvatar:
    """The truth with grey colours and smaller Gaussians."""
    gaussians = truth.gaussians
    changed = dataclasses.replace(gaussians, sh=torch.zeros_like(gaussians.sh), log_scales=gaussians.log_scales - 0.3)
    return dataclasses.replace(truth, gaussians=changed)


def fields(gaussians: Gaussians) -> dict[str, torch.Tensor]:
    return {field.name: getattr(gaussians, field.name) for field in dataclasses.fields(gaussians)}


def assert_equal(first: RiggedAvatar, second: RiggedAvatar) -> None:
    for name, value in fields(first.gaussians).items():
        assert torch.equal(value, getattr(second.gaussians, name)), name
    assert torch.equal(first.binding, second.binding)


def settings_of(background: str = "views", **stage) -> FitViewsSettings:
    return FitViewsSettings(background=background).with_stage(**stage)


def test_training_brings_an_unseen_view_closer(truth, start, views) -> None:
    camera = orbit_cameras([30.0], [5.0], SIZE)
    wanted = render_avatar_views(pose_avatar(truth, truth.parameters), camera, WHITE).images

    def likeness(avatar: RiggedAvatar) -> float:
        return psnr(render_avatar_views(pose_avatar(avatar, avatar.parameters), camera, WHITE).images, wanted)

    settings = settings_of(iterations=120, lrs=LearningRates(sh0=0.02))
    assert likeness(fit_to_views(start, views, settings)) > likeness(start) + 4


@pytest.mark.gpu
@pytest.mark.skipif(
    not next(backend.usable for backend in available_backends() if backend.name == "gaussians/gsplat"),
    reason="gaussians/gsplat cannot run here",
)
def test_a_gpu_trains_the_same_avatar(truth, start, views) -> None:
    """Same order, same splits, same steps: the two differ by rounding, which single Gaussians amplify."""
    assert compile_extension() == ""
    assert gaussian_device("cuda") == torch.device("cuda")
    settings = settings_of(
        "random", iterations=60, densify=DensifySettings(interval=20, start=0, gradient_threshold=3e-5)
    )
    pictures: list[torch.Tensor] = []

    def report(step: int, total: int, picture: torch.Tensor | None) -> None:
        pictures.extend([] if picture is None else [picture])

    cpu = fit_to_views(start, views, settings)
    gpu = fit_to_views(start, views, settings, 0, report, "cuda")
    assert len(pictures) == 2 and pictures[0].device.type == "cpu"
    assert {value.device.type for value in (*fields(gpu.gaussians).values(), gpu.binding, gpu.part_id)} == {"cpu"}
    assert len(gpu) == pytest.approx(len(cpu), rel=0.02) and len(gpu) > len(start) + 20
    first, second = (
        render_avatar_views(pose_avatar(trained, trained.parameters), views.cameras, WHITE).images
        for trained in (cpu, gpu)
    )
    assert psnr(first, second) > 40
    trainer = views_optimizer(start, views, settings, 0, "cuda")
    trainer.step()
    resumed = views_optimizer(start, views, settings, 0, "cuda")
    resumed.restore(trainer.state())
    assert torch.equal(resumed.avatar().gaussians.means, trainer.avatar().gaussians.means)


def test_stop_and_resume_ends_bit_identical(start, views) -> None:
    settings = settings_of(
        "random", iterations=16, densify=DensifySettings(interval=4, start=0, gradient_threshold=1e-6)
    )
    whole = views_optimizer(start, views, settings, 3)
    for _ in range(16):
        whole.step()
    first = views_optimizer(start, views, settings, 3)
    for _ in range(7):
        first.step()
    state = first.state()
    first.step()
    second = views_optimizer(start, views, settings, 3)
    second.restore(state)
    for _ in range(9):
        second.step()
    assert len(whole) > len(start)
    assert_equal(whole.avatar(), second.avatar())
    assert torch.equal(whole.avatar().part_id, second.avatar().part_id)


def test_the_seed_decides_everything(start, views) -> None:
    settings = settings_of(iterations=5)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = fit_to_views(start, views, settings, 7)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_equal(first, fit_to_views(start, views, settings, 7))
    other = fit_to_views(start, views, settings, 8)
    assert not torch.equal(first.gaussians.sh, other.gaussians.sh)


def test_training_works_inside_inference_mode_and_changes_no_input(start, views) -> None:
    before = {name: value.clone() for name, value in fields(start.gaussians).items()}
    outside = fit_to_views(start, views, settings_of(iterations=3))
    with torch.inference_mode():
        born_inside = dataclasses.replace(
            start, gaussians=Gaussians(*(value.clone() for value in fields(start.gaussians).values()))
        )
        inner_views = dataclasses.replace(views, images=views.images * 1.0, masks=views.masks * 1.0)
        inside = fit_to_views(born_inside, inner_views, settings_of(iterations=3))
    assert_equal(outside, inside)
    assert not inside.gaussians.means.is_inference()
    for name, value in fields(start.gaussians).items():
        assert torch.equal(value, before[name])


def test_mouth_and_teeth_stay_as_they_were(start, views) -> None:
    hidden = (start.part_id == AvatarPart.TEETH) | (start.part_id == AvatarPart.MOUTH_INTERIOR)
    assert hidden.sum() > 20
    trained = fit_to_views(start, views, settings_of(iterations=8))
    for name, value in fields(start.gaussians).items():
        assert torch.equal(getattr(trained.gaussians, name)[hidden], value[hidden]), name
    assert not torch.equal(trained.gaussians.sh[~hidden], start.gaussians.sh[~hidden])
    freed = fit_to_views(start, views, settings_of(iterations=8, frozen_parts=()))
    assert not torch.equal(freed.gaussians.sh[hidden], start.gaussians.sh[hidden])


def test_views_at_rest_paint_no_lids(start, views) -> None:
    """Their rims would take the white of the eye. They move, and everything else is painted."""
    lids = start.part_id == AvatarPart.EYELIDS
    assert lids.sum() > 10
    trained = fit_to_views(start, views, settings_of(iterations=8)).gaussians
    assert torch.equal(trained.sh[lids], start.gaussians.sh[lids])
    assert not torch.equal(trained.means[lids], start.gaussians.means[lids])
    for part in (AvatarPart.EYES, AvatarPart.SKIN):
        seen = start.part_id == part
        assert not torch.equal(trained.sh[seen], start.gaussians.sh[seen])
    freed = fit_to_views(start, views, settings_of(iterations=8, holds=())).gaussians
    assert not torch.equal(freed.sh[lids], start.gaussians.sh[lids])


def test_progress_reports_each_step_and_may_cancel(start, views) -> None:
    seen = []

    def report(step: int, total: int, preview) -> None:
        seen.append((step, total, None if preview is None else tuple(preview.shape)))
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_to_views(start, views, settings_of(iterations=9, preview_interval=2), 0, report)
    assert seen == [(1, 9, None), (2, 9, (SIZE, SIZE, 3)), (3, 9, None), (4, 9, (SIZE, SIZE, 3))]


def test_each_view_comes_once_a_round(start, views) -> None:
    scenes = views_optimizer(start, views, settings_of()).scenes
    rounds = [[int(scenes.at(step, 5).rows) for step in range(first, first + len(views))] for first in (0, len(views))]
    assert [sorted(one) for one in rounds] == [list(range(len(views)))] * 2
    assert rounds[0] != rounds[1]


def test_random_backgrounds_recomposite_the_views_exactly(truth, views) -> None:
    """The views' own avatar has no error over any background, but for the rounding of what was clamped."""
    optimizer = views_optimizer(truth, views, settings_of("random"))
    backgrounds = [optimizer.scenes.at(step, 5).background for step in range(2)]
    assert not torch.equal(*backgrounds)
    optimizer.step()
    assert optimizer.losses["l1"] < 2e-5 and optimizer.losses["alpha"] < 2e-6


def test_learning_rates_fall_to_the_final_share() -> None:
    lrs = LearningRates(means=1.0, final_share=0.25)
    assert lrs.at(0, 11)["means"] == 1.0
    assert lrs.at(5, 11)["means"] == pytest.approx(0.5)
    assert lrs.at(10, 11)["means"] == pytest.approx(0.25)


def test_paper_settings_are_the_authors_numbers() -> None:
    paper = FitViewsSettings.paper()
    stage = paper.stage
    assert (stage.iterations, paper.alpha_weight, stage.lrs.final_share) == (3000, 0.0, 1.0)
    assert stage.lrs.at(2999, 3000)["means"] == pytest.approx(1.4924e-3, rel=1e-4)
    assert (stage.lrs.at(0, 3000)["log_scales"], stage.lrs.at(0, 3000)["logit_opacities"]) == (0.0255, 0.075)
    assert (stage.regularizer.position_weight, stage.regularizer.scale_threshold) == (1e5, 0.2)
    assert [step for step in range(3001) if stage.densify.due(step)] == list(range(200, 3000, 200))


def test_bad_input_is_named(start, views) -> None:
    with pytest.raises(InvalidInput, match="0 views"):
        fit_to_views(start, views[[]])
    broken = dataclasses.replace(start.gaussians, means=start.gaussians.means * float("nan"))
    with pytest.raises(InvalidInput, match="initialize_avatar: `means` holds"):
        fit_to_views(dataclasses.replace(start, gaussians=broken), views)
    with pytest.raises(InvalidInput, match="`iterations` is 0"):
        settings_of(iterations=0)
    with pytest.raises(InvalidInput, match="`background` is 'black'"):
        FitViewsSettings(background="black")
