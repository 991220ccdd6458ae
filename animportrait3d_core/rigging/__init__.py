"""Rigging: points on the portrait, bound to triangles of the fitted body, and the triangles' local frames.

Here: triangle frames, sampling of points, their binding and their colours. Not here: the Gaussians made of the points
(`avatar`), the body model (`body`), reading of files.
"""

from .frames import (
    QUATERNION_ORDERS,
    Placement,
    QuaternionOrder,
    TriangleFrames,
    convert_quaternion_order,
    covariances,
    points_to_local,
    points_to_world,
    to_local,
    to_world,
    triangle_frames,
)

__all__ = [
    "QUATERNION_ORDERS",
    "Placement",
    "QuaternionOrder",
    "TriangleFrames",
    "convert_quaternion_order",
    "covariances",
    "points_to_local",
    "points_to_world",
    "to_local",
    "to_world",
    "triangle_frames",
]
