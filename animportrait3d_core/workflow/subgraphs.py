"""Subgraphs are laid out flat: an instance becomes the nodes of its definition, with ids as 12:3 (#3 inside #12).

The frontend (1.27 to 1.58) keeps definitions in `definitions.subgraphs`; an instance is a node whose type is the id of
its definition. Inside, links come from a node -10 (the inputs) and go to a node -20 (the outputs). A widget inside is
promoted by a link from -10; each instance has its own values in `widgets_values`, in the order of its promoted inputs.
Frontends between list promoted widgets in `properties.proxyWidgets` instead, and `widgets_values` goes by that list.

In place of an instance #12 stand virtual nodes: #12 itself, whose inputs are what its outputs hand on; #12:-10, whose
inputs are its own; and #12:-10:0, #12:-10:1, ... which hold promoted values.
"""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidInput
from .ui_graph import UiGraph, UiLink, UiNode, UiSlot, entries, read_ui_graph

INPUTS_TYPE, OUTPUTS_TYPE, VALUE_TYPE = "inputs of a subgraph", "outputs of a subgraph", "promoted value"
INPUT_NODE_ID, OUTPUT_NODE_ID = -10, -20
_OWN_INPUT = "-1"  # in proxyWidgets: the widget belongs to an input of the instance
_DEFINITION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class _Port:
    """An input or output of a definition; `links` are those inside."""

    name: str
    kind: str
    links: tuple[str, ...]


@dataclass(frozen=True)
class _Definition:
    name: str
    graph: UiGraph
    inputs: Mapping[str, _Port]
    outputs: tuple[_Port, ...]


