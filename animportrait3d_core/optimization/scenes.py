"""What a step looks at: one pose of the avatar, and the cameras around it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ..cameras import Cameras
from ..randomness import generator_at, shuffled_rows
from ..views import Views

if TYPE_CHECKING:
    from ..body.parameters import BodyParameters


@dataclasses.dataclass(frozen=True)
class Scene:
    """One pose and C cameras of one size, rendered in one call.

    background: [3] or [C, 3].  parameters: the pose (a batch of one), None for the avatar's rest pose.  rows: [C]
    int64, what each camera shows in the objective's own order (the number of a view, of a region).
    """

    cameras: Cameras
    background: Tensor
    parameters: BodyParameters | None = None
    rows: Tensor | None = None


class Scenes(Protocol):
    """Where the scenes of a stage come from."""

    fingerprint: str
    """Changes with everything that the scenes depend on."""

    def at(self, step: int, seed: int) -> Scene:
        """The scene of a step, which depends on `step` and `seed` alone."""


class ViewScenes:
    """The cameras of views, one a step at rest, in a random order, each once per round."""

    def __init__(self, views: Views, fingerprint: str, random_background: bool = False) -> None:
        """fingerprint: of the views.  random_background: another colour each step, instead of the views' own."""
        self._views, self._random_background = views, random_background
        self.fingerprint = f"{fingerprint} {random_background}"

    def at(self, step: int, seed: int) -> Scene:
        """The scene of a step."""
        rows = shuffled_rows(len(self._views), step, 1, seed, "views")
        background = self._views.background
        if self._random_background:
            background = torch.rand(3, generator=generator_at(seed, "background", step)).to(background)
        return Scene(self._views.cameras[rows], background, rows=rows)
