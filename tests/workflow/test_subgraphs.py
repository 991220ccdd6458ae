"""Subgraphs, laid out flat: what is folded runs as what is not, in every way in which the frontend stores it."""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.convert import ui_to_prompt
from animportrait3d_core.workflow.definitions import define_node
from animportrait3d_core.workflow.graph import Link
from animportrait3d_core.workflow.prepare import prepare
from animportrait3d_core.workflow.runner import RunSettings, run

MUTED, BYPASSED = 2, 4


@pytest.fixture()
def convert(registry):
    definitions = {name: define_node(name, node_class) for name, node_class in registry.items()}
    return lambda graph: ui_to_prompt(graph, definitions)


@pytest.fixture()
def folded(registry):
    """Source (#1) -> box (#2) of Add (#3) and, within a box (#4), Add (#5) -> Save (#6). Amounts are knobs of boxes."""
    graph = WorkflowBuilder("folded", registry)
    source = graph.add("AP3D_Source", seed=5)
    with graph.folded("Outer"):
        first = graph.add("AP3D_Add", first=source["toy"], amount=0.25, knobs={"amount": "outer amount"}, title="One")
        with graph.folded("Inner"):
            second = graph.add(
                "AP3D_Add", first=first[0], second=source["toy"], amount=0.5, knobs={"amount": "more"}, title="Two"
            )
    graph.add("AP3D_Save", toy=second[0])
    return copy.deepcopy(graph.to_json())


def unnumbered(prompt):
    """A prompt without ids: each node as its class, title and inputs, links as what they lead to."""

    def describe(node_id):
        node = prompt[node_id]
        values = [
            (name, (describe(value.node_id), value.slot) if isinstance(value, Link) else value)
            for name, value in sorted(node.inputs.items())
        ]
        return repr((node.class_type, node.title, values))

    return sorted(describe(node_id) for node_id in prompt)


def definition(graph, name):
    return next(entry for entry in graph["definitions"]["subgraphs"] if entry["name"] == name)


def node(graph, node_id):
    graphs = [graph, *graph["definitions"]["subgraphs"]]
    return next(entry for one in graphs for entry in one["nodes"] if entry["id"] == node_id)


def test_what_is_folded_runs_as_what_is_not(registry, convert, folded):
    graph = WorkflowBuilder("flat", registry)
    source = graph.add("AP3D_Source", seed=5)
    first = graph.add("AP3D_Add", first=source["toy"], amount=0.25, title="One")
    second = graph.add("AP3D_Add", first=first[0], second=source["toy"], amount=0.5, title="Two")
    graph.add("AP3D_Save", toy=second[0])
    prompt = convert(folded)
    assert set(prompt) == {"1", "2:3", "2:4:5", "6"}
    assert prompt["6"].inputs["toy"] == Link("2:4:5", 0) and prompt["2:4:5"].inputs["second"] == Link("1", 0)
    assert unnumbered(prompt) == unnumbered(convert(graph.to_json()))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8))
def test_any_nesting_runs_as_the_flat_graph(registry, convert, steps):
    """Each step: how deep its node lies, and which of the nodes before it feed it."""

    def build(deep):
        graph = WorkflowBuilder("nested", registry)
        made = [graph.add("AP3D_Source")["toy"]]
        for depth, one, other in steps:
            values = {"first": made[one % len(made)], "second": made[other % len(made)], "amount": float(one)}
            add = _within(graph, depth if deep else 0, values)
            made.append(add[0])
        graph.add("AP3D_Save", toy=made[-1])
        return graph.to_json()

    assert unnumbered(convert(build(True))) == unnumbered(convert(build(False)))


def _within(graph, depth, values):
    if depth == 0:
        return graph.add("AP3D_Add", **values)
    with graph.folded(f"Box {depth}"):
        return _within(graph, depth - 1, values)


def test_an_instance_has_its_own_value_of_a_promoted_widget(convert, folded):
    node(folded, 2)["widgets_values"] = [7.5, 8.5]
    prompt = convert(folded)
    assert (prompt["2:3"].inputs["amount"], prompt["2:4:5"].inputs["amount"]) == (7.5, 8.5)
    # A box within a box has its own value as soon as the outer one does not hand it inwards.
    inner = node(folded, 4)
    inner["widgets_values"] = [9.5]
    assert convert(folded)["2:4:5"].inputs["amount"] == 8.5
    handed = next(slot for slot in inner["inputs"] if slot.get("widget"))
    outer = definition(folded, "Outer")
    outer["links"] = [link for link in outer["links"] if link["id"] != handed["link"]]
    for port in outer["inputs"]:
        port["linkIds"] = [number for number in port["linkIds"] if number != handed["link"]]
    handed["link"] = None
    assert convert(folded)["2:4:5"].inputs["amount"] == 9.5


