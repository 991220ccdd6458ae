"""The one loop: a stage's scenes are rendered, an objective judges them, the avatar's Gaussians follow."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..avatar.densify import DensifySettings, densify, gather_gradients
from ..avatar.model import RiggedAvatar, pose_gaussians
from ..avatar.regularize import position_penalty, scale_penalty
from ..avatar.rig import AvatarRig
from ..avatar.table import GaussianTable
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..gaussians import Gaussians, sh_degree
from ..progress import Progress, stopped_by, tell_values
from ..randomness import generator_at, seed_at
from ..render import GaussianImage
from ..rigging import QuaternionOrder, TriangleFrames, triangle_frames
from ..runs import Run, RunState, automatic_run, carry_out
from .scenes import Scene, Scenes, render_pose
from .stage import Stage

LOGGER = logging.getLogger("animportrait3d")
MOST_SKIPPED = 10
"""Steps in a row without finite numbers, after which a stage ends: the next ones would have none either."""


@dataclasses.dataclass(frozen=True)
class Crops:
    """What an objective sees of a step.

    images: [C, H, W, 3] over the scene's background, not clamped; part of the graph, like alpha [C, H, W].
    """

    images: Tensor
    alpha: Tensor
    scene: Scene


class Objective(Protocol):
    """What the pictures of an avatar should be."""

    fingerprint: str
    """Changes with everything that the losses depend on."""

    def losses(self, crops: Crops, step: int) -> dict[str, Tensor]:
        """Weighted terms (scalars) whose sum is minimised."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the cameras of one pose saw.

    rendered: their images.  screen: [C, N, 2] gradients of the loss by the screen positions, per pixel.
    """

    rendered: GaussianImage
    screen: Tensor


class Hook(Protocol):
    """What is done to the table of Gaussians after a step, beside the optimiser's own work."""

    def after_step(self, table: GaussianTable, step: int, seen: Sequence[Seen]) -> None:
        """step: steps done.  seen: of each pose."""


class Densifier:
    """Gathers screen gradients, and adds Gaussians when it is time."""

    def __init__(self, settings: DensifySettings, rest: TriangleFrames, order: QuaternionOrder, seed: int) -> None:
        """rest: [F] frames of all body faces at rest.  order: of the avatar's quaternions."""
        self._settings, self._rest, self._order, self._seed = settings, rest, order, seed

    def after_step(self, table: GaussianTable, step: int, seen: Sequence[Seen]) -> None:
        """See `Hook`."""
        for one in seen:
            size = (one.rendered.color.shape[2], one.rendered.color.shape[1])
            for gradient, visible in zip(one.screen, one.rendered.info["visible"], strict=True):
                gather_gradients(table, gradient, visible, size)
        if self._settings.due(step):
            with torch.no_grad():
                densify(table, self._rest, self._settings, self._order, generator_at(self._seed, "densify", step))


