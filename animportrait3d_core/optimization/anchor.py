"""What must stay: views of the portrait that the avatar goes on looking like while a guidance works on it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from ..avatar.model import RiggedAvatar
from ..avatar.rig import AvatarRig
from ..body.parameters import stack_parameters
from ..cameras import concatenate_cameras
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..randomness import shuffled_rows
from ..views import Views
from .loop import AvatarOptimizer, Crops, Objective
from .scenes import Scene, Scenes
from .stage import Stage


@dataclasses.dataclass(frozen=True)
class Anchor:
    """views: of the avatar at rest, square.  weight: of the mean absolute difference to one of them in each step.

    Scores push colours away from what is likely without a text, more and more: lips become magenta where nothing holds
    them.
    """

    views: Views
    weight: float = 10.0

    def __post_init__(self) -> None:
        cameras = self.views.cameras
        if not len(self.views) or self.views.body is not None or cameras.width != cameras.height:
            raise InvalidInput(
                f"Anchor: {len(self.views)} views of {cameras.width} x {cameras.height} pixels"
                f"{' in motion' if self.views.body is not None else ''}, expected square ones of the avatar at rest."
            )
        if not self.weight > 0:
            raise InvalidInput(f"Anchor: weight {self.weight}, expected more than 0; leave the views out instead.")

    def resized(self, size: int) -> Anchor:
        """The same with pictures of another size, averaged or interpolated."""
        views = self.views
        if views.cameras.width == size:
            return self
        stacked = torch.cat([views.images, views.masks[..., None]], dim=-1).permute(0, 3, 1, 2)
        smaller = size < views.cameras.width
        resized = functional.interpolate(stacked, (size, size), mode="area" if smaller else "bilinear")
        images, masks = resized.permute(0, 2, 3, 1).split([3, 1], dim=-1)
        # Depths are no averages, and nothing here asks for them.
        cameras = views.cameras.resized(size, size)
        changed = dataclasses.replace(views, images=images, masks=masks[..., 0], cameras=cameras, depth=None)
        return dataclasses.replace(self, views=changed)


class AnchoredScenes:
    """Scenes of others, each with one more pose: the avatar at rest, in the camera of one of the views."""

    def __init__(self, scenes: Scenes, avatar: RiggedAvatar, anchor: Anchor) -> None:
        """anchor: with views of the scenes' size."""
        self._scenes, self._anchor, self._rest = scenes, anchor, avatar.parameters
        with torch.inference_mode(False), torch.no_grad():
            self._vertices = AvatarRig(avatar).body(avatar.parameters).vertices
        self.fingerprint = fingerprint((scenes.fingerprint, anchor))

    def at(self, step: int, seed: int) -> Scene:
        """The scene of a step; the number of the view is the last of its `rows`."""
        scene, views = self._scenes.at(step, seed), self._anchor.views
        if scene.parameters is None or scene.poses is None or scene.rows is None:
            raise InvalidInput("AnchoredScenes: the scenes say nothing of poses and rows, which they must.")
        (row,) = shuffled_rows(len(views), step, 1, seed, "anchor").tolist()
        more = len(scene.parameters)
        return dataclasses.replace(
            scene,
            cameras=concatenate_cameras([scene.cameras, views.cameras[[row]]]),
            parameters=stack_parameters([scene.parameters, self._rest]),
            poses=torch.cat([scene.poses, torch.tensor([more])]),
            vertices=None if scene.vertices is None else torch.cat([scene.vertices, self._vertices]),
            rows=torch.cat([scene.rows, torch.tensor([row])]),
            background=_with_colour(scene.background, views.background),
            conditions=_with_one_more(scene.conditions),
            ignored=_with_one_more(scene.ignored),
        )


class Anchored:
    """An `Objective` beside which the portrait stays: another one's losses on its crops, and a term on the last."""

    def __init__(self, objective: Objective, anchor: Anchor) -> None:
        self._objective, self._anchor = objective, anchor
        self.fingerprint = fingerprint((objective.fingerprint, anchor))

    def losses(self, crops: Crops, step: int) -> dict[str, Tensor]:
        """Those of the other objective, and "anchor"."""
        scene, views = crops.scene, self._anchor.views
        if scene.rows is None:
            raise InvalidInput("Anchored: the scene does not say which view its last camera shows.")
        row = int(scene.rows[-1])
        background = scene.background if scene.background.ndim == 1 else scene.background[-1]
        own = views.images[row] + (1 - views.masks[row, ..., None]) * (background - views.background)
        difference = (crops.images[-1] - own.to(crops.images)).abs().mean()
        inner = Crops(crops.images[:-1], crops.alpha[:-1], _without_last(scene))
        return {**self._objective.losses(inner, step), "anchor": self._anchor.weight * difference}


def anchored_optimizer(
    avatar: RiggedAvatar,
    stage: Stage,
    scenes: Scenes,
    objective: Objective,
    anchor: Anchor | None,
    seed: int,
    device: torch.device | str = "cpu",
) -> AvatarOptimizer:
    """A stage in work, with what must stay if there is something."""
    if anchor is not None:
        scenes, objective = AnchoredScenes(scenes, avatar, anchor), Anchored(objective, anchor)
    return AvatarOptimizer(avatar, stage, scenes, objective, seed, device)


def _with_colour(background: Tensor, color: Tensor) -> Tensor:
    """Pictures [C + 1, H, W, 3], the last one of one colour; a colour stays."""
    if background.ndim == 1:
        return background
    return torch.cat([background, color.to(background).expand_as(background[:1])])


def _with_one_more(values: Tensor | None) -> Tensor | None:
    """[C + 1, ...], zeros for the last."""
    return None if values is None else torch.cat([values, torch.zeros_like(values[:1])])


def _without_last(scene: Scene) -> Scene:
    """The scene that `AnchoredScenes` was given."""
    cut = {
        name: None if value is None else value[:-1]
        for name in ("poses", "vertices", "rows", "conditions", "ignored", "parameters")
        for value in (getattr(scene, name),)
    }
    background = scene.background if scene.background.ndim == 1 else scene.background[:-1]
    return dataclasses.replace(scene, cameras=scene.cameras[:-1], background=background, **cut)
