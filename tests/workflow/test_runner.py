"""Execution: the host's conditions, caching, immutability, interruption, the report."""

from __future__ import annotations

import json
import logging
import os
import threading
import time

import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.workflow.context import Interrupted, active_context
from animportrait3d_core.workflow.runner import OutputCache, RunSettings, run


@pytest.fixture()
def settings(tmp_path):
    return RunSettings(output_directory=tmp_path / "out", device="cpu")


class Listener:
    def __init__(self):
        self.events = []

    def node_started(self, node_id, class_type, index, total):
        self.events.append(("started", node_id, index, total))

    def node_progress(self, node_id, step, total, preview):
        self.events.append(("progress", node_id, step, total))

    def node_finished(self, record, cached):
        self.events.append(("finished", record.id, cached))


def replace_node(graph, node_id, class_type):
    next(entry for entry in graph["nodes"] if entry["id"] == node_id)["type"] = class_type


def test_a_chain_gives_the_closed_form(chain, registry, settings):
    result = run(chain, registry, settings)
    toy = torch.rand(8, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(result.nodes["2"].outputs[0].clone(), toy + 0.5, rtol=0, atol=0)
    assert result.nodes["3"].ui == {"text": [f"toy {(toy + 0.5).sum().item():.6f}"]}


def test_nodes_run_in_a_worker_thread_under_inference_mode(registry, settings, chain):
    seen = {}

    class Spy(registry["AP3D_Add"]):
        def add(self, first, amount, second=None):
            seen.update(thread=threading.current_thread(), inference=torch.is_inference_mode_enabled())
            seen.update(tensor=first.is_inference())
            return (first,)

    run(chain, {**registry, "AP3D_Add": Spy}, settings)
    assert seen["thread"] is not threading.main_thread()
    assert seen["inference"] and seen["tensor"]
    assert not torch.is_inference_mode_enabled() and active_context() is None


def test_the_report_has_the_documented_shape(chain, registry, settings):
    result = run(chain, registry, settings)
    report = json.loads((settings.output_directory / "report.json").read_text())
    assert report == result.report.to_json()
    assert set(report) == {"nodes", "total_seconds", "device", "versions", "metrics"}
    assert [(node["id"], node["type"]) for node in report["nodes"]] == [
        ("1", "AP3D_Source"),
        ("2", "AP3D_Add"),
        ("3", "AP3D_Save"),
    ]
    keys = {"id", "type", "seconds", "peak_rss_mb", "seconds_to_stop", "messages", "warnings"}
    assert all(set(node) == keys for node in report["nodes"])
    assert all(node["peak_rss_mb"] > 20 and node["seconds"] >= 0 for node in report["nodes"])
    assert report["device"] == "cpu" and report["versions"]["torch"] == torch.__version__
    assert set(report["metrics"]["toys"]) == {"mean_5"}
    assert [len(node["messages"]) for node in report["nodes"]] == [0, 0, 1]
    assert report["nodes"][2]["messages"][0].startswith("toy ") and not any(n["warnings"] for n in report["nodes"])


def test_a_cached_node_warns_again(chain, registry, settings):
    class Doubtful(registry["AP3D_Add"]):
        def add(self, first, amount, second=None):
            logging.getLogger("animportrait3d.part").warning("Add: %d is odd", 13)
            return (first,)

    cache = OutputCache()
    reports = [run(chain, {**registry, "AP3D_Add": Doubtful}, settings, cache=cache).report for _ in range(2)]
    assert [[node.warnings for node in report.nodes] for report in reports] == [[(), ("Add: 13 is odd",), ()]] * 2
    assert not logging.getLogger("animportrait3d").handlers


def test_peak_memory_is_that_of_the_node_not_of_the_process(registry, settings):
    class Hungry(registry["AP3D_Source"]):
        def make(self, size, **inputs):
            torch.zeros(size * 2**20, dtype=torch.float32).add_(1)
            return torch.zeros(1), torch.zeros(1)

    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("only Linux keeps a peak that can be reset")
    source = {"seed": 1, "mode": "plain", "scale": 1.0, "label": "", "flag": False}
    graph = {
        "1": {"class_type": "AP3D_Source", "inputs": {"size": 64, **source}},
        "2": {"class_type": "AP3D_Source", "inputs": {"size": 1, **source}},
        "3": {"class_type": "AP3D_Add", "inputs": {"first": ["1", 0], "second": ["2", 0], "amount": 0}},
        "4": {"class_type": "AP3D_Save", "inputs": {"toy": ["3", 0], "prefix": ""}},
    }
    report = run(graph, {**registry, "AP3D_Source": Hungry}, settings).report
    peaks = {node.id: node.peak_rss_mb for node in report.nodes}
    assert peaks["1"] > peaks["2"] + 200 and peaks["1"] > peaks["4"] + 200


def test_the_report_says_how_long_a_stop_would_have_waited(registry, settings):
    """From the node's begin to its first look, between two, and from the last to its end, while it works."""

    def busy(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    class Busy(registry["AP3D_Source"]):
        def make(self, size, seed, **inputs):
            busy(0.4 if seed == 1 else 0.0)
            active_context().progress(1, 2)
            active_context().check_interrupt()
            busy(0.4 if seed == 2 else 0.0)
            time.sleep(0.4)
            return torch.zeros(1), torch.zeros(1)

    source = {"size": 1, "mode": "plain", "scale": 1.0, "label": "", "flag": False}
    graph = {str(seed): {"class_type": "AP3D_Source", "inputs": {"seed": seed, **source}} for seed in (1, 2, 3)} | {
        "4": {"class_type": "AP3D_Add", "inputs": {"first": ["1", 0], "second": ["2", 0], "amount": 0}},
        "5": {"class_type": "AP3D_Add", "inputs": {"first": ["3", 0], "second": ["4", 0], "amount": 0}},
        "6": {"class_type": "AP3D_Save", "inputs": {"toy": ["5", 0], "prefix": ""}},
    }
    cache = OutputCache()
    nodes = {**registry, "AP3D_Source": Busy}
    first, again = (run(graph, nodes, settings, cache=cache).report for _ in range(2))
    waits = {node.id: node.seconds_to_stop for node in first.nodes}
    assert waits["1"] >= 0.4 and waits["2"] >= 0.4 and waits["3"] < 0.2
    assert [node.seconds_to_stop for node in again.nodes] == [0.0] * 6


def test_equal_nodes_run_once_and_a_shared_cache_serves_the_next_run(chain, registry, settings, source_calls):
    cache, listener = OutputCache(), Listener()
    first = run(chain, registry, settings, cache=cache)
    second = run(chain, registry, settings, listener, cache)
    assert len(source_calls) == 1
    assert [event[2] for event in listener.events if event[0] == "finished"] == [True, True, True]
    assert second.nodes["2"].outputs[0] is first.nodes["2"].outputs[0]
    assert second.report.metrics == first.report.metrics  # a cached node reports its numbers again
    run(chain, registry, RunSettings(settings.output_directory, seed=6, device="cpu"), cache=cache)
    assert [call["seed"] for call in source_calls] == [5, 6]


def test_is_changed_nan_is_never_cached(chain, registry, settings):
    replace_node(chain, 2, "AP3D_Choosy")
    cache = OutputCache()
    run(chain, registry, settings, cache=cache)
    listener = Listener()
    run(chain, registry, settings, listener, cache)
    assert [event[2] for event in listener.events if event[0] == "finished"] == [True, False, False]


def test_a_node_that_writes_into_its_input_is_found(chain, registry, settings, tmp_path):
    replace_node(chain, 2, "AP3D_Mutate")
    verifying = RunSettings(settings.output_directory, device="cpu", verify_values=True)
    with pytest.raises(InvalidInput, match=r"AP3D_Mutate \(#2\): changed the outputs of AP3D_Source \(#1\)"):
        run(chain, registry, verifying)
    replace_node(chain, 2, "AP3D_Add")
    assert run(chain, registry, verifying).nodes["3"].ui


def test_listeners_see_every_node_in_order(chain, registry, settings):
    listener = Listener()
    run(chain, registry, settings, listener)
    started = [event[1:] for event in listener.events if event[0] == "started"]
    assert started == [("1", 1, 3), ("2", 2, 3), ("3", 3, 3)]


def test_cancelling_stops_the_node_and_leaves_no_report(registry, settings):
    class Canceller(Listener):
        def node_progress(self, node_id, step, total, preview):
            context.append(active_context())
            active_context().cancelled.set()

    context = []
    graph = {"1": {"class_type": "AP3D_Slow", "inputs": {"seconds": 20.0}}}
    with pytest.raises(Interrupted):
        run(graph, registry, settings, Canceller())
    assert len(context) == 1
    assert not (settings.output_directory / "report.json").exists()


@pytest.mark.parametrize("error", [InvalidInput("AP3D_Add: no"), RuntimeError("a bug")])
def test_a_nodes_error_reaches_the_caller_as_it_is(chain, registry, settings, error):
    class Failing(registry["AP3D_Add"]):
        def add(self, **inputs):
            raise error

    with pytest.raises(type(error)) as caught:
        run(chain, {**registry, "AP3D_Add": Failing}, settings)
    assert caught.value is error
    assert not (settings.output_directory / "report.json").exists()


def test_wrong_results_of_a_node_are_refused(chain, registry, settings):
    for value, message in (((1, 2), "gave 2 outputs, its RETURN_TYPES declare 1"), ({"expand": {}}, "needs ComfyUI")):
        failing = type("Failing", (registry["AP3D_Add"],), {"add": lambda self, value=value, **inputs: value})
        with pytest.raises(InvalidInput, match=message):
            run(chain, {**registry, "AP3D_Add": failing}, settings)


def test_an_output_folder_that_cannot_be_made_is_refused_before_anything_runs(chain, registry, tmp_path, source_calls):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="output folder .*file.* cannot be written"):
        run(chain, registry, RunSettings(tmp_path / "file" / "out", device="cpu"))
    assert not source_calls


def test_a_bad_graph_leaves_no_output_folder(chain, registry, settings):
    replace_node(chain, 2, "AP3D_Gone")
    with pytest.raises(InvalidInput, match="unknown node"):
        run(chain, registry, settings)
    assert not settings.output_directory.exists()


def test_an_unknown_device_is_refused(chain, registry, tmp_path):
    with pytest.raises(InvalidInput, match="device 'toaster' does not work here"):
        run(chain, registry, RunSettings(tmp_path, device="toaster"))


def test_hidden_inputs_are_those_of_the_host(chain, registry, settings):
    seen = {}

    class Curious(registry["AP3D_Add"]):
        @classmethod
        def INPUT_TYPES(cls):
            hidden = {"unique_id": "UNIQUE_ID", "prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
            return {**super().INPUT_TYPES(), "hidden": hidden}

        def add(self, first, amount, second=None, **hidden):
            seen.update(hidden)
            return (first,)

    run(chain, {**registry, "AP3D_Add": Curious}, settings)
    assert seen["unique_id"] == "2"
    assert seen["prompt"]["2"]["inputs"]["first"] == ["1", 0]
    assert seen["extra_pnginfo"]["workflow"] is chain
