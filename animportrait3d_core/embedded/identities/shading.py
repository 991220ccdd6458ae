"""The shading kernel of the ground truth: albedo and relief from the atlas, soft light, mild gloss.

Lights are fixed to the world, so that views agree with each other and an avatar can hold the light in its colours.
Skin: wrapped diffuse light whose terminator is redder (Jimenez et al., "Separable subsurface scattering", 2015, gives
the look this imitates). Hair: highlights of Kajiya and Kay (1989) along the strands. Relief: surface gradients after
Mikkelsen, "Bump mapping unparametrized surfaces on the GPU" (2010), with the chart's tangents.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...kernels import numba
from ...parts import FigurePart

_jit = numba.njit(cache=True, fastmath=True, forceinline=True)


class Lighting(NamedTuple):
    """Directions [L, 3] toward the lights (unit, world), colours [L, 3] linear, sky and ground light [3] linear.

    The first light is the key light, the one that casts the baked shadow.
    """

    directions: np.ndarray
    colors: np.ndarray
    sky: np.ndarray
    ground: np.ndarray


def default_lighting() -> Lighting:
    """A soft key from the upper left of the picture, a cool fill, a rim from behind, and ambient light."""
    directions = np.array([[-0.50, 0.62, 0.78], [0.85, 0.12, 0.55], [0.30, 0.55, -0.85]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    colors = np.array([[0.68, 0.655, 0.62], [0.17, 0.18, 0.20], [0.24, 0.24, 0.26]])
    return Lighting(directions, colors, np.array([0.40, 0.405, 0.42]), np.array([0.25, 0.235, 0.225]))


def packed_lighting(lighting: Lighting) -> np.ndarray:
    """What the kernels take [2 + L, 6]: sky, ground, then direction and colour of every light."""
    ambient = np.stack([lighting.sky, lighting.ground])
    lights = np.concatenate([lighting.directions, lighting.colors], axis=1)
    return np.concatenate([np.pad(ambient, ((0, 0), (0, 3))), lights]).astype(np.float64)


class Scene(NamedTuple):
    """A posed figure ready to be shaded. Few arrays, because handing each to a compiled function costs time.

    attributes: [V, 10] position, normal, share of the sky and of the key light that a vertex sees, direction of strands
    in the chart (across, down); see `vertex_attributes`.  faces: [F, 3].  uvs: [F, 3, 2] v up.  parts: [F].  texels,
    starts, size: mip levels of the atlas.  density: [F] texels per world unit at level 0.  relief_scale: world units
    per millimetre.
    """

    attributes: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    parts: np.ndarray
    texels: np.ndarray
    starts: np.ndarray
    size: int
    density: np.ndarray
    relief_scale: float


POSITION, NORMAL, SKY, KEY, FLOW, CHART = 0, 3, 6, 7, 8, 10
# A pixel's footprint is one level coarser than that of one of its four samples, but a trilinear look-up there would be
# softer than the mean of four.
_GROUP_LEVEL = 0.6


def vertex_attributes(
    vertices: np.ndarray, normals: np.ndarray, open_sky: np.ndarray, key_light: np.ndarray, flow: np.ndarray
) -> np.ndarray:
    """The columns of `Scene.attributes` side by side [V, 10]."""
    return np.concatenate([vertices, normals, open_sky[:, None], key_light[:, None], flow], axis=1)


@_jit
def _fetch(texels, start, size, u, v, out):
    """Bilinear texel into out [7]: five channels, then d relief / du and d relief / dv (v up)."""
    x = min(max(u * size - 0.5, 0.0), size - 1.001)
    y = min(max((1.0 - v) * size - 0.5, 0.0), size - 1.001)
    ix, iy = int(x), int(y)
    fx, fy = x - ix, y - iy
    a = start + iy * size + ix
    c = a + size
    w0, w1, w2, w3 = (1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy
    for k in range(5):
        out[k] = texels[a, k] * w0 + texels[a + 1, k] * w1 + texels[c, k] * w2 + texels[c + 1, k] * w3
    out[5] = ((texels[a + 1, 3] - texels[a, 3]) * (1.0 - fy) + (texels[c + 1, 3] - texels[c, 3]) * fy) * size
    out[6] = -((texels[c, 3] - texels[a, 3]) * (1.0 - fx) + (texels[c + 1, 3] - texels[a + 1, 3]) * fx) * size


@_jit
def sample_texture(texels, starts, size, u, v, level, texel, second):
    """Trilinear texel [7] at a fractional mip level."""
    last = starts.shape[0] - 1
    level = min(max(level, 0.0), float(last))
    low = int(level)
    _fetch(texels, starts[low], size >> low, u, v, texel)
    share = level - low
    if share > 0.02 and low < last:
        _fetch(texels, starts[low + 1], size >> (low + 1), u, v, second)
        for k in range(7):
            texel[k] += (second[k] - texel[k]) * share


@_jit
def to_srgb(value):
    """Linear light to sRGB-coded, clamped to 0..1."""
    value = min(1.0, max(0.0, value))
    return value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1.0 / 2.4) - 0.055


@_jit
def normalize(vector):
    """Scale a vector [3] to unit length, in place."""
    length = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2) + 1e-20
    vector[0] /= length
    vector[1] /= length
    vector[2] /= length


@_jit
def interpolate(attributes, faces, face, w0, w1, w2, out):
    """Interpolated attributes of a point of a face, into out [10]; the normal is made unit length."""
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    for k in range(10):
        out[k] = attributes[a, k] * w0 + attributes[b, k] * w1 + attributes[c, k] * w2
    length = math.sqrt(out[3] * out[3] + out[4] * out[4] + out[5] * out[5]) + 1e-20
    out[3] /= length
    out[4] /= length
    out[5] /= length


@_jit
def bend_normal(attributes, faces, uvs, face, texel, normal, tangents, scale):
    """Turn `normal` by the relief of a texel and leave the chart's tangents (d position / du, / dv) in tangents [2, 3].

    scale: world units per unit of relief.
    """
    a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
    du1, dv1 = uvs[face, 1, 0] - uvs[face, 0, 0], uvs[face, 1, 1] - uvs[face, 0, 1]
    du2, dv2 = uvs[face, 2, 0] - uvs[face, 0, 0], uvs[face, 2, 1] - uvs[face, 0, 1]
    det = du1 * dv2 - du2 * dv1
    if abs(det) < 1e-14:
        for k in range(3):
            tangents[0, k] = 0.0
            tangents[1, k] = 0.0
        return
    for k in range(3):
        e1 = attributes[b, k] - attributes[a, k]
        e2 = attributes[c, k] - attributes[a, k]
        tangents[0, k] = (e1 * dv2 - e2 * dv1) / det
        tangents[1, k] = (e2 * du1 - e1 * du2) / det
    pux, puy, puz = tangents[0, 0], tangents[0, 1], tangents[0, 2]
    pvx, pvy, pvz = tangents[1, 0], tangents[1, 1], tangents[1, 2]
    nx, ny, nz = normal[0], normal[1], normal[2]
    # gradient = h_u (p_v x n) / d + h_v (n x p_u) / d,  d = p_u . (p_v x n)
    cx, cy, cz = pvy * nz - pvz * ny, pvz * nx - pvx * nz, pvx * ny - pvy * nx
    d = pux * cx + puy * cy + puz * cz
    if abs(d) < 1e-12:
        return
    ex, ey, ez = ny * puz - nz * puy, nz * pux - nx * puz, nx * puy - ny * pux
    hu = texel[5] * scale / d
    hv = texel[6] * scale / d
    gx, gy, gz = hu * cx + hv * ex, hu * cy + hv * ey, hu * cz + hv * ez
    steep = math.sqrt(gx * gx + gy * gy + gz * gz)
    limit = min(1.0, 1.1 / (steep + 1e-9))
    normal[0] -= gx * limit
    normal[1] -= gy * limit
    normal[2] -= gz * limit
    normalize(normal)


@_jit
def diffuse_light(normal, part, sky_share, key_share, lights, out):
    """Light, into out [3], that a surface of a part receives; lights: [2 + L, 6] of `packed_lighting`."""
    up = 0.5 + 0.5 * normal[1]
    wrap_r, wrap_g, wrap_b = 0.10, 0.10, 0.10
    if part == FigurePart.SKIN or part == FigurePart.LIPS or part == FigurePart.EARS:
        wrap_r, wrap_g, wrap_b = 0.34, 0.17, 0.12
    elif part == FigurePart.HAIR:
        wrap_r, wrap_g, wrap_b = 0.25, 0.25, 0.25
    for k in range(3):
        out[k] = (lights[1, k] + (lights[0, k] - lights[1, k]) * up) * sky_share
    if part == FigurePart.SKIN or part == FigurePart.LIPS or part == FigurePart.EARS:
        # light that enters around a shadowed place comes out red
        out[0] *= 1.0 + 0.16 * (1.0 - sky_share)
    for light in range(2, lights.shape[0]):
        facing = normal[0] * lights[light, 0] + normal[1] * lights[light, 1] + normal[2] * lights[light, 2]
        shade_r = shade = sky_share * 0.5 + 0.5
        if light == 2:
            shade = key_share
            shade_r = key_share + 0.22 * key_share * (1.0 - key_share)
        out[0] += lights[light, 3] * max(0.0, (facing + wrap_r) / (1.0 + wrap_r)) * shade_r
        out[1] += lights[light, 4] * max(0.0, (facing + wrap_g) / (1.0 + wrap_g)) * shade
        out[2] += lights[light, 5] * max(0.0, (facing + wrap_b) / (1.0 + wrap_b)) * shade


@_jit
def _squared(value, times):
    """value ** (2 ** times) by repeated squaring."""
    for _ in range(times):
        value *= value
    return value


@_jit
def _gloss(normal, view, part, gloss, key_share, lights):
    """Specular light of the two front lights; small everywhere but on eyes, where it gives the catch-light."""
    total = 0.0
    doublings, strength = 4, 0.055
    if part == FigurePart.EYES:
        doublings, strength = 8, 1.15
    elif part == FigurePart.TEETH:
        doublings, strength = 6, 0.17
    elif part == FigurePart.LIPS:
        doublings, strength = 5, 0.16
    elif part == FigurePart.MOUTH_INTERIOR:
        doublings, strength = 5, 0.10
    elif part == FigurePart.CLOTHES or part == FigurePart.LASHES:
        doublings, strength = 3, 0.03
    for light in range(2, 4):
        hx, hy, hz = lights[light, 0] + view[0], lights[light, 1] + view[1], lights[light, 2] + view[2]
        length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        cosine = max(0.0, (normal[0] * hx + normal[1] * hy + normal[2] * hz) / length)
        shadow = 0.25 + 0.75 * key_share if light == 2 else 0.5
        total += _squared(cosine, doublings) * shadow
    return total * strength * gloss


@_jit
def _strand_gloss(tangent, normal, view, gloss, key_share, lights):
    """Highlight along hair strands, two lobes of which the second is shifted towards the tips."""
    total = 0.0
    for light in range(2, lights.shape[0]):
        hx, hy, hz = lights[light, 0] + view[0], lights[light, 1] + view[1], lights[light, 2] + view[2]
        length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        along = (tangent[0] * hx + tangent[1] * hy + tangent[2] * hz) / length
        facing = normal[0] * lights[light, 0] + normal[1] * lights[light, 1] + normal[2] * lights[light, 2]
        visible = min(1.0, max(0.0, 0.25 + facing)) * (key_share if light == 2 else 0.6)
        # sin^96 and sin^24 of the angle between strand and half vector, from sin^2
        first = _squared(max(0.0, 1.0 - (along + 0.10) ** 2), 5)
        second = max(0.0, 1.0 - (along - 0.12) ** 2)
        second = _squared(second, 3) * _squared(second, 2)
        total += visible * (0.55 * first * math.sqrt(first) + 0.45 * second)
    return total * gloss


@_jit
def _shade_surface(scene, lights, face, view_point, scratch, out):
    """Colour (linear, out[0:3]) and world normal (out[3:6]) of a point of a face.

    view_point: the camera's place [3] and the mip level.  scratch: arrays to work in, of which the first holds the
    point's attributes [10] and texture coordinates [2].
    """
    camera, level = view_point
    point, normal, view, light, strand, texel, second, tangents = scratch
    for k in range(3):
        normal[k] = point[NORMAL + k]
        view[k] = camera[k] - point[k]
    normalize(normal)
    normalize(view)
    facing = normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2]
    part = scene.parts[face]
    turn = (
        -1.0
        if facing < 0.0 and (part == FigurePart.HAIR or part == FigurePart.CLOTHES or part == FigurePart.LASHES)
        else 1.0
    )
    for k in range(3):
        normal[k] *= turn
        out[3 + k] = normal[k]
    level -= 0.25 * math.log2(max(abs(facing), 0.15))
    sample_texture(scene.texels, scene.starts, scene.size, point[CHART], point[CHART + 1], level, texel, second)
    bend_normal(scene.attributes, scene.faces, scene.uvs, face, texel, normal, tangents, scene.relief_scale)
    sky, key = point[SKY], point[KEY]
    diffuse_light(normal, part, sky, key, lights, light)
    if part == FigurePart.HAIR:
        for k in range(3):
            strand[k] = point[FLOW] * tangents[0, k] - point[FLOW + 1] * tangents[1, k]
        normalize(strand)
        shine = _strand_gloss(strand, normal, view, texel[4], key, lights) * sky
        for k in range(3):
            out[k] = texel[k] * light[k] + shine * (0.05 + 0.55 * texel[k])
    else:
        shine = _gloss(normal, view, part, texel[4], key, lights) * (0.4 + 0.6 * sky)
        for k in range(3):
            out[k] = texel[k] * light[k] + shine


@_jit
def _scratch():
    return (
        np.empty(12), np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(7), np.empty(7), np.empty((2, 3))
    )  # fmt: skip


@_jit
def _add_sample(scene, face, w0, w1, w2, u, v, point):
    """Add a sample's attributes and texture coordinates to those of its group, point [12]."""
    a, b, c = scene.faces[face, 0], scene.faces[face, 1], scene.faces[face, 2]
    for k in range(10):
        point[k] += scene.attributes[a, k] * w0 + scene.attributes[b, k] * w1 + scene.attributes[c, k] * w2
    point[CHART] += u
    point[CHART + 1] += v


