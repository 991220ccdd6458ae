"""The shipped graphs are those that scripts/make_workflows.py writes, and every one of them would run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from animportrait3d_core.workflow import RunSettings, read_graph_file, run
from animportrait3d_core.workflow.prepare import prepare

ROOT = Path(__file__).parents[2]
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
SETTINGS = json.loads((ROOT / "tests" / "shipped_graphs.json").read_text(encoding="utf-8"))


def test_every_graph_has_its_test_settings():
    assert {graph.stem for graph in GRAPHS} == set(SETTINGS)


@pytest.mark.parametrize("file", GRAPHS, ids=lambda file: file.stem)
def test_a_graph_is_what_its_script_writes(file):
    script = runpy.run_path(str(ROOT / "scripts" / "make_workflows.py"))
    assert file.read_text(encoding="utf-8") == script["build"](file.stem), "run scripts/make_workflows.py"


@pytest.mark.parametrize("file", GRAPHS, ids=lambda file: file.stem)
def test_a_graph_and_its_tiny_settings_are_accepted(file, node_classes):
    graph = read_graph_file(file)
    assert graph["version"] == 0.4 and graph["groups"]
    assert any(node["type"] == "MarkdownNote" for node in graph["nodes"])
    plan = prepare(graph, node_classes, SETTINGS[file.stem]["tiny"])
    assert plan.order


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", GRAPHS, ids=lambda file: file.stem)
def test_a_graph_runs_at_tiny_size_and_no_node_changes_its_inputs(file, tmp_path, node_classes):
    overrides = tuple(SETTINGS[file.stem]["tiny"])
    settings = RunSettings(tmp_path, overrides=overrides, device="cpu", verify_values=True)
    result = run(file, node_classes, settings)
    graph = read_graph_file(file)
    ours = {str(node["id"]) for node in graph["nodes"] if node["type"].startswith("AP3D_")}
    assert {record.id for record in result.report.nodes} == ours
    assert not list(tmp_path.rglob(".*")), "a temporary file was left behind"
