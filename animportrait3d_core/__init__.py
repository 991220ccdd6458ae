"""AnimPortrait3D: static 3D portraits become animatable 3D Gaussian avatars rigged to SMPL-X.

The method lives here and knows no host: nothing in this package imports ComfyUI or the pack's `nodes`. Importing it is
quick; torch, numba and the mesh libraries are imported by the modules that need them.
"""

from __future__ import annotations

__version__ = "0.1.0"