def subgraph_entries(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The definitions of subgraphs as they lie in a parsed UI graph."""
    definitions = graph.get("definitions")
    return entries(definitions.get("subgraphs")) if isinstance(definitions, dict) else []


def flatten(graph: Mapping[str, Any]) -> UiGraph:
    """A parsed UI graph without subgraphs; instances that are muted or bypassed stay nodes, and nothing of them runs.

    Raises `InvalidInput` for damaged graphs: a subgraph that contains itself or has no definition, a promoted widget of
    a node that is gone.
    """
    definitions = {str(entry.get("id")): _read_definition(entry) for entry in subgraph_entries(graph)}
    _refuse_circles(definitions)
    return _Flattener(definitions).flat(read_ui_graph(graph), "")


def _read_definition(entry: Mapping[str, Any]) -> _Definition:
    name = str(entry.get("name") or entry.get("id"))
    if not isinstance(entry.get("nodes"), list):
        raise InvalidInput(f"run: subgraph '{name}' has no list of nodes; open the graph in ComfyUI and save it again.")
    inputs = {port.name: port for port in _read_ports(entry.get("inputs"))}
    return _Definition(name, read_ui_graph(entry), inputs, tuple(_read_ports(entry.get("outputs"))))


def _read_ports(value: Any) -> Iterator[_Port]:
    for entry in entries(value):
        links = entry.get("linkIds")
        ids = tuple(str(link) for link in links) if isinstance(links, list) else ()
        yield _Port(str(entry.get("name", "")), str(entry.get("type", "*")), ids)


def _refuse_circles(definitions: Mapping[str, _Definition]) -> None:
    contents = {
        key: {node.class_type for node in definition.graph.nodes.values()} & set(definitions)
        for key, definition in definitions.items()
    }
    try:
        graphlib.TopologicalSorter(contents).prepare()
    except graphlib.CycleError as error:
        path = " in ".join(f"'{definitions[key].name}'" for key in error.args[1])
        raise InvalidInput(f"run: a subgraph contains itself: {path}.") from error


@dataclass(frozen=True)
class _Flattener:
    definitions: Mapping[str, _Definition]

    def flat(self, graph: UiGraph, path: str) -> UiGraph:
        """The graph with `path` before all ids, and its instances laid out."""
        nodes: dict[str, UiNode] = {}
        links = {path + key: replace(link, origin_id=path + link.origin_id) for key, link in graph.links.items()}
        for node in graph.nodes.values():
            moved = _moved(node, path)
            definition = self._definition(moved)
            if definition is None or not node.is_live:
                nodes[moved.node_id] = moved
                continue
            inner = self._instance(moved, definition)
            nodes.update(inner.nodes)
            links.update(inner.links)
        return UiGraph(nodes, links)

    def _definition(self, node: UiNode) -> _Definition | None:
        definition = self.definitions.get(node.class_type)
        if definition is None and _DEFINITION_ID.fullmatch(node.class_type):
            raise InvalidInput(
                f"run: node #{node.node_id} is a subgraph, and its definition {node.class_type} is missing; "
                "open the graph in ComfyUI and save it again."
            )
        return definition

    def _instance(self, node: UiNode, definition: _Definition) -> UiGraph:
        path = f"{node.node_id}:"
        inner, fed = definition.graph, {slot.name: slot.link for slot in node.inputs}
        nodes: dict[str, UiNode] = {}
        links: dict[str, UiLink] = {}
        for number, (target, name, value) in enumerate(self._promoted_values(node, definition)):
            key = f"{INPUT_NODE_ID}:{number}"
            nodes[path + key] = UiNode(path + key, VALUE_TYPE, node.title, widget_values=[value])
            links[path + key] = UiLink(path + key, 0)
            if target == _OWN_INPUT:
                fed[name] = fed.get(name) or path + key
            else:
                inner = _with_value(inner, target, name, value, key)
        inputs = tuple(UiSlot(port.name, port.kind, fed.get(port.name)) for port in definition.inputs.values())
        outputs = tuple(
            UiSlot(port.name, port.kind, path + port.links[0] if port.links else None) for port in definition.outputs
        )
        nodes[f"{path}{INPUT_NODE_ID}"] = UiNode(f"{path}{INPUT_NODE_ID}", INPUTS_TYPE, node.title, inputs=inputs)
        nodes[node.node_id] = UiNode(node.node_id, OUTPUTS_TYPE, node.title, inputs=outputs)
        flat = self.flat(inner, path)
        return UiGraph({**flat.nodes, **nodes}, {**flat.links, **links})

    def _promoted_values(self, node: UiNode, definition: _Definition) -> Iterator[tuple[str, str, Any]]:
        """What the instance sets: (node id inside, widget, value), or (`_OWN_INPUT`, input, value)."""
        values = node.widget_values if isinstance(node.widget_values, list) else []
        shown = self._shown_widgets(node, definition)
        # A null was saved where the widget inside keeps its own value.
        for (target, name), value in zip(shown, values):
            if value is not None:
                yield target, name, value

    def _shown_widgets(self, node: UiNode, definition: _Definition) -> list[tuple[str, str]]:
        """Which widgets an instance shows, in the order of its values."""
        sources = {name: self._source(definition, port) for name, port in definition.inputs.items()}
        if not node.proxy_widgets:
            order = [slot.name for slot in node.inputs if slot.name in sources] or list(sources)
            return [(_OWN_INPUT, name) for name in order if sources[name] is not None]
        by_source = {source: name for name, source in sources.items() if source is not None}
        shown = []
        for target, name in node.proxy_widgets:
            if (target, name) in by_source:
                target, name = _OWN_INPUT, by_source[target, name]
            if target != _OWN_INPUT and target not in definition.graph.nodes:
                raise _gone(node.node_id, definition, name, target)
            shown.append((target, name))
        return shown

    def _source(self, definition: _Definition, port: _Port) -> tuple[str, str] | None:
        """(node id, widget) inside of the first widget that an input is linked to; nested instances count."""
        for key in port.links:
            link = definition.graph.links.get(key)
            if link is None or link.target_id == str(OUTPUT_NODE_ID):
                continue
            target = definition.graph.nodes.get(link.target_id)
            if target is None:
                raise _gone(None, definition, port.name, link.target_id)
            slot = target.inputs[link.target_slot] if 0 <= link.target_slot < len(target.inputs) else None
            if slot is not None and (slot.widget is not None or self._is_promoted(target, slot)):
                return target.node_id, slot.widget or slot.name
        return None

    def _is_promoted(self, node: UiNode, slot: UiSlot) -> bool:
        nested = self.definitions.get(node.class_type)
        port = nested.inputs.get(slot.name) if nested is not None else None
        return nested is not None and port is not None and self._source(nested, port) is not None


def _gone(node_id: str | None, definition: _Definition, name: str, target: str) -> InvalidInput:
    where = f"subgraph '{definition.name}'" + (f" (#{node_id})" if node_id else "")
    return InvalidInput(
        f"run: {where} has an input '{name}' for node #{target} inside it, which is gone; "
        "remove the input in ComfyUI and save the graph again."
    )


def _moved(node: UiNode, path: str) -> UiNode:
    inputs = tuple(replace(slot, link=path + slot.link) if slot.link is not None else slot for slot in node.inputs)
    return replace(node, node_id=path + node.node_id, inputs=inputs)


def _with_value(graph: UiGraph, node_id: str, name: str, value: Any, link: str) -> UiGraph:
    """The graph inside, in which a widget takes its value from `link`, unless another link feeds it."""
    node = graph.nodes[node_id]
    if node.class_type == "PrimitiveNode":
        changed = replace(node, widget_values=[value])
    elif any(name == slot.name for slot in node.inputs):
        slots = (replace(slot, link=slot.link or link) if slot.name == name else slot for slot in node.inputs)
        changed = replace(node, inputs=tuple(slots))
    else:
        changed = replace(node, inputs=(*node.inputs, UiSlot(name, "*", link, name)))
    return replace(graph, nodes={**graph.nodes, node_id: changed})
