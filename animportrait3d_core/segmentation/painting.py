"""Corrections by hand: masks painted over some of the views, the paper's remedy where the networks fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite, check_shape
from .labels import ViewLabels


def paint_labels(labels: ViewLabels, masks: Tensor, name: str, views: Sequence[int] | None = None) -> ViewLabels:
    """The labels with class `name` where masks [K, H, W] are at least one half, as corrections by hand.

    views: the K views that were painted, counted from 0; None: one mask per view. Painted pixels overrule every view
    that was not painted. Paint one class after the other; where masks overlap, the later one stays.
    """
    where = "paint_labels"
    batch, height, width = labels.labels.shape
    views = list(range(batch)) if views is None else list(views)
    if name not in labels.classes or name == "background":
        known = [known for known in labels.classes if known != "background"]
        raise InvalidInput(f"{where}: class '{name}', expected one of {known}: the surface has no background.")
    if len(set(views)) != len(views) or any(not 0 <= view < batch for view in views):
        raise InvalidInput(f"{where}: views {views}, expected different numbers from 0 to {batch - 1}.")
    if masks.ndim != 3 or len(masks) != len(views):
        raise InvalidInput(
            f"{where}: masks have shape {list(masks.shape)}, expected [{len(views)}, {height}, {width}]: one mask for "
            f"each of the views {views}."
        )
    check_finite(where, "masks", masks)
    masks = _fitted(where, masks, height, width)
    chosen = torch.zeros(labels.labels.shape, dtype=torch.bool)
    chosen[views] = masks >= 0.5
    if not bool(chosen.any()):
        raise InvalidInput(
            f"{where}: the masks are empty (largest value {float(masks.max()):.2f}, half is needed); paint the place "
            "that should be another class, or leave the mask unconnected."
        )
    index = torch.tensor(labels.classes.index(name), dtype=torch.uint8)
    painted = chosen if labels.painted is None else labels.painted | chosen
    confidence = labels.confidence
    if confidence is not None:
        confidence = torch.where(chosen, torch.ones_like(confidence), confidence)
    beneath, hair_mask = labels.beneath, labels.hair_mask
    if beneath is not None and hair_mask is not None:  # the hand overrules the part labels and the hair mask alike
        beneath = torch.where(chosen, index, beneath)
        hair_mask = (hair_mask & ~chosen) | (chosen & (name == "hair"))
    return dataclasses.replace(
        labels,
        labels=torch.where(chosen, index, labels.labels),
        painted=painted,
        confidence=confidence,
        beneath=beneath,
        hair_mask=hair_mask,
    )


def _fitted(where: str, masks: Tensor, height: int, width: int) -> Tensor:
    """Masks [K, H', W'] at the labels' size; other proportions are refused."""
    check_shape(where, "masks", masks, ["K", "H", "W"])
    old_height, old_width = masks.shape[1:]
    if (old_height, old_width) == (height, width):
        return masks
    if abs(old_width * height - old_height * width) > max(height, width, old_height, old_width):
        raise InvalidInput(
            f"{where}: masks are {old_width} x {old_height}, the labels {width} x {height}; paint over the pictures of "
            "the views, at their size or with the same proportions."
        )
    return torch.nn.functional.interpolate(masks[:, None].float(), size=(height, width), mode="nearest-exact")[:, 0]


def parse_view_indices(text: str, count: int, where: str = "parse_view_indices") -> list[int]:
    """View numbers in a text such as '0, 3-5': [0, 3, 4, 5]; an empty text means all `count` views.

    >>> parse_view_indices("0, 3-5", 24)
    [0, 3, 4, 5]
    """
    if not text.strip():
        return list(range(count))
    views: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.strip().partition("-")
        last = last or first
        if not (first.strip().isdigit() and last.strip().isdigit() and int(first) <= int(last)):
            raise InvalidInput(
                f"{where}: '{piece.strip()}' in '{text}' is no view number, expected numbers and ranges like '0, 3-5'."
            )
        views += range(int(first), int(last) + 1)
    outside = [view for view in views if view >= count]
    if outside or len(set(views)) != len(views):
        raise InvalidInput(
            f"{where}: views '{text}' mean {views}, expected different numbers from 0 to {count - 1} ({count} views)."
        )
    return views
