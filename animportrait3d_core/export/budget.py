"""Fewer Gaussians: those that colour the pictures most are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..animation.clips import close_lids, open_jaw
from ..avatar import AvatarRig, RiggedAvatar
from ..body.model import BodyModel
from ..cameras import Cameras, orbit_cameras
from ..errors import InvalidInput
from ..gaussians import Gaussians
from ..head_frame import CLOSE_FOV_DEGREES, CLOSE_TARGET, ORBIT_RADIUS
from ..render import rasterize_gaussians

VIEW_YAWS = (-90.0, -30.0, 0.0, 30.0, 90.0, 180.0)
CLOSE_YAWS = (-45.0, 0.0, 45.0)
DETAILS = ("teeth", "left_eyeball", "right_eyeball")
"""Regions of the body that are looked at from so near that they fill the picture."""
VIEW_SIZE = 256
JAW_DEGREES = 20.0


def contributions(avatar: RiggedAvatar) -> Tensor:
    """How much each Gaussian weighs [N] in pictures from all sides, of the face and of its `DETAILS` from near, at
    rest, with the mouth open and the lids closed.

    The sum over pixels of alpha times transmittance, which is the gradient of the pictures' sum in its colour. Of the
    three states, and of far and near, the one counts in which it weighs most: so teeth are not lost to a closed mouth,
    nor eyes to a sweater.
    """
    rest, rig = avatar.parameters, AvatarRig(avatar)
    far = orbit_cameras(VIEW_YAWS, [0.0] * len(VIEW_YAWS), VIEW_SIZE)
    face = _near(torch.tensor(CLOSE_TARGET), CLOSE_FOV_DEGREES)
    most = torch.zeros(len(avatar))
    for pose in (rest, open_jaw(rest, JAW_DEGREES), close_lids(rest, 1.0)):
        with torch.inference_mode(False), torch.no_grad():
            body = rig.body(pose)
            posed = rig.pose(pose, body)
        for cameras in (far, face, *_details(avatar.body, body.vertices[0])):
            most = torch.maximum(most, _weights(posed, cameras))
    return most


def _near(target: Tensor, fov_degrees: float) -> Cameras:
    """From the front and from both sides of it, at a place [3]."""
    level = [0.0] * len(CLOSE_YAWS)
    return orbit_cameras(CLOSE_YAWS, level, VIEW_SIZE, target=tuple(target.tolist()), fov_degrees=fov_degrees)


def _details(body: BodyModel, vertices: Tensor) -> Iterator[Cameras]:
    """Cameras that see one of the `DETAILS` and as much again around it; vertices: [V, 3] of the posed body."""
    for name in DETAILS:
        corners = vertices[body.faces[body.assets.face_regions[name]]].reshape(-1, 3)
        if len(corners):
            center = corners.mean(0)
            radius = float((corners - center).norm(dim=1).max())
            yield _near(center, math.degrees(2 * math.atan(2 * radius / ORBIT_RADIUS)))


def _weights(posed: Gaussians, cameras: Cameras) -> Tensor:
    """Pixels [N] that each Gaussian colours, by its share in them."""
    colors = torch.ones_like(posed.means).requires_grad_()
    with torch.inference_mode(False), torch.enable_grad():
        image = rasterize_gaussians(posed.means, posed.quats, posed.scales, posed.opacities, colors, cameras)
        (weights,) = torch.autograd.grad(image.color.sum(), colors)
    return weights.mean(dim=1)


def within_budget(avatar: RiggedAvatar, budget: int) -> RiggedAvatar:
    """The avatar with at most `budget` Gaussians, in their order; nothing is trained afterwards."""
    if budget < 1:
        raise InvalidInput(f"within_budget: a budget of {budget} Gaussians, expected at least 1.")
    if len(avatar) <= budget:
        return avatar
    return avatar[contributions(avatar).topk(budget).indices.sort().values]