class AvatarOptimizer:
    """A stage in work: one `step` at a time, with a `state` to go on from between any two (`runs.Work`).

    The avatar is copied, not changed. Works also when the caller is inside `torch.inference_mode()`. Everything that
    is drawn depends on (seed, stage, step). Bit for bit repeatable on the CPU; a GPU adds up gradients in any order.
    """

    may_stop_within_steps = True

    def __init__(
        self,
        avatar: RiggedAvatar,
        stage: Stage,
        scenes: Scenes,
        objective: Objective,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(avatar) == 0:
            raise InvalidInput(f"{stage.name}: the avatar has 0 Gaussians, expected at least 1.")
        avatar.gaussians.check_finite(stage.name)
        self.stage, self.scenes, self.objective = stage, scenes, objective
        self.steps, self.step_index = stage.iterations, 0
        self.losses: dict[str, float] = {}
        self.image: Tensor | None = None
        self.scene: Scene | None = None
        """Of the last step: terms of the loss, the first crop [H, W, 3], and what was looked at."""
        self.skipped = self._skipped_in_a_row = 0
        """Steps that changed nothing, because a loss or a gradient was not finite."""
        self._avatar, self._seed = avatar, seed_at(seed, stage.name)
        with torch.inference_mode(False), torch.no_grad():
            self._device = torch.device(device)
            self._rig = AvatarRig(avatar)
            self._rest = avatar.frames().detach().to(self._device)
            self._table = GaussianTable.of(avatar, self._device)
        self._hooks: list[Hook] = []
        if stage.densify.interval:
            self._hooks.append(Densifier(stage.densify, self._rest, avatar.quaternion_order, self._seed))

    def __len__(self) -> int:
        return len(self._table)

    def step(self) -> None:
        """One scene, one step of Adam, and what densification makes of it."""
        with torch.inference_mode(False), torch.enable_grad():
            scene = self.scenes.at(self.step_index, self._seed)
            renders = self._render(scene)
            colors, alphas = ([getattr(image, name) for image in renders] for name in ("color", "alpha"))
            crops = Crops(torch.cat(colors), torch.cat(alphas), scene)
            losses = {**self.objective.losses(crops, self.step_index), **self._penalties(renders)}
            gradients, seen = self._gradients(torch.stack(list(losses.values())).sum(), renders)
            with stopped_by(None):  # up to here nothing has changed
                self.losses = {name: float(value.detach()) for name, value in losses.items()}
                self.step_index += 1
                if self._are_finite(gradients):
                    self._update(gradients)
                    for hook in self._hooks:
                        hook.after_step(self._table, self.step_index, seen)
        self.image, self.scene = crops.images[0].detach(), scene

    def key(self) -> dict[str, str]:
        """All that the end depends on, by parts."""
        return {
            "avatar": fingerprint_of(self._avatar), "stage": repr(self.stage), "seed": str(self._seed),
            "scenes": self.scenes.fingerprint, "objective": self.objective.fingerprint,
        }  # fmt: skip

    def avatar(self) -> RiggedAvatar:
        """The avatar as it is after the last step, on the CPU."""
        with torch.inference_mode(False), torch.no_grad():
            values = self._table.gaussians()
            tensors = (getattr(values, field.name).detach() for field in dataclasses.fields(values))
            return dataclasses.replace(
                self._avatar,
                gaussians=Gaussians(*(value.to("cpu", copy=True) for value in tensors)),
                binding=self._table.binding.to("cpu", copy=True),
                part_id=self._table.part_id.to("cpu", copy=True),
            )

    def state(self) -> RunState:
        """The table of Gaussians with its optimiser, and the step."""
        values = {"step": self.step_index, "skipped": self.skipped, "in a row": self._skipped_in_a_row}
        return RunState(self._table.state_dict(), values)

    def restore(self, state: RunState) -> None:
        """Go on from a `state()` of the same avatar, stage, scenes, objective and seed."""
        with torch.inference_mode(False):
            self.step_index, self.skipped, self._skipped_in_a_row = (
                int(state.values[name]) for name in ("step", "skipped", "in a row")
            )
            self._table.load_state_dict({name: value.to(self._device) for name, value in state.tensors.items()})

    def _render(self, scene: Scene) -> list[GaussianImage]:
        """Images of the cameras of each pose."""
        return [render_pose(posed, scene, pose) for pose, posed in enumerate(self._posed(scene))]

    def _posed(self, scene: Scene) -> Iterator[Gaussians]:
        """The Gaussians in each pose of a scene."""
        gaussians = self._table.gaussians()
        reached = self.stage.first_sh_degree + self.step_index // self.stage.sh_interval
        degree = min(sh_degree(gaussians.sh), reached)
        gaussians = dataclasses.replace(gaussians, sh=gaussians.sh[:, : (degree + 1) ** 2])
        rest, order = self._rest[self._table.binding], self._avatar.quaternion_order
        if scene.parameters is None:
            yield pose_gaussians(gaussians, rest, quaternion_order=order)
            return
        vertices = self._rig.body(scene.parameters).vertices if scene.vertices is None else scene.vertices
        for posed in vertices.detach():
            frames = triangle_frames(posed, self._avatar.body.faces).to(self._device)
            yield pose_gaussians(gaussians, frames[self._table.binding], rest, order)

    def _penalties(self, renders: Sequence[GaussianImage]) -> dict[str, Tensor]:
        """What keeps Gaussians near their triangles and small."""
        rules, table = self.stage.regularizer, self._table
        visible = torch.cat([image.info["visible"] for image in renders]).any(dim=0)
        position = position_penalty(table.parameters["means"], table.anchor_means, visible, rules)
        scale = scale_penalty(table.parameters["log_scales"], table.anchor_log_scales, rules)
        return {"position": rules.position_weight * position, "scale": rules.scale_weight * scale}

    def _gradients(self, loss: Tensor, renders: Sequence[GaussianImage]) -> tuple[dict[str, Tensor], list[Seen]]:
        """Gradients of the tables, and of the screen positions of each pose; zeros where nothing was seen."""
        tables = self._table.parameters
        values = [*tables.values(), *(image.info["means2d"] for image in renders)]
        found = torch.autograd.grad(loss, values, allow_unused=True)
        filled = [torch.zeros_like(value) if grad is None else grad for grad, value in zip(found, values, strict=True)]
        # Back-ends differ in how they nest the rows of a camera.
        screens = zip(renders, filled[len(tables) :], strict=True)
        seen = [Seen(image, screen.reshape(len(image.color), len(self), 2)) for image, screen in screens]
        return dict(zip(tables, filled)), seen

    def _are_finite(self, gradients: dict[str, Tensor]) -> bool:
        """Whether the step counts. One that does not is passed over, as mixed precision overflows now and then."""
        sums = torch.stack([gradient.sum() for gradient in gradients.values()])
        if math.isfinite(sum(self.losses.values())) and bool(torch.isfinite(sums).all()):
            self._skipped_in_a_row = 0
            return True
        self.skipped, self._skipped_in_a_row = self.skipped + 1, self._skipped_in_a_row + 1
        if self._skipped_in_a_row >= MOST_SKIPPED:
            bad = [name for name, value in self.losses.items() if not math.isfinite(value)] or ["a gradient"]
            raise InvalidInput(
                f"{self.stage.name}: {', '.join(bad)} was not finite in {MOST_SKIPPED} steps in a row, up to step "
                f"{self.step_index}. A model in float16 may have overflowed: load it in float32 or bfloat16, or with a "
                "VAE that is made for float16."
            )
        return False

    def _update(self, gradients: dict[str, Tensor]) -> None:
        table, stage = self._table, self.stage
        if stage.frozen_parts:
            frozen = torch.isin(table.part_id, table.part_id.new_tensor(stage.frozen_parts))
            for gradient in gradients.values():
                gradient[frozen] = 0
        for hold in stage.holds:
            held = table.part_id == hold.part
            for name, gradient in gradients.items():
                if name in hold.tables:
                    gradient[held] = 0
        table.optimizer.step(table.parameters, gradients, stage.lrs.at(self.step_index - 1, self.steps))


def fingerprint_of(avatar: RiggedAvatar) -> str:
    """Hash of all that an avatar looks like and how it moves."""
    rig = (avatar.binding, avatar.part_id, avatar.parameters, avatar.quaternion_order, avatar.body.fingerprint)
    return fingerprint((avatar.gaussians, rig))


def first_crop(optimizer: AvatarOptimizer) -> Tensor | None:
    """What a step is shown by: its first crop [H, W, 3] in 0..1."""
    return None if optimizer.image is None else optimizer.image.clamp(0, 1).cpu()


def optimize_avatar(
    optimizer: AvatarOptimizer,
    runs: Path | None = None,
    progress: Progress | None = None,
    picture: Callable[[AvatarOptimizer], Tensor | None] | None = None,
    at_end: Callable[[Run], None] = Run.remove,
) -> RiggedAvatar:
    """Carry a stage out to its end.

    runs: folder of unfinished runs (`runs.automatic_run`); a stage that was stopped there goes on where it was. None:
    it begins anew each time.  progress: called after each step, with an image every `stage.preview_interval` steps;
    what it raises stops the stage, and its state is kept.  picture: the image, the step's first crop if None.
    at_end: what is done with the finished run; stages of several passes keep it until the last one is done.
    """
    stage = optimizer.stage
    run = None if runs is None else automatic_run(runs, stage.name, optimizer.key())

    def report() -> None:
        if progress is not None:
            done = optimizer.step_index
            shown = done % stage.preview_interval == 0 or done == stage.iterations
            tell_values(progress, optimizer.losses)
            progress(done, stage.iterations, (picture or first_crop)(optimizer) if shown else None)

    carry_out(optimizer, run, report)
    avatar = optimizer.avatar()
    if optimizer.skipped:
        LOGGER.warning(
            "%s: %d of %d steps were passed over, because a loss or a gradient was not finite.",
            stage.name, optimizer.skipped, stage.iterations,
        )  # fmt: skip
    if run is not None:
        at_end(run)
    return avatar
