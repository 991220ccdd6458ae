"""What every rasteriser back-end is held to: a dense float64 renderer, scenes, and small helpers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from animportrait3d_core.cameras import Cameras, orbit_cameras
from animportrait3d_core.render import GaussianImage, available_backends, rasterize_gaussians
from animportrait3d_core.render.available import NVDIFFRAST_ROUNDS
from animportrait3d_core.render.torch_projection import spherical_harmonics_basis

INPUT_NAMES = ("means", "quats", "scales", "opacities", "colors", "background", "features")


def backend_parameters(kind: str, exact: bool = False) -> list:
    """pytest parameters of all back-ends of a kind; those that cannot run here skip with their reason.

    exact: for tests that nvdiffrast's rounding of corners cannot pass: there it is expected to fail.
    """
    parameters = []
    for backend in available_backends():
        family, name = backend.name.split("/")
        if family == kind:
            marks = [pytest.mark.skipif(not backend.usable, reason=f"{backend.name}: {backend.reason}")]
            marks += [pytest.mark.gpu] if name in ("gsplat", "nvdiffrast") else []
            marks += [pytest.mark.xfail(reason=NVDIFFRAST_ROUNDS)] if exact and name == "nvdiffrast" else []
            parameters.append(pytest.param(name, marks=marks))
    return parameters


@dataclasses.dataclass(frozen=True)
class SplatScene:
    """Inputs of `rasterize_gaussians`; colors are [N, 3] colours or [N, K, 3] spherical harmonics."""

    means: torch.Tensor
    quats: torch.Tensor
    scales: torch.Tensor
    opacities: torch.Tensor
    colors: torch.Tensor
    background: torch.Tensor
    features: torch.Tensor
    cameras: Cameras

    def leaves(self, dtype: torch.dtype) -> SplatScene:
        """A copy in `dtype` whose tensors require gradients."""
        tensors = {name: getattr(self, name).detach().to(dtype).clone().requires_grad_() for name in INPUT_NAMES}
        return dataclasses.replace(self, **tensors)

    def gradients(self) -> dict[str, torch.Tensor]:
        """Gradients of all inputs by name."""
        return {name: getattr(self, name).grad for name in INPUT_NAMES}

    def render(self, backend: str) -> GaussianImage:
        """`rasterize_gaussians` of everything in here."""
        return rasterize_gaussians(
            self.means,
            self.quats,
            self.scales,
            self.opacities,
            self.colors,
            self.cameras,
            background=self.background,
            features=self.features,
            backend=backend,
        )


def splat_scene(count: int = 80, coefficients: int = 4, seed: int = 0, views: int = 2, size=(37, 29)) -> SplatScene:
    """A cloud in front of the standard cameras, float64: opaque and faint, thin and round, some of it off the image."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cameras = orbit_cameras([-20.0, 75.0, 180.0][:views], [5.0, 15.0, -30.0][:views], 32).resized(*size)
    colors = normal(count, coefficients, 3) * 0.4 if coefficients else torch.sigmoid(normal(count, 3))
    return SplatScene(
        means=normal(count, 3) * 0.35 + torch.tensor([0.0, 0.228, 0.0]),
        quats=normal(count, 4),
        scales=0.06 * torch.exp(0.7 * normal(count, 3)),
        opacities=torch.sigmoid(2.0 * normal(count) + 1.0),
        colors=colors,
        background=torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64),
        features=normal(count, 2),
        cameras=cameras,
    )


def loss_of(image: GaussianImage) -> torch.Tensor:
    """A loss that weighs every output of every pixel differently; depth enters as the accumulated sum."""
    total = image.color.new_zeros(())
    parts = [image.color, image.alpha[..., None], (image.depth * image.alpha)[..., None]]
    if image.features is not None:
        parts.append(image.features)
    for number, part in enumerate(parts):
        generator = torch.Generator().manual_seed(100 + number)
        weight = torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)
        total = total + (part * weight).sum()
    return total


def _rotate(quats: torch.Tensor, axis: int) -> torch.Tensor:
    """The unit vector along `axis` rotated by quaternions: v + 2 u x (u x v + w v)."""
    unit = quats / quats.norm(dim=-1, keepdim=True)
    v = torch.zeros_like(unit[..., 1:])
    v[..., axis] = 1.0
    w, u = unit[..., :1], unit[..., 1:]
    return v + 2.0 * torch.linalg.cross(u, torch.linalg.cross(u, v, dim=-1) + w * v, dim=-1)


