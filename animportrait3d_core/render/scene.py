"""The checked, backend-independent inputs of one Gaussian rendering call."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

# The constants of gsplat 1.5 (and of the original 3DGS rasteriser), shared by all back-ends. Numba bakes them into its
# cached kernels and does not notice a change in here: clear its cache after one.
NEAR_PLANE = 0.01
BLUR = 0.3  # eps2d: added to the diagonal of the projected covariance, in squared pixels
MIN_ALPHA = 1.0 / 255.0
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4
TILE = 16
FRUSTUM_MARGIN = 0.3  # how far outside of the image the projection's linearisation point may lie, per tan(fov)


@dataclass(frozen=True)
class GaussianScene:
    """Inputs of one call after validation. A leading 1 means: shared by all B cameras.

    means [1|B, N, 3], quats [1|B, N, 4] wxyz, scales [1|B, N, 3], opacities [1|B, N]; exactly one of
    colors [1, N, 3] and sh [N, K, 3]; features [1|B, N, F] (F may be 0); background [B, 3];
    world_to_camera [B, 4, 4], K [B, 3, 3]; all of one floating dtype and device.
    """

    means: torch.Tensor
    quats: torch.Tensor
    scales: torch.Tensor
    opacities: torch.Tensor
    colors: torch.Tensor | None
    sh: torch.Tensor | None
    features: torch.Tensor
    background: torch.Tensor
    world_to_camera: torch.Tensor
    K: torch.Tensor
    width: int
    height: int

    @property
    def num_cameras(self) -> int:
        """B."""
        return self.world_to_camera.shape[0]

    @property
    def num_gaussians(self) -> int:
        """N."""
        return self.means.shape[1]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> GaussianScene:
        """The same scene on another device and in another float type; differentiable."""
        moved: dict[str, Any] = {
            field.name: value.to(device, dtype)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **moved)

    def camera_centers(self) -> torch.Tensor:
        """Camera positions in the world, [B, 3]."""
        rotation, translation = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -(rotation.transpose(1, 2) @ translation[..., None])[..., 0]


class Projection(NamedTuple):
    """Gaussians on the image plane. Those that can colour no pixel have radius 0, an empty box and zeros elsewhere.

    means2d [B, N, 2] pixels; conics [B, N, 3] = (xx, xy, yy) of the inverse covariance, 1 / pixels^2;
    depths [B, N] view z; radii [B, N] int32, half the larger side of the rectangle where alpha >= 1/255;
    boxes [B, N, 4] int32 = (x0, y0, x1, y1), the pixels in it, inclusive; empty when x0 > x1.
    """

    means2d: torch.Tensor
    conics: torch.Tensor
    depths: torch.Tensor
    radii: torch.Tensor
    boxes: torch.Tensor


class Composite(NamedTuple):
    """Result of alpha compositing: color [B, H, W, 3], depth_sum [B, H, W] = sum(w z), features, alpha [B, H, W]."""

    color: torch.Tensor
    depth_sum: torch.Tensor
    features: torch.Tensor
    alpha: torch.Tensor
