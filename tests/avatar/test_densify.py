"""Tables of Gaussians in training: their optimiser, what holds them, and how rows are added."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import DensifySettings, RegularizerSettings, RiggedAvatar, pose_avatar
from animportrait3d_core.avatar.adam import RowAdam
from animportrait3d_core.avatar.densify import SPLIT_SHRINK, densify, gather_gradients
from animportrait3d_core.avatar.regularize import position_penalty, scale_penalty
from animportrait3d_core.avatar.table import GaussianTable
from animportrait3d_core.rotations import quaternion_to_matrix

SIZE = 48


@pytest.fixture(scope="module")
def truth(make_avatar) -> RiggedAvatar:
    return make_avatar(1200, seed=5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
