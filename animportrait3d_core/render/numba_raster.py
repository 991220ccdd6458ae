"""Numba tile rasteriser for projected Gaussians: binning, compositing, closed-form gradients.

Semantics of gsplat 1.5 (Kerbl et al., "3D Gaussian Splatting", algorithm 2; Ye et al., "gsplat", section 2): pixel
centres at +0.5, front to back, alpha = min(0.999, o exp(-sigma)), skipped below 1/255, a pixel ends before its
transmittance would fall to 1e-4.

What makes it fast on a CPU:
- one radix sort by depth per camera, then a stable counting sort into 16-pixel tiles, not a sort of all intersections;
- exact boxes from the opacity, so that only pixels that alpha >= 1/255 can reach are visited;
- a tile is two strips of 8 columns, each stored row by row: what a Gaussian touches of a strip is one contiguous run of
  8 x rows pixels, and the loops over it are branch-free, so they become full-width SIMD code without remainders;
- the sign of a pixel's transmittance says whether it has ended: no second array, no branch;
- the backward pass walks front to back as well (what lies behind = total - what lies before), and writes one gradient
  row per (Gaussian, tile), laid out Gaussian by Gaussian: no races, and the sum over a Gaussian's tiles is a loop over
  neighbours. Each tile and each sum belong to one thread: the number of threads changes no bit of the result.
"""

from __future__ import annotations

import numpy as np

from ..kernels import numba
from .scene import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, TILE

GEOMETRY_COLUMNS = 6  # gradient columns before the channels: mean x, y, conic xx, xy, yy, opacity

f32 = np.float32
i32 = np.int32
_MIN_ALPHA, _MAX_ALPHA, _MIN_TRANSMITTANCE = f32(MIN_ALPHA), f32(MAX_ALPHA), f32(MIN_TRANSMITTANCE)
_ZERO, _ONE, _HALF = f32(0.0), f32(1.0), f32(0.5)
_LANES = TILE * 8  # pixels of a strip
_STOP_CHECK = 32  # every so many Gaussians a tile looks whether all of its pixels have ended
# Everything of fastmath but "no NaNs" and "no infinities": a NaN gradient handed in must come out as NaN.
_FASTMATH = {"reassoc", "nsz", "arcp", "contract", "afn"}


@numba.njit(nogil=True, error_model="numpy")
def _sort_by_depth(depths, boxes, order, spare):
    """Indices of the Gaussians with a box, near to far, into order; returns how many. A stable radix sort.

    Three passes of 11 bits go to and fro between the two buffers, so the first one must end up in `order`.
    """
    count = 0
    for i in range(depths.shape[0]):
        if boxes[i, 0] <= boxes[i, 2]:
            spare[count] = i
            count += 1
    bits = depths.view(np.uint32)  # depths are positive, so that their bits sort like the numbers
    histogram = np.empty(2048, np.int64)  # three digits of 11 bits
    source, target = spare, order
    for digit in range(3):
        shift = np.uint32(11 * digit)
        histogram.fill(0)
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
    return count


