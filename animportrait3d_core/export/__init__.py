"""Export: the avatar in other programs' file formats.

Here: PLY, rigged (the authors' 65 columns) and plain, a PLY per frame, the animated PLY of CAP4D; GLB with skin, morph
targets, clips, a baked texture and the splats; the web page that is the avatar (`page/`: its scripts). Not here: the
avatar's own file (`avatar.io`), films (`animation`).
"""

from .animated_ply import read_animated_ply, write_animated_ply, write_frame_plys
from .glb import GlbReport, GlbSettings, baked_surface, write_avatar_glb
from .glb_reader import read_avatar_glb
from .html import PageReport, read_avatar_page, write_avatar_page
from .ply import (
    RIGGED_COLUMNS,
    read_rigged_ply,
    read_splat_ply,
    splat_columns,
    turned_about_x,
    write_rigged_ply,
    write_splat_ply,
)

__all__ = [
    "RIGGED_COLUMNS",
    "GlbReport",
    "GlbSettings",
    "PageReport",
    "baked_surface",
    "read_animated_ply",
    "read_avatar_glb",
    "read_avatar_page",
    "read_rigged_ply",
    "read_splat_ply",
    "splat_columns",
    "turned_about_x",
    "write_animated_ply",
    "write_avatar_glb",
    "write_avatar_page",
    "write_frame_plys",
    "write_rigged_ply",
    "write_splat_ply",
]
