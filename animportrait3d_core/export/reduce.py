"""Level of detail: an avatar pruned to a budget and fitted once more, to pictures of the whole one."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..animation.clips import StressClipSettings, stress_clip
from ..avatar import RiggedAvatar, render_motion_views
from ..body.parameters import BodyParameters, stack_parameters
from ..cameras import concatenate_cameras, view_preset
from ..conditioning.states import StateRanges, sample_state, state_parameters
from ..errors import InvalidInput
from ..gaussians import MAX_SH_DEGREE
from ..optimization import FitViewsSettings, LearningRates, Stage, fit_to_views
from ..previews import tile
from ..progress import Stages, stage_of
from ..randomness import seed_at
from ..similarity import psnr
from ..views import Views
from .budget import within_budget

POSES_OF = ("bust", "face", "eyes", "mouth")
"""Kinds of poses (`conditioning.sample_state`) that the re-fit sees, in turn; between two of them it sees the rest."""
SHOWN = 5
MOST_STEPS = 100_000
SAME_PICTURES = 120.0
"""dB from which pictures are called the same: a thousandth of a step of 8 bits. Sums of other Gaussians' pixels are
rounded differently on some processors, also where the Gaussians left out weigh nothing."""


@dataclasses.dataclass(frozen=True)
class ReduceSettings:
    """How an avatar is made smaller."""

    budget: int
    """Gaussians at most."""
    steps: int = 300
    """Of the re-fit, one view each; 0 for none."""
    size: int = 256
    """Pixels per side of the pictures that it is fitted to and measured by."""
    lrs: LearningRates = LearningRates()

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidInput(f"reduce_avatar: a budget of {self.budget} Gaussians, expected at least 1.")
        if not 0 <= self.steps <= MOST_STEPS or not 16 <= self.size <= 2048:
            raise InvalidInput(
                f"reduce_avatar: {self.steps} steps at {self.size} pixels, expected 0 to {MOST_STEPS} steps at 16 to "
                "2048 pixels."
            )

    def stage(self) -> Stage:
        """No part is frozen, since the poses show them all; nothing is added, or the budget would not hold."""
        return Stage("reduce_avatar", self.steps, self.lrs, first_sh_degree=MAX_SH_DEGREE)


@dataclasses.dataclass(frozen=True)
class Reduction:
    """The smaller avatar, and what it cost.

    psnr_pruned, psnr: dB against the whole avatar's own pictures in poses and from cameras that the re-fit did not see,
    of the pruned avatar and of the one given back (infinite: no difference).  refitted: False where no re-fit was asked
    for or where it made those pictures worse, so that the pruned avatar is given back.  image: [H, W, 3], some of the
    pictures: of the whole avatar, of the pruned one, of the one given back.
    """

    avatar: RiggedAvatar
    whole: int
    steps: int
    psnr_pruned: float
    psnr: float
    refitted: bool
    image: Tensor

    def words(self) -> str:
        """For the user."""
        if len(self.avatar) == self.whole:
            return f"The avatar has {self.whole:,} Gaussians, which is within the budget: nothing was left out."
        kept = f"{len(self.avatar):,} of {self.whole:,} Gaussians"
        if not math.isfinite(self.psnr_pruned):
            return f"{kept}: no difference to the whole avatar in poses held out."
        text = f"{kept}: {self.psnr_pruned:.1f} dB against the whole avatar in poses held out"
        if self.refitted:
            return f"{text}, {self.psnr:.1f} dB after {self.steps} steps of re-fit."
        if self.steps:
            return f"{text}; {self.steps} steps of re-fit made that worse and were dropped, more may not."
        return f"{text}, without a re-fit."


def reduce_avatar(
    avatar: RiggedAvatar,
    settings: ReduceSettings,
    seed: int = 0,
    stages: Stages | None = None,
    device: torch.device | str = "cpu",
    runs: Path | None = None,
) -> Reduction:
    """The avatar with at most `settings.budget` Gaussians: those that weigh most, trained to look like all of them.

    seed: of poses and of their order.  stages: progress of 'views', 'held views' and 'fit', each of which may be
    stopped.  device, runs: see `fit_to_views`.
    """
    pruned, held = within_budget(avatar, settings.budget), held_views(avatar, settings.size, stages)
    kept, before = pruned, _like(pruned, held)
    after, pruned_db = before, _likeness(before, held)
    if settings.steps and pruned_db < math.inf:
        views = fitted_views(avatar, settings.size, seed, stages)
        rules = FitViewsSettings(settings.stage())
        fitted = fit_to_views(pruned, views, rules, seed, stage_of(stages, "fit"), device, runs)
        pictures = _like(fitted, held)
        if _likeness(pictures, held) > pruned_db:
            kept, after = fitted, pictures
    rows = [pictures[:: max(1, len(held) // SHOWN)][:SHOWN] for pictures in (held.images, before, after)]
    sheet = tile(torch.cat(rows), columns=len(rows[0]))
    return Reduction(kept, len(avatar), settings.steps, pruned_db, _likeness(after, held), kept is not pruned, sheet)


def fitted_views(avatar: RiggedAvatar, size: int, seed: int, stages: Stages | None = None) -> Views:
    """What the re-fit sees: 60 cameras all around and 24 of the face, every other one at rest, the others in poses of
    their own."""
    generator = np.random.default_rng(seed_at(seed, "reduce_avatar", "poses"))
    ranges = StateRanges(expressions=avatar.parameters.expression.shape[1])
    poses: list[BodyParameters] = []
    cameras = concatenate_cameras([view_preset(name, size) for name in ("quickstart", "face")])
    for index in range(len(cameras)):
        kind = POSES_OF[index // 2 % len(POSES_OF)]
        state = state_parameters(avatar.parameters, sample_state(kind, generator, ranges))
        poses.append(state if index % 2 else avatar.parameters)
    return render_motion_views(avatar, stack_parameters(poses), cameras, torch.ones(3), stage_of(stages, "views"))


def held_views(avatar: RiggedAvatar, size: int, stages: Stages | None = None) -> Views:
    """What it is measured by: the extremes of the stress clip, from the cameras that are held out everywhere."""
    extremes = stress_clip(avatar.body, avatar.parameters, settings=StressClipSettings(frames_per_move=1))
    cameras = view_preset("heldout", size)
    return render_motion_views(avatar, extremes.parameters, cameras, torch.ones(3), stage_of(stages, "held views"))


def _like(avatar: RiggedAvatar, views: Views) -> Tensor:
    """Pictures [B, H, W, 3] of an avatar in the poses of views."""
    frames = BodyParameters.from_tensors(views.body or {})
    return render_motion_views(avatar, frames, views.cameras, views.background).images


def _likeness(pictures: Tensor, held: Views) -> float:
    """PSNR in dB of pictures of the views; infinite where they are the same."""
    found = psnr(pictures, held.images)
    return math.inf if found >= SAME_PICTURES else found
