"""What a ControlNet learns from: the samples of a data set as pictures, condition maps, words and draws.

Everything that is drawn depends on (seed, step, place in the step's batch) alone: however many processes share a batch,
and in however many parts they go through it, the samples and their noise are the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..randomness import generator_at, shuffled_rows
from .shards import Sample, ShardDataset


@dataclasses.dataclass(frozen=True)
class Dropout:
    """How often a sample is learned without its condition map (paper A1.5: 0.1), and without its words.

    Where the map is left out it is black, which no map is; where the words are left out they are the empty prompt.
    """

    condition: float = 0.1
    prompt: float = 0.1

    def __post_init__(self) -> None:
        for name, share in dataclasses.asdict(self).items():
            if not 0 <= share < 1:
                raise InvalidInput(f"Dropout: {name} {share}, expected at least 0 and less than 1.")


@dataclasses.dataclass(frozen=True)
class ControlNetBatch:
    """images: [n, S, S, 3] in 0..1.  condition: [n, 4, S, S] in 0..1.  prompts: n.  timesteps: [n] int64.  noise and
    codec_noise (of the autoencoder's posterior): [n, C, s, s].
    """

    images: Tensor
    condition: Tensor
    prompts: list[str]
    timesteps: Tensor
    noise: Tensor
    codec_noise: Tensor


class ControlNetData:
    """The batches of a training.

    size: side of the pictures that the base model wants.  latents: [C, s, s], of one picture.  num_timesteps: of the
    base's schedule.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        size: int,
        latents: tuple[int, int, int],
        num_timesteps: int,
        dropout: Dropout,
        seed: int,
    ) -> None:
        self.dataset, self.size, self.dropout, self.seed = dataset, size, dropout, seed
        self._latents, self._num_timesteps = latents, num_timesteps
        self.rows = balanced_rows(dataset.column("region"))

    def batch(self, step: int, batch_size: int, places: range) -> ControlNetBatch:
        """The samples at some places of the batch of a step."""
        rows = self.rows[shuffled_rows(len(self.rows), step * batch_size, batch_size, self.seed, "order")]
        samples = [self.dataset[int(rows[place])] for place in places]
        generators = [generator_at(self.seed, "sample", step, place) for place in places]
        draws = [self._draw(generator) for generator in generators]
        without_map = torch.stack([draw["shares"][0] < self.dropout.condition for draw in draws])
        without_words = [bool(draw["shares"][1] < self.dropout.prompt) for draw in draws]
        condition = condition_images(samples, self.size).permute(0, 3, 1, 2)
        return ControlNetBatch(
            true_images(samples, self.size),
            condition * (~without_map)[:, None, None, None],
            ["" if dropped else sample.prompt for dropped, sample in zip(without_words, samples)],
            *(torch.stack([draw[name] for draw in draws]) for name in ("timestep", "noise", "codec_noise")),
        )

    def _draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "shares": torch.rand(2, generator=generator),
            "timestep": torch.randint(self._num_timesteps, (), generator=generator),
            "noise": torch.randn(self._latents, generator=generator),
            "codec_noise": torch.randn(self._latents, generator=generator),
        }


def balanced_rows(regions: Tensor) -> Tensor:
    """Rows of samples in which all regions [n] that occur are equally frequent (paper A1.5: samples are repeated).

    Where they are so already, as in the data sets of `embedded build-dataset`, each row comes once.

    >>> balanced_rows(torch.tensor([0, 0, 0, 0, 2, 2])).tolist()
    [0, 1, 2, 3, 4, 4, 5, 5]
    """
    rows = [(regions == number).nonzero()[:, 0] for number in regions.unique().tolist()]
    most = max(len(found) for found in rows)
    return torch.cat([found[torch.arange(most) * len(found) // most] for found in rows])


def true_images(samples: list[Sample], size: int) -> Tensor:
    """Pictures [n, size, size, 3] in 0..1 of samples."""
    return _resized(torch.stack([sample.rgb for sample in samples]).float() / 255, size, smooth=True)


def condition_images(samples: list[Sample], size: int) -> Tensor:
    """Condition maps [n, size, size, 4] in 0..1 of samples. Labels are values of classes: they are never mixed."""
    stored: list[Any] = [sample.condition for sample in samples]
    maps = torch.stack(stored).float() / 255
    normals, label = _resized(maps[..., :3], size, smooth=True), _resized(maps[..., 3:], size, smooth=False)
    return torch.cat([normals, label], -1)


def _resized(images: Tensor, size: int, smooth: bool) -> Tensor:
    """Images [n, size, size, C] of images [n, S, S, C]."""
    if images.shape[1] == size:
        return images
    values = images.permute(0, 3, 1, 2)
    if smooth:
        values = interpolate(values, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    else:
        values = interpolate(values, size=(size, size), mode="nearest-exact")
    return values.permute(0, 2, 3, 1)


def data_fingerprint(dataset: ShardDataset) -> str:
    """Hash of the shards that a resumed training must find again."""
    return fingerprint([(entry.file, entry.sha256) for entry in dataset.manifest.shards])[:16]
