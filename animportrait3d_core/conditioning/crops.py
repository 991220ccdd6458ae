"""The regions that the second stage looks at, and their crops as cameras of their own.

A crop is a change of intrinsics, never a resized picture: what the network sees is rendered at its resolution. Box
sides, centres and the rule of visibility are those of the authors' code (`get_bboxes`) in its frame of 896 pixels.
"left" and "right" in the names of regions are the picture's, as in the authors' prompts: the left eye is the subject's
right one.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..cameras import Cameras, project
from ..errors import InvalidInput, check_shape
from ..landmarks import LEFT_PUPIL, MOUTH_CORNERS, NUM_BODY_LANDMARKS, RIGHT_PUPIL

FRAME_SIZE = 896


@dataclasses.dataclass(frozen=True)
class CropRegion:
    """A square part of the picture.

    name: a key of CROP_REGIONS.  side: of its box in pixels of a frame of 896.  landmarks: those whose mean is the
    centre; empty for the picture's own.  yaws: degrees between which a camera sees the region; 0 is the front, 90 the
    subject's left.  words: what its prompts begin with before the abstract prompt; None for the full prompt.
    """

    name: str
    side: float
    landmarks: tuple[int, ...]
    yaws: tuple[float, float]
    words: str | None

    def seen_from(self, yaw_degrees: float) -> bool:
        """Whether a camera at this yaw, in -180..180, sees the region; how the head is turned is not asked."""
        return self.yaws[0] < yaw_degrees < self.yaws[1]


_FRONT = (-90.0, 90.0)
# The eye on the far side is left out beyond 30 degrees.
CROP_REGIONS: dict[str, CropRegion] = {
    region.name: region
    for region in (
        CropRegion("bust", FRAME_SIZE, (), (-math.inf, math.inf), None),
        CropRegion("face", 512.0, (LEFT_PUPIL, RIGHT_PUPIL), _FRONT, None),
        CropRegion("left eye", 116.0, (RIGHT_PUPIL,), (-90.0, 30.0), "left eye region"),
        CropRegion("right eye", 116.0, (LEFT_PUPIL,), (-30.0, 90.0), "right eye region"),
        CropRegion("both eyes", 280.0, (LEFT_PUPIL, RIGHT_PUPIL), (-30.0, 30.0), "eyes region"),
        CropRegion("mouth", 200.0, MOUTH_CORNERS, _FRONT, "mouth region"),
    )
}


def crop_boxes(region: CropRegion, cameras: Cameras, landmarks: Tensor) -> tuple[Tensor, float]:
    """Centres [B, 2] float64 and the side of the region's boxes, in pixels of the cameras.

    landmarks: [70, 3], or [B, 70, 3] with one posed body per camera, in the world.
    """
    side = region.side * cameras.height / FRAME_SIZE
    if not region.landmarks:
        middle = torch.tensor([cameras.width / 2, cameras.height / 2], dtype=torch.float64, device=cameras.K.device)
        return middle.expand(len(cameras), 2), side
    if landmarks.ndim not in (2, 3):
        check_shape("crop_boxes", "landmarks", landmarks, [len(cameras), NUM_BODY_LANDMARKS, 3])
    points = landmarks[..., list(region.landmarks), :]
    return project(cameras, points)[0].double().mean(dim=1), side


def crop_cameras(
    region: CropRegion,
    cameras: Cameras,
    landmarks: Tensor,
    size: int,
    scale: float = 1.0,
    offset: Tensor | None = None,
) -> Cameras:
    """Cameras [B] of `size` pixels that see nothing but the region's box.

    cameras: [B] that see the whole picture, of any size.  landmarks: as in `crop_boxes`.  scale: of the box's side.
    offset: [B, 2] float64 by which the boxes are moved, in pixels of `cameras`; none if None.
    """
    if size < 1 or not scale > 0:
        raise InvalidInput(f"crop_cameras: size {size}, scale {scale}; expected at least 1 and more than 0.")
    centers, side = crop_boxes(region, cameras, landmarks)
    side = scale * side
    corners = centers - side / 2 if offset is None else centers + offset - side / 2
    K = cameras.K.clone()
    K[:, :2, 2] -= corners.to(K.dtype)
    K[:, :2] *= size / side
    return Cameras(cameras.world_to_camera, K, size, size)
