"""Following edits: the avatar is trained on pictures that a guidance made of it as it was (SDEdit; eyes, refinement).

The pictures come from a frozen copy of the avatar (paper equations 1 and 5; A1.6), so that they are made ahead, in
batches, once: a stopped run finds them again, and a fit may look at each several times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..avatar.model import RiggedAvatar
from ..avatar.rig import AvatarRig
from ..diffusion.perceptual import Features, PerceptualDistance, lpips_is_missing, perceptual_distance
from ..diffusion.sampling import Conditioning, SamplingSettings, StartingPoint, sample
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..progress import Stages, stage_of
from ..randomness import generator_at
from ..runs import Run, RunState, automatic_run, carry_out
from .anchor import Anchor, anchored_optimizer
from .loop import AvatarOptimizer, Crops, fingerprint_of, optimize_avatar
from .region_guidance import RegionGuidance
from .scenes import Scene, Scenes, render_scene
from .stage import Stage


@dataclasses.dataclass(frozen=True)
class EditSettings:
    """scenes: how many are edited; the fit goes around them.  sampling: of the edits, `strength` of how much.

    l1_weight, l2_weight: of the mean absolute and squared difference to the edits.  perceptual_weight: of their
    distance by `features` of a network; latents of the guidance stand in for LPIPS where its files are not there.
    """

    scenes: int
    sampling: SamplingSettings
    l1_weight: float = 0.8
    l2_weight: float = 0.0
    perceptual_weight: float = 0.0
    features: Features = "latents"

    def __post_init__(self) -> None:
        if self.scenes < 1:
            raise InvalidInput(f"EditSettings: {self.scenes} scenes, expected at least 1.")
        if not max(self.l1_weight, self.l2_weight, self.perceptual_weight) > 0:
            raise InvalidInput("EditSettings: all weights are 0, so that the edits would not be looked at.")

    def stand_in(self) -> str:
        """Why the features are not those that are asked for; empty if they are."""
        missing = lpips_is_missing() if self.perceptual_weight and self.features == "lpips" else ""
        return missing and f"the model's own latents stand in for LPIPS: {missing}"


class EditMaker:
    """Edits of an avatar (`runs.Work`), in each step of as many scenes as fill a call of the guidance; what is counted
    are scenes. Texts have no view word, as in the authors' code."""

    may_stop_within_steps = True

    def __init__(
        self, avatar: RiggedAvatar, scenes: Scenes, asked: RegionGuidance, settings: EditSettings, seed: int = 0
    ) -> None:
        self._avatar, self._rig, self._scenes = avatar, AvatarRig(avatar), scenes
        self._asked, self._settings, self._seed = asked, settings, seed
        self.steps, self.step_index = settings.scenes, 0
        self._edits: list[Tensor] = []
        self.shown: Tensor | None = None
        """The last scene's first crop beside its edit [H, 2 W, 3]."""
        self.on_the_way: Callable[[], None] = lambda: None
        """Called after each call of the guidance: a step takes long, and may be cancelled within."""

    def key(self) -> dict[str, str]:
        """All that the edits depend on, by parts."""
        return {
            "avatar": fingerprint_of(self._avatar), "scenes": self._scenes.fingerprint,
            "guidance": self._asked.fingerprint, "settings": fingerprint(self._settings), "seed": str(self._seed),
        }  # fmt: skip

    def step(self) -> None:
        """Edit the crops of some scenes."""
        with torch.inference_mode(False), torch.no_grad():
            scenes = self._next_scenes()
            images = [render_scene(self._rig, scene) for scene in scenes]
            edited = self._edit(scenes, torch.cat(images))
            # As pictures are kept everywhere: a resumed run sees what an unbroken one does.
            kept = (edited.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
            self._edits += [one.clone() for one in kept.split([len(one) for one in images])]
            self.step_index += len(scenes)
        self.shown = torch.cat([images[-1][0].cpu(), self._edits[-1][0].float() / 255], 1)

    def _next_scenes(self) -> list[Scene]:
        """The scenes of a step: at least one, and no more crops than a call takes."""
        first = self._scenes.at(self.step_index, self._seed)
        count = max(1, self._asked.micro_batch // len(first.cameras))
        others = range(self.step_index + 1, min(self.step_index + count, self.steps))
        return [first, *(self._scenes.at(number, self._seed) for number in others)]

    def edits(self) -> list[Tensor]:
        """Pictures [C, H, W, 3] in 0..1 of each scene done."""
        return [edited.float() / 255 for edited in self._edits]

    def optimizer(
        self, avatar: RiggedAvatar, stage: Stage, device: torch.device | str = "cpu", anchor: Anchor | None = None
    ) -> AvatarOptimizer:
        """What trains an avatar on the edits, all of which must be made."""
        scenes = RepeatedScenes(self._scenes, self.steps, self._seed)
        perceptual = None
        if self._settings.perceptual_weight:
            perceptual = perceptual_distance(self._settings.features, self._asked.guidance, device)
        objective = FollowEdits(self.edits(), self._settings, perceptual, device)
        return anchored_optimizer(avatar, stage, scenes, objective, anchor, self._seed, device)

    def state(self) -> RunState:
        """The edits made so far."""
        tensors = {f"scene_{number:05d}": edited for number, edited in enumerate(self._edits)}
        return RunState(tensors, {"step": self.step_index})

    def restore(self, state: RunState) -> None:
        """Go on from a `state()` of edits with the same key."""
        self.step_index = int(state.values["step"])
        self._edits = [state.tensors[name] for name in sorted(state.tensors)]

    def _edit(self, scenes: Sequence[Scene], images: Tensor) -> Tensor:
        """Edits [C, H, W, 3] of the crops of scenes, one after the other."""
        asked, guidance = self._asked, self._asked.guidance
        rows = [row for scene in scenes if scene.rows is not None for row in scene.rows.tolist()]
        noise, posterior = (
            torch.cat([
                asked.noise(scene, self._seed, name, number) for number, scene in enumerate(scenes, self.step_index)
            ])
            for name in ("edit", "edit's posterior")
        )  # fmt: skip
        conditions = [scene.conditions for scene in scenes if scene.conditions is not None]
        edited = torch.empty_like(images)
        for part, controlled in asked.parts(rows):
            condition = torch.cat(conditions)[part] if controlled and conditions else None
            told = Conditioning(asked.text([rows[k] for k in part.tolist()]), asked.negative, condition)
            on_the_way = generator_at(self._seed, "on the way", self.step_index, int(part[0]))
            start = StartingPoint(noise[part], guidance.encode(images[part], posterior[part]), on_the_way)
            found = sample(guidance, self._settings.sampling, told, start, lambda *_: self.on_the_way(), previews=0)
            edited[part] = guidance.decode(found).to(edited)
        return edited


class RepeatedScenes:
    """The first `count` scenes of others, around and around; each is made once."""

    def __init__(self, scenes: Scenes, count: int, seed: int) -> None:
        """seed: what the edits were made with."""
        self._scenes, self._count, self._seed = scenes, count, seed
        self._known: dict[int, Scene] = {}
        self.fingerprint = fingerprint(("repeated", scenes.fingerprint, count, seed))

    def at(self, step: int, seed: int) -> Scene:
        """The scene of a step."""
        number = step % self._count
        if number not in self._known:
            # A fit asks for no condition maps, which are the larger part of a scene.
            self._known[number] = dataclasses.replace(self._scenes.at(number, self._seed), conditions=None)
        return self._known[number]


class FollowEdits:
    """An `Objective`: crops become their edits."""

    def __init__(
        self,
        edits: list[Tensor],
        settings: EditSettings,
        perceptual: PerceptualDistance | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """edits: [C, H, W, 3] of each of `RepeatedScenes`.  perceptual: where the settings give it a weight."""
        self._edits, self._settings, self._device = edits, settings, torch.device(device)
        self._perceptual = perceptual
        weights = (settings.l1_weight, settings.l2_weight, settings.perceptual_weight)
        self.fingerprint = fingerprint(("follow edits", edits, weights, perceptual and perceptual.name))

    def losses(self, crops: Crops, step: int) -> dict[str, Tensor]:
        """Weighted means over all crops; what the scene ignores counts as equal."""
        images, wanted = crops.images, self._edits[step % len(self._edits)].to(self._device)
        if crops.scene.ignored is not None:
            ignored = crops.scene.ignored[..., None].to(images.device)
            # Equal, and no way for a gradient: neither side is asked to look like the other there.
            images = torch.where(ignored, wanted, images)
        difference, losses = images - wanted, {}
        if self._settings.l1_weight:
            losses["l1"] = self._settings.l1_weight * difference.abs().mean()
        if self._settings.l2_weight:
            losses["l2"] = self._settings.l2_weight * difference.square().mean()
        if self._perceptual is not None:
            losses["perceptual"] = self._settings.perceptual_weight * self._perceptual(images, wanted)
        return losses


def follow_edits(
    maker: EditMaker, avatar: RiggedAvatar, stage: Stage, runs: Path | None = None, stages: Stages | None = None,
    device: torch.device | str = "cpu", at_end: Callable[[Run], None] = Run.remove, anchor: Anchor | None = None,
) -> RiggedAvatar:  # fmt: skip
    """Make the edits of a frozen avatar, then train `avatar` on them; both go on where they were stopped.

    stages: progress of "edits" and of the stage's own name.  at_end: see `optimize_avatar`.
    """
    run = None if runs is None else automatic_run(runs, f"{stage.name}_edits", maker.key())
    progress = stage_of(stages, "edits")

    def report() -> None:
        if progress is not None:
            progress(maker.step_index, maker.steps, maker.shown)

    maker.on_the_way = report
    carry_out(maker, run, report)
    if run is not None:
        run.save(maker)
    optimizer = maker.optimizer(avatar, stage, device, anchor)
    trained = optimize_avatar(optimizer, runs, stage_of(stages, stage.name), at_end=at_end)
    if run is not None:
        at_end(run)
    return trained
