"""The builder writes what the converter reads back."""

from __future__ import annotations

import pytest

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.graph import Link
from animportrait3d_core.workflow.prepare import prepare


def test_what_is_built_is_what_runs(registry):
    graph = WorkflowBuilder("demo", registry)
    with graph.stage("1 Make", note="# Make\nA *note*."):
        source = graph.add("AP3D_Source", size=16, mode="striped", seed=9)
    with graph.stage("2 Use"):
        added = graph.add("AP3D_Add", second=source["toy"], first=source[0], amount=2.0)
        graph.add("AP3D_Save", toy=added["TOY"], title="Keep")
    prompt = prepare(graph.to_json(), registry).prompt
    assert prompt["2"].inputs == {
        "size": 16,
        "seed": 9,
        "mode": "striped",
        "scale": 1.0,
        "label": "",
        "flag": False,
    }
    assert prompt["3"].inputs == {"first": Link("2", 0), "second": Link("2", 0), "amount": 2.0}
    assert prompt["4"].title == "Keep"


def test_links_name_the_slots_they_stand_in(chain):
    nodes = {node["id"]: node for node in chain["nodes"]}
    for link_id, origin, origin_slot, target, target_slot, kind in chain["links"]:
        output = nodes[origin]["outputs"][origin_slot]
        assert link_id in output["links"] and output["type"] == kind
        assert nodes[target]["inputs"][target_slot]["link"] == link_id
    assert chain["last_node_id"] == 4 and chain["last_link_id"] == len(chain["links"]) == 3


def test_stages_do_not_overlap_and_hold_their_nodes(registry):
    graph = WorkflowBuilder("demo", registry)
    with graph.stage("1", note="words " * 40):
        source = graph.add("AP3D_Source")
        graph.add("PreviewImage", images=source["image"])
    with graph.stage("2"):
        graph.add("AP3D_Save", toy=source["toy"])
    built = graph.to_json()
    (x1, y1, w1, h1), (x2, _, _, _) = (group["bounding"] for group in built["groups"])
    assert x1 + w1 <= x2
    first_stage = built["nodes"][:3]
    for upper, lower in zip(first_stage, first_stage[1:]):
        assert upper["pos"][1] + upper["size"][1] < lower["pos"][1]
    for node in first_stage:
        assert x1 <= node["pos"][0] and node["pos"][0] + node["size"][0] <= x1 + w1
        assert y1 <= node["pos"][1] and node["pos"][1] + node["size"][1] <= y1 + h1


def boxed(registry):
    """Two sources and what is folded of them: the box takes a toy, gives a sum, and shows one knob."""
    graph = WorkflowBuilder("boxed", registry)
    with graph.stage("1"):
        source = graph.add("AP3D_Source")
    with graph.stage("2"):
        with graph.folded("Sums", note="It adds."):
            one = graph.add("AP3D_Add", first=source["toy"], amount=0.5, knobs={"amount": "how much"})
            two = graph.add("AP3D_Add", first=one[0], second=source["toy"], output_names={"TOY": "sum"})
        graph.add("AP3D_Save", toy=two[0])
    with graph.stage("3"):
        graph.add("AP3D_Add", first=source["toy"], second=two[0])
        graph.add("AP3D_Save", toy=two[0], title="Keep")
    return graph.to_json()


