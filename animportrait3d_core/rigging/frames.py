"""The local coordinate frame of a triangle, and moving Gaussians between that frame and the world.

The convention is the authors' (and GaussianAvatars'): for a triangle v0, v1, v2

    a0 = n(v1 - v0),  a1 = n(a0 x (v2 - v0)),  a2 = -n(a1 x a0),  R = [a0 | a1 | a2] (columns, a proper rotation)
    k  = (|v1 - v0| + |a2 . (v2 - v0)|) / 2,  c = mean of the corners,  world = k R local + c

The order of the corners is part of the data: local positions and rotations change with it.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..devices import Device, moved
from ..errors import InvalidInput, check_shape
from ..rotations import matrix_to_quaternion, quaternion_conjugate, quaternion_multiply, quaternion_to_matrix

QuaternionOrder = Literal["corrected", "legacy"]
QUATERNION_ORDERS: tuple[str, ...] = ("corrected", "legacy")

DEGENERATE_LENGTH = 1e-9
"""World units. An edge or a height below this has no direction: the frame then takes a fixed one, and the scale is
kept at this length, so that frames, their inverse and their gradients stay finite. A head is about 1 unit high, and
float32 resolves 1e-7 there, so no triangle of a real mesh is touched."""


@dataclasses.dataclass(frozen=True)
class TriangleFrames:
    """Frames of F triangles, with any leading batch dimensions.

    rotation: [..., F, 3, 3], the axes are its columns.  quats: [..., F, 4] wxyz of `rotation`.  scale: [..., F] in
    world units.  center: [..., F, 3].
    """

    rotation: Tensor
    quats: Tensor
    scale: Tensor
    center: Tensor

    def __getitem__(self, index: Tensor | int | slice) -> TriangleFrames:
        """Frames of the chosen triangles (an index into F)."""
        return TriangleFrames(
            self.rotation[..., index, :, :],
            self.quats[..., index, :],
            self.scale[..., index],
            self.center[..., index, :],
        )

    def to(self, device: Device = None, dtype: torch.dtype | None = None) -> TriangleFrames:
        """The same frames on another device or in another floating-point type."""
        return moved(self, device, dtype)

    def detach(self) -> TriangleFrames:
        """The same frames, copied and outside any gradient graph or inference mode of the caller."""
        return TriangleFrames(*(getattr(self, field.name).detach().clone() for field in dataclasses.fields(self)))


def triangle_frames(vertices: Tensor, faces: Tensor) -> TriangleFrames:
    """Frames of the triangles `faces` [F, 3] int64 of `vertices` [..., V, 3]; differentiable in the vertices.

    Degenerate triangles get a finite, proper frame (see `DEGENERATE_LENGTH`).

    >>> frames = triangle_frames(torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 0, 4]]), torch.tensor([[0, 1, 2]]))
    >>> frames.scale.tolist(), (frames.rotation[0] @ torch.tensor([0.0, 0, 1])).tolist()
    ([3.0], [0.0, 0.0, -1.0])
    """
    check_shape("triangle_frames", "faces", faces, ["F", 3])
    corners = vertices[..., faces, :]
    v0, v1, v2 = corners.unbind(-2)
    base, side = v1 - v0, v2 - v0
    a0 = _direction(base, torch.eye(3, dtype=base.dtype, device=base.device)[0].expand_as(base))
    a1 = _direction(torch.linalg.cross(a0, side, dim=-1), _any_perpendicular(a0))
    # a0 and a1 are orthonormal, so the cross product is a unit vector up to rounding.
    a2 = -torch.linalg.cross(a1, a0, dim=-1)
    rotation = torch.stack([a0, a1, a2], dim=-1)
    height = (a2 * side).sum(-1).abs()
    scale = 0.5 * (_safe_norm(base) + height)
    return TriangleFrames(
        rotation, matrix_to_quaternion(rotation), scale.clamp_min(DEGENERATE_LENGTH), corners.mean(dim=-2)
    )


def _safe_norm(vectors: Tensor) -> Tensor:
    """Lengths [...] whose gradient at zero is zero instead of NaN."""
    squared = (vectors * vectors).sum(-1)
    tiny = squared < DEGENERATE_LENGTH**2
    return torch.where(tiny, torch.zeros_like(squared), torch.where(tiny, torch.ones_like(squared), squared).sqrt())


def _direction(vectors: Tensor, fallback: Tensor) -> Tensor:
    """Unit vectors [..., 3]; `fallback` where the length is degenerate."""
    length = _safe_norm(vectors)[..., None]
    usable = length > 0
    return torch.where(usable, vectors / torch.where(usable, length, torch.ones_like(length)), fallback)


def _any_perpendicular(units: Tensor) -> Tensor:
    """A unit vector [..., 3] perpendicular to each unit vector [..., 3]; a constant for the gradient."""
    units = units.detach()
    axis = torch.nn.functional.one_hot(units.abs().argmin(dim=-1), 3).to(units.dtype)
    return torch.nn.functional.normalize(torch.linalg.cross(units, axis, dim=-1), dim=-1)


class Placement(NamedTuple):
    """Where Gaussians are: means [..., N, 3], quats [..., N, 4] wxyz (need not be unit), log_scales [..., N, 3]."""

    means: Tensor
    quats: Tensor
    log_scales: Tensor


def points_to_world(frames: TriangleFrames, points: Tensor) -> Tensor:
    """World positions [..., N, 3] of local `points` [..., N, 3]; `frames` holds one frame per point."""
    rotated = (frames.rotation * points[..., None, :]).sum(-1)
    return rotated * frames.scale[..., None] + frames.center


def points_to_local(frames: TriangleFrames, points: Tensor) -> Tensor:
    """Local positions [..., N, 3] of world `points` [..., N, 3], the inverse of `points_to_world`."""
    centred = (points - frames.center) / frames.scale[..., None]
    return (frames.rotation * centred[..., :, None]).sum(-2)


def to_world(frames: TriangleFrames, local: Placement, quaternion_order: QuaternionOrder = "corrected") -> Placement:
    """Placement in the world of Gaussians that are given relative to their triangle.

    frames: one frame per Gaussian, `triangle_frames(...)[binding]`; batch dimensions broadcast. `corrected` composes
    face x local (the covariance turns with the triangle); `legacy` composes local x face, the order in which the
    authors' released files were trained.
    """
    quats = _ordered_product(frames.quats, local.quats, quaternion_order)
    return Placement(points_to_world(frames, local.means), quats, local.log_scales + frames.scale.log()[..., None])


def to_local(frames: TriangleFrames, world: Placement, quaternion_order: QuaternionOrder = "corrected") -> Placement:
    """Inverse of `to_world`."""
    quats = _ordered_product(quaternion_conjugate(frames.quats), world.quats, quaternion_order)
    return Placement(points_to_local(frames, world.means), quats, world.log_scales - frames.scale.log()[..., None])


def convert_quaternion_order(frames: TriangleFrames, quats: Tensor, to: QuaternionOrder) -> Tensor:
    """Local quats [N, 4] of one order as those of the other, `to`; equal in the world at the pose of `frames`.

    face x q' = q x face gives q' = face^-1 x q x face (to `corrected`); the other way round for `legacy`. Away from
    this pose the two orders differ: that is the fault of `legacy`.
    """
    _check_order("convert_quaternion_order", to)
    inverse = quaternion_conjugate(frames.quats)
    left, right = (inverse, frames.quats) if to == "corrected" else (frames.quats, inverse)
    return quaternion_multiply(quaternion_multiply(left, quats), right)


def _ordered_product(face: Tensor, quats: Tensor, order: QuaternionOrder) -> Tensor:
    _check_order("to_world", order)
    return quaternion_multiply(face, quats) if order == "corrected" else quaternion_multiply(quats, face)


def _check_order(where: str, order: str) -> None:
    if order not in QUATERNION_ORDERS:
        raise InvalidInput(f"{where}: quaternion order '{order}' is unknown, expected one of {QUATERNION_ORDERS}.")


def covariances(placement: Placement) -> Tensor:
    """Covariance matrices [..., N, 3, 3] of the Gaussians: R S S^T R^T."""
    factor = quaternion_to_matrix(placement.quats) * placement.log_scales.exp()[..., None, :]
    return factor @ factor.transpose(-1, -2)
