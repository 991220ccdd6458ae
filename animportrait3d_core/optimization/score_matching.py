"""Score matching: crops of the avatar follow what a guidance asks for (mouth and full stage; paper 3.2, equation 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ..cameras import yaw_of
from ..conditioning import Prompts
from ..diffusion import Guidance, NoiseSchedule, TextEmbedding
from ..diffusion.score import IntervalSchedule, ScoreSettings, ScoreText, image_score
from ..errors import InvalidInput, ShapeMismatch
from ..fingerprints import fingerprint
from ..randomness import generator_at
from .loop import Crops
from .region_scenes import RegionUse


@dataclasses.dataclass(frozen=True)
class ScoreMatchingSettings:
    """intervals: timesteps of each step.  score: the rule.  weight: of the gradient.  micro_batch: crops per call."""

    intervals: IntervalSchedule
    score: ScoreSettings = ScoreSettings()
    weight: float = 1.0
    micro_batch: int = 16

    def __post_init__(self) -> None:
        if self.micro_batch < 1:
            raise InvalidInput(f"ScoreMatchingSettings: {self.micro_batch} crops per call, expected at least 1.")


class ScoreMatching:
    """An `Objective`: the guidance's gradient at the crops of `RegionScenes`.

    Crops with the ControlNet go together, and those without. All draws depend on (seed, step).
    """

    def __init__(
        self,
        guidance: Guidance,
        prompts: Prompts,
        uses: tuple[RegionUse, ...],
        settings: ScoreMatchingSettings,
        guidance_name: str,
        seed: int = 0,
    ) -> None:
        """guidance_name: changes with the guidance's weights; the end of a run depends on it."""
        self._guidance, self._prompts, self._uses, self._settings = guidance, prompts, uses, settings
        self._seed, self._schedule = seed, NoiseSchedule.stable_diffusion()
        self._negative, self._empty = guidance.encode_prompt([prompts.negative_prompt]), guidance.encode_prompt([""])
        self._embedded: dict[str, TextEmbedding] = {}
        self.wanted: Tensor | None = None
        """Clean latents [1, C, h, w] that the guidance would make of the last step's first crop."""
        self.fingerprint = fingerprint(("score matching", guidance_name, prompts, uses, settings, seed))

    def losses(self, crops: Crops, step: int) -> dict[str, Tensor]:
        """One term, whose gradient at the crops is the guidance's, per pose; its value is the mean size of it."""
        rows, poses = crops.scene.rows, crops.scene.poses
        if rows is None or poses is None:
            raise ShapeMismatch("ScoreMatching: the scene does not say which region each camera shows.")
        gradient = torch.zeros_like(crops.images.detach())
        for part in self._parts(rows.tolist()):
            gradient[part] = self._gradient(crops, part, rows[part].tolist(), step).to(gradient)
        gradient *= self._settings.weight / (int(poses.max()) + 1)
        pull = ((crops.images - crops.images.detach()) * gradient).sum()
        return {"score": pull + gradient.abs().mean()}

    def _parts(self, rows: list[int]) -> Iterator[Tensor]:
        """Positions of crops that are asked about together: all with the ControlNet or all without."""
        for controlled in (True, False):
            chosen = [k for k, row in enumerate(rows) if self._uses[row].controlled == controlled]
            for first in range(0, len(chosen), self._settings.micro_batch):
                yield torch.tensor(chosen[first : first + self._settings.micro_batch])

    def _gradient(self, crops: Crops, part: Tensor, rows: list[int], step: int) -> Tensor:
        """[n, H, W, 3] at the crops `part`, which show the regions `rows`, all with the ControlNet or all without."""
        guidance, scene, settings = self._guidance, crops.scene, self._settings
        noise, posterior = self._noise(crops, step)
        condition = None
        if scene.conditions is not None and self._uses[rows[0]].controlled:
            condition = scene.conditions[part]
        text = self._text(rows, yaw_of(scene.cameras[part]).tolist())
        found = image_score(
            guidance, self._schedule, crops.images[part], noise[part], condition, text,
            settings.intervals.at(step), settings.score, posterior[part], self._excluded(crops, part),
        )  # fmt: skip
        if 0 in part.tolist():
            self.wanted = found.wanted[part.tolist().index(0)][None]
        return found.gradient

    def _noise(self, crops: Crops, step: int) -> tuple[Tensor, Tensor]:
        """Noise of the rule and of the encoder, [C, ...] for all crops: a micro-batch changes nothing."""
        count, height, width = crops.images.shape[:3]
        factor = self._guidance.latent_factor
        shape = (count, self._guidance.latent_channels, height // factor, width // factor)
        draws = (torch.randn(shape, generator=generator_at(self._seed, name, step)) for name in ("noise", "posterior"))
        noise, posterior = (values.to(self._guidance.device) for values in draws)
        return noise, posterior

    def _text(self, rows: list[int], yaws: list[float]) -> ScoreText:
        texts = [self._prompts.text(self._uses[row].region, yaw) for row, yaw in zip(rows, yaws)]
        for text in texts:
            if text not in self._embedded:
                self._embedded[text] = self._guidance.encode_prompt([text])
        states = torch.cat([self._embedded[text].hidden_states for text in texts])
        return ScoreText(TextEmbedding(states), self._negative, self._empty)

    def _excluded(self, crops: Crops, part: Tensor) -> Tensor | None:
        """Latents [n, 1, h, w] of the pixels that the scene ignores: a latent belongs to them by its last pixel, which
        is how the authors' code truncates boxes."""
        ignored, factor = crops.scene.ignored, self._guidance.latent_factor
        if ignored is None:
            return None
        return ignored[part, None, factor - 1 :: factor, factor - 1 :: factor].to(self._guidance.device)
