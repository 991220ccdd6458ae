"""Training of the networks for parts and normals: one answer per pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..networks.files import ImageNetwork
from ..networks.predict import estimate_normals, model_input, segment_images
from ..parts import PART_CLASSES
from ..regions import IMAGE_REGIONS
from .augment import (
    AugmentSettings,
    TrainingImages,
    change_light,
    composite,
    cut_images,
    degrade,
    flip,
    random_backgrounds,
    random_crops,
    unit_channels,
)
from .images import Split, labels_of, load_images, network_of, normals_of, split_dataset, spread_rows, task_fingerprint
from .inputs import LOOKS, shown_as, shown_by_chance
from .metrics import ConfusionCounts, angles_between
from .recipes import Recipe
from .shards import ShardDataset

_EVALUATION_BATCH = 8
_DICE_WEIGHT = 1.0


def augmented(
    images: TrainingImages, settings: AugmentSettings, size: int, generator: torch.Generator
) -> TrainingImages:
    """Random backgrounds, mirror, place, light and quality, at the network's size."""
    side = images.colors.shape[-1]
    images = composite(images, random_backgrounds(len(images), side, settings, generator))
    images = flip(images, torch.rand(len(images), generator=generator) < settings.flip_share)
    images = cut_images(images, random_crops(images, settings, generator), size)
    colors = degrade(change_light(images.colors, settings.light, generator), settings, generator)
    return dataclasses.replace(images, colors=colors)


def class_shares(labels: Tensor, classes: int, size: int) -> Tensor:
    """Share [B, classes, size, size] that each class has of each block of pixels of labels [B, S, S]."""
    factor = labels.shape[-1] // size
    planes = [(labels == index)[:, None].float() for index in range(classes)]
    return torch.cat([torch.nn.functional.avg_pool2d(plane, factor) for plane in planes], 1)


def dice_loss(probabilities: Tensor, truth: Tensor, smooth: float = 16.0) -> Tensor:
    """1 - mean over classes of 2 |A B| / (|A| + |B|), over the whole batch (V-Net, Milletari et al. 2016).

    probabilities, truth: [B, C, H, W].  smooth: pixels; a class that is absent costs nothing.
    """
    both = (probabilities * truth).sum(dim=(0, 2, 3))
    each = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    return 1 - ((2 * both + smooth) / (each + smooth)).mean()


class _DenseTask:
    """What parts and normals share: data, pictures, and evaluation by region."""

    role = ""
    metric = ""
    """The figure that stands for all."""
    maps: tuple[str, ...] = ()
    """What the role learns, of `MAPS`."""
    separable = False
    """The losses are means over all pixels, and the networks have BatchNorm."""

    def __init__(self, model: nn.Module, dataset: ShardDataset, recipe: Recipe, held_out_limit: int | None) -> None:
        self.model, self.recipe = model, recipe
        self.split: Split = split_dataset(dataset, recipe.held_out_share)
        self.network = network_of(model, recipe)
        self.fingerprint = task_fingerprint(dataset, recipe)
        self.held_out_limit = held_out_limit

    def __len__(self) -> int:
        return len(self.split.training)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Augmented pictures with their maps."""
        settings = self.recipe.augment
        images = load_images(self.split.training, indices, self._wanted)
        images = augmented(images, settings, self.recipe.size, generator)
        pixels = shown_by_chance(self.network, images, settings, generator)
        batch = {"pixels": model_input(self.network, pixels), "alpha": images.alpha}
        if images.labels is not None:
            batch["labels"] = images.labels.long()
        if images.normals is not None:
            batch["normals"] = images.normals
        return batch

    def _evaluated(self, model: nn.Module) -> ImageNetwork:
        return dataclasses.replace(self.network, model=model)

    @property
    def _wanted(self) -> tuple[str, ...]:
        return (*self.maps, "surface") if self.network.sees_normals else self.maps

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics by the pictures alone of what is held out of the people without traits."""
        return self.measure(model, self.split.held_out.of_trait(None))

    def measure(self, model: nn.Module, dataset: ShardDataset, look: str = LOOKS[0]) -> dict[str, float]:
        """Metrics on a data set, of which at most `held_out_limit` samples are taken; look: one of `LOOKS`."""
        raise NotImplementedError

    def spread_batches(self, dataset: ShardDataset) -> Iterator[tuple[TrainingImages, Tensor]]:
        """(pictures over white, region [B]) of a data set, at most `held_out_limit` samples spread evenly."""
        for indices in spread_rows(dataset, self.held_out_limit).split(_EVALUATION_BATCH):
            images = load_images(dataset, indices, self._wanted)
            yield composite(images, torch.ones(1, 3, 1, 1)), dataset.column("region")[indices]


