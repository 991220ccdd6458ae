"""Numba projection of Gaussians to the image plane and spherical harmonics colours, with closed-form gradients.

Pinhole EWA splatting with gsplat's conventions (Zwicker et al., "EWA splatting", eqs. 24-31; Kerbl et al., "3D
Gaussian Splatting", eq. 5). Arithmetic is in double precision inside of a Gaussian: the kernels are bound by memory
and scalar latency, so it costs nothing and keeps gradients at float32 round-off. Each Gaussian's gradient is summed
over the cameras by one thread, so the result does not depend on the number of threads.
The torch twin is `torch_projection.py`.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..kernels import numba
from .scene import BLUR, FRUSTUM_MARGIN, MIN_ALPHA, NEAR_PLANE, GaussianScene, Projection
from .threads import run_parallel

_CAMERA_COLUMNS = 16
_MAX_PIXEL = 1e6  # farther off than this no Gaussian of a sane size reaches the image; keeps casts to int defined


def camera_rows(world_to_camera: torch.Tensor, K: torch.Tensor) -> np.ndarray:
    """[B, 16] float64: rotation (9, row by row), translation (3), fx, fy, cx, cy; from [B, 4, 4] and [B, 3, 3]."""
    rows = np.empty((len(K), _CAMERA_COLUMNS))
    matrices = world_to_camera.detach().cpu().double().numpy()
    intrinsics = K.detach().cpu().double().numpy()
    rows[:, :9] = matrices[:, :3, :3].reshape(-1, 9)
    rows[:, 9:12] = matrices[:, :3, 3]
    rows[:, 12], rows[:, 13] = intrinsics[:, 0, 0], intrinsics[:, 1, 1]
    rows[:, 14], rows[:, 15] = intrinsics[:, 0, 2], intrinsics[:, 1, 2]
    return rows


@numba.njit(error_model="numpy")
def _rotation_matrix(quat, out):
    """Rotation matrix of a wxyz quaternion that need not be unit, into out [3, 3]; returns 1 / |quat|."""
    w, x, y, z = np.float64(quat[0]), np.float64(quat[1]), np.float64(quat[2]), np.float64(quat[3])
    inverse_norm = 1.0 / max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm
    out[0, 0] = 1.0 - 2.0 * (y * y + z * z)
    out[0, 1] = 2.0 * (x * y - w * z)
    out[0, 2] = 2.0 * (x * z + w * y)
    out[1, 0] = 2.0 * (x * y + w * z)
    out[1, 1] = 1.0 - 2.0 * (x * x + z * z)
    out[1, 2] = 2.0 * (y * z - w * x)
    out[2, 0] = 2.0 * (x * z - w * y)
    out[2, 1] = 2.0 * (y * z + w * x)
    out[2, 2] = 1.0 - 2.0 * (x * x + y * y)
    return inverse_norm


@numba.njit(error_model="numpy")
def _view_position(mean, camera):
    """Mean in camera coordinates."""
    x = camera[0] * mean[0] + camera[1] * mean[1] + camera[2] * mean[2] + camera[9]
    y = camera[3] * mean[0] + camera[4] * mean[1] + camera[5] * mean[2] + camera[10]
    z = camera[6] * mean[0] + camera[7] * mean[1] + camera[8] * mean[2] + camera[11]
    return x, y, z


@numba.njit(error_model="numpy")
def _clamped_slopes(x, y, z, camera, size):
    """x/z and y/z, clamped to a little more than the frustum, where the projection is linearised (as in gsplat)."""
    width, height = size
    fx, fy, cx, cy = camera[12], camera[13], camera[14], camera[15]
    margin_x = FRUSTUM_MARGIN * 0.5 * width / fx
    margin_y = FRUSTUM_MARGIN * 0.5 * height / fy
    slope_x = min(max(x / z, -(cx / fx + margin_x)), (width - cx) / fx + margin_x)
    slope_y = min(max(y / z, -(cy / fy + margin_y)), (height - cy) / fy + margin_y)
    return slope_x, slope_y


@numba.njit(error_model="numpy")
def _world_to_plane(z, slope_x, slope_y, camera, out):
    """Jacobian of the projection times the camera's rotation, into out [2, 3]."""
    scale_x, scale_y = camera[12] / z, camera[13] / z
    for column in range(3):
        out[0, column] = scale_x * (camera[column] - slope_x * camera[6 + column])
        out[1, column] = scale_y * (camera[3 + column] - slope_y * camera[6 + column])


