"""Numba kernel of whole rays: the two passes of `march`, with empty stretches skipped and an end where nothing passes.

Every ray is computed alone, in a fixed order, so the number of threads changes no bit of the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...kernels import numba
from .fast_kernels import CROPPED, HIDDEN, LANES, query, softplus

_inline = numba.njit(cache=True, fastmath=True, error_model="numpy", inline="always")
_plain = numba.njit(cache=True, fastmath=True, error_model="numpy", forceinline=True)


class MarchArrays(NamedTuple):
    """What rays need besides the field.

    bounds, extent: see `density_bounds`.  around: [N, N, N], the highest bound of a block and its neighbours.
    origins: [1 or N, 3] in cube coordinates.  per_world: cube units per world unit.  crop: in cube coordinates.
    near, step: first depth and spacing of the coarse samples, in world units.
    jitter: [1 or N, S].  quantiles: [1 or N, F], rising.  empty: intervals whose bound of the averaged density stays
    below it are skipped.  least: a ray ends when less than this passes.
    """

    bounds: np.ndarray
    around: np.ndarray
    extent: np.float32
    origins: np.ndarray
    per_world: np.float32
    crop: np.float32
    near: np.float32
    step: np.float32
    jitter: np.ndarray
    quantiles: np.ndarray
    empty: np.float32
    least: np.float32


@_inline
def _position(march, ray, depth):
    """A ray's point in cube coordinates; a ray is (origin [3], direction [3])."""
    origin, direction = ray
    along = depth * march.per_world
    return origin[0] + along * direction[0], origin[1] + along * direction[1], origin[2] + along * direction[2]


@_inline
def _cell(march, bounds, x, y, z):
    """The entry of bounds [N, N, N] at a point; the outermost ones hold beyond the extent too."""
    side = bounds.shape[0]
    scale = np.float32(side) / (march.extent + march.extent)
    i = min(max(np.int64((x + march.extent) * scale), 0), side - 1)
    j = min(max(np.int64((y + march.extent) * scale), 0), side - 1)
    k = min(max(np.int64((z + march.extent) * scale), 0), side - 1)
    return bounds[i, j, k]


@_inline
def _bound(march, ray, depth):
    """Upper bound of the cropped raw density at a depth of the ray."""
    x, y, z = _position(march, ray, depth)
    if abs(x) > march.crop or abs(z) > march.crop:
        return np.float32(CROPPED)
    return _cell(march, march.bounds, x, y, z)


@_plain
def _evaluate(field, march, ray, depth, features, hidden):
    """Cropped raw density at a depth; the hidden layer goes to hidden [32]."""
    x, y, z = _position(march, ray, depth)
    raw = query(field, x, y, z, features, hidden)
    return np.float32(CROPPED) if abs(x) > march.crop or abs(z) > march.crop else raw


@_plain
def _coarse_line(march, ray, jitter, depths, bounds):
    """Fill the coarse depths and bounds [S]; False if the ray meets nothing anywhere.

    Nothing lies between two samples if nothing lies in their blocks and those around, as long as they are less than two
    blocks apart.
    """
    block = (march.extent + march.extent) / (np.float32(march.bounds.shape[0]) * march.per_world)
    limit = march.empty + np.float32(1)
    met, previous = False, march.near
    for i in range(depths.shape[0]):
        depths[i] = march.near + (np.float32(i) + jitter[i]) * march.step
        met = met or depths[i] - previous > np.float32(1.9) * block
        previous = depths[i]
        x, y, z = _position(march, ray, depths[i])
        bounds[i] = _cell(march, march.around, x, y, z)
        if bounds[i] > limit:
            met = True
            bounds[i] = _bound(march, ray, depths[i])
    return met


@_inline
def _alpha(first, second, step):
    density = softplus(np.float32(0.5) * (first + second) - np.float32(1))
    return np.float32(1) - np.exp(-density * step)


@_plain
def _coarse_pass(field, march, ray, line, coarse, weights, features):
    """Weights [S - 1] of the samples on a line (depths [S], bounds [S]).

    Fills of coarse = (raw [S], hidden [S, 32], known [S]) what it evaluates, where known becomes 1.
    """
    (depths, bounds), (raw, hidden, known) = line, coarse
    count = depths.shape[0]
    known[:] = 0
    weights[:] = 0
    passed = np.float32(1)
    for i in range(count - 1):
        if np.float32(0.5) * (bounds[i] + bounds[i + 1]) - np.float32(1) <= march.empty:
            continue
        for s in range(i, i + 2):
            if not known[s]:
                raw[s] = _evaluate(field, march, ray, depths[s], features, hidden[s])
                known[s] = 1
        alpha = _alpha(raw[i], raw[i + 1], depths[i + 1] - depths[i])
        weights[i] = alpha * passed
        passed *= np.float32(1) - alpha + np.float32(1e-10)
        if passed < march.least:
            break


