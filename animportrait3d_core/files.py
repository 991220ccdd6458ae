"""Files: written to a temporary name and renamed, read without running anything in them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import InvalidInput, MissingModelFile


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
        raise InvalidInput(f"atomic_write: cannot write into '{path.parent}' ({error.strerror}).") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; results are as readable as any other file of the user.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_directory() -> Path:
    """Folder for things that can be made again: $ANIMPORTRAIT3D_CACHE, else ~/.cache/animportrait3d. Created."""
    configured = os.environ.get("ANIMPORTRAIT3D_CACHE")
    directory = Path(configured) if configured else Path.home() / ".cache" / "animportrait3d"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cache_directory: cannot create '{directory}' ({error.strerror}); "
            "set ANIMPORTRAIT3D_CACHE to a folder that can be written."
        ) from error
    return directory


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


def read_safetensors(path: str | Path, where: str = "read_safetensors") -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `InvalidInput` if it is damaged or of another format."""
    from safetensors import SafetensorError, safe_open

    path = require_file(where, path)
    try:
        with safe_open(str(path), framework="pt") as stream:
            names = list(stream.keys())
            return {name: stream.get_tensor(name) for name in names}, dict(stream.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInput(f"{where}: '{path}' is not a whole safetensors file ({error}).") from error
