"""What of eyes and mouth shows where it should not while a body moves, by the labels of its surface."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..animation.clips import StressClipSettings, stress_clip
from ..body.model import BodyModel
from ..body.parameters import BodyParameters
from ..cameras import orbit_cameras, project
from ..landmarks import LEFT_EYE, MOUTH, NUM_FACE_LANDMARKS, RIGHT_EYE
from ..render import rasterize_mesh

YAWS, FOV, SIZE = (0.0, 30.0, -30.0, 60.0), 9.0, 512
"""Degrees and pixels of the close views."""
_INNER_LIPS = 60  # the first landmark of the inner lips


def eyeball_pixels(body: BodyModel, parameters: BodyParameters) -> int:
    """Pixels of eyeballs in four close views of a pose (a batch of one); none where closed lids hide them."""
    seen, _ = _seen(body, parameters, slice(RIGHT_EYE.start, LEFT_EYE.stop), ("left_eyeball", "right_eyeball"))
    return int(seen.sum())


def mouth_beside_lips(body: BodyModel, parameters: BodyParameters) -> float:
    """Share of teeth and mouth that four close views show beyond the outer contour of the lips, in the worst of the
    stress clip's faces: the open jaw and each expression. Over what the open jaw shows of them, at least one pixel.

    parameters: a batch of one, from which the faces are made.
    """
    clip = stress_clip(body, parameters, settings=StressClipSettings(frames_per_move=1))
    beside, opened = 0, 1
    for number, name in enumerate(clip.names):
        if name != "jaw open" and not name.startswith("expression"):
            continue
        mouth, pixels = _seen(body, clip.parameters[number], MOUTH, ("teeth", "mouth_interior"))
        lips = torch.stack([_filled(contour, mouth.shape[1:]) for contour in pixels[:, MOUTH.start : _INNER_LIPS]])
        beside = max(beside, int((mouth & ~lips).sum()))
        opened = max(opened, int(mouth.sum())) if name == "jaw open" else opened
    return beside / opened


def _seen(
    body: BodyModel, parameters: BodyParameters, around: slice, names: tuple[str, ...]
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Which pixels [4, H, W] show the regions in views of the landmarks `around`, and the pixels [4, 68, 2] of all."""
    output = body(parameters)
    center = output.landmarks[0, around].mean(0).tolist()
    cameras = orbit_cameras(YAWS, [0.0] * len(YAWS), SIZE, target=center, fov_degrees=FOV)
    face = rasterize_mesh(output.vertices[0], body.faces_outward, cameras).face_id
    wanted = torch.stack([body.assets.face_regions[name] for name in names]).any(0)
    return (face >= 0) & wanted[face.clamp(min=0)], project(cameras, output.landmarks[0, :NUM_FACE_LANDMARKS])[0]


def _filled(contour: Tensor, size: torch.Size) -> Tensor:
    """The inside [H, W] bool of a polygon of pixels [N, 2]."""
    image = Image.new("L", (size[1], size[0]))
    ImageDraw.Draw(image).polygon([tuple(point) for point in contour.tolist()], fill=1)
    return torch.from_numpy(np.array(image)).bool()
