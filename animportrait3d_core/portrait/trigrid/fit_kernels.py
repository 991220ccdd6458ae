"""Numba kernels of the fitter: rays forward and backward in one go, points that must be empty, and Adam.

A batch is cut into a fixed number of slots with a gradient buffer each, so that the result does not depend on the
number of threads. A network is the pair (`FieldArrays`, output [4, 33]): weights and bias of raw density and colours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...kernels import numba
from .fast_kernels import HIDDEN, LANES, depth_slices, exp_negative, plane_corners, query, softplus

OUTPUTS = 4  # raw density and three colours
SLOTS = 2
LEAST = np.float32(4e-3)  # a ray ends when less than this passes
DARK = np.float32(0.1)  # samples that less light reaches lie inside the body ...
SOLID = np.float32(80)  # ... and are pulled towards this raw density, which is opaque within a sample

_inline = numba.njit(cache=True, fastmath=True, error_model="numpy", inline="always")
_plain = numba.njit(cache=True, fastmath=True, error_model="numpy", forceinline=True)
_free = numba.njit(cache=True, fastmath=True, error_model="numpy", nogil=True)


class RayBatch(NamedTuple):
    """Rays to learn from, in cube coordinates where not said otherwise.

    origins, directions: [N, 3] (directions for depths in world units, not unit).  near: [N] first depth.  step: depth
    from sample to sample.  targets: [N, 4] raw colours over `behind`, and coverage.  behind: [N, 3] raw colour.
    occupied: [M, M, M] bool over the cube; only there samples are taken.  mask_weight: of coverage in the loss.
    solid_weight: of the pull towards SOLID on the raw density of samples that little light reaches.
    """

    origins: np.ndarray
    directions: np.ndarray
    near: np.ndarray
    step: np.float32
    steps: int
    targets: np.ndarray
    behind: np.ndarray
    occupied: np.ndarray
    mask_weight: np.float32
    solid_weight: np.float32


class Gradients(NamedTuple):
    """One buffer per slot: texels [S, T, 16], hidden_weight [S, 16, 32], hidden_bias [S, 32], output [S, 4, 33]."""

    texels: np.ndarray
    hidden_weight: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray


@_inline
def _scatter_plane(field, grid, plane, u, v, d, gradient, texels):
    slices = field.slices
    a, stride, w0, w1, w2, w3 = plane_corners(field.tables[grid, plane], field.scales[grid], slices, u, v)
    k, near, far = depth_slices(slices, d)
    a += k
    b = a + stride
    for c in range(LANES):
        g = gradient[c]
        first, second = near * g, far * g
        texels[a, c] += w0 * first
        texels[a + 1, c] += w0 * second
        texels[a + slices, c] += w1 * first
        texels[a + slices + 1, c] += w1 * second
        texels[b, c] += w2 * first
        texels[b + 1, c] += w2 * second
        texels[b + slices, c] += w3 * first
        texels[b + slices + 1, c] += w3 * second


@_plain
def _backward_sample(network, point, features, hidden, outer, scratch, buffers):
    """Add the gradients of one sample, of which `outer` [4] is the gradient of density and colours, to the buffers.

    scratch: (gradient of the hidden inputs [32], of the features [16]).  buffers: (texels, hidden_weight, hidden_bias,
    output) of one slot.
    """
    texels, weight_gradient, bias_gradient, output_gradient = buffers
    field, output = network
    inner, gradient = scratch
    x, y, z = point
    for j in range(HIDDEN):
        total = outer[0] * output[0, j] + outer[1] * output[1, j] + outer[2] * output[2, j] + outer[3] * output[3, j]
        # The slope of softplus is the sigmoid, which is 1 - exp(-softplus).
        inner[j] = total * (np.float32(1) - exp_negative(hidden[j]))
        bias_gradient[j] += inner[j]
    for o in range(OUTPUTS):
        g = outer[o]
        for j in range(HIDDEN):
            output_gradient[o, j] += g * hidden[j]
        output_gradient[o, HIDDEN] += g
    for c in range(LANES):
        total = np.float32(0)
        value = features[c]
        for j in range(HIDDEN):
            total += field.hidden_weight[c, j] * inner[j]
            weight_gradient[c, j] += value * inner[j]
        gradient[c] = total
    for grid in range(field.tables.shape[0]):
        _scatter_plane(field, grid, 0, x, y, z, gradient, texels)
        _scatter_plane(field, grid, 1, x, z, y, gradient, texels)
        _scatter_plane(field, grid, 2, y, z, x, gradient, texels)


@_inline
def _is_occupied(occupied, x, y, z):
    side = occupied.shape[0]
    half = np.float32(0.5) * np.float32(side)
    i, j, k = np.floor((x + 1) * half), np.floor((y + 1) * half), np.floor((z + 1) * half)
    if i < 0 or j < 0 or k < 0 or i >= side or j >= side or k >= side:
        return False
    return occupied[np.int64(i), np.int64(j), np.int64(k)]


@_plain
def _forward_ray(network, batch, ray, samples):
    """Samples of a ray up to where nothing passes; returns (their number, what passes, mean colours and coverage).

    samples: depths index [K], density [K], colours [K, 3], features [K, 16], hidden [K, 32], and per interval that ends
    at a sample its weight [K], the light that passed before [K] and its density step [K]; a weight below 0 marks no
    interval.
    """
    index, raw, colors, features, hidden, weights, before, optical = samples
    field, output = network
    origin, direction, near = batch.origins[ray], batch.directions[ray], batch.near[ray]
    count, passed, previous = 0, np.float32(1), False
    red, green, blue, coverage = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    here = False
    for k in range(batch.steps):
        following = near + np.float32(k + 1) * batch.step
        x, y, z = (
            origin[0] + following * direction[0],
            origin[1] + following * direction[1],
            origin[2] + following * direction[2],
        )
        behind, here, ahead = previous, here if k > 0 else False, _is_occupied(batch.occupied, x, y, z)
        if behind or here or ahead:
            depth = near + np.float32(k) * batch.step
            x, y, z = (
                origin[0] + depth * direction[0],
                origin[1] + depth * direction[1],
                origin[2] + depth * direction[2],
            )
            raw[count] = query(field, x, y, z, features[count], hidden[count])
            for c in range(3):
                total = output[c + 1, HIDDEN]
                for j in range(HIDDEN):
                    total += output[c + 1, j] * hidden[count, j]
                colors[count, c] = total
            index[count] = k
            weights[count] = -1
            if count > 0 and index[count - 1] == k - 1 and (behind or here):
                middle = np.float32(0.5) * (raw[count] + raw[count - 1]) - np.float32(1)
                optical[count] = middle
                alpha = np.float32(1) - np.exp(-softplus(middle) * batch.step)
                weight = alpha * passed
                weights[count], before[count] = weight, passed
                red += weight * np.float32(0.5) * (colors[count, 0] + colors[count - 1, 0])
                green += weight * np.float32(0.5) * (colors[count, 1] + colors[count - 1, 1])
                blue += weight * np.float32(0.5) * (colors[count, 2] + colors[count - 1, 2])
                coverage += weight
                passed *= np.float32(1) - alpha
            count += 1
            if passed < LEAST:
                break
        previous, here = here, ahead
    return count, passed, (red, green, blue, coverage)


@_plain
def _backward_ray(network, batch, ray, samples, end, gradient, scratch, buffers):
    """Gradients of a ray whose loss has the gradient (red, green, blue, coverage) `gradient`.

    end: (number of samples, what passes), as `_forward_ray` gave them.
    """
    index, raw, colors, features, hidden, weights, before, optical = samples
    origin, direction, near = batch.origins[ray], batch.directions[ray], batch.near[ray]
    (count, passed), outer = end, scratch[0]
    g0, g1, g2, g3 = gradient
    behind = batch.behind[ray]
    # What lies behind an interval, seen through everything up to it: first the background alone.
    rest = passed * (g0 * behind[0] + g1 * behind[1] + g2 * behind[2])
    carried = np.zeros(OUTPUTS, np.float32)
    for s in range(count - 1, -1, -1):
        for o in range(OUTPUTS):
            outer[o] = carried[o]
            carried[o] = 0
        weight = weights[s]
        if weight >= 0:
            half = np.float32(0.5) * weight
            value = g3
            value += np.float32(0.5) * g0 * (colors[s, 0] + colors[s - 1, 0])
            value += np.float32(0.5) * g1 * (colors[s, 1] + colors[s - 1, 1])
            value += np.float32(0.5) * g2 * (colors[s, 2] + colors[s - 1, 2])
            slope = np.float32(1) - exp_negative(softplus(optical[s]))
            density = np.float32(0.5) * batch.step * slope * ((before[s] - weight) * value - rest)
            rest += weight * value
            outer[0] += density
            outer[1] += half * g0
            outer[2] += half * g1
            outer[3] += half * g2
            carried[0], carried[1], carried[2], carried[3] = density, half * g0, half * g1, half * g2
            if before[s] < DARK:
                outer[0] -= batch.solid_weight * (np.float32(1) - exp_negative(softplus(SOLID - raw[s])))
        depth = near + np.float32(index[s]) * batch.step
        point = (origin[0] + depth * direction[0], origin[1] + depth * direction[1], origin[2] + depth * direction[2])
        _backward_sample(network, point, features[s], hidden[s], outer, scratch[1:], buffers)


@_free
def learn_rays(network, batch, gradients, losses, begin, end):
    """Add the gradients of the mean loss over the batch to the buffers of slots begin..end; losses [S] is their share.

    The loss of a ray is the squared error of its three raw colours, and mask_weight times that of its coverage. The
    pull towards solid bodies is not counted in it.
    """
    rays, most = batch.origins.shape[0], batch.steps + 1
    samples = (
        np.empty(most, np.int64),
        np.empty(most, np.float32),
        np.empty((most, 3), np.float32),
        np.empty((most, LANES), np.float32),
        np.empty((most, HIDDEN), np.float32),
        np.empty(most, np.float32),
        np.empty(most, np.float32),
        np.empty(most, np.float32),
    )
    scratch = (np.empty(OUTPUTS, np.float32), np.empty(HIDDEN, np.float32), np.empty(LANES, np.float32))
    share = np.float32(1) / np.float32(rays)
    for slot in range(begin, end):
        weight, bias = gradients.hidden_weight[slot], gradients.hidden_bias[slot]
        buffers = (gradients.texels[slot], weight, bias, gradients.output[slot])
        losses[slot] = 0
        for ray in range(rays * slot // SLOTS, rays * (slot + 1) // SLOTS):
            count, passed, (red, green, blue, coverage) = _forward_ray(network, batch, ray, samples)
            target, behind = batch.targets[ray], batch.behind[ray]
            e0 = red + passed * behind[0] - target[0]
            e1 = green + passed * behind[1] - target[1]
            e2 = blue + passed * behind[2] - target[2]
            e3 = coverage - target[3]
            losses[slot] += share * (e0 * e0 + e1 * e1 + e2 * e2 + batch.mask_weight * e3 * e3)
            if count == 0:
                continue
            twice = np.float32(2) * share
            gradient = (twice * e0, twice * e1, twice * e2, twice * batch.mask_weight * e3)
            _backward_ray(network, batch, ray, samples, (count, passed), gradient, scratch, buffers)


@_free
def learn_empty(network, points, ceiling, weight, gradients, begin, end):
    """Push the raw density at points [P, 3] below `ceiling`: gradients of weight * mean softplus(density - ceiling)."""
    count = points.shape[0]
    features, hidden = np.empty(LANES, np.float32), np.empty(HIDDEN, np.float32)
    outer = np.zeros(OUTPUTS, np.float32)
    scratch = (np.empty(HIDDEN, np.float32), np.empty(LANES, np.float32))
    for slot in range(begin, end):
        buffers = (
            gradients.texels[slot],
            gradients.hidden_weight[slot],
            gradients.hidden_bias[slot],
            gradients.output[slot],
        )
        for i in range(count * slot // SLOTS, count * (slot + 1) // SLOTS):
            point = (points[i, 0], points[i, 1], points[i, 2])
            raw = query(network[0], point[0], point[1], point[2], features, hidden)
            outer[0] = weight / np.float32(count) * (np.float32(1) - exp_negative(softplus(raw - ceiling)))
            _backward_sample(network, point, features, hidden, outer, scratch, buffers)


@_free
def adam_step(values, gradients, first, second, free, rates, begin, end):
    """Adam on rows begin..end of values [T, C] with gradients [S, T, C], which are summed and cleared.

    free: [T] bool, rows that may change (not the grids' borders of zeros).  rates: (step size, decays of both moments,
    their corrections, epsilon).
    """
    rate, decay1, decay2, correction1, correction2, epsilon = rates
    slots, channels = gradients.shape[0], values.shape[1]
    for row in range(begin, end):
        for c in range(channels):
            g = np.float32(0)
            for slot in range(slots):
                g += gradients[slot, row, c]
                gradients[slot, row, c] = 0
            if not free[row]:
                g = np.float32(0)
            m = decay1 * first[row, c] + (np.float32(1) - decay1) * g
            v = decay2 * second[row, c] + (np.float32(1) - decay2) * g * g
            first[row, c] = m
            second[row, c] = v
            values[row, c] -= rate * (m * correction1) / (np.sqrt(v * correction2) + epsilon)
