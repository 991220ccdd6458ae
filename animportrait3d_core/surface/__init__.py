"""Surfaces: meshes of density grids, and their refinement.

Here: marching cubes with cleaning and smoothing. Not here: the fields that the densities come from (`portrait`),
rasterising (`render`), files of meshes (`mesh_files`).
"""

from .marching_cubes import (
    SurfaceSettings,
    clean_mesh,
    empty_border,
    mesh_from_density,
    roughness,
    smooth_mesh,
)

__all__ = ["SurfaceSettings", "clean_mesh", "empty_border", "mesh_from_density", "roughness", "smooth_mesh"]
