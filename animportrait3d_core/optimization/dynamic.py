"""Dynamic optimization (paper 3.2): stages that ask a guidance about the moving avatar, as data and in work.

A stage is one pass or several. A pass says which regions are asked about, in which poses, from where, by which rule
(`score_matching` or `edits`), and which Gaussians may change. `presets` holds those of the method.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..avatar.model import RiggedAvatar
from ..avatar.rig import AvatarRig
from ..body.parameters import BodyParameters
from ..conditioning import Prompts, StateRanges
from ..diffusion import Guidance
from ..diffusion.score import evaluations
from ..errors import InvalidInput
from ..parts import AVATAR_PARTS, AvatarPart
from ..previews import tile
from ..progress import Stages, stage_of
from ..randomness import seed_at
from ..runs import Run
from .anchor import Anchor, anchored_optimizer
from .edits import EditMaker, EditSettings, follow_edits
from .loop import AvatarOptimizer, optimize_avatar
from .region_guidance import RegionGuidance
from .region_scenes import CameraRanges, DrawnStates, RecordedStates, RegionScenes, RegionUse, States
from .scenes import Scenes, render_scene
from .score_matching import ScoreMatching, ScoreMatchingSettings
from .stage import Stage

OPEN_JAW = 0.1
"""Radians about x from which on a mouth counts as open (the authors' number)."""
_FULL_POSES = ("bust", "face")
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class RegionPass:
    """One pass of a stage.

    stage: its schedule; the parts it leaves alone.  kind: of `regions.IMAGE_REGIONS`, what the poses are for.  uses:
    regions and how they are asked about.  asks: the rule.  poses: in each step, with a camera on each.
    """

    stage: Stage
    kind: str
    uses: tuple[RegionUse, ...]
    asks: ScoreMatchingSettings | EditSettings
    cameras: CameraRanges = CameraRanges()
    poses: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.asks, ScoreMatchingSettings) and self.asks.intervals.iterations != self.stage.iterations:
            raise InvalidInput(
                f"{self.stage.name}: timesteps for {self.asks.intervals.iterations} steps of {self.stage.iterations}."
            )

    @property
    def crops(self) -> float:
        """Crops of one scene, on average."""
        return self.poses * self.cameras.mean_seen([use.region for use in self.uses])

    @property
    def asking(self) -> str:
        """The stage of progress in which the networks are asked (`Workplace.stages`)."""
        return "edits" if isinstance(self.asks, EditSettings) else self.stage.name

    def evaluations(self) -> int:
        """About how often the networks are asked about one picture, each half of a guided call counted."""
        if isinstance(self.asks, EditSettings):
            sampling = self.asks.sampling
            each = sampling.calls * (1 if sampling.guidance_scale == 1 else 2)
            return round(self.crops * self.asks.scenes * each)
        asks = self.asks
        steps = range(self.stage.iterations)
        return round(self.crops * sum(evaluations(asks.intervals.at(step), asks.score) for step in steps))

    def stand_in(self) -> str:
        """What the pass does otherwise than it says, and why; empty if nothing."""
        return self.asks.stand_in() if isinstance(self.asks, EditSettings) else ""

    def about(self, regions: Collection[str] | None) -> RegionPass:
        """The same about those of its regions that a model knows (`Guidance.regions`); all if None.

        Without the bust, hair and clothes stay as they are, and nothing is asked beside the face that the condition
        shows: of all that, the other crops show edges, about which neither words nor condition say anything.

        Raises `InvalidInput` if it knows none of them.
        """
        uses = tuple(use for use in self.uses if regions is None or use.region.name in regions)
        if not uses:
            names = ", ".join(use.region.name for use in self.uses)
            raise InvalidInput(
                f"{self.stage.name}: the model knows {', '.join(regions or ())}, and none of {names}, which this stage "
                "asks about; leave it out, or choose another model."
            )
        stage, dropped = self.stage, {use.region.name for use in self.uses} - {use.region.name for use in uses}
        if "bust" in dropped:
            frozen = {*stage.frozen_parts, AvatarPart.HAIR, AvatarPart.CLOTHES}
            stage = dataclasses.replace(stage, frozen_parts=tuple(sorted(map(int, frozen))))
            uses = tuple(dataclasses.replace(use, within_condition=True) for use in uses)
        return dataclasses.replace(self, uses=uses, stage=stage)

    def with_score(self, **changes: Any) -> RegionPass:
        """The same with other fields of the score rule; passes of edits have none and stay."""
        if isinstance(self.asks, EditSettings):
            return self
        score = dataclasses.replace(self.asks.score, **changes)
        return dataclasses.replace(self, asks=dataclasses.replace(self.asks, score=score))

    def with_sampling(self, **changes: Any) -> RegionPass:
        """The same with other fields of how edits are sampled; passes of scores have none and stay."""
        if isinstance(self.asks, ScoreMatchingSettings):
            return self
        sampling = dataclasses.replace(self.asks.sampling, **changes)
        return dataclasses.replace(self, asks=dataclasses.replace(self.asks, sampling=sampling))

    def longer(self, factor: float) -> RegionPass:
        """The same pass in `factor` times as many steps, and scenes for edits."""
        iterations = max(1, round(self.stage.iterations * factor))
        stage = dataclasses.replace(self.stage, iterations=iterations)
        if isinstance(self.asks, EditSettings):
            asks: EditSettings | ScoreMatchingSettings = dataclasses.replace(
                self.asks, scenes=max(1, round(self.asks.scenes * factor))
            )
        else:
            intervals = self.asks.intervals
            shrinking = max(1, round(intervals.interval_steps * factor))
            asks = dataclasses.replace(
                self.asks,
                intervals=dataclasses.replace(intervals, iterations=iterations, interval_steps=shrinking),
            )
        return dataclasses.replace(self, stage=stage, asks=asks)


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where passes are carried out; the result depends on none of it but for rounding.

    runs: folder of unfinished runs (`optimize_avatar`).  stages: progress by the name of each pass; edits have one of
    their own, "edits".  device: where Gaussians are rendered; the guidance is wherever it was loaded.  micro_batch:
    crops of a call, what the memory allows if None.
    """

    runs: Path | None = None
    stages: Stages | None = None
    device: torch.device | str = "cpu"
    micro_batch: int | None = None


@dataclasses.dataclass(frozen=True)
class Staging:
    """With what the passes of a stage are played.

    motion: [T] poses of the avatar's body to draw from; random ones if None.  seed: of all that is drawn.  anchor:
    views of the portrait that must stay.  background: see `RegionScenes`.
    """

    motion: BodyParameters | None = None
    seed: int = 0
    anchor: Anchor | None = None
    background: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Variant:
    """What an experiment puts in the place of a part.

    scenes: from those of a pass, what is looked at.  edit_maker: like `EditMaker`.
    """

    scenes: Callable[[Scenes], Scenes] = lambda scenes: scenes
    edit_maker: Callable[..., EditMaker] = EditMaker


def optimize_regions(
    avatar: RiggedAvatar,
    guidance: Guidance,
    prompts: Prompts,
    passes: tuple[RegionPass, ...],
    staging: Staging = Staging(),
    place: Workplace = Workplace(),
    variant: Variant = Variant(),
) -> RiggedAvatar:
    """Carry the passes of a stage out, one after the other.

    Raises `InvalidInput` for avatars without the parts of a pass, and for a motion without open mouths where mouths
    are learned.
    """
    finished: list[Run] = []
    near = None if staging.anchor is None else staging.anchor.resized(guidance.image_size)
    with guidance.session():
        for one in passes:
            _check_parts(avatar, one)
            scenes = variant.scenes(scenes_of(one, avatar, guidance.image_size, staging.motion, staging.background))
            asked = RegionGuidance(guidance, prompts, one.uses, place.micro_batch)
            own = seed_at(staging.seed, one.stage.name)
            if isinstance(one.asks, EditSettings):
                maker = variant.edit_maker(avatar, scenes, asked, one.asks, own)
                avatar = follow_edits(
                    maker, avatar, one.stage, place.runs, place.stages, place.device, finished.append, near
                )
            else:
                avatar = _follow_scores(one, avatar, scenes, asked, own, near, place, finished.append)
    for run in finished:
        run.remove()
    return avatar


def _follow_scores(
    one: RegionPass, avatar: RiggedAvatar, scenes: Scenes, asked: RegionGuidance, seed: int, near: Anchor | None,
    place: Workplace, at_end: Callable[[Run], None],
) -> RiggedAvatar:  # fmt: skip
    """A pass of scores; edits have `follow_edits`."""
    assert isinstance(one.asks, ScoreMatchingSettings)
    objective = ScoreMatching(asked, one.asks, seed)
    optimizer = anchored_optimizer(avatar, one.stage, scenes, objective, near, seed, place.device)
    progress = stage_of(place.stages, one.stage.name)
    return optimize_avatar(optimizer, place.runs, progress, functools.partial(_strip, objective), at_end)


def scenes_of(
    one: RegionPass,
    avatar: RiggedAvatar,
    size: int,
    motion: BodyParameters | None = None,
    background: Tensor | None = None,
) -> RegionScenes:
    """What a pass looks at, in crops of `size` pixels.  motion: poses to draw from, random ones if None."""
    states = states_of(one, avatar, motion)
    return RegionScenes(avatar, states, one.uses, size, one.cameras, one.poses, background)


def states_of(one: RegionPass, avatar: RiggedAvatar, motion: BodyParameters | None) -> States:
    """Where the poses of a pass come from. Eyes and mouths are learned on an upright head, as in the authors' code."""
    ranges = _ranges(avatar)
    if motion is None:
        return DrawnStates(avatar.parameters, one.kind, ranges)
    if one.kind == "mouth":
        is_open = motion.jaw_pose[:, 0] > OPEN_JAW
        if not bool(is_open.any()):
            raise InvalidInput(
                f"{one.stage.name}: the motion's {len(motion)} frames have jaws open by at most "
                f"{float(motion.jaw_pose[:, 0].max()):.2f} rad, expected one of more than {OPEN_JAW}; choose a motion "
                "that speaks or yawns, or none."
            )
        motion = motion[is_open.nonzero()[:, 0].tolist()]
    if one.kind not in _FULL_POSES:
        rest = avatar.parameters
        motion = motion.replace(
            neck_pose=rest.neck_pose.expand(len(motion), -1), head_pose=rest.head_pose.expand(len(motion), -1)
        )
    return RecordedStates(motion, ranges)


