"""Motion files: one reader per format, all behind `read_motion`; and the project's own, which is also written.

Formats: this project's safetensors, the authors' exp.npy and pose.npy, FLAME parameters of VHAP and GaussianAvatars
(one npz, or a folder with one per frame), ARKit shapes as CSV of Live Link Face or as JSON. Nothing in a file is run.
"""

from .own import MOTION_FORMAT, load_motion, save_motion
from .read import MOTION_SUFFIXES, LoadedMotion, ReadSettings, files_of_motion, read_motion

__all__ = [
    "MOTION_FORMAT",
    "MOTION_SUFFIXES",
    "LoadedMotion",
    "ReadSettings",
    "files_of_motion",
    "load_motion",
    "read_motion",
    "save_motion",
]
