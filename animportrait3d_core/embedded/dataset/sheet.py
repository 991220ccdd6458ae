"""A contact sheet of samples with all their maps side by side, to be looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInput
from ...files import atomic_write
from ...regions import IMAGE_REGIONS
from ...training.shards import Sample, ShardDataset

_PART_COLORS = torch.tensor(
    [
        [255, 255, 255], [237, 199, 168], [214, 94, 76], [66, 120, 181], [89, 178, 171], [247, 237, 153],
        [204, 92, 140], [115, 41, 41], [240, 160, 90], [60, 50, 60], [150, 220, 60],
    ],
    dtype=torch.uint8,
)  # fmt: skip
_CAPTION_HEIGHT = 26


def sample_tiles(sample: Sample) -> Tensor:
    """Picture, condition normals and labels, parts, normals, surface and landmarks of a sample side by side
    [S, n * S, 3] u8."""
    tiles = [sample.rgb]
    if sample.condition is not None:
        tiles += [sample.condition[..., :3], sample.condition[..., 3:].expand(-1, -1, 3)]
    tiles.append(_PART_COLORS[sample.parts.long()])
    tiles.append(torch.where(sample.alpha[..., None] > 0, sample.normals, 255))
    if sample.surface is not None:
        tiles.append(sample.surface)
    tiles.append(_with_landmarks(sample))
    return torch.cat(tiles, dim=1)


def _with_landmarks(sample: Sample) -> Tensor:
    """The picture at half strength with visible landmarks in green and hidden ones in red."""
    from PIL import Image, ImageDraw

    size = len(sample.rgb)
    picture = Image.fromarray((128 + sample.rgb // 2).numpy())
    pen, radius = ImageDraw.Draw(picture), max(1.0, size / 160)
    for (x, y), visible in zip(sample.landmarks.tolist(), sample.visible.tolist()):
        if -size < x < 2 * size and -size < y < 2 * size:
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(0, 160, 0) if visible else (220, 0, 0))
    return torch.from_numpy(np.array(picture))


def dataset_sheet(dataset: ShardDataset, path: str | Path, count: int = 24, columns: int = 2, start: int = 0) -> None:
    """Write a PNG or JPEG with `count` samples from `start` on, all maps and the prompt of each."""
    from PIL import Image, ImageDraw, ImageFont

    if count < 1 or start < 0 or start >= len(dataset):
        raise InvalidInput(f"dataset_sheet: {count} samples from {start} on, but the data set has {len(dataset)}.")
    samples = [dataset[k] for k in range(start, min(start + count, len(dataset)))]
    first = sample_tiles(samples[0])
    height, width = first.shape[0] + _CAPTION_HEIGHT, first.shape[1] + 8
    sheet = Image.new("RGB", (columns * width, -(-len(samples) // columns) * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for k, sample in enumerate(samples):
        x, y = k % columns * width, k // columns * height
        sheet.paste(Image.fromarray(sample_tiles(sample).numpy()), (x, y))
        traits = [name for k, name in enumerate(dataset.manifest.traits) if (sample.traits or 0) >> k & 1]
        caption = f"{IMAGE_REGIONS[sample.region]}, {sample.view_word}: {', '.join(traits) or sample.prompt}"
        room = width // 5
        pen.text((x + 2, y + first.shape[0]), caption[:room], fill="black", font=font)
        pen.text((x + 2, y + first.shape[0] + 12), caption[room : 2 * room], fill="black", font=font)
    with atomic_write(path) as temporary:
        sheet.save(temporary, quality=88)