@numba.njit(error_model="numpy")
def _plane_factor(plane, rotation, scale, out):
    """plane (2x3) times rotation, into out [2, 3]; returns the covariance (xx, xy, yy) of that times the scales."""
    xx, xy, yy = BLUR, 0.0, BLUR
    for column in range(3):
        for row in range(2):
            out[row, column] = (
                plane[row, 0] * rotation[0, column]
                + plane[row, 1] * rotation[1, column]
                + plane[row, 2] * rotation[2, column]
            )
        squared_scale = scale[column] * np.float64(scale[column])
        xx += out[0, column] * out[0, column] * squared_scale
        xy += out[0, column] * out[1, column] * squared_scale
        yy += out[1, column] * out[1, column] * squared_scale
    return xx, xy, yy


@numba.njit(error_model="numpy")
def _pixel_box(mean, conic, opacity, size, box):
    """Inclusive pixel box (x0, y0, x1, y1) where alpha can reach 1/255, into box; empty when x0 > x1.

    mean and conic are the rounded values that the rasteriser will see. Returns half the larger side, in pixels.
    """
    width, height = size
    determinant = np.float64(conic[0]) * conic[2] - np.float64(conic[1]) * conic[1]
    squared = 2.0 * math.log(opacity / MIN_ALPHA)
    # The slack covers the rounding of sigma; a pixel let in by it is still skipped by its alpha.
    reach_x = math.sqrt(max(squared * conic[2] / determinant, 0.0)) + 1e-3
    reach_y = math.sqrt(max(squared * conic[0] / determinant, 0.0)) + 1e-3
    x0, x1 = max(0.0, math.ceil(mean[0] - reach_x - 0.5)), min(width - 1.0, math.floor(mean[0] + reach_x - 0.5))
    y0, y1 = max(0.0, math.ceil(mean[1] - reach_y - 0.5)), min(height - 1.0, math.floor(mean[1] + reach_y - 0.5))
    if x0 <= x1 and y0 <= y1:
        box[0], box[1], box[2], box[3] = x0, y0, x1, y1
    return max(reach_x, reach_y)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _project_forward(inputs, cameras, size, outputs, begin, end):
    means, quats, scales, opacities = inputs
    means2d, conics, depths, radii, boxes = outputs
    rotation, plane, factor = np.empty((3, 3)), np.empty((2, 3)), np.empty((2, 3))
    for b in range(cameras.shape[0]):
        camera = cameras[b]
        m, q, s, o = b % means.shape[0], b % quats.shape[0], b % scales.shape[0], b % opacities.shape[0]
        for i in range(begin, end):
            opacity = np.float64(opacities[o, i])
            x, y, z = _view_position(means[m, i], camera)
            if not (z > NEAR_PLANE and opacity >= MIN_ALPHA):
                continue
            _rotation_matrix(quats[q, i], rotation)
            slope_x, slope_y = _clamped_slopes(x, y, z, camera, size)
            _world_to_plane(z, slope_x, slope_y, camera, plane)
            xx, xy, yy = _plane_factor(plane, rotation, scales[s, i], factor)
            determinant = xx * yy - xy * xy
            pixel_x = camera[12] * x / z + camera[14]
            pixel_y = camera[13] * y / z + camera[15]
            if not (0.0 < determinant < np.inf and abs(pixel_x) < _MAX_PIXEL and abs(pixel_y) < _MAX_PIXEL):
                continue
            mean, conic = means2d[b, i], conics[b, i]
            mean[0], mean[1] = pixel_x, pixel_y
            conic[0], conic[1], conic[2] = yy / determinant, -xy / determinant, xx / determinant
            radius = _pixel_box(mean, conic, opacity, size, boxes[b, i])
            if boxes[b, i, 0] > boxes[b, i, 2]:
                mean[0], mean[1], conic[0], conic[1], conic[2] = 0.0, 0.0, 0.0, 0.0, 0.0
                continue
            depths[b, i] = z
            radii[b, i] = math.ceil(min(radius, _MAX_PIXEL))


