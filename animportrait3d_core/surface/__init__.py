"""Surfaces: meshes of density grids, normals of views, the refinement of meshes by them, and their colours.

Here: marching cubes with cleaning and smoothing, camera-space normals, the optimisation of the paper's equation A2,
remeshing and decimation, the hash grid and the colour field on it. Not here: the fields that the densities come from
(`portrait`), networks that estimate normals (`networks`), rasterising (`render`), files of meshes (`mesh_files`).
"""

from .decimation import decimate
from .marching_cubes import (
    SurfaceSettings,
    clean_mesh,
    empty_border,
    mesh_from_density,
    roughness,
    smooth_mesh,
)
from .refine import RefinedMesh, refine_mesh
from .remesh import isotropic_remesh
from .settings import REFINE_PRESETS, RefineSettings
from .view_normals import ViewNormals, normal_images_of, normals_for_views, normals_from_images, world_normals

__all__ = [
    "REFINE_PRESETS",
    "RefineSettings",
    "RefinedMesh",
    "SurfaceSettings",
    "ViewNormals",
    "clean_mesh",
    "decimate",
    "empty_border",
    "isotropic_remesh",
    "mesh_from_density",
    "normal_images_of",
    "normals_from_images",
    "normals_for_views",
    "refine_mesh",
    "roughness",
    "smooth_mesh",
    "world_normals",
]
