"""What is done in a stage, as data."""

from __future__ import annotations

import dataclasses

from ..avatar.densify import DensifySettings
from ..avatar.regularize import RegularizerSettings
from ..errors import InvalidInput

PAPER_EXTENT = 2.98471
"""The authors' camera extent, which multiplies their learning rate of positions."""


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """Of Adam; positions and scales in triangle units. The default is made for 30,000 Gaussians and 1000 steps."""

    means: float = 1.6e-2
    """In `paper` this one is 1.49e-3: with 30,000 instead of 500,000 Gaussians each has farther to go, in fewer steps.
    One embedded identity after 300 steps: 33.0 dB at 4e-3, 34.5 at 8e-3, 35.2 at 1.6e-2."""
    quats: float = 1.5e-3
    log_scales: float = 0.0255
    opacities: float = 0.075
    sh0: float = 2.4e-2
    """3.75e-3 in `paper`, for the same reason as `means`."""
    sh_rest: float = 1.875e-4
    """The authors', like those of rotations, scales and opacities."""
    final_share: float = 0.1
    """All fall exponentially to this share at the end: a short run must settle. 1 in `paper`."""

    @classmethod
    def paper(cls) -> LearningRates:
        """The authors' rates."""
        return cls(means=5e-4 * PAPER_EXTENT, sh0=3.75e-3, final_share=1.0)

    def at(self, step: int, iterations: int) -> dict[str, float]:
        """Rate of each table of an avatar at `step` (from 0) of `iterations`."""
        share = self.final_share ** (step / max(1, iterations - 1))
        rates = {
            "means": self.means, "quats": self.quats, "log_scales": self.log_scales,
            "logit_opacities": self.opacities, "sh0": self.sh0, "sh_rest": self.sh_rest,
        }  # fmt: skip
        return {name: rate * share for name, rate in rates.items()}


@dataclasses.dataclass(frozen=True)
class Hold:
    """Tables of an avatar (their names as in `LearningRates.at`) that stay as they are for the Gaussians of a part."""

    part: int
    tables: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of an avatar's optimisation; all that does not depend on what the pictures should be.

    name: in messages, and in the seeds of all that is drawn.
    """

    name: str
    iterations: int
    lrs: LearningRates = LearningRates()
    regularizer: RegularizerSettings = RegularizerSettings()
    densify: DensifySettings = DensifySettings()
    frozen_parts: tuple[int, ...] = ()
    """Parts (`parts.AvatarPart`) whose Gaussians do not change."""
    holds: tuple[Hold, ...] = ()
    """Tables that do not change where the rest of the part does."""
    sh_interval: int = 1000
    """Steps after which one more degree of the spherical harmonics is trained."""
    first_sh_degree: int = 0
    """Degree that is shown from the first step on: an avatar that has colours of its own is not to lose them."""
    preview_interval: int = 50
    """Steps between two images handed to the progress."""

    def __post_init__(self) -> None:
        for name in ("iterations", "sh_interval", "preview_interval"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"Stage '{self.name}': `{name}` is {getattr(self, name)}, expected at least 1.")
        if self.first_sh_degree < 0:
            raise InvalidInput(f"Stage '{self.name}': `first_sh_degree` is {self.first_sh_degree}, expected 0 or more.")
