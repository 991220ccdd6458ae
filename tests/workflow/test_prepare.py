"""What is refused before anything runs, and which message says so; overrides; what core nodes do to a graph."""

from __future__ import annotations

import json

import pytest

from animportrait3d_core.errors import InvalidInput, MissingModelFile
from animportrait3d_core.workflow.graph import read_graph_file
from animportrait3d_core.workflow.prepare import prepare


@pytest.fixture()
def api():
    """API graph: Source (#1) -> Add (#2) -> Save (#3)."""
    source = {"size": 8, "seed": 5, "mode": "plain", "scale": 1.0, "label": "", "flag": False}
    return {
        "1": {"class_type": "AP3D_Source", "inputs": source, "_meta": {"title": "The Source"}},
        "2": {"class_type": "AP3D_Add", "inputs": {"first": ["1", 0], "amount": 0.5}},
        "3": {"class_type": "AP3D_Save", "inputs": {"toy": ["2", 0], "prefix": "toy"}},
    }


def change(node_id, name, value):
    def apply(graph):
        graph[node_id]["inputs"][name] = value

    return apply


def test_the_order_is_topological_and_leaves_out_what_nothing_needs(api, registry):
    api["0"] = {"class_type": "AP3D_Source", "inputs": dict(api["1"]["inputs"])}
    plan = prepare(dict(reversed(api.items())), registry)
    assert plan.order == ("1", "2", "3")


def test_an_unneeded_node_may_be_incomplete_as_in_comfyui(api, registry):
    api["9"] = {"class_type": "AP3D_Add", "inputs": {}}
    assert prepare(api, registry).order == ("1", "2", "3")


def test_a_graph_wrapped_in_prompt_is_read(api, registry):
    assert prepare({"prompt": api}, registry).order == ("1", "2", "3")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda g: g["2"].update(class_type="AP3D_Gone"), r"AP3D_Gone \(#2\): unknown node"),
        (lambda g: g["2"].update(class_type="FreeU"), r"FreeU \(#2\): is not a node of this pack, and AP3D_Save"),
        (lambda g: g.update(x={"class_type": "Mystery", "inputs": {}}), r"Mystery \(#x\): unknown node"),
        (lambda g: g.pop("1"), r"AP3D_Add \(#2\): input 'first' is linked to node #1: no such node"),
        (change("2", "first", ["1", 7]), r"linked to output 7 of AP3D_Source \(#1\), which has 2 outputs"),
        (change("2", "first", ["1", 1]), r"AP3D_Add \(#2\): input 'first' takes TOY.*gives IMAGE"),
        (change("2", "first", ["2", 0]), r"cycle: AP3D_Add \(#2\) -> AP3D_Add \(#2\)"),
        (change("2", "first", ["x"]), r"AP3D_Add \(#2\): input 'first' holds the list"),
        (change("2", "first", 3), r"AP3D_Add \(#2\): input 'first' takes a link of type TOY, found 3"),
        (lambda g: g["2"]["inputs"].pop("first"), r"AP3D_Add \(#2\): required input 'first' \(TOY\) is missing"),
        (change("1", "size", 65), r"AP3D_Source \(#1\): input 'size' is 65, max 64"),
        (change("1", "size", 0), r"AP3D_Source \(#1\): input 'size' is 0, min 1"),
        (change("1", "size", 3.5), r"AP3D_Source \(#1\): input 'size' takes INT, found 3.5"),
        (change("1", "size", "many"), "takes INT, found 'many'"),
        (change("1", "scale", float("nan")), r"AP3D_Source \(#1\): input 'scale' takes FLOAT, found nan"),
        (change("1", "flag", "perhaps"), "takes BOOLEAN, found 'perhaps'"),
        (change("1", "label", {"a": 1}), "takes STRING, found"),
        (change("1", "mode", "dotted"), r"input 'mode' is 'dotted', expected one of 'plain', 'striped'"),
        (lambda g: g.pop("3"), "nothing would run"),
        (lambda g: g.clear(), "no nodes"),
        (lambda g: g["2"].pop("class_type"), "entry '2' has no class_type"),
        (lambda g: g["2"].update(inputs=[1]), "node '2' has inputs of type list"),
    ],
)
def test_bad_graphs_are_refused_by_name(api, registry, damage, message):
    damage(api)
    with pytest.raises(InvalidInput, match=message):
        prepare(api, registry)


