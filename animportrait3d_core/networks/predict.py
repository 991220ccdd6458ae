"""Parts and normals of pictures, by networks that see the whole picture at the size of their training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite, check_shape
from .files import ImageNetwork

Progress = Callable[[int, int], None]
"""progress(done, total) after each batch of pictures; it may raise to cancel."""

_STRIDE = 32  # the encoders halve their pictures five times
_BATCH = 4


def check_pictures(where: str, network: ImageNetwork, role: str, images: Tensor) -> None:
    """Raise a named error unless the network has the role and images are finite [B, H, W, 3]."""
    if network.role != role:
        raise InvalidInput(f"{where}: the network is for '{network.role}', expected one for '{role}'.")
    check_shape(where, "images", images, ["B", "H", "W", 3])
    check_finite(where, "images", images)
    if min(images.shape[1:3]) < 8:
        raise InvalidInput(
            f"{where}: pictures of {images.shape[2]} x {images.shape[1]} pixels, expected at least 8 x 8."
        )


def model_input(network: ImageNetwork, pictures: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1 as the network's model wants them, on its device."""
    pictures = pictures.to(network.device, torch.float32)
    pictures = (pictures - network.mean[:, None, None]) / network.std[:, None, None]
    pictures = torch.nn.functional.pixel_unshuffle(pictures, network.pixel_unshuffle)
    return pictures.contiguous(memory_format=torch.channels_last)


def predict_maps(network: ImageNetwork, images: Tensor, progress: Progress | None = None) -> Tensor:
    """Raw output [B, channels, H, W] on the CPU for images [B, H, W, 3] in 0..1.

    The longer side is scaled to the size of the training, missing rows and columns repeat the border. Answers of a
    coarser resolution are enlarged.
    """
    height, width = images.shape[1:3]
    scale = network.size / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    stride = _STRIDE * network.pixel_unshuffle
    answers = []
    for start in range(0, len(images), _BATCH):
        pictures = images[start : start + _BATCH].permute(0, 3, 1, 2)
        resized = _resize(pictures, inner)
        padding = (0, -inner[1] % stride, 0, -inner[0] % stride)
        padded = torch.nn.functional.pad(resized, padding, mode="replicate") if any(padding) else resized
        with torch.no_grad():
            maps = network.maps(network.model(model_input(network, padded))).float().cpu()
        maps = _resize(maps, tuple(padded.shape[-2:]))[..., : inner[0], : inner[1]]
        answers.append(_resize(maps, (height, width)))
        if progress is not None:
            progress(min(start + _BATCH, len(images)), len(images))
    return torch.cat(answers)


def segment_images(network: ImageNetwork, images: Tensor, progress: Progress | None = None) -> Tensor:
    """Probabilities [B, H, W, C] of the parts, C = `network.classes`, that sum to one.

    images: [B, H, W, 3] in 0..1, of any size; plain backgrounds of any colour.
    Raises `InvalidInput` for another role, wrong shapes, or values that are not finite.
    """
    check_pictures("segment_images", network, "parts", images)
    if not len(images):
        return images.new_zeros(*images.shape[:3], len(network.classes))
    channels = predict_maps(network, images, progress).softmax(dim=1)
    joined = channels.new_zeros(len(images), len(network.classes), *images.shape[1:3])
    joined.index_add_(1, torch.tensor(network.channel_classes), channels)
    return joined.permute(0, 2, 3, 1).contiguous()


def parts_matte(network: ImageNetwork, probabilities: Tensor) -> Tensor:
    """Mattes [B, H, W]: what `segment_images` does not take for background."""
    return (1 - probabilities[..., network.classes.index("background")]).clamp(0, 1)


def estimate_normals(network: ImageNetwork, images: Tensor, masks: Tensor, progress: Progress | None = None) -> Tensor:
    """Unit normals [B, H, W, 3] in camera space (OpenGL: x right, y up, z towards the camera), 0 where masks are.

    images: [B, H, W, 3] in 0..1.  masks: [B, H, W], more than 0 where normals are wanted.
    Raises `InvalidInput` as `segment_images` does, `ShapeMismatch` for masks of another size.
    """
    check_pictures("estimate_normals", network, "normals", images)
    check_shape("estimate_normals", "masks", masks, list(images.shape[:3]))
    if not len(images):
        return torch.zeros_like(images)
    maps = predict_maps(network, images, progress)
    # A pixel for which the network has no opinion at all faces the camera, so that every normal is a unit vector.
    maps[:, 2] += 1e-6 * (maps.norm(dim=1) < 1e-6)
    unit = torch.nn.functional.normalize(maps, dim=1, eps=1e-12).permute(0, 2, 3, 1)
    return torch.where(masks[..., None] > 0, unit, torch.zeros_like(unit)).contiguous()


def _resize(pictures: Tensor, size: tuple[int, ...]) -> Tensor:
    """[B, C, H, W] at another size, averaged where it shrinks."""
    if tuple(pictures.shape[-2:]) == size:
        return pictures
    return torch.nn.functional.interpolate(
        pictures, size=list(size), mode="bilinear", align_corners=False, antialias=size[0] < pictures.shape[-2]
    )
