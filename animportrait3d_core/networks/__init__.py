"""2D networks of the method: parts, normals and landmarks of pictures of people.

Here live their files (segmentation-models-pytorch's own folder format), the preparation of pictures and the prediction.
How networks are trained lives in `training`; what becomes of their answers in 3D lives in `segmentation`, `surface` and
`body`. Imports only nouns, files and errors of core; segmentation-models-pytorch is imported when a network is loaded.
"""

from ..parts import PART_CLASSES
from .files import ImageNetwork, build_model, load_network, save_network
from .landmarks import detect_landmarks
from .predict import estimate_normals, parts_matte, segment_images
from .roles import ROLES

__all__ = [
    "PART_CLASSES",
    "ROLES",
    "ImageNetwork",
    "build_model",
    "detect_landmarks",
    "estimate_normals",
    "load_network",
    "parts_matte",
    "save_network",
    "segment_images",
]
