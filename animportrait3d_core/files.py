"""Files: written to a temporary name and renamed, read without running anything in them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InvalidInput, MissingModelFile
from .progress import behind

LOGGER = logging.getLogger("animportrait3d")


NO_ROOM = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS") if hasattr(errno, name))
"""Errors of a disk that takes no more."""


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; rename it into place when the block ends well.

    A block that raises leaves no trace, and an older file at `path` stays whole.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InvalidInput(
            f"atomic_write: cannot write into '{path.parent}' ({error.strerror}); choose another folder."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
        _put_in_place(temporary, path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InvalidInput(
            f"atomic_write: cannot write '{path}' ({error.strerror}). Make room on the disk and run the same again; "
            "what was there before is whole."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename; `InvalidInput` where a folder has the name, or the older file is held open (Windows)."""
    try:
        temporary.replace(path)
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InvalidInput(f"atomic_write: cannot write '{path}' ({error.strerror}); choose another name.") from error


@contextlib.contextmanager
def atomic_folder(where: str, folder: Path, names: re.Pattern[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; rename it into place when the block ends well.

    A block that raises leaves no trace, and an older folder stays whole. overwrite: replace an older folder, if all of
    its files match `names`; else, and without it, one that is there is refused. where: begins the messages.
    """
    if folder.exists():
        _check_replaceable(where, folder, names, overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        told = f"cannot write into '{folder.parent}' ({error.strerror}); choose another folder."
        raise InvalidInput(f"{where}: {told}") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if folder.exists():
            older = temporary / "older"
            folder.rename(older)
            shutil.rmtree(older)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(where: str, folder: Path, wanted: re.Pattern[str], overwrite: bool) -> None:
    """Raise `InvalidInput` unless the folder may be replaced: on demand, and where it holds frames alone."""
    if not overwrite:
        raise InvalidInput(f"{where}: '{folder}' is there already; choose another name, or overwrite it.")
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else [folder.name]
    others = [name for name in names if not wanted.fullmatch(name)]
    if others:
        raise InvalidInput(
            f"{where}: '{folder}' holds other things than frames ('{others[0]}'), and is not replaced; choose "
            "another name."
        )


def _umask() -> int:
    """The rights that this user withholds: results are as readable as any other file of the user."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


TEMPORARY_PREFIX = "animportrait3d-"


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A folder that lives as long as the block; those of processes that were killed before are swept first."""
    owner, parent = f"{TEMPORARY_PREFIX}{_host_name()}-", temporary_parent()
    for folder in parent.glob(f"{owner}*"):
        process = folder.name[len(owner) :].partition("-")[0]
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{owner}{os.getpid()}-", dir=parent) as name:
        yield Path(name)


def temporary_parent() -> Path:
    """The system's folder of temporary files. `InvalidInput` where there is none: a container may be read-only."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise InvalidInput(
            "temporary_parent: none of the folders for temporary files can be written; set TMPDIR to one that can."
        ) from error


def _host_name() -> str:
    """Containers that share a folder for temporary files have process numbers of their own."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", platform.node()) or "host"


def _is_alive(process: int) -> bool:
    """Whether a process of this number runs; unknown, hence yes, on Windows, where asking would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def cache_directory() -> Path:
    """Folder for things that can be made again, created: $ANIMPORTRAIT3D_CACHE, else ~/.cache/animportrait3d.

    Where there is no home folder, or none that can be written, a private folder among the temporary files; a warning
    says so once. Raises `InvalidInput` where none can be written.
    """
    configured = os.environ.get("ANIMPORTRAIT3D_CACHE")
    if configured:
        wanted = Path(os.path.expanduser(configured))
        reason = _why_not_writable(wanted)
        if reason is None:
            return wanted
        raise InvalidInput(
            f"cache_directory: cannot write into '{wanted}' ({reason}); set ANIMPORTRAIT3D_CACHE to a folder that can "
            "be written."
        )
    wanted = Path(os.path.expanduser("~")) / ".cache" / "animportrait3d"
    reason = _why_not_writable(wanted) if wanted.is_absolute() else "this user has no home folder"
    return wanted if reason is None else _temporary_cache(f"'{wanted}': {reason}")


def _temporary_cache(reason: str) -> Path:
    """A folder of this user's own among the temporary files. reason: why it is not the usual one."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        folder = temporary_parent() / f"ap3d-cache-{user}"
    except InvalidInput as error:
        raise InvalidInput(
            f"cache_directory: no folder for things made once: {reason}, and no folder for temporary files can be "
            "written. Set ANIMPORTRAIT3D_CACHE and TMPDIR to folders that can."
        ) from error
    problem = _why_not_writable(folder)
    if problem is None and hasattr(os, "getuid") and folder.stat().st_uid != user:
        problem = "it belongs to another user"
    if problem is not None:
        raise InvalidInput(
            f"cache_directory: no folder for things made once: {reason}; '{folder}': {problem}. Set "
            "ANIMPORTRAIT3D_CACHE to a folder that can be written."
        )
    if reason not in _TOLD:
        _TOLD.add(reason)
        LOGGER.warning(
            "%s. What is made once is kept in '%s', which may be emptied: set ANIMPORTRAIT3D_CACHE to a folder that "
            "stays.", reason, folder,
        )  # fmt: skip
    return folder


_TOLD: set[str] = set()


def _why_not_writable(folder: Path) -> str | None:
    """None if the folder is there, or was made now, and can be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or type(error).__name__
    return None if os.access(folder, os.W_OK | os.X_OK) else "it cannot be written"


_SUMS = ".sums.json"
_SEEN: dict[Path, tuple[int, int]] = {}
"""Size and time of files that this process has checked."""
_MAKING = threading.RLock()  # what is made may need other files that are made


def made_files(folder: Path, names: Sequence[str], make: Callable[[], object]) -> list[Path]:
    """Files that can be made again: `make` is called where one is absent, or is no longer as it was written.

    Their SHA-256 are kept beside them, in a file named by the first.
    """
    paths = [folder / name for name in names]
    if not _are_whole(paths):
        behind(lambda: _made(paths, make))
    return paths


def _made(paths: Sequence[Path], make: Callable[[], object]) -> None:
    with _MAKING:
        if _are_whole(paths):  # by the thread that a stopped run left behind
            return
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        make()
        write_json(_sums_of(paths), {path.name: sha256_of_file(path) for path in paths})
        _SEEN.update({path: _stamp(path) for path in paths})


def _are_whole(paths: Sequence[Path]) -> bool:
    try:
        if all(_SEEN.get(path) == _stamp(path) for path in paths):
            return True
        sums = json.loads(_sums_of(paths).read_text(encoding="utf-8"))
        whole = all(sha256_of_file(path) == sums[path.name] for path in paths)
        _SEEN.update({path: _stamp(path) for path in paths if whole})
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return whole


def _sums_of(paths: Sequence[Path]) -> Path:
    return paths[0].with_name(f".{paths[0].name}{_SUMS}")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


GIT_LFS = b"version https://git-lfs.github.com/spec/"


def git_lfs_reason(data: bytes) -> str | None:
    """None, or that the first bytes of a file are those of a Git LFS pointer, which stands for a file not fetched."""
    if not data.startswith(GIT_LFS):
        return None
    return (
        "it is a Git LFS pointer of a few bytes, not the file itself: run `git lfs pull` in its repository, or "
        "download the file"
    )


def require_file(where: str, path: str | Path, hint: str = "") -> Path:
    """The path, if it is a non-empty file and no Git LFS pointer; else `MissingModelFile` or `InvalidInput`."""
    path = Path(path)
    if not path.is_file():
        kind = "is a folder, expected a file" if path.is_dir() else "does not exist"
        raise MissingModelFile(f"{where}: '{path}' {kind}. {hint}".rstrip())
    if path.stat().st_size == 0:
        raise InvalidInput(f"{where}: '{path}' is empty (0 bytes). {hint}".rstrip())
    with open(path, "rb") as file:
        reason = git_lfs_reason(file.read(len(GIT_LFS)))
    if reason is not None:
        raise InvalidInput(f"{where}: '{path}' cannot be read: {reason}.")
    return path


def parse_json(text: str | bytes) -> Any:
    """Value of a JSON text; `ValueError` if it is none, or nested deeper than Python's reader goes.

    >>> parse_json("[" * 100000)
    Traceback (most recent call last):
    ...
    ValueError: it is nested too deep
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def json_of_file(path: str | Path) -> Any:
    """Value of a JSON file in UTF-8, UTF-16 or UTF-32, with a byte-order mark or without; else `ValueError`."""
    data = Path(path).read_bytes()
    return parse_json(data.decode(json.detect_encoding(data)))


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's contents."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(stream)


def _sha256(stream: Any) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file in one piece."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_safetensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write tensors and string metadata as one safetensors file, in one piece; equal content gives equal bytes.

    Raises `InvalidInput` when the disk does not take it (full, or a limit on files); an older file stays whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in contiguous.values())
    with atomic_write(path) as temporary:
        try:
            save_file(contiguous, str(temporary), metadata=dict(metadata))
            _sort_metadata(temporary)
        except (OSError, SafetensorError) as error:
            raise InvalidInput(
                f"write_safetensors: cannot write the {size / 1e6:,.0f} MB of '{path}' ({error}). Make room on the "
                "disk and run the same again; what was there before is whole."
            ) from error


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: the library writes several entries in a random one."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        if len(text) > size:
            raise RuntimeError(f"write_safetensors: a header of {size} bytes became {len(text)} when it was sorted.")
        file.seek(8)
        file.write(text.ljust(size))


STORED_TYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Types that every operation of torch takes."""

MOST_DIMENSIONS = 16


def read_safetensors(path: str | Path, where: str = "read_safetensors") -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `InvalidInput` if it is damaged or of another format."""
    from safetensors import SafetensorError, safe_open

    path = require_file(where, path)
    try:
        with safe_open(str(path), framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
            metadata = dict(stream.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInput(f"{where}: '{path}' is not a whole safetensors file ({str(error)[:300]}).") from error
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in STORED_TYPES or tensor.ndim > MOST_DIMENSIONS:
            raise InvalidInput(
                f"{where}: '{path}' holds `{name[:80]}` of type {kind} with {tensor.ndim} dimensions, expected "
                f"{', '.join(STORED_TYPES)} and at most {MOST_DIMENSIONS} dimensions."
            )
    return tensors, metadata
