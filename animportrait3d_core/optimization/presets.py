"""The stages of dynamic optimization (paper 3.2 and A1.6) in three lengths, as data.

`paper` has the numbers of the authors' code. `standard` and `draft` are made for two CPU cores and pictures of 128
pixels: fewer steps, several regions of a pose in one call, and every edit looked at more than once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from ..avatar.densify import DensifySettings
from ..avatar.regularize import RegularizerSettings
from ..conditioning import CROP_REGIONS
from ..diffusion.sampling import SamplingSettings
from ..diffusion.score import IntervalSchedule, ScoreSettings
from ..errors import InvalidInput
from ..parts import AvatarPart
from .dynamic import RegionPass, parts_but
from .edits import EditSettings
from .region_scenes import CameraRanges, RegionUse
from .score_matching import ScoreMatchingSettings
from .stage import PAPER_EXTENT, LearningRates, Stage

PRESETS = ("draft", "standard", "paper")
DRAFT = 0.3
"""Length of `draft` as a share of `standard`."""

_EYES = tuple(RegionUse(CROP_REGIONS[name]) for name in ("left eye", "right eye"))
_MOUTH = (RegionUse(CROP_REGIONS["mouth"]),)
_BUST = RegionUse(CROP_REGIONS["bust"], controlled=False, excluded=CROP_REGIONS["face"])
_FULL = (_BUST, RegionUse(CROP_REGIONS["face"]), *_EYES, *_MOUTH)
_REFINED = tuple(dataclasses.replace(use, controlled=False) for use in _FULL)

_AROUND = CameraRanges(((0.7, -90.0, 90.0), (0.3, 90.0, 270.0)))
_OF_EYES, _OF_MOUTHS = CameraRanges(((1.0, -75.0, 75.0),)), CameraRanges(((1.0, -50.0, 50.0),))

_EYE_PARTS = parts_but(AvatarPart.EYELIDS, AvatarPart.EYES)
_MOUTH_PARTS = parts_but(AvatarPart.TEETH, AvatarPart.MOUTH_INTERIOR)
# Lips too: where they end is what an open mouth looks wrong by, and a mouth that moves inside of lips that do not gains
# a quarter of what both gain together.
_MOUTH_AND_LIPS = parts_but(AvatarPart.TEETH, AvatarPart.MOUTH_INTERIOR, AvatarPart.LIPS)

_SCORE_WEIGHT = 1e-4
"""Scores are sums over latents, the regularisers means over Gaussians: this makes them comparable."""

_CAREFUL = LearningRates(means=2e-3, log_scales=8e-3, opacities=0.02, sh0=6e-3)
"""Of scores on the whole avatar. They have no end at which they would vanish, and Adam makes steps of full size of the
smallest of them: at the usual rates skin and hair drift where no view of the portrait holds them (`psnr_image` of one
person, close frames: 28.36 dB before, 27.04 at the usual rates, 29.03 at these)."""
_COLORS_MOSTLY = LearningRates(means=1e-3, log_scales=4e-3, opacities=0.01, sh0=1.2e-2)
"""Of edits of the whole avatar, whose edges are not where the avatar's are."""
_PAPER_RATES = LearningRates(means=1e-5 * PAPER_EXTENT, sh0=3.75e-3, final_share=1.0)
_PAPER_RULES = RegularizerSettings.paper()
_PAPER_SCORE_RULES = dataclasses.replace(_PAPER_RULES, scale_weight=5e7)
_PAPER_SCORE = ScoreSettings(condition_in_inversion=True)
_PAPER_DENSIFY = dataclasses.replace(DensifySettings.paper(), max_count=2_000_000)


def _score(t_max: int, iterations: int, score: ScoreSettings, weight: float = _SCORE_WEIGHT) -> ScoreMatchingSettings:
    # The interval shrinks over the first two fifths, as in the authors' 400 of 1000 steps.
    return ScoreMatchingSettings(
        IntervalSchedule(t_max, iterations, interval_steps=max(1, round(0.4 * iterations))), score, weight
    )


def _edits(scenes: int, strength: float, scale: float) -> EditSettings:
    # In 8 steps the embedded prior's samples are nearer to the truth than in 20, and cost less than half.
    return EditSettings(scenes, SamplingSettings(8, scale, strength), 0.8, perceptual_weight=0.2)


def _paper_edits(scenes: int, strength: float, scale: float) -> EditSettings:
    sampling = SamplingSettings(20, scale, strength, "leading")
    return EditSettings(scenes, sampling, 0.8, perceptual_weight=0.2, features="lpips")


