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
) -> Iterator[Tensor]:
    """Yield the frames [H, W, 3] in 0..1 of the avatar in motion, one at a time.

    cameras: one per frame, or one for all.  background: [3], white if not given.  progress: called per frame with it.
    """
    if len(cameras) not in (1, len(motion)):
        raise InvalidInput(
            f"render_motion: {len(cameras)} cameras for {len(motion)} frames, expected 1 or one per frame."
        )
    background = torch.ones(3) if background is None else background
    rig = AvatarRig(avatar)
    for index in range(len(motion)):
        with torch.no_grad():
            gaussians = rig.pose(motion.parameters[index])
            camera = cameras[index if len(cameras) > 1 else 0]
            frame = render_gaussians(gaussians, camera, background=background).color[0].clamp(0, 1)
        if progress is not None:
            progress(index + 1, len(motion), frame)
        yield frame
