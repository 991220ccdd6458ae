"""The surface of a trigrid portrait as a mesh with vertex colours."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...meshes import Mesh, vertex_normals
from ...progress import Progress
from ...surface import mesh_from_density
from ..protocol import MeshSettings
from .data import STYLE_ROW, Trigrids
from .density import density_grid
from .march import march_rays

COLOR_REACH = 0.06  # a vertex is looked at from this far outside, in world units ...
COLOR_DEPTH = 0.20  # ... and this deep
MIN_COVERAGE = 0.05


def trigrid_mesh(portrait: Trigrids, settings: MeshSettings | None = None, progress: Progress | None = None) -> Mesh:
    """Mesh of the raw density's level set, in the world, with the colours that the field shows there.

    progress: called after each of the three steps (density, surface, colours) as (step, 3, None).
    """
    settings = settings or MeshSettings()
    report = progress or _no_progress
    grid = density_grid(portrait, settings.resolution)
    report(1, 3, None)
    mesh = mesh_from_density(grid.values, grid.start, grid.spacing, settings.surface)
    report(2, 3, None)
    colors = surface_colors(portrait, mesh)
    report(3, 3, None)
    return dataclasses.replace(mesh, vertex_colors=colors)


def _no_progress(step: int, total: int, preview: Tensor | None) -> None:
    """Where nobody watches."""


def surface_colors(portrait: Trigrids, mesh: Mesh) -> Tensor:
    """Colours [V, 3] in 0..1 that short rays see which meet the vertices against their normals.

    A point's own colour would be that of the haze in front of the surface: the field becomes opaque a little deeper.
    Vertices where nothing is seen (in the part that rendering crops) take the colour of the nearest that has one.
    """
    normals = vertex_normals(mesh.vertices, mesh.faces)
    sampling = dataclasses.replace(portrait.rendering, depth_samples=16, importance_samples=16)
    short = dataclasses.replace(portrait, rendering=sampling)
    origins = mesh.vertices + COLOR_REACH * normals
    march = march_rays
    if sampling.backend == "fast":
        from .fast import march_rays_fast

        march = march_rays_fast
    result = march(short, origins, -normals, (0.0, COLOR_DEPTH))
    matrix, bias = portrait.to_rgb.matrix(portrait.ws[STYLE_ROW])
    seen = result.coverage > MIN_COVERAGE
    features = result.features / result.coverage.clamp(min=MIN_COVERAGE)[:, None]
    colors = (0.5 * (features @ matrix.T + bias) + 0.5).clamp(0, 1)
    return _filled(mesh.vertices, colors, seen)


def _filled(vertices: Tensor, colors: Tensor, known: Tensor) -> Tensor:
    if bool(known.all()) or not bool(known.any()):
        return colors
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(vertices[known].numpy()).query(vertices[~known].numpy())
    filled = colors.clone()
    filled[~known] = colors[known][torch.from_numpy(nearest)]
    return filled