def test_validate_inputs_has_the_last_word_and_replaces_the_range_check(api, registry):
    api["2"]["class_type"] = "AP3D_Choosy"
    assert prepare(api, registry).order == ("1", "2", "3")
    api["2"]["inputs"]["amount"] = 13
    with pytest.raises(InvalidInput, match=r"AP3D_Choosy \(#2\): 13 brings bad luck"):
        prepare(api, registry)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [("INPUT_IS_LIST", True, "INPUT_IS_LIST"), ("OUTPUT_IS_LIST", (True, False), "OUTPUT_IS_LIST")],
)
def test_list_features_are_refused_by_name(api, registry, attribute, value, message):
    registry["AP3D_Source"] = type("Listing", (registry["AP3D_Source"],), {attribute: value})
    with pytest.raises(InvalidInput, match=f"AP3D_Source: uses {message}"):
        prepare(api, registry)


def test_core_previews_are_left_out_but_what_feeds_them_runs(api, registry):
    api["4"] = {"class_type": "ImageScale", "inputs": {"image": ["1", 1]}}
    api["5"] = {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}
    del api["3"], api["2"]
    plan = prepare(api, registry)
    assert plan.order == ("1",)


@pytest.mark.parametrize("node", ["1", "The Source", "AP3D_Source"])
def test_set_finds_a_node_by_id_title_or_type(api, registry, node):
    plan = prepare(api, registry, [f"{node}.size=16", f"{node}.flag=true", f"{node}.mode=striped", f"{node}.label=a=b"])
    inputs = plan.prompt["1"].inputs
    assert (inputs["size"], inputs["flag"], inputs["mode"], inputs["label"]) == (16, True, "striped", "a=b")


def test_none_disconnects_an_optional_input_alone(api, registry):
    api["2"]["inputs"]["second"] = ["1", 0]
    assert "second" not in prepare(api, registry, ["2.second=none"]).prompt["2"].inputs
    with pytest.raises(InvalidInput, match=r"AP3D_Add \(#2\) has no value 'first'"):
        prepare(api, registry, ["2.first=none"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("1.size", "expected NODE.INPUT=VALUE"),
        ("size=3", "expected NODE.INPUT=VALUE"),
        ("7.size=3", "has no node '7'"),
        ("1.width=3", "has no value 'width'; its values: size, seed"),
        ("2.first=3", r"AP3D_Add \(#2\) has no value 'first'"),
        ("1.flag=perhaps", "takes true or false"),
        ("1.size=many", "takes INT, found 'many'"),
        ("1.size=100", "max 64"),
        ("1.mode=dotted", "expected one of"),
    ],
)
def test_bad_overrides_are_refused(api, registry, override, message):
    with pytest.raises(InvalidInput, match=message):
        prepare(api, registry, [override])


def test_an_ambiguous_type_is_refused_in_set(api, registry):
    api["9"] = {"class_type": "AP3D_Source", "inputs": dict(api["1"]["inputs"])}
    with pytest.raises(InvalidInput, match="fits 2 nodes"):
        prepare(api, registry, ["AP3D_Source.size=3"])


def test_seed_sets_every_seed(api, registry):
    assert prepare(api, registry, seed=77).prompt["1"].inputs["seed"] == 77


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"graph"', "\xff\xfe", "[" * 100_000])
def test_files_that_hold_no_graph(tmp_path, text):
    path = tmp_path / "graph.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput, match="graph.json"):
        read_graph_file(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingModelFile, match="nowhere.json"):
        read_graph_file(tmp_path / "nowhere.json")


def test_a_file_is_read_as_saved(tmp_path, api):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(api), encoding="utf-8")
    assert read_graph_file(path) == api
