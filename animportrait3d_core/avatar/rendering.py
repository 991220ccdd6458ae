"""Images of posed Gaussians and of a moving avatar, and the colours that show what it is made of."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..body.parameters import BodyParameters, stack_parameters
from ..cameras import Cameras
from ..gaussians import Gaussians, rgb_to_sh0
from ..progress import Progress
from ..render import render_gaussians
from ..views import Views, concatenate_views
from .model import RiggedAvatar
from .rig import AvatarRig


def render_avatar_views(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> Views:
    """Views of posed Gaussians over a colour [3], one camera at a time to keep memory flat."""
    with torch.no_grad():
        parts = [render_gaussians(gaussians, cameras[index], background=background) for index in range(len(cameras))]
    images = torch.cat([part.color for part in parts]).clamp(0, 1)
    return Views(images, torch.cat([part.alpha for part in parts]), cameras, background)


def render_motion_views(
    avatar: RiggedAvatar,
    frames: BodyParameters,
    cameras: Cameras,
    background: Tensor,
    progress: Progress | None = None,
) -> Views:
    """Views of a moving avatar, with the pose of each: the k-th is frame k mod T from camera k mod C, until all T
    frames and all C cameras were used."""
    rig, count = AvatarRig(avatar), max(len(frames), len(cameras))
    parts, poses = [], []
    for k in range(count):
        pose = frames[k % len(frames)]
        with torch.no_grad():
            posed = rig.pose(pose)
        camera = k % len(cameras)
        parts.append(render_avatar_views(posed, cameras[camera : camera + 1], background))
        poses.append(pose)
        if progress is not None:
            progress(k + 1, count, parts[-1].images[0])
    return dataclasses.replace(concatenate_views(parts), body=stack_parameters(poses).to_tensors())


def in_random_colors(avatar: RiggedAvatar, seed: int = 0) -> RiggedAvatar:
    """The avatar with a random colour for each Gaussian, the same from all sides (paper, appendix A3)."""
    colors = torch.rand(len(avatar), 3, generator=torch.Generator().manual_seed(seed)).to(avatar.gaussians.means)
    gaussians = dataclasses.replace(avatar.gaussians, sh=rgb_to_sh0(colors)[:, None])
    return dataclasses.replace(avatar, gaussians=gaussians)
