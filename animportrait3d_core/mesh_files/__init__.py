"""Mesh files: reading any GLB, glTF, OBJ, PLY, STL or OFF into one `Mesh`, and writing GLB, OBJ and PLY.

Here lives what knows file formats: checks before parsing, the parsing itself (trimesh), the merging of scenes with many
geometries and materials, cleaning, and the report of what was found. Geometry lives in `meshes`, questions to a surface
in `mesh_queries`, and nothing here knows what a head is.
"""

from __future__ import annotations

from .colors import display_colors, linear_colors
from .load import load_mesh, load_mesh_with_report
from .report import LoadSettings, MeshReport
from .save import save_mesh, texture_to_vertex_colors

__all__ = [
    "LoadSettings",
    "MeshReport",
    "display_colors",
    "linear_colors",
    "load_mesh",
    "load_mesh_with_report",
    "save_mesh",
    "texture_to_vertex_colors",
]
