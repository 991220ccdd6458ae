"""Reading and writing PLY files: one table of float columns, the form of 3D Gaussians, or several tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
_MAX_LONG_HEADER_BYTES = 1 << 24  # of files with a few elements for each frame
_NAMES = {"f4": "float", "u4": "uint", "u1": "uchar"}


def write_table(path: str | Path, columns: Sequence[str], values: np.ndarray, comments: Sequence[str] = ()) -> None:
    """Write values [N, C] as binary little-endian float32 `vertex` properties named `columns`, in one piece."""
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {len(values)}", *(f"property float {name}" for name in columns), "end_header", ""]
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        stream.write("\n".join(header).encode("ascii", "replace"))
        stream.write(np.ascontiguousarray(values, dtype="<f4").tobytes())


def write_elements(
    path: str | Path, elements: Mapping[str, tuple[Sequence[str], np.ndarray]], comments: Sequence[str] = ()
) -> None:
    """Write several tables in one piece: element name -> (columns, values [N, C] of float32, uint32 or uint8)."""
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    for name, (columns, values) in elements.items():
        kind = _NAMES[values.dtype.str[1:]]
        header += [f"element {name} {len(values)}", *(f"property {kind} {column}" for column in columns)]
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        stream.write("\n".join([*header, "end_header", ""]).encode("ascii", "replace"))
        for _, values in elements.values():
            stream.write(np.ascontiguousarray(values).tobytes())


def read_elements(path: str | Path, where: str) -> dict[str, np.ndarray]:
    """Every element of a binary little-endian PLY by name, as a record array. Raises InvalidInput for anything else,
    for list properties and for a truncated file."""
    path = require_file(where, path)
    place = f"{where}: '{path}'"
    with open(path, "rb") as stream:
        lines = _header(stream.read(_MAX_LONG_HEADER_BYTES), place)
        stream.seek(sum(len(line) + 1 for line in lines))
        texts = [line.decode("ascii", "replace").strip() for line in lines]
        _check_format(texts, place)
        starts = [index for index, text in enumerate(texts) if text.startswith("element ")]
        found: dict[str, np.ndarray] = {}
        for start, end in zip(starts, [*starts[1:], len(texts)]):
            name, count = _element(texts[start], place)
            dtype = _fields(texts[start + 1 : end], place)
            if name in found or count * dtype.itemsize > path.stat().st_size:
                raise InvalidInput(f"{place} is damaged: its element '{name[:80]}' of {count} rows cannot be.")
            data = stream.read(count * dtype.itemsize)
            if len(data) < count * dtype.itemsize:
                raise InvalidInput(f"{place} is cut off in its element '{name[:80]}'; copy it again.")
            found[name] = np.frombuffer(data, dtype=dtype, count=count)
    return found


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
    _check_format(texts, where)
    elements = [index for index, text in enumerate(texts) if text.startswith("element ")]
    first = texts[elements[0]].split() if elements else []
    if len(first) != 3 or first[1] != "vertex" or not first[2].isdigit():
        raise InvalidInput(f"{where} begins with element {' '.join(first[1:])[:80]!r}, expected 'vertex COUNT'.")
    end = elements[1] if len(elements) > 1 else len(texts)
    return int(first[2]), _fields(texts[elements[0] + 1 : end], where)


def _check_format(texts: list[str], where: str) -> None:
    formats = [text.split()[1] for text in texts if text.startswith("format ")]
    if formats != ["binary_little_endian"]:
        raise InvalidInput(f"{where} has format {str(formats)[:80]}, expected binary_little_endian; convert it first.")


def _element(text: str, where: str) -> tuple[str, int]:
    """Name and number of rows of an element's line."""
    words = text.split()
    if len(words) != 3 or not words[2].isdigit():
        raise InvalidInput(f"{where} has the line '{text[:80]}', expected 'element NAME COUNT'.")
    return words[1], int(words[2])


def _fields(texts: list[str], where: str) -> np.dtype:
    """Record type of one row, from the lines that follow its element's."""
    fields = []
    for text in texts:
        words = text.split()
        if words[:1] != ["property"]:
            continue
        if len(words) != 3 or words[1] not in _TYPES:
            raise InvalidInput(f"{where} has the vertex property '{text[:80]}', expected plain numbers.")
        fields.append((words[2], "<" + _TYPES[words[1]]))
    if not fields or len({name for name, _ in fields}) != len(fields):
        raise InvalidInput(f"{where} names {len(fields)} vertex properties, expected at least one and none twice.")
    return np.dtype(fields)
