"""A judge of samples: a small network that finds sclera, iris, teeth and lips in crops of eyes and mouths.

It is trained on true renders, measures what a prior draws, and is not shipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...networks.files import build_model
from ...progress import Report
from ...regions import LABEL_IRIS, LABEL_SCLERA, LABEL_TEETH
from ...training.augment import AugmentSettings, degrade
from ...training.dense import dice_loss
from ...training.images import Split, split_dataset
from ...training.loop import LoopSettings, train
from ...training.metrics import ConfusionCounts
from ...training.shards import Sample, ShardDataset
from .codec_training import HELD_OUT_SHARE, data_fingerprint, spread_indices

CROP_CLASSES = ("other", "sclera", "iris", "teeth", "lips")
_CONFIG: dict[str, Any] = {
    "_model_class": "Unet", "encoder_name": "tu-resnet18", "encoder_depth": 4, "encoder_weights": None,
    "decoder_channels": [64, 48, 32, 16], "decoder_interpolation": "nearest", "in_channels": 3,
    "stem_type": "deep", "stem_width": 8, "channels": [24, 48, 64, 96], "layers": [1, 1, 1, 1],
    "classes": len(CROP_CLASSES),
}  # fmt: skip
_SOFTENED = AugmentSettings(blur_pixels=1.5, resample_factor=2.0)
"""Samples are softer and grainier than renders: the judge must not take that for another part."""
JUDGE_LOOP = LoopSettings(steps=2500, batch_size=16, lr=3e-3, precision="mixed", save_seconds=10)
_BATCH, _HELD_OUT_LIMIT = 32, 256
# Pixels are means of four samples: whatever is nearer to the label than to its neighbours counts as it.
_LEAST_EYEBALL, _LEAST_SCLERA, _LEAST_TEETH = LABEL_IRIS / 2, (LABEL_IRIS + LABEL_SCLERA) / 2, LABEL_TEETH / 2


def colors_of(samples: list[Sample]) -> Tensor:
    """Pictures [B, S, S, 3] in 0..1 over white."""
    return torch.stack([item.rgb for item in samples]).float() / 255


def label_channel(samples: list[Any]) -> Tensor:
    """The label channel [B, S, S] of the condition maps, in 0..1."""
    return torch.stack([item.condition for item in samples])[..., 3].float() / 255


def eyeballs_of(labels: Tensor) -> Tensor:
    """Where a label channel [B, S, S] of an eye crop shows sclera or iris, bool."""
    return labels > _LEAST_EYEBALL


def teeth_of(labels: Tensor) -> Tensor:
    """Where a label channel [B, S, S] of a mouth crop shows teeth, bool."""
    return labels > _LEAST_TEETH


def true_labels(samples: list[Sample], parts: tuple[str, ...]) -> Tensor:
    """Positions in CROP_CLASSES [B, S, S] int64 of rendered samples, what hair covers left out.

    parts: names of the data set's part map. It does not tell iris from sclera: the condition map does.
    """
    found = torch.stack([item.parts for item in samples])
    sclera = label_channel(samples) > _LEAST_SCLERA
    out = torch.zeros(found.shape, dtype=torch.int64)
    eyes = found == parts.index("eyes")
    out[eyes & sclera], out[eyes & ~sclera] = CROP_CLASSES.index("sclera"), CROP_CLASSES.index("iris")
    for name in ("teeth", "lips"):
        out[found == parts.index(name)] = CROP_CLASSES.index(name)
    return out


def find_labels(model: nn.Module, pictures: Tensor) -> Tensor:
    """What the judge sees in pictures [B, S, S, 3] in 0..1: positions in CROP_CLASSES [B, S, S] int64."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(_input(part)).argmax(1) for part in pictures.split(_BATCH)])


def _input(pictures: Tensor) -> Tensor:
    return (2 * pictures.permute(0, 3, 1, 2) - 1).contiguous(memory_format=torch.channels_last)


class JudgeTask:
    """A `TrainingTask`: cross-entropy plus Dice on crops of eyes and mouths; held-out IoU of each class."""

    separable = False

    def __init__(self, dataset: ShardDataset) -> None:
        self.model = build_model(_CONFIG)
        self.split: Split = split_dataset(dataset.of_region("eyes", "mouth"), HELD_OUT_SHARE)
        self.parts = dataset.manifest.parts
        self.fingerprint = data_fingerprint(dataset, _CONFIG, dataclasses.asdict(_SOFTENED))

    def __len__(self) -> int:
        return len(self.split.training)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Softened pictures with their labels."""
        samples = [self.split.training[index] for index in indices.tolist()]
        colors = degrade(colors_of(samples).permute(0, 3, 1, 2), _SOFTENED, generator)
        return {"colors": _input(colors.permute(0, 2, 3, 1)), "labels": true_labels(samples, self.parts)}

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The two terms."""
        logs = model(batch["colors"]).float().log_softmax(1)
        truth = nn.functional.one_hot(batch["labels"], len(CROP_CLASSES)).permute(0, 3, 1, 2).float()
        return {"entropy": -(truth * logs).sum(1).mean(), "dice": dice_loss(logs.exp(), truth)}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """IoU of each class."""
        counts = ConfusionCounts(len(CROP_CLASSES))
        for indices in spread_indices(len(self.split.held_out), _HELD_OUT_LIMIT).split(_BATCH):
            samples = [self.split.held_out[index] for index in indices.tolist()]
            counts.add(find_labels(model, colors_of(samples)), true_labels(samples, self.parts))
        return {f"iou_{name}": value for name, value in zip(CROP_CLASSES, counts.iou().tolist(), strict=True)}


def train_judge(
    dataset: ShardDataset, folder: Path, settings: LoopSettings = JUDGE_LOOP, report: Report | None = None
) -> tuple[nn.Module, dict[str, float]]:
    """(the judge of a data set, its held-out metrics); goes on where the folder's state stands."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        task = JudgeTask(dataset)
    result = train(task, settings, folder, resume=True, report=report)
    task.model.load_state_dict(result.weights)
    return task.model, result.metrics
