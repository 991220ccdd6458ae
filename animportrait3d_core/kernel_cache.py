"""Where compiled kernels are kept; settled before Numba is imported (`kernels`).

Numba keeps them beside the source. Where that folder cannot be written it looks for another one in the user's home, and
ends where there is none; and it ends at files that a full disk or a crash left empty. Both are mended here: kernels are
then kept in the pack's cache, and files that are not whole are removed, so that they are compiled again. For damage
inside of them their SHA-256 are noted when a process ends: a file that is the same one, but not of the same bytes, is
removed too. What escapes that and is found by reading ends the run that met it; the command line removes all kernels
then, and the next run compiles them.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from .errors import AnimPortraitError
from .files import LOGGER, cache_directory, sha256_of_file, write_json

VARIABLE = "NUMBA_CACHE_DIR"
_PACKAGE = Path(__file__).parent
_SUFFIXES = (".nbi", ".nbc")
_BEGIN, _END = b"\x80", b"."
"""Of a pickle."""
_SUMS = "kernel_sums.json"
_Sums = dict[str, list[int | str]]
"""Inode, size, time in nanoseconds and SHA-256 by the name of a kernel file."""


def settle_kernel_cache() -> None:
    """Choose the folder and clean it. Never fails: whoever needs a folder that is not there will say so."""
    if VARIABLE not in os.environ and not os.access(_PACKAGE, os.W_OK):
        try:
            os.environ[VARIABLE] = str(cache_directory() / "kernels")
        except AnimPortraitError:
            return
        if "numba" in sys.modules:  # imported before us, by another pack: it has read its variables already
            sys.modules["numba"].config.CACHE_DIR = os.environ[VARIABLE]
    noted = _noted_sums()
    for file in _kernel_files():
        if not _is_whole(file) or _is_altered(file, noted.get(_name(file))):
            _remove(file)
    _note_sums()
    atexit.register(_note_sums)


def kernel_trouble(error: BaseException) -> str | None:
    """None, or, for an error of Numba's own files, what to do, after they were removed."""
    frames = [Path(frame.filename).parts[-3:] for frame in traceback.extract_tb(error.__traceback__)]
    if ("numba", "core", "caching.py") not in frames:
        return None
    for file in _kernel_files():
        _remove(file)
    said = f"{type(error).__name__}: {error}".rstrip(".")
    return (
        f"a compiled kernel on the disk is damaged ({said}). All were removed: run the same again, they are made anew."
    )


def _folder() -> Path:
    return Path(os.environ.get(VARIABLE) or _PACKAGE)


def _name(file: Path) -> str:
    return file.relative_to(_folder()).as_posix()


def _kernel_files() -> Iterator[Path]:
    folder, pattern = _folder(), "*/*.nb?" if os.environ.get(VARIABLE) else "**/__pycache__/*.nb?"
    try:
        yield from (file for file in folder.glob(pattern) if file.suffix in _SUFFIXES)
    except OSError:
        return


def _is_whole(file: Path) -> bool:
    """Whether a file begins and ends as a pickle does; Numba's index is two of them, its data one."""
    try:
        with open(file, "rb") as stream:
            begin = stream.read(1)
            stream.seek(-1, os.SEEK_END)
            return begin == _BEGIN and stream.read(1) == _END
    except OSError:
        return False


def _sums_file() -> Path:
    return _folder() / (_SUMS if os.environ.get(VARIABLE) else f"__pycache__/{_SUMS}")


def _noted_sums() -> _Sums:
    """What the last process noted; nothing where that cannot be read."""
    try:
        found = json.loads(_sums_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) == 4}


def _note_sums() -> None:
    """Note the kernels as they are now; those that nobody touched since the last time are not read again."""
    noted, sums = _noted_sums(), {}
    try:
        for file in _kernel_files():
            name, stamp = _name(file), _stamp(file)
            entry = noted.get(name, [])
            sums[name] = entry if entry[:3] == stamp else [*stamp, sha256_of_file(file)]
        if sums != noted:
            write_json(_sums_file(), sums)
    except (OSError, AnimPortraitError):
        return  # a file that just went, or a disk that takes no more: then less is known, no more


def _stamp(file: Path) -> list[int | str]:
    status = file.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _is_altered(file: Path, entry: list[int | str] | None) -> bool:
    """Whether a file that was noted has other bytes now. Numba never writes into a file, it puts another in its place:
    that one has an inode of its own."""
    try:
        return entry is not None and entry[0] == _stamp(file)[0] and entry[3] != sha256_of_file(file)
    except OSError:
        return False


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)  # another process may be quicker
    except OSError as error:
        LOGGER.warning("The damaged kernel file '%s' cannot be removed (%s); remove it.", file, error.strerror)
