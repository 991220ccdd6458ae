"""Score rules: from pictures to gradients at the pictures that make them likelier for a guidance.

Interval Score Matching (LucidDreamer, Liang et al. 2024; equation 3 of the paper): the latents are carried by DDIM
inversion, without text, from a little noise to the noise of timestep s; what the model says there is the target. One
more step of inversion leads to t, where the model is asked with the text. The difference of both answers, weighted, is
the gradient. The other rules differ in how they come to x_t and in what they compare with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..errors import InvalidInput, ShapeMismatch
from .guidance import Guidance, Prediction, TextEmbedding
from .schedule import NoiseSchedule

ScoreRule = Literal["ism", "fast", "csd", "sds"]
_WHERE = "score"


@dataclasses.dataclass(frozen=True)
class ScoreText:
    """What the guidance is told: the prompts (one, or one per picture), the negative prompt, and the empty text."""

    prompt: TextEmbedding
    negative: TextEmbedding
    empty: TextEmbedding


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
    """How gradients are made.

    rule: "ism"; "fast", where noise is added at s at once and inversion is one step (3 evaluations for up to 6); "csd",
    the text alone (Yu et al. 2024; 2 evaluations); "sds" (Poole et al. 2023; 2).  guidance_scale: belongs to the model.
    condition_in_inversion: ask with the ControlNet there too, as the authors' code does; the paper's formula does not.
    stride: timesteps of one step of inversion.
    """

    rule: ScoreRule = "ism"
    guidance_scale: float = 7.5
    condition_in_inversion: bool = False
    stride: int = 50

    def __post_init__(self) -> None:
        if self.rule not in get_args(ScoreRule):
            raise InvalidInput(f"{_WHERE}: rule '{self.rule}', expected one of {', '.join(get_args(ScoreRule))}.")
        if self.stride < 1:
            raise InvalidInput(f"{_WHERE}: inversion in strides of {self.stride} timesteps, expected at least 1.")


@dataclasses.dataclass(frozen=True)
class IntervalSchedule:
    """Which timesteps a stage asks at, on Stable Diffusion's schedule (A1.6; figures of the authors' code).

    t falls in a line from t_max to t_min over the steps of the stage; s lies `interval` before it, which shrinks from
    interval_start to interval_end over interval_steps; inversion begins `span` before s. None falls below 0.
    """

    t_max: int
    iterations: int
    t_min: int = 15
    interval_start: int = 100
    interval_end: int = 50
    interval_steps: int = 400
    span: int = 150

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 0 < self.t_min <= self.t_max:
            raise InvalidInput(
                f"IntervalSchedule: t from {self.t_max} to {self.t_min} in {self.iterations} steps, expected falling, "
                "above 0, in at least one step."
            )

    def at(self, step: int) -> tuple[int, int, int]:
        """(t, s, s0) of a step, counted from 0."""
        line = torch.linspace(self.t_max, self.t_min, self.iterations, dtype=torch.float64)
        t = int(line[step])
        left = 1 - min(step / self.interval_steps, 1)
        # Rounded up as the authors' code does, so that the last step before the end still is one wider.
        interval = self.interval_end + int(-(-(self.interval_start - self.interval_end) * left // 1))
        s = max(t - interval, 0)
        return t, s, max(s - self.span, 0)


class Inverted(NamedTuple):
    """Noisy latents x_t [B, C, h, w], and what the model answered at s (or the noise, where no model was asked)."""

    latents: Tensor
    target: Tensor


class Score(NamedTuple):
    """gradient [B, C, h, w] at the latents; wanted: the clean latents [B, C, h, w] that the guided answer means."""

    gradient: Tensor
    wanted: Tensor


def evaluations(times: tuple[int, int, int], settings: ScoreSettings) -> int:
    """How often a rule asks the networks about one picture at (t, s, s0), each half of a guided call counted.

    >>> evaluations((300, 200, 50), ScoreSettings()), evaluations((300, 200, 50), ScoreSettings("fast"))
    (6, 3)
    """
    _, s, s0 = times
    inversion = {"ism": len(_distinct(inversion_path(s, s0, settings.stride))), "fast": 1}
    return inversion.get(settings.rule, 0) + 2


def inversion_path(s: int, s0: int, stride: int) -> list[int]:
    """Timesteps from s0 to s at which inversion asks, s0 and s included.

    >>> inversion_path(200, 50, 50), inversion_path(67, 0, 50), inversion_path(0, 0, 50)
    ([50, 100, 150, 200], [0, 50, 67], [0])
    """
    return [*range(s0, s, stride), s]


@torch.no_grad()
def invert(
    guidance: Guidance,
    latents: Tensor,
    noise: Tensor,
    condition: Tensor | None,
    text: TextEmbedding,
    path: Sequence[int],
    t: int,
) -> Inverted:
    """DDIM inversion of clean latents along rising timesteps of the guidance, and one step more, to t.

    One evaluation per timestep of the path; the last one is the target.
    """
    schedule = NoiseSchedule(guidance.alphas_cumprod)
    noisy = schedule.add_noise(latents, noise, path[0])
    for now, following in zip(path, [*path[1:], t], strict=True):
        found = guidance.predict_noise(noisy, now, text, condition)
        noisy = schedule.ddim_step(found.eps, found.x0, following)
    return Inverted(noisy, found.eps)


@torch.no_grad()
def score(
    guidance: Guidance,
    schedule: NoiseSchedule,
    latents: Tensor,
    noise: Tensor,
    condition: Tensor | None,
    text: ScoreText,
    times: tuple[int, int, int],
    settings: ScoreSettings = ScoreSettings(),
) -> Score:
    """The gradient of a rule at clean latents [B, C, h, w], and what the guidance wants to see.

    schedule: on which `times` (t, s, s0) and the stride are stated; the guidance is asked at those timesteps of its own
    with the same signal-to-noise ratio.  noise: [B, C, h, w].  condition: [B or 1, H, W, 4] in 0..1, or None.
    ISM takes one evaluation for each timestep of `inversion_path` and the two of the guided call.
    """
    if noise.shape != latents.shape:
        raise ShapeMismatch(f"{_WHERE}: noise {list(noise.shape)} for latents {list(latents.shape)}.")
    own = NoiseSchedule(guidance.alphas_cumprod)
    t, s, s0 = _checked(times, schedule)
    (asked,) = schedule.map_timesteps(t, own).tolist()
    inside = condition if settings.condition_in_inversion else None
    if settings.rule in ("ism", "fast"):
        steps = inversion_path(s, s0 if settings.rule == "ism" else s, settings.stride)
        path = _distinct(schedule.map_timesteps(torch.tensor(steps), own).tolist())
        found = invert(guidance, latents, noise, inside, text.empty, path, asked)
    else:
        found = Inverted(own.add_noise(latents, noise, asked), noise)
    if settings.rule == "csd":
        with_text, without = _both(guidance, found.latents, asked, text, condition)
        difference, wanted = settings.guidance_scale * (with_text.eps - without), with_text.x0
    else:
        answer = guidance.predict_guided_noise(
            found.latents, asked, text.prompt, text.negative, settings.guidance_scale, condition
        )
        difference, wanted = answer.eps - found.target.to(answer.eps), answer.x0
    return Score(_weight(own, asked) * difference, wanted)


def ism_gradient(
    guidance: Guidance,
    schedule: NoiseSchedule,
    latents: Tensor,
    noise: Tensor,
    condition: Tensor | None,
    text: ScoreText,
    t: int,
    s: int,
    s0: int,
    settings: ScoreSettings = ScoreSettings(),
) -> Tensor:
    """Interval Score Matching's gradient [B, C, h, w] at clean latents; see `score`."""
    chosen = dataclasses.replace(settings, rule="ism")
    return score(guidance, schedule, latents, noise, condition, text, (t, s, s0), chosen).gradient


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked about pictures, and with which draws.

    text: the words.  condition: [B or 1, H, W, 4] in 0..1, or None: without ControlNet.  noise, posterior_noise:
    [B, C, h, w], of the rule and of the encoder's sample (its mean without).  excluded: [B, 1, h, w] or [1, 1, h, w]
    bool, latents that ask for nothing (`latent_box`).
    """

    text: ScoreText
    condition: Tensor | None
    noise: Tensor
    posterior_noise: Tensor | None = None
    excluded: Tensor | None = None


class ImageScore(NamedTuple):
    """gradient [B, H, W, 3] at the pictures; wanted: clean latents [B, C, h, w]."""

    gradient: Tensor
    wanted: Tensor


def image_score(
    guidance: Guidance,
    schedule: NoiseSchedule,
    images: Tensor,
    asked: Question,
    times: tuple[int, int, int],
    settings: ScoreSettings = ScoreSettings(),
) -> ImageScore:
    """A rule's gradient at pictures [B, H, W, 3] in 0..1, through the encoder.  times: (t, s, s0), see `score`."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.detach().clone().requires_grad_(True)
        latents = guidance.encode(leaf, asked.posterior_noise)
        found = score(guidance, schedule, latents.detach(), asked.noise, asked.condition, asked.text, times, settings)
        at_latents = found.gradient if asked.excluded is None else found.gradient.masked_fill(asked.excluded, 0)
        (gradient,) = torch.autograd.grad(latents, leaf, at_latents.to(latents))
    return ImageScore(gradient, found.wanted)


