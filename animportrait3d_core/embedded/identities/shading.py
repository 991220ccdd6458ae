"""The shading kernel of the ground truth: albedo and relief from the atlas, soft light, mild gloss.

Lights are fixed to the world, so that views agree with each other and an avatar can hold the light in its colours.
Skin: wrapped diffuse light whose terminator is redder (Jimenez et al., "Separable subsurface scattering", 2015, gives
the look this imitates). Hair: highlights of Kajiya and Kay (1989) along the strands. Relief: surface gradients after
Mikkelsen, "Bump mapping unparametrized surfaces on the GPU" (2010), with the chart's tangents.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from .figure import CLOTHES, EYES, HAIR, LASHES, LIPS, MOUTH_INTERIOR, SKIN, TEETH

_jit = numba.njit(cache=True, fastmath=True)


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


class Scene(NamedTuple):
    """A posed figure ready to be shaded.

    vertices, normals [V, 3]; faces [F, 3]; uvs [F, 3, 2] v up; parts [F]; flow [V, 2]; open_sky [V] share of the sky
    that a vertex sees, key_light [V] share of the key light; texels, starts, size: mip levels of the atlas; density
    [F]: texels per world unit at level 0; relief_scale: world units per millimetre.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    parts: np.ndarray
    flow: np.ndarray
    open_sky: np.ndarray
    key_light: np.ndarray
    texels: np.ndarray
    starts: np.ndarray
    size: int
    density: np.ndarray
    relief_scale: float


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
def sample_texture(scene, u, v, level, texel, second):
    """Trilinear texel [7] at a fractional mip level."""
    last = scene.starts.shape[0] - 1
    level = min(max(level, 0.0), float(last))
    low = int(level)
    _fetch(scene.texels, scene.starts[low], scene.size >> low, u, v, texel)
    share = level - low
    if share > 0.02 and low < last:
        _fetch(scene.texels, scene.starts[low + 1], scene.size >> (low + 1), u, v, second)
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
def bend_normal(scene, face, texel, normal, tangents, strength):
    """Turn `normal` by the relief and leave the chart's tangents (d position / du, / dv) in tangents [2, 3]."""
    a, b, c = scene.faces[face, 0], scene.faces[face, 1], scene.faces[face, 2]
    uv = scene.uvs[face]
    du1, dv1 = uv[1, 0] - uv[0, 0], uv[1, 1] - uv[0, 1]
    du2, dv2 = uv[2, 0] - uv[0, 0], uv[2, 1] - uv[0, 1]
    det = du1 * dv2 - du2 * dv1
    if abs(det) < 1e-14:
        for k in range(3):
            tangents[0, k] = 0.0
            tangents[1, k] = 0.0
        return
    for k in range(3):
        e1 = scene.vertices[b, k] - scene.vertices[a, k]
        e2 = scene.vertices[c, k] - scene.vertices[a, k]
        tangents[0, k] = (e1 * dv2 - e2 * dv1) / det
        tangents[1, k] = (e2 * du1 - e1 * du2) / det
    pu, pv = tangents[0], tangents[1]
    nx, ny, nz = normal[0], normal[1], normal[2]
    # gradient = h_u (p_v x n) / d + h_v (n x p_u) / d,  d = p_u . (p_v x n)
    cx, cy, cz = pv[1] * nz - pv[2] * ny, pv[2] * nx - pv[0] * nz, pv[0] * ny - pv[1] * nx
    d = pu[0] * cx + pu[1] * cy + pu[2] * cz
    if abs(d) < 1e-12:
        return
    ex, ey, ez = ny * pu[2] - nz * pu[1], nz * pu[0] - nx * pu[2], nx * pu[1] - ny * pu[0]
    hu = texel[5] * scene.relief_scale * strength / d
    hv = texel[6] * scene.relief_scale * strength / d
    gx, gy, gz = hu * cx + hv * ex, hu * cy + hv * ey, hu * cz + hv * ez
    steep = math.sqrt(gx * gx + gy * gy + gz * gz)
    limit = min(1.0, 1.1 / (steep + 1e-9))
    normal[0] -= gx * limit
    normal[1] -= gy * limit
    normal[2] -= gz * limit
    normalize(normal)


