"""Samples of a data set as batches of pictures, and what the tasks of the 2D networks share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..fingerprints import fingerprint
from ..landmarks import NUM_FACE_LANDMARKS
from ..networks.files import ImageNetwork
from ..networks.predict import with_known
from ..parts import CLASS_OF_FIGURE_PART, PART_CLASSES
from .augment import TrainingImages
from .recipes import Recipe
from .shards import Sample, ShardDataset, decode_normals, decode_surface

MAPS = ("labels", "normals", "points")
"""What a sample has beside its picture and, in some data sets, its surface."""

IMAGE_MEAN, IMAGE_STD = 0.5, 0.5
"""Of each colour, as our networks want their pictures."""


@dataclasses.dataclass(frozen=True)
class Split:
    """What is trained on and what is held out, by persons."""

    training: ShardDataset
    held_out: ShardDataset


def split_dataset(dataset: ShardDataset, held_out_share: float) -> Split:
    """Training and held-out samples."""
    training, held_out = dataset.split(held_out_share)
    if not len(training) or not len(held_out):
        raise InvalidInput(
            f"split_dataset: {len(training)} samples for training and {len(held_out)} held out of {len(dataset)}, "
            "expected some of both; build a data set of more identities."
        )
    return Split(training, held_out)


def spread_rows(dataset: ShardDataset, limit: int | None) -> Tensor:
    """Rows [n] of at most `limit` samples, spread evenly over a data set."""
    count = len(dataset) if limit is None else min(limit, len(dataset))
    return torch.linspace(0, len(dataset) - 1, count).round().long()


def task_fingerprint(dataset: ShardDataset, recipe: Recipe) -> str:
    """Hash of what a resumed training must find again: data, model, size of pictures and augmentation."""
    shards = [(entry.file, entry.sha256) for entry in dataset.manifest.shards]
    parts = [recipe.role, shards, recipe.config, recipe.size, recipe.pixel_unshuffle, recipe.held_out_share]
    parts += [recipe.sees_normals, recipe.looks_closely]
    parts.append(dataclasses.asdict(recipe.augment))
    return fingerprint(parts)[:16]


def class_table(parts: tuple[str, ...]) -> Tensor:
    """Class number [len(parts)] uint8 of each part of a data set's label map."""
    unknown = [name for name in parts if name not in CLASS_OF_FIGURE_PART]
    if unknown:
        raise InvalidInput(
            f"class_table: unknown parts {unknown} in the data set, expected some of {list(CLASS_OF_FIGURE_PART)}."
        )
    return torch.tensor([PART_CLASSES.index(CLASS_OF_FIGURE_PART[name]) for name in parts], dtype=torch.uint8)


def load_images(dataset: ShardDataset, indices: Tensor, maps: Collection[str] = MAPS) -> TrainingImages:
    """Samples `indices` [B] as pictures premultiplied by alpha, with those of `MAPS` that are wanted.

    Labels are classes of `PART_CLASSES`, points the 68 landmarks. The surface comes along where the data set has it and
    `maps` names it.
    """
    samples = [dataset[index] for index in indices.tolist()]

    def images(name: str) -> Tensor:
        return torch.stack([getattr(sample, name) for sample in samples])

    alpha = images("alpha").float()[:, None] / 255
    over_white = images("rgb").permute(0, 3, 1, 2).float() / 255
    pictures = TrainingImages((over_white - (1 - alpha)).clamp_(0, 1), alpha)
    if "labels" in maps:
        labels = class_table(dataset.manifest.parts)[images("parts").long()]
        pictures = dataclasses.replace(pictures, labels=labels)
    if "normals" in maps:
        normals = decode_normals(images("normals")).permute(0, 3, 1, 2).contiguous()
        pictures = dataclasses.replace(pictures, normals=normals)
    if "surface" in maps:
        coded = [sample.surface for sample in samples if sample.surface is not None]
        surface = decode_surface(torch.stack(coded)).permute(0, 3, 1, 2)
        pictures = dataclasses.replace(pictures, surface=with_known(surface, 1))
    if "points" in maps:
        points, visible = _landmarks(samples)
        pictures = dataclasses.replace(pictures, points=points, visible=visible)
    return pictures


def labels_of(images: TrainingImages) -> Tensor:
    """Labels [B, H, W] of pictures that have them."""
    if images.labels is None:
        raise InvalidInput("labels_of: the pictures have no labels; load them with `load_images`.")
    return images.labels


def normals_of(images: TrainingImages) -> Tensor:
    """Normals [B, 3, H, W] of pictures that have them."""
    if images.normals is None:
        raise InvalidInput("normals_of: the pictures have no normals; load them with `load_images`.")
    return images.normals


def points_of(images: TrainingImages) -> tuple[Tensor, Tensor]:
    """Landmarks [B, 68, 2] and whether they are visible [B, 68], of pictures that have them."""
    if images.points is None or images.visible is None:
        raise InvalidInput("points_of: the pictures have no landmarks; load them with `load_images`.")
    return images.points, images.visible


def _landmarks(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    points = torch.stack([sample.landmarks[:NUM_FACE_LANDMARKS] for sample in samples])
    return points, torch.stack([sample.visible[:NUM_FACE_LANDMARKS] for sample in samples]).float()


def network_of(model: nn.Module, recipe: Recipe) -> ImageNetwork:
    """A model in training as the network that its folder will hold, so that both see pictures alike."""
    classes = PART_CLASSES if recipe.role == "parts" else ()
    channels = {"parts": len(PART_CLASSES), "normals": 3, "landmarks": NUM_FACE_LANDMARKS}[recipe.role]
    mean, std = torch.full((3,), IMAGE_MEAN), torch.full((3,), IMAGE_STD)
    return ImageNetwork(
        recipe.role, model, classes, tuple(range(channels)), recipe.size, mean, std, torch.device("cpu"),
        recipe.pixel_unshuffle, recipe.sees_normals, recipe.looks_closely,
    )  # fmt: skip
