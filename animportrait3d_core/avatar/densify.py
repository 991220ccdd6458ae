"""Densification: where the picture pulls hard at a Gaussian, one becomes two (Kerbl et al. 2023, section 5.2).

As in the authors' code nothing is pruned and no opacity is reset, so that no triangle ever loses its last Gaussian; new
Gaussians inherit the binding and the part. Mended: children of a split lie around their parent (the authors drop its
offset and put them around the middle of the triangle), and new Gaussians inherit how far their parent has moved (the
authors let the free way begin anew where they are created).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..rigging import Placement, QuaternionOrder, TriangleFrames, points_to_local, to_world
from ..rotations import quaternion_to_matrix
from .table import GaussianTable

SPLIT_SHRINK = 1.6
"""Children of a split are smaller than their parent by this factor (Kerbl et al.)."""


@dataclasses.dataclass(frozen=True)
class DensifySettings:
    """When and where Gaussians are added."""

    interval: int = 0
    """Steps between two densifications; 0 switches them off (the quickstart's budget of points is already even).
    200 in `paper`."""
    start: int = 200
    """First step of gathering gradients; 0 in `paper`."""
    stop: int = 1000
    """No densification from this step on, so that new Gaussians are still trained. 3000 in `paper`."""
    gradient_threshold: float = 2e-4
    """Mean gradient of the loss by the screen position, in normalised device coordinates (half the picture = 1)."""
    clone_scale: float = 0.0298471
    """World scale up to which a Gaussian is cloned; larger ones are split. 1 % of the authors' camera extent."""
    max_count: int = 60_000
    """No more Gaussians than this, the steepest first: a CPU's time grows with them. Unlimited in `paper`."""
    split_around_parent: bool = True
    """False in `paper`: children of a split are placed around the triangle's middle, the parent's offset is lost."""
    keep_displacement: bool = True
    """Whether the way that a parent has moved counts for its children too, so that generations of clones do not creep
    away from their triangle unseen by the position regulariser. False in `paper`."""

    def __post_init__(self) -> None:
        if self.interval < 0 or self.max_count < 1:
            raise InvalidInput(
                f"DensifySettings: `interval` {self.interval}, `max_count` {self.max_count}; expected at least 0 and 1."
            )

    @classmethod
    def paper(cls) -> DensifySettings:
        """The authors' schedule."""
        return cls(
            interval=200, start=0, stop=3000, max_count=2**31, split_around_parent=False, keep_displacement=False
        )

    def due(self, step: int) -> bool:
        """Whether to densify after `step` steps are done."""
        return self.interval > 0 and self.start < step < self.stop and step % self.interval == 0


def gather_gradients(table: GaussianTable, means2d_gradient: Tensor, visible: Tensor, size: tuple[int, int]) -> None:
    """Add one step's screen gradients [N, 2] (per pixel) of the visible [N] Gaussians; size = (width, height)."""
    half = means2d_gradient.new_tensor(size) / 2
    table.gradient_sum += (means2d_gradient * half).norm(dim=-1) * visible
    table.gradient_count += visible


def densify(
    table: GaussianTable,
    frames: TriangleFrames,
    settings: DensifySettings,
    quaternion_order: QuaternionOrder,
    generator: torch.Generator,
) -> int:
    """Clone and split the rows of `table`; frames: [F] of all body faces at rest. Returns the number of rows added."""
    chosen = _steepest(table, settings)
    if not len(chosen):
        table.gradient_sum.zero_()
        table.gradient_count.zero_()
        return 0
    rows = {name: value.detach()[chosen] for name, value in table.parameters.items()}
    frames = frames[table.binding[chosen]]
    world = to_world(frames, Placement(rows["means"], rows["quats"], rows["log_scales"]), quaternion_order)
    large = world.log_scales.amax(dim=-1) > math.log(settings.clone_scale)
    cloned, split = (~large).nonzero()[:, 0], large.nonzero()[:, 0].repeat(2)

    new = {name: torch.cat([value[cloned], value[split]]) for name, value in rows.items()}
    noise = torch.randn(len(split), 3, generator=generator).to(chosen.device) * world.log_scales[split].exp()
    offset = (quaternion_to_matrix(world.quats[split]) @ noise[..., None]).squeeze(-1)
    center = world.means[split] if settings.split_around_parent else frames.center[split]
    new["means"][len(cloned) :] = points_to_local(frames[split], center + offset)
    new["log_scales"][len(cloned) :] -= math.log(SPLIT_SHRINK)

    remains = torch.ones(len(table), dtype=torch.bool, device=chosen.device)
    remains[chosen[large]] = False
    before = len(table)
    parents = torch.cat([cloned, split])
    anchors = new["means"]
    if settings.keep_displacement:
        anchors = anchors - (rows["means"] - table.anchor_means[chosen])[parents]
    table.rebuild(remains.nonzero()[:, 0], new, chosen[parents], anchors)
    return len(table) - before


def _steepest(table: GaussianTable, settings: DensifySettings) -> Tensor:
    """Indices of the rows above the threshold, at most as many as the count may still grow."""
    mean = table.gradient_sum / table.gradient_count.clamp_min(1)
    candidates = (mean >= settings.gradient_threshold).nonzero()[:, 0]
    room = max(0, settings.max_count - len(table))
    order = torch.argsort(mean[candidates], descending=True, stable=True)
    return candidates[order[:room]].sort().values
