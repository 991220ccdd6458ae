"""The fast renderer: the portrait prepared for the Numba kernels once, then whole rays in one launch.

What is prepared is exact algebra, not an approximation. All levels up to 128 are piecewise bilinear on one common
lattice, so their mean is stored on it as a single grid; the output layer is linear, so the kernels add up hidden layers
along a ray and the output layer is applied once per ray.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...errors import InvalidInput
from ...render.threads import run_parallel
from .data import PLANES, Decoder, Trigrids
from .fast_bounds import density_bounds
from .fast_kernels import LANES, FieldArrays, density_of_grid, density_of_points
from .fast_march import MarchArrays, march_range
from .march import RayResult, RaySamples
from .settings import FieldSettings

MERGED_UP_TO = 128  # finer levels keep a grid of their own: the common lattice has four times the texels
EMPTY_DENSITY = -11.0  # softplus(-11) is 1.7e-5 per world unit: 4e-5 over a whole ray
MIN_TRANSMITTANCE = 1e-5


class PreparedField(NamedTuple):
    """Arrays of a portrait for the kernels, and bounds of its density over blocks that span -extent to extent.

    around: the highest bound of a block and its 26 neighbours.
    """

    arrays: FieldArrays
    bounds: np.ndarray
    around: np.ndarray
    extent: float


class _Remembered(NamedTuple):
    levels: Mapping[int, Tensor]
    field: FieldSettings
    prepared: PreparedField


_by_decoder: weakref.WeakKeyDictionary[Decoder, _Remembered] = weakref.WeakKeyDictionary()
_preparing = threading.Lock()


def prepare(portrait: Trigrids) -> PreparedField:
    """The portrait for the kernels; made once (about half a second) and remembered while its decoder lives.

    Portraits that differ in background, prompt or sampling alone share it.
    """
    with _preparing:
        known = _by_decoder.get(portrait.decoder)
        if known is None or known.levels is not portrait.levels or known.field != portrait.field:
            arrays = field_arrays(portrait)
            crop = 2 * portrait.field.crop_limit / portrait.field.box_warp
            bounds, extent = density_bounds(arrays, min(portrait.levels), max(portrait.levels), crop)
            around = functional.max_pool3d(torch.from_numpy(bounds)[None, None], 3, stride=1, padding=1)[0, 0].numpy()
            known = _Remembered(portrait.levels, portrait.field, PreparedField(arrays, bounds, around, extent))
            _by_decoder[portrait.decoder] = known
        return known.prepared


def field_arrays(portrait: Trigrids) -> FieldArrays:
    """The portrait's grids and decoder in the kernels' layout."""
    if portrait.channels > LANES:
        raise InvalidInput(
            f"render_trigrid: the trigrids have {portrait.channels} channels, the fast back-end takes up to {LANES}; "
            "set TrigridRenderSettings(backend='dense')."
        )
    merged = {r: grid for r, grid in portrait.levels.items() if r <= MERGED_UP_TO}
    share = 1 / (PLANES * len(portrait.levels))
    grids: list[Tensor] = []
    scales: list[tuple[float, float]] = []
    for levels in [merged] * (len(merged) > 0) + [{r: g} for r, g in portrait.levels.items() if r > MERGED_UP_TO]:
        grid, scale = _merged_grid(levels) if len(levels) > 1 else _padded_grid(*next(iter(levels.items())))
        grids.append(grid * share)
        scales.append(scale)
    slices = max(portrait.depth, 2)
    texels, tables = _flatten(grids, slices)
    hidden_weight, hidden_bias, output_weight, output_bias = portrait.decoder.layers()
    padded_weight = np.zeros((LANES, len(hidden_bias)), np.float32)
    padded_weight[: portrait.channels] = hidden_weight.numpy().T
    return FieldArrays(
        texels,
        tables,
        np.array(scales, np.float32),
        slices,
        padded_weight,
        hidden_bias.numpy().copy(),
        output_weight[0].numpy().copy(),
        np.float32(output_bias[0]),
    )


def _padded_grid(resolution: int, grid: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """A level [3, C, D, r, r] with a border of zeros, and its (a, b): texel position = a q + b."""
    return functional.pad(grid.float(), (1, 1, 1, 1)), (resolution / 2, resolution / 2 + 0.5)


def _merged_grid(levels: dict[int, Tensor]) -> tuple[Tensor, tuple[float, float]]:
    """Sum of levels on the lattice of spacing 1 / finest, which holds all their creases, out to where all are zero."""
    finest, outside = max(levels), max(levels) // min(levels)
    side = 2 * (finest + outside) + 1
    positions = (torch.arange(side, dtype=torch.float64) - outside) / finest - 1
    total = torch.zeros(())
    for resolution, grid in levels.items():
        texel = (positions + 1) / 2 * resolution - 0.5
        weights = (1 - (texel[:, None] - torch.arange(resolution)).abs()).clamp(min=0).float()
        total = total + weights @ grid.float() @ weights.T
    return total, (float(finest), float(finest + outside))


def _flatten(grids: list[Tensor], slices: int) -> tuple[np.ndarray, np.ndarray]:
    """Grids [3, C, D, n, n] as texels [T, 16] ordered [plane, v, u, slice]; tables [G, 3, 2] of (first row, side)."""
    parts, tables, start = [], [], 0
    for grid in grids:
        planes, channels, depth, side, _ = grid.shape
        part = np.zeros((planes, side, side, slices, LANES), np.float32)
        part[..., :depth, :channels] = grid.permute(0, 3, 4, 2, 1).numpy()
        rows = side * side * slices
        tables.append([[start + plane * rows, side] for plane in range(planes)])
        parts.append(part.reshape(-1, LANES))
        start += planes * rows
    return np.concatenate(parts), np.array(tables, np.int64)


def march_rays_fast(
    portrait: Trigrids,
    origin: Tensor,
    directions: Tensor,
    interval: tuple[float, float],
    samples: RaySamples | None = None,
) -> RayResult:
    """As `march.march_rays`, within 1/255 of it in every channel, for any number of rays in one launch."""
    prepared = prepare(portrait)
    settings, field = portrait.rendering, portrait.field
    samples = samples or RaySamples()
    jitter = torch.full((1, settings.depth_samples), 0.5) if samples.jitter is None else samples.jitter
    even = torch.linspace(0, 1, settings.importance_samples)[None]
    quantiles = even if samples.quantiles is None else samples.quantiles
    near, far = interval
    march = MarchArrays(
        prepared.bounds,
        prepared.around,
        np.float32(prepared.extent),
        np.ascontiguousarray((origin.reshape(-1, 3) / field.half_cube).float().numpy()),
        np.float32(1 / field.half_cube),
        np.float32(2 * field.crop_limit / field.box_warp),
        np.float32(near),
        np.float32((far - near) / (settings.depth_samples - 1)),
        np.ascontiguousarray(jitter.float().numpy()),
        np.ascontiguousarray(quantiles.float().sort(dim=1).values.numpy()),
        np.float32(EMPTY_DENSITY),
        np.float32(MIN_TRANSMITTANCE),
    )
    count = len(directions)
    hidden = np.empty((count, prepared.arrays.hidden_bias.shape[0]), np.float32)
    coverage, depth = np.empty(count, np.float32), np.empty(count, np.float32)
    rays = np.ascontiguousarray(directions.numpy())
    run_parallel(march_range, count, prepared.arrays, march, rays, hidden, coverage, depth)
    _, _, weight, bias = portrait.decoder.layers()
    sums, covered = torch.from_numpy(hidden), torch.from_numpy(coverage)
    # The output layer is linear: the weighted sum of features is the layer of the weighted sum of hidden units.
    features = sums @ weight[1:].T + covered[:, None] * bias[1:]
    return RayResult(features, covered, torch.from_numpy(depth))


def point_densities(portrait: Trigrids, points: Tensor) -> Tensor:
    """Raw, uncropped density [M] at world points [M, 3]."""
    inside = np.ascontiguousarray((points / portrait.field.half_cube).float().numpy())
    densities = np.empty(len(points), np.float32)
    run_parallel(density_of_points, len(points), prepare(portrait).arrays, inside, densities)
    return torch.from_numpy(densities)


def grid_densities(portrait: Trigrids, resolution: int) -> Tensor:
    """Raw, uncropped density [n, n, n] on a grid over the cube, both ends included."""
    line = np.linspace(-1, 1, resolution).astype(np.float32)
    densities = np.empty((resolution, resolution, resolution), np.float32)
    run_parallel(density_of_grid, resolution, prepare(portrait).arrays, line, line, line, densities)
    return torch.from_numpy(densities)