class PartsTask(_DenseTask):
    """Cross-entropy plus Dice; the metric is mean IoU over the classes."""

    role, metric = "parts", "mean_iou"
    maps = ("labels",)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The two terms."""
        logs = self.network.maps(model(batch["pixels"])).float().log_softmax(1)
        truth = class_shares(batch["labels"], logs.shape[1], logs.shape[-1])
        entropy = -(truth * logs).sum(1).mean()
        return {"entropy": entropy, "dice": _DICE_WEIGHT * dice_loss(logs.exp(), truth)}

    def measure(self, model: nn.Module, dataset: ShardDataset, look: str = LOOKS[0]) -> dict[str, float]:
        """`mean_iou` of all samples, IoU of each class, and mean IoU by region."""
        whole = ConfusionCounts(len(PART_CLASSES))
        regions = [ConfusionCounts(len(PART_CLASSES)) for _ in IMAGE_REGIONS]
        network = self._evaluated(model)
        for images, region in self.spread_batches(dataset):
            colors, normals = shown_as(look, network, images)
            found = segment_images(network, colors, normals=normals).argmax(-1)
            labels = labels_of(images)
            whole.add(found, labels)
            for number, counts in enumerate(regions):
                counts.add(found[region == number], labels[region == number])
        metrics = {"mean_iou": whole.mean_iou()}
        metrics |= {f"iou_{name}": value for name, value in zip(PART_CLASSES, whole.iou().tolist(), strict=True)}
        by_region = zip(IMAGE_REGIONS, regions, strict=True)
        return metrics | {f"mean_iou_{name}": counts.mean_iou() for name, counts in by_region if counts.total}


class NormalsTask(_DenseTask):
    """Distance of unit normals; the metric is the mean angle in degrees."""

    role, metric = "normals", "mean_angle"
    maps = ("normals",)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """2 sin(angle / 2), which has a gradient also where the angle is small."""
        found = unit_channels(self.network.maps(model(batch["pixels"])).float())
        factor = batch["normals"].shape[-1] // found.shape[-1]
        inside = torch.nn.functional.avg_pool2d(batch["alpha"], factor)[:, 0] > 0.5
        # The mean of a block's normals is short where they disagree, and then says little.
        mean = torch.nn.functional.avg_pool2d(batch["normals"], factor)
        inside &= mean.square().sum(1) > 0.25
        distance = ((found - unit_channels(mean)).square().sum(1) + 1e-6).sqrt()
        return {"distance": (distance * inside).sum() / inside.sum().clamp_min(1)}

    def measure(self, model: nn.Module, dataset: ShardDataset, look: str = LOOKS[0]) -> dict[str, float]:
        """`mean_angle` over the pixels of all samples and by region, degrees."""
        angles, places = [], []
        for images, region in self.spread_batches(dataset):
            found = estimate_normals(self._evaluated(model), images.colors.permute(0, 2, 3, 1), images.alpha[:, 0])
            inside = images.alpha[:, 0] > 0.5
            truth = normals_of(images).permute(0, 2, 3, 1)
            angles.append(angles_between(found[inside], truth[inside]))
            places.append(region[:, None, None].expand_as(inside)[inside])
        degrees, place = torch.cat(angles), torch.cat(places)
        metrics = {"mean_angle": float(degrees.mean()), "median_angle": float(degrees.median())}
        by_region = {name: degrees[place == number] for number, name in enumerate(IMAGE_REGIONS)}
        return metrics | {f"mean_angle_{name}": float(part.mean()) for name, part in by_region.items() if len(part)}
