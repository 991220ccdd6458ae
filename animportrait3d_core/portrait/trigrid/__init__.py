"""Portrait3D's static portraits: a pyramid of trigrids with a small decoder, volume-rendered.

Here: the portrait as a value, its files (the official pickles are read without running anything in them), the reference
renderer in torch, the fast one in Numba, density grids, and the fitter that makes a portrait of posed pictures. Not
here: other kinds of portrait, marching cubes (`surface`), the embedded identities. Modules that need Numba (`fast`,
`fit`) are not imported with the package.
"""

from .data import Decoder, ToRgb, Trigrids, constant_background
from .density import (
    DensityGrid,
    NormalImage,
    density_grid,
    density_normals,
    query_density,
    render_normals,
)
from .files import carries_decoder, load_trigrid_portrait, save_trigrid_portrait
from .generator import Generator, read_generator, save_generator
from .march import RaySamples
from .portrait import TrigridPortrait
from .render import TrigridImage, render_background, render_trigrid, to_uint8
from .settings import SAMPLING_PRESETS, FieldSettings, TrigridRenderSettings
from .surface import surface_colors, trigrid_mesh

__all__ = [
    "SAMPLING_PRESETS",
    "Decoder",
    "DensityGrid",
    "FieldSettings",
    "Generator",
    "NormalImage",
    "RaySamples",
    "TrigridRenderSettings",
    "ToRgb",
    "TrigridImage",
    "TrigridPortrait",
    "Trigrids",
    "carries_decoder",
    "constant_background",
    "density_grid",
    "density_normals",
    "load_trigrid_portrait",
    "query_density",
    "read_generator",
    "render_background",
    "render_normals",
    "render_trigrid",
    "save_generator",
    "save_trigrid_portrait",
    "surface_colors",
    "to_uint8",
    "trigrid_mesh",
]
