"""UI graph (what the frontend saves, version 0.4) to prompt (API format), as the frontend's graphToPrompt does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from .definitions import NodeDefinition, types_fit
from .graph import Link, Prompt, PromptNode

MUTED, BYPASSED = 2, 4
NOTE_TYPES = frozenset({"Note", "MarkdownNote"})
PASS_THROUGH_TYPES = frozenset({"Reroute"})
# Nodes that exist in the frontend alone: they shape the graph, the server never sees them.
VIRTUAL_TYPES = NOTE_TYPES | PASS_THROUGH_TYPES | {"PrimitiveNode"}


@dataclass(frozen=True)
class _UiLink:
    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True)
class _UiSlot:
    name: str
    kind: str
    link: int | None
    widget: str | None


@dataclass(frozen=True)
class _UiNode:
    node_id: str
    class_type: str
    title: str
    mode: int
    inputs: tuple[_UiSlot, ...]
    output_types: tuple[str, ...]
    widget_values: list[Any] | dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.class_type} (#{self.node_id})"


def ui_to_prompt(graph: Mapping[str, Any], definitions: Mapping[str, NodeDefinition]) -> Prompt:
    """Convert a parsed UI graph; nodes without a definition keep their links and lose their widget values.

    Muted nodes vanish with the links they feed, bypassed nodes hand on their first fitting input, reroutes are
    followed, notes dropped, primitive nodes written into the widgets they feed. Raises `InvalidInput` for damaged
    graphs: links to nothing, cycles of reroutes, more widget values than widgets, subgraphs.
    """
    return _Converter(graph, definitions).prompt()


class _Converter:
    def __init__(self, graph: Mapping[str, Any], definitions: Mapping[str, NodeDefinition]) -> None:
        self.definitions = definitions
        self.nodes = {node.node_id: node for node in _read_nodes(graph)}
        self.links = dict(_read_links(graph))

    def prompt(self) -> Prompt:
        live = [
            node
            for node in self.nodes.values()
            if node.class_type not in VIRTUAL_TYPES and node.mode not in (MUTED, BYPASSED)
        ]
        kept = {node.node_id for node in live}
        prompt: Prompt = {}
        for node in live:
            # A link from a muted node is as good as none: a widget keeps its own value, a socket stays open.
            linked = {name: link for name, link in self._linked_inputs(node).items() if link.node_id in kept}
            inputs = self._widget_inputs(node) | linked
            prompt[node.node_id] = PromptNode(node.node_id, node.class_type, node.title, inputs)
        if not prompt:
            raise InvalidInput("run: the graph holds no node that could run (only notes, muted or bypassed nodes).")
        return prompt

    def _widget_inputs(self, node: _UiNode) -> dict[str, Any]:
        definition = self.definitions.get(node.class_type)
        if definition is None:
            return {}
        if isinstance(node.widget_values, dict):
            names = {entry.name for entry in definition.widgets}
            return {name: value for name, value in node.widget_values.items() if name in names}
        values: dict[str, Any] = {}
        position = 0
        for entry in definition.widgets:
            # Widgets appended to a class after the graph was saved show their default.
            saved = position < len(node.widget_values)
            values[entry.name] = node.widget_values[position] if saved else entry.default
            position += 1 + entry.companion_widgets
        if len(node.widget_values) > position:
            raise InvalidInput(
                f"{node.label}: the graph stores {len(node.widget_values)} widget values, the node has {position}; "
                "open the graph in ComfyUI and save it again."
            )
        return self._with_primitives(node, values)

    def _with_primitives(self, node: _UiNode, values: dict[str, Any]) -> dict[str, Any]:
        """Widget values after primitive nodes have written theirs."""
        values = dict(values)
        for slot in node.inputs:
            if slot.link is None or slot.widget not in values:
                continue
            origin = self._origin(node, slot)
            primitive_value = origin.widget_values[:1] if isinstance(origin.widget_values, list) else []
            if origin.class_type == "PrimitiveNode" and primitive_value:
                values[slot.widget] = primitive_value[0]
        return values

    def _linked_inputs(self, node: _UiNode) -> dict[str, Link]:
        linked = {}
        for slot in node.inputs:
            target = self._resolve_input(node, slot, slot.kind, frozenset())
            if target is not None:
                linked[slot.name] = target
        return linked

    def _origin(self, node: _UiNode, slot: _UiSlot) -> _UiNode:
        link = self._link(node, slot)
        origin = self.nodes.get(link.origin_id)
        if origin is None:
            raise InvalidInput(f"{node.label}: input '{slot.name}' is linked to node #{link.origin_id}: no such node.")
        return origin

    def _link(self, node: _UiNode, slot: _UiSlot) -> _UiLink:
        link = self.links.get(slot.link) if slot.link is not None else None
        if link is None:
            raise InvalidInput(f"{node.label}: input '{slot.name}' names link {slot.link}, which the graph lacks.")
        return link

    def _resolve_input(self, node: _UiNode, slot: _UiSlot, kind: str, seen: frozenset[int]) -> Link | None:
        """Follow a link through reroutes and bypassed nodes to the output that really feeds this input."""
        while slot.link is not None:
            if slot.link in seen:
                raise InvalidInput(f"{node.label}: input '{slot.name}' closes a cycle of reroutes or bypassed nodes.")
            seen |= {slot.link}
            origin = self._origin(node, slot)
            origin_slot = self._link(node, slot).origin_slot
            if origin.mode == BYPASSED:
                following = _bypass_slot(origin, origin_slot, kind)
            elif origin.class_type in PASS_THROUGH_TYPES:
                following = origin.inputs[0] if origin.inputs else None
            elif origin.class_type in VIRTUAL_TYPES:
                following = None
            else:
                return Link(origin.node_id, origin_slot)
            if following is None:
                return None
            # Behind a bypassed node the type asked for is the one of that node's own input.
            kind = following.kind if origin.mode == BYPASSED else kind
            node, slot = origin, following
        return None


def _bypass_slot(node: _UiNode, output_slot: int, kind: str) -> _UiSlot | None:
    """The input that a bypassed node hands on: same index if its type fits, else the same type, else any that fits."""
    if not node.inputs or not 0 <= output_slot < len(node.output_types):
        return None
    same = node.inputs[output_slot] if output_slot < len(node.inputs) else None
    if kind in ("*", ""):
        return same or node.inputs[0]
    output_type = node.output_types[output_slot]

    def fits(slot: _UiSlot) -> bool:
        return _connectable(slot.kind, output_type) and _connectable(slot.kind, kind)

    if same is not None and fits(same):
        return same
    exact = [slot for slot in node.inputs if slot.kind == kind]
    return next(iter(exact + [slot for slot in node.inputs if fits(slot)]), None)


def _connectable(one: str, other: str) -> bool:
    """The frontend's rule for drawing a link, which knows a wildcard where the server does not."""
    return "*" in (one, other) or "" in (one, other) or types_fit(one.lower(), other.lower())


