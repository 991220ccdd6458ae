"""Imports point one way: nodes -> core; nouns and render know nobody; the method does not know the embedded world."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = "animportrait3d_core"
CORE_FILES = sorted((ROOT / CORE).rglob("*.py"))
NODE_FILES = sorted((ROOT / "nodes").rglob("*.py"))
NOUNS = {"errors", "rotations", "cameras", "views", "meshes", "gaussians"}
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server", "execution"}
MAY_IMPORT_EMBEDDED = {"embedded", "cli", "evaluation"}


def imports(file):
    """Absolute dotted names of everything a file imports, relative imports resolved against the repository root."""
    package = list(file.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*prefix, alias.name]) for alias in node.names)


def core_parts(file):
    """First name below core of everything a file imports from core: "render", "errors", ..."""
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == CORE and len(parts) > 1:
            yield parts[1]


def part_of(file):
    return file.relative_to(ROOT / CORE).with_suffix("").parts[0]


def test_the_walk_resolves_relative_imports():
    runner = set(imports(ROOT / CORE / "workflow" / "runner.py"))
    assert {"animportrait3d_core.errors.InvalidInput", "animportrait3d_core.workflow.prepare.prepare"} <= runner


@pytest.mark.parametrize("file", CORE_FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_core_imports_neither_host_nor_nodes(file):
    found = [name for name in imports(file) if name.split(".")[0] in HOST_MODULES]
    assert found == []


@pytest.mark.parametrize("file", CORE_FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_only_some_parts_import_the_embedded_world(file):
    if part_of(file) not in MAY_IMPORT_EMBEDDED:
        assert "embedded" not in set(core_parts(file))


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_nouns_import_only_nouns(noun):
    assert set(core_parts(ROOT / CORE / f"{noun}.py")) <= NOUNS


def test_render_imports_only_nouns():
    for file in (ROOT / CORE / "render").glob("*.py"):
        assert set(core_parts(file)) <= NOUNS | {"render"}, file


def test_conditioning_imports_only_nouns_body_and_render():
    for file in (ROOT / CORE / "conditioning").glob("*.py"):
        assert set(core_parts(file)) <= NOUNS | {"body", "conditioning", "render"}, file


def test_the_runner_imports_only_errors_and_files():
    for file in (ROOT / CORE / "workflow").glob("*.py"):
        assert set(core_parts(file)) <= {"errors", "files", "workflow", "__version__"}, file


@pytest.mark.parametrize("file", NODE_FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nodes_import_heavy_packages_inside_functions_only(file):
    light = {f"{CORE}.errors", f"{CORE}.workflow.context"}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {"torch", "numpy", CORE}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            root = (node.module or "").split(".")[0]
            assert root not in {"torch", "numpy", "PIL", "scipy", "trimesh"}
            assert root != CORE or node.module in light, f"{file}: import {node.module} inside a function"


@pytest.mark.parametrize("file", NODE_FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nodes_outside_host_do_not_touch_comfyui(file):
    if "host" not in file.relative_to(ROOT).parts:
        assert [name for name in imports(file) if name.split(".")[0] in HOST_MODULES - {"nodes"}] == []
    # Relative imports resolve to "nodes.x" here; absolute ones would be ComfyUI's own module.
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] != "nodes"
        if isinstance(node, ast.Import):
            assert "nodes" not in {alias.name.split(".")[0] for alias in node.names}


def test_registration_is_quick_and_imports_no_torch():
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from animportrait3d_core.workflow.registry import load_pack\n"
        "start = time.perf_counter(); pack = load_pack(sys.argv[1]); seconds = time.perf_counter() - start\n"
        "heavy = {'torch', 'numpy', 'numba', 'scipy', 'trimesh', 'PIL'} & set(sys.modules)\n"
        "print(len(pack.NODE_CLASS_MAPPINGS), seconds, sorted(heavy))"
    )
    output = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True).stdout
    count, seconds, heavy = output.split(maxsplit=2)
    assert int(count) >= 1
    assert float(seconds) < 0.3
    assert heavy.strip() == "[]"
