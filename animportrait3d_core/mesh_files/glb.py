"""Writing a GLB: arrays and pictures are collected into one buffer beside the JSON tree that names them (glTF 2.0)."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
COMPONENT_CODES = {"<f4": 5126, "<u4": 5125, "<u2": 5123, "|u1": 5121}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class GlbWriter:
    """Collects arrays and pictures into one GLB with a single buffer. `tree` is the header, for the caller to fill."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.tree: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": []}

    def add_view(self, blob: bytes, target: int | None = None) -> int:
        """Append bytes, aligned to 4; returns the index of their buffer view. target: what a GPU uses them for."""
        self.data += b"\0" * (-len(self.data) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(blob)}
        self.tree["bufferViews"].append(entry if target is None else {**entry, "target": target})
        self.data += blob
        return len(self.tree["bufferViews"]) - 1

    def add_array(self, values: np.ndarray) -> int:
        """Append an array [N, C] as float32, or [N] as uint32; returns the index of its accessor."""
        with np.errstate(over="ignore"):  # what is infinite now is told where it is used
            return self.add_accessor(values.astype("<f4" if values.ndim == 2 else "<u4"))

    def add_accessor(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Append an array [N] or [N, C] of a type of `COMPONENT_CODES` as it is; returns the index of its accessor.

        bounds: write the smallest and largest values, which positions and times of animations must have.
        """
        entry = self._entry(values, bounds)
        entry["bufferView"] = self.add_view(np.ascontiguousarray(values).tobytes(), target)
        return self._append(entry)

    def add_sparse(self, values: np.ndarray) -> int:
        """Append an array [N, C] of vertices, bounds included, by its rows that are not zero, if that is shorter."""
        rows = np.flatnonzero(values.any(axis=1)).astype("<u4")
        size = values.shape[1] * values.dtype.itemsize
        if len(rows) * (size + rows.dtype.itemsize) >= len(values) * size:
            return self.add_accessor(values, ARRAY_BUFFER, bounds=True)
        entry = self._entry(values, bounds=True)
        if len(rows):
            indices = {"bufferView": self.add_view(rows.tobytes()), "componentType": COMPONENT_CODES[rows.dtype.str]}
            stored = {"bufferView": self.add_view(np.ascontiguousarray(values[rows]).tobytes())}
            entry["sparse"] = {"count": len(rows), "indices": indices, "values": stored}
        return self._append(entry)

    def _entry(self, values: np.ndarray, bounds: bool) -> dict[str, Any]:
        flat = values.reshape(len(values), -1)
        entry = {"componentType": COMPONENT_CODES[values.dtype.str], "type": KINDS[flat.shape[1]], "count": len(flat)}
        if bounds:
            entry |= {"min": flat.min(axis=0).tolist(), "max": flat.max(axis=0).tolist()}
        return entry

    def _append(self, entry: dict[str, Any]) -> int:
        self.tree["accessors"].append(entry)
        return len(self.tree["accessors"]) - 1

    def tobytes(self) -> bytes:
        """The GLB file."""
        self.data += b"\0" * (-len(self.data) % 4)
        self.tree["buffers"] = [{"byteLength": len(self.data)}]
        header = json.dumps(self.tree).encode()
        header += b" " * (-len(header) % 4)
        total = 28 + len(header) + len(self.data)
        chunks = struct.pack("<I4s", len(header), b"JSON") + header + struct.pack("<I4s", len(self.data), b"BIN\0")
        return struct.pack("<4sII", b"glTF", 2, total) + chunks + bytes(self.data)
