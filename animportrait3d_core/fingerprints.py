"""Hashes of values and of source code, one way of each: for keys of caches and states, and to see that nothing changed.

What a file format prescribes (`BodyModel.fingerprint`, `vertex_order`, SHA-256 of files) is hashed where the format is.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .progress import behind, may_stop

ROOT = Path(__file__).parent


def fingerprint(value: Any) -> str:
    """Hash (32 hex digits) of the tensors, arrays and plain values in nested containers, dataclasses and modules.

    Equal values have one hash, on any device and in any process. Generators count by their state; objects of other
    kinds by their attributes.
    """
    digest = hashlib.blake2b(digest_size=16)
    _update(digest, value, set())
    return digest.hexdigest()


def _update(digest: Any, value: Any, around: set[int]) -> None:
    """`around`: ids of the values that hold this one; one of them inside of itself is not entered again."""
    import numpy as np
    import torch

    if value is None or isinstance(value, (str, int, float, bool, bytes)):
        digest.update(f"{type(value).__name__}:{value!r};".encode())
        return
    if id(value) in around:
        return
    digest.update(f"{type(value).__name__}(".encode())
    if isinstance(value, torch.Tensor):
        may_stop()  # weights of a large model take seconds
        digest.update(f"{value.dtype}{tuple(value.shape)}{value.requires_grad}".encode())
        # A copy: parameters whose data an inference tensor has replaced cannot be viewed, under either mode.
        copied = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(copied.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        around.add(id(value))
        for name, part in _parts(value):
            digest.update(f"{name}=".encode())
            _update(digest, part, around)
        around.remove(id(value))
    digest.update(b")")


def _parts(value: Any) -> list[tuple[str, Any]]:
    import numpy as np
    import torch

    if isinstance(value, dict):
        return sorted(((repr(name), part) for name, part in value.items()), key=lambda entry: entry[0])
    if isinstance(value, (set, frozenset)):
        return [(str(index), part) for index, part in enumerate(sorted(value, key=repr))]
    if isinstance(value, (list, tuple)):
        return [(str(index), part) for index, part in enumerate(value)]
    if dataclasses.is_dataclass(value):
        return [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value)]
    if isinstance(value, torch.nn.Module):
        return list(value.state_dict().items())
    if isinstance(value, torch.Generator):
        return [("state", value.get_state())]
    if isinstance(value, np.random.Generator):
        return [("state", value.bit_generator.state)]
    return list(vars(value).items()) if hasattr(value, "__dict__") else [("repr", repr(value))]


@functools.cache
def source_fingerprint(*modules: str) -> str:
    """Hash (16 hex digits) of the source of modules of this package and of all that they import of it, near and far.

    modules: dotted names below the package, "embedded.portraits.fitting"; the name of a package stands for all of its
    files. Imports inside of functions count, those for type checkers do not.
    """
    digest = hashlib.sha256()
    for path in behind(lambda: imported_files(*modules)):
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def imported_files(*modules: str) -> list[Path]:
    """The files of modules (see `source_fingerprint`) and of everything of this package that they import, sorted."""
    waiting = [file for module in modules for file in _files_of(module)]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting.extend(_imports(file))
    return sorted(found)


def _files_of(module: str) -> list[Path]:
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    if not path.with_suffix(".py").is_file():
        raise ValueError(f"source_fingerprint: there is no module '{module}' in {ROOT.name}.")
    return [path.with_suffix(".py")]


def _imports(file: Path) -> Iterator[Path]:
    """Files of this package that a file imports, with the `__init__.py` of the packages on the way."""
    text = file.read_text(encoding="utf-8")
    if "import_module" in text:  # by a name that is made when it runs: any of its neighbours
        yield from file.parent.glob("*.py")
    for node in _run_time_nodes(ast.parse(text)):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = file.parents[node.level - 1] if node.level else ROOT.parent
        target = base.joinpath(*(node.module.split(".") if node.module else []))
        if ROOT not in (target, *target.parents):
            continue
        for path in (target, *(target / alias.name for alias in node.names)):
            yield from _with_packages(path)


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _with_packages(path: Path) -> Iterator[Path]:
    if path.with_suffix(".py").is_file():
        yield path.with_suffix(".py")
    for package in (path, *path.parents):
        if ROOT not in (package, *package.parents):
            return
        if (package / "__init__.py").is_file():
            yield package / "__init__.py"