@_jit
def _gather_group(scene, samples, place, grain, merge, taken, point):
    """Attributes of a sample, averaged with those of later samples of the pixel that see the same place of the same
    piece; into point [12]. place: row, column, first sample.  taken: [n], marks the samples that were used.

    merge: how many samples apart, in the texture, two samples may be; 0 keeps them apart. Returns their number and the
    mip level.
    """
    face_id, barycentric, depth, focal = samples
    row, column, first = place
    point[:] = 0.0
    count, u0, v0, reach, level, part = 0, 0.0, 0.0, 0.0, 0.0, -1
    for sample in range(first, grain * grain):
        if taken[sample]:
            continue
        y, x = row * grain + sample // grain, column * grain + sample % grain
        face = face_id[y, x]
        if face < 0 or (count > 0 and scene.parts[face] != part):
            continue
        w0, w1, w2 = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
        u = scene.uvs[face, 0, 0] * w0 + scene.uvs[face, 1, 0] * w1 + scene.uvs[face, 2, 0] * w2
        v = scene.uvs[face, 0, 1] * w0 + scene.uvs[face, 1, 1] * w1 + scene.uvs[face, 2, 1] * w2
        if count == 0:
            texels = max(scene.density[face] * depth[y, x] / focal, 1e-6)
            part, u0, v0, level, reach = scene.parts[face], u, v, math.log2(texels), merge * texels / scene.size
        elif abs(u - u0) > reach or abs(v - v0) > reach:
            continue
        _add_sample(scene, face, w0, w1, w2, u, v, point)
        taken[sample] = True
        count += 1
        if merge == 0.0:
            break
    for k in range(12):
        point[k] /= count
    return count, level + (_GROUP_LEVEL if count > 1 else 0.0)


