"""Score matching: crops of the avatar follow what a guidance asks for (mouth and full stage; paper 3.2, equation 4)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..cameras import yaw_of
from ..diffusion import NoiseSchedule
from ..diffusion.score import IntervalSchedule, Question, ScoreSettings, ScoreText, image_score
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from .loop import Crops
from .region_guidance import RegionGuidance


@dataclasses.dataclass(frozen=True)
class ScoreMatchingSettings:
    """intervals: timesteps of each step.  score: the rule.  weight: of the gradient."""

    intervals: IntervalSchedule
    score: ScoreSettings = ScoreSettings()
    weight: float = 1.0


class ScoreMatching:
    """An `Objective`: the guidance's gradient at the crops of `RegionScenes`.

    Crops with the ControlNet go together, and those without. All draws depend on (seed, step).
    """

    def __init__(self, asked: RegionGuidance, settings: ScoreMatchingSettings, seed: int = 0) -> None:
        self._asked, self._settings, self._seed = asked, settings, seed
        self._schedule = NoiseSchedule.stable_diffusion()
        self.wanted: Tensor | None = None
        """Clean latents [1, C, h, w] that the guidance would make of the last step's first crop."""
        self.fingerprint = fingerprint(("score matching", asked.fingerprint, settings, seed))

    def losses(self, crops: Crops, step: int) -> dict[str, Tensor]:
        """One term, whose gradient at the crops is the guidance's, per pose; its value is the mean size of it."""
        rows, poses = crops.scene.rows, crops.scene.poses
        if rows is None or poses is None:
            raise InvalidInput("ScoreMatching: the scene does not say which region each camera shows.")
        noise, posterior = (self._asked.noise(crops.scene, self._seed, name, step) for name in ("noise", "posterior"))
        gradient = torch.zeros_like(crops.images.detach())
        for part, controlled in self._asked.parts(rows.tolist()):
            found = self._gradient(crops, part, controlled, (noise[part], posterior[part]), step)
            gradient[part] = found.to(gradient)
        gradient *= self._settings.weight / (int(poses.max()) + 1)
        pull = ((crops.images - crops.images.detach()) * gradient).sum()
        return {"score": pull + gradient.abs().mean()}

    def picture(self) -> Tensor | None:
        """What the guidance would make of the last step's first crop [H, W, 3] in 0..1."""
        if self.wanted is None:
            return None
        with torch.inference_mode(False), torch.no_grad():
            return self._asked.guidance.decode(self.wanted)[0].float().clamp(0, 1).cpu()

    def _gradient(
        self, crops: Crops, part: Tensor, controlled: bool, noises: tuple[Tensor, Tensor], step: int
    ) -> Tensor:
        """[n, H, W, 3] at the crops `part`.  noises: of the rule and of the encoder."""
        asked, scene = self._asked, crops.scene
        rows = [] if scene.rows is None else scene.rows[part].tolist()
        condition = scene.conditions[part] if controlled and scene.conditions is not None else None
        text = ScoreText(asked.text(rows, yaw_of(scene.cameras[part]).tolist()), asked.negative, asked.empty)
        question = Question(text, condition, *noises, self._excluded(scene.ignored, part))
        times = self._settings.intervals.at(step)
        found = image_score(asked.guidance, self._schedule, crops.images[part], question, times, self._settings.score)
        if 0 in part.tolist():
            self.wanted = found.wanted[part.tolist().index(0)][None]
        return found.gradient

    def _excluded(self, ignored: Tensor | None, part: Tensor) -> Tensor | None:
        """Latents [n, 1, h, w] of the pixels [C, H, W] that the scene ignores: a latent belongs to them by its last
        pixel, which is how the authors' code truncates boxes."""
        factor = self._asked.guidance.latent_factor
        if ignored is None:
            return None
        return ignored[part, None, factor - 1 :: factor, factor - 1 :: factor].to(self._asked.guidance.device)
