"""Compressed geometry of glTF files, decoded by the packages that can: DracoPy and meshoptimizer, if installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput, MissingExtension

DRACO = "KHR_draco_mesh_compression"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
COMPRESSIONS = (DRACO, *MESHOPT)


def _package(path: Path, name: str, extension: str) -> Any:
    """The module that decodes an extension; without it, what to do."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtension(
            f"load_mesh: '{path.name}' holds compressed geometry ({extension}), and the package that reads it is not "
            f"installed: pip install {name}. Or decompress the file: npx @gltf-transform/cli copy {path.name} plain.glb"
        ) from error


def decode_draco(path: Path, data: bytes, numbers: dict[str, int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Stored attributes [V, C] of a primitive by name and its indices [I]. numbers: of the attributes in the data."""
    mesh = _package(path, "DracoPy", DRACO).decode(data)
    if not hasattr(mesh, "faces"):
        raise InvalidInput(f"load_mesh: '{path.name}' holds Draco points without faces, expected triangles.")
    by_number = {int(entry["unique_id"]): np.asarray(entry["data"]) for entry in mesh.attributes}
    decoded = {name: by_number[number].reshape(len(mesh.points), -1) for name, number in numbers.items()}
    return decoded, np.asarray(mesh.faces).reshape(-1)


def meshopt_of(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The meshopt extension of a buffer or buffer view, of whichever of its two names."""
    extensions = entry.get("extensions", {})
    return next((extensions[name] for name in MESHOPT if name in extensions), None)


def decode_meshopt(path: Path, compressed: dict[str, Any], data: bytes) -> bytes:
    """The bytes of a compressed buffer view: `count` rows of `byteStride` bytes."""
    meshopt = _package(path, "meshoptimizer", MESHOPT[0])
    count, stride, mode = compressed["count"], compressed["byteStride"], compressed.get("mode", "ATTRIBUTES")
    if mode == "ATTRIBUTES":
        rows = meshopt.decode_vertex_buffer(count, stride, data, dtype=np.dtype((np.void, stride)))
        return _unfiltered(path, rows.tobytes(), compressed.get("filter", "NONE"), stride)
    decode = meshopt.decode_index_buffer if mode == "TRIANGLES" else meshopt.decode_index_sequence
    return decode(count, 4, data).astype("<u2" if stride == 2 else "<u4").tobytes()


def _unfiltered(path: Path, data: bytes, name: str, stride: int) -> bytes:
    """Values behind the filters of the extension; those of normals and rotations are not looked at, and stay."""
    if name in ("NONE", "OCTAHEDRAL", "QUATERNION"):
        return data
    if name != "EXPONENTIAL":
        raise InvalidInput(f"load_mesh: '{path.name}' uses the meshopt filter '{name}'; export it without compression.")
    packed = np.frombuffer(data, "<i4")
    mantissa, exponent = (packed << 8) >> 8, packed >> 24
    return np.ldexp(mantissa.astype(np.float64), exponent).astype("<f4").tobytes()
