"""The 68 iBUG landmarks of one subject, in space or in pictures."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput, check_finite, check_shape

NUM_LANDMARKS = 68
RIGHT_OUTER_EYE, LEFT_OUTER_EYE = 36, 45  # iBUG counts from the subject's right
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """Landmarks of one subject; at least one of the two forms.

    points_3d: [68, 3] float32 in the world, or None.  points_2d: [B, 68, 2] float32 pixels in the B views of the
    subject, or None.  confidence: [68] for points_3d alone, else [B, 68], in 0..1; None means 1. Points of confidence
    0 may hold anything finite.
    """

    points_3d: Tensor | None = None
    points_2d: Tensor | None = None
    confidence: Tensor | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.points_3d is None and self.points_2d is None:
            raise InvalidInput("Landmarks: neither points_3d [68, 3] nor points_2d [B, 68, 2] is given.")
        if self.points_3d is not None:
            check_shape("Landmarks", "points_3d", self.points_3d, [NUM_LANDMARKS, 3])
            check_finite("Landmarks", "points_3d", self.points_3d)
        if self.points_2d is not None:
            check_shape("Landmarks", "points_2d", self.points_2d, ["B", NUM_LANDMARKS, 2])
            check_finite("Landmarks", "points_2d", self.points_2d)
        if self.confidence is not None:
            wanted = [NUM_LANDMARKS] if self.points_2d is None else [len(self.points_2d), NUM_LANDMARKS]
            check_shape("Landmarks", "confidence", self.confidence, wanted)
            low, high = float(self.confidence.min()), float(self.confidence.max())
            if not (0 <= low and high <= 1):
                raise InvalidInput(f"Landmarks: `confidence` ranges over {low:.3g}..{high:.3g}, expected 0..1.")

    @property
    def confidence_3d(self) -> Tensor:
        """Weights [68] of points_3d."""
        if self.points_2d is None and self.confidence is not None:
            return self.confidence
        return torch.ones(NUM_LANDMARKS)

    @property
    def confidence_2d(self) -> Tensor:
        """Weights [B, 68] of points_2d."""
        if self.points_2d is None:
            raise InvalidInput("Landmarks: there are no points_2d.")
        return torch.ones(self.points_2d.shape[:2]) if self.confidence is None else self.confidence


def outer_eye_distance(landmarks: Tensor) -> Tensor:
    """Distance [...] between the outer corners of the eyes of landmarks [..., 68 or 70, 2 or 3], the unit of errors."""
    return (landmarks[..., RIGHT_OUTER_EYE, :] - landmarks[..., LEFT_OUTER_EYE, :]).norm(dim=-1)


def mean_landmark_error(found: Tensor, truth: Tensor) -> float:
    """Mean distance of 68 landmarks [68 or 70, 3] to the true ones, over the true outer-eye distance."""
    distances = (found[:NUM_LANDMARKS] - truth[:NUM_LANDMARKS]).norm(dim=-1)
    return float(distances.mean() / outer_eye_distance(truth))


def triangulate(cameras: Cameras, landmarks: Landmarks) -> tuple[Tensor, Tensor]:
    """Points [68, 3] closest to the viewing rays of points_2d, and a mask [68] of those that two views determine.

    Least squares over the rays, weighted by confidence: sum_b w_b |(I - d_b d_b^T)(x - o_b)|^2.
    """
    if landmarks.points_2d is None or len(landmarks.points_2d) != len(cameras):
        count = 0 if landmarks.points_2d is None else len(landmarks.points_2d)
        raise InvalidInput(f"triangulate: landmarks of {count} views, but {len(cameras)} cameras; expected as many.")
    pixels = landmarks.points_2d.double()
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    in_camera = homogeneous @ torch.linalg.inv(cameras.K.double()).transpose(1, 2)
    directions = torch.nn.functional.normalize(in_camera @ cameras.world_to_camera[:, :3, :3].double(), dim=-1)
    across = torch.eye(3, dtype=torch.float64) - directions[..., :, None] * directions[..., None, :]
    across = across * landmarks.confidence_2d.double()[..., None, None]
    system = across.sum(0)
    right = (across @ cameras.camera_centers.double()[:, None, :, None]).sum(0)
    # With a single ray the smallest eigenvalue is zero; two views 10 degrees apart give 0.03.
    determined = torch.linalg.eigvalsh(system)[:, 0] > 0.01
    safe = torch.where(determined[:, None, None], system, torch.eye(3, dtype=torch.float64))
    return torch.linalg.solve(safe, right).squeeze(-1).float(), determined
