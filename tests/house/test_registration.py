"""The registered nodes are complete: ids, tooltips, help pages; and one broken module does not take down the rest."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
import sys
from pathlib import Path

import pytest

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.workflow.definitions import define_node
from animportrait3d_core.workflow.registry import load_pack, load_registry

ROOT = Path(__file__).parents[2]
PACK = load_pack(ROOT)
NODES = sorted(PACK.NODE_CLASS_MAPPINGS.items())


def test_every_module_loaded(caplog):
    # Loaded again, so that the log lines of the first time are seen here.
    del sys.modules[PACK.__name__]
    with caplog.at_level(logging.ERROR, logger="animportrait3d"):
        again = load_pack(ROOT)
    assert again is not PACK
    assert caplog.messages == []
    assert sorted(again.NODE_CLASS_MAPPINGS) == sorted(PACK.NODE_CLASS_MAPPINGS)


@pytest.mark.parametrize(("node_id", "node_class"), NODES)
def test_a_node_is_documented_and_executable(node_id, node_class):
    assert node_id.startswith("AP3D_")
    assert PACK.NODE_DISPLAY_NAME_MAPPINGS[node_id].strip()
    assert node_class.CATEGORY.startswith("AnimPortrait3D") and len(node_class.DESCRIPTION) > 20
    definition = define_node(node_id, node_class)
    for entry in definition.inputs:
        assert entry.options.get("tooltip"), f"{node_id}: '{entry.name}' has no tooltip"
    assert len(node_class.OUTPUT_TOOLTIPS) == len(definition.return_types) == len(definition.return_names)
    parameters = inspect.signature(getattr(node_class, node_class.FUNCTION)).parameters
    names = {entry.name for entry in definition.inputs} | set(definition.hidden)
    catches_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    assert names <= set(parameters) or catches_all
    if not definition.is_output:
        assert definition.return_types, f"{node_id}: neither outputs nor an output node"


@pytest.mark.parametrize(("node_id", "node_class"), NODES)
def test_the_arguments_of_a_node_are_typed(node_id, node_class):
    """What a socket carries is a class of core, so that mypy sees what a node does with it."""
    types = inspect.get_annotations(getattr(node_class, node_class.FUNCTION))
    for entry in define_node(node_id, node_class).inputs:
        assert entry.is_widget or "Any" not in types.get(entry.name, ""), f"{node_id}: '{entry.name}' is of type Any"


@pytest.mark.parametrize(("node_id", "node_class"), NODES)
def test_defaults_are_within_their_own_limits(node_id, node_class):
    for entry in define_node(node_id, node_class).widgets:
        assert "min" not in entry.options or entry.default >= entry.options["min"]
        assert "max" not in entry.options or entry.default <= entry.options["max"]
        assert entry.choices is None or entry.default in entry.choices, f"{node_id}: '{entry.name}' offers nothing"


TYPED = {
    "talking head": "AP3D_AnimateAvatar", "avatar": "AP3D_LoadAvatar", "rig": "AP3D_RigPoints",
    "3dgs": "AP3D_ExportAvatar",
    "gaussian splatting": "AP3D_InitializeAvatar", "smplx": "AP3D_LoadSMPLX", "flame": "AP3D_LoadSMPLX",
    "text to avatar": "AP3D_TextToPortrait", "face parsing": "AP3D_SegmentViews", "rembg": "AP3D_MatteViews",
    "upload mesh": "AP3D_PortraitFromMesh", "contact sheet": "AP3D_ContactSheet", "error": "AP3D_Doctor",
    "score distillation": "AP3D_ISMOptimize",
}  # fmt: skip


@pytest.mark.parametrize(("words", "node_id"), TYPED.items())
def test_what_people_type_finds_a_node(words, node_id):
    assert words in {alias.lower() for alias in PACK.NODE_CLASS_MAPPINGS[node_id].SEARCH_ALIASES}


@pytest.mark.parametrize(("node_id", "node_class"), NODES)
def test_a_node_is_found_by_more_than_its_name(node_id, node_class):
    aliases = [alias.lower() for alias in node_class.SEARCH_ALIASES]
    assert len(set(aliases)) == len(aliases) >= 4, node_id


@pytest.mark.parametrize("node_id", [node_id for node_id, _ in NODES])
def test_a_node_has_a_help_page(node_id):
    page = ROOT / "web" / "docs" / f"{node_id}.md"
    assert page.is_file(), f"write web/docs/{node_id}.md"
    assert page.read_text(encoding="utf-8").startswith("# ")


def test_help_pages_belong_to_nodes():
    pages = {page.stem for page in (ROOT / "web" / "docs").glob("*.md")}
    assert pages <= set(PACK.NODE_CLASS_MAPPINGS)


def test_loading_and_listing_makes_no_folder(tmp_path, monkeypatch):
    """Model folders are made by whoever has a model to put there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANIMPORTRAIT3D_MODELS", str(tmp_path / "models"))
    for node_class in load_pack(ROOT).NODE_CLASS_MAPPINGS.values():
        node_class.INPUT_TYPES()
    assert list(tmp_path.iterdir()) == []


def test_a_broken_module_costs_its_own_nodes_and_one_line(copied_pack, caplog):
    (copied_pack / "nodes" / "broken.py").write_text("import a_package_nobody_has\n")
    with caplog.at_level(logging.ERROR, logger="animportrait3d"):
        registry = load_registry(copied_pack)
    assert sorted(registry) == sorted(PACK.NODE_CLASS_MAPPINGS)
    assert len(caplog.messages) == 1 and "nodes/broken.py was not loaded: ModuleNotFoundError" in caplog.messages[0]


def test_a_second_node_of_the_same_id_is_refused(copied_pack, caplog):
    shutil.copy(copied_pack / "nodes" / "doctor.py", copied_pack / "nodes" / "doctor_again.py")
    with caplog.at_level(logging.ERROR, logger="animportrait3d"):
        load_registry(copied_pack)
    assert len(caplog.messages) == 1 and "AP3D_Doctor" in caplog.messages[0]


def test_a_folder_that_is_no_pack_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no __init__.py"):
        load_registry(tmp_path)
    (tmp_path / "__init__.py").write_text("")
    with pytest.raises(InvalidInput, match="no NODE_CLASS_MAPPINGS"):
        load_registry(tmp_path)


def test_each_package_says_what_lives_there():
    for package in sorted((ROOT / "animportrait3d_core").rglob("__init__.py")):
        assert package.read_text(encoding="utf-8").lstrip().startswith('"""'), package


def test_the_project_name_is_fit_for_the_registry():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    name = json.loads(next(line for line in text.splitlines() if line.startswith("name =")).partition("=")[2])
    assert name == "animportrait3d" and "comfyui" not in name.lower()
    assert 'PublisherId = "animportrait3d"' in text
