"""The rigged avatar: Gaussians that live in the frames of the body's triangles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..devices import Device, moved
from ..errors import InvalidInput, all_hold, check_shape
from ..gaussians import Gaussians, sh_degree
from ..parts import AVATAR_PARTS
from ..rigging import (
    QUATERNION_ORDERS,
    Placement,
    QuaternionOrder,
    TriangleFrames,
    convert_quaternion_order,
    to_world,
    triangle_frames,
)
from ..socket_values import SocketValue
from .spherical_harmonics import rotate_spherical_harmonics

if TYPE_CHECKING:
    from ..body.model import BodyModel
    from ..body.parameters import BodyParameters

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class RiggedAvatar(SocketValue):
    """N Gaussians bound to the triangles of a body.

    gaussians: means, rotations and scales relative to the triangle (`rigging.frames`); spherical harmonics in the
    world's axes at the rest pose.  binding: [N] int64 face of each Gaussian, in the order of `body.faces`.  part_id:
    [N] uint8, see `AvatarPart`.  body: the model that is posed.  parameters: the rest pose (a batch of one),
    the one the avatar was fitted in.  quaternion_order: how the local rotations are meant to be composed with the
    triangle's.  metadata: free strings (seeds, versions, hashes) that travel with the file.
    """

    gaussians: Gaussians
    binding: Tensor
    part_id: Tensor
    body: BodyModel
    parameters: BodyParameters
    prompt: str = ""
    quaternion_order: QuaternionOrder = "corrected"
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        count, faces = len(self.gaussians), len(self.body.faces)
        check_shape("RiggedAvatar", "binding", self.binding, [count])
        check_shape("RiggedAvatar", "part_id", self.part_id, [count])
        for name, dtype in (("binding", torch.int64), ("part_id", torch.uint8)):
            if getattr(self, name).dtype != dtype:
                raise InvalidInput(f"RiggedAvatar: `{name}` has type {getattr(self, name).dtype}, expected {dtype}.")
        if count:
            self._check_numbers(faces)
        if len(self.parameters) != 1:
            raise InvalidInput(
                f"RiggedAvatar: `parameters` holds {len(self.parameters)} poses, expected the rest pose."
            )
        if self.quaternion_order not in QUATERNION_ORDERS:
            raise InvalidInput(
                f"RiggedAvatar: quaternion order '{self.quaternion_order}', expected one of {QUATERNION_ORDERS}."
            )

    def _check_numbers(self, faces: int) -> None:
        low, high = torch.aminmax(self.binding)
        last = self.part_id.max()
        if all_hold([low >= 0, high < faces, last < len(AVATAR_PARTS)]):
            return
        if not 0 <= int(low) <= int(high) < faces:
            raise InvalidInput(
                f"RiggedAvatar: `binding` points at faces {int(low)} to {int(high)}, "
                f"but the body has {faces}; use the body that the avatar was made with."
            )
        raise InvalidInput(f"RiggedAvatar: `part_id` goes up to {int(last)}, expected less than {len(AVATAR_PARTS)}.")

    def __len__(self) -> int:
        return len(self.gaussians)

    def __getitem__(self, rows: Tensor) -> RiggedAvatar:
        """The avatar with some of its Gaussians: rows [M] int64, which may repeat, or [N] bool."""
        return dataclasses.replace(
            self, gaussians=self.gaussians[rows], binding=self.binding[rows], part_id=self.part_id[rows]
        )

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> RiggedAvatar:
        """The same avatar on another device or in another floating-point type, its body included."""
        return moved(self, device, dtype)

    def frames(self, parameters: BodyParameters | None = None) -> TriangleFrames:
        """Frames of all body faces, one batch, at `parameters` (a batch of one) or at rest."""
        return body_frames(self.body, self.parameters if parameters is None else parameters)

    def with_quaternion_order(self, order: QuaternionOrder) -> RiggedAvatar:
        """The avatar with local rotations of the other order: the same at rest, and only there."""
        if order == self.quaternion_order:
            return self
        quats = convert_quaternion_order(self.frames()[self.binding], self.gaussians.quats, to=order)
        return dataclasses.replace(
            self, gaussians=dataclasses.replace(self.gaussians, quats=quats), quaternion_order=order
        )


def body_frames(body: BodyModel, parameters: BodyParameters) -> TriangleFrames:
    """Frames [F, ...] of all faces of the body in one pose (a batch of one); differentiable in the parameters."""
    if len(parameters) != 1:
        raise InvalidInput(f"body_frames: {len(parameters)} poses, expected one; index the parameters first.")
    return triangle_frames(body(parameters).vertices[0], body.faces)


def pose_gaussians(
    gaussians: Gaussians,
    frames: TriangleFrames,
    rest: TriangleFrames | None = None,
    quaternion_order: QuaternionOrder = "corrected",
) -> Gaussians:
    """Gaussians in the world of local `gaussians`; differentiable in both.

    frames, rest: one frame per Gaussian (`triangle_frames(...)[binding]`), posed and at rest. With `rest`, colours that
    depend on the view turn with the triangle: the spherical harmonics, stored in the world's axes at rest, are rotated
    by R_posed R_rest^-1. Without it they keep the world's axes, which is exact at rest and for SH degree 0.
    """
    local = Placement(gaussians.means, gaussians.quats, gaussians.log_scales)
    world = to_world(frames, local, quaternion_order)
    sh = gaussians.sh
    if rest is not None and sh_degree(sh) > 0:
        sh = rotate_spherical_harmonics(sh, frames.rotation @ rest.rotation.mT)
    return Gaussians(world.means, world.quats, world.log_scales, gaussians.logit_opacities, sh)
