"""Animation: motions of the body, what drives them, posing an avatar through them, and films.

Here: `Motion`, the stress clip, sliders and presets, motion files and face trackers (`files`, `arkit`), edits, cameras
that move, rendering of frames, mp4. Not here: other file formats of the avatar (`export`).
"""

from .clips import rest_motion, stress_clip
from .motion import Motion
from .rendering import front_cameras, render_motion, turntable_cameras
from .video import write_mp4

__all__ = [
    "Motion",
    "front_cameras",
    "render_motion",
    "rest_motion",
    "stress_clip",
    "turntable_cameras",
    "write_mp4",
]