def _read_nodes(graph: Mapping[str, Any]) -> Iterator[_UiNode]:
    subgraphs = _subgraph_ids(graph)
    seen: set[str] = set()
    for entry in graph["nodes"]:
        if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("type"), str):
            raise InvalidInput(f"run: a node of the graph lacks its id or type: {str(entry)[:80]}.")
        node_id, class_type = str(entry["id"]), entry["type"]
        if node_id in seen:
            raise InvalidInput(f"run: node id {node_id} occurs twice in the graph.")
        seen.add(node_id)
        if class_type in subgraphs:
            raise InvalidInput(f"run: node #{node_id} is a subgraph; unpack it in ComfyUI and save the graph again.")
        values = entry.get("widgets_values")
        outputs = _entries(entry.get("outputs"))
        title = entry.get("title")
        yield _UiNode(
            node_id=node_id,
            class_type=class_type,
            title=title if isinstance(title, str) and title else class_type,
            mode=entry.get("mode") if isinstance(entry.get("mode"), int) else 0,  # type: ignore[arg-type]
            inputs=tuple(_read_slot(slot) for slot in _entries(entry.get("inputs"))),
            output_types=tuple(str(slot.get("type", "*")) for slot in outputs),
            widget_values=values if isinstance(values, (list, dict)) else [],
        )


def _subgraph_ids(graph: Mapping[str, Any]) -> set[str]:
    definitions = graph.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    return {str(entry.get("id")) for entry in _entries(subgraphs)}


def _entries(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; anything else counts as none."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _read_slot(slot: Mapping[str, Any]) -> _UiSlot:
    widget = slot.get("widget")
    link = slot.get("link")
    return _UiSlot(
        name=str(slot.get("name", "")),
        kind=str(slot.get("type", "*")),
        link=link if isinstance(link, int) else None,
        widget=str(widget.get("name")) if isinstance(widget, dict) else None,
    )


def _read_links(graph: Mapping[str, Any]) -> Iterator[tuple[int, _UiLink]]:
    """Links as the 0.4 arrays [id, origin, slot, target, slot, type] or as the objects of later versions."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    links = graph.get("links")
    for entry in links if isinstance(links, list) else []:
        fields = [entry.get(key) for key in keys] if isinstance(entry, dict) else entry
        if not isinstance(fields, list) or len(fields) < 5:
            expected = "[id, from, slot, to, slot, type]"
            raise InvalidInput(f"run: a link of the graph is {str(entry)[:80]}, expected {expected}.")
        link_id, origin_id, origin_slot, target_id, target_slot = fields[:5]
        if not (isinstance(link_id, int) and isinstance(origin_slot, int) and isinstance(target_slot, int)):
            raise InvalidInput(f"run: link {str(entry)[:80]} has ids or slots that are no integers.")
        yield link_id, _UiLink(str(origin_id), origin_slot, str(target_id), target_slot)
