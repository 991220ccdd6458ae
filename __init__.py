"""ComfyUI entry point of AnimPortrait3D: registers the nodes and names the web folder, nothing else.

Standard library only, so that ComfyUI starts as fast with the pack as without it: node modules import torch and
`animportrait3d_core` inside their functions.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The core package has one name everywhere. A second copy under ComfyUI's own module name for this folder would break
# isinstance() and except clauses. Appended, not inserted: ComfyUI's module `nodes` must stay the first of that name.
_PACK_FOLDER = str(Path(__file__).resolve().parent)
if _PACK_FOLDER not in sys.path:
    sys.path.append(_PACK_FOLDER)

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS  # noqa: E402  (needs the path above)

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
