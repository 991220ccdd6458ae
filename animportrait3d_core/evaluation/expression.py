"""The expression that an avatar shows, regressed from detected landmarks, to compare with the one that drives it.

Papers on avatars report an average expression distance (AED): an estimator's coefficients on the render against those
that drove it. Here the estimator is the body itself: the most likely coefficients under the landmarks it must show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cameras import Cameras, project
from ..errors import InvalidInput, check_shape
from ..landmarks import INNER_FACE, NUM_FACE_LANDMARKS, OUTER_EYE_CORNERS

if TYPE_CHECKING:
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters

LANDMARK_NOISE = 0.015
"""Standard deviation of a detected landmark that is taken for granted, over the projected outer-eye distance."""
_STEPS = 4


def regress_expression(
    body: BodyModel, state: BodyParameters, rest: Tensor, camera: Cameras, points: Tensor, confidence: Tensor
) -> Tensor:
    """Most likely expression [E] of a body that shows landmarks in a picture, all its other parameters known.

    Gauss-Newton on sum_i confidence_i |project(landmark_i(e)) - point_i|^2 / sigma^2 + |e - rest|^2, a standard normal
    prior around the rest pose: what the landmarks do not show stays as it was. The face's contour is left out.
    state: batch of one; its expression does not matter.  rest: [E].  camera: one.  points: [68, 2] pixels.  confidence:
    [68] in 0..1. Raises `InvalidInput` for points that are not finite.
    """
    check_shape("regress_expression", "points", points, [NUM_FACE_LANDMARKS, 2])
    check_shape("regress_expression", "confidence", confidence, [NUM_FACE_LANDMARKS])
    if not bool(torch.isfinite(points).all()):
        raise InvalidInput("regress_expression: `points` hold values that are not finite.")
    count = rest.shape[0]
    # Posed landmarks are linear in the expression as long as the pose is fixed, but for the joints' tiny shift.
    probes = torch.cat([rest[None], rest + torch.eye(count)])
    landmarks = body(state.expand(count + 1).replace(expression=probes)).landmarks[:, :NUM_FACE_LANDMARKS].double()
    start, basis = landmarks[0], landmarks[1:] - landmarks[0]
    eyes = project(camera.to(dtype=torch.float64), start[list(OUTER_EYE_CORNERS)])[0][0]
    noise = LANDMARK_NOISE * (eyes[0] - eyes[1]).norm()
    weight = (confidence.double().sqrt() / noise)[INNER_FACE, None]
    offset = torch.zeros(count, dtype=torch.float64)
    for _ in range(_STEPS):
        place = start + torch.einsum("e,elc->lc", offset, basis)
        pixels, jacobian = _project_with_basis(camera, place, basis)
        residual = ((points.double() - pixels)[INNER_FACE] * weight).flatten()
        slopes = (jacobian[:, INNER_FACE] * weight).flatten(1)
        normal = slopes @ slopes.T + torch.eye(count, dtype=torch.float64)
        offset = torch.linalg.solve(normal, slopes @ (residual + offset @ slopes))
    return rest + offset.to(rest)


def _project_with_basis(camera: Cameras, points: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [N, 2] of points [N, 3], and how they move [E, N, 2] when points move along a basis [E, N, 3]."""
    camera = camera.to(dtype=torch.float64)
    pixels, depth = project(camera, points)
    K, rotation = camera.K[0], camera.world_to_camera[0, :3, :3]
    moved = basis @ rotation.T @ K.T
    return pixels[0], (moved[..., :2] - pixels[0] * moved[..., 2:]) / depth[0][:, None]


def expression_distance(found: Tensor, driving: Tensor) -> float:
    """Root mean square difference of coefficients [T, E], in standard deviations of the expression space.

    >>> expression_distance(torch.zeros(2, 4), torch.full((2, 4), 0.5))
    0.5
    """
    check_shape("expression_distance", "found", found, list(driving.shape))
    return float((found - driving).double().square().mean().sqrt())