@numba.njit(error_model="numpy")
def _quat_gradient(quat, grad, inverse_norm, out):
    """Adds the gradient of a raw quaternion, given that of the rotation matrix, to out [4]."""
    w, x, y, z = quat[0] * inverse_norm, quat[1] * inverse_norm, quat[2] * inverse_norm, quat[3] * inverse_norm
    grad_w = 2.0 * (x * (grad[2, 1] - grad[1, 2]) + y * (grad[0, 2] - grad[2, 0]) + z * (grad[1, 0] - grad[0, 1]))
    grad_x = 2.0 * (
        -2.0 * x * (grad[1, 1] + grad[2, 2])
        + y * (grad[0, 1] + grad[1, 0])
        + z * (grad[0, 2] + grad[2, 0])
        + w * (grad[2, 1] - grad[1, 2])
    )
    grad_y = 2.0 * (
        x * (grad[0, 1] + grad[1, 0])
        - 2.0 * y * (grad[0, 0] + grad[2, 2])
        + z * (grad[1, 2] + grad[2, 1])
        + w * (grad[0, 2] - grad[2, 0])
    )
    grad_z = 2.0 * (
        x * (grad[0, 2] + grad[2, 0])
        + y * (grad[1, 2] + grad[2, 1])
        - 2.0 * z * (grad[0, 0] + grad[1, 1])
        + w * (grad[1, 0] - grad[0, 1])
    )
    radial = w * grad_w + x * grad_x + y * grad_y + z * grad_z
    out[0] += (grad_w - radial * w) * inverse_norm
    out[1] += (grad_x - radial * x) * inverse_norm
    out[2] += (grad_y - radial * y) * inverse_norm
    out[3] += (grad_z - radial * z) * inverse_norm


@numba.njit(error_model="numpy")
def _covariance_gradient(conic, grad_conic, factor, scale, out):
    """Gradient of the 2x3 matrix `factor * diag(scale)`, into out [2, 3].

    With P the conic (inverse covariance) and G its gradient, dL/dcovariance = -P G P (symmetric), and the covariance
    is M M^T + blur, so dL/dM = 2 dL/dcovariance M.
    """
    a, b, c = np.float64(conic[0]), np.float64(conic[1]), np.float64(conic[2])
    ga, gb, gc = np.float64(grad_conic[0]), 0.5 * grad_conic[1], np.float64(grad_conic[2])
    left_xx, left_xy, left_yx, left_yy = a * ga + b * gb, a * gb + b * gc, b * ga + c * gb, b * gb + c * gc
    xx = -(left_xx * a + left_xy * b)
    xy = -(left_xx * b + left_xy * c)
    yy = -(left_yx * b + left_yy * c)
    for column in range(3):
        first, second = factor[0, column] * scale[column], factor[1, column] * scale[column]
        out[0, column] = 2.0 * (xx * first + xy * second)
        out[1, column] = 2.0 * (xy * first + yy * second)