def latent_box(box: tuple[int, int, int, int], image_size: int, side: int) -> tuple[slice, slice]:
    """(rows, columns) of latents [side, side] for a box (x0, y0, x1, y1) in pixels of a square picture, as the authors'
    code truncates them: a latent at the border belongs to the box if the box begins in it."""
    x0, y0, x1, y1 = (int(value * side / image_size) for value in box)
    return slice(y0, y1), slice(x0, x1)


def _checked(times: tuple[int, int, int], schedule: NoiseSchedule) -> tuple[int, int, int]:
    t, s, s0 = times
    if not 0 <= s0 <= s <= t < len(schedule):
        raise InvalidInput(f"{_WHERE}: timesteps t {t}, s {s}, s0 {s0} of {len(schedule)}, expected 0 <= s0 <= s <= t.")
    return t, s, s0


def _distinct(path: Sequence[int]) -> list[int]:
    """Without repeated timesteps, at which inversion would go nowhere."""
    return [now for now, before in zip(path, [None, *path]) if now != before]


def _both(
    guidance: Guidance, noisy: Tensor, t: int, text: ScoreText, condition: Tensor | None
) -> tuple[Prediction, Tensor]:
    """(answer with the text, noise with the negative prompt) in one call."""
    count = len(noisy)
    states = torch.cat([text.prompt.batch(count), text.negative.batch(count)])
    twice = None if condition is None else condition.expand(count, -1, -1, -1).repeat(2, 1, 1, 1)
    eps, x0 = guidance.predict_noise(torch.cat([noisy, noisy]), t, TextEmbedding(states), twice)
    return Prediction(eps[:count], x0[:count]), eps[count:]


def _weight(schedule: NoiseSchedule, t: int) -> float:
    """w(t) = sqrt((1 - abar) / abar), which turns differences of noise into those of clean latents."""
    abar = float(schedule.alphas_cumprod[t])
    if abar == 0:
        raise InvalidInput(f"{_WHERE}: the guidance has no signal at timestep {t}; ask at an earlier one.")
    return ((1 - abar) / abar) ** 0.5
