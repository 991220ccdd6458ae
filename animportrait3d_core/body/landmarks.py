"""The 68 iBUG landmarks of one subject, in space or in pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..cameras import Cameras, yaw_of
from ..errors import InvalidInput, check_finite, check_shape
from ..landmarks import LEFT_OUTER_EYE, NUM_FACE_LANDMARKS, RIGHT_OUTER_EYE
from ..socket_values import SocketValue
from ..views import Views

MAX_YAW_DEGREES = 75.0  # from the front; turned further, half of the face is hidden and detectors guess
SCHEMA_VERSION = 1
Detector = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Images [B, H, W, 3] -> pixels [B, 68, 2], confidence [B, 68] in 0..1, found [B] (`networks.detect_landmarks`)."""
ViewDetector = Callable[[Views], tuple[Tensor, Tensor, Tensor]]
"""The same for views, whose surface it may look at beside their pictures."""


@dataclasses.dataclass(frozen=True)
class Landmarks(SocketValue):
    """Landmarks of one subject; at least one of the two forms.

    points_3d: [68, 3] float32 in the world, or None.  points_2d: [B, 68, 2] float32 pixels in the B views of the
    subject, or None.  confidence: [68] for points_3d alone, else [B, 68], in 0..1; None means 1. Points of confidence
    0 may hold anything finite.  cameras: of the B pictures; None: those of the views that come with the landmarks.
    """

    points_3d: Tensor | None = None
    points_2d: Tensor | None = None
    confidence: Tensor | None = None
    cameras: Cameras | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.points_3d is None and self.points_2d is None:
            raise InvalidInput("Landmarks: neither points_3d [68, 3] nor points_2d [B, 68, 2] is given.")
        if self.points_3d is not None:
            check_shape("Landmarks", "points_3d", self.points_3d, [NUM_FACE_LANDMARKS, 3])
            check_finite("Landmarks", "points_3d", self.points_3d)
        if self.points_2d is not None:
            check_shape("Landmarks", "points_2d", self.points_2d, ["B", NUM_FACE_LANDMARKS, 2])
            check_finite("Landmarks", "points_2d", self.points_2d)
        if self.confidence is not None:
            wanted = [NUM_FACE_LANDMARKS] if self.points_2d is None else [len(self.points_2d), NUM_FACE_LANDMARKS]
            check_shape("Landmarks", "confidence", self.confidence, wanted)
            low, high = float(self.confidence.min()), float(self.confidence.max())
            if not (0 <= low and high <= 1):
                raise InvalidInput(f"Landmarks: `confidence` ranges over {low:.3g}..{high:.3g}, expected 0..1.")
        if self.cameras is not None and (self.points_2d is None or len(self.cameras) != len(self.points_2d)):
            count = "no" if self.points_2d is None else len(self.points_2d)
            raise InvalidInput(f"Landmarks: {len(self.cameras)} cameras for {count} pictures, expected as many.")

    def cameras_beside(self, views: Views) -> Cameras:
        """The cameras of points_2d: its own, or those of views that come with the landmarks.

        Raises `InvalidInput` if those are not as many as the pictures.
        """
        if self.cameras is not None:
            return self.cameras
        if self.points_2d is not None and len(self.points_2d) != len(views):
            raise InvalidInput(f"Landmarks: landmarks of {len(self.points_2d)} views, expected {len(views)} as given.")
        return views.cameras

    @property
    def positions(self) -> Tensor:
        """points_3d [68, 3]; `InvalidInput` if there are none."""
        if self.points_3d is None:
            raise InvalidInput("Landmarks: there are no points_3d, expected positions [68, 3] in the world.")
        return self.points_3d

    @property
    def confidence_3d(self) -> Tensor:
        """Weights [68] of points_3d."""
        if self.points_2d is None and self.confidence is not None:
            return self.confidence
        return torch.ones(NUM_FACE_LANDMARKS)

    @property
    def confidence_2d(self) -> Tensor:
        """Weights [B, 68] of points_2d."""
        return self.detections[1]

    @property
    def detections(self) -> tuple[Tensor, Tensor]:
        """points_2d [B, 68, 2] and their weights [B, 68]; `InvalidInput` if there are none."""
        if self.points_2d is None:
            raise InvalidInput("Landmarks: there are no points_2d, expected pixels [B, 68, 2] of the views.")
        return self.points_2d, torch.ones(self.points_2d.shape[:2]) if self.confidence is None else self.confidence


