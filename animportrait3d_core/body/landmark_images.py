"""Pictures of landmarks for the eye: detections over the views, and the fitted body with its landmarks beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cameras import project, yaw_of
from ..landmarks import NUM_FACE_LANDMARKS
from ..previews import body_overlay, draw_points
from ..views import Views
from .landmarks import Landmarks

if TYPE_CHECKING:
    from .fit import BodyFit

CONFIDENCE_COLORS = ((0.85, 0.10, 0.10), (0.95, 0.45, 0.05), (0.98, 0.80, 0.10), (0.55, 0.80, 0.15), (0.10, 0.70, 0.25))
"""From red for confidence 0 to green for 1, in equal steps."""

FITTED_COLOR = (0.05, 0.15, 0.95)
MIN_SIDE = 512  # points of neighbouring landmarks run into each other in smaller pictures
OVERLAY_YAWS = (0.0, 40.0, -40.0, 90.0)


def detections_image(views: Views, landmarks: Landmarks) -> Tensor:
    """Views [B, H, W, 3], enlarged if they are small, with every detection of some confidence in its colour."""
    pixels, confidence = landmarks.detections
    large, pixels = _enlarged(views, pixels)
    return _with_detections(large.images, pixels, confidence)


def fit_image(views: Views, fit: BodyFit, landmarks: Landmarks | None = None) -> Tensor:
    """Four views [4, H, W, 3] from the front to the side, with the body over them and its 68 landmarks in blue.

    landmarks: detections in the same views are drawn in the colours of their confidence, points in space in green, and
    what detections in other views agree on in the colours of its weights.
    """
    yaws = yaw_of(views.cameras)
    nearest = [int(((yaws - yaw + 180) % 360 - 180).abs().argmin()) for yaw in OVERLAY_YAWS]
    chosen, cameras = views[nearest], views.cameras[nearest]
    output = fit.body(fit.parameters)
    pixels, confidence = project(cameras, output.landmarks[0, :NUM_FACE_LANDMARKS])[0], None
    if landmarks is not None and landmarks.points_3d is not None:
        given = project(cameras, landmarks.points_3d)[0]
        confidence = landmarks.confidence_3d.expand(len(nearest), -1)
    elif landmarks is not None and landmarks.cameras_beside(views).same_as(views.cameras):
        given, confidence = (values[nearest] for values in landmarks.detections)
    elif fit.landmarks is not None:
        given, confidence = project(cameras, fit.landmarks[0])[0], fit.landmarks[1].expand(len(nearest), -1)
    if confidence is not None:
        pixels = torch.cat([pixels, given], dim=1)
    large, pixels = _enlarged(chosen, pixels)
    image = body_overlay(large, output.vertices[0], fit.body.faces_outward)
    if confidence is not None:
        image = _with_detections(image, pixels[:, NUM_FACE_LANDMARKS:], confidence)
    return draw_points(image, pixels[:, :NUM_FACE_LANDMARKS], FITTED_COLOR)


def _enlarged(views: Views, pixels: Tensor) -> tuple[Views, Tensor]:
    """The views at a whole multiple of their size that reaches `MIN_SIDE`, and pixels [B, N, 2] in them."""
    height, width = views.masks.shape[1:]
    factor = max(1, -(-MIN_SIDE // max(height, width)))
    images = views.images.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    masks = views.masks.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    large = Views(images, masks, views.cameras.resized(factor * width, factor * height), views.background)
    return large, factor * pixels


def _with_detections(images: Tensor, pixels: Tensor, confidence: Tensor) -> Tensor:
    steps = (confidence * len(CONFIDENCE_COLORS)).floor().clamp(max=len(CONFIDENCE_COLORS) - 1)
    outside = pixels.new_full((), -1e4)
    for step, color in enumerate(CONFIDENCE_COLORS):
        chosen = ((confidence > 0) & (steps == step))[..., None]
        images = draw_points(images, torch.where(chosen, pixels, outside), color)
    return images