@_plain
def _fine_depths(depths, weights, quantiles, cumulative, fine):
    """Depths [F] at rising quantiles [F] of the blurred weights, as `march.importance_depths`; cumulative [S - 2]."""
    bins = weights.shape[0] - 1
    total = np.float32(0)
    cumulative[0] = 0
    for k in range(1, bins):
        before = max(weights[k - 1], weights[k])
        after = max(weights[k], weights[k + 1])
        total += np.float32(0.5) * (before + after) + np.float32(0.01) + np.float32(1e-5)
        cumulative[k] = total
    for k in range(1, bins):
        cumulative[k] /= total
    k = 0
    for f in range(fine.shape[0]):
        u = quantiles[f]
        while k < bins - 1 and cumulative[k + 1] <= u:
            k += 1
        start = np.float32(0.5) * (depths[k] + depths[k + 1])
        if k == bins - 1:
            fine[f] = start
            continue
        stop = np.float32(0.5) * (depths[k + 1] + depths[k + 2])
        span = cumulative[k + 1] - cumulative[k]
        fraction = (u - cumulative[k]) / (span if span >= np.float32(1e-5) else np.float32(1))
        fine[f] = start + fraction * (stop - start)


@_plain
def _merge(march, ray, depths, bounds, fine, all_depths, all_bounds, source):
    """Both lists of depths as one rising list; source is the coarse index, or -1 for a fine sample."""
    coarse_count, fine_count = depths.shape[0], fine.shape[0]
    i, f = 0, 0
    for s in range(coarse_count + fine_count):
        if f == fine_count or (i < coarse_count and depths[i] <= fine[f]):
            all_depths[s], all_bounds[s], source[s] = depths[i], bounds[i], i
            i += 1
        else:
            all_depths[s], all_bounds[s], source[s] = fine[f], _bound(march, ray, fine[f]), -1
            f += 1


@_plain
def _final_pass(field, march, ray, samples, coarse, scratch, result):
    """Accumulate the hidden layer [32] of the ray into result; returns (coverage, weighted sum of depths).

    samples: (depths, bounds, source) of all samples.  coarse: (raw, hidden, known).  scratch: (features [16],
    pair [2, 32], the hidden layers of an interval's ends).
    """
    depths, bounds, source = samples
    raw, hidden, known = coarse
    features, pair = scratch
    passed, coverage, weighted = np.float32(1), np.float32(0), np.float32(0)
    values = (np.float32(0), np.float32(0))
    ready = -1  # the last sample whose value is in `pair`
    for i in range(depths.shape[0] - 1):
        if np.float32(0.5) * (bounds[i] + bounds[i + 1]) - np.float32(1) <= march.empty:
            continue
        for s in range(max(i, ready + 1), i + 2):
            c = source[s]
            if c >= 0 and known[c]:
                value = raw[c]
                for j in range(HIDDEN):
                    pair[s & 1, j] = hidden[c, j]
            else:
                value = _evaluate(field, march, ray, depths[s], features, pair[s & 1])
            values = (values[1], value)
        ready = i + 1
        alpha = _alpha(values[0], values[1], depths[i + 1] - depths[i])
        weight = alpha * passed
        coverage += weight
        weighted += weight * np.float32(0.5) * (depths[i] + depths[i + 1])
        for j in range(HIDDEN):
            result[j] += np.float32(0.5) * weight * (pair[0, j] + pair[1, j])
        passed *= np.float32(1) - alpha + np.float32(1e-10)
        if passed < march.least:
            break
    return coverage, weighted


@numba.njit(cache=True, fastmath=True, error_model="numpy", nogil=True)
def march_range(field, march, directions, hidden_sums, coverages, depths_out, begin, end):
    """March rays begin..end along directions [N, 3]; fill hidden_sums [N, 32], coverages [N] and depths_out [N]."""
    coarse_count, fine_count = march.jitter.shape[1], march.quantiles.shape[1]
    every = coarse_count + fine_count
    depths, bounds = np.empty(coarse_count, np.float32), np.empty(coarse_count, np.float32)
    raw, known = np.empty(coarse_count, np.float32), np.empty(coarse_count, np.uint8)
    hidden, weights = np.empty((coarse_count, HIDDEN), np.float32), np.empty(coarse_count - 1, np.float32)
    cumulative, fine = np.empty(coarse_count, np.float32), np.empty(fine_count, np.float32)
    all_depths, all_bounds = np.empty(every, np.float32), np.empty(every, np.float32)
    source = np.empty(every, np.int64)
    features, pair = np.empty(LANES, np.float32), np.empty((2, HIDDEN), np.float32)
    samples, coarse, scratch = (all_depths, all_bounds, source), (raw, hidden, known), (features, pair)
    for index in range(begin, end):
        ray = (march.origins[index % march.origins.shape[0]], directions[index])
        jitter = march.jitter[index % march.jitter.shape[0]]
        quantiles = march.quantiles[index % march.quantiles.shape[0]]
        if not _coarse_line(march, ray, jitter, depths, bounds):
            hidden_sums[index], coverages[index], depths_out[index] = 0, 0, 0
            continue
        _coarse_pass(field, march, ray, (depths, bounds), coarse, weights, features)
        _fine_depths(depths, weights, quantiles, cumulative, fine)
        _merge(march, ray, depths, bounds, fine, all_depths, all_bounds, source)
        hidden_sums[index] = 0
        coverage, weighted = _final_pass(field, march, ray, samples, coarse, scratch, hidden_sums[index])
        coverages[index] = coverage
        depths_out[index] = weighted / max(coverage, np.float32(1e-12))
