"""Cameras of the data sets: the method's orbit, and its crops as cameras of their own.

A crop is a change of intrinsics, never a resized picture: what the network sees is rendered at its resolution. Box
sides and centres are those of the method's crops (`get_bboxes` of the authors' code) at 896 pixels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from ...cameras import Cameras, orbit_cameras, project
from ...head_frame import LOOK_AT, ORBIT_RADIUS
from .presets import Framing

FRAME_SIZE = 896
LEFT_PUPIL, RIGHT_PUPIL = 68, 69  # of the subject; the subject's right eye is on the picture's left
MOUTH_CORNERS = (48, 54)
FAR_EYE_YAW = 30.0  # beyond it the method leaves out the eye on the far side
# Side in pixels of the 896 pixel frame, and the landmarks whose mean is the centre.
BOX_SIDES = {"face": 512.0, "left eye": 116.0, "right eye": 116.0, "both eyes": 280.0, "mouth": 200.0}
_CENTERS = {
    "face": (LEFT_PUPIL, RIGHT_PUPIL),
    "left eye": (RIGHT_PUPIL,),
    "right eye": (LEFT_PUPIL,),
    "both eyes": (LEFT_PUPIL, RIGHT_PUPIL),
    "mouth": MOUTH_CORNERS,
}


@dataclasses.dataclass(frozen=True)
class View:
    """An orbit camera and what will be cut out of it.

    camera: one camera of 896 pixels.  yaw: degrees.  box: a key of BOX_SIDES, or "bust" for the whole picture; left and
    right are the picture's, as in the authors' prompts.  scale: of the box's side.  shift: [2] in shares of the side.
    """

    camera: Cameras
    yaw: float
    box: str
    scale: float
    shift: np.ndarray


def sample_view(region: str, framing: Framing, generator: np.random.Generator) -> View:
    """A random camera for a region of `training.REGIONS`."""
    yaw, elevation = generator.uniform(*framing.yaw), generator.uniform(*framing.elevation)
    if generator.random() < framing.rear_share:
        yaw = yaw + 180.0 if yaw <= 0 else yaw - 180.0
    target = np.asarray(LOOK_AT) + framing.target_jitter * generator.uniform(-1, 1, 3)
    radius = ORBIT_RADIUS * generator.uniform(*framing.radius)
    camera = orbit_cameras([yaw], [elevation], FRAME_SIZE, radius=radius, target=target.tolist())
    scale = float(np.exp(generator.uniform(*np.log(framing.side))))
    shift = framing.shift * generator.uniform(-1, 1, 2)
    box = _eyes_box(yaw, generator) if region == "eyes" else region
    return View(camera, float(yaw), box, scale, shift)


def _eyes_box(yaw: float, generator: np.random.Generator) -> str:
    """One eye in three of four cases, and never one on the far side."""
    choice, share = generator.random(), generator.random()
    if choice < 0.25 and abs(yaw) < FAR_EYE_YAW:
        return "both eyes"
    if abs(yaw) >= FAR_EYE_YAW:
        return "right eye" if yaw > 0 else "left eye"
    return "left eye" if share < 0.5 else "right eye"


def crop_camera(view: View, landmarks: Tensor, size: int) -> Cameras:
    """The camera [1] of `size` pixels that sees the view's box. landmarks: [70, 3] in the world."""
    side = view.scale * BOX_SIDES.get(view.box, FRAME_SIZE)
    if view.box == "bust":
        center = np.full(2, FRAME_SIZE / 2)
        # A whole bust is at most moved as far as the frame has room, so that it is never cut more than the method does.
        room = abs(FRAME_SIZE - side) / 2 + 0.02 * FRAME_SIZE
        center = center + np.clip(view.shift * side, -room, room)
    else:
        points = landmarks[list(_CENTERS[view.box])]
        center = project(view.camera, points)[0][0].double().mean(dim=0).numpy() + view.shift * side
    corner = center - side / 2
    K = view.camera.K.clone()
    K[:, 0, 2] -= float(corner[0])
    K[:, 1, 2] -= float(corner[1])
    K[:, :2] *= size / side
    return Cameras(view.camera.world_to_camera, K, size, size)


def region_prompt(box: str, full: str, abstract: str) -> str:
    """What a picture is told: the full prompt, or region and abstract prompt for eyes and mouth (paper A1.5).

    >>> region_prompt("left eye", "a boy, red hair", "a boy")
    'left eye region, a boy'
    """
    if box in ("bust", "face"):
        return full
    return f"{'eyes' if box == 'both eyes' else box} region, {abstract}"
