"""Augmentation of pictures together with their maps: backgrounds, mirror, place and size, light, blur, grain.

The networks are used on renders of volumetric portraits, which are softer and noisier than the data set's; the
degradations here stand for that. All randomness comes from the generator handed in.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..landmarks import MIRRORED_LANDMARKS
from ..networks.crops import Crops, cut_out, points_to_crop


@dataclasses.dataclass(frozen=True)
class TrainingImages:
    """B pictures with their maps; what a task does not need is None.

    colors: [B, 3, H, W] in 0..1 (before `composite`: premultiplied by alpha).  alpha: [B, 1, H, W].  labels: [B, H, W]
    uint8.  normals: [B, 3, H, W] camera-space OpenGL.  points: [B, L, 2] pixels.  visible: [B, L] in 0..1.  surface:
    [B, 4, H, W], the normal that a network may look at and whether there is one.
    """

    colors: Tensor
    alpha: Tensor
    labels: Tensor | None = None
    normals: Tensor | None = None
    points: Tensor | None = None
    visible: Tensor | None = None
    surface: Tensor | None = None

    def __len__(self) -> int:
        return len(self.colors)


@dataclasses.dataclass(frozen=True)
class AugmentSettings:
    """Strengths; a share is a probability per picture."""

    white_share: float = 0.5
    """Pictures over white, as the method's views; of the others a half over a colour, a quarter over a soft gradient,
    a quarter over clutter."""
    flip_share: float = 0.5
    turn_degrees: float = 12.0
    smallest: float = 0.75
    largest: float = 1.15
    """Side of the cut-out over the side of the picture: less than one shows the subject larger."""
    shift: float = 0.08
    """Of the cut-out's centre, over the side of the picture."""
    light: float = 0.25
    """Greatest change of exposure, contrast, saturation and each colour's gain; a share of one."""
    blur_share: float = 0.3
    blur_pixels: float = 2.5
    """Greatest standard deviation; small ones are more frequent. Close views of volumes are this soft at 256 pixels."""
    resample_share: float = 0.25
    resample_factor: float = 3.5
    """Greatest factor by which a picture is shrunk and enlarged again."""
    noise_share: float = 0.3
    noise: float = 0.05
    picture_alone_share: float = 0.5
    """How often a network that may look at the surface beside the picture gets none."""
    surface_alone_share: float = 0.15
    """How often it gets a blank picture; the rest shows both."""
    surface_blur_share: float = 0.3
    surface_blur_pixels: float = 2.5
    surface_ripple_share: float = 0.5
    surface_ripple: float = 0.4
    """Greatest standard deviation of ripples in the normals. Those of the shipped trigrids differ from the truth by
    0.31 to 0.39 at 256 pixels, and after a blur of 8 pixels still by 0.10 to 0.16."""
    surface_noise_share: float = 0.3
    surface_noise: float = 0.25
    """Greatest standard deviation of the grain of normals, as scans have it."""


