"""Reading and writing PLY files of one table of float columns, the form of 3D Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InvalidInput
from ..files import atomic_write, require_file

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
    "float64": "f8",
}  # fmt: skip
_MAX_HEADER_BYTES = 1 << 16


def write_table(path: str | Path, columns: Sequence[str], values: np.ndarray, comments: Sequence[str] = ()) -> None:
    """Write values [N, C] as binary little-endian float32 `vertex` properties named `columns`, in one piece."""
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {len(values)}", *(f"property float {name}" for name in columns), "end_header", ""]
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        stream.write("\n".join(header).encode("ascii", "replace"))
        stream.write(np.ascontiguousarray(values, dtype="<f4").tobytes())


def read_table(path: str | Path, where: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns by name (float32 [N]) and comments of a binary little-endian PLY whose first element is `vertex`.

    Raises InvalidInput for anything else, for a truncated file, and for list properties among the vertices.
    """
    path = require_file(where, path)
    with open(path, "rb") as stream:
        lines = _header(stream.read(_MAX_HEADER_BYTES), f"{where}: '{path}'")
        offset = sum(len(line) + 1 for line in lines)
        texts = [line.decode("ascii", "replace").strip() for line in lines]
        count, dtype = _layout(texts, f"{where}: '{path}'")
        found, needed = path.stat().st_size - offset, count * dtype.itemsize
        if found < needed:
            raise InvalidInput(f"{where}: '{path}' is cut off: {found} bytes of vertices, expected {needed}.")
        stream.seek(offset)
        data = stream.read(needed)
    table = np.frombuffer(data, dtype=dtype, count=count)
    columns = {name: table[name].astype(np.float32) for name in dtype.names or ()}
    return columns, [line.removeprefix("comment ") for line in texts if line.startswith("comment ")]


def _header(start: bytes, where: str) -> list[bytes]:
    lines = start.split(b"\n")
    ends = [index for index, line in enumerate(lines) if line.strip() == b"end_header"]
    if lines[0].strip() != b"ply" or not ends:
        raise InvalidInput(
            f"{where} is no PLY file: it starts with {start[:12]!r}, expected 'ply' and an 'end_header'."
        )
    return lines[: ends[0] + 1]


def _layout(texts: list[str], where: str) -> tuple[int, np.dtype]:
    """Number of vertices and the record type of one."""
    formats = [text.split()[1] for text in texts if text.startswith("format ")]
    if formats != ["binary_little_endian"]:
        raise InvalidInput(f"{where} has format {str(formats)[:80]}, expected binary_little_endian; convert it first.")
    elements = [index for index, text in enumerate(texts) if text.startswith("element ")]
    first = texts[elements[0]].split() if elements else []
    if len(first) != 3 or first[1] != "vertex" or not first[2].isdigit():
        raise InvalidInput(f"{where} begins with element {' '.join(first[1:])[:80]!r}, expected 'vertex COUNT'.")
    end = elements[1] if len(elements) > 1 else len(texts)
    fields = []
    for text in texts[elements[0] + 1 : end]:
        words = text.split()
        if words[:1] != ["property"]:
            continue
        if len(words) != 3 or words[1] not in _TYPES:
            raise InvalidInput(f"{where} has the vertex property '{text[:80]}', expected plain numbers.")
        fields.append((words[2], "<" + _TYPES[words[1]]))
    if not fields or len({name for name, _ in fields}) != len(fields):
        raise InvalidInput(f"{where} names {len(fields)} vertex properties, expected at least one and none twice.")
    return int(first[2]), np.dtype(fields)
