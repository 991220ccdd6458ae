"""Rotations as quaternions (wxyz), matrices and axis-angle vectors; batched, differentiable torch functions."""

from __future__ import annotations

import torch
from torch import Tensor


def normalize_quaternion(quats: Tensor) -> Tensor:
    """Unit quaternions [..., 4] of the same direction; a zero quaternion stays zero."""
    return torch.nn.functional.normalize(quats, dim=-1)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a b of wxyz quaternions [..., 4]: the rotation b followed by a.

    >>> i, j = torch.tensor([0.0, 1, 0, 0]), torch.tensor([0.0, 0, 1, 0])
    >>> quaternion_multiply(i, j).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def quaternion_conjugate(quats: Tensor) -> Tensor:
    """Conjugate of wxyz quaternions [..., 4]; the inverse rotation for unit quaternions."""
    return quats * quats.new_tensor([1.0, -1.0, -1.0, -1.0])


def quaternion_to_matrix(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of wxyz quaternions [..., 4], which need not be unit.

    >>> quaternion_to_matrix(torch.tensor([1.0, 0, 0, 1])).round().tolist()
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    w, x, y, z = normalize_quaternion(quats).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrices: Tensor) -> Tensor:
    """Unit wxyz quaternions [..., 4] of rotation matrices [..., 3, 3], with w >= 0 wherever w is not zero.

    Of the four textbook solutions the one with the largest pivot is taken, which keeps the value exact and its
    gradient finite near half turns.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrices.flatten(-2).unbind(-1)
    # Row k holds the quaternion times 4 q_k, so its k-th entry is 4 q_k squared.
    candidates = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], dim=-1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20], dim=-1),
            torch.stack([m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12], dim=-1),
            torch.stack([m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )
    pivot = candidates.diagonal(dim1=-2, dim2=-1).detach().argmax(dim=-1)
    chosen = candidates.gather(-2, pivot[..., None, None].expand(*pivot.shape, 1, 4)).squeeze(-2)
    quats = normalize_quaternion(chosen)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def skew(vectors: Tensor) -> Tensor:
    """Cross-product matrices [..., 3, 3] of vectors [..., 3]."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def axis_angle_to_matrix(vectors: Tensor) -> Tensor:
    """Rodrigues' formula: rotation matrices [..., 3, 3] of axis-angle vectors [..., 3] in radians.

    >>> axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2])).round().abs().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    squared = (vectors * vectors).sum(-1, keepdim=True)
    small = squared < 1e-8
    # The square root has no derivative at zero, so the small branch is taken before it, not after.
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)[..., None]
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / angle**2)[..., None]
    cross = skew(vectors)
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return identity + sine * cross + cosine * (cross @ cross)


def matrix_to_axis_angle(matrices: Tensor) -> Tensor:
    """Axis-angle vectors [..., 3] in radians, of length at most pi, of rotation matrices [..., 3, 3]."""
    quats = matrix_to_quaternion(matrices)
    vector = quats[..., 1:]
    squared = (vector * vector).sum(-1, keepdim=True)
    small = squared < 1e-12
    sine = torch.where(small, torch.ones_like(squared), squared).sqrt()
    angle = 2 * torch.atan2(sine, quats[..., :1])
    return vector * torch.where(small, torch.full_like(sine, 2.0), angle / sine)


def turned(first: Tensor, turn: Tensor) -> Tensor:
    """Axis-angle vectors [..., 3] of the rotations `turn` [..., 3] after the rotations `first` [..., 3]."""
    return matrix_to_axis_angle(axis_angle_to_matrix(turn) @ axis_angle_to_matrix(first))
