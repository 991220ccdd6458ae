"""The measures of docs/conventions.md as pure functions; all of them compute in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras, project
from ..errors import InvalidInput, ShapeMismatch, check_same_shape, check_shape
from ..landmarks import NUM_FACE_LANDMARKS, OUTER_EYE_CORNERS
from ..progress import may_stop


def erode(masks: Tensor, pixels: int) -> Tensor:
    """Masks [B, H, W] bool shrunk by a square of `pixels` on each side; outside the picture counts as empty.

    >>> erode(torch.ones(1, 5, 5, dtype=torch.bool), 2).sum().item()
    1
    """
    if pixels < 1:
        return masks
    outside = torch.nn.functional.pad((~masks).float()[:, None], [pixels] * 4, value=1.0)
    return torch.nn.functional.max_pool2d(outside, 2 * pixels + 1, stride=1)[:, 0] == 0


def frame_coverage(alphas: Tensor, face_masks: Tensor, erosion_pixels: int = 2) -> Tensor:
    """Mean alpha [B] inside the eroded face mask of each frame; NaN where the eroded mask is empty.

    alphas: [B, H, W] of the avatar's picture.  face_masks: [B, H, W] bool, the posed body's face region.  The rim is
    eroded because there the silhouette itself is half transparent.
    """
    check_same_shape("coverage", alphas, face_masks)
    frames = torch.empty(len(alphas), dtype=torch.float64)
    for index, (alpha, mask) in enumerate(zip(alphas.double(), face_masks, strict=True)):
        may_stop()
        inner = erode(mask[None], erosion_pixels)[0].double()
        frames[index] = (alpha * inner).sum() / inner.sum()
    return frames


def coverage(alphas: Tensor, face_masks: Tensor, erosion_pixels: int = 2) -> float:
    """`frame_coverage` of the worst of B frames [B, H, W]: 1 means that no frame shows a hole in the face.

    Frames in which the face is not seen are left out; at least one must show it.

    >>> coverage(torch.ones(1, 9, 9), torch.ones(1, 9, 9, dtype=torch.bool))
    1.0
    """
    frames = frame_coverage(alphas, face_masks, erosion_pixels)
    seen = frames[~frames.isnan()]
    if len(seen) == 0:
        raise InvalidInput(
            f"coverage: the face mask is empty in all {len(frames)} frames after eroding it by {erosion_pixels} pixels."
        )
    return float(seen.min())


def landmark_error(points: Tensor, reference: Tensor) -> float:
    """Mean distance of landmarks [B, 68 or more, D] to the reference, over its outer-eye distance (0.02 = 2 per cent).

    D is 2 (pixels) or 3 (world). Landmarks beyond the first 68 are ignored.

    >>> face = torch.zeros(1, 68, 2); face[0, 45, 0] = 10.0
    >>> round(landmark_error(face + torch.tensor([0.0, 1.0]), face), 6)
    0.1
    """
    check_same_shape("landmark_error", points, reference)
    if points.ndim != 3 or points.shape[1] < NUM_FACE_LANDMARKS:
        raise ShapeMismatch(
            f"landmark_error: landmarks of shape {list(points.shape)}, "
            f"expected [B, {NUM_FACE_LANDMARKS} or more, 2 or 3]."
        )
    points, reference = points[:, :NUM_FACE_LANDMARKS].double(), reference[:, :NUM_FACE_LANDMARKS].double()
    right, left = (reference[:, corner] for corner in OUTER_EYE_CORNERS)
    eye_distance = (left - right).norm(dim=-1)
    return float(((points - reference).norm(dim=-1).mean(dim=1) / eye_distance).mean())


def nearest_splats(means: Tensor, landmarks: Tensor) -> Tensor:
    """Index [L] of the Gaussian of `means` [N, 3] closest to each of the landmarks [L, 3]."""
    return torch.cdist(landmarks.double(), means.double()).argmin(dim=1)


def landmark_error_splat(splats: Tensor, landmarks: Tensor, cameras: Cameras) -> float:
    """`landmark_error` in the picture between followed Gaussians and the body's landmarks, both in the world.

    splats: [T, L, 3] posed means of the Gaussians that `nearest_splats` chose at rest, for T frames.  landmarks:
    [T, L, 3] of the posed body.  cameras: T cameras, one per frame.
    """
    check_shape("landmark_error_splat", "splats", splats, [len(cameras), "L", 3])
    check_same_shape("landmark_error_splat", splats, landmarks)
    cameras = cameras.to(dtype=torch.float64)
    return landmark_error(project(cameras, splats.double())[0], project(cameras, landmarks.double())[0])


def mean_normal_angle(normals: Tensor, reference: Tensor, mask: Tensor) -> float:
    """Mean angle in degrees between normals [..., 3] and the reference, where `mask` [...] is set; need not be unit.

    >>> x, y = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 2.0, 0]])
    >>> round(mean_normal_angle(x, y, torch.tensor([True])), 6)
    90.0
    """
    check_same_shape("mean_normal_angle", normals, reference)
    chosen, wanted = normals[mask].double(), reference[mask].double()
    if len(chosen) == 0:
        raise InvalidInput("mean_normal_angle: the mask is empty; give it at least one pixel.")
    # The half-angle form keeps its precision near 0 and 180 degrees, where arccos loses half the digits.
    cross = torch.linalg.cross(chosen, wanted, dim=-1).norm(dim=-1)
    return float(torch.rad2deg(torch.atan2(cross, (chosen * wanted).sum(-1))).mean())


def iou(mask: Tensor, reference: Tensor) -> float:
    """Intersection over union of two boolean masks [...] of one shape; two empty masks give 1.

    >>> iou(torch.tensor([True, True, False]), torch.tensor([False, True, True]))
    0.3333333333333333
    """
    check_same_shape("iou", mask, reference)
    union = int((mask | reference).sum())
    return int((mask & reference).sum()) / union if union else 1.0