def _pinhole_jacobian(points: torch.Tensor, K: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Jacobian [N, 2, 3] of the projection by automatic differentiation, at the points clamped to 1.3 frusta."""
    extent = K.new_tensor(size)
    focal, center = K[[0, 1], [0, 1]], K[:2, 2]
    if len(points) == 0:  # vmap cannot map over nothing
        return points.new_zeros(0, 2, 3)
    margin = 0.15 * extent / focal
    slopes = torch.clamp(points[:, :2] / points[:, 2:], -center / focal - margin, (extent - center) / focal + margin)
    clamped = torch.cat([slopes * points[:, 2:], points[:, 2:]], dim=-1)
    return torch.func.vmap(torch.func.jacfwd(lambda point: focal * point[:2] / point[2] + center))(clamped)


def dense_render(scene: SplatScene) -> GaussianImage:
    """Every Gaussian against every pixel in the scene's precision: the definition, without tiles and boxes."""
    outputs = []
    for b in range(len(scene.cameras)):
        matrix, K = scene.cameras.world_to_camera[b].to(scene.means), scene.cameras.K[b].to(scene.means)
        own = [
            value[b] if value.ndim > rank else value
            for value, rank in (
                (scene.means, 2),
                (scene.quats, 2),
                (scene.scales, 2),
                (scene.opacities, 1),
                (scene.features, 2),
            )
        ]
        outputs.append(_dense_view(own, scene.colors, scene.background, (matrix, K), scene.cameras))
    color, alpha, depth, features = (torch.stack(parts) for parts in zip(*outputs))
    return GaussianImage(color, alpha, depth, features, {})


def _dense_view(own, colors, background, camera, cameras):
    means, quats, scales, opacities, features = own
    matrix, K = camera
    width, height = cameras.width, cameras.height
    points = means @ matrix[:3, :3].T + matrix[:3, 3]
    shown = torch.nonzero((points[:, 2] > 0.01) & (opacities >= 1 / 255)).squeeze(1)
    shown = shown[torch.argsort(points[shown, 2])]
    means, quats, scales, opacities, features, points = (
        value[shown] for value in (means, quats, scales, opacities, features, points)
    )
    axes = torch.stack([_rotate(quats, axis) for axis in range(3)], dim=-1) * scales[:, None]
    if colors.ndim == 3:
        center = -matrix[:3, :3].T @ matrix[:3, 3]
        directions = torch.nn.functional.normalize(means - center, dim=-1)
        basis = spherical_harmonics_basis(directions, colors.shape[1])
        colors = ((basis[..., None] * colors[shown]).sum(1) + 0.5).clamp_min(0.0)
    else:
        colors = colors[shown]
    half = _pinhole_jacobian(points, K, (width, height)) @ matrix[:3, :3] @ axes
    covariance = half @ half.transpose(1, 2) + 0.3 * torch.eye(2, dtype=means.dtype)
    inverse = torch.linalg.inv(covariance)
    means2d = points[:, :2] / points[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    offsets = torch.stack([x, y], dim=-1).reshape(-1, 1, 2).to(means) - means2d
    sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", offsets, inverse, offsets)
    alpha = (opacities * torch.exp(-sigma)).clamp_max(0.999)
    alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
    alpha = torch.where(torch.cumprod(1 - alpha.detach(), dim=1) > 1e-4, alpha, 0.0)
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([alpha.new_ones(len(alpha), 1), after], dim=1)
    weights, left = alpha * before[:, :-1], before[:, -1]
    opaque = 1 - left
    image = torch.cat([colors, points[:, 2:], features], dim=-1)
    image = (weights @ image).view(height, width, -1)
    color = image[..., :3] + left.view(height, width, 1) * background
    depth = image[..., 3] / opaque.view(height, width).clamp_min(1e-10)
    return color, opaque.view(height, width), depth, image[..., 4:]


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    """|value - reference| / |reference| in the Euclidean norm."""
    reference = reference.double()
    return float((value.double() - reference).norm() / reference.norm().clamp_min(1e-12))


def bumpy_head(faces_wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed, non-convex head-like mesh with nose, ears and eye sockets at the look-at point, wound outward."""
    n = int(math.sqrt(faces_wanted / 2))
    polar = torch.linspace(0.0, math.pi, n + 1, dtype=torch.float64)[1:-1]
    around = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    V, U = torch.meshgrid(polar, around, indexing="ij")
    direction = torch.stack([V.sin() * U.sin(), V.cos(), V.sin() * U.cos()], dim=-1)

    def lump(center: list[float], width: float, height: float) -> torch.Tensor:
        axis = torch.nn.functional.normalize(torch.tensor(center, dtype=torch.float64), dim=0)
        return height * torch.exp((direction @ axis - 1) / width)

    radius = 1 + lump([0.0, -0.1, 1.0], 0.012, 0.22) + 0.03 * torch.sin(9 * U) * torch.sin(7 * V) * V.sin()
    radius = radius + lump([1.0, 0.0, 0.0], 0.01, 0.25) + lump([-1.0, 0.0, 0.0], 0.01, 0.25)
    radius = radius - lump([0.3, 0.2, 1.0], 0.02, 0.08) - lump([-0.3, 0.2, 1.0], 0.02, 0.08)
    extent = torch.tensor([0.26, 0.36, 0.30], dtype=torch.float64)
    rings = (direction * radius[..., None] * extent).reshape(-1, 3)
    poles = torch.tensor([[0.0, 0.36, 0.0], [0.0, -0.36, 0.0]], dtype=torch.float64)
    row, column = torch.arange(n - 2)[:, None], torch.arange(n)[None]
    a, b = row * n + column, row * n + (column + 1) % n
    quads = [torch.stack(corners, dim=-1).reshape(-1, 3) for corners in ((a, a + n, b), (b, a + n, b + n))]
    here, after, last = torch.arange(n), (torch.arange(n) + 1) % n, (n - 2) * n
    top, bottom = torch.full((n,), len(rings)), torch.full((n,), len(rings) + 1)
    caps = [torch.stack([top, here, after], dim=-1), torch.stack([bottom, last + after, last + here], dim=-1)]
    vertices = torch.cat([rings, poles]) + torch.tensor([0.0, 0.228, 0.0], dtype=torch.float64)
    return vertices.float(), torch.cat([*quads, *caps])
