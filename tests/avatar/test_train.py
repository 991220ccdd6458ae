"""Training: it learns, it can stop and go on, it leaves alone what it must, and its parts match their formulas."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import (
    AvatarTrainer,
    DensifySettings,
    RegularizerSettings,
    RiggedAvatar,
    TrainSettings,
    pose_avatar,
    render_avatar_views,
    train_avatar,
)
from animportrait3d_core.avatar.adam import RowAdam
from animportrait3d_core.avatar.densify import SPLIT_SHRINK, densify, gather_gradients
from animportrait3d_core.avatar.regularize import position_penalty, scale_penalty
from animportrait3d_core.avatar.table import GaussianTable
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.parts import AvatarPart
from animportrait3d_core.render import available_backends, gaussian_device
from animportrait3d_core.render.gsplat_gaussians import compile_extension
from animportrait3d_core.rotations import quaternion_to_matrix
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


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_training_brings_an_unseen_view_closer(truth, start, views) -> None:
    camera = orbit_cameras([30.0], [5.0], SIZE)
    wanted = render_avatar_views(pose_avatar(truth, truth.parameters), camera, WHITE).images

    def likeness(avatar: RiggedAvatar) -> float:
        return psnr(render_avatar_views(pose_avatar(avatar, avatar.parameters), camera, WHITE).images, wanted)

    settings = TrainSettings(iterations=120, sh0_rate=0.02)
    assert likeness(train_avatar(start, views, settings, seeded())) > likeness(start) + 4


@pytest.mark.gpu
@pytest.mark.skipif(
    not next(backend.usable for backend in available_backends() if backend.name == "gaussians/gsplat"),
    reason="gaussians/gsplat cannot run here",
)
def test_a_gpu_trains_the_same_avatar(truth, start, views) -> None:
    """Same order, same splits, same steps: the two differ by rounding, which single Gaussians amplify."""
    assert compile_extension() == ""
    assert gaussian_device("cuda") == torch.device("cuda")
    settings = TrainSettings(
        iterations=60, background="random", densify=DensifySettings(interval=20, start=0, gradient_threshold=3e-5)
    )
    pictures: list[torch.Tensor] = []

    def report(step: int, total: int, picture: torch.Tensor | None) -> None:
        pictures.extend([] if picture is None else [picture])

    cpu = train_avatar(start, views, settings, seeded())
    gpu = train_avatar(start, views, settings, seeded(), report, "cuda")
    assert len(pictures) == 2 and pictures[0].device.type == "cpu"
    assert {value.device.type for value in (*fields(gpu.gaussians).values(), gpu.binding, gpu.part_id)} == {"cpu"}
    assert len(gpu) == pytest.approx(len(cpu), rel=0.02) and len(gpu) > len(start) + 20
    first, second = (
        render_avatar_views(pose_avatar(trained, trained.parameters), views.cameras, WHITE).images
        for trained in (cpu, gpu)
    )
    assert psnr(first, second) > 40
    trainer = AvatarTrainer(start, views, settings, seeded(), "cuda")
    trainer.step()
    resumed = AvatarTrainer(start, views, settings, seeded(9), "cuda")
    resumed.load_state_dict({name: value.cpu() for name, value in trainer.state_dict().items()})
    assert torch.equal(resumed.avatar().gaussians.means, trainer.avatar().gaussians.means)


def test_stop_and_resume_ends_bit_identical(start, views) -> None:
    settings = TrainSettings(
        iterations=16, background="random", densify=DensifySettings(interval=4, start=0, gradient_threshold=1e-6)
    )
    whole = AvatarTrainer(start, views, settings, seeded(3))
    for _ in range(16):
        whole.step()
    first = AvatarTrainer(start, views, settings, seeded(3))
    for _ in range(7):
        first.step()
    state = first.state_dict()
    first.step()
    second = AvatarTrainer(start, views, settings, seeded(99))
    second.load_state_dict(state)
    for _ in range(9):
        second.step()
    assert len(whole) > len(start)
    assert_equal(whole.avatar(), second.avatar())
    assert torch.equal(whole.avatar().part_id, second.avatar().part_id)


def test_the_generator_decides_everything_and_is_not_consumed(start, views) -> None:
    settings = TrainSettings(iterations=5)
    generator = seeded(7)
    before = generator.get_state()
    first = train_avatar(start, views, settings, generator)
    assert torch.equal(generator.get_state(), before)
    assert_equal(first, train_avatar(start, views, settings, seeded(7)))
    other = train_avatar(start, views, settings, seeded(8))
    assert not torch.equal(first.gaussians.sh, other.gaussians.sh)


def test_training_works_inside_inference_mode_and_changes_no_input(start, views) -> None:
    before = {name: value.clone() for name, value in fields(start.gaussians).items()}
    outside = train_avatar(start, views, TrainSettings(iterations=3), seeded())
    with torch.inference_mode():
        born_inside = dataclasses.replace(
            start, gaussians=Gaussians(*(value.clone() for value in fields(start.gaussians).values()))
        )
        inner_views = dataclasses.replace(views, images=views.images * 1.0, masks=views.masks * 1.0)
        inside = train_avatar(born_inside, inner_views, TrainSettings(iterations=3), seeded())
    assert_equal(outside, inside)
    assert not inside.gaussians.means.is_inference()
    for name, value in fields(start.gaussians).items():
        assert torch.equal(value, before[name])


def test_mouth_and_teeth_stay_as_they_were(start, views) -> None:
    hidden = (start.part_id == AvatarPart.TEETH) | (start.part_id == AvatarPart.MOUTH_INTERIOR)
    assert hidden.sum() > 20
    trained = train_avatar(start, views, TrainSettings(iterations=8), seeded())
    for name, value in fields(start.gaussians).items():
        assert torch.equal(getattr(trained.gaussians, name)[hidden], value[hidden]), name
    assert not torch.equal(trained.gaussians.sh[~hidden], start.gaussians.sh[~hidden])
    freed = train_avatar(start, views, TrainSettings(iterations=8, train_mouth=True), seeded())
    assert not torch.equal(freed.gaussians.sh[hidden], start.gaussians.sh[hidden])


def test_progress_reports_each_step_and_may_cancel(start, views) -> None:
    seen = []

    def report(step: int, total: int, preview) -> None:
        seen.append((step, total, None if preview is None else tuple(preview.shape)))
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_avatar(start, views, TrainSettings(iterations=9, preview_interval=2), seeded(), report)
    assert seen == [(1, 9, None), (2, 9, (SIZE, SIZE, 3)), (3, 9, None), (4, 9, (SIZE, SIZE, 3))]


def test_each_view_comes_once_a_round(start, views) -> None:
    trainer = AvatarTrainer(start, views, TrainSettings(), seeded())
    rounds = [[trainer._next_view() for _ in range(len(views))] for _ in range(2)]
    assert [sorted(one) for one in rounds] == [list(range(len(views)))] * 2
    assert rounds[0] != rounds[1]


def test_random_backgrounds_recomposite_the_views_exactly(truth, views) -> None:
    trainer = AvatarTrainer(truth, views, TrainSettings(background="random"), seeded())
    image, mask, background = trainer._target(1)
    expected = render_avatar_views(pose_avatar(truth, truth.parameters), views.cameras[1], background)
    torch.testing.assert_close(image.clamp(0, 1), expected.images, rtol=0, atol=2e-5)
    assert torch.equal(mask, views.masks[1:2])


def test_row_adam_is_adam() -> None:
    start = torch.randn(7, 3, generator=seeded(), dtype=torch.float64)
    reference = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.01, eps=1e-15)
    parameters = {"x": start.clone().requires_grad_()}
    rows = RowAdam(parameters)
    for step in range(12):
        gradient = torch.randn(7, 3, generator=seeded(step), dtype=torch.float64)
        reference.grad = gradient.clone()
        optimizer.step()
        rows.step(parameters, {"x": gradient}, {"x": 0.01})
    torch.testing.assert_close(parameters["x"], reference, rtol=0, atol=1e-12)


def test_penalties_match_their_formulas() -> None:
    means, anchors = torch.tensor([[3.0, 0, 0], [0, 0.5, 0], [0, 0, 9.0]]), torch.zeros(3, 3)
    anchors[0, 0] = -3.0
    visible = torch.tensor([True, True, False])
    way = RegularizerSettings(position_threshold=1.0)
    assert float(position_penalty(means, anchors, visible, way)) == pytest.approx((6 - 1) / 2)
    norm = dataclasses.replace(way, position_measure="norm")
    assert float(position_penalty(means, anchors, visible, norm)) == 0.0
    log_scales = torch.log(torch.tensor([[0.5, 0.6, 0.1], [0.1, 0.1, 0.1]]))
    start = torch.log(torch.full((2, 3), 0.1))
    absolute = RegularizerSettings(scale_measure="absolute", scale_threshold=0.2)
    assert float(scale_penalty(log_scales, start, absolute)) == pytest.approx((0.3**2 + 0.4**2) ** 0.5 / 2, rel=1e-5)
    relative = RegularizerSettings(scale_measure="relative", scale_threshold=2.0)
    assert float(scale_penalty(log_scales, start, relative)) == pytest.approx((3**2 + 4**2) ** 0.5 / 2, rel=1e-5)


@pytest.mark.parametrize("around_parent", [True, False])
def test_densification_keeps_binding_parts_and_every_face(truth, around_parent: bool) -> None:
    table = GaussianTable.of(truth)
    visible = torch.ones(len(truth), dtype=torch.bool)
    gradient = torch.zeros(len(truth), 2)
    gradient[::3, 0] = 1.0
    gather_gradients(table, gradient, visible, (SIZE, SIZE))
    frames = truth.frames()
    world = pose_avatar(truth, truth.parameters)
    table.anchor_means += 0.1 * torch.randn(table.anchor_means.shape, generator=seeded(8))  # all have moved
    started = table.anchor_means.clone()
    size = world.log_scales.amax(dim=-1)
    settings = DensifySettings(
        interval=1, clone_scale=float(size.median().exp()), split_around_parent=around_parent, gradient_threshold=1.0,
        keep_displacement=around_parent,
    )  # fmt: skip
    chosen = torch.arange(len(truth)) % 3 == 0
    split = chosen & (size > size.median())
    added = densify(table, frames, settings, "corrected", seeded())
    assert added == int(chosen.sum())
    assert len(table) == len(truth) + added == len(table.optimizer.first["means"])
    assert set(table.binding.tolist()) == set(truth.binding.tolist())
    parents_part = dict(zip(truth.binding.tolist(), truth.part_id.tolist(), strict=True))
    assert all(
        parents_part[face] == part for face, part in zip(table.binding.tolist(), table.part_id.tolist(), strict=True)
    )
    children = 2 * int(split.sum())
    born = {name: value.detach()[-children:] for name, value in table.parameters.items()}
    parents = split.nonzero()[:, 0].repeat(2)
    torch.testing.assert_close(
        born["log_scales"], truth.gaussians.log_scales[parents] - torch.log(torch.tensor(SPLIT_SHRINK))
    )
    center = frames[truth.binding[parents]].center if not around_parent else world.means[parents]
    grown = dataclasses.replace(truth, gaussians=table.gaussians(), binding=table.binding, part_id=table.part_id)
    placed = pose_avatar(grown, truth.parameters).means.detach()[-children:]
    # The children are draws of their parent: the same numbers, turned and scaled as the parent is.
    draws = torch.randn(children, 3, generator=seeded()) * world.scales[parents]
    offset = (quaternion_to_matrix(world.quats[parents]) @ draws[..., None])[..., 0]
    torch.testing.assert_close(placed, center + offset, rtol=0, atol=1e-5)
    added_rows = table.parameters["means"].detach()[-added - int(split.sum()) :]
    anchors = table.anchor_means[-len(added_rows) :]
    if around_parent:  # as far from home as the parent
        origin = torch.cat([(chosen & ~split).nonzero()[:, 0], parents])
        moved = (truth.gaussians.means - started)[origin]
        torch.testing.assert_close(added_rows - anchors, moved, rtol=0, atol=1e-5)
    else:
        assert torch.equal(anchors, added_rows)


def test_densification_keeps_the_moments_of_the_rows_that_stay(truth) -> None:
    table = GaussianTable.of(truth)
    count = len(truth)
    for name, value in table.optimizer.first.items():
        table.optimizer.first[name] = torch.arange(float(count)).view(-1, *[1] * (value.ndim - 1)).expand_as(value) + 1
        table.optimizer.second[name] = table.optimizer.first[name] * 2
    gradient = torch.zeros(count, 2)
    gradient[::4, 0] = 1.0
    gather_gradients(table, gradient, torch.ones(count, dtype=torch.bool), (SIZE, SIZE))
    size = pose_avatar(truth, truth.parameters).log_scales.amax(dim=-1)
    settings = DensifySettings(interval=1, clone_scale=float(size.median().exp()), gradient_threshold=1.0)
    split = (torch.arange(count) % 4 == 0) & (size > size.median())
    densify(table, truth.frames(), settings, "corrected", seeded())
    kept = torch.arange(count)[~split]
    for name in table.parameters:
        first, second = table.optimizer.first[name], table.optimizer.second[name]
        assert len(first) == len(second) == len(table)
        assert torch.equal(first.reshape(len(table), -1)[: len(kept), 0], kept + 1.0), name
        assert torch.equal(second[: len(kept)], 2 * first[: len(kept)])
        assert not first[len(kept) :].any() and not second[len(kept) :].any()
    assert torch.equal(table.gradient_count, torch.zeros(len(table)))


def test_the_count_never_passes_its_limit(truth) -> None:
    table = GaussianTable.of(truth)
    gather_gradients(table, torch.ones(len(truth), 2), torch.ones(len(truth), dtype=torch.bool), (SIZE, SIZE))
    settings = DensifySettings(interval=1, max_count=len(truth) + 10)
    assert densify(table, truth.frames(), settings, "corrected", seeded()) == 10


def test_learning_rates_fall_to_the_final_fraction() -> None:
    settings = TrainSettings(iterations=11, means_rate=1.0, final_rate=0.25)
    assert settings.rates(0)["means"] == 1.0
    assert settings.rates(5)["means"] == pytest.approx(0.5)
    assert settings.rates(10)["means"] == pytest.approx(0.25)


def test_paper_settings_are_the_authors_numbers() -> None:
    paper = TrainSettings.paper()
    assert (paper.iterations, paper.alpha_weight, paper.final_rate) == (3000, 0.0, 1.0)
    assert paper.rates(2999)["means"] == pytest.approx(1.4924e-3, rel=1e-4)
    assert (paper.rates(0)["log_scales"], paper.rates(0)["logit_opacities"]) == (0.0255, 0.075)
    assert (paper.regularizer.position_weight, paper.regularizer.scale_threshold) == (1e5, 0.2)
    assert [step for step in range(3001) if paper.densify.due(step)] == list(range(200, 3000, 200))


def test_bad_input_is_named(start, views) -> None:
    with pytest.raises(InvalidInput, match="0 views"):
        AvatarTrainer(start, views[[]], TrainSettings(), seeded())
    broken = dataclasses.replace(start.gaussians, means=start.gaussians.means * float("nan"))
    with pytest.raises(InvalidInput, match="train_avatar: `means` holds"):
        AvatarTrainer(dataclasses.replace(start, gaussians=broken), views, TrainSettings(), seeded())
    with pytest.raises(InvalidInput, match="`iterations` 0"):
        TrainSettings(iterations=0)
