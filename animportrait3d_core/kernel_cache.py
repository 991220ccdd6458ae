"""Where compiled kernels are kept; settled when the package is imported, before Numba is.

Numba keeps them beside the source. Where that folder cannot be written it looks for another one in the user's home, and
ends where there is none; and it ends at files that a full disk or a crash left empty. Both are mended here: kernels are
then kept in the pack's cache, and files that are not whole are removed, so that they are compiled again. Damage that
only reading finds ends the run that met it; the command line removes all kernels then, and the next run compiles them.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from .errors import AnimPortraitError
from .files import LOGGER, cache_directory

VARIABLE = "NUMBA_CACHE_DIR"
_PACKAGE = Path(__file__).parent
_SUFFIXES = (".nbi", ".nbc")
_BEGIN, _END = b"\x80", b"."
"""Of a pickle."""


def settle_kernel_cache() -> None:
    """Choose the folder and clean it. Never fails: whoever needs a folder that is not there will say so."""
    if VARIABLE not in os.environ and not os.access(_PACKAGE, os.W_OK):
        try:
            os.environ[VARIABLE] = str(cache_directory() / "kernels")
        except AnimPortraitError:
            return
        if "numba" in sys.modules:  # imported before us, by another pack: it has read its variables already
            sys.modules["numba"].config.CACHE_DIR = os.environ[VARIABLE]
    for file in _kernel_files():
        if not _is_whole(file):
            _remove(file)


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


def _kernel_files() -> Iterator[Path]:
    own = os.environ.get(VARIABLE)
    folder, pattern = (Path(own), "*/*.nb?") if own else (_PACKAGE, "**/__pycache__/*.nb?")
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


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)  # another process may be quicker
    except OSError as error:
        LOGGER.warning("The damaged kernel file '%s' cannot be removed (%s); remove it.", file, error.strerror)
