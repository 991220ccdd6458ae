"""How far an avatar has gone from its person's own look to another style, by the colours of its face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..progress import Progress
from .heldout import HeldOutFrame, held_out_frames
from .truth import TRUTH_REGIONS, frame_pairs

if TYPE_CHECKING:
    from ..avatar import RiggedAvatar
    from ..embedded.identities import Identity

STYLE_SIZE = 128
"""Of the pictures [pixels]: the size that styles are made for."""
Restyle = Callable[[Tensor, Tensor], Tensor]
"""Pictures [B, 3, H, W] in 0..1 and their alpha [B, 1, H, W] in another style."""


def color_statistics(images: Tensor, masks: Tensor) -> Tensor:
    """[2, 3]: mean and standard deviation of red, green and blue of pictures [B, 3, H, W] inside masks [B, H, W] bool.

    >>> images = torch.tensor([0.25, 0.75, 9.0]).expand(1, 3, 1, 3)
    >>> color_statistics(images, torch.tensor([[[True, True, False]]])).tolist()
    [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]
    """
    inside = images.permute(0, 2, 3, 1)[masks]
    return torch.stack([inside.mean(0), inside.std(0, correction=0)])


def style_share(found: Tensor, plain: Tensor, styled: Tensor) -> float:
    """Where statistics [2, 3] lie on the way from the plain ones (0) to the styled ones (1); beside the way, its foot.

    >>> plain, styled = torch.zeros(2, 3), torch.full((2, 3), 0.4)
    >>> style_share(torch.full((2, 3), 0.3), plain, styled)
    0.75
    """
    way = (styled - plain).double()
    return round(float(((found - plain).double() * way).sum() / way.square().sum()), 6)


def measure_style(
    avatar: RiggedAvatar,
    identity: Identity,
    restyle: Restyle,
    frames: Sequence[HeldOutFrame] | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """`style_share` of the face in the close held-out frames, and the distances of its colours to both ends.

    identity: the person behind the avatar's portrait.  frames: in place of the close ones of the held-out set.  Returns
    `style_share` (0: the person's own look, 1: the style), `color_error_plain` and `color_error_styled` (root mean
    square over mean and standard deviation of the three colours, in 0..1).
    """
    frames = [frame for frame in held_out_frames() if frame.close] if frames is None else frames
    pairs = list(frame_pairs(avatar, identity, None, frames, STYLE_SIZE, progress))
    shown, truth = (
        torch.stack([getattr(pair, name) for pair in pairs]).permute(0, 3, 1, 2) for name in ("image", "true_image")
    )
    faces = torch.stack([pair.regions[TRUTH_REGIONS.index("face")] for pair in pairs])
    styled = restyle(truth, faces[:, None].to(truth))
    found, plain, wanted = (color_statistics(images, faces) for images in (shown, truth, styled))
    return {
        "style_share": style_share(found, plain, wanted),
        "color_error_plain": float((found - plain).square().mean().sqrt()),
        "color_error_styled": float((found - wanted).square().mean().sqrt()),
    }
