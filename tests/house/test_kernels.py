"""Compiled kernels give the same bytes whatever was compiled or loaded before them.

Numba keeps a copy of a called kernel in each caller, and one of its own. Copies of one name are one to the linker:
which of them runs depends on what a process compiled and what it loaded from the disk. With fastmath, copies that were
compiled in other contexts round differently.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
from numba.core.dispatcher import Dispatcher

ROOT = Path(__file__).parents[2]
KERNEL_FILES = [file for file in (ROOT / "animportrait3d_core").rglob("*.py") if "njit" in file.read_text("utf-8")]


def kernels_of(file: Path) -> Iterator[tuple[str, Dispatcher]]:
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    for name, value in vars(module).items():
        if isinstance(value, Dispatcher) and value.py_func.__module__ == module.__name__:
            yield name, value


def called_by(kernel: Dispatcher) -> Iterator[Dispatcher]:
    found = kernel.py_func.__globals__
    yield from (found[name] for name in kernel.py_func.__code__.co_names if isinstance(found.get(name), Dispatcher))


def test_no_kernel_has_loops_that_numba_divides():
    """`render.threads.run_parallel` does: the bodies of such loops are callees too."""
    kernels = {f"{file.stem}.{name}": kernel for file in KERNEL_FILES for name, kernel in kernels_of(file)}
    assert len(kernels) > 100
    assert [name for name, kernel in kernels.items() if kernel.targetoptions.get("parallel")] == []


def rounds_by_context(kernel: Dispatcher) -> bool:
    options = kernel.targetoptions
    inlined = options.get("forceinline", False) or options.get("inline") == "always"
    return bool(options.get("fastmath", False)) and not inlined


@pytest.mark.parametrize("file", KERNEL_FILES, ids=lambda file: file.stem)
def test_kernels_that_others_call_are_inlined_or_exact(file):
    kernels = dict(kernels_of(file))
    assert kernels
    callees = {callee.py_func.__qualname__: callee for kernel in kernels.values() for callee in called_by(kernel)}
    wrong = sorted(name for name, callee in callees.items() if rounds_by_context(callee))
    assert not wrong, f"add forceinline=True, or leave fastmath out: {wrong}"


def test_the_rule_finds_what_it_forbids():
    inner = numba.njit(fastmath=True)(lambda x: x + 1)
    scope = {"inner": inner}
    exec("def outer(x): return inner(x)", scope)
    assert [rounds_by_context(kernel) for kernel in called_by(numba.njit(scope["outer"]))] == [True]
    for exact in (numba.njit(forceinline=True, fastmath=True), numba.njit(inline="always", fastmath=True), numba.njit):
        assert not rounds_by_context(exact(lambda x: x + 1))


SCRIPT = """
import hashlib
from pathlib import Path
from animportrait3d_core.cameras import view_preset
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait, render_trigrid
portrait = load_trigrid_portrait(Path("animportrait3d_core/embedded/portraits/files/rosa.safetensors"))
image = render_trigrid(portrait, view_preset("heldout", 24))
print(hashlib.sha256(image.rgb.numpy().tobytes() + image.depth.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_portrait_is_the_same_with_kernels_just_compiled_and_from_the_disk(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    runs = [subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    assert list(tmp_path.rglob("*.nbi")) and runs[0].stdout == runs[1].stdout
