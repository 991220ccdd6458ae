"""Cameras of the data sets: the method's orbit and crops, moved about and scaled at random."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ...cameras import Cameras, orbit_cameras
from ...conditioning import CROP_REGIONS, FRAME_SIZE, CropRegion, crop_cameras
from ...head_frame import LOOK_AT, ORBIT_RADIUS
from .presets import Framing


@dataclasses.dataclass(frozen=True)
class View:
    """An orbit camera and what will be cut out of it.

    camera: one camera of 896 pixels.  yaw: degrees.  region: of `conditioning.CROP_REGIONS`.  scale: of the box's side.
    shift: [2] in shares of the side.
    """

    camera: Cameras
    yaw: float
    region: CropRegion
    scale: float
    shift: np.ndarray


def sample_view(region: str, framing: Framing, generator: np.random.Generator) -> View:
    """A random camera for one of `regions.IMAGE_REGIONS`."""
    yaw, elevation = generator.uniform(*framing.yaw), generator.uniform(*framing.elevation)
    if generator.random() < framing.rear_share:
        yaw = yaw + 180.0 if yaw <= 0 else yaw - 180.0
    target = np.asarray(LOOK_AT) + framing.target_jitter * generator.uniform(-1, 1, 3)
    radius = ORBIT_RADIUS * generator.uniform(*framing.radius)
    camera = orbit_cameras([yaw], [elevation], FRAME_SIZE, radius=radius, target=target.tolist())
    scale = float(np.exp(generator.uniform(*np.log(framing.side))))
    shift = framing.shift * generator.uniform(-1, 1, 2)
    name = _eyes_region(yaw, generator) if region == "eyes" else region
    return View(camera, float(yaw), CROP_REGIONS[name], scale, shift)


def _eyes_region(yaw: float, generator: np.random.Generator) -> str:
    """One eye in three of four cases, and never one on the far side."""
    choice, share = generator.random(), generator.random()
    if not CROP_REGIONS["both eyes"].seen_from(yaw):
        return "right eye" if yaw > 0 else "left eye"
    if choice < 0.25:
        return "both eyes"
    return "left eye" if share < 0.5 else "right eye"


def view_camera(view: View, landmarks: Tensor, size: int) -> Cameras:
    """The camera [1] of `size` pixels that sees the view's box. landmarks: [70, 3] in the world."""
    side = view.scale * view.region.side
    offset = view.shift * side
    if not view.region.landmarks:
        # A whole bust is at most moved as far as the frame has room, so that it is never cut more than the method does.
        room = abs(FRAME_SIZE - side) / 2 + 0.02 * FRAME_SIZE
        offset = np.clip(offset, -room, room)
    return crop_cameras(view.region, view.camera, landmarks, size, view.scale, torch.from_numpy(offset)[None])
