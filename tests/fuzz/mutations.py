"""Damage to bytes and to texts, drawn from a generator: the same generator state gives the same damage."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

Damage = Callable[[bytes, bytes, random.Random], bytes]
"""(data, a piece of another file, generator) -> damaged data."""

EXTREMES = (0, 1, -1, 127, 128, 255, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, -(2**31), 2**63 - 1, -(2**63), 2**40)
WORDS = ("nan", "inf", "-inf", "1e400", "-1", "999999999", "", "0", "1e-320", "99999999999999999999", "0x10", "null")
WORDS += ("1.5", "-0", "2147483648", "9" * 400, "\u00b2", "[]")
_NUMBER = re.compile(rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(rb"[^\s,:;=<>{}\[\]\"']+")


def _span(size: int, rng: random.Random, most: int = 1 << 20) -> tuple[int, int]:
    """Begin and end of a piece, mostly a short one."""
    start = rng.randrange(size + 1)
    longest = rng.choice((1, 4, 16, 256, 4096, most))
    return start, min(size, start + 1 + rng.randrange(longest))


def flip_bits(data: bytes, other: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _span(len(data), rng, 64)
    new = bytes([rng.randrange(256)]) * (end - start) if rng.random() < 0.5 else rng.randbytes(end - start)
    return data[:start] + new + data[end:]


def insert(data: bytes, other: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 2, 4, 8, 100))) + data[start:]


def delete(data: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _span(len(data), rng)
    return data[:start] + data[end:]


def truncate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    kept = rng.randrange(len(data)) if rng.random() < 0.7 else len(data) - rng.randrange(1, min(len(data), 64) + 1)
    return data[:kept]


def duplicate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _span(len(data), rng)
    times = rng.choice((1, 1, 2, 50)) if end - start < 4096 else 1
    return data[:end] + data[start:end] * times + data[end:]


def move(data: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _span(len(data), rng)
    rest = data[:start] + data[end:]
    place = rng.randrange(len(rest) + 1)
    return rest[:place] + data[start:end] + rest[place:]


def graft(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A piece replaced by a piece of another file of the format, at the same place or anywhere."""
    start, end = _span(len(other), rng)
    place = min(start, len(data)) if rng.random() < 0.5 else rng.randrange(len(data) + 1)
    return data[:place] + other[start:end] + data[place + (end - start if rng.random() < 0.7 else 0) :]


def extreme_integer(data: bytes, other: bytes, rng: random.Random) -> bytes:
    width = rng.choice((1, 2, 4, 4, 8))
    if len(data) < width:
        return data
    value = (rng.choice(EXTREMES) + rng.choice((0, 0, 0, 1, -1))) % (1 << 8 * width)
    place = rng.randrange(len(data) // width) * width if rng.random() < 0.8 else rng.randrange(len(data) - width + 1)
    order = "little" if rng.random() < 0.8 else "big"
    return data[:place] + value.to_bytes(width, order) + data[place + width :]


def extreme_float(data: bytes, other: bytes, rng: random.Random) -> bytes:
    if len(data) < 8:
        return data
    value = rng.choice((float("nan"), float("inf"), float("-inf"), 3e38, -3e38, 1e-40, 0.0, -1.0))
    code = rng.choice(("<f", "<d", "<e"))
    packed = struct.pack(code, max(-65504.0, min(65504.0, value)) if code == "<e" and abs(value) < 1e39 else value)
    place = rng.randrange((len(data) - 8) // 4 + 1) * 4
    return data[:place] + packed + data[place + len(packed) :]


BYTE_DAMAGES: tuple[Damage, ...] = (
    flip_bits, overwrite, insert, delete, truncate, duplicate, move, graft, extreme_integer, extreme_float,
)  # fmt: skip


def damage_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One damage that knows nothing of the format."""
    return rng.choice(BYTE_DAMAGES)(data, other, rng) if data else rng.randbytes(8)


def replace_number(data: bytes, other: bytes, rng: random.Random) -> bytes:
    found = _pick(list(_NUMBER.finditer(data)), rng)
    return _replaced(data, found, rng.choice(WORDS).encode()) if found else data


def replace_word(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A word replaced by another word of the file, or of another one."""
    found = _pick(list(_WORD.finditer(data)), rng)
    source = _pick(list(_WORD.finditer(rng.choice((data, other))[:20000])), rng)
    return _replaced(data, found, source.group()) if found and source else data


def change_lines(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A line taken out, repeated, moved, emptied, cut, made long, or taken from another file."""
    lines = data.split(b"\n")
    index = rng.randrange(len(lines))
    kind = rng.randrange(7)
    if kind == 0:
        del lines[index]
    elif kind == 1:
        lines[index:index] = [lines[index]] * rng.choice((1, 2, 500))
    elif kind == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(index))
    elif kind == 3:
        lines[index] = rng.choice((b"", b"\0", b"\xff\xfe", b"#", b"\\"))
    elif kind == 4:
        lines[index] = b" ".join(lines[index].split()[: rng.randrange(4)])
    elif kind == 5:
        lines[index] += b" " + b"1 " * rng.choice((1, 10, 5000))
    else:
        lines.insert(index, rng.choice(other.split(b"\n")))
    return b"\n".join(lines)


TEXT_DAMAGES: tuple[Damage, ...] = (replace_number, replace_number, replace_word, change_lines, damage_bytes)


def damage_text(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One damage to lines, words or numbers."""
    return rng.choice(TEXT_DAMAGES)(data, other, rng) if data else b"1"


def _pick(found: Sequence[re.Match[bytes]], rng: random.Random) -> re.Match[bytes] | None:
    return rng.choice(found) if found else None


def _replaced(data: bytes, found: re.Match[bytes], new: bytes) -> bytes:
    return data[: found.start()] + new + data[found.end() :]