@pytest.mark.parametrize("values", [[], [None], None])
def test_without_a_value_of_its_own_an_instance_has_that_of_the_widget_inside(convert, folded, values):
    node(folded, 2)["widgets_values"] = values
    assert convert(folded)["2:3"].inputs["amount"] == 0.25


def test_values_go_by_the_order_of_the_instances_inputs(registry, convert):
    graph = WorkflowBuilder("order", registry)
    with graph.folded("Box"):
        source = graph.add("AP3D_Source", knobs={"size": "how many", "scale": "how large"})
    graph.add("AP3D_Save", toy=source["toy"])
    built = copy.deepcopy(graph.to_json())
    box = node(built, 1)
    box["inputs"].reverse()
    box["widgets_values"] = [2.0, 9]
    inputs = convert(built)["1:2"].inputs
    assert (inputs["size"], inputs["scale"]) == (9, 2.0)


def test_two_instances_of_one_definition(convert, folded):
    second = {**copy.deepcopy(node(folded, 2)), "id": 20, "widgets_values": [3.0]}
    folded["nodes"].append(second)
    link = next(slot["link"] for slot in second["inputs"] if slot["link"] is not None)
    second["inputs"] = [{**slot, "link": 90 if slot["link"] == link else slot["link"]} for slot in second["inputs"]]
    folded["links"].append([90, 2, 0, 20, 0, "TOY"])
    save = node(folded, 6)
    folded["links"].append([91, 20, 0, 6, 0, "TOY"])
    save["inputs"][0]["link"] = 91
    prompt = convert(folded)
    assert {"2:3", "2:4:5", "20:3", "20:4:5"} < set(prompt)
    assert (prompt["2:3"].inputs["amount"], prompt["20:3"].inputs["amount"]) == (0.25, 3.0)
    assert prompt["20:3"].inputs["first"] == Link("2:4:5", 0) and prompt["6"].inputs["toy"] == Link("20:4:5", 0)


def test_a_muted_instance_vanishes_with_all_that_is_in_it(convert, folded):
    node(folded, 2)["mode"] = MUTED
    prompt = convert(folded)
    assert set(prompt) == {"1", "6"} and "toy" not in prompt["6"].inputs


def test_a_bypassed_instance_hands_on_its_fitting_input(convert, folded):
    node(folded, 4)["mode"] = BYPASSED
    prompt = convert(folded)
    assert set(prompt) == {"1", "2:3", "6"} and prompt["6"].inputs["toy"] == Link("2:3", 0)
    node(folded, 2)["mode"] = BYPASSED
    assert convert(folded)["6"].inputs["toy"] == Link("1", 0)


def test_muted_and_bypassed_nodes_inside(convert, folded):
    node(folded, 5)["mode"] = BYPASSED
    assert convert(folded)["6"].inputs["toy"] == Link("2:3", 0)
    node(folded, 3)["mode"] = MUTED
    assert "toy" not in convert(folded)["6"].inputs


def test_a_link_goes_before_a_promoted_value(convert, folded):
    slot = next(slot for slot in node(folded, 2)["inputs"] if slot["name"] == "outer amount")
    folded["links"].append([95, 1, 1, 2, node(folded, 2)["inputs"].index(slot), "FLOAT"])
    slot["link"] = 95
    assert convert(folded)["2:3"].inputs["amount"] == Link("1", 1)
    node(folded, 1)["mode"] = MUTED
    assert convert(folded)["2:3"].inputs["amount"] == 0.25


def test_an_input_that_is_handed_straight_to_an_output(convert, folded):
    outer = definition(folded, "Outer")
    outer["links"].append({"id": 96, "origin_id": -10, "origin_slot": 0, "target_id": -20, "target_slot": 0})
    outer["outputs"][0]["linkIds"] = [96]
    assert convert(folded)["6"].inputs["toy"] == Link("1", 0)


def test_reroutes_and_primitives_inside(convert, folded):
    outer = definition(folded, "Outer")
    feeding = next(link for link in outer["links"] if link["target_id"] == 3 and link["type"] == "TOY")
    outer["nodes"].append({"id": 40, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 97}]})
    outer["links"].append({**feeding, "id": 97, "target_id": 40, "target_slot": 0})
    feeding.update(origin_id=40, origin_slot=0)
    primitive = {"id": 41, "type": "PrimitiveNode", "widgets_values": [6.0, "fixed"]}
    outer["nodes"].append(primitive)
    amount = next(slot for slot in node(folded, 3)["inputs"] if slot["name"] == "amount")
    outer["links"].append({"id": 98, "origin_id": 41, "origin_slot": 0, "target_id": 3, "target_slot": 2})
    amount["link"] = 98
    outer["inputs"] = [port for port in outer["inputs"] if port["name"] != "outer amount"]
    inputs = convert(folded)["2:3"].inputs
    assert inputs["first"] == Link("1", 0) and inputs["amount"] == 6.0


PROXIES = [  # proxyWidgets, widgets_values, then the amounts of #3 and #5
    ([["-1", "outer amount"]], [1.5], (1.5, 0.5)),
    ([["3", "amount"]], [1.5], (1.5, 0.5)),
    ([["4", "more"], ["-1", "outer amount"]], [2.5, 1.5], (1.5, 2.5)),
    ([["3", "$$canvas-image-preview"], ["4", "more"]], ["", 2.5], (0.25, 2.5)),
    ([["4", "more"], ["3", "amount"]], [], (0.25, 0.5)),
]


@pytest.mark.parametrize(("proxies", "values", "amounts"), PROXIES)
def test_promoted_widgets_may_be_listed_as_proxies(convert, folded, proxies, values, amounts):
    node(folded, 2).update(properties={"proxyWidgets": proxies}, widgets_values=values)
    prompt = convert(folded)
    assert (prompt["2:3"].inputs["amount"], prompt["2:4:5"].inputs["amount"]) == amounts


def test_a_proxy_of_a_widget_without_an_input(convert, registry):
    graph = WorkflowBuilder("proxy", registry)
    with graph.folded("Box"):
        source = graph.add("AP3D_Source")
    graph.add("AP3D_Save", toy=source["toy"])
    built = copy.deepcopy(graph.to_json())
    node(built, 1).update(properties={"proxyWidgets": [["2", "scale"], ["2", "unknown"]]}, widgets_values=[4.0, 1])
    inputs = convert(built)["1:2"].inputs
    assert inputs["scale"] == 4.0 and "unknown" not in inputs


def test_values_inside_are_set_by_title_class_and_id(registry, folded):
    def amount(node_id, *overrides):
        return prepare(folded, registry, overrides).prompt[node_id].inputs["amount"]

    assert amount("2:3", "One.amount=4") == amount("2:3", "2:3.amount=4") == 4.0
    assert prepare(folded, registry, ["AP3D_Source.size=3"]).prompt["1"].inputs["size"] == 3
    with pytest.raises(InvalidInput, match=r"'AP3D_Add' fits 2 nodes \(AP3D_Add \(#2:3\), AP3D_Add \(#2:4:5\)\)"):
        amount("2:3", "AP3D_Add.amount=4")


def test_a_report_names_nodes_inside_by_their_path(registry, folded, tmp_path):
    result = run(folded, registry, RunSettings(tmp_path))
    assert [record.id for record in result.report.nodes] == ["1", "2:3", "2:4:5", "6"]


def _contain_itself(graph):
    inner = definition(graph, "Inner")
    inner["nodes"].append({"id": 50, "type": definition(graph, "Outer")["id"]})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_contain_itself, r"a subgraph contains itself: '(Inner|Outer)' in '(Inner|Outer)' in '(Inner|Outer)'"),
        (lambda g: g["definitions"]["subgraphs"].pop(), r"node #2 is a subgraph, and its definition .* is missing"),
        (
            lambda g: definition(g, "Inner")["nodes"].clear(),
            r"'Inner' has an input 'toy' for node #5 inside it, which is gone",
        ),
        (
            lambda g: node(g, 2).update(properties={"proxyWidgets": [["33", "amount"]]}),
            r"'Outer' \(#2\) has an input 'amount' for node #33 inside it, which is gone",
        ),
        (lambda g: definition(g, "Outer").pop("nodes"), "'Outer' has no list of nodes"),
        (
            lambda g: definition(g, "Outer")["links"].clear(),
            r"AP3D_Add \(#2:3\): input 'amount' names link 2:\d+, which the graph lacks",
        ),
    ],
)
def test_damaged_subgraphs_are_refused_by_name(convert, folded, damage, message):
    damage(folded)
    with pytest.raises(InvalidInput, match=message):
        convert(folded)