@_jit
def diffuse_light(normal, part, sky_share, key_share, lighting, out):
    """Light [3] that a surface of a part receives."""
    up = 0.5 + 0.5 * normal[1]
    wrap_r, wrap_g, wrap_b = 0.10, 0.10, 0.10
    if part == SKIN or part == LIPS or part == 8:
        wrap_r, wrap_g, wrap_b = 0.34, 0.17, 0.12
    elif part == HAIR:
        wrap_r, wrap_g, wrap_b = 0.25, 0.25, 0.25
    for k in range(3):
        out[k] = (lighting.ground[k] + (lighting.sky[k] - lighting.ground[k]) * up) * sky_share
    if part == SKIN or part == LIPS or part == 8:
        # light that enters around a shadowed place comes out red
        out[0] *= 1.0 + 0.16 * (1.0 - sky_share)
    for light in range(lighting.directions.shape[0]):
        direction = lighting.directions[light]
        facing = normal[0] * direction[0] + normal[1] * direction[1] + normal[2] * direction[2]
        shade_r = shade = sky_share * 0.5 + 0.5
        if light == 0:
            shade = key_share
            shade_r = key_share + 0.22 * key_share * (1.0 - key_share)
        out[0] += lighting.colors[light, 0] * max(0.0, (facing + wrap_r) / (1.0 + wrap_r)) * shade_r
        out[1] += lighting.colors[light, 1] * max(0.0, (facing + wrap_g) / (1.0 + wrap_g)) * shade
        out[2] += lighting.colors[light, 2] * max(0.0, (facing + wrap_b) / (1.0 + wrap_b)) * shade


@_jit
def _gloss(normal, view, part, gloss, key_share, lighting):
    """Specular light of the two front lights; small everywhere but on eyes, where it gives the catch-light."""
    total = 0.0
    power, strength = 18.0, 0.055
    if part == EYES:
        power, strength = 260.0, 1.15
    elif part == TEETH:
        power, strength = 50.0, 0.16
    elif part == LIPS:
        power, strength = 34.0, 0.16
    elif part == MOUTH_INTERIOR:
        power, strength = 40.0, 0.10
    elif part == CLOTHES or part == LASHES:
        power, strength = 8.0, 0.03
    for light in range(2):
        direction = lighting.directions[light]
        hx, hy, hz = direction[0] + view[0], direction[1] + view[1], direction[2] + view[2]
        length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        cosine = max(0.0, (normal[0] * hx + normal[1] * hy + normal[2] * hz) / length)
        shadow = 0.25 + 0.75 * key_share if light == 0 else 0.5
        total += cosine**power * shadow
    return total * strength * gloss


@_jit
def _strand_gloss(tangent, normal, view, gloss, key_share, lighting):
    """Highlight along hair strands, two lobes of which the second is shifted towards the tips."""
    total = 0.0
    for light in range(lighting.directions.shape[0]):
        direction = lighting.directions[light]
        hx, hy, hz = direction[0] + view[0], direction[1] + view[1], direction[2] + view[2]
        length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
        along = (tangent[0] * hx + tangent[1] * hy + tangent[2] * hz) / length
        facing = normal[0] * direction[0] + normal[1] * direction[1] + normal[2] * direction[2]
        visible = min(1.0, max(0.0, 0.25 + facing)) * (key_share if light == 0 else 0.6)
        first = math.sqrt(max(0.0, 1.0 - (along + 0.10) ** 2)) ** 90
        second = math.sqrt(max(0.0, 1.0 - (along - 0.12) ** 2)) ** 26
        total += visible * (0.55 * first + 0.45 * second)
    return total * gloss


