"""Parts and normals of pictures, by networks that see the whole picture, both ways round, at their training's size.

A network may look at the surface beside the picture: pixels then have seven channels, red, green, blue, the normal in
camera space, and 1 where there is one. Where there is none, all four are 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite, check_shape
from ..progress import Progress
from .files import COLOR_CHANNELS, SURFACE_CHANNELS, ImageNetwork

_STRIDE = 32  # the encoders halve their pictures five times
_BATCH = 4
_DARK = 0.15  # sum of red, green and blue
_ONE_COLOR = 0.02  # deviation of a colour's share; textured people reach 0.1 and more, untextured marble 0.012


def check_images(where: str, network: ImageNetwork, role: str, images: Tensor) -> None:
    """Raise a named error unless the network has the role and images are finite [B, H, W, 3]."""
    if network.role != role:
        raise InvalidInput(f"{where}: the network is for '{network.role}', expected one for '{role}'.")
    check_shape(where, "images", images, ["B", "H", "W", 3])
    check_finite(where, "images", images)
    if min(images.shape[1:3]) < 8:
        raise InvalidInput(
            f"{where}: pictures of {images.shape[2]} x {images.shape[1]} pixels, expected at least 8 x 8."
        )


def seen_pixels(where: str, network: ImageNetwork, images: Tensor, normals: Tensor | None) -> Tensor:
    """Pixels [B, H, W, C] that a network looks at, C its `input_channels`.

    images: [B, H, W, 3] in 0..1.  normals: [B, H, W, 3] unit in camera space, 0 where no surface is known, or None.
    A network that sees pictures alone leaves them out. Of a surface whose picture has one colour the network is shown
    the normals alone: the picture holds nothing but their shading, and networks believe pictures more than they should
    (docs/networks.md). Raises `ShapeMismatch` or `InvalidInput` for normals of another size or values that are not
    finite.
    """
    if normals is not None:
        check_shape(where, "normals", normals, list(images.shape))
        check_finite(where, "normals", normals)
    if not network.sees_normals:
        return images
    if normals is None:
        return torch.cat([images, images.new_zeros(*images.shape[:3], SURFACE_CHANNELS)], -1)
    surface = with_known(normals.to(images), -1)
    blank = network.mean.to(images).expand_as(images)
    images = torch.where(has_one_color(images, surface[..., -1] > 0)[:, None, None, None], blank, images)
    return torch.cat([images, surface], -1)


def has_one_color(images: Tensor, known: Tensor) -> Tensor:
    """Which pictures [B] show one colour in light and shade: the shares of red, green and blue are the same everywhere.

    images: [B, H, W, 3].  known: [B, H, W] bool, where the subject is. Darkness has no colour and is left out.
    """
    total = images.sum(-1, keepdim=True)
    weights = (known[..., None] & (total > _DARK)).to(images)
    shares, count = images / total.clamp_min(_DARK), weights.sum((1, 2), keepdim=True).clamp_min(1)
    mean = (weights * shares).sum((1, 2), keepdim=True) / count
    spread = ((weights * (shares - mean).square()).sum((1, 2), keepdim=True) / count).sqrt()
    return (spread.amax((1, 2, 3)) < _ONE_COLOR) & weights.flatten(1).any(1)


def with_known(normals: Tensor, axis: int) -> Tensor:
    """Normals, 3 along `axis`, with a fourth channel that is 1 where there is one and 0 where all three are 0."""
    return torch.cat([normals, (normals.square().sum(axis, keepdim=True) > 0.25).to(normals)], axis)


def mirror_signs(channels: int) -> Tensor:
    """What a mirror does to the values of each channel [channels] of a pixel: the normal's x changes its sign."""
    signs = torch.ones(channels)
    signs[COLOR_CHANNELS : COLOR_CHANNELS + 1] = -1.0
    return signs


def model_input(network: ImageNetwork, pixels: Tensor) -> Tensor:
    """Pixels [B, C, H, W] (`seen_pixels`, channels first) as the network's model wants them, on its device."""
    pixels = pixels.to(network.device, torch.float32)
    colors = (pixels[:, :COLOR_CHANNELS] - network.mean[:, None, None]) / network.std[:, None, None]
    if pixels.shape[1] > COLOR_CHANNELS:
        colors = torch.cat([colors, pixels[:, COLOR_CHANNELS:]], 1)
    colors = torch.nn.functional.pixel_unshuffle(colors, network.pixel_unshuffle)
    return colors.contiguous(memory_format=torch.channels_last)


