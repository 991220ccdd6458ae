"""Damaged graphs either run or are refused with a typed error; nothing else comes out of the runner."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import AnimPortraitError
from animportrait3d_core.workflow.graph import prompt_to_json
from animportrait3d_core.workflow.prepare import prepare

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["toy", "1", "2"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=6), children, max_size=3),
    max_leaves=6,
)
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(max_examples=8000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value, path=()):
    """Paths of everything inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def damaged(graph, draw):
    graph = copy.deepcopy(graph)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(graph) if path]))
        holder = graph
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()):
            holder[path[-1]] = draw(JSON_VALUES)
        else:
            del holder[path[-1]]
    return graph


def check_prepared_or_refused(graph, registry):
    try:
        plan = prepare(graph, registry)
    except AnimPortraitError as error:
        assert str(error)
        return None
    assert set(plan.order) <= set(plan.prompt)
    for position, node_id in enumerate(plan.order):
        assert {link.node_id for link in plan.prompt[node_id].links().values()} <= set(plan.order[:position])
    return plan


@QUICK
@given(data=st.data())
def test_damaged_ui_graphs(chain, registry, data):
    check_prepared_or_refused(damaged(chain, data.draw), registry)


@QUICK
@given(data=st.data())
def test_damaged_api_graphs(chain, registry, data):
    api = json.loads(json.dumps(prompt_to_json(prepare(chain, registry).prompt)))
    check_prepared_or_refused(damaged(api, data.draw), registry)


@pytest.mark.fuzz
@LONG
@given(data=st.data())
def test_damaged_ui_graphs_for_long(chain, registry, data):
    check_prepared_or_refused(damaged(chain, data.draw), registry)


@QUICK
@given(graph=st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=4))
def test_any_json_object(registry, graph):
    check_prepared_or_refused(graph, registry)


def test_a_long_chain_needs_no_deep_stack(registry):
    source = {"size": 1, "seed": 1, "mode": "plain", "scale": 1.0, "label": "", "flag": False}
    graph = {"0": {"class_type": "AP3D_Source", "inputs": source}}
    for index in range(1, 3000):
        inputs = {"first": [str(index - 1), 0], "amount": 0.0}
        graph[str(index)] = {"class_type": "AP3D_Add", "inputs": inputs}
    graph["end"] = {"class_type": "AP3D_Save", "inputs": {"toy": ["2999", 0], "prefix": ""}}
    assert len(check_prepared_or_refused(graph, registry).order) == 3001
