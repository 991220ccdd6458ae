"""Evaluation: numbers that say how good an avatar is. Pure functions of tensors, no weights and no files.

Here: landmark, coverage, normal and overlap measures. Not here: producing the pictures (`render`,
`animation`), or learned metrics.
"""

from .metrics import (
    coverage,
    frame_coverage,
    iou,
    landmark_error,
    landmark_error_splat,
    mean_normal_angle,
    nearest_splats,
)

__all__ = [
    "coverage",
    "frame_coverage",
    "iou",
    "landmark_error",
    "landmark_error_splat",
    "mean_normal_angle",
    "nearest_splats",
]
