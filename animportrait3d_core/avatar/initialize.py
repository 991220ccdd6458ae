"""Gaussians made of rigged points: the start of training (the paper's section 3.1; authors' values in `paper`)."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..gaussians import MAX_SH_DEGREE, Gaussians, rgb_to_sh0
from ..parts import AvatarPart
from ..rigging import TriangleFrames
from ..rigging.points import RiggedPoints
from .model import RiggedAvatar, body_frames

if TYPE_CHECKING:
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters

MIN_SPACING = 1e-6
"""World units; points on triangles of no area get a size all the same."""

_NORMAL_AXIS = 1
"""The frame's second axis is the triangle's normal."""


@dataclasses.dataclass(frozen=True)
class InitializeSettings:
    """Shape and opacity of the first Gaussians."""

    spacing_scale: float = 0.75
    """Standard deviation over the points' spacing: with 30,000 points the surface is closed and not blurred. 0 takes
    the authors' constants in triangle units, 0.1 (hair, clothes) and 0.2 (body), which leave holes between so few."""
    flatness: float = 0.2
    """Thickness along the surface normal over the spread within the surface; flat discs meet a silhouette sharply.
    1 in `paper` (round)."""
    opacity: float = 0.8
    """First opacity of what the views show. 0.1 in `paper`, where hundreds of points overlap in a pixel."""
    hidden_opacity: float = 0.95
    """First opacity of teeth, mouth and eyeballs: views of a closed mouth never train them, so that they must be solid
    from the start. 0.1 in `paper`."""
    sh_degree: int = 0
    """Degree of the colours' spherical harmonics; 3 in `paper`. 0 renders fastest and cannot hide shape errors in
    highlights."""

    def __post_init__(self) -> None:
        for name in ("opacity", "hidden_opacity"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidInput(f"InitializeSettings: `{name}` is {getattr(self, name)}, expected between 0 and 1.")
        if self.spacing_scale < 0 or self.flatness <= 0:
            raise InvalidInput(
                f"InitializeSettings: `spacing_scale` {self.spacing_scale} and `flatness` {self.flatness}, expected "
                "at least 0 and more than 0."
            )
        if not 0 <= self.sh_degree <= MAX_SH_DEGREE:
            raise InvalidInput(f"InitializeSettings: `sh_degree` is {self.sh_degree}, expected 0..{MAX_SH_DEGREE}.")

    @classmethod
    def paper(cls) -> InitializeSettings:
        """The authors' start."""
        return cls(spacing_scale=0.0, flatness=1.0, opacity=0.1, hidden_opacity=0.1, sh_degree=3)


def initialize_avatar(
    points: RiggedPoints,
    body: BodyModel,
    parameters: BodyParameters,
    settings: InitializeSettings = InitializeSettings(),
    prompt: str = "",
) -> RiggedAvatar:
    """The avatar of N rigged points, one Gaussian each.

    parameters: the fit that the points were bound in (a batch of one); it becomes the rest pose.
    """
    if len(points) == 0:
        raise InvalidInput("initialize_avatar: 0 points, expected at least 1.")
    with torch.no_grad():
        frames = body_frames(body, parameters)[points.binding]
        hidden = _is_any(points.part_id, (AvatarPart.TEETH, AvatarPart.MOUTH_INTERIOR, AvatarPart.EYES))
        opacities = torch.where(hidden, settings.hidden_opacity, settings.opacity)
        sh = torch.zeros(len(points), (settings.sh_degree + 1) ** 2, 3)
        sh[:, 0] = rgb_to_sh0(points.colors)
        gaussians = Gaussians(
            means=points.local_positions.clone(),
            quats=_surface_aligned(frames, points.normals),
            log_scales=_log_scales(points, frames, settings),
            logit_opacities=torch.logit(opacities),
            sh=sh,
        )
    gaussians.check_finite("initialize_avatar")
    return RiggedAvatar(gaussians, points.binding.clone(), points.part_id.clone(), body, parameters, prompt)


def _is_any(part_id: Tensor, parts: tuple[int, ...]) -> Tensor:
    return torch.isin(part_id, torch.tensor(parts, dtype=part_id.dtype))


def _log_scales(points: RiggedPoints, frames: TriangleFrames, settings: InitializeSettings) -> Tensor:
    """Local log scales [N, 3]: axis 1 is the normal."""
    if settings.spacing_scale == 0:
        loose = _is_any(points.part_id, (AvatarPart.HAIR, AvatarPart.CLOTHES))
        spread = torch.where(loose, 0.1, 0.2)
    else:
        spread = settings.spacing_scale * points.spacing.clamp_min(MIN_SPACING) / frames.scale
    log_scales = spread.log()[:, None].repeat(1, 3)
    log_scales[:, _NORMAL_AXIS] += math.log(settings.flatness)
    return log_scales


def _surface_aligned(frames: TriangleFrames, normals: Tensor) -> Tensor:
    """Local quats [N, 4] that turn the second axis onto the surface normal by the shortest way.

    The identity for points on their own triangle. The sign of the normal does not matter to a Gaussian.
    """
    local = (frames.rotation * normals[:, :, None]).sum(dim=1)
    local = torch.where(local[:, _NORMAL_AXIS, None] < 0, -local, local)
    x, y, z = local.unbind(-1)
    # Half-way quaternion from (0, 1, 0) to n: (1 + y, (0, 1, 0) x n), never zero because y >= 0.
    return torch.nn.functional.normalize(torch.stack([1 + y, z, torch.zeros_like(y), -x], dim=-1), dim=-1)
