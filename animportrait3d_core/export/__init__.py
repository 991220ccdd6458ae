"""Export: the avatar in other programs' file formats.

Here: PLY, rigged (the authors' 65 columns) and plain; the web page that is the avatar (`page/`: its scripts). Not here:
the avatar's own file (`avatar.io`), films (`animation`).
"""

from .html import PageReport, read_avatar_page, write_avatar_page
from .ply import RIGGED_COLUMNS, read_rigged_ply, splat_columns, write_rigged_ply, write_splat_ply

__all__ = [
    "RIGGED_COLUMNS",
    "PageReport",
    "read_avatar_page",
    "read_rigged_ply",
    "splat_columns",
    "write_avatar_page",
    "write_rigged_ply",
    "write_splat_ply",
]