def landmarks_of_views(views: Views, detect: ViewDetector, most_yaw: float = MAX_YAW_DEGREES) -> Landmarks:
    """Landmarks of the views whose cameras are within `most_yaw` degrees of the front; the others get confidence 0.

    So do views without a face, if need be all of them: what is fitted to them decides whether it can do without.
    Raises `InvalidInput` if no view is within `most_yaw`.
    """
    where = "landmarks_of_views"
    yaws = yaw_of(views.cameras)
    chosen = torch.nonzero(yaws.abs() <= most_yaw).squeeze(1)
    if len(chosen) == 0:
        raise InvalidInput(
            f"{where}: none of the {len(views)} views is within {most_yaw:.0f} degrees of the front (nearest: "
            f"{float(yaws.abs().min()):.0f} degrees). Render views from the front, at least two."
        )
    points, confidence, found = detect(views[chosen])
    all_points = points.new_zeros(len(views), NUM_FACE_LANDMARKS, 2)
    all_confidence = confidence.new_zeros(len(views), NUM_FACE_LANDMARKS)
    all_points[chosen], all_confidence[chosen] = points, confidence * found[:, None]
    return Landmarks(points_2d=all_points, confidence=all_confidence, cameras=views.cameras)


def outer_eye_distance(landmarks: Tensor) -> Tensor:
    """Distance [...] between the outer corners of the eyes of landmarks [..., 68 or 70, 2 or 3], the unit of errors."""
    return (landmarks[..., RIGHT_OUTER_EYE, :] - landmarks[..., LEFT_OUTER_EYE, :]).norm(dim=-1)


CLOSED = 0.12
"""Height of a lid's opening over its width, below which an eye counts as closed."""


def eye_opening(eye: Tensor) -> float:
    """Height of an eye's opening over its width, of its six landmarks [6, 2 or 3]."""
    height = (eye[1] - eye[5]).norm() + (eye[2] - eye[4]).norm()
    return float(height / (2 * (eye[3] - eye[0]).norm()).clamp(min=1e-9))


def is_closed(eye: Tensor) -> bool:
    """Whether an eye is closed, of its six landmarks [6, 2 or 3]."""
    return eye_opening(eye) < CLOSED


def mean_landmark_error(found: Tensor, truth: Tensor) -> float:
    """Mean distance of 68 landmarks [68 or 70, 3] to the true ones, over the true outer-eye distance."""
    distances = (found[:NUM_FACE_LANDMARKS] - truth[:NUM_FACE_LANDMARKS]).norm(dim=-1)
    return float(distances.mean() / outer_eye_distance(truth))


def degrees_from_front(cameras: Cameras, right_eye: Tensor, left_eye: Tensor, mouth: Tensor) -> Tensor:
    """By how many degrees [B], 0 to 180, each camera stands to the side of a face; its points are [3] in the world."""
    leftward = left_eye - right_eye
    forward = torch.linalg.cross(leftward, (left_eye + right_eye) / 2 - mouth)
    towards = cameras.camera_centers.to(leftward) - (left_eye + right_eye + mouth) / 3
    turn = torch.atan2(towards @ leftward / leftward.norm(), towards @ forward / forward.norm())
    return torch.rad2deg(turn).abs()


def viewing_rays(cameras: Cameras, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Origins [B, 3] and unit directions [B, N, 3] in the world, float64, of the rays through pixels [B, N, 2]."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1).double()
    in_camera = homogeneous @ torch.linalg.inv(cameras.K.double()).transpose(1, 2)
    directions = torch.nn.functional.normalize(in_camera @ cameras.world_to_camera[:, :3, :3].double(), dim=-1)
    return cameras.camera_centers.double(), directions


def closest_to_rays(origins: Tensor, directions: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Points [..., N, 3] closest to B weighted rays each, and a mask [..., N] of those that the rays determine.

    origins: [..., B, 3].  directions: [..., B, N, 3], unit.  weights: [..., B, N], not negative. Minimizes
    sum_b w_b |(I - d_b d_b^T)(x - o_b)|^2 (triangulation by the midpoint method for many rays).
    """
    across = torch.eye(3, dtype=directions.dtype) - directions[..., :, None] * directions[..., None, :]
    across = across * weights[..., None, None]
    system = across.sum(-4)
    right = (across @ origins[..., None, :, None]).sum(-4)
    # With a single ray the smallest eigenvalue is zero; two views 10 degrees apart give 0.015 of the larger weight.
    enough = 0.01 * weights.amax(-2).clamp(min=1e-12)
    determined = torch.linalg.eigvalsh(system)[..., 0] > enough
    safe = torch.where(determined[..., None, None], system, torch.eye(3, dtype=system.dtype))
    return torch.linalg.solve(safe, right).squeeze(-1), determined


def triangulate(cameras: Cameras, landmarks: Landmarks) -> tuple[Tensor, Tensor]:
    """Points [68, 3] closest to the viewing rays of points_2d, and a mask [68] of those that two views determine.

    Least squares, weighted by confidence; for detections that may be wrong see `fit_landmarks.find_consensus`.
    """
    if landmarks.points_2d is None or len(landmarks.points_2d) != len(cameras):
        count = 0 if landmarks.points_2d is None else len(landmarks.points_2d)
        raise InvalidInput(f"triangulate: landmarks of {count} views, but {len(cameras)} cameras; expected as many.")
    origins, directions = viewing_rays(cameras, landmarks.points_2d)
    points, determined = closest_to_rays(origins, directions, landmarks.confidence_2d.double())
    return points.float(), determined
