"""The mannequin: a procedural bust in the file layout of SMPL-X, so that the method's own body code loads it.

Here live the sculpture (a signed distance function), the grid that samples it, the pieces of eyes, mouth and ears, the
rig, shape and expression directions, landmarks and regions. Colours, hair, clothes and rendering do not belong here.
Inside the package lengths are millimetres; `Mannequin` and everything public is in metres.
"""

from .body_files import code_version, mannequin_assets, mannequin_body_files, smplx_arrays
from .model import (
    Mannequin,
    build_mannequin,
    detail_rms,
    identity_skin_displacement,
    sample_parameters,
)
from .parameters import PARAMETER_NAMES, parameter_index

__all__ = [
    "PARAMETER_NAMES",
    "Mannequin",
    "build_mannequin",
    "code_version",
    "detail_rms",
    "identity_skin_displacement",
    "mannequin_assets",
    "mannequin_body_files",
    "parameter_index",
    "sample_parameters",
    "smplx_arrays",
]