def uniform(generator: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Random numbers [*shape] between low and high."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def flip(images: TrainingImages, chosen: Tensor) -> TrainingImages:
    """Mirror the chosen [B] bool pictures; left and right landmarks change names, normals change the sign of x."""
    where = chosen[:, None, None, None]

    def maps(values: Tensor | None) -> Tensor | None:
        return None if values is None else torch.where(where, values.flip(-1), values)

    labels, normals, points, visible = images.labels, maps(images.normals), images.points, images.visible
    if labels is not None:
        labels = torch.where(chosen[:, None, None], labels.flip(-1), labels)
    if normals is not None:
        normals = normals * torch.where(where, normals.new_tensor([-1.0, 1, 1])[:, None, None], normals.new_ones(()))
    surface = maps(images.surface)
    if surface is not None:
        signs = surface.new_tensor([-1.0, 1, 1, 1])[:, None, None]
        surface = surface * torch.where(where, signs, surface.new_ones(()))
    if points is not None and visible is not None:
        order = [index for index in MIRRORED_LANDMARKS if index < points.shape[1]]
        mirrored = points[:, order] * points.new_tensor([-1.0, 1]) + points.new_tensor([images.colors.shape[-1], 0])
        points = torch.where(chosen[:, None, None], mirrored, points)
        visible = torch.where(chosen[:, None], visible[:, order], visible)
    colors, alpha = maps(images.colors), maps(images.alpha)
    return TrainingImages(colors, alpha, labels, normals, points, visible, surface)  # type: ignore[arg-type]


def composite(images: TrainingImages, background: Tensor) -> TrainingImages:
    """Premultiplied pictures over a background [B, 3, H or 1, W or 1]."""
    return dataclasses.replace(images, colors=images.colors + (1 - images.alpha) * background)


def cut_images(images: TrainingImages, crops: Crops, size: int) -> TrainingImages:
    """Cut squares out of pictures and all their maps; outside the pictures their border goes on.

    Normals turn with the cut-out. Points keep `visible` though they may come to lie outside.
    """
    colors, alpha = (cut_out(values, crops, size, border=True) for values in (images.colors, images.alpha))
    labels, normals, points = images.labels, images.normals, images.points
    if labels is not None:
        labels = cut_out(labels[:, None].float(), crops, size, nearest=True, border=True)[:, 0].to(torch.uint8)
    if normals is not None:
        normals = turn_normals(unit_channels(cut_out(normals, crops, size, border=True)), crops.angles)
    if points is not None:
        points = points_to_crop(points, crops, size)
    surface = images.surface
    if surface is not None:
        surface = cut_out(surface, crops, size, border=True)
        surface = torch.cat([turn_normals(surface[:, :3], crops.angles), surface[:, 3:]], 1)
    return TrainingImages(colors, alpha, labels, normals, points, images.visible, surface)


def unit_channels(vectors: Tensor) -> Tensor:
    """Vectors [B, 3, H, W] of length one, zero where they are; torch's own norm is slow along channels."""
    return vectors * (vectors.square().sum(1, keepdim=True) + 1e-6).rsqrt()


def turn_normals(normals: Tensor, angles: Tensor) -> Tensor:
    """Normals [B, 3, H, W] as seen in cut-outs that are turned clockwise by angles [B] radians."""
    cos, sin = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    x, y, z = normals.unbind(1)
    # In the picture y points down, in normals up: a clockwise turn of the cut-out turns what it shows the other way.
    return torch.stack([x * cos - y * sin, x * sin + y * cos, z], 1)


def random_crops(images: TrainingImages, settings: AugmentSettings, generator: torch.Generator) -> Crops:
    """Cut-outs somewhere around the middle of the pictures."""
    count, side = len(images), float(images.colors.shape[-1])
    centers = side * (0.5 + uniform(generator, (count, 2), -settings.shift, settings.shift))
    scales = torch.exp(uniform(generator, (count,), math.log(settings.smallest), math.log(settings.largest)))
    turn = math.radians(settings.turn_degrees)
    return Crops(centers, side * scales, uniform(generator, (count,), -turn, turn))


def random_backgrounds(count: int, size: int, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Backgrounds [B, 3, size, size]: white, a colour, a gradient between two colours, or clutter of many."""
    first, second = (torch.rand((count, 3, 1, 1), generator=generator) for _ in range(2))
    angle = uniform(generator, (count, 1, 1), 0, 2 * math.pi)
    steps = torch.linspace(-0.5, 0.5, size)
    ramp = (0.5 + torch.cos(angle) * steps + torch.sin(angle) * steps[:, None])[:, None].clamp(0, 1)
    kind = torch.rand((count, 1, 1, 1), generator=generator)
    plain = kind < 0.5 + settings.white_share / 2
    cluttered = kind > 0.75 + settings.white_share / 4
    ramp = torch.where(cluttered, _clutter(count, size, generator), ramp)
    colors = torch.where(plain, first.expand(-1, -1, size, size), first + (second - first) * ramp)
    return torch.where(kind < settings.white_share, torch.ones_like(colors), colors)


def _clutter(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Patches [B, 3, size, size] in 0..1 of two sizes with hard and soft borders, of each colour by itself."""
    total = torch.zeros(count, 3, size, size)
    for cells, mode in ((5, "nearest"), (11, "bilinear")):
        draws = torch.rand((count, 3, min(cells, size), min(cells, size)), generator=generator)
        total += 0.5 * torch.nn.functional.interpolate(draws, size=(size, size), mode=mode)
    return total


def change_light(colors: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Other exposure, contrast, saturation and colour gains [B, 3, H, W]; the background changes with the subject."""
    count = len(colors)
    draws = uniform(generator, (count, 6, 1, 1), -amount, amount)
    gains = (1 + draws[:, 0:1]) * (1 + 0.4 * draws[:, 1:4])
    colors = colors * gains
    colors = (colors - 0.5) * (1 + draws[:, 4:5]) + 0.5
    gray = colors.mean(dim=1, keepdim=True)
    return (gray + (colors - gray) * (1 + draws[:, 5:6])).clamp(0, 1)


def degrade(
    colors: Tensor, settings: AugmentSettings, generator: torch.Generator, enlarged: Tensor | None = None
) -> Tensor:
    """Blur, loss of resolution and grain of pictures [B, 3, H, W], each for a share of them.

    enlarged: [B], how many times larger than others they show their subject; what is blurred there is as much larger.
    """
    draws = torch.rand((len(colors), 6), generator=generator)
    scales = [1.0] * len(colors) if enlarged is None else enlarged.tolist()
    out = []
    for index, (draw, scale) in enumerate(zip(draws.tolist(), scales, strict=True)):
        image = colors[index : index + 1]
        if draw[0] < settings.blur_share:
            image = blurred(image, scale * (0.3 + draw[1] ** 2 * (settings.blur_pixels - 0.3)))
        if draw[2] < settings.resample_share:
            image = _resampled(image, scale * (1 + draw[3] * (settings.resample_factor - 1)))
        if draw[4] < settings.noise_share:
            noise = torch.randn(image.shape, generator=generator)
            # Half of the grain is coarse, as where a volume is sampled too thinly.
            noise = blurred(noise, 0.8) * 2.5 if draw[5] > 0.5 else noise
            image = image + settings.noise * (2 * draw[5] % 1) * noise
        out.append(image)
    return torch.cat(out).clamp(0, 1)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [1, C, H, W] with its border repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    steps = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-(steps**2) / (2 * sigma * sigma))
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1)
    padded = torch.nn.functional.pad(image, [radius] * 4, mode="replicate")
    padded = torch.nn.functional.conv2d(padded, kernel[:, :, None], groups=image.shape[1])
    return torch.nn.functional.conv2d(padded, kernel[:, :, :, None], groups=image.shape[1])


def _resampled(image: Tensor, factor: float) -> Tensor:
    """Shrunk by a factor and enlarged to its old size."""
    size = [max(8, round(side / factor)) for side in image.shape[-2:]]
    small = torch.nn.functional.interpolate(image, size=size, mode="bilinear", antialias=True)
    return torch.nn.functional.interpolate(small, size=list(image.shape[-2:]), mode="bilinear")
