"""Damage inside a structure that stays whole around it: JSON, GLB, safetensors, archives, arrays, pickles, pictures.

Random bytes seldom pass a checksum or a length. Here the part inside is damaged and the frame is written anew.
"""

from __future__ import annotations

import functools
import io
import json
import math
import pickletools
import random
import struct
import zipfile
import zlib
from typing import Any

from .mutations import Damage, damage_bytes, damage_text

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, -(2**63), 10**25, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "\0", "0", "../../x", [], {}, [[]], [0], {"a": 1}, [1, 2, 3, 4], 1e-320, 255, 65536, 5126, 5121, "VEC3", "MAT4",
)  # fmt: skip
STRUCTURE_SHARE = 0.75
"""How often a structure is damaged inside; else its bytes are."""


def damage(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One damage to a file of any kind, known by its first bytes; other: a file to take pieces from."""
    if rng.random() < STRUCTURE_SHARE:
        try:
            return _damage_of(data)(data, other, rng)
        # Damaged before, what looks like a structure may be none any more, in any way.
        except Exception:
            pass
    return damage_bytes(data, other, rng)


def _damage_of(data: bytes) -> Damage:
    for start, kind in (
        (b"glTF", damage_glb), (b"PK\3\4", damage_zip), (b"\x80", damage_pickle), (b"\x93NUMPY", damage_npy),
        (b"\x89PNG", damage_png), (b"{", damage_json), (b"ply", damage_headed_text),
    ):  # fmt: skip
        if data.startswith(start):
            return kind
    if data[8:9] == b"{":
        return damage_safetensors
    return damage_text if data[:200].isascii() and b"\0" not in data[:200] else damage_bytes


def damage_json(data: bytes, other: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return damage_text(data, other, rng)
    return _changed_tree(data, rng)


def _changed_tree(data: bytes, rng: random.Random) -> bytes:
    """A JSON text with one entry replaced, removed, doubled, renamed, buried, or changed inside if it is JSON too."""
    tree = json.loads(data)
    places = list(_places(tree))
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    container, key = rng.choice(places)
    value, kind = container[key], rng.randrange(8)
    if isinstance(value, str) and value[:1] in ("{", "[") and rng.random() < 0.8:
        container[key] = _changed_tree(value.encode(), rng).decode("utf-8", "replace")
    elif kind == 0:
        del container[key]
    elif kind == 1 and isinstance(value, list) and value:
        value.extend([rng.choice(value)] * rng.choice((1, 2, 1000)))
    elif kind == 2 and isinstance(container, dict):
        container[rng.choice(("", "x", str(key) + "_0", "TEXCOORD_1", "COLOR_0", "__metadata__"))] = container.pop(key)
    elif kind == 3:
        source, name = rng.choice(places)
        container[key] = json.loads(json.dumps(source.get(name) if isinstance(source, dict) else value))
    elif kind == 4:
        container[key] = "@deep@"
    else:
        container[key] = rng.choice(VALUES)
    depth = rng.choice((10, 3000, 200_000))
    return json.dumps(tree).encode().replace(b'"@deep@"', b"[" * depth + b"]" * depth)


def _places(tree: Any) -> Any:
    """(container, key) of every entry."""
    waiting = [tree]
    while waiting:
        container = waiting.pop()
        entries = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in entries if isinstance(container, (dict, list)) else ():
            yield container, key
            if isinstance(value, (dict, list)):
                waiting.append(value)


def damage_headed_text(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The text before the numbers of a PLY, or the numbers."""
    end = data.find(b"end_header")
    end = data.find(b"\n", end) + 1 if end >= 0 else len(data)
    if rng.random() < 0.6:
        return damage_text(data[:end], other[:500], rng) + data[end:]
    ascii_body = b"format ascii" in data[:end]
    return data[:end] + (damage_text if ascii_body else damage_bytes)(data[end:], other, rng)


def damage_glb(data: bytes, other: bytes, rng: random.Random) -> bytes:
    chunks, offset = [], 12
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from("<I4s", data, offset)
        chunks.append([kind, data[offset + 8 : offset + 8 + size]])
        offset += 8 + size
    chosen = chunks[0] if rng.random() < 0.7 else rng.choice(chunks)
    if rng.random() < 0.05:
        chunks.append(list(rng.choice(chunks)))
    chosen[1] = damage_json(chosen[1], other, rng) if chosen[0] == b"JSON" else _damage_inside(chosen[1], other, rng)
    body = b""
    for kind, chunk in chunks:
        chunk += b" " * (-len(chunk) % 4)
        body += struct.pack("<I4s", len(chunk), kind) + chunk
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def _damage_inside(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A picture in a buffer, if there is one, else bytes."""
    start = data.find(b"\x89PNG")
    if start < 0 or rng.random() < 0.4:
        return damage_bytes(data, other, rng)
    end = data.find(b"IEND", start) + 8
    changed = damage(data[start:end], other, rng)
    return data[:start] + changed[: end - start].ljust(end - start, b"\0") + data[end:]


SAME_SIZE = {
    "F64": ("I64", "U64"), "F32": ("I32", "U32"), "F16": ("BF16", "I16", "U16"), "I64": ("F64", "U64"),
    "U8": ("I8", "BOOL", "F8_E4M3", "F8_E5M2"), "BOOL": ("U8",), "I32": ("F32",),
}  # fmt: skip


def damage_safetensors(data: bytes, other: bytes, rng: random.Random) -> bytes:
    size = struct.unpack_from("<Q", data)[0]
    header, body = data[8 : 8 + size], data[8 + size :]
    kind = rng.random()
    if kind < 0.35:
        tree = json.loads(header)
        _change_tensor(tree, rng)
        header = json.dumps(tree).encode()
    elif kind < 0.55:
        tree = json.loads(header)
        metadata = tree.get("__metadata__", {})
        tree["__metadata__"] = {
            str(key): value if isinstance(value, str) else json.dumps(value)
            for key, value in json.loads(_changed_tree(json.dumps(metadata).encode(), rng)).items()
        }
        header = json.dumps(tree).encode()
    elif kind < 0.8:
        header = damage_json(header, other, rng)
    else:
        body = damage_bytes(body, other, rng)
        if rng.random() < 0.7:  # the library wants exactly as many bytes as the header says
            body = body[: len(data) - 8 - size].ljust(len(data) - 8 - size, b"\0")
    return struct.pack("<Q", len(header)) + header + body


def _change_tensor(tree: dict[str, Any], rng: random.Random) -> None:
    """Another type, another shape of the same size, two tensors that change places, or another name."""
    names = [name for name in tree if name != "__metadata__"]
    name = rng.choice(names)
    entry, kind = tree[name], rng.randrange(5)
    if kind == 0:
        entry["dtype"] = rng.choice(SAME_SIZE.get(entry["dtype"], ("F32",)))
    elif kind == 1:
        entry["shape"] = _reshaped(entry["shape"], rng)
    elif kind == 2:
        second = rng.choice(names)
        tree[name], tree[second] = tree[second], entry
    elif kind == 3:
        tree[rng.choice((name + "_", "", "x", name.rpartition(".")[2]))] = tree.pop(name)
    else:  # nothing in it, and the tensors behind it keep their places
        entry["shape"], entry["data_offsets"] = [0, *entry["shape"][1:]], [entry["data_offsets"][0]] * 2


def _reshaped(shape: list[int], rng: random.Random) -> list[int]:
    total = math.prod(shape)
    return rng.choice(([total], [total, 1], [1, *shape], shape[::-1], [1] * 70 + [total], [total, 1, 1, 1], []))


def damage_npy(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The header's words with its length mended, or the numbers."""
    if rng.random() < 0.3:
        return damage_bytes(data, other, rng)
    size = struct.unpack_from("<H", data, 8)[0]
    header = data[10 : 10 + size]
    if rng.random() < 0.6:
        header = damage_text(header, other[:200], rng)
    else:
        old = rng.choice((b"'<f8'", b"'<f4'", b"'|i1'", b"False", b"(", b"shape", b"}"))
        new = rng.choice(
            (b"'|O'", b"'<U9'", b"'|S0'", b"'<M8[s]'", b"'V8'", b"True", b"(2**62,", b"((", b"'>c16'", b"-1")
        )
        header = header.replace(old, new)
    header = header[: 1 << 16 - 1]
    return data[:8] + struct.pack("<H", len(header) & 0xFFFF) + header + data[10 + size :]


INTEGER_CODES = {"BININT": "<i", "BININT1": "<B", "BININT2": "<H"}


def damage_pickle(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Operations of the stack machine: a number made extreme, one taken out, doubled, or exchanged for another."""
    starts = [position for _, _, position in pickletools.genops(data) if position is not None] + [len(data)]
    numbers = [
        index for index in range(len(starts) - 1) if data[starts[index] : starts[index] + 1] in (b"J", b"K", b"M")
    ]
    index = rng.choice(numbers) if numbers and rng.random() < 0.4 else rng.randrange(len(starts) - 1)
    start, end, kind = starts[index], starts[index + 1], rng.randrange(6)
    operation = data[start:end]
    if index in numbers and kind < 4:
        value = rng.choice((0, -1, 2, 1 << 16, 1 << 26, 1 << 28, (1 << 28) + 1, 1 << 31, 1 << 62, 1 << 2000))
        packed = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        operation = b"\x8a" + bytes([len(packed)]) + packed if len(packed) < 256 else operation
    elif kind == 0:
        operation = b""
    elif kind == 1:
        operation = operation * rng.choice((2, 3)) if len(operation) < 1000 else operation
    elif kind == 2:
        operation = bytes([rng.choice(b"0123(.}])NRbedqtluaQPioc\x81\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94")])
        operation += data[start + 1 : end]
    elif kind == 3:
        second = rng.randrange(len(starts) - 1)
        operation = data[starts[second] : starts[second + 1]]
    else:
        operation = damage_text(operation, other[:500], rng)
    return data[:start] + operation + data[end:]


def damage_zip(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Members damaged inside, lost, doubled, renamed, exchanged; packed by any method; or forged sizes and flags."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [[name, archive.read(name)] for name in archive.namelist()]
    kind = rng.random()
    chosen = rng.choice(members)
    if kind < 0.6:
        chosen[1] = damage(chosen[1], rng.choice(members)[1], rng)
    elif kind < 0.68:
        members.remove(chosen)
    elif kind < 0.76:
        second = rng.choice(members)
        chosen[1], second[1] = second[1], chosen[1]
    elif kind < 0.84:
        chosen[0] = rng.choice((chosen[0] + "x", "x.npy", "a/data.pkl", "", "../" + chosen[0], rng.choice(members)[0]))
    packed = _packed(members, rng)
    return packed if kind < 0.84 else _forged(packed, rng)


def _packed(members: list[list[Any]], rng: random.Random) -> bytes:
    stream = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    method = methods[0] if rng.random() < 0.6 else rng.choice(methods)
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method, 1)
    return stream.getvalue()


def _forged(data: bytes, rng: random.Random) -> bytes:
    """A field of a local or central header of an archive (or of its end) made extreme."""
    signature, fields = rng.choice(
        (
            (b"PK\3\4", (4, 6, 8, 18, 22, 26, 28)),
            (b"PK\1\2", (6, 8, 10, 20, 24, 28, 30, 32, 42)),
            (b"PK\5\6", (8, 10, 12, 16)),
        )
    )
    places = (
        [index for index in range(len(data) - 3) if data.startswith(signature, index)] if len(data) < 1 << 18 else []
    )
    place = (rng.choice(places) if places else data.rfind(signature)) + rng.choice(fields)
    value = rng.choice((0, 1, 9, 12, 14, 99, 0x7FFF, 0xFFFF))
    new = struct.pack("<H", value) if rng.random() < 0.6 else struct.pack("<I", rng.choice((0, 1, 2**31, 2**32 - 1)))
    return data[:place] + new + data[place + len(new) :]


def damage_png(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The size or kind in the header with its checksum mended, a chunk lost or damaged, or a picture that is a bomb."""
    if rng.random() < 0.1:
        return blank_png(*rng.choice(((12_000, 12_000, 1), (9000, 9000, 8), (20_000, 20_000, 1), (8000, 8000, 8))))
    chunks, offset = [], 8
    while offset + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        chunks.append([kind, data[offset + 8 : offset + 8 + size]])
        offset += 12 + size
    if rng.random() < 0.5:
        values = list(struct.unpack(">IIBBBBB", chunks[0][1]))
        index = rng.randrange(7)
        sizes = (0, 1, 2, 9999, 13_000, 2**31 - 1, 2**31)
        values[index] = rng.choice(sizes) if index < 2 else rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        chunks[0][1] = struct.pack(">IIBBBBB", *values)
    else:
        chosen = rng.choice(chunks)
        chosen[1] = damage_bytes(chosen[1], other, rng)
    return data[:8] + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@functools.lru_cache
def blank_png(width: int, height: int, bits: int) -> bytes:
    """A black grey-level picture of any size in few bytes."""
    rows = zlib.compress(bytes((1 + (width * bits + 7) // 8) * height), 1)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", rows) + _png_chunk(b"IEND", b"")
