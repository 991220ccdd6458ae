"""Images of posed Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import Cameras
from ..gaussians import Gaussians
from ..render import render_gaussians
from ..views import Views


def render_avatar_views(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> Views:
    """Views of posed Gaussians over a colour [3], one camera at a time to keep memory flat."""
    with torch.no_grad():
        parts = [render_gaussians(gaussians, cameras[index], background=background) for index in range(len(cameras))]
    images = torch.cat([part.color for part in parts]).clamp(0, 1)
    return Views(images, torch.cat([part.alpha for part in parts]), cameras, background)