@_jit
def _shade_sample(scene, lighting, face, weights, camera, position, level, work, out):
    """Colour (linear, out[0:3]) and world normal (out[3:6]) of one sample."""
    a, b, c = scene.faces[face, 0], scene.faces[face, 1], scene.faces[face, 2]
    w0, w1, w2 = weights[0], weights[1], weights[2]
    normal, view, light = work[0], work[1], work[2]
    for k in range(3):
        normal[k] = scene.normals[a, k] * w0 + scene.normals[b, k] * w1 + scene.normals[c, k] * w2
        view[k] = camera[k] - position[k]
    normalize(normal)
    normalize(view)
    facing = normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2]
    part = scene.parts[face]
    if facing < 0.0 and (part == HAIR or part == CLOTHES or part == LASHES):
        for k in range(3):
            normal[k] = -normal[k]
    for k in range(3):
        out[3 + k] = normal[k]
    texel, second, tangents = work[3], work[4], work[5:7]
    u = scene.uvs[face, 0, 0] * w0 + scene.uvs[face, 1, 0] * w1 + scene.uvs[face, 2, 0] * w2
    v = scene.uvs[face, 0, 1] * w0 + scene.uvs[face, 1, 1] * w1 + scene.uvs[face, 2, 1] * w2
    sample_texture(scene, u, v, level - 0.25 * math.log2(max(abs(facing), 0.15)), texel, second)
    bend_normal(scene, face, texel, normal, tangents, 1.0)
    sky = scene.open_sky[a] * w0 + scene.open_sky[b] * w1 + scene.open_sky[c] * w2
    key = scene.key_light[a] * w0 + scene.key_light[b] * w1 + scene.key_light[c] * w2
    diffuse_light(normal, part, sky, key, lighting, light)
    if part == HAIR:
        fu = scene.flow[a, 0] * w0 + scene.flow[b, 0] * w1 + scene.flow[c, 0] * w2
        fv = scene.flow[a, 1] * w0 + scene.flow[b, 1] * w1 + scene.flow[c, 1] * w2
        strand = work[7]
        for k in range(3):
            strand[k] = fu * tangents[0, k] - fv * tangents[1, k]
        normalize(strand)
        shine = _strand_gloss(strand, normal, view, texel[4], key, lighting) * sky
        for k in range(3):
            out[k] = texel[k] * light[k] + shine * (0.05 + 0.55 * texel[k])
    else:
        shine = _gloss(normal, view, part, texel[4], key, lighting) * (0.4 + 0.6 * sky)
        for k in range(3):
            out[k] = texel[k] * light[k] + shine


@numba.njit(cache=True, fastmath=True, parallel=True)
def shade_image(scene, lighting, samples, camera, background, images):
    """Shade one view and average the samples of each pixel.

    samples: (face_id, barycentric, depth) of S x supersampling images.  camera: (center [3], world_to_camera [3, 3],
    focal length in samples).  images: rgb [H, W, 3], alpha [H, W], normals [H, W, 3] camera OpenGL, parts [H, W] u8.
    """
    face_id, barycentric, depth = samples
    center, rotation, focal = camera
    rgb, alpha, normals, parts = images
    height, width = alpha.shape
    grain = face_id.shape[0] // height
    weight = 1.0 / (grain * grain)
    for row in numba.prange(height):
        work, out, position = np.empty((8, 7)), np.empty(6), np.empty(3)
        votes = np.empty(16)
        for column in range(width):
            color, normal = np.zeros(3), np.zeros(3)
            votes[:] = 0.0
            for sample in range(grain * grain):
                y, x = row * grain + sample // grain, column * grain + sample % grain
                face = face_id[y, x]
                if face < 0:
                    votes[0] += 1.0
                    continue
                weights = barycentric[y, x]
                for k in range(3):
                    position[k] = (
                        scene.vertices[scene.faces[face, 0], k] * weights[0]
                        + scene.vertices[scene.faces[face, 1], k] * weights[1]
                        + scene.vertices[scene.faces[face, 2], k] * weights[2]
                    )
                level = math.log2(max(scene.density[face] * depth[y, x] / focal, 1e-6))
                _shade_sample(scene, lighting, face, weights, center, position, level, work, out)
                for k in range(3):
                    color[k] += min(1.0, out[k])
                    normal[k] += out[3 + k]
                votes[scene.parts[face]] += 1.0
            covered = 1.0 - votes[0] * weight
            alpha[row, column] = covered
            parts[row, column] = np.argmax(votes)
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