def predict_maps(network: ImageNetwork, pixels: Tensor) -> Tensor:
    """Raw output [B, channels, H, W] on the CPU for a batch of `seen_pixels` [B, H, W, C].

    The longer side is scaled to the size of the training, missing rows and columns repeat the border. Answers of a
    coarser resolution are enlarged.
    """
    height, width = pixels.shape[1:3]
    scale = network.size / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    stride = _STRIDE * network.pixel_unshuffle
    resized = _resize(pixels.permute(0, 3, 1, 2), inner)
    padding = (0, -inner[1] % stride, 0, -inner[0] % stride)
    padded = torch.nn.functional.pad(resized, padding, mode="replicate") if any(padding) else resized
    with torch.no_grad():
        maps = network.maps(network.model(model_input(network, padded))).float().cpu()
    maps = _resize(maps, tuple(padded.shape[-2:]))[..., : inner[0], : inner[1]]
    return _resize(maps, (height, width))


def _both_ways(
    network: ImageNetwork,
    pixels: Tensor,
    read: Callable[[Tensor], Tensor],
    mirrored_signs: tuple[float, ...],
    progress: Progress | None,
) -> Tensor:
    """Mean [B, C, H, W] of what `read` makes of the raw maps of `seen_pixels` and of their mirror images, turned back.

    The errors of the two are only partly the same.  mirrored_signs: [C] what a mirror does to the values of a channel.
    """
    signs, of_pixels = torch.tensor(mirrored_signs)[:, None, None], mirror_signs(pixels.shape[-1])
    answers = []
    for start in range(0, len(pixels), _BATCH):
        some = pixels[start : start + _BATCH]
        upright, mirrored = (read(predict_maps(network, way)) for way in (some, some.flip(2) * of_pixels))
        answers.append((upright + signs * mirrored.flip(-1)) / 2)
        if progress is not None:
            progress(min(start + _BATCH, len(pixels)), len(pixels), None)
    return torch.cat(answers)


def segment_images(
    network: ImageNetwork, images: Tensor, progress: Progress | None = None, normals: Tensor | None = None
) -> Tensor:
    """Probabilities [B, H, W, C] of the parts, C = `network.classes`, that sum to one.

    images: [B, H, W, 3] in 0..1, of any size; plain backgrounds of any colour.  normals: [B, H, W, 3] of the surface
    that they show (`Views.normals`), for networks that see it.
    Raises `InvalidInput` for another role, wrong shapes, or values that are not finite.
    """
    check_images("segment_images", network, "parts", images)
    pixels = seen_pixels("segment_images", network, images, normals)
    if not len(images):
        return images.new_zeros(*images.shape[:3], len(network.classes))
    classes = torch.tensor(network.channel_classes)

    def joined(maps: Tensor) -> Tensor:
        shares = maps.softmax(dim=1)
        return shares.new_zeros(len(maps), len(network.classes), *maps.shape[2:]).index_add_(1, classes, shares)

    same = (1.0,) * len(network.classes)
    return _both_ways(network, pixels, joined, same, progress).permute(0, 2, 3, 1).contiguous()


def parts_matte(network: ImageNetwork, probabilities: Tensor) -> Tensor:
    """Mattes [B, H, W]: what `segment_images` does not take for background."""
    return (1 - probabilities[..., network.classes.index("background")]).clamp(0, 1)


def estimate_normals(network: ImageNetwork, images: Tensor, masks: Tensor, progress: Progress | None = None) -> Tensor:
    """Unit normals [B, H, W, 3] in camera space (OpenGL: x right, y up, z towards the camera), 0 where masks are.

    images: [B, H, W, 3] in 0..1.  masks: [B, H, W], more than 0 where normals are wanted.
    Raises `InvalidInput` as `segment_images` does, `ShapeMismatch` for masks of another size.
    """
    check_images("estimate_normals", network, "normals", images)
    check_shape("estimate_normals", "masks", masks, list(images.shape[:3]))
    if not len(images):
        return torch.zeros_like(images)
    mean = _both_ways(network, images, _unit, (-1.0, 1.0, 1.0), progress)
    unit = _unit(mean).permute(0, 2, 3, 1)
    return torch.where(masks[..., None] > 0, unit, torch.zeros_like(unit)).contiguous()


def _unit(maps: Tensor) -> Tensor:
    """Maps [B, 3, H, W] of unit length; where there is no opinion at all they face the camera."""
    towards = torch.tensor([0.0, 0.0, 1e-6])[:, None, None]
    maps = torch.where(maps.norm(dim=1, keepdim=True) < 1e-6, maps + towards, maps)
    return torch.nn.functional.normalize(maps, dim=1, eps=1e-12)


def _resize(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """[B, C, H, W] at another size, averaged where it shrinks."""
    if tuple(images.shape[-2:]) == size:
        return images
    return torch.nn.functional.interpolate(
        images, size=list(size), mode="bilinear", align_corners=False, antialias=size[0] < images.shape[-2]
    )
