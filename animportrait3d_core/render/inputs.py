"""What both rasterisers do to their arguments before looking at them."""

from __future__ import annotations

import torch

from ..cameras import Cameras
from ..errors import InvalidInput

Size = int | tuple[int, int] | None


def resize_cameras(where: str, cameras: Cameras, size: Size) -> Cameras:
    """Cameras at `size` = (width, height), or one int for a square image, or None for their own size."""
    if size is None:
        return cameras
    width, height = (size, size) if isinstance(size, int) else size
    if width < 1 or height < 1:
        raise InvalidInput(f"{where}: `size` is {width} x {height}, expected (width, height) of at least 1 x 1.")
    return cameras if (width, height) == (cameras.width, cameras.height) else cameras.resized(width, height)


def usable_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor [...] itself, or a plain copy of one made under inference mode, which autograd could not save."""
    return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor
