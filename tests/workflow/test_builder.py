"""The builder writes what the converter reads back."""

from __future__ import annotations

import pytest

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.workflow import Link
from animportrait3d_core.workflow.builder import WorkflowBuilder
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
