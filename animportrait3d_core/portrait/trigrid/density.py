"""Density of a portrait at points and on grids, and the normals that follow from it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...cameras import Cameras, normals_to_opengl
from ...errors import InvalidInput, check_finite, check_shape
from .data import Trigrids
from .field import query_field
from .rays import camera_rays
from .render import TrigridImage

DENSE_POINTS = 1 << 17


def query_density(portrait: Trigrids, points: Tensor) -> Tensor:
    """Raw density [M] (before softplus, not cropped) at world points [M, 3], by the portrait's back-end."""
    check_shape("query_density", "points", points, ["M", 3])
    check_finite("query_density", "points", points)
    if portrait.rendering.backend == "dense":
        return torch.cat([query_field(portrait, part)[0] for part in points.split(DENSE_POINTS)])
    from .fast import point_densities

    return point_densities(portrait, points)


@dataclasses.dataclass(frozen=True)
class DensityGrid:
    """Raw densities [X, Y, Z] at the points start + spacing * (i, j, k) of the world."""

    values: Tensor
    start: tuple[float, float, float]
    spacing: float


def density_grid(portrait: Trigrids, resolution: int = 256) -> DensityGrid:
    """Raw, uncropped density on resolution^3 points over the cube, both ends included, as for Portrait3D's meshes."""
    if not 8 <= resolution <= 1024:
        raise InvalidInput(f"density_grid: resolution {resolution}, expected 8 to 1024.")
    half = portrait.field.half_cube
    spacing = 2 * half / (resolution - 1)
    if portrait.rendering.backend == "dense":
        line = torch.arange(resolution) * spacing - half
        points = torch.cartesian_prod(line, line, line)
        values = query_density(portrait, points).reshape(resolution, resolution, resolution)
    else:
        from .fast import grid_densities

        values = grid_densities(portrait, resolution)
    return DensityGrid(values, (-half, -half, -half), spacing)


def density_normals(portrait: Trigrids, points: Tensor, step: float | None = None) -> Tensor:
    """Unit normals [M, 3] in the world, out of the body, at world points [M, 3]: minus the density's gradient.

    Central differences over +- step world units; default one texel of the finest level (at least of 128), which smooths
    the creases between texels. Zero where the density is flat.
    """
    step = 2 * portrait.field.half_cube / max(portrait.finest, 128) if step is None else step
    if not step > 0:
        raise InvalidInput(f"density_normals: step {step}, expected more than 0.")
    offsets = torch.cat([torch.eye(3), -torch.eye(3)]) * step
    around = (points[None] + offsets[:, None]).reshape(-1, 3)
    density = query_density(portrait, around).reshape(2, 3, -1)
    return torch.nn.functional.normalize((density[1] - density[0]).T, dim=-1)


@dataclasses.dataclass(frozen=True)
class NormalImage:
    """Unit normals [B, H, W, 3] in the world, and in the camera's OpenGL axes (x right, y up, z to the viewer)."""

    world: Tensor
    camera: Tensor


def render_normals(portrait: Trigrids, cameras: Cameras, image: TrigridImage, step: float | None = None) -> NormalImage:
    """Normals at the expected depth of an image that `render_trigrid` made from the same cameras.

    Zero where nothing is covered; at silhouettes, where the depth mixes near and far, they are not reliable.
    """
    check_shape("render_normals", "image.depth", image.depth, [len(cameras), cameras.height, cameras.width])
    origins, directions = camera_rays(cameras)
    points = origins[:, None] + directions * image.depth.flatten(1)[..., None]
    covered = (image.coverage > 0).flatten()
    world = torch.zeros(points.numel() // 3, 3)
    world[covered] = density_normals(portrait, points.reshape(-1, 3)[covered], step)
    world = world.reshape(*image.depth.shape, 3)
    return NormalImage(world, normals_to_opengl(cameras, world))
