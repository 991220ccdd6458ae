"""Mattes: other foreground masks for views, with the background composited once."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import InvalidInput, check_finite, check_shape
from ..views import Views

MIN_COVERAGE = 1 / 64
"""Below this coverage a pixel's own colour is too faint to be told from rounding."""


def straight_colors(views: Views) -> Tensor:
    """Colours [B, H, W, 3] of the foreground alone: the background is taken out where the mask is partial.

    Where the old mask holds next to nothing there is no foreground to take out, and the picture's colour stays.
    """
    coverage = views.masks[..., None]
    behind = views.background.to(views.images)
    own = (views.images - (1 - coverage) * behind) / coverage.clamp(min=MIN_COVERAGE)
    return torch.where(coverage >= MIN_COVERAGE, own, views.images).clamp(0, 1)


def matte_views(views: Views, masks: Tensor) -> Views:
    """The views with other masks [B, H, W] in 0..1, composited over the same background.

    The pictures are brought back to straight colours first: multiplying them with the new mask alone would lay the
    background over their borders a second time (the double alpha of the authors' pictures).
    """
    where = "matte_views"
    check_shape(where, "masks", masks, list(views.masks.shape))
    check_finite(where, "masks", masks)
    masks = masks.to(views.masks).clamp(0, 1)
    empty = [view for view in range(len(masks)) if float(masks[view].max()) < 0.5]
    if len(empty) == len(masks):
        raise InvalidInput(
            f"{where}: none of the {len(masks)} mattes has a foreground (largest value {float(masks.max()):.2f}, at "
            "least 0.5 is needed); check the masks, which are white on the person."
        )
    alpha = masks[..., None]
    images = straight_colors(views) * alpha + views.background.to(views.images) * (1 - alpha)
    return dataclasses.replace(views, images=images, masks=masks.clone())
