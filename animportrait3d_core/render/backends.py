"""What a back-end needs to run here, and which one a call takes."""

from __future__ import annotations

import importlib.util
import logging
import threading
from typing import NamedTuple

import torch

from ..errors import InvalidInput, MissingExtension

logger = logging.getLogger("animportrait3d.render")

NUMBA_HINT = "pip install numba"
GSPLAT_HINT = "pip install 'gsplat>=1.5' (it compiles CUDA code on first use, with nvcc and a C++ compiler)"
NVDIFFRAST_HINT = "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast (needs nvcc)"

_told: set[str] = set()
_told_lock = threading.Lock()


class Backend(NamedTuple):
    """One line of `available_backends`.

    name: "gaussians/numba" and the like. usable: it can run on this machine. verified: this project's conformance suite
    has passed on it. reason: why not usable or not verified, and what to do; empty otherwise.
    """

    name: str
    usable: bool
    verified: bool
    reason: str


def tell_once(key: str, message: str) -> None:
    """Logs a warning the first time that `key` is seen in this process."""
    with _told_lock:
        if key in _told:
            return
        _told.add(key)
    logger.warning(message)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def numba_problem() -> str:
    """Why Numba cannot be used here; empty if it can."""
    return "" if _installed("numba") else f"Numba is not installed ({NUMBA_HINT})"


def cuda_problem(package: str, hint: str) -> str:
    """Why a CUDA package cannot be used here; empty if it is installed and torch sees a GPU."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA GPU"
    return "" if _installed(package) else f"{package} is not installed: {hint}"


def choose_backend(kind: str, requested: str, device: torch.device, dtype: torch.dtype) -> str:
    """The back-end's short name for a call of `kind` ("gaussians" or "mesh").

    "auto" takes gsplat for Gaussians on a GPU, Numba otherwise, and torch for float64 or where Numba is missing.
    Raises `InvalidInput` for an unknown name and `MissingExtension` for one that cannot run here.
    """
    where = f"rasterize_{kind}"
    problems = {"numba": numba_problem(), "torch": ""}
    if kind == "gaussians":
        problems["gsplat"] = cuda_problem("gsplat", GSPLAT_HINT)
    else:
        problems["nvdiffrast"] = cuda_problem("nvdiffrast", NVDIFFRAST_HINT)
    if requested != "auto":
        if requested not in problems:
            raise InvalidInput(f"{where}: unknown backend {requested!r}; choose one of auto, {', '.join(problems)}.")
        if problems[requested]:
            raise MissingExtension(f"{where}: backend {requested!r} cannot run: {problems[requested]}. Use 'auto'.")
        return requested
    if dtype == torch.float64:
        return "torch"
    if kind == "gaussians" and device.type == "cuda":
        if not problems["gsplat"]:
            return "gsplat"
        tell_once("gsplat", f"{where}: {problems['gsplat']}; rendering on the CPU instead.")
    if problems["numba"]:
        tell_once("numba", f"{where}: {problems['numba']}; the torch back-end is used, about 13 times slower.")
        return "torch"
    return "numba"
