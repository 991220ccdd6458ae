"""Zip archives that other programs wrote: their members as bytes, whatever is wrong with them told by one error."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib

from .errors import InvalidInput

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Of packing, without LZMA, which takes the memory that a damaged header asks for."""

# What zipfile and the decompressors raise on damaged archives.
_ERRORS: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError)
_ERRORS += (ValueError, KeyError, IndexError, EOFError, RuntimeError, OverflowError)


def _short(error: BaseException) -> str:
    """What an error says; zipfile quotes whole headers, which may be anything."""
    return str(error)[:200]


def open_archive(data: bytes) -> zipfile.ZipFile:
    """The archive in `data`; `InvalidInput` if it is damaged or cut short."""
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except _ERRORS as error:
        raise InvalidInput(f"is a damaged or truncated archive ({_short(error)}); download it again.") from error


def member_size(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes of a member when unpacked, as its header says, which unpacking never exceeds."""
    try:
        return archive.getinfo(name).file_size
    except KeyError as error:
        raise InvalidInput(f"lacks '{name[:80]}'; the file is damaged.") from error


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member, which may have at most `most` bytes (a crafted archive can unpack to anything)."""
    size = member_size(archive, name)
    if size > most:
        raise InvalidInput(
            f"its member '{name[:80]}' has {size} bytes when unpacked, expected at most {most}: refused."
        )
    info = archive.getinfo(name)
    if info.compress_type not in METHODS:
        raise InvalidInput(
            f"its member '{name[:80]}' has packing {info.compress_type}, expected one of {METHODS}; zip it anew."
        )
    try:
        return archive.read(name)
    except _ERRORS as error:
        raise InvalidInput(
            f"is a damaged archive: cannot read '{name[:80]}' in it ({_short(error)}); download it again."
        ) from error
