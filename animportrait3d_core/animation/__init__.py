"""Animation: motions of the body, what drives them, posing an avatar through them, and films.

Here: `Motion`, the stress clip, sliders and presets, motion files and face trackers (`files`, `arkit`), edits, cameras
that move, rendering of frames, films with their sound. Not here: other file formats of the avatar (`export`).
"""

from .clips import rest_motion, stress_clip
from .motion import Motion
from .rendering import four_view_cameras, front_cameras, over_background, render_motion, turntable_cameras
from .sound import Sound, sound_of_audio
from .video import write_film, write_png_frames

__all__ = [
    "Motion",
    "Sound",
    "four_view_cameras",
    "front_cameras",
    "over_background",
    "render_motion",
    "rest_motion",
    "sound_of_audio",
    "stress_clip",
    "turntable_cameras",
    "write_film",
    "write_png_frames",
]
