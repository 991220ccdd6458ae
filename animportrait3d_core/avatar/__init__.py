"""The avatar: Gaussians bound to a body's triangles, from their first shape to the trained, saved and posed thing.

Here: `RiggedAvatar`, initialization, posing, regularisers, densification, 3DGS training on views, the avatar file. Not
here: guidance by a diffusion model (`optimization`), other file formats (`export`), motion (`animation`).
"""

from .densify import DensifySettings
from .initialize import InitializeSettings, initialize_avatar
from .io import load_avatar, save_avatar
from .model import RiggedAvatar, body_frames, pose_avatar, pose_gaussians
from .regularize import RegularizerSettings
from .train import AvatarTrainer, TrainSettings, render_avatar_views, train_avatar

__all__ = [
    "AvatarTrainer",
    "DensifySettings",
    "InitializeSettings",
    "RegularizerSettings",
    "RiggedAvatar",
    "TrainSettings",
    "body_frames",
    "initialize_avatar",
    "load_avatar",
    "pose_avatar",
    "pose_gaussians",
    "render_avatar_views",
    "save_avatar",
    "train_avatar",
]
