"""Export: the avatar in other programs' file formats.

Here: PLY, rigged (the authors' 65 columns) and plain. Not here: the avatar's own file (`avatar.io`), films
(`animation`).
"""

from .ply import RIGGED_COLUMNS, read_rigged_ply, splat_columns, turned_about_x, write_rigged_ply, write_splat_ply

__all__ = [
    "RIGGED_COLUMNS",
    "read_rigged_ply",
    "splat_columns",
    "turned_about_x",
    "write_rigged_ply",
    "write_splat_ply",
]
