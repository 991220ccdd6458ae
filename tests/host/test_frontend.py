"""ComfyUI's own frontend in headless Chromium: it opens every shipped graph, and its graphToPrompt equals ours.

Needs comfyui-frontend-package, node, playwright-core and Chromium; skipped by name where one is absent. A small server
answers with our node definitions in place of ComfyUI.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.convert import ui_to_prompt
from animportrait3d_core.workflow.core_nodes import CORE_NODES
from animportrait3d_core.workflow.definitions import define_node
from animportrait3d_core.workflow.graph import prompt_to_json, read_graph_file
from animportrait3d_core.workflow.subgraphs import subgraph_entries
from tests.host.browser import installed_frontend, run_script
from tests.host.frontend_server import FrontendServer, object_info

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
GRAPHS = sorted((ROOT / "workflows").rglob("*.json"))
MUTED, BYPASSED = 2, 4


class WidgetZoo:
    """Every kind of widget, each companion widget, and sockets between them."""

    CATEGORY = "test"
    FUNCTION = "execute"
    RETURN_TYPES = ("TOY", "IMAGE", "FLOAT")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "count": ("INT", {"default": 3, "min": 0, "max": 9}),
                "first": ("TOY",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32}),
                "noise_seed": ("INT", {"default": 0, "control_after_generate": False}),
                "number": ("INT", {"default": 0, "control_after_generate": True}),
                "choice": (["a", "b"], {"control_after_generate": True}),
                "options": ("COMBO", {"options": ["x", "y"]}),
                "text": ("STRING", {"multiline": True}),
                "forced": ("STRING", {"forceInput": True}),
            },
            "optional": {
                "flag": ("BOOLEAN", {"default": True}),
                "second": ("TOY",),
                "weight": ("FLOAT", {"default": 0.25, "step": 0.001, "round": False}),
            },
        }


class Start:
    """Where toys come from."""

    CATEGORY = "test"
    FUNCTION = "execute"
    RETURN_TYPES = ("TOY", "STRING", "FLOAT")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


ZOO = {"AP3D_TestZoo": WidgetZoo, "AP3D_TestStart": Start}


def zoo_graph():
    """Start (#1) -> Zoo (#2) -> Zoo (#3)."""
    graph = WorkflowBuilder("zoo", ZOO)
    start = graph.add("AP3D_TestStart")
    values = {"count": 7, "seed": 11, "number": 4, "choice": "b", "options": "y", "text": "one\ntwo", "flag": False}
    zoo = graph.add("AP3D_TestZoo", first=start["TOY"], forced=start["STRING"], weight=0.125, **values)
    graph.add("AP3D_TestZoo", first=zoo["TOY"], second=start["TOY"], forced=start["STRING"], weight=zoo["FLOAT"])
    return copy.deepcopy(graph.to_json())


def node(graph, node_id):
    return next(entry for entry in graph["nodes"] if entry["id"] == node_id)


def with_mode(node_id, mode):
    graph = zoo_graph()
    node(graph, node_id)["mode"] = mode
    return graph


def with_reroute():
    graph = zoo_graph()
    link = next(link for link in graph["links"] if link[3] == 3 and link[5] == "TOY")
    graph["links"].append([90, 50, 0, link[3], link[4], "TOY"])
    node(graph, 3)["inputs"][link[4]]["link"] = 90
    link[3], link[4] = 50, 0
    graph["nodes"].append(
        {
            "id": 50,
            "type": "Reroute",
            "pos": [0, 900],
            "size": [75, 26],
            "flags": {},
            "order": 5,
            "mode": 0,
            "inputs": [{"name": "", "type": "*", "link": link[0]}],
            "outputs": [{"name": "", "type": "TOY", "links": [90]}],
            "properties": {"showOutputText": False, "horizontal": False},
        }
    )
    graph["last_node_id"], graph["last_link_id"] = 50, 90
    return graph


def with_primitive():
    graph = zoo_graph()
    slots = node(graph, 2)["inputs"]
    graph["links"].append([91, 51, 0, 2, len(slots), "INT"])
    slots.append({"name": "count", "type": "INT", "link": 91, "widget": {"name": "count"}})
    graph["nodes"].append(
        {
            "id": 51,
            "type": "PrimitiveNode",
            "pos": [-400, 0],
            "size": [210, 82],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": "INT", "type": "INT", "links": [91], "widget": {"name": "count"}}],
            "properties": {"Run widget replace on values": False},
            "widgets_values": [8, "fixed"],
        }
    )
    graph["last_node_id"], graph["last_link_id"] = 51, 91
    return graph


def folded_zoo():
    """Start (#1) -> box (#2) of Zoo (#3) and, within a box (#4), Zoo (#5) -> Zoo (#6); the outer box has
    knobs of nodes in both."""
    graph = WorkflowBuilder("folded zoo", ZOO)
    start = graph.add("AP3D_TestStart")
    asked = {"forced": start["STRING"], "text": "one\ntwo"}
    with graph.folded("Outer"):
        knobs = {"count": "how many", "choice": "which", "text": "words"}
        zoo = graph.add("AP3D_TestZoo", first=start["TOY"], **asked, count=7, weight=0.125, knobs=knobs)
        with graph.folded("Inner"):
            inner = graph.add(
                "AP3D_TestZoo",
                first=zoo["TOY"],
                second=start["TOY"],
                weight=start["FLOAT"],
                **asked,
                knobs={"flag": "on"},
            )
    graph.add("AP3D_TestZoo", first=inner["TOY"], second=zoo["TOY"], weight=zoo["FLOAT"], forced=start["STRING"])
    return copy.deepcopy(graph.to_json())


def inside(graph, title):
    """The definition of a box."""
    return next(entry for entry in graph["definitions"]["subgraphs"] if entry["name"] == title)


def folded_with_mode(mode, *within):
    """Frontend 1.27 writes the mode of a box to all that is in it, and goes by that alone."""
    graph = folded_zoo()
    if not within:
        node(graph, 2)["mode"] = mode
        within = ("Outer", "Inner")
    for entry in (entry for title in within for entry in inside(graph, title)["nodes"]):
        entry["mode"] = mode
    return graph


def folded_with_values():
    graph = folded_zoo()
    node(graph, 2)["widgets_values"] = [5, "a", "other words", False]
    return graph


def folded_twice():
    """A second instance of the outer box, with values of its own, feeds the last node."""
    graph = folded_zoo()
    box = copy.deepcopy(node(graph, 2)) | {"id": 20, "widgets_values": [1, "b", "again", False], "pos": [900, 900]}
    for slot, new in zip([slot for slot in box["inputs"] if slot["link"]], (90, 91, 92)):
        old = next(link for link in graph["links"] if link[0] == slot["link"])
        graph["links"].append([new, old[1], old[2], 20, old[4], old[5]])
        slot["link"] = new
    for slot in box["outputs"]:
        slot["links"] = []
    graph["nodes"].append(box)
    link = next(link for link in graph["links"] if link[1] == 2 and link[3] == 6)
    link[1] = 20
    box["outputs"][link[2]]["links"] = [link[0]]
    graph["last_node_id"], graph["last_link_id"] = 20, 92
    return graph


def folded_with_reroute():
    graph = folded_zoo()
    outer = inside(graph, "Outer")
    link = next(link for link in outer["links"] if link["target_id"] == 3 and link["type"] == "TOY")
    reroute = {"id": 50, "type": "Reroute", "pos": [0, 900], "size": [75, 26], "flags": {}, "order": 5, "mode": 0}
    reroute["inputs"] = [{"name": "", "type": "*", "link": 93}]
    reroute["outputs"] = [{"name": "", "type": "TOY", "links": [link["id"]]}]
    outer["nodes"].append(reroute | {"properties": {"showOutputText": False, "horizontal": False}})
    outer["links"].append({**link, "id": 93, "target_id": 50, "target_slot": 0})
    port = outer["inputs"][link["origin_slot"]]
    port["linkIds"] = [93 if number == link["id"] else number for number in port["linkIds"]]
    link.update(origin_id=50, origin_slot=0)
    graph["last_node_id"], graph["last_link_id"] = 50, 93
    return graph


def with_short_values():
    graph = zoo_graph()
    node(graph, 2)["widgets_values"] = node(graph, 2)["widgets_values"][:5]
    return graph


def graphs():
    shipped = {file.stem: read_graph_file(file) for file in GRAPHS}
    return shipped | {
        "zoo": zoo_graph(),
        "zoo_muted": with_mode(2, MUTED),
        "zoo_bypassed": with_mode(2, BYPASSED),
        "zoo_start_bypassed": with_mode(1, BYPASSED),
        "zoo_reroute": with_reroute(),
        "zoo_primitive": with_primitive(),
        "zoo_short_values": with_short_values(),
        "folded": folded_zoo(),
        "folded_values": folded_with_values(),
        "folded_twice": folded_twice(),
        "folded_reroute": folded_with_reroute(),
        "folded_muted": folded_with_mode(MUTED),
        "folded_bypassed": folded_with_mode(BYPASSED),
        "folded_muted_inside": folded_with_mode(MUTED, "Inner"),
        "folded_bypassed_inside": folded_with_mode(BYPASSED, "Inner"),
    }


@pytest.fixture(scope="module")
def all_classes(node_classes):
    return {**CORE_NODES, **node_classes, **ZOO}


@pytest.fixture(scope="module")
def frontend_url(all_classes, pack):
    static = installed_frontend()
    if static is None:
        pytest.skip("comfyui-frontend-package is not installed")
    server = FrontendServer(static, object_info(all_classes, pack.NODE_DISPLAY_NAME_MAPPINGS))
    yield server.url
    server.close()


@pytest.fixture(scope="module")
def opened(frontend_url, tmp_path_factory):
    """{name: {prompt, values, missing, errors}} of every graph, from one visit of the frontend."""
    folder = tmp_path_factory.mktemp("frontend")
    (folder / "graphs.json").write_text(json.dumps(graphs()))
    screenshots = [os.environ["FRONTEND_SCREENSHOTS"]] if "FRONTEND_SCREENSHOTS" in os.environ else []
    run_script("frontend.js", [frontend_url, str(folder / "graphs.json"), str(folder / "prompts.json"), *screenshots])
    return json.loads((folder / "prompts.json").read_text())


@pytest.mark.parametrize("file", GRAPHS, ids=lambda file: file.stem)
def test_the_frontend_keeps_the_stored_values(opened, file):
    """Companions too: a seed that is stored as `fixed` and comes back as `randomize` makes every run another one."""
    graph = read_graph_file(file)
    boxes = {entry["id"] for entry in subgraph_entries(graph)}
    for node in graph["nodes"]:
        if node["type"].startswith("AP3D_") or node["type"] in boxes:
            assert opened[file.stem]["values"][str(node["id"])] == node["widgets_values"], node["type"]


@pytest.mark.parametrize("name", list(graphs()))
def test_the_frontends_prompt_equals_ours(opened, all_classes, name):
    definitions = {node_id: define_node(node_id, node_class) for node_id, node_class in all_classes.items()}
    ours = prompt_to_json(ui_to_prompt(graphs()[name], definitions))
    assert opened[name]["missing"] == []
    theirs = opened[name]["prompt"]
    # The order of nodes and titles of core nodes (translated by the frontend) carry no meaning.
    assert {node_id: (entry["class_type"], entry["inputs"]) for node_id, entry in theirs.items()} == {
        node_id: (entry["class_type"], entry["inputs"]) for node_id, entry in ours.items()
    }
