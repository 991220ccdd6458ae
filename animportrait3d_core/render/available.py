"""All back-ends of both rasterisers and whether they can run here, for people and health checks."""

from __future__ import annotations

from .backends import GSPLAT_HINT, NVDIFFRAST_HINT, Backend, cuda_problem, numba_problem
from .gsplat_gaussians import compile_extension

NVDIFFRAST_ROUNDS = "rounds corners to 1/16 pixel, so that 5 of the conformance suite's 19 tests fail"


def available_backends(compile_extensions: bool = False) -> list[Backend]:
    """All back-ends of both rasterisers in order of preference.

    Imports and compiles nothing unless `compile_extensions` is set: then gsplat's CUDA code is compiled if it can be
    (minutes, once), which is what a health check should do before anything long is started.
    """
    numba = numba_problem()
    gsplat = cuda_problem("gsplat", GSPLAT_HINT)
    if compile_extensions and not gsplat:
        gsplat = compile_extension()
    nvdiffrast = cuda_problem("nvdiffrast", NVDIFFRAST_HINT)
    licence = "Nvidia Source Code License: non-commercial use only, never chosen by itself"
    return [
        Backend("gaussians/gsplat", not gsplat, True, gsplat),
        Backend("gaussians/numba", not numba, True, numba),
        Backend("gaussians/torch", True, True, ""),
        Backend("mesh/numba", not numba, True, numba),
        Backend("mesh/torch", True, True, ""),
        Backend(
            "mesh/nvdiffrast", not nvdiffrast, False, "; ".join(filter(None, [nvdiffrast, NVDIFFRAST_ROUNDS, licence]))
        ),
    ]
