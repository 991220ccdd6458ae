"""The avatar: Gaussians bound to a body's triangles, from their first shape to the trained, saved and posed thing.

Here: `RiggedAvatar`, initialization, posing, regularisers, densification, the avatar file. Not
here: the loop that trains it (`optimization`), other file formats (`export`), motion (`animation`).
"""

from .densify import DensifySettings
from .initialize import InitializeSettings, initialize_avatar
from .io import load_avatar, save_avatar
from .model import RiggedAvatar, body_frames, pose_gaussians
from .regularize import RegularizerSettings
from .rendering import in_random_colors, render_avatar_views, render_motion_views
from .rig import AvatarRig, pose_avatar, resting_in

__all__ = [
    "AvatarRig",
    "DensifySettings",
    "InitializeSettings",
    "RegularizerSettings",
    "RiggedAvatar",
    "body_frames",
    "in_random_colors",
    "initialize_avatar",
    "load_avatar",
    "pose_avatar",
    "pose_gaussians",
    "render_avatar_views",
    "render_motion_views",
    "resting_in",
    "save_avatar",
]
