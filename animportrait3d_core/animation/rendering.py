"""Frames of an avatar in motion, and the cameras that look at it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..avatar import AvatarRig, RiggedAvatar
from ..cameras import Cameras, orbit_cameras
from ..errors import InvalidInput
from ..progress import Progress
from ..render import render_gaussians
from .beside import NOTHING, body_picture, check_beside
from .motion import Motion


def front_cameras(frames: int, size: int) -> Cameras:
    """`frames` times the square camera in front of the face."""
    return orbit_cameras([0.0] * frames, [0.0] * frames, size)


def turntable_cameras(frames: int, size: int, elevation_degrees: float = 0.0) -> Cameras:
    """`frames` square cameras in one whole turn that starts at the front and shows the subject's left first."""
    if frames < 1:
        raise InvalidInput(f"turntable_cameras: {frames} frames, expected at least 1.")
    return orbit_cameras([360.0 * index / frames for index in range(frames)], [elevation_degrees] * frames, size)


def render_motion(
    avatar: RiggedAvatar,
    motion: Motion,
    cameras: Cameras,
    background: Tensor | None = None,
    progress: Progress | None = None,
    cut_out: bool = False,
    beside: str = NOTHING,
) -> Iterator[Tensor]:
    """Yield the frames [H, W, 3] in 0..1 of the avatar in motion, one at a time.

    cameras: one per frame, or one for all.  background: [3], white if not given.  progress: called per frame with it.
    cut_out: the frames are [H, W, 4], colours and alpha (straight: colours are not multiplied by it); what shows
    nothing has the background's colour, for players that know no alpha.  beside: of `beside.BESIDE`, what stands on
    the right of the avatar, in frames [H, 2 W, 3 or 4].
    """
    check_beside("render_motion", beside)
    if len(cameras) not in (1, len(motion)):
        raise InvalidInput(
            f"render_motion: {len(cameras)} cameras for {len(motion)} frames, expected 1 or one per frame."
        )
    background = torch.ones(3) if background is None else background
    rig = AvatarRig(avatar)
    for index in range(len(motion)):
        with torch.no_grad():
            pose, camera = motion.parameters[index], cameras[index if len(cameras) > 1 else 0]
            posed = rig.body(pose)
            image = render_gaussians(rig.pose(pose, posed), camera, background=background)
            pictures = [(image.color[0].clamp(0, 1), image.alpha[0].clamp(0, 1)[..., None])]
            if beside != NOTHING:
                body = (posed.vertices[0], avatar.body.faces_outward)
                pictures.append(body_picture(*body, camera, background, beside))
            frames = [_cut_out(*picture, background) if cut_out else picture[0] for picture in pictures]
            frame = torch.cat(frames, dim=1)
        if progress is not None:
            progress(index + 1, len(motion), frame)
        yield frame


LEAST_ALPHA = 0.5 / 255
"""What is less is nothing in a file of bytes."""


def _cut_out(color: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """[H, W, 4] of the colours [H, W, 3] over a background [3] and alpha [H, W, 1]."""
    own = ((color - (1 - alpha) * background) / alpha.clamp_min(LEAST_ALPHA)).clamp(0, 1)
    return torch.cat([torch.where(alpha < LEAST_ALPHA, background.expand_as(color), own), alpha], -1)


def over_background(frames: Tensor, background: Tensor) -> Tensor:
    """Colours [..., 3] of frames [..., 4] with straight alpha before a background [3]."""
    color, alpha = frames[..., :3], frames[..., 3:]
    return color * alpha + (1 - alpha) * background