def test_a_box_takes_and_gives_what_its_nodes_need(registry):
    built = boxed(registry)
    (definition,) = built["definitions"]["subgraphs"]
    box = next(node for node in built["nodes"] if node["type"] == definition["id"])
    assert [(slot["name"], slot["type"]) for slot in box["inputs"]] == [("toy", "TOY"), ("how much", "FLOAT")]
    assert [(slot["name"], slot["type"]) for slot in box["outputs"]] == [("sum", "TOY")]
    assert box["widgets_values"] == [0.5] and "widget" in box["inputs"][1]
    assert [port["name"] for port in definition["inputs"]] == ["toy", "how much"]
    assert len(box["outputs"][0]["links"]) == 3, "one output serves all that want it"
    for link in definition["links"]:
        inner = {node["id"]: node for node in definition["nodes"]}
        if link["target_id"] in inner:
            assert inner[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
        port = {-10: definition["inputs"], -20: definition["outputs"]}
        for end, slot in (("origin_id", "origin_slot"), ("target_id", "target_slot")):
            assert link[end] in inner or link["id"] in port[link[end]][link[slot]]["linkIds"]


def test_a_link_into_a_widget_takes_a_place_among_the_values_of_the_box(registry):
    """As in the frontend: without it the values of the knobs would move up."""
    graph = WorkflowBuilder("values", registry | {"AP3D_Number": Number})
    number = graph.add("AP3D_Number")
    with graph.folded("Box"):
        one = graph.add("AP3D_Source", scale=number[0], knobs={"size": "how many"}, size=7)
    graph.add("AP3D_Save", toy=one["toy"])
    built = graph.to_json()
    box = built["nodes"][1]
    assert [slot["name"] for slot in box["inputs"]] == ["how many", "FLOAT"]
    assert all("widget" in slot for slot in box["inputs"]) and box["widgets_values"] == [7, 1.0]
    inputs = prepare(built, registry | {"AP3D_Number": Number}).prompt["2:3"].inputs
    assert inputs["size"] == 7 and inputs["scale"] == Link("1", 0)


class Number:
    """Where a number comes from."""

    FUNCTION = "make"
    RETURN_TYPES = ("FLOAT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


def test_ids_are_unique_in_the_graph_and_all_boxes(registry):
    """Frontend 1.58 gives new ids to nodes inside that share theirs with others, and with them other prompts."""
    built = boxed(registry)
    graphs = [built, *built["definitions"]["subgraphs"]]
    nodes = [node["id"] for one in graphs for node in one["nodes"]]
    links = [link["id"] if isinstance(link, dict) else link[0] for one in graphs for link in one["links"]]
    assert len(set(nodes)) == len(nodes) == built["last_node_id"]
    assert len(set(links)) == len(links) == built["last_link_id"]


def test_widgets_of_a_node_with_a_knob_stand_behind_its_sockets(registry):
    """Frontend 1.27 finds the widget of a knob by the number of its slot among all of them."""
    graph = WorkflowBuilder("knob", registry)
    with graph.folded("Box"):
        graph.add("AP3D_Source", knobs={"mode": "how"})
    (definition,) = graph.to_json()["definitions"]["subgraphs"]
    slots = definition["nodes"][0]["inputs"]
    assert [slot["name"] for slot in slots] == ["size", "seed", "mode", "scale", "label", "flag"]
    assert definition["links"][0]["target_slot"] == 2 and all("widget" in slot for slot in slots)


def test_long_links_run_above_all_nodes_and_short_ones_between_them(registry):
    built = boxed(registry)
    corners = {reroute["id"]: reroute for reroute in built["extra"]["reroutes"]}
    parents = {entry["id"]: entry["parentId"] for entry in built["extra"]["linkExtensions"]}
    nodes = {node["id"]: node for node in built["nodes"]}
    left = {node_id: node["pos"][0] for node_id, node in nodes.items()}
    columns = sorted(set(left.values()))
    for link_id, origin, _, target, _, _ in built["links"]:
        column, other = columns.index(left[origin]), columns.index(left[target])
        assert (link_id in parents) == (other != column + 1)
        if link_id in parents:
            before = corners[parents[link_id]]
            behind = corners[before["parentId"]]
            y = before["pos"][1]
            assert y == behind["pos"][1] and link_id in before["linkIds"] and link_id in behind["linkIds"]
            top = nodes[target]["pos"][1] - 30
            assert y < 0 if other != column else y < top and y > nodes[origin]["pos"][1] + nodes[origin]["size"][1]


def test_the_same_calls_give_the_same_file(registry):
    def build():
        graph = WorkflowBuilder("demo", registry)
        graph.add("AP3D_Save", toy=graph.add("AP3D_Source")["toy"])
        return graph.to_text()

    assert build() == build()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"amount": 1.0}, "needs a link for 'first'"),
        ({"first": "image", "amount": 1.0}, "AP3D_Add takes TOY for 'first', AP3D_Source gives IMAGE"),
        ({"first": "toy", "weight": 1.0}, "has no input weight"),
        ({"first": "color"}, "has no output 'color'; it has toy, image"),
    ],
)
def test_mistakes_are_refused(registry, values, message):
    graph = WorkflowBuilder("demo", registry)
    source = graph.add("AP3D_Source")
    with pytest.raises(InvalidInput, match=message):
        if "first" in values:
            values = values | {"first": source[values["first"]]}
        graph.add("AP3D_Add", **values)


def test_a_knob_needs_a_box_and_a_widget_with_a_value(registry):
    graph = WorkflowBuilder("demo", registry)
    with pytest.raises(InvalidInput, match="AP3D_Source.size cannot be a knob"):
        graph.add("AP3D_Source", knobs={"size": "how many"})
    with graph.folded("Box"), pytest.raises(InvalidInput, match="stage 'In it' cannot stand in a folded box"):
        with graph.stage("In it"):
            pass
