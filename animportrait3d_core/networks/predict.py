"""Parts and normals of pictures, by networks that see the whole picture, both ways round, at their training's size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite, check_shape
from ..progress import Progress
from .files import ImageNetwork

_STRIDE = 32  # the encoders halve their pictures five times
_BATCH = 4


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


def model_input(network: ImageNetwork, images: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1 as the network's model wants them, on its device."""
    images = images.to(network.device, torch.float32)
    images = (images - network.mean[:, None, None]) / network.std[:, None, None]
    images = torch.nn.functional.pixel_unshuffle(images, network.pixel_unshuffle)
    return images.contiguous(memory_format=torch.channels_last)


def predict_maps(network: ImageNetwork, images: Tensor) -> Tensor:
    """Raw output [B, channels, H, W] on the CPU for a batch of images [B, H, W, 3] in 0..1.

    The longer side is scaled to the size of the training, missing rows and columns repeat the border. Answers of a
    coarser resolution are enlarged.
    """
    height, width = images.shape[1:3]
    scale = network.size / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    stride = _STRIDE * network.pixel_unshuffle
    resized = _resize(images.permute(0, 3, 1, 2), inner)
    padding = (0, -inner[1] % stride, 0, -inner[0] % stride)
    padded = torch.nn.functional.pad(resized, padding, mode="replicate") if any(padding) else resized
    with torch.no_grad():
        maps = network.maps(network.model(model_input(network, padded))).float().cpu()
    maps = _resize(maps, tuple(padded.shape[-2:]))[..., : inner[0], : inner[1]]
    return _resize(maps, (height, width))


def _both_ways(
    network: ImageNetwork,
    images: Tensor,
    read: Callable[[Tensor], Tensor],
    mirrored_signs: tuple[float, ...],
    progress: Progress | None,
) -> Tensor:
    """Mean [B, C, H, W] of what `read` makes of the raw maps of pictures and of their mirror images, turned back.

    The errors of the two are only partly the same.  mirrored_signs: [C] what a mirror does to the values of a channel.
    """
    signs = torch.tensor(mirrored_signs)[:, None, None]
    answers = []
    for start in range(0, len(images), _BATCH):
        pictures = images[start : start + _BATCH]
        upright, mirrored = (read(predict_maps(network, way)) for way in (pictures, pictures.flip(2)))
        answers.append((upright + signs * mirrored.flip(-1)) / 2)
        if progress is not None:
            progress(min(start + _BATCH, len(images)), len(images), None)
    return torch.cat(answers)


def segment_images(network: ImageNetwork, images: Tensor, progress: Progress | None = None) -> Tensor:
    """Probabilities [B, H, W, C] of the parts, C = `network.classes`, that sum to one.

    images: [B, H, W, 3] in 0..1, of any size; plain backgrounds of any colour.
    Raises `InvalidInput` for another role, wrong shapes, or values that are not finite.
    """
    check_images("segment_images", network, "parts", images)
    if not len(images):
        return images.new_zeros(*images.shape[:3], len(network.classes))
    classes = torch.tensor(network.channel_classes)

    def joined(maps: Tensor) -> Tensor:
        shares = maps.softmax(dim=1)
        return shares.new_zeros(len(maps), len(network.classes), *maps.shape[2:]).index_add_(1, classes, shares)

    same = (1.0,) * len(network.classes)
    return _both_ways(network, images, joined, same, progress).permute(0, 2, 3, 1).contiguous()


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
