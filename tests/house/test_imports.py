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
NOUNS = {
    "errors", "progress", "fingerprints", "parts", "regions", "landmarks", "head_frame", "similarity",
    "randomness", "rotations", "cameras", "depths", "views", "meshes", "gaussians", "devices", "socket_values",
}  # fmt: skip
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server", "execution"}
MAY_IMPORT_EMBEDDED = {"embedded", "cli", "commands", "evaluation"}

# Which part of core may import which, those for type checkers included. Everybody may import `errors`; a part is a
# package or a module directly under core. One line each: a new arrow is one word here, and an unused word is refused.
ARROWS = {
    # nouns
    "parts": "meshes socket_values",
    "cameras": "devices head_frame",
    "meshes": "socket_values",
    "depths": "cameras progress",
    "views": "cameras depths devices socket_values",
    "fingerprints": "progress",
    "similarity": "progress",
    "gaussians": "devices",
    # tools that know nothing of the method
    "files": "progress",
    "kernel_cache": "files",
    "kernels": "kernel_cache",
    "runs": "files progress",
    "model_weights": "",
    "archives": "",
    "pickles": "",
    "npy_arrays": "archives pickles",
    "torch_checkpoints": "archives files npy_arrays pickles",
    "mesh_queries": "meshes",
    "render": "cameras gaussians kernels progress rotations",
    "mesh_files": "files mesh_queries meshes",
    "previews": "cameras files meshes progress render views",
    # the method
    "networks": "files landmarks model_weights parts progress",
    "body": "archives cameras devices files head_frame landmarks mesh_files mesh_queries meshes npy_arrays pickles "
    "previews progress regions render rotations socket_values torch_checkpoints views",
    "surface": "cameras files fingerprints kernels mesh_queries meshes previews progress randomness render runs "
    "socket_values views",
    "portrait": "avatar body cameras files gaussians head_frame kernels landmarks mesh_files mesh_queries meshes "
    "pickles previews progress regions render rotations runs socket_values surface torch_checkpoints views",
    "segmentation": "cameras meshes parts progress render socket_values views",
    "rigging": "body cameras devices head_frame mesh_queries meshes parts render rotations socket_values",
    "avatar": "body cameras devices files gaussians parts progress render rigging rotations socket_values views",
    "diffusion": "files fingerprints model_weights progress randomness socket_values torch_checkpoints",
    "conditioning": "body cameras devices kernels landmarks meshes render socket_values",
    "optimization": "avatar body cameras conditioning diffusion fingerprints gaussians parts previews progress "
    "randomness render rigging runs similarity views",
    "animation": "archives avatar body cameras files head_frame landmarks meshes npy_arrays pickles previews progress "
    "randomness render rotations socket_values",
    "export": "animation avatar body cameras conditioning files gaussians head_frame mesh_files meshes optimization "
    "parts previews progress randomness render rigging rotations similarity views",
    "training": "devices diffusion files fingerprints landmarks networks parts previews progress randomness regions "
    "runs similarity",
    "initialization": "avatar body cameras meshes networks optimization parts portrait progress render rigging "
    "segmentation surface views",
    # what stands above the method
    "doctor": "files render surface",
    "embedded": "body cameras conditioning depths diffusion doctor files fingerprints head_frame kernels landmarks "
    "mesh_files meshes networks parts portrait previews progress regions render rotations runs similarity surface "
    "training views",
    "evaluation": "animation avatar body cameras conditioning diffusion embedded files fingerprints head_frame "
    "initialization landmarks mesh_queries meshes optimization parts portrait previews progress regions "
    "render rigging similarity surface",
    "workflow": "devices files fingerprints progress runs",
    "commands": "animation avatar body embedded evaluation export files initialization networks previews progress "
    "training workflow",
    "cli": "avatar body commands doctor embedded evaluation files kernel_cache mesh_files networks portrait training "
    "workflow",
    "__main__": "cli",
}


def imports(file):
    """Absolute dotted names of everything a file imports, relative imports resolved against the repository root."""
    package = list(file.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
            if name.startswith("."):
                yield ".".join([*package, name[1:]])
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


def allowed(part):
    return set(ARROWS.get(part, "").split())


def arrows():
    """Part of core -> the other parts that its files import."""
    found = {}
    for file in CORE_FILES:
        others = {
            name for name in core_parts(file) if (ROOT / CORE / name).is_dir() or (ROOT / CORE / f"{name}.py").is_file()
        }
        found.setdefault(part_of(file), set()).update(others - {part_of(file), "errors"})
    return found


def imported_files(file):
    """Files of core that a file imports; what a package offers comes from its `__init__.py`."""
    for name in imports(file):
        parts = name.split(".")
        if parts[0] != CORE:
            continue
        for place in (ROOT.joinpath(*parts), ROOT.joinpath(*parts[:-1])):
            if place.with_suffix(".py").is_file():
                yield place.with_suffix(".py")
                break
            if (place / "__init__.py").is_file():
                yield place / "__init__.py"
                break


def circles(graph):
    """Nodes of a graph (node -> nodes) that lie on circles or between them: what is left when ends are taken off."""
    left = {node: set(others) & set(graph) - {node} for node, others in graph.items()}
    while True:
        ends = {node for node, others in left.items() if not others}
        ends |= set(left) - set().union(*left.values())
        if not ends:
            return left
        left = {node: others - ends for node, others in left.items() if node not in ends}


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == {}
    assert set(circles({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b", "e"}, "e": set()})) == {"b", "c", "d"}


def test_no_arrow_between_parts_of_core_but_those_of_the_table():
    surplus = {part: sorted(others - allowed(part)) for part, others in arrows().items() if others - allowed(part)}
    assert surplus == {}, "imports that ARROWS does not allow"


def test_the_table_names_no_arrow_that_is_not_there():
    found = arrows()
    unused = {part: sorted(allowed(part) - found.get(part, set())) for part in ARROWS}
    assert {part: names for part, names in unused.items() if names} == {}
    assert not set(ARROWS) - set(found)


def test_no_circle_of_parts():
    assert circles({part: allowed(part) for part in arrows()}) == {}


def test_no_circle_of_files():
    left = circles({file: set(imported_files(file)) for file in CORE_FILES})
    assert sorted(file.relative_to(ROOT).as_posix() for file in left) == []


def test_the_walk_resolves_relative_imports():
    runner = set(imports(ROOT / CORE / "workflow" / "runner.py"))
    assert f"{CORE}.surface.hash_grid" in set(imports(ROOT / CORE / "doctor.py"))
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


def test_render_imports_only_nouns_and_numba():
    for file in (ROOT / CORE / "render").glob("*.py"):
        assert set(core_parts(file)) <= NOUNS | {"render", "kernels"}, file


def test_numba_is_imported_in_one_place_after_its_folder_is_settled():
    found = [file.stem for file in CORE_FILES if "numba" in {name.split(".")[0] for name in imports(file)}]
    assert found == ["kernels"]


def test_the_runner_knows_nothing_of_portraits():
    known = {"devices", "errors", "files", "fingerprints", "progress", "runs", "workflow", "__version__"}
    for file in (ROOT / CORE / "workflow").glob("*.py"):
        assert set(core_parts(file)) <= known, file


@pytest.mark.parametrize("file", NODE_FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nodes_import_heavy_packages_inside_functions_only(file):
    light = {f"{CORE}.errors", f"{CORE}.progress", f"{CORE}.workflow.context"}
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
