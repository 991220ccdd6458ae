"""ARKit-52: the shapes that face trackers speak of, a fitted map from them to any body, and tracks of them."""

from .fit import ArkitMap, arkit_map, fit_arkit, shape_errors
from .names import ARKIT_NAMES, ARKIT_REGIONS
from .pose import arkit_motion, arkit_parameters
from .track import ArkitTrack, TrackSettings, processed_track

__all__ = [
    "ARKIT_NAMES",
    "ARKIT_REGIONS",
    "ArkitMap",
    "ArkitTrack",
    "TrackSettings",
    "arkit_map",
    "arkit_motion",
    "arkit_parameters",
    "fit_arkit",
    "processed_track",
    "shape_errors",
]
