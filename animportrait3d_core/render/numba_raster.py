"""Numba tile rasteriser for projected Gaussians: binning, compositing, closed-form gradients.

Semantics of gsplat 1.5 (Kerbl et al., "3D Gaussian Splatting", algorithm 2; Ye et al., "gsplat", section 2): pixel
centres at +0.5, front to back, alpha = min(0.999, o exp(-sigma)), skipped below 1/255, a pixel ends before its
transmittance would fall to 1e-4.

What makes it fast on a CPU:
- one radix sort by depth per camera, then a stable counting sort into 16-pixel tiles, not a sort of all intersections;
- exact boxes from the opacity, so that only pixels that alpha >= 1/255 can reach are visited;
- Gaussian outside, pixels inside, branch-free: the loops over a row's pixels become SIMD code, which needs row views
  that start at 0 and a polynomial exponential;
- the backward pass walks front to back as well (what lies behind = total - what lies before), and writes one gradient
  row per (Gaussian, tile), laid out Gaussian by Gaussian: no races, and the sum over a Gaussian's tiles is a loop over
  neighbours. Each tile and each sum belong to one thread: the number of threads changes no bit of the result.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .scene import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TILE

f32 = np.float32
i32 = np.int32
_MIN_ALPHA, _MAX_ALPHA, _MIN_TRANSMITTANCE = f32(MIN_ALPHA), f32(MAX_ALPHA), f32(MIN_TRANSMITTANCE)
_ZERO, _ONE, _HALF = f32(0.0), f32(1.0), f32(0.5)
_STOP_CHECK = 32  # every so many Gaussians a tile looks whether all of its pixels have ended
# Everything of fastmath but "no NaNs" and "no infinities": inputs are checked, but comparisons stay well defined.
_FASTMATH = {"reassoc", "nsz", "arcp", "contract", "afn"}
GEOMETRY_COLUMNS = 6  # gradient columns before the channels: mean x, y, conic xx, xy, yy, opacity


@numba.njit(inline="always", error_model="numpy")
def _exp(x):
    """exp for x <= 0 to float32 round-off (Cephes expf), without branches so that it vectorises."""
    x = max(x, f32(-87.0))
    n = f32(math.floor(x * f32(1.44269504) + _HALF))
    r = x - n * f32(0.693359375) + n * f32(2.12194440e-4)
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    bits = i32((i32(n) + i32(127)) << i32(23))
    return p * bits.view(np.float32)


@numba.njit(error_model="numpy")
def _sort_by_depth(depths, radii, order, spare):
    """Indices of the visible Gaussians, near to far, into order; returns how many. Stable radix sort of float bits."""
    count = 0
    for i in range(depths.shape[0]):
        if radii[i] > 0:
            order[count] = i
            count += 1
    bits = depths.view(np.uint32)  # depths are positive, so that their bits sort like the numbers
    histogram = np.empty(2048, np.int64)
    source, target = order, spare
    for digit in range(3):
        shift = np.uint32(11 * digit)
        histogram[:] = 0
        for k in range(count):
            histogram[(bits[source[k]] >> shift) & np.uint32(2047)] += 1
        total = 0
        for value in range(2048):
            here = histogram[value]
            histogram[value] = total
            total += here
        for k in range(count):
            i = source[k]
            value = (bits[i] >> shift) & np.uint32(2047)
            target[histogram[value]] = i
            histogram[value] += 1
        source, target = target, source
    if count > 0:
        order[:count] = source[:count]
    return count


@numba.njit(error_model="numpy")
def _pixel_box(mean, conic, opacity, size, box):
    """Inclusive pixel box (x0, y0, x1, y1) where alpha can reach 1/255, into box; False when it is empty."""
    width, height = size
    determinant = np.float64(conic[0]) * conic[2] - np.float64(conic[1]) * conic[1]
    if not determinant > 0.0:
        return False
    squared = 2.0 * math.log(np.float64(opacity) / MIN_ALPHA)
    # The slack covers the rounding of sigma; a pixel let in by it is still skipped by its alpha.
    reach_x = math.sqrt(max(squared * conic[2] / determinant, 0.0)) + 1e-3
    reach_y = math.sqrt(max(squared * conic[0] / determinant, 0.0)) + 1e-3
    box[0] = i32(max(0.0, math.ceil(mean[0] - reach_x - 0.5)))
    box[1] = i32(max(0.0, math.ceil(mean[1] - reach_y - 0.5)))
    box[2] = i32(min(width - 1.0, math.floor(mean[0] + reach_x - 0.5)))
    box[3] = i32(min(height - 1.0, math.floor(mean[1] + reach_y - 0.5)))
    return box[0] <= box[2] and box[1] <= box[3]


@numba.njit(error_model="numpy", cache=True)
def bin_gaussians(means2d, conics, opacities, depths, radii, size):
    """Sorts the Gaussians of all cameras into tiles.

    Returns (tile_starts [B * tiles + 1], ids [I] flat Gaussian index b * N + i in tile and depth order, boxes
    [B * N, 4], row_starts [B * N + 1] where each Gaussian's gradient rows begin).
    """
    num_cameras, num_gaussians = depths.shape
    width, height = size
    columns, rows = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    tiles = columns * rows
    boxes = np.empty((num_cameras * num_gaussians, 4), np.int32)
    row_starts = np.zeros(num_cameras * num_gaussians + 1, np.int64)
    tile_starts = np.zeros(num_cameras * tiles + 1, np.int64)
    order = np.empty((num_cameras, max(num_gaussians, 1)), np.int32)
    counts = np.zeros(num_cameras, np.int64)
    spare = np.empty(max(num_gaussians, 1), np.int32)
    for b in range(num_cameras):
        counts[b] = _sort_by_depth(depths[b], radii[b], order[b], spare)
        o = b % opacities.shape[0]
        for i in range(num_gaussians):
            flat = b * num_gaussians + i
            box = boxes[flat]
            touched = 0
            if radii[b, i] > 0 and _pixel_box(means2d[b, i], conics[b, i], opacities[o, i], size, box):
                for row in range(box[1] // TILE, box[3] // TILE + 1):
                    for column in range(box[0] // TILE, box[2] // TILE + 1):
                        tile_starts[b * tiles + row * columns + column + 1] += 1
                        touched += 1
            row_starts[flat + 1] = row_starts[flat] + touched
    for tile in range(num_cameras * tiles):
        tile_starts[tile + 1] += tile_starts[tile]
    ids = np.empty(tile_starts[num_cameras * tiles], np.int32)
    cursor = tile_starts[:-1].copy()
    for b in range(num_cameras):
        for k in range(counts[b]):
            flat = b * num_gaussians + order[b, k]
            if row_starts[flat + 1] == row_starts[flat]:
                continue
            box = boxes[flat]
            for row in range(box[1] // TILE, box[3] // TILE + 1):
                for column in range(box[0] // TILE, box[2] // TILE + 1):
                    tile = b * tiles + row * columns + column
                    ids[cursor[tile]] = flat
                    cursor[tile] += 1
    return tile_starts, ids, boxes, row_starts


@numba.njit(error_model="numpy")
def _shuffle_stride(count):
    """A stride coprime to count: walking tiles by it gives every thread a like share of busy and empty tiles."""
    stride = max(1, int(count * 0.618))
    while math.gcd(stride, count) != 1:
        stride += 1
    return stride


@numba.njit(error_model="numpy", inline="always")
def _clip_to_tile(box, origin_x, origin_y):
    """Box in tile coordinates: first row, last row, first column (a multiple of 8), number of columns."""
    first = max(box[0] - origin_x, 0) & ~7
    last = min((box[2] - origin_x) | 7, TILE - 1)
    return max(box[1] - origin_y, 0), min(box[3] - origin_y, TILE - 1), first, last - first + 1


@numba.njit(error_model="numpy", inline="always")
def _all_ended(alive):
    total = _ZERO
    for y in range(TILE):
        for x in range(TILE):
            total += alive[y, x]
    return total == _ZERO


@numba.njit(parallel=True, fastmath=_FASTMATH, error_model="numpy", cache=True)
def composite_forward(means2d, conics, opacities, channels, background, bins, size):
    """Composites channels [1|B, N, C] over background [B, C]: image [B, H, W, C], transmittance [B, H, W]."""
    tile_starts, ids, boxes = bins
    width, height = size
    num_cameras, num_gaussians = conics.shape[0], conics.shape[1]
    num_channels = channels.shape[2]
    columns, tiles = (width + TILE - 1) // TILE, ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    image = np.empty((num_cameras, height, width, num_channels), np.float32)
    remaining = np.empty((num_cameras, height, width), np.float32)
    stride = _shuffle_stride(num_cameras * tiles)
    for task in numba.prange(num_cameras * tiles):
        tile = (task * stride) % (num_cameras * tiles)
        b = tile // tiles
        origin_x, origin_y = ((tile % tiles) % columns) * TILE, ((tile % tiles) // columns) * TILE
        transmittance = np.ones((TILE, TILE), np.float32)
        alive = np.ones((TILE, TILE), np.float32)
        accumulated = np.zeros((num_channels, TILE, TILE), np.float32)
        weight = np.empty(TILE, np.float32)
        for k in range(tile_starts[tile], tile_starts[tile + 1]):
            flat = ids[k]
            i = flat - b * num_gaussians
            conic, value = conics[b, i], channels[b % channels.shape[0], i]
            opacity = opacities[b % opacities.shape[0], i]
            y0, y1, first, count = _clip_to_tile(boxes[flat], origin_x, origin_y)
            mean_x = means2d[b, i, 0] - f32(origin_x) - _HALF - f32(first)
            mean_y = means2d[b, i, 1] - f32(origin_y) - _HALF
            half_xx, xy, half_yy = _HALF * conic[0], conic[1], _HALF * conic[2]
            for y in range(y0, y1 + 1):
                dy = f32(y) - mean_y
                sigma_y, slope = half_yy * dy * dy, xy * dy
                transmittance_row = transmittance[y, first : first + count]
                alive_row = alive[y, first : first + count]
                for x in range(count):
                    dx = f32(i32(x)) - mean_x
                    sigma = half_xx * dx * dx + slope * dx + sigma_y
                    alpha = min(opacity * _exp(-sigma), _MAX_ALPHA)
                    alpha = _ZERO if (alpha < _MIN_ALPHA or sigma < _ZERO) else alpha
                    before = transmittance_row[x]
                    still = alive_row[x] if before * (_ONE - alpha) > _MIN_TRANSMITTANCE else _ZERO
                    alive_row[x] = still
                    alpha = alpha if still > _ZERO else _ZERO
                    weight[x] = alpha * before
                    transmittance_row[x] = before - alpha * before
                for c in range(num_channels):
                    level = value[c]
                    accumulated_row = accumulated[c, y, first : first + count]
                    for x in range(count):
                        accumulated_row[x] += weight[x] * level
            if (k - tile_starts[tile]) % _STOP_CHECK == _STOP_CHECK - 1 and _all_ended(alive):
                break
        for y in range(min(TILE, height - origin_y)):
            for x in range(min(TILE, width - origin_x)):
                remaining[b, origin_y + y, origin_x + x] = transmittance[y, x]
                for c in range(num_channels):
                    image[b, origin_y + y, origin_x + x, c] = (
                        accumulated[c, y, x] + transmittance[y, x] * background[b, c]
                    )
    return image, remaining


@numba.njit(parallel=True, fastmath=_FASTMATH, error_model="numpy", cache=True)
def composite_backward(projected, opacities, channels, bins, rendered, gradients):
    """Gradient rows [I, 6 + C], Gaussian by Gaussian; columns: mean x, y, conic xx, xy, yy, opacity, channels.

    With S the part of the loss's gradient that comes from behind a Gaussian (background included), T the
    transmittance before it and g its channels' gradient: dL/dalpha = T g.value - S / (1 - alpha).
    """
    means2d, conics = projected
    tile_starts, ids, boxes, row_starts = bins
    image, remaining = rendered
    grad_image, grad_alpha = gradients
    num_gaussians, num_channels = conics.shape[1], channels.shape[2]
    height, width = remaining.shape[1], remaining.shape[2]
    columns = (width + TILE - 1) // TILE
    tiles = columns * ((height + TILE - 1) // TILE)
    total_tiles = tiles * conics.shape[0]
    rows = np.zeros((ids.shape[0], GEOMETRY_COLUMNS + num_channels), np.float32)
    stride = _shuffle_stride(total_tiles)
    for task in numba.prange(total_tiles):
        tile = (task * stride) % total_tiles
        b = tile // tiles
        origin_x, origin_y = ((tile % tiles) % columns) * TILE, ((tile % tiles) // columns) * TILE
        transmittance = np.ones((TILE, TILE), np.float32)
        alive = np.zeros((TILE, TILE), np.float32)
        grad_channels = np.zeros((num_channels, TILE, TILE), np.float32)
        behind = np.zeros((TILE, TILE), np.float32)
        weight, dot = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
        for y in range(min(TILE, height - origin_y)):
            for x in range(min(TILE, width - origin_x)):
                py, px = origin_y + y, origin_x + x
                alive[y, x] = _ONE
                total = -grad_alpha[b, py, px] * remaining[b, py, px]
                for c in range(num_channels):
                    grad_channels[c, y, x] = grad_image[b, py, px, c]
                    total += grad_image[b, py, px, c] * image[b, py, px, c]
                behind[y, x] = total
        for k in range(tile_starts[tile], tile_starts[tile + 1]):
            flat = ids[k]
            i = flat - b * num_gaussians
            box, conic, value = boxes[flat], conics[b, i], channels[b % channels.shape[0], i]
            opacity = opacities[b % opacities.shape[0], i]
            tile_row, tile_column = origin_y // TILE - box[1] // TILE, origin_x // TILE - box[0] // TILE
            row = rows[row_starts[flat] + tile_row * (box[2] // TILE - box[0] // TILE + 1) + tile_column]
            y0, y1, first, count = _clip_to_tile(box, origin_x, origin_y)
            mean_x = means2d[b, i, 0] - f32(origin_x) - _HALF - f32(first)
            mean_y = means2d[b, i, 1] - f32(origin_y) - _HALF
            xx, xy, yy = conic[0], conic[1], conic[2]
            grad_x, grad_y, grad_xx, grad_xy, grad_yy, grad_opacity = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            for y in range(y0, y1 + 1):
                dy = f32(y) - mean_y
                sigma_y, slope, half_xx = _HALF * yy * dy * dy, xy * dy, _HALF * xx
                transmittance_row = transmittance[y, first : first + count]
                alive_row = alive[y, first : first + count]
                behind_row = behind[y, first : first + count]
                for x in range(count):
                    dot[x] = _ZERO
                for c in range(num_channels):
                    level, grad_row = value[c], grad_channels[c, y, first : first + count]
                    for x in range(count):
                        dot[x] += grad_row[x] * level
                for x in range(count):
                    dx = f32(i32(x)) - mean_x
                    sigma = half_xx * dx * dx + slope * dx + sigma_y
                    falloff = _exp(-sigma)
                    raw = opacity * falloff
                    alpha = min(raw, _MAX_ALPHA)
                    alpha = _ZERO if (alpha < _MIN_ALPHA or sigma < _ZERO) else alpha
                    before = transmittance_row[x]
                    still = alive_row[x] if before * (_ONE - alpha) > _MIN_TRANSMITTANCE else _ZERO
                    alive_row[x] = still
                    alpha = alpha if still > _ZERO else _ZERO
                    weight[x] = alpha * before
                    rest = behind_row[x] - alpha * before * dot[x]
                    behind_row[x] = rest
                    grad = before * dot[x] - rest / (_ONE - alpha)
                    transmittance_row[x] = before - alpha * before
                    grad = grad if (alpha > _ZERO and raw <= _MAX_ALPHA) else _ZERO
                    grad_opacity += falloff * grad
                    grad_sigma = -raw * grad
                    grad_x -= grad_sigma * (xx * dx + xy * dy)
                    grad_y -= grad_sigma * (xy * dx + yy * dy)
                    grad_xx += grad_sigma * dx * dx
                    grad_xy += grad_sigma * dx * dy
                    grad_yy += grad_sigma * dy * dy
                for c in range(num_channels):
                    total, grad_row = _ZERO, grad_channels[c, y, first : first + count]
                    for x in range(count):
                        total += weight[x] * grad_row[x]
                    row[GEOMETRY_COLUMNS + c] += total
            row[0], row[1], row[5] = grad_x, grad_y, grad_opacity
            row[2], row[3], row[4] = _HALF * grad_xx, grad_xy, _HALF * grad_yy
            if (k - tile_starts[tile]) % _STOP_CHECK == _STOP_CHECK - 1 and _all_ended(alive):
                break
    return rows


@numba.njit(parallel=True, error_model="numpy", cache=True)
def sum_rows(rows, row_starts):
    """Sums each Gaussian's gradient rows: [B * N, 6 + C]."""
    num_gaussians, width = row_starts.shape[0] - 1, rows.shape[1]
    out = np.zeros((num_gaussians, width), np.float32)
    for i in numba.prange(num_gaussians):
        for k in range(row_starts[i], row_starts[i + 1]):
            for j in range(width):
                out[i, j] += rows[k, j]
    return out
