"""Rasterisers: 3D Gaussians and triangle meshes, differentiable, on the CPU with or without Numba, on CUDA if present.

Here live the two public functions, what belongs to them (interpolation, antialiasing, the choice of a back-end) and the
back-ends behind them. Nothing of the method: no avatars, bodies, losses. Imports only the nouns and the errors.
"""

from .antialias import antialias
from .available import available_backends
from .backends import Backend
from .gaussians import gaussian_device, rasterize_gaussians, render_gaussians
from .images import GaussianImage, MeshImage
from .mesh import interpolate, rasterize_mesh

__all__ = [
    "Backend",
    "GaussianImage",
    "MeshImage",
    "antialias",
    "available_backends",
    "gaussian_device",
    "interpolate",
    "rasterize_gaussians",
    "rasterize_mesh",
    "render_gaussians",
]
