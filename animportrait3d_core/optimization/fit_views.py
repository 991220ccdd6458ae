"""Fit to views: the avatar is trained on images with mattes (the initialization's 3DGS training, paper 3.1.3)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..avatar.densify import DensifySettings
from ..avatar.model import RiggedAvatar
from ..avatar.regularize import RegularizerSettings
from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..parts import AvatarPart
from ..progress import Progress
from ..similarity import ssim_map
from ..views import Views
from .loop import AvatarOptimizer, Crops, optimize_avatar
from .scenes import ViewScenes
from .stage import Hold, LearningRates, Stage

_HIDDEN_PARTS = (AvatarPart.TEETH, AvatarPart.MOUTH_INTERIOR)
"""Views of a closed mouth must not train them: nothing sees them."""
AT_REST = (Hold(AvatarPart.EYELIDS, ("sh0", "sh_rest")),)
"""What views with open eyes teach wrongly: a fit is off by a pixel where lids meet eyes, so that rims of lids would
take the white of the eye, and blink in white."""


@dataclasses.dataclass(frozen=True)
class FitViewsSettings:
    """Stage and weights of the losses. The default (`fixed`) is tuned for 60 views and minutes on two CPU cores."""

    stage: Stage = Stage("initialize_avatar", 1000, frozen_parts=_HIDDEN_PARTS, holds=AT_REST)
    """Steps of one view each."""
    l1_weight: float = 0.8
    ssim_weight: float = 0.2
    """Of 1 - SSIM (11 x 11, sigma 1.5, black border); both as in 3DGS."""
    alpha_weight: float = 0.2
    """Mean absolute error of alpha against the views' masks: closes holes and clears floaters that have the
    background's colour. 0 in `paper`."""
    background: Literal["views", "random"] = "views"
    """`views`: the colour they are composited over, as in `paper`. `random`: another colour each step; the views are
    recomposited with their masks."""

    def __post_init__(self) -> None:
        if self.background not in ("views", "random"):
            raise InvalidInput(f"FitViewsSettings: `background` is '{self.background}', expected 'views' or 'random'.")

    @classmethod
    def paper(cls) -> FitViewsSettings:
        """The authors' losses, learning rates and schedule."""
        stage = Stage(
            "initialize_avatar", 3000, LearningRates.paper(), RegularizerSettings.paper(), DensifySettings.paper(),
            _HIDDEN_PARTS,
        )  # fmt: skip
        return cls(stage, alpha_weight=0.0)

    def with_stage(self, **changes: Any) -> FitViewsSettings:
        """The same with other fields of the stage, `iterations` for instance."""
        return dataclasses.replace(self, stage=dataclasses.replace(self.stage, **changes))


class FitViews:
    """L1, SSIM and coverage against the views that a scene's `rows` name."""

    def __init__(self, views: Views, settings: FitViewsSettings, fingerprint: str) -> None:
        """views: on the device where the avatar is rendered.  fingerprint: of the views."""
        self._views, self._settings = views, settings
        weights = (settings.l1_weight, settings.ssim_weight, settings.alpha_weight)
        self.fingerprint = f"fit to views {fingerprint} {weights}"

    def losses(self, crops: Crops, step: int) -> dict[str, Tensor]:
        """Weighted terms, each a mean over all crops."""
        settings, views, rows = self._settings, self._views, crops.scene.rows
        masks = views.masks[rows]
        # Exact where the scene has the views' own background.
        images = views.images[rows] + (1 - masks[..., None]) * (crops.scene.background - views.background)
        losses = {
            "l1": settings.l1_weight * (crops.images - images).abs().mean(),
            "ssim": settings.ssim_weight * (1 - ssim_map(crops.images, images, border="zero").mean()),
        }
        if settings.alpha_weight:
            losses["alpha"] = settings.alpha_weight * (crops.alpha - masks).abs().mean()
        return losses


def views_optimizer(
    avatar: RiggedAvatar,
    views: Views,
    settings: FitViewsSettings,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> AvatarOptimizer:
    """The optimiser of `fit_to_views`, to be stepped by hand."""
    if len(views) == 0:
        raise InvalidInput(f"{settings.stage.name}: 0 views, expected at least 1.")
    with torch.inference_mode(False), torch.no_grad():
        copies = (value.to(device, copy=True) for value in (views.images, views.masks, views.background))
        images, masks, background = copies
        cameras = dataclasses.replace(
            views.cameras, world_to_camera=views.cameras.world_to_camera.clone(), K=views.cameras.K.clone()
        )
        views = dataclasses.replace(views, images=images, masks=masks, cameras=cameras, background=background)
    name = fingerprint(views)
    scenes = ViewScenes(views, name, random_background=settings.background == "random")
    return AvatarOptimizer(avatar, settings.stage, scenes, FitViews(views, settings, name), seed, device)


def fit_to_views(
    avatar: RiggedAvatar,
    views: Views,
    settings: FitViewsSettings = FitViewsSettings(),
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
    runs: Path | None = None,
) -> RiggedAvatar:
    """Train the avatar's Gaussians on views of it, in the rest pose or each in its own; the body stays as it is.

    views: float32 pictures with masks.  seed: order of the views, random backgrounds and splits.  progress: called
    after each step, with the rendered view every `settings.stage.preview_interval` steps.  device: where it is trained
    (see `render.gaussian_device`); the avatar comes back on the CPU.  runs: folder of unfinished runs, see
    `optimize_avatar`.
    """
    return optimize_avatar(views_optimizer(avatar, views, settings, seed, device), runs, progress)
