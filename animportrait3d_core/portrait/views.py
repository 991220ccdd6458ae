"""Views of a portrait: its pictures from a set of cameras, rendered in chunks with progress."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput, check_shape
from ..progress import Progress
from ..views import Views
from .protocol import Portrait

CHUNK = 1
"""Portraits render one camera after the other anyhow; so whoever waits may stop after each."""


def render_views(
    portrait: Portrait,
    cameras: Cameras,
    background: Tensor | None = None,
    progress: Progress | None = None,
    chunk: int = CHUNK,
) -> Views:
    """The portrait from all cameras over a background colour [3] in 0..1 (white if None), with the depth of a mesh.

    Surfaces of volumes and splats are rippled and blurred: networks find less with them than without.

    progress: called as (cameras done, cameras in all, last picture [H, W, 3]) after each chunk of cameras; whatever it
    raises (cancellation) ends the rendering.  The chunk size changes memory and time, never the pictures.
    """
    if len(cameras) == 0:
        raise InvalidInput("render_views: there are 0 cameras, expected at least 1.")
    if chunk < 1:
        raise InvalidInput(f"render_views: chunk {chunk}, expected at least 1.")
    background = torch.ones(3) if background is None else background.float()
    check_shape("render_views", "background", background, [3])
    if not bool(((background >= 0) & (background <= 1)).all()):
        raise InvalidInput(f"render_views: background {background.tolist()} is outside of 0..1.")
    images, masks, depth = [], [], []
    has_surface = portrait.kind == "mesh"
    for start in range(0, len(cameras), chunk):
        image = portrait.render(cameras[start : start + chunk], background)
        images.append(image.images)
        masks.append(image.masks)
        if has_surface:  # where less than half is covered, its depth and that of what is behind it are mixed
            depth.append(torch.where(image.masks > 0.5, image.depth, 0.0))
        if progress is not None:
            progress(min(start + chunk, len(cameras)), len(cameras), image.images[-1])
    return Views(
        torch.cat(images), torch.cat(masks), cameras, background, depth=torch.cat(depth) if has_surface else None
    )
