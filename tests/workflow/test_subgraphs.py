"""Subgraphs, laid out flat: what is folded runs as what is not, and every way in which the frontend stores them."""

from __future__ import annotations

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.workflow import Link, ui_to_prompt
from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.definitions import define_node
from animportrait3d_core.workflow.prepare import prepare

MUTED, BYPASSED = 2, 4


@pytest.fixture()
def convert(registry):
    definitions = {name: define_node(name, node_class) for name, node_class in registry.items()}
    return lambda graph: ui_to_prompt(graph, definitions)


def folded_graph(registry):
    """Source (#1) -> box (#2) of Add (#3) and box (#4) of Add (#5) -> Save (#6); both amounts are knobs of their box."""
    graph = WorkflowBuilder("folded", registry)
    source = graph.add("AP3D_Source", seed=5)
    with graph.folded("Outer", "What it does."):
        first = graph.add("AP3D_Add", first=source["toy"], amount=0.25, knobs={"amount": "outer amount"}, title="One")
        with graph.folded("Inner"):
            second = graph.add("AP3D_Add", first=first[0], second=source["toy"], amount=0.5, knobs={"amount": "more"})
    graph.add("AP3D_Save", toy=second[0])
    return copy.deepcopy(graph.to_json())


def flat_graph(registry):
    graph = WorkflowBuilder("flat", registry)
    source = graph.add("AP3D_Source", seed=5)
    first = graph.add("AP3D_Add", first=source["toy"], amount=0.25, title="One")
    second = graph.add("AP3D_Add", first=first[0], second=source["toy"], amount=0.5)
    graph.add("AP3D_Save", toy=second[0])
    return graph.to_json()


def unnumbered(prompt):
    """A prompt without ids: each node as its class, title and inputs, links as what they lead to."""
    seen = {}

    def describe(node_id):
        if node_id not in seen:
            node = prompt[node_id]
            values = sorted(
                (name, (describe(value.node_id), value.slot) if isinstance(value, Link) else repr(value))
                for name, value in node.inputs.items()
            )
            seen[node_id] = (node.class_type, node.title, tuple(values))
        return seen[node_id]

    return sorted(repr(describe(node_id)) for node_id in prompt)


def box_of(graph, title):
    """A folded box and its definition."""
    graphs = [graph, *graph["definitions"]["subgraphs"]]
    box = next(
        node
        for one in graphs
        for node in one["nodes"]
        if node.get("title") == title and "inputs" in node and node["type"] != "MarkdownNote"
    )
    return box, next(one for one in graph["definitions"]["subgraphs"] if one["id"] == box["type"])


def test_what_is_folded_runs_as_what_is_not(registry, convert):
    folded = convert(folded_graph(registry))
    assert unnumbered(folded) == unnumbered(convert(flat_graph(registry)))
    inner = next(key for key in folded if key.count(":") == 2)
    assert re.fullmatch(r"\d+:\d+:\d+", inner) and folded["8"].inputs["toy"] == Link(inner, 0)