@numba.njit(error_model="numpy")
def _position_gradient(position, slopes, camera, grad_plane, grad_pixel):
    """Gradient of the camera-space mean from those of the 2x3 `plane` matrix and of the pixel position.

    plane row 0 = fx / z (R0 - u R2) with u = clamp(x / z), row 1 likewise; a clamped u is a constant.
    """
    x, y, z = position
    slope_x, slope_y = slopes
    scale_x, scale_y = camera[12] / z, camera[13] / z
    along_x, along_y, depth_x, depth_y = 0.0, 0.0, 0.0, 0.0
    for column in range(3):
        along_x += grad_plane[0, column] * camera[column]
        along_y += grad_plane[1, column] * camera[3 + column]
        depth_x += grad_plane[0, column] * camera[6 + column]
        depth_y += grad_plane[1, column] * camera[6 + column]
    grad_slope_x = grad_pixel[0] * camera[12]
    grad_slope_y = grad_pixel[1] * camera[13]
    grad_z = -(scale_x * (along_x - slope_x * depth_x) + scale_y * (along_y - slope_y * depth_y)) / z
    if slope_x == x / z:
        grad_slope_x -= scale_x * depth_x
    if slope_y == y / z:
        grad_slope_y -= scale_y * depth_y
    grad_z -= (grad_slope_x * x + grad_slope_y * y) / (z * z)
    return grad_slope_x / z, grad_slope_y / z, grad_z


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _project_backward(inputs, cameras, size, projected, gradients, outputs, begin, end):
    means, quats, scales = inputs
    conics, radii = projected
    grad_means2d, grad_conics, grad_depths = gradients
    grad_means, grad_quats, grad_scales = outputs
    rotation, plane, factor = np.empty((3, 3)), np.empty((2, 3)), np.empty((2, 3))
    grad_matrix, grad_plane, grad_rotation = np.empty((2, 3)), np.empty((2, 3)), np.empty((3, 3))
    for b in range(cameras.shape[0]):
        camera = cameras[b]
        m, q, s = b % means.shape[0], b % quats.shape[0], b % scales.shape[0]
        for i in range(begin, end):
            if radii[b, i] == 0:
                continue
            quat, scale = quats[q, i], scales[s, i]
            x, y, z = _view_position(means[m, i], camera)
            inverse_norm = _rotation_matrix(quat, rotation)
            slopes = _clamped_slopes(x, y, z, camera, size)
            _world_to_plane(z, slopes[0], slopes[1], camera, plane)
            _plane_factor(plane, rotation, scale, factor)
            _covariance_gradient(conics[b, i], grad_conics[b, i], factor, scale, grad_matrix)
            for k in range(3):
                grad_scales[s, i, k] += grad_matrix[0, k] * factor[0, k] + grad_matrix[1, k] * factor[1, k]
                grad_matrix[0, k] *= scale[k]  # from here on the gradient of `factor`
                grad_matrix[1, k] *= scale[k]
            for j in range(3):
                for k in range(3):
                    grad_rotation[j, k] = plane[0, j] * grad_matrix[0, k] + plane[1, j] * grad_matrix[1, k]
                for row in range(2):
                    grad_plane[row, j] = (
                        grad_matrix[row, 0] * rotation[j, 0]
                        + grad_matrix[row, 1] * rotation[j, 1]
                        + grad_matrix[row, 2] * rotation[j, 2]
                    )
            _quat_gradient(quat, grad_rotation, inverse_norm, grad_quats[q, i])
            gx, gy, gz = _position_gradient((x, y, z), slopes, camera, grad_plane, grad_means2d[b, i])
            gz += grad_depths[b, i]
            for j in range(3):
                grad_means[m, i, j] += camera[j] * gx + camera[3 + j] * gy + camera[6 + j] * gz


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, cameras, size):
        num_cameras, num_gaussians = len(cameras), means.shape[1]
        outputs = (
            np.zeros((num_cameras, num_gaussians, 2), np.float32),
            np.zeros((num_cameras, num_gaussians, 3), np.float32),
            np.zeros((num_cameras, num_gaussians), np.float32),
            np.zeros((num_cameras, num_gaussians), np.int32),
            np.full((num_cameras, num_gaussians, 4), (0, 0, -1, -1), np.int32),
        )
        inputs = tuple(tensor.detach().numpy() for tensor in (means, quats, scales, opacities))
        run_parallel(_project_forward, num_gaussians, inputs, cameras, size, outputs)
        means2d, conics, depths, radii, boxes = (torch.from_numpy(array) for array in outputs)
        ctx.save_for_backward(means, quats, scales, conics, radii)
        ctx.cameras, ctx.size = cameras, size
        ctx.mark_non_differentiable(radii, boxes)
        return means2d, conics, depths, radii, boxes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_means2d, grad_conics, grad_depths, _grad_radii, _grad_boxes):
        means, quats, scales, conics, radii = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        gradients = tuple(grad.contiguous().numpy() for grad in (grad_means2d, grad_conics, grad_depths))
        outputs = tuple(np.zeros_like(array) for array in (means, quats, scales))
        run_parallel(
            _project_backward,
            means.shape[1],
            (means, quats, scales),
            ctx.cameras,
            ctx.size,
            (conics, radii),
            gradients,
            outputs,
        )
        return (*(torch.from_numpy(array) for array in outputs), None, None, None)


def project_gaussians(scene: GaussianScene) -> Projection:
    """Projects a float32 CPU scene; differentiable in means, quats and scales."""
    size = (float(scene.width), float(scene.height))
    cameras = camera_rows(scene.world_to_camera, scene.K)
    return Projection(*_Project.apply(scene.means, scene.quats, scene.scales, scene.opacities, cameras, size))
