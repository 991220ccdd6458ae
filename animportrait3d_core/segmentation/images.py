"""Pictures of labels for nodes to show: flat class colours, and those laid over the views."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_shape
from ..parts import PART_CLASSES
from .labels import CLASS_COLORS, ViewLabels

PAINT_EDGE = (0.05, 0.05, 0.05)


def class_images(labels: ViewLabels) -> Tensor:
    """Pictures [B, H, W, 3] in class colours, which `labels_from_image` reads back, also when painted over."""
    table = torch.stack([CLASS_COLORS[PART_CLASSES.index(name)] for name in labels.classes])
    return table[labels.labels.long()]


def label_overlay(images: Tensor, labels: ViewLabels, strength: float = 0.6) -> Tensor:
    """Views' images [B, H', W', 3] with the class colours over them, at the labels' size; the background is kept.

    Doubtful labels are fainter; places painted by hand have a dark edge.
    """
    check_shape("label_overlay", "images", images, [len(labels), "H", "W", 3])
    height, width = labels.labels.shape[1:]
    resized = torch.nn.functional.interpolate(
        images.permute(0, 3, 1, 2), size=(height, width), mode="bilinear", align_corners=False
    ).permute(0, 2, 3, 1)
    weight = strength * (~labels.mask("background"))[..., None].float()
    if labels.confidence is not None:
        weight = weight * (0.3 + 0.7 * labels.confidence[..., None])
    blended = (1 - weight) * resized + weight * class_images(labels)
    if labels.painted is not None:
        inside = -torch.nn.functional.max_pool2d(-labels.painted[:, None].float(), 3, stride=1, padding=1)[:, 0]
        edge = labels.painted & (inside < 0.5)
        blended[edge] = blended.new_tensor(PAINT_EDGE)
    return blended.clamp(0, 1)