@numba.njit(cache=True, fastmath=True, nogil=True)
def shade_image(scene, lights, samples, camera, background, merge, images, begin, end):
    """Shade rows begin..end of one view and average the samples of each pixel.

    lights: of `packed_lighting`.  samples: (face_id, barycentric, depth) of S x supersampling images.  camera: (center
    [3], world_to_camera [3, 3], focal length in samples).  merge: samples of a pixel that lie at most so many samples
    apart in the texture are shaded once; 0 shades every sample.  images: rgb [H, W, 3], alpha [H, W], normals
    [H, W, 3] camera OpenGL, parts [H, W] u8, mean depth of the covered samples [H, W].
    """
    face_id, barycentric, depth = samples
    center, rotation, focal = camera
    rgb, alpha, normals, parts, mean_depth = images
    height, width = alpha.shape
    grain = face_id.shape[0] // height
    weight = 1.0 / (grain * grain)
    for row in range(begin, end):
        scratch, out, votes, taken = _scratch(), np.empty(6), np.empty(16), np.empty(grain * grain, np.bool_)
        color, normal = np.empty(3), np.empty(3)
        for column in range(width):
            color[:], normal[:], votes[:], taken[:] = 0.0, 0.0, 0.0, False
            distance = 0.0
            for sample in range(grain * grain):
                y, x = row * grain + sample // grain, column * grain + sample % grain
                face = face_id[y, x]
                distance += depth[y, x]
                if face < 0:
                    votes[0] += 1.0
                    continue
                if taken[sample]:
                    continue
                count, level = _gather_group(
                    scene, (face_id, barycentric, depth, focal), (row, column, sample), grain, merge, taken, scratch[0]
                )
                _shade_surface(scene, lights, face, (center, level), scratch, out)
                for k in range(3):
                    color[k] += min(1.0, out[k]) * count
                    normal[k] += out[3 + k] * count
                votes[scene.parts[face]] += count
            covered = 1.0 - votes[0] * weight
            alpha[row, column] = covered
            parts[row, column] = np.argmax(votes)
            mean_depth[row, column] = distance * weight / max(covered, weight)
            for k in range(3):
                own = to_srgb(color[k] * weight / max(covered, weight))
                rgb[row, column, k] = own * covered + background[k] * (1.0 - covered)
            if covered > 0.0:
                normalize(normal)
            # OpenCV camera axes to OpenGL: y and z change sign
            for k in range(3):
                turned = rotation[k, 0] * normal[0] + rotation[k, 1] * normal[1] + rotation[k, 2] * normal[2]
                normals[row, column, k] = turned if k == 0 else -turned


@numba.njit(cache=True, fastmath=True)
def texel_density(vertices, faces, uvs, size, out):
    """Texels per world unit [F] of every face at the finest level."""
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        e1x, e1y, e1z = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        e2x, e2y, e2z = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = e1y * e2z - e1z * e2y, e1z * e2x - e1x * e2z, e1x * e2y - e1y * e2x
        area = math.sqrt(nx * nx + ny * ny + nz * nz)
        chart = abs(
            (uvs[f, 1, 0] - uvs[f, 0, 0]) * (uvs[f, 2, 1] - uvs[f, 0, 1])
            - (uvs[f, 2, 0] - uvs[f, 0, 0]) * (uvs[f, 1, 1] - uvs[f, 0, 1])
        )
        out[f] = size * math.sqrt(chart / max(area, 1e-14))
