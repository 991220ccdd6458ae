"""Frames of an avatar in motion, and the cameras that look at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def four_view_cameras(frames: int, size: int) -> list[Cameras]:
    """Front, three-quarter, side and back: for each of the four `frames` times its square camera."""
    return [orbit_cameras([yaw] * frames, [0.0] * frames, size) for yaw in (0.0, 45.0, 90.0, 180.0)]


def render_motion(
    avatar: RiggedAvatar,
    motion: Motion,
    cameras: Cameras | Sequence[Cameras],
    background: Tensor | None = None,
    progress: Progress | None = None,
    cut_out: bool = False,
    beside: str = NOTHING,
) -> Iterator[Tensor]:
    """Yield the frames [H, W, 3] in 0..1 of the avatar in motion, one at a time.

    cameras: one per frame, or one for all; of several such, each is a picture in the frame, from left to right.
    background: [3], white if not given.  progress: called per frame with it.
    cut_out: the frames are [H, W, 4], colours and alpha (straight: colours are not multiplied by it); what shows
    nothing has the background's colour, for players that know no alpha.  beside: of `beside.BESIDE`, what stands on
    the right of the avatar, in frames [H, 2 W, 3 or 4], or below n pictures of it, in frames [2 H, n W, 3 or 4].
    """
    check_beside("render_motion", beside)
    views = [cameras] if isinstance(cameras, Cameras) else list(cameras)
    for each in views:
        if len(each) not in (1, len(motion)):
            raise InvalidInput(
                f"render_motion: {len(each)} cameras for {len(motion)} frames, expected 1 or one per frame."
            )
    background = torch.ones(3) if background is None else background
    rig = AvatarRig(avatar)
    for index in range(len(motion)):
        with torch.no_grad():
            pose, seen_by = motion.parameters[index], [each[index if len(each) > 1 else 0] for each in views]
            posed = rig.body(pose)
            gaussians, body = rig.pose(pose, posed), (posed.vertices[0], avatar.body.faces_outward)
            images = [render_gaussians(gaussians, camera, background=background) for camera in seen_by]
            rows = [[(image.color[0].clamp(0, 1), image.alpha[0].clamp(0, 1)[..., None]) for image in images]]
            if beside != NOTHING:
                rows.append([body_picture(*body, camera, background, beside) for camera in seen_by])
            strips = [
                torch.cat([_cut_out(*picture, background) if cut_out else picture[0] for picture in row], dim=1)
                for row in rows
            ]
            frame = torch.cat(strips, dim=1 if len(views) == 1 else 0)
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
