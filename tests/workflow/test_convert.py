"""UI graph to prompt: every node that exists in the frontend alone, and every way a widget value is stored."""

from __future__ import annotations

import copy

import pytest

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.workflow.convert import ui_to_prompt
from animportrait3d_core.workflow.definitions import define_node
from animportrait3d_core.workflow.graph import Link, prompt_to_json

MUTED, BYPASSED = 2, 4


@pytest.fixture()
def convert(registry):
    definitions = {name: define_node(name, node_class) for name, node_class in registry.items()}
    return lambda graph: ui_to_prompt(graph, definitions)


def node(graph, node_id):
    return next(entry for entry in graph["nodes"] if entry["id"] == node_id)


def insert(graph, link_id, entry, kind="TOY"):
    """Put a one-in one-out node into a link."""
    entry = {
        "mode": 0,
        "inputs": [{"name": "", "type": "*", "link": link_id}],
        "outputs": [{"name": "", "type": kind, "links": []}],
    } | entry
    link = next(link for link in graph["links"] if link[0] == link_id)
    new_id = 100 + link_id
    graph["links"].append([new_id, entry["id"], 0, link[3], link[4], kind])
    node(graph, link[3])["inputs"][link[4]]["link"] = new_id
    link[3], link[4] = entry["id"], 0
    graph["nodes"].append(entry)


def test_widget_values_skip_the_control_entry_behind_a_seed(chain, convert):
    assert node(chain, 1)["widgets_values"] == [8, 5, "fixed", "plain", 1.0, "two\nlines", False]
    inputs = convert(chain)["1"].inputs
    assert inputs == {"size": 8, "seed": 5, "mode": "plain", "scale": 1.0, "label": "two\nlines", "flag": False}


def test_links_widgets_and_titles_in_api_format(chain, convert):
    entry = prompt_to_json(convert(chain))["2"]
    assert entry == {
        "class_type": "AP3D_Add",
        "inputs": {"amount": 0.5, "first": ["1", 0]},
        "_meta": {"title": "AP3D_Add"},
    }


def test_links_may_be_objects(chain, convert):
    expected = convert(copy.deepcopy(chain))
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    chain["links"] = [dict(zip(keys, link)) for link in chain["links"]]
    assert convert(chain) == expected


def test_widget_values_by_name(chain, convert):
    expected = convert(copy.deepcopy(chain))["1"].inputs
    node(chain, 1)["widgets_values"] = dict(expected) | {"control_after_generate": "fixed"}
    assert convert(chain)["1"].inputs == expected


def test_a_widget_added_later_shows_its_default(chain, convert):
    node(chain, 1)["widgets_values"] = [8, 5, "fixed", "striped"]
    inputs = convert(chain)["1"].inputs
    assert (inputs["mode"], inputs["scale"], inputs["label"], inputs["flag"]) == ("striped", 1.0, "", False)


def test_more_widget_values_than_widgets_are_refused(chain, convert):
    node(chain, 2)["widgets_values"] = [0.5, "left over"]
    with pytest.raises(InvalidInput, match=r"AP3D_Add \(#2\).*2 widget values, the node has 1"):
        convert(chain)


def test_reroutes_are_followed(chain, convert):
    expected = convert(copy.deepcopy(chain))
    insert(chain, 1, {"id": 50, "type": "Reroute"})
    insert(chain, 101, {"id": 51, "type": "Reroute"})
    assert convert(chain) == expected


def test_reroutes_in_a_circle_are_refused(chain, convert):
    insert(chain, 1, {"id": 50, "type": "Reroute"})
    insert(chain, 101, {"id": 51, "type": "Reroute"})
    loop = node(chain, 50)["inputs"][0]
    chain["links"].append([999, 51, 0, 50, 0, "TOY"])
    loop["link"] = 999
    with pytest.raises(InvalidInput, match="cycle"):
        convert(chain)


def test_notes_vanish(chain, convert):
    expected = convert(copy.deepcopy(chain))
    for node_id, kind in ((60, "Note"), (61, "MarkdownNote")):
        chain["nodes"].append({"id": node_id, "type": kind, "mode": 0, "widgets_values": ["hello"]})
    assert convert(chain) == expected


def test_a_muted_node_vanishes_with_the_links_it_feeds(chain, convert):
    node(chain, 2)["mode"] = MUTED
    prompt = convert(chain)
    assert "2" not in prompt
    assert prompt["3"].inputs == {"prefix": "toy"}


def test_a_bypassed_node_hands_on_its_input(chain, convert):
    node(chain, 2)["mode"] = BYPASSED
    prompt = convert(chain)
    assert "2" not in prompt
    assert prompt["3"].inputs["toy"] == Link("1", 0)


def test_a_bypassed_node_without_a_fitting_input_leaves_the_input_open(chain, convert):
    node(chain, 1)["mode"] = BYPASSED
    assert "first" not in convert(chain)["2"].inputs


def test_a_bypassed_node_prefers_the_input_of_the_same_index(chain, convert):
    bypassed = node(chain, 2)
    bypassed["mode"] = BYPASSED
    bypassed["outputs"].append({"name": "again", "type": "TOY", "links": [2]})
    next(link for link in chain["links"] if link[0] == 2)[2] = 1
    assert [slot["name"] for slot in bypassed["inputs"]] == ["first", "second"]  # and only the first is linked
    assert "toy" not in convert(chain)["3"].inputs


def test_a_primitive_writes_into_the_widget_it_feeds(chain, convert):
    chain["links"].append([70, 90, 0, 2, 2, "FLOAT"])
    node(chain, 2)["inputs"].append({"name": "amount", "type": "FLOAT", "link": 70, "widget": {"name": "amount"}})
    chain["nodes"].append(
        {
            "id": 90,
            "type": "PrimitiveNode",
            "mode": 0,
            "outputs": [{"name": "FLOAT", "type": "FLOAT", "links": [70]}],
            "widgets_values": [2.25, "fixed"],
        }
    )
    assert convert(chain)["2"].inputs["amount"] == 2.25


def test_a_converted_widget_takes_its_link_not_its_value(chain, convert):
    chain["links"].append([70, 1, 0, 2, 2, "TOY"])
    node(chain, 2)["inputs"].append({"name": "amount", "type": "FLOAT", "link": 70, "widget": {"name": "amount"}})
    assert convert(chain)["2"].inputs["amount"] == Link("1", 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda g: g["links"].pop(0), r"AP3D_Add \(#2\): input 'first' names link 1, which the graph lacks"),
        (lambda g: g["links"][0].__setitem__(1, 77), r"AP3D_Add \(#2\): input 'first' is linked to node #77: no such"),
        (lambda g: g["nodes"].append(dict(g["nodes"][0])), "node id 1 occurs twice"),
        (lambda g: g["nodes"][0].pop("type"), "lacks its id or type"),
        (lambda g: g["links"].append([1, 2]), r"expected \[id, from, slot"),
        (lambda g: g["links"].append(["a", 1, 0, 2, 0, "TOY"]), "no integers"),
        (lambda g: g.update(definitions={"subgraphs": [{"id": "AP3D_Save"}]}), "'AP3D_Save' has no list of nodes"),
        (lambda g: [n.update(mode=MUTED) for n in g["nodes"]], "no node that could run"),
    ],
)
def test_damaged_graphs_are_refused_by_name(chain, convert, damage, message):
    damage(chain)
    with pytest.raises(InvalidInput, match=message):
        convert(chain)