def parts_but(*free: AvatarPart) -> tuple[int, ...]:
    """All other parts: what a pass over these few leaves alone."""
    return tuple(part for part in range(len(AVATAR_PARTS)) if part not in free)


def before_and_after(before: RiggedAvatar, after: RiggedAvatar, one: RegionPass, size: int = 192) -> Tensor:
    """A picture [H, W, 3]: crops of a pass's regions in random poses, of one avatar above, of the other below."""
    states = DrawnStates(before.parameters, one.kind, _ranges(before))
    scenes = RegionScenes(before, states, one.uses, size, CameraRanges(((1.0, -25.0, 25.0),)))
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    with torch.inference_mode(False), torch.no_grad():
        rigs = [AvatarRig(avatar) for avatar in (before, after)]
        for number in range(_SHOWN):
            scene = scenes.at(number, 0)
            shown = number % len(scene.cameras)
            for row, rig in zip(rows, rigs, strict=True):
                row.append(render_scene(rig, scene)[shown])
    return tile(torch.stack([*rows[0], *rows[1]]), _SHOWN)


def _ranges(avatar: RiggedAvatar) -> StateRanges:
    return StateRanges(expressions=avatar.parameters.expression.shape[1])


def _check_parts(avatar: RiggedAvatar, one: RegionPass) -> None:
    """Some Gaussians must be free to follow."""
    frozen = torch.tensor(one.stage.frozen_parts, dtype=avatar.part_id.dtype)
    if bool(torch.isin(avatar.part_id, frozen).all()):
        free = [name for part, name in enumerate(AVATAR_PARTS) if part not in one.stage.frozen_parts]
        raise InvalidInput(
            f"{one.stage.name}: the avatar has no Gaussians of {', '.join(free)}, which are all that this stage "
            "changes; rig points to these regions (AP3D_RigPoints), or leave the stage out."
        )


def _strip(asks: ScoreMatching, work: AvatarOptimizer) -> Tensor | None:
    """What a step is shown by [S, n S, 3]: a crop, its normals and labels, and what the guidance would make of it."""
    if work.image is None or work.scene is None:
        return None
    tiles = [work.image.clamp(0, 1).cpu()]
    if work.scene.conditions is not None:
        condition = work.scene.conditions[0].cpu()
        tiles += [condition[..., :3], condition[..., 3:].expand(-1, -1, 3)]
    picture = asks.picture()
    return torch.cat(tiles if picture is None else [*tiles, picture], dim=1)
