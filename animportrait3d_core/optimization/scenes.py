"""What a step looks at: poses of the avatar, and the cameras around them."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch
from torch import Tensor

from ..avatar.rig import AvatarRig
from ..body.parameters import BodyParameters
from ..cameras import Cameras
from ..errors import InvalidInput
from ..gaussians import Gaussians
from ..randomness import generator_at, shuffled_rows
from ..render import GaussianImage, render_gaussians
from ..views import Views


@dataclasses.dataclass(frozen=True)
class Scene:
    """P poses and C cameras of one size; those of one pose are rendered in one call.

    background: a colour [3], or what stands behind each camera's picture [C, H, W, 3].  parameters: P poses, None for
    the avatar's rest pose alone.  poses: [C] int64, which pose each camera looks at, rising; None if there is but one.
    vertices: [P, V, 3] of the body in these poses, if they were needed before.  rows: [C] int64, what each camera shows
    in the objective's own order (the number of a view, of a region).  conditions: [C, H, W, 4] condition maps, for
    objectives that ask for them.  ignored: [C, H, W] bool, pixels that are not to be judged.
    """

    cameras: Cameras
    background: Tensor
    parameters: BodyParameters | None = None
    poses: Tensor | None = None
    vertices: Tensor | None = None
    rows: Tensor | None = None
    conditions: Tensor | None = None
    ignored: Tensor | None = None

    def __post_init__(self) -> None:
        count = 1 if self.parameters is None else len(self.parameters)
        if self.poses is None:
            fits = count == 1
        else:
            counts = torch.unique_consecutive(self.poses)
            fits = self.poses.shape == (len(self.cameras),) and counts.tolist() == list(range(count))
        if not fits:
            found = None if self.poses is None else self.poses.tolist()
            raise InvalidInput(
                f"Scene: {len(self.cameras)} cameras look at poses {found}, expected each of {count} poses, in order."
            )

    def cameras_of(self, pose: int) -> slice:
        """Which cameras look at a pose."""
        if self.poses is None:
            return slice(0, len(self.cameras))
        rows = (self.poses == pose).nonzero()[:, 0]
        return slice(int(rows[0]), int(rows[-1]) + 1)


def render_pose(posed: Gaussians, scene: Scene, pose: int) -> GaussianImage:
    """What the cameras of one pose of a scene see of its Gaussians."""
    rows, background = scene.cameras_of(pose), scene.background
    if background.ndim == 1:
        return render_gaussians(posed, scene.cameras[rows], background=background)
    image = render_gaussians(posed, scene.cameras[rows])
    behind = background[rows].to(image.color)
    return dataclasses.replace(image, color=image.color + (1 - image.alpha[..., None]) * behind)


def render_scene(rig: AvatarRig, scene: Scene) -> Tensor:
    """What the cameras of a scene see of an avatar that does not change: [C, H, W, 3] in 0..1."""
    images = []
    for pose in range(1 if scene.parameters is None else len(scene.parameters)):
        parameters = rig.avatar.parameters if scene.parameters is None else scene.parameters[pose]
        images.append(render_pose(rig.pose(parameters), scene, pose).color)
    return torch.cat(images).clamp(0, 1)


class Scenes(Protocol):
    """Where the scenes of a stage come from."""

    fingerprint: str
    """Changes with everything that the scenes depend on."""

    def at(self, step: int, seed: int) -> Scene:
        """The scene of a step, which depends on `step` and `seed` alone."""


class ViewScenes:
    """The cameras of views and the poses that they saw, one a step, in a random order, each once per round."""

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
        parameters = None
        if self._views.body is not None:
            parameters = BodyParameters.from_tensors({name: value[rows] for name, value in self._views.body.items()})
        return Scene(self._views.cameras[rows], background, parameters, rows=rows)
