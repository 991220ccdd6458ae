"""Square cut-outs of pictures at any place, size and angle; the same code for training and for prediction."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

_MAX_SAMPLES = 4  # per pixel and axis; beyond that the pictures are much larger than any network's input


@dataclasses.dataclass(frozen=True)
class Crops:
    """B squares in pictures, in pixels with centres at +0.5.

    centers: [B, 2] x, y.  sides: [B].  angles: [B] radians; the square is turned clockwise as one sees it.
    """

    centers: Tensor
    sides: Tensor
    angles: Tensor

    def __len__(self) -> int:
        return len(self.centers)

    @property
    def axes(self) -> Tensor:
        """[B, 2, 2]: the crop's x and y axes (columns), as long as its side, in the picture."""
        cos, sin = torch.cos(self.angles), torch.sin(self.angles)
        return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2) * self.sides[:, None, None]


def whole_images(batch: int, height: int, width: int) -> Crops:
    """The smallest squares that hold the whole pictures."""
    centers = torch.tensor([width / 2, height / 2]).repeat(batch, 1)
    return Crops(centers, torch.full((batch,), float(max(height, width))), torch.zeros(batch))


def points_to_crop(points: Tensor, crops: Crops, size: int) -> Tensor:
    """Picture pixels [B, N, 2] in pixels of crops of `size`."""
    offset = points - crops.centers[:, None]
    # The inverse of a scaled rotation is its transpose over the square of the scale.
    return (offset @ crops.axes / crops.sides[:, None, None] ** 2 + 0.5) * size


def points_from_crop(points: Tensor, crops: Crops, size: int) -> Tensor:
    """Pixels [B, N, 2] of the whole images of pixels [B, N, 2] of crops, the inverse of `points_to_crop`."""
    return (points / size - 0.5) @ crops.axes.transpose(1, 2) + crops.centers[:, None]


def cut_out(images: Tensor, crops: Crops, size: int, nearest: bool = False, border: bool = False) -> Tensor:
    """Crops [B, C, size, size] of pictures [B, C, H, W]; outside the pictures zero, or their border.

    Where a crop is made smaller, several samples are averaged per pixel, so that nothing aliases.
    """
    samples = torch.ceil(crops.sides / size - 0.25).clamp(1, 1 if nearest else _MAX_SAMPLES).long()
    out = images.new_empty(len(crops), images.shape[1], size, size)
    for count in samples.unique().tolist():
        chosen = samples == count
        some = Crops(crops.centers[chosen], crops.sides[chosen], crops.angles[chosen])
        out[chosen] = _cut_out(images[chosen], some, size, count, nearest, border)
    return out


def _cut_out(images: Tensor, crops: Crops, size: int, samples: int, nearest: bool, border: bool) -> Tensor:
    """As `cut_out`, with one number of samples per pixel and axis."""
    height, width = images.shape[-2:]
    fine = size * samples
    steps = (torch.arange(fine, dtype=images.dtype, device=images.device) + 0.5) / fine - 0.5
    unit = torch.stack([steps.expand(fine, fine), steps[:, None].expand(fine, fine)], -1).reshape(1, -1, 2)
    axes, centers = crops.axes.to(images), crops.centers.to(images)
    places = unit @ axes.transpose(1, 2) + centers[:, None]
    grid = (places * 2 / places.new_tensor([width, height]) - 1).reshape(len(crops), fine, fine, 2)
    cut = torch.nn.functional.grid_sample(
        images, grid, mode="nearest" if nearest else "bilinear", padding_mode="border" if border else "zeros",
        align_corners=False,
    )  # fmt: skip
    return torch.nn.functional.avg_pool2d(cut, samples) if samples > 1 else cut