@numba.njit(nogil=True, error_model="numpy", cache=True)
def bin_gaussians(depths, boxes, size):
    """Sorts the Gaussians of all cameras into tiles, from depths [B, N] and pixel boxes [B, N, 4].

    Returns (tile_starts [B * tiles + 1], ids [I] = b * N + i in tile and depth order, row_starts [B * N + 1] where each
    Gaussian's gradient rows begin).
    """
    num_cameras, num_gaussians = depths.shape
    columns = (size[0] + TILE - 1) // TILE
    tiles = columns * ((size[1] + TILE - 1) // TILE)
    row_starts = np.zeros(num_cameras * num_gaussians + 1, np.int64)
    tile_starts = np.zeros(num_cameras * tiles + 1, np.int64)
    for b in range(num_cameras):
        for i in range(num_gaussians):
            flat = b * num_gaussians + i
            first_row, last_row = boxes[b, i, 1] // TILE, boxes[b, i, 3] // TILE
            first_column, last_column = boxes[b, i, 0] // TILE, boxes[b, i, 2] // TILE
            for row in range(first_row, last_row + 1):
                for column in range(first_column, last_column + 1):
                    tile_starts[b * tiles + row * columns + column + 1] += 1
            row_starts[flat + 1] = row_starts[flat] + (last_row - first_row + 1) * (last_column - first_column + 1)
    for tile in range(num_cameras * tiles):
        tile_starts[tile + 1] += tile_starts[tile]
    ids = np.empty(tile_starts[num_cameras * tiles], np.int32)
    cursor = tile_starts.copy()
    order, spare = np.empty(num_gaussians, np.int32), np.empty(num_gaussians, np.int32)
    for b in range(num_cameras):
        count = _sort_by_depth(depths[b], boxes[b], order, spare)
        for k in range(count):
            i = order[k]
            for row in range(boxes[b, i, 1] // TILE, boxes[b, i, 3] // TILE + 1):
                for column in range(boxes[b, i, 0] // TILE, boxes[b, i, 2] // TILE + 1):
                    tile = b * tiles + row * columns + column
                    ids[cursor[tile]] = b * num_gaussians + i
                    cursor[tile] += 1
    return tile_starts, ids, row_starts


@numba.njit(inline="always", error_model="numpy")
def _exp(x):
    """exp for x <= 0 to float32 round-off (Cephes expf), without branches so that it vectorises."""
    x = max(x, f32(-87.0))
    n = np.floor(x * f32(1.44269504) + _HALF)
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


@numba.njit(nogil=True, error_model="numpy")
def _place_tile(task, num_cameras, size):
    """(tile, camera, origin x, origin y) of a task.

    Tasks walk the tiles in long strides, so that every thread gets a like share of busy and empty tiles.
    """
    columns = (size[0] + TILE - 1) // TILE
    tiles = columns * ((size[1] + TILE - 1) // TILE)
    total = tiles * num_cameras
    stride = 7919 if total % 7919 != 0 else 7907  # primes, so that every tile has its turn
    tile = (task * stride) % total
    local = tile % tiles
    return tile, tile // tiles, (local % columns) * TILE, (local // columns) * TILE


@numba.njit(nogil=True, error_model="numpy")
def _run_of_rows(y0, y1, origin_y):
    """Of image rows y0..y1: the first in the tile, made even, and the pixels of a strip's run, a multiple of 16."""
    first = max(y0 - origin_y, 0) & ~1
    last = min(y1 - origin_y, TILE - 1) | 1
    return first, (last - first + 1) * 8


@numba.njit(nogil=True, error_model="numpy")
def _strips(x0, x1, origin_x):
    """First and last strip of a tile that the columns x0..x1 of an image touch."""
    return max(x0 - origin_x, 0) // 8, min(x1 - origin_x, TILE - 1) // 8


@numba.njit(nogil=True, error_model="numpy")
def _all_ended(transmittance):
    for lane in range(transmittance.shape[0]):
        if transmittance[lane] > _ZERO:
            return False
    return True


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", forceinline=True)
def _weigh(gaussian, before, weight):
    """Weights of one Gaussian in a run of a strip's pixels; attenuates their transmittance `before` in place.

    gaussian: mean x, y relative to the run's first pixel centre, conic xx, xy, yy, opacity.
    """
    mean_x, mean_y, xx, xy, yy, opacity = gaussian
    half_xx, half_yy = _HALF * xx, _HALF * yy
    for lane in range(before.shape[0]):
        dx, dy = f32(i32(lane) & i32(7)) - mean_x, f32(i32(lane) >> i32(3)) - mean_y
        sigma = half_xx * dx * dx + (half_yy * dy + xy * dx) * dy
        alpha = min(opacity * _exp(-sigma), _MAX_ALPHA)
        alpha = _ZERO if (alpha < _MIN_ALPHA or sigma < _ZERO) else alpha
        drop = alpha * before[lane]
        after = before[lane] - drop
        weight[lane] = drop if after > _MIN_TRANSMITTANCE else _ZERO
        before[lane] = after if after > _MIN_TRANSMITTANCE else -abs(before[lane])


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", cache=True)
def composite_forward(geometry, channels, background, bins, outputs, begin, end):
    """Composites channels [1|B, N, C] over background [B, C] into image [B, H, W, C] and transmittance [B, H, W]."""
    means2d, conics, opacities = geometry
    tile_starts, ids, boxes = bins
    image, remaining = outputs
    num_cameras, height, width = remaining.shape
    num_gaussians, num_channels = conics.shape[1], channels.shape[2]
    transmittance, weight = np.empty(2 * _LANES, np.float32), np.empty(_LANES, np.float32)
    accumulated = np.empty((num_channels, 2 * _LANES), np.float32)
    for task in range(begin, end):
        tile, b, origin_x, origin_y = _place_tile(task, num_cameras, (width, height))
        transmittance.fill(_ONE)
        accumulated.fill(_ZERO)
        for k in range(tile_starts[tile], tile_starts[tile + 1]):
            i = ids[k] - b * num_gaussians
            shared, opacity = b % channels.shape[0], opacities[b % opacities.shape[0], i]
            xx, xy, yy = conics[b, i, 0], conics[b, i, 1], conics[b, i, 2]
            first_row, count = _run_of_rows(boxes[b, i, 1], boxes[b, i, 3], origin_y)
            mean_y = means2d[b, i, 1] - f32(origin_y + first_row) - _HALF
            first_strip, last_strip = _strips(boxes[b, i, 0], boxes[b, i, 2], origin_x)
            for strip in range(first_strip, last_strip + 1):
                mean_x = means2d[b, i, 0] - f32(origin_x + 8 * strip) - _HALF
                start = strip * _LANES + 8 * first_row
                gaussian = (mean_x, mean_y, xx, xy, yy, opacity)
                _weigh(gaussian, transmittance[start : start + count], weight)
                for c in range(num_channels):
                    level, row = channels[shared, i, c], accumulated[c, start : start + count]
                    for lane in range(count):
                        row[lane] += weight[lane] * level
            if (k - tile_starts[tile]) % _STOP_CHECK == _STOP_CHECK - 1 and _all_ended(transmittance):
                break
        for y in range(min(TILE, height - origin_y)):
            for x in range(min(TILE, width - origin_x)):
                lane = (x // 8) * _LANES + y * 8 + x % 8
                left = abs(transmittance[lane])
                remaining[b, origin_y + y, origin_x + x] = left
                for c in range(num_channels):
                    image[b, origin_y + y, origin_x + x, c] = accumulated[c, lane] + left * background[b, c]


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", forceinline=True)
def _weigh_backward(gaussian, before, behind, dot, weight):
    """`_weigh` with gradients: also subtracts what the Gaussian adds from `behind`.

    With S = behind (the part of dL/dpixel . pixel from behind the Gaussian, background included), T = before and
    dot = dL/dpixel . value: dL/dalpha = T dot - S / (1 - alpha), and dL/dsigma = -o exp(-sigma) dL/dalpha.
    Returns the moments of dL/dsigma: sums of it times 1, dx, dx^2, dy, dx dy, dy^2.
    """
    mean_x, mean_y, xx, xy, yy, opacity = gaussian
    half_xx, half_yy = _HALF * xx, _HALF * yy
    s0, sx, sxx, sy, sxy, syy = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
    for lane in range(before.shape[0]):
        dx, dy = f32(i32(lane) & i32(7)) - mean_x, f32(i32(lane) >> i32(3)) - mean_y
        sigma = half_xx * dx * dx + (half_yy * dy + xy * dx) * dy
        raw = opacity * _exp(-sigma)
        alpha = min(raw, _MAX_ALPHA)
        alpha = _ZERO if (alpha < _MIN_ALPHA or sigma < _ZERO) else alpha
        drop = alpha * before[lane]
        after = before[lane] - drop
        drop = drop if after > _MIN_TRANSMITTANCE else _ZERO
        weight[lane] = drop
        rest = behind[lane] - drop * dot[lane]
        behind[lane] = rest
        grad_sigma = raw * (rest / (_ONE - alpha) - before[lane] * dot[lane])
        grad_sigma = grad_sigma if (drop > _ZERO and raw <= _MAX_ALPHA) else _ZERO
        before[lane] = after if after > _MIN_TRANSMITTANCE else -abs(before[lane])
        s0 += grad_sigma
        sx += grad_sigma * dx
        sxx += grad_sigma * dx * dx
        sy += grad_sigma * dy
        sxy += grad_sigma * dx * dy
        syy += grad_sigma * dy * dy
    return s0, sx, sxx, sy, sxy, syy


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", forceinline=True)
def _load_gradients(rendered, gradients, corner, state):
    """A tile's gradients from the images into strip order; corner = (camera, origin y, origin x)."""
    image, remaining = rendered
    grad_image, grad_alpha = gradients
    transmittance, behind, grad_channels = state
    b, origin_y, origin_x = corner
    transmittance.fill(-_ONE)  # pixels outside of the image have ended before they begin
    behind.fill(_ZERO)
    grad_channels.fill(_ZERO)
    for y in range(min(TILE, remaining.shape[1] - origin_y)):
        for x in range(min(TILE, remaining.shape[2] - origin_x)):
            row, column, lane = origin_y + y, origin_x + x, (x // 8) * _LANES + y * 8 + x % 8
            transmittance[lane] = _ONE
            total = -grad_alpha[b, row, column] * remaining[b, row, column]
            for c in range(grad_channels.shape[0]):
                grad_channels[c, lane] = grad_image[b, row, column, c]
                total += grad_image[b, row, column, c] * image[b, row, column, c]
            behind[lane] = total


@numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy", cache=True)
def composite_backward(geometry, channels, bins, rendered, gradients, rows, begin, end):
    """Gradient rows [I, 6 + C], zero on entry, Gaussian by Gaussian; for the columns see `GEOMETRY_COLUMNS`."""
    means2d, conics, opacities = geometry
    tile_starts, ids, boxes, row_starts = bins
    num_cameras, height, width = rendered[1].shape
    num_gaussians, num_channels = conics.shape[1], channels.shape[2]
    transmittance, behind = np.empty(2 * _LANES, np.float32), np.empty(2 * _LANES, np.float32)
    grad_channels = np.empty((num_channels, 2 * _LANES), np.float32)
    weight, dot = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    for task in range(begin, end):
        tile, b, origin_x, origin_y = _place_tile(task, num_cameras, (width, height))
        _load_gradients(rendered, gradients, (b, origin_y, origin_x), (transmittance, behind, grad_channels))
        for k in range(tile_starts[tile], tile_starts[tile + 1]):
            i = ids[k] - b * num_gaussians
            shared, opacity = b % channels.shape[0], opacities[b % opacities.shape[0], i]
            xx, xy, yy = conics[b, i, 0], conics[b, i, 1], conics[b, i, 2]
            above, left = origin_y // TILE - boxes[b, i, 1] // TILE, origin_x // TILE - boxes[b, i, 0] // TILE
            row = row_starts[ids[k]] + above * (boxes[b, i, 2] // TILE - boxes[b, i, 0] // TILE + 1) + left
            first_row, count = _run_of_rows(boxes[b, i, 1], boxes[b, i, 3], origin_y)
            mean_y = means2d[b, i, 1] - f32(origin_y + first_row) - _HALF
            s0, sx, sxx, sy, sxy, syy = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            first_strip, last_strip = _strips(boxes[b, i, 0], boxes[b, i, 2], origin_x)
            for strip in range(first_strip, last_strip + 1):
                mean_x = means2d[b, i, 0] - f32(origin_x + 8 * strip) - _HALF
                start = strip * _LANES + 8 * first_row
                stop = start + count
                for lane in range(count):
                    dot[lane] = _ZERO
                for c in range(num_channels):
                    level, grad_row = channels[shared, i, c], grad_channels[c, start:stop]
                    for lane in range(count):
                        dot[lane] += grad_row[lane] * level
                gaussian = (mean_x, mean_y, xx, xy, yy, opacity)
                sums = _weigh_backward(gaussian, transmittance[start:stop], behind[start:stop], dot, weight)
                s0, sx, sxx = s0 + sums[0], sx + sums[1], sxx + sums[2]
                sy, sxy, syy = sy + sums[3], sxy + sums[4], syy + sums[5]
                for c in range(num_channels):
                    total, grad_row = _ZERO, grad_channels[c, start:stop]
                    for lane in range(count):
                        total += weight[lane] * grad_row[lane]
                    rows[row, GEOMETRY_COLUMNS + c] += total
            rows[row, 0], rows[row, 1] = -(xx * sx + xy * sy), -(xy * sx + yy * sy)
            rows[row, 2], rows[row, 3], rows[row, 4] = _HALF * sxx, sxy, _HALF * syy
            rows[row, 5] = -s0 / opacity
            if (k - tile_starts[tile]) % _STOP_CHECK == _STOP_CHECK - 1 and _all_ended(transmittance):
                break


@numba.njit(nogil=True, error_model="numpy", cache=True)
def sum_rows(rows, row_starts, out, begin, end):
    """Sums each Gaussian's gradient rows into out [B * N, 6 + C]."""
    for i in range(begin, end):
        for k in range(row_starts[i], row_starts[i + 1]):
            for j in range(rows.shape[1]):
                out[i, j] += rows[k, j]
