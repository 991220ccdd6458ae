"""Arrays for the web: numbers of 8 and 16 bits in one block of bytes, and back."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InvalidInput

DTYPES = {
    "f32": "<f4", "f16": "<f2", "u8": "<u1", "u16": "<u2", "u32": "<u4", "i8": "<i1", "i16": "<i2",
}  # fmt: skip
"""Kinds that the page's decoder knows (page/rig.js)."""

_ALIGNMENT = 8


@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array as it is stored.

    kind: of `DTYPES`.  stored: the numbers.  scale: what they are multiplied with, one factor for all or one for each
    place of the trailing dimensions; empty for whole and floating-point numbers as they are.
    """

    kind: str
    stored: np.ndarray
    scale: tuple[float, ...] = ()

    @property
    def values(self) -> np.ndarray:
        """The numbers as the page reads them: float32, or whole numbers."""
        if self.kind == "f16" or self.kind == "f32":
            return self.stored.astype(np.float32)
        if not self.scale:
            return self.stored
        scale = np.array(self.scale, np.float32)
        return (self.stored.reshape(-1, len(scale)).astype(np.float32) * scale).reshape(self.stored.shape)


def half(name: str, values: np.ndarray) -> Quantized:
    """Floats of 16 bits: 11 bits of precision, up to 65504. Raises `InvalidInput` beyond."""
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= 65504:
        raise InvalidInput(f"half: `{name}` goes up to {largest:.3g}, expected at most 65504 to be stored in 16 bits.")
    return Quantized("f16", values.astype("<f2"))


def whole(values: np.ndarray) -> Quantized:
    """Whole numbers from 0 up, in 16 bits where they fit."""
    kind = "u16" if values.max(initial=0) < 1 << 16 else "u32"
    return Quantized(kind, values.astype(DTYPES[kind]))


def stepped(values: np.ndarray, kind: str, per_column: bool = False) -> Quantized:
    """Whole multiples of the largest size / the largest number of `kind`.

    per_column: a step for each place of the trailing dimensions instead of one for all.
    """
    most = np.iinfo(DTYPES[kind]).max
    columns = int(np.prod(values.shape[1:])) if per_column else 1
    flat = values.reshape(-1, columns).astype(np.float64)
    scale = np.abs(flat).max(axis=0, initial=0.0) / most
    scale[scale == 0] = 1.0
    stored = np.rint(flat / scale).reshape(values.shape).astype(DTYPES[kind])
    return Quantized(kind, stored, tuple(float(factor) for factor in scale))


def pack(arrays: Mapping[str, Quantized]) -> tuple[dict[str, Any], str]:
    """({name: kind, shape, offset, scale}, all bytes as base64); the inverse of `unpack`."""
    layout: dict[str, Any] = {}
    block = bytearray()
    for name, array in arrays.items():
        block += bytes(-len(block) % _ALIGNMENT)
        layout[name] = {"kind": array.kind, "shape": list(array.stored.shape), "offset": len(block)}
        if array.scale:
            layout[name]["scale"] = list(array.scale)
        block += np.ascontiguousarray(array.stored, DTYPES[array.kind]).tobytes()
    return layout, base64.b64encode(bytes(block)).decode("ascii")


def unpack(layout: Mapping[str, Any], text: str) -> dict[str, Quantized]:
    """The arrays of `pack`. Raises `InvalidInput` where they do not lie within the bytes."""
    block = base64.b64decode(text, validate=True)
    arrays = {}
    for name, entry in layout.items():
        dtype, count = np.dtype(DTYPES[entry["kind"]]), int(np.prod(entry["shape"]))
        if not 0 <= entry["offset"] <= len(block) - count * dtype.itemsize:
            raise InvalidInput(f"unpack: `{name}` ends beyond the {len(block)} bytes of the page; the file is cut off.")
        stored = np.frombuffer(block, dtype, count, entry["offset"]).reshape(entry["shape"])
        arrays[name] = Quantized(entry["kind"], stored, tuple(entry.get("scale", ())))
    return arrays
