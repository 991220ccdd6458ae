"""Projection of Gaussians and spherical harmonics colours in plain torch, on any device and in any float type.

The twin of the Numba kernels: their oracle in the tests, and what runs where Numba cannot be installed. Gradients come
from autograd. Formulas: Zwicker et al., "EWA splatting", eqs. 24-31; conventions of gsplat 1.5.
"""

from __future__ import annotations

import torch

from ..gaussians import SH_C0
from ..rotations import quaternion_to_matrix
from .scene import BLUR, FRUSTUM_MARGIN, MIN_ALPHA, NEAR_PLANE, GaussianScene, Projection

SH_C1 = 0.4886025119029199
SH_C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
SH_C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


def _jacobian(points: torch.Tensor, scene: GaussianScene) -> torch.Tensor:
    """Jacobian [B, N, 2, 3] of the pinhole projection at camera-space points [B, N, 3].

    The slopes x/z and y/z are clamped to a little more than the frustum: far outside of it the linearisation explodes.
    """
    x, y, z = points.unbind(-1)
    focal_x, focal_y = scene.K[:, 0, 0, None], scene.K[:, 1, 1, None]
    center_x, center_y = scene.K[:, 0, 2, None], scene.K[:, 1, 2, None]
    margin_x = FRUSTUM_MARGIN * 0.5 * scene.width / focal_x
    margin_y = FRUSTUM_MARGIN * 0.5 * scene.height / focal_y
    slope_x = torch.maximum(
        torch.minimum(x / z, (scene.width - center_x) / focal_x + margin_x), -(center_x / focal_x + margin_x)
    )
    slope_y = torch.maximum(
        torch.minimum(y / z, (scene.height - center_y) / focal_y + margin_y), -(center_y / focal_y + margin_y)
    )
    zero = torch.zeros_like(z)
    rows = [focal_x / z, zero, -focal_x * slope_x / z, zero, focal_y / z, -focal_y * slope_y / z]
    return torch.stack(rows, dim=-1).unflatten(-1, (2, 3))


def project_gaussians(scene: GaussianScene) -> Projection:
    """Projects a scene; differentiable in means, quats, scales and the cameras."""
    rotation, translation = scene.world_to_camera[:, :3, :3], scene.world_to_camera[:, :3, 3]
    points = scene.means @ rotation.transpose(1, 2) + translation[:, None]
    in_front = points[..., 2] > NEAR_PLANE
    # Culled Gaussians get a harmless position, so that neither values nor gradients become NaN behind the camera.
    points = torch.where(in_front[..., None], points, points.new_tensor([0.0, 0.0, 1.0]))
    factor = quaternion_to_matrix(scene.quats) * scene.scales[..., None, :]
    factor = _jacobian(points, scene) @ rotation[:, None] @ factor
    covariance = factor @ factor.transpose(-1, -2)
    xx, xy, yy = covariance[..., 0, 0] + BLUR, covariance[..., 0, 1], covariance[..., 1, 1] + BLUR
    determinant = xx * yy - xy * xy
    focal = torch.stack([scene.K[:, 0, 0], scene.K[:, 1, 1]], dim=-1)[:, None]
    means2d = focal * points[..., :2] / points[..., 2:] + scene.K[:, None, :2, 2]
    shown = in_front & (determinant > 0) & (scene.opacities >= MIN_ALPHA)
    safe = torch.where(shown, determinant, 1.0)
    conics = torch.stack([yy / safe, -xy / safe, xx / safe], dim=-1)
    with torch.no_grad():
        reach = torch.sqrt(2.0 * torch.log((scene.opacities / MIN_ALPHA).clamp_min(1.0)))
        reach = reach[..., None] * torch.sqrt(torch.stack([xx, yy], dim=-1)) + 1e-3
        low = torch.ceil(means2d - reach - 0.5).clamp_min(0.0)
        high = torch.minimum(torch.floor(means2d + reach - 0.5), low.new_tensor([scene.width - 1, scene.height - 1]))
        shown = shown & (low <= high).all(-1)
        boxes = torch.where(shown[..., None], torch.cat([low, high], dim=-1), low.new_tensor([0, 0, -1, -1]))
        radii = torch.where(shown, reach.amax(-1).clamp_max(1e6).ceil(), 0.0)
    keep = shown[..., None]
    return Projection(
        torch.where(keep, means2d, 0.0),
        torch.where(keep, conics, 0.0),
        torch.where(shown, points[..., 2], 0.0),
        radii.to(torch.int32),
        boxes.to(torch.int32),
    )


def spherical_harmonics_basis(directions: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` (1, 4, 9, 16) real basis functions at unit directions [..., 3]: [..., count]."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, SH_C0)]
    if count > 1:
        basis += [-SH_C1 * y, SH_C1 * z, -SH_C1 * x]
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        basis += [
            SH_C2[0] * x * y,
            SH_C2[1] * y * z,
            SH_C2[2] * (2 * zz - xx - yy),
            SH_C2[3] * x * z,
            SH_C2[4] * (xx - yy),
        ]
    if count > 9:
        basis += [
            SH_C3[0] * y * (3 * xx - yy),
            SH_C3[1] * x * y * z,
            SH_C3[2] * y * (4 * zz - xx - yy),
            SH_C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            SH_C3[4] * x * (4 * zz - xx - yy),
            SH_C3[5] * z * (xx - yy),
            SH_C3[6] * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, dim=-1)


def shade_gaussians(scene: GaussianScene, radii: torch.Tensor) -> torch.Tensor:
    """Colours [B, N, 3] of spherical harmonics seen from each camera: max(0, sum + 0.5); culled ones are 0."""
    assert scene.sh is not None
    offsets = scene.means - scene.camera_centers()[:, None]
    directions = torch.nn.functional.normalize(offsets, dim=-1)
    basis = spherical_harmonics_basis(directions, scene.sh.shape[1])
    colors = torch.einsum("bnk,nkc->bnc", basis, scene.sh) + 0.5
    return torch.where((radii > 0)[..., None], colors.clamp_min(0.0), 0.0)
