"""An avatar posed many times: what no pose changes is computed once."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..gaussians import Gaussians, sh_degree
from ..rigging import Placement, TriangleFrames, to_world, triangle_frames
from .model import RiggedAvatar
from .spherical_harmonics import harmonic_turns, turn_harmonics

if TYPE_CHECKING:
    from ..body.model import BodyOutput
    from ..body.parameters import BodyParameters


class AvatarRig:
    """Poses one avatar; make it once before a loop over poses.

    Kept are the body's shape and joints for the avatar's betas, which triangles carry Gaussians (no others get a
    frame), and their frames at rest. Lives on the avatar's device; may be shared between threads and with
    `torch.inference_mode()`. Nothing kept carries a gradient, so that none reaches the rest pose.
    """

    def __init__(self, avatar: RiggedAvatar) -> None:
        self.avatar = avatar
        with torch.inference_mode(False), torch.no_grad():
            self._shape = avatar.body.shape(avatar.parameters.betas)
            carriers, self._carrier = torch.unique(avatar.binding, return_inverse=True)
            self._faces = avatar.body.faces[carriers]

    def body(self, parameters: BodyParameters) -> BodyOutput:
        """The body in the poses `parameters` [B]; differentiable in them. Other betas than the avatar's are obeyed."""
        betas, own = parameters.betas, self.avatar.parameters.betas
        same = betas is own or (not betas.requires_grad and torch.equal(betas, own.expand_as(betas)))
        return self.avatar.body(parameters, self._shape if same else None)

    def pose(self, parameters: BodyParameters, posed: BodyOutput | None = None) -> Gaussians:
        """The avatar's Gaussians in the world, in the pose `parameters` (a batch of one).

        posed: `body(parameters)`, if that was needed before. Differentiable in the Gaussians and in the parameters.
        Local rotations are composed in the avatar's own `quaternion_order`; view-dependent colours turn with the
        triangles (see `pose_gaussians`, whose numbers these are).
        """
        if len(parameters) != 1:
            raise InvalidInput(f"AvatarRig.pose: {len(parameters)} poses, expected one; index the parameters first.")
        posed = self.body(parameters) if posed is None else posed
        frames = triangle_frames(posed.vertices[0], self._faces)
        stored = self.avatar.gaussians
        local = Placement(stored.means, stored.quats, stored.log_scales)
        world = to_world(frames[self._carrier], local, self.avatar.quaternion_order)
        return Gaussians(
            world.means, world.quats, world.log_scales, stored.logit_opacities, self._turned(stored.sh, frames)
        )

    @functools.cached_property
    def _at_rest(self) -> TriangleFrames:
        """Frames of the carrying triangles in the rest pose."""
        with torch.inference_mode(False), torch.no_grad():
            return triangle_frames(self.body(self.avatar.parameters).vertices[0], self._faces)

    def _turned(self, sh: Tensor, frames: TriangleFrames) -> Tensor:
        """Coefficients [N, K, 3] turned with their triangles; the matrices are made per triangle, not per Gaussian."""
        degree = sh_degree(sh)
        if degree == 0:
            return sh
        turns = harmonic_turns(frames.rotation @ self._at_rest.rotation.mT, degree)
        return turn_harmonics(sh, [turn[self._carrier] for turn in turns])


def pose_avatar(avatar: RiggedAvatar, parameters: BodyParameters) -> Gaussians:
    """The avatar's Gaussians in the world, in one pose; for many poses keep an `AvatarRig`."""
    return AvatarRig(avatar).pose(parameters)


def resting_in(avatar: RiggedAvatar, parameters: BodyParameters) -> RiggedAvatar:
    """The same avatar with another rest pose (a batch of one): it looks the same in every pose.

    Colours that depend on the view are stored in the world's axes at rest, so they turn with their triangles.
    """
    sh = pose_avatar(avatar, parameters).sh
    return dataclasses.replace(avatar, parameters=parameters, gaussians=dataclasses.replace(avatar.gaussians, sh=sh))
