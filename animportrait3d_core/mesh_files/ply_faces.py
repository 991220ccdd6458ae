"""Faces of PLY files that trimesh does not read: binary polygons of mixed size, and strips of triangles."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator

import numpy as np

_STRUCT = {
    **dict.fromkeys(("char", "int8"), "b"), **dict.fromkeys(("uchar", "uint8"), "B"),
    **dict.fromkeys(("short", "int16"), "h"), **dict.fromkeys(("ushort", "uint16"), "H"),
    **dict.fromkeys(("int", "int32"), "i"), **dict.fromkeys(("uint", "uint32"), "I"),
    **dict.fromkeys(("float", "float32"), "f"), **dict.fromkeys(("double", "float64"), "d"),
    "int64": "q", "uint64": "Q",
}  # fmt: skip
STRIPS = "tristrips"
_INDICES = ("vertex_indices", "vertex_index")
_END_OF_STRIP = -1
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_Numbers = tuple[float, ...]


@dataclasses.dataclass
class _Element:
    """A table of a PLY. columns: name and type of its numbers.  lists: name, type of length and of entries.  order: the
    names of both as they stand in a row."""

    name: str
    count: int
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    lists: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    order: list[str] = dataclasses.field(default_factory=list)


def with_plain_triangles(data: bytes) -> bytes:
    """A binary PLY whose strips, or faces of several sizes, have become triangles; any other comes back as it is.

    What stands beside the indices of a face goes to all its triangles. Faces with a second list are left alone, and so
    are those of a file that ends too early.
    """
    end = re.search(rb"^end_header[ \t]*\r?\n", data, flags=re.MULTILINE)
    header = data[: end.start()].decode("ascii", "replace") if end else ""
    order = next((sign for name, sign in _ORDERS.items() if f"format {name}" in header), "")
    try:
        elements = _elements(header)
    except KeyError:  # a type that is none
        return data
    place = next((i for i, one in enumerate(elements) if one.name in ("face", STRIPS) and one.count), None)
    if end is None or not order or place is None or any(one.lists for one in elements[:place]):
        return data
    faces = elements[place]
    if len(faces.lists) != 1 or next(iter(faces.lists)) not in _INDICES:
        return data
    body = data[end.end() :]
    begin = sum(one.count * struct.calcsize(order + "".join(one.columns.values())) for one in elements[:place])
    try:
        if faces.name != STRIPS and _are_alike(body, begin, faces, order):
            return data
        rows, finish = _rows(body, begin, faces, order)
        triangles = [
            (corners, beside) for indices, beside in rows for corners in _corners(indices, faces.name == STRIPS)
        ]
        written = _packed(triangles, faces, order)
    except struct.error:  # cut off, or numbers that are no indices: the reader says so
        return data
    return _header(header, faces, len(triangles)) + body[:begin] + written + body[finish:]


def _elements(header: str) -> list[_Element]:
    found: list[_Element] = []
    for line in header.splitlines():
        words = line.split()
        if words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            found.append(_Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"] and len(words) == 5 and found:
            found[-1].order.append(words[4])
            found[-1].lists[words[4]] = (_STRUCT[words[2]], _STRUCT[words[3]])
        elif words[:1] == ["property"] and len(words) == 3 and found:
            found[-1].order.append(words[2])
            found[-1].columns[words[2]] = _STRUCT[words[1]]
    return found


def _are_alike(body: bytes, begin: int, faces: _Element, order: str) -> bool:
    """Whether all faces have as many corners as the first."""
    fields: list[tuple[str, str]] = []
    for name in faces.order:
        if name in faces.lists:
            length, kind = faces.lists[name]
            place = begin + struct.calcsize(order + "".join(kind for _, kind in fields))
            (corners,) = struct.unpack_from(order + length, body, place)
            fields += [("corners", length), ("indices", f"{corners}{kind}")]
        else:
            fields.append((name, faces.columns[name]))
    sizes = [struct.calcsize(order + kind) for _, kind in fields]
    if len(body) - begin < faces.count * sum(sizes):
        return False
    of_corners = [name for name, _ in fields].index("corners")
    rows = np.frombuffer(body, np.uint8, faces.count * sum(sizes), begin).reshape(faces.count, sum(sizes))
    counts = rows[:, sum(sizes[:of_corners]) :][:, : sizes[of_corners]]
    return bool((counts == counts[0]).all())


def _rows(body: bytes, begin: int, faces: _Element, order: str) -> tuple[list[tuple[_Numbers, _Numbers]], int]:
    """Indices and other numbers of each row, and where the rows end."""
    rows = []
    for _ in range(faces.count):
        indices: _Numbers = ()
        beside: _Numbers = ()
        for name in faces.order:
            kinds = order + faces.columns.get(name, "")
            if name in faces.lists:
                length, kind = faces.lists[name]
                (count,) = struct.unpack_from(order + length, body, begin)
                begin += struct.calcsize(order + length)
                kinds = f"{order}{count}{kind}"
                indices = struct.unpack_from(kinds, body, begin)
            else:
                beside += struct.unpack_from(kinds, body, begin)
            begin += struct.calcsize(kinds)
        rows.append((indices, beside))
    return rows, begin


def _corners(indices: _Numbers, strip: bool) -> Iterator[_Numbers]:
    """The triangles of a polygon, as a fan, or of a row of strips, which end with -1; every other one of a strip turns
    the other way round, and those with two equal corners only move its end."""
    if not strip:
        yield from ((indices[0], *pair) for pair in zip(indices[1:], indices[2:]))
        return
    begin = 0
    for place in range(len(indices)):
        if indices[place] == _END_OF_STRIP:
            begin = place + 1
        elif place - begin >= 2:
            first, second, third = indices[place - 2 : place + 1]
            if len({first, second, third}) == 3:
                yield (first, second, third) if (place - begin) % 2 == 0 else (second, first, third)


def _packed(triangles: list[tuple[_Numbers, _Numbers]], faces: _Element, order: str) -> bytes:
    """Rows of the new element: the indices first, then the other numbers."""
    row = struct.Struct(order + "B3i" + "".join(faces.columns.values()))
    return b"".join(row.pack(3, *map(int, corners), *beside) for corners, beside in triangles)


def _header(header: str, faces: _Element, count: int) -> bytes:
    """The header with triangles in place of the faces."""
    kept, inside = [], False
    for line in header.splitlines():
        if line.startswith("element "):
            inside = line.split()[1] == faces.name
            if inside:
                kept += [f"element face {count}", "property list uchar int vertex_indices"]
                continue
        if not (inside and line.startswith("property list")):
            kept.append(line)
    return "\n".join([*kept, "end_header", ""]).encode("ascii", "replace")
