"""Labels of views: for every pixel one of our classes, how sure it is, and whether somebody painted it by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite, check_shape
from ..parts import PART_CLASSES
from ..progress import may_stop
from ..socket_values import SocketValue
from .label_sets import LABEL_SETS, our_classes

SCHEMA_VERSION = 1

CLASS_COLORS = torch.tensor(
    [
        [1.00, 1.00, 1.00],  # background
        [0.93, 0.78, 0.66],  # face
        [0.84, 0.37, 0.30],  # hair
        [0.26, 0.47, 0.71],  # clothes
        [0.35, 0.70, 0.67],  # eyes
        [0.80, 0.36, 0.55],  # lips
        [0.45, 0.16, 0.16],  # mouth
    ]
)
"""Colours [C, 3] of `PART_CLASSES` in pictures."""

COLOR_TOLERANCE = 0.1
"""How far, per channel, a painted pixel may be from its class colour: JPEG and resampling move colours a little."""

STRAY_SHARE = 0.02
"""Share of pixels of no class colour (blended borders) up to which a picture still counts as one of class colours."""


@dataclasses.dataclass(frozen=True)
class ViewLabels(SocketValue):
    """Class labels of B views.

    labels: [B, H, W] uint8, positions in `classes`.  classes: names out of `PART_CLASSES`, in any order, with
    'background'.  confidence: [B, H, W] float32 in 0..1, how much the pixel counts; None is 1 everywhere.  painted:
    [B, H, W] bool, pixels that were corrected by hand and overrule every other view; None is nowhere.  beneath:
    [B, H, W] uint8 and hair_mask: [B, H, W] bool, after `with_hair`: what the part labels said by themselves, and where
    the separate mask sees hair; None without one.
    """

    labels: Tensor
    classes: tuple[str, ...] = PART_CLASSES
    confidence: Tensor | None = None
    painted: Tensor | None = None
    beneath: Tensor | None = None
    hair_mask: Tensor | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_shape("ViewLabels", "labels", self.labels, ["B", "H", "W"])
        shape = list(self.labels.shape)
        if self.labels.dtype != torch.uint8:
            raise InvalidInput(f"ViewLabels: `labels` has type {self.labels.dtype}, expected torch.uint8.")
        unknown = [name for name in self.classes if name not in PART_CLASSES]
        if unknown or "background" not in self.classes or len(set(self.classes)) != len(self.classes):
            raise InvalidInput(
                f"ViewLabels: classes are {list(self.classes)}, expected different names out of {list(PART_CLASSES)}, "
                "'background' among them; `labels_from_numbers` translates the classes of other label sets."
            )
        if self.labels.numel() and int(self.labels.max()) >= len(self.classes):
            raise InvalidInput(
                f"ViewLabels: labels go up to {int(self.labels.max())}, but there are {len(self.classes)} classes "
                f"(0 to {len(self.classes) - 1}): {list(self.classes)}."
            )
        if self.confidence is not None:
            check_shape("ViewLabels", "confidence", self.confidence, shape)
            check_finite("ViewLabels", "confidence", self.confidence)
            if self.confidence.numel() and not 0 <= float(self.confidence.min()) <= float(self.confidence.max()) <= 1:
                raise InvalidInput(
                    f"ViewLabels: confidence lies in {float(self.confidence.min()):.3g} to "
                    f"{float(self.confidence.max()):.3g}, expected 0 to 1."
                )
        for name in ("painted", "beneath", "hair_mask"):
            if getattr(self, name) is not None:
                check_shape("ViewLabels", name, getattr(self, name), shape)

    def __len__(self) -> int:
        return len(self.labels)

    def of_view(self, view: int) -> ViewLabels:
        """The labels of one view, as a batch of one."""
        maps = ("labels", "confidence", "painted", "beneath", "hair_mask")
        chosen = {name: getattr(self, name)[view : view + 1] for name in maps if getattr(self, name) is not None}
        return dataclasses.replace(self, **chosen)

    def mask(self, name: str) -> Tensor:
        """Mask [B, H, W] bool of the pixels of a class; of a class that these labels do not have: nothing."""
        if name not in self.classes:
            return torch.zeros_like(self.labels, dtype=torch.bool)
        return self.labels == self.classes.index(name)

    def shares(self) -> dict[str, float]:
        """Share of the foreground's pixels by class name, the background's left out; zeros if there is none."""
        foreground = max(int((~self.mask("background")).sum()), 1)
        return {name: int(self.mask(name).sum()) / foreground for name in PART_CLASSES[1:]}


def labels_from_numbers(
    numbers: Tensor, names: Sequence[str], where: str = "labels_from_numbers", confidence: Tensor | None = None
) -> ViewLabels:
    """Labels of whole numbers [B, H, W] that count in the class list `names` of any known label set.

    Raises `InvalidInput` for unknown class names, and for numbers that the class list does not have.
    """
    check_shape(where, "numbers", numbers, ["B", "H", "W"])
    ours = our_classes(where, names)
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(names):
        outside = (numbers < 0) | (numbers >= len(names))
        fitting = [name for name, classes in LABEL_SETS.items() if len(classes) > int(numbers.max())]
        raise InvalidInput(
            f"{where}: label numbers lie in {int(numbers.min())} to {int(numbers.max())}, expected 0 to "
            f"{len(names) - 1} for the {len(names)} classes {list(names)}; {int(outside.sum())} pixels lie outside. "
            f"Label sets with room for them: {fitting or 'none'}."
        )
    table = torch.tensor([PART_CLASSES.index(name) for name in ours], dtype=torch.uint8)
    return ViewLabels(table[numbers.long()], PART_CLASSES, confidence)


def labels_from_image(images: Tensor, label_set: str, where: str = "labels_from_image") -> ViewLabels:
    """Labels that arrive as pictures [B, H, W, 3 or 4] in 0..1.

    label_set: a name of `LABEL_SETS`: the picture is grey, with the label number in 8 bits (number / 255); or 'class
    colours': the colours in which our nodes show labels, also after somebody painted over them.
    """
    check_shape(where, "images", images, ["B", "H", "W", "C"])
    check_finite(where, "images", images)
    colors = images[..., :3]
    if label_set == "class colours":
        return ViewLabels(_nearest_class(where, colors))
    if label_set not in LABEL_SETS:
        raise InvalidInput(f"{where}: label set '{label_set}', expected 'class colours' or one of {list(LABEL_SETS)}.")
    spread = float((colors.amax(-1) - colors.amin(-1)).max())
    if spread > 1.5 / 255:
        raise InvalidInput(
            f"{where}: the channels of the label picture differ by up to {255 * spread:.0f} of 255, expected a grey "
            "picture of label numbers; choose 'class colours', or save the numbers and not a coloured preview."
        )
    return labels_from_numbers((255 * colors[..., 0]).round().long(), LABEL_SETS[label_set], where)


def _nearest_class(where: str, colors: Tensor) -> Tensor:
    """Class [B, H, W] uint8 of the nearest class colour; refused where many pixels have no class colour."""
    distances = torch.stack([(colors - color).abs().amax(-1) for color in CLASS_COLORS.to(colors)])
    nearest = distances.min(dim=0)
    stray = float((nearest.values > COLOR_TOLERANCE).float().mean())
    if stray > STRAY_SHARE:
        raise InvalidInput(
            f"{where}: {100 * stray:.0f} % of the pixels have none of the class colours "
            f"{dict(zip(PART_CLASSES, (255 * CLASS_COLORS).round().int().tolist()))}; choose the label set of the "
            "picture, or switch off smoothing when it is painted and resized."
        )
    return nearest.indices.to(torch.uint8)


def labels_from_probabilities(
    probabilities: Tensor, names: Sequence[str], where: str = "labels_from_probabilities"
) -> ViewLabels:
    """Labels and their confidence from a network's probabilities [B, H, W, C], which sum to one over its C classes.

    Classes of the network that mean the same of ours are added up before the most probable one is taken.
    """
    check_shape(where, "probabilities", probabilities, ["B", "H", "W", len(names)])
    check_finite(where, "probabilities", probabilities)
    ours = our_classes(where, names)
    total = torch.zeros(*probabilities.shape[:3], len(PART_CLASSES))
    for index, name in enumerate(ours):
        may_stop()
        total[..., PART_CLASSES.index(name)] += probabilities[..., index].float()
    best = total.max(dim=-1)
    return ViewLabels(best.indices.to(torch.uint8), PART_CLASSES, best.values.clamp(0, 1))


def with_hair(labels: ViewLabels, hair: Tensor) -> ViewLabels:
    """The labels with the hair of a separate hair network or painted mask [B, H, W] in 0..1 (paper, section 3.1).

    Hair is where the mask is at least one half. Hair of the part labels outside of it is doubtful and does not vote.
    What both say is kept, for votes that count them apart.
    """
    check_shape("with_hair", "hair", hair, list(labels.labels.shape))
    check_finite("with_hair", "hair", hair)
    if "hair" not in labels.classes:
        raise InvalidInput(f"with_hair: the labels have no class 'hair', only {list(labels.classes)}.")
    index = labels.classes.index("hair")
    is_hair = hair >= 0.5
    doubtful = (labels.labels == index) & ~is_hair
    confidence = torch.ones(labels.labels.shape) if labels.confidence is None else labels.confidence
    own = torch.where(is_hair, hair.clamp(0, 1).float(), confidence)
    return dataclasses.replace(
        labels,
        labels=torch.where(is_hair, torch.tensor(index, dtype=torch.uint8), labels.labels),
        confidence=torch.where(doubtful, torch.zeros_like(own), own),
        beneath=labels.labels,
        hair_mask=is_hair,
    )