def _standard(scale: float) -> dict[str, tuple[RegionPass, ...]]:
    """scale: of the guidance."""
    score = ScoreSettings(guidance_scale=scale)
    eyes = RegionPass(
        Stage("pretrain_eyes", 300, frozen_parts=_EYE_PARTS), "eyes", _EYES, _edits(110, 0.9, scale), _OF_EYES
    )
    mouth = RegionPass(
        Stage("pretrain_mouth", 130, frozen_parts=_MOUTH_AND_LIPS), "mouth", _MOUTH, _score(750, 130, score),
        _OF_MOUTHS, poses=3,
    )  # fmt: skip
    # Scores find the shapes, and overdo the colours: edits of half strength bring them back.
    mouth_again = RegionPass(
        Stage("refine_mouth", 150, frozen_parts=_MOUTH_AND_LIPS), "mouth", _MOUTH, _edits(60, 0.6, scale), _OF_MOUTHS
    )
    full = RegionPass(Stage("optimize", 130, _CAREFUL), "face", _FULL, _score(300, 130, score), _AROUND, poses=3)
    refine = RegionPass(Stage("refine", 200, _COLORS_MOSTLY), "face", _FULL, _edits(90, 0.5, scale), _AROUND)
    return {"eyes": (eyes,), "mouth": (mouth, mouth_again), "full": (full,), "refine": (refine,)}


def _draft(scale: float) -> dict[str, tuple[RegionPass, ...]]:
    return {name: tuple(one.longer(DRAFT) for one in passes) for name, passes in _standard(scale).items()}


def _paper(scale: float) -> dict[str, tuple[RegionPass, ...]]:
    """The authors' scales are those of Stable Diffusion, whose usual one is 7.5; others are taken in proportion."""
    score = dataclasses.replace(_PAPER_SCORE, guidance_scale=scale)
    eyes = RegionPass(
        _paper_stage("pretrain_eyes", 500, 100, 500, frozen=_EYE_PARTS), "eyes", _EYES,
        EditSettings(500, SamplingSettings(20, scale * 10 / 7.5, 0.9, "leading"), l1_weight=0.0, l2_weight=0.8),
        _OF_EYES,
    )  # fmt: skip
    first = _paper_stage("pretrain_mouth", 500, 100, 101, _PAPER_SCORE_RULES, _MOUTH_PARTS)
    mouth = RegionPass(first, "mouth", _MOUTH, _paper_score(750, 500, score), _OF_MOUTHS, poses=3)
    second = _paper_stage("refine_mouth", 500, frozen=_MOUTH_PARTS)
    mouth_again = RegionPass(second, "mouth", _MOUTH, _paper_edits(500, 0.35, scale), _OF_MOUTHS)
    strong = dataclasses.replace(score, guidance_scale=scale * 100 / 7.5)
    full = RegionPass(
        _paper_stage("optimize", 1000, 50, 101, _PAPER_SCORE_RULES), "face", _FULL, _paper_score(300, 1000, strong),
        _AROUND, poses=3,
    )  # fmt: skip
    refine = RegionPass(_paper_stage("refine", 750), "face", _REFINED, _paper_edits(750, 0.3, scale), _AROUND)
    return {"eyes": (eyes,), "mouth": (mouth, mouth_again), "full": (full,), "refine": (refine,)}


def _paper_stage(
    name: str, iterations: int, densify_interval: int = 0, densify_stop: int = 0,
    rules: RegularizerSettings = _PAPER_RULES, frozen: tuple[int, ...] = (),
) -> Stage:  # fmt: skip
    densify = dataclasses.replace(_PAPER_DENSIFY, interval=densify_interval, stop=densify_stop)
    return Stage(name, iterations, _PAPER_RATES, rules, densify, frozen)


def _paper_score(t_max: int, iterations: int, score: ScoreSettings) -> ScoreMatchingSettings:
    return ScoreMatchingSettings(IntervalSchedule(t_max, iterations), score)


_MAKERS: dict[str, Callable[[float], dict[str, tuple[RegionPass, ...]]]] = {
    "draft": _draft,
    "standard": _standard,
    "paper": _paper,
}


def dynamic_stage(
    stage: str, preset: str, guidance_scale: float, regions: Collection[str] | None = None
) -> tuple[RegionPass, ...]:
    """The passes of a stage: "eyes", "mouth", "full" or "refine".

    guidance_scale: with which the guidance's samples are best.  regions: that it knows, all if None
    (`Guidance.guidance_scale`, `Guidance.regions`).
    """
    if preset not in _MAKERS:
        raise InvalidInput(f"dynamic_stage: preset '{preset}', expected one of {', '.join(PRESETS)}.")
    passes = _MAKERS[preset](guidance_scale)
    if stage not in passes:
        raise InvalidInput(f"dynamic_stage: stage '{stage}', expected one of {', '.join(passes)}.")
    return tuple(one.about(regions) for one in passes[stage])
