"""Numba evaluation of spherical harmonics colours with closed-form gradients (degree 0 to 3).

The twin of `torch_projection.shade_gaussians`, whose constants it uses.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..gaussians import SH_C0
from ..kernels import numba
from .scene import GaussianScene
from .threads import run_parallel
from .torch_projection import SH_C1, SH_C2, SH_C3


@numba.njit(error_model="numpy")
def _basis(x, y, z, out):
    """The first len(out) basis functions at a unit direction."""
    count = out.shape[0]
    out[0] = SH_C0
    if count > 1:
        out[1], out[2], out[3] = -SH_C1 * y, SH_C1 * z, -SH_C1 * x
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        out[4], out[5], out[6] = SH_C2[0] * x * y, SH_C2[1] * y * z, SH_C2[2] * (2.0 * zz - xx - yy)
        out[7], out[8] = SH_C2[3] * x * z, SH_C2[4] * (xx - yy)
        if count > 9:
            out[9] = SH_C3[0] * y * (3.0 * xx - yy)
            out[10] = SH_C3[1] * x * y * z
            out[11] = SH_C3[2] * y * (4.0 * zz - xx - yy)
            out[12] = SH_C3[3] * z * (2.0 * zz - 3.0 * xx - 3.0 * yy)
            out[13] = SH_C3[4] * x * (4.0 * zz - xx - yy)
            out[14] = SH_C3[5] * z * (xx - yy)
            out[15] = SH_C3[6] * x * (xx - 3.0 * yy)


@numba.njit(error_model="numpy")
def _direction_gradient(x, y, z, weight):
    """Gradient of sum_k weight[k] basis_k(x, y, z) with respect to (x, y, z), weight [K]."""
    count = weight.shape[0]
    gx, gy, gz = 0.0, 0.0, 0.0
    if count > 1:
        gx, gy, gz = -SH_C1 * weight[3], -SH_C1 * weight[1], SH_C1 * weight[2]
    if count > 4:
        a, b, c = SH_C2[0] * weight[4], SH_C2[1] * weight[5], SH_C2[2] * weight[6]
        d, e = SH_C2[3] * weight[7], SH_C2[4] * weight[8]
        gx += a * y - 2.0 * c * x + d * z + 2.0 * e * x
        gy += a * x + b * z - 2.0 * c * y - 2.0 * e * y
        gz += b * y + 4.0 * c * z + d * x
    if count > 9:
        xx, yy, zz = x * x, y * y, z * z
        a, b, c, d = SH_C3[0] * weight[9], SH_C3[1] * weight[10], SH_C3[2] * weight[11], SH_C3[3] * weight[12]
        e, f, g = SH_C3[4] * weight[13], SH_C3[5] * weight[14], SH_C3[6] * weight[15]
        gx += 6.0 * a * x * y + b * y * z - 2.0 * c * x * y - 6.0 * d * x * z
        gx += e * (4.0 * zz - 3.0 * xx - yy) + 2.0 * f * x * z + 3.0 * g * (xx - yy)
        gy += 3.0 * a * (xx - yy) + b * x * z + c * (4.0 * zz - xx - 3.0 * yy) - 6.0 * d * y * z
        gy += -2.0 * e * x * y - 2.0 * f * y * z - 6.0 * g * x * y
        gz += b * x * y + 8.0 * c * y * z + d * (6.0 * zz - 3.0 * xx - 3.0 * yy) + 8.0 * e * x * z + f * (xx - yy)
    return gx, gy, gz


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _shade_forward(means, sh, centers, radii, colors, begin, end):
    count = sh.shape[1]
    basis = np.empty(count)
    for b in range(radii.shape[0]):
        m = b % means.shape[0]
        for i in range(begin, end):
            if radii[b, i] == 0:
                continue
            x, y, z = means[m, i, 0] - centers[b, 0], means[m, i, 1] - centers[b, 1], means[m, i, 2] - centers[b, 2]
            inverse = 1.0 / max(math.sqrt(x * x + y * y + z * z), 1e-12)
            _basis(x * inverse, y * inverse, z * inverse, basis)
            red, green, blue = 0.5, 0.5, 0.5
            for k in range(count):
                red += basis[k] * sh[i, k, 0]
                green += basis[k] * sh[i, k, 1]
                blue += basis[k] * sh[i, k, 2]
            colors[b, i, 0], colors[b, i, 1], colors[b, i, 2] = max(red, 0.0), max(green, 0.0), max(blue, 0.0)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _shade_backward(inputs, centers, colors, grad_colors, outputs, begin, end):
    means, sh = inputs
    grad_means, grad_sh = outputs
    count = sh.shape[1]
    basis, weight = np.empty(count), np.empty(count)
    for b in range(colors.shape[0]):
        m = b % means.shape[0]
        for i in range(begin, end):
            # A colour of exactly 0 was clamped, or its Gaussian culled: no gradient either way.
            red = np.float64(grad_colors[b, i, 0]) if colors[b, i, 0] > 0 else 0.0
            green = np.float64(grad_colors[b, i, 1]) if colors[b, i, 1] > 0 else 0.0
            blue = np.float64(grad_colors[b, i, 2]) if colors[b, i, 2] > 0 else 0.0
            if red == 0.0 and green == 0.0 and blue == 0.0:
                continue
            x, y, z = means[m, i, 0] - centers[b, 0], means[m, i, 1] - centers[b, 1], means[m, i, 2] - centers[b, 2]
            inverse = 1.0 / max(math.sqrt(x * x + y * y + z * z), 1e-12)
            x, y, z = x * inverse, y * inverse, z * inverse
            _basis(x, y, z, basis)
            for k in range(count):
                grad_sh[i, k, 0] += basis[k] * red
                grad_sh[i, k, 1] += basis[k] * green
                grad_sh[i, k, 2] += basis[k] * blue
                weight[k] = sh[i, k, 0] * red + sh[i, k, 1] * green + sh[i, k, 2] * blue
            gx, gy, gz = _direction_gradient(x, y, z, weight)
            radial = gx * x + gy * y + gz * z
            grad_means[m, i, 0] += (gx - radial * x) * inverse
            grad_means[m, i, 1] += (gy - radial * y) * inverse
            grad_means[m, i, 2] += (gz - radial * z) * inverse


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, sh, centers, radii):
        colors = torch.zeros(*radii.shape, 3)
        run_parallel(
            _shade_forward,
            radii.shape[1],
            means.detach().numpy(),
            sh.detach().numpy(),
            centers,
            radii.numpy(),
            colors.numpy(),
        )
        ctx.save_for_backward(means, sh, colors)
        ctx.centers = centers
        return colors

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_colors):
        means, sh, colors = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        outputs = np.zeros_like(means), np.zeros_like(sh)
        run_parallel(
            _shade_backward,
            colors.shape[1],
            (means, sh),
            ctx.centers,
            colors,
            grad_colors.contiguous().numpy(),
            outputs,
        )
        return torch.from_numpy(outputs[0]), torch.from_numpy(outputs[1]), None, None


def shade_gaussians(scene: GaussianScene, radii: torch.Tensor) -> torch.Tensor:
    """Colours [B, N, 3] of spherical harmonics seen from each camera: max(0, sum + 0.5); culled ones are 0."""
    centers = scene.camera_centers().detach().double().numpy()
    return _Shade.apply(scene.means, scene.sh, centers, radii)
