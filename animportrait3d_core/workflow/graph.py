"""Graphs as data: what lies in a file, and the prompt (API format) that is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from ..files import json_of_file, require_file


@dataclass(frozen=True)
class Link:
    """An input that comes from output `slot` of node `node_id`."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class PromptNode:
    """One node ready to run. `inputs` maps a name to a constant or to a `Link`."""

    node_id: str
    class_type: str
    title: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How messages name this node."""
        return f"{self.class_type} (#{self.node_id})"

    def links(self) -> dict[str, Link]:
        """The linked inputs only."""
        return {name: value for name, value in self.inputs.items() if isinstance(value, Link)}


Prompt = dict[str, PromptNode]


def read_graph_file(path: str | Path) -> dict[str, Any]:
    """Parse a workflow file of either format. Raises `MissingModelFile` or `InvalidInput`."""
    path = require_file("run", path, "Give a workflow saved by ComfyUI (Save or Export API).")
    try:
        graph = json_of_file(path)
    except ValueError as error:
        raise InvalidInput(f"run: '{path}' is not a JSON workflow ({error}).") from error
    if not isinstance(graph, dict):
        raise InvalidInput(f"run: '{path}' holds a JSON {type(graph).__name__}, expected an object with nodes.")
    if not _is_workflow(graph):
        keys = ", ".join(repr(str(key)[:40]) for key in list(graph)[:6]) or "none"
        raise InvalidInput(
            f"run: '{path}' is the JSON of another program (its keys: {keys}), expected a workflow that ComfyUI saved: "
            "'nodes' and 'links', or node ids with 'class_type' and 'inputs'."
        )
    return graph


def _is_workflow(graph: Mapping[str, Any]) -> bool:
    """Whether a file looks like ComfyUI's, right or wrong in its details."""
    if is_ui_graph(graph):
        return "links" in graph
    entries = graph.get("prompt") if isinstance(graph.get("prompt"), dict) else graph
    return any(isinstance(entry, dict) and "class_type" in entry for entry in (entries or {}).values())


def is_ui_graph(graph: Mapping[str, Any]) -> bool:
    """Whether a parsed file is in the format that the frontend saves (against the API format)."""
    return isinstance(graph.get("nodes"), list)


def prompt_from_json(graph: Mapping[str, Any]) -> Prompt:
    """Read an API-format graph: `{"12": {"class_type": ..., "inputs": {name: value | [node, slot]}}}`."""
    inner = graph.get("prompt")
    if isinstance(inner, dict) and "class_type" not in graph["prompt"]:
        graph = inner
    prompt: Prompt = {}
    for node_id, entry in graph.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
            raise InvalidInput(
                f"run: entry '{node_id}' has no class_type; expected a UI graph with 'nodes' and 'links', "
                "or an API graph that maps node ids to {class_type, inputs}."
            )
        inputs = entry.get("inputs", {})
        if not isinstance(inputs, dict):
            raise InvalidInput(f"run: node '{node_id}' has inputs of type {type(inputs).__name__}, expected an object.")
        meta = entry.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        prompt[str(node_id)] = PromptNode(
            node_id=str(node_id),
            class_type=entry["class_type"],
            title=title if isinstance(title, str) else entry["class_type"],
            inputs={name: _read_value(f"{entry['class_type']} (#{node_id})", name, inputs[name]) for name in inputs},
        )
    if not prompt:
        raise InvalidInput("run: the graph holds no nodes.")
    return prompt


def _read_value(label: str, name: str, value: Any) -> Any:
    """A JSON list is a link; a list meant as a value is wrapped as `{"__value__": [...]}`."""
    if isinstance(value, dict) and "__value__" in value:
        return value["__value__"]
    if not isinstance(value, list):
        return value
    if len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int and value[1] >= 0:
        return Link(str(value[0]), value[1])
    raise InvalidInput(f"{label}: input '{name}' holds the list {value!r}, expected a link [node id, output slot].")


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """The API format of a prompt, as the frontend's graphToPrompt writes it."""
    return {
        node.node_id: {
            "class_type": node.class_type,
            "inputs": {name: _write_value(value) for name, value in node.inputs.items()},
            "_meta": {"title": node.title},
        }
        for node in prompt.values()
    }


def _write_value(value: Any) -> Any:
    if isinstance(value, Link):
        return [value.node_id, value.slot]
    return {"__value__": value} if isinstance(value, list) else value
