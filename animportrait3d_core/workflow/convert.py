"""UI graph (what the frontend saves, version 0.4) to prompt (API format), as the frontend's graphToPrompt does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from .definitions import NodeDefinition, types_fit
from .graph import Link, Prompt, PromptNode
from .subgraphs import INPUTS_TYPE, OUTPUTS_TYPE, VALUE_TYPE, flatten
from .ui_graph import BYPASSED, UiLink, UiNode, UiSlot

NOTE_TYPES = frozenset({"Note", "MarkdownNote"})
# What hands on the input of the same number.
PASS_THROUGH_TYPES = frozenset({"Reroute", INPUTS_TYPE, OUTPUTS_TYPE})
# Nodes that exist in the frontend alone: they shape the graph, the server never sees them.
VIRTUAL_TYPES = NOTE_TYPES | PASS_THROUGH_TYPES | {"PrimitiveNode", VALUE_TYPE}


@dataclass(frozen=True)
class _Constant:
    """What an input resolves to when a promoted widget feeds it."""

    value: Any


def ui_to_prompt(graph: Mapping[str, Any], definitions: Mapping[str, NodeDefinition]) -> Prompt:
    """Convert a parsed UI graph; nodes without a definition keep their links and lose their widget values.

    Muted nodes vanish with the links they feed, bypassed nodes hand on their first fitting input, reroutes are
    followed, notes dropped, primitive nodes written into the widgets they feed, subgraphs laid out flat. Raises
    `InvalidInput` for damaged graphs: links to nothing, cycles of reroutes, more widget values than widgets, subgraphs
    that cannot be laid out.
    """
    return _Converter(graph, definitions).prompt()


class _Converter:
    def __init__(self, graph: Mapping[str, Any], definitions: Mapping[str, NodeDefinition]) -> None:
        self.definitions = definitions
        flat = flatten(graph)
        self.nodes, self.links = flat.nodes, flat.links

    def prompt(self) -> Prompt:
        live = [node for node in self.nodes.values() if node.class_type not in VIRTUAL_TYPES and node.is_live]
        kept = {node.node_id for node in live}
        prompt: Prompt = {}
        for node in live:
            inputs = self._widget_inputs(node)
            for name, found in self._linked_inputs(node).items():
                if isinstance(found, _Constant) and (name in inputs or node.class_type not in self.definitions):
                    inputs[name] = found.value
                # A link from a muted node is as good as none: a widget keeps its own value, a socket stays open.
                if isinstance(found, Link) and found.node_id in kept:
                    inputs[name] = found
            prompt[node.node_id] = PromptNode(node.node_id, node.class_type, node.title, inputs)
        if not prompt:
            raise InvalidInput("run: the graph holds no node that could run (only notes, muted or bypassed nodes).")
        return prompt

    def _widget_inputs(self, node: UiNode) -> dict[str, Any]:
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

    def _with_primitives(self, node: UiNode, values: dict[str, Any]) -> dict[str, Any]:
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

    def _linked_inputs(self, node: UiNode) -> dict[str, Link | _Constant]:
        linked = {}
        for slot in node.inputs:
            target = self._resolve_input(node, slot, slot.kind, frozenset())
            if target is not None:
                linked[slot.name] = target
        return linked

    def _origin(self, node: UiNode, slot: UiSlot) -> UiNode:
        link = self._link(node, slot)
        origin = self.nodes.get(link.origin_id)
        if origin is None:
            raise InvalidInput(f"{node.label}: input '{slot.name}' is linked to node #{link.origin_id}: no such node.")
        return origin

    def _link(self, node: UiNode, slot: UiSlot) -> UiLink:
        link = self.links.get(slot.link) if slot.link is not None else None
        if link is None:
            raise InvalidInput(f"{node.label}: input '{slot.name}' names link {slot.link}, which the graph lacks.")
        return link

    def _resolve_input(self, node: UiNode, slot: UiSlot, kind: str, seen: frozenset[str]) -> Link | _Constant | None:
        """Follow a link through reroutes, bypassed nodes and borders of subgraphs to what really feeds this input."""
        while slot.link is not None:
            if slot.link in seen:
                raise InvalidInput(f"{node.label}: input '{slot.name}' closes a cycle of reroutes or bypassed nodes.")
            seen |= {slot.link}
            origin = self._origin(node, slot)
            origin_slot = self._link(node, slot).origin_slot
            if origin.class_type == VALUE_TYPE and isinstance(origin.widget_values, list):
                return _Constant(origin.widget_values[0])
            if origin.mode == BYPASSED:
                following = _bypass_slot(origin, origin_slot, kind)
            elif origin.class_type in PASS_THROUGH_TYPES:
                following = origin.inputs[origin_slot] if 0 <= origin_slot < len(origin.inputs) else None
            elif origin.class_type in VIRTUAL_TYPES:
                following = None
            else:
                return Link(origin.node_id, origin_slot)
            if following is None:
                return None
            # Behind a bypassed node or an input of a subgraph the type asked for is the one of that input.
            kind = following.kind if origin.mode == BYPASSED or origin.class_type == INPUTS_TYPE else kind
            node, slot = origin, following
        return None


def _bypass_slot(node: UiNode, output_slot: int, kind: str) -> UiSlot | None:
    """The input that a bypassed node hands on: same index if its type fits, else the same type, else any that fits."""
    if not node.inputs or not 0 <= output_slot < len(node.output_types):
        return None
    same = node.inputs[output_slot] if output_slot < len(node.inputs) else None
    if kind in ("*", ""):
        return same or node.inputs[0]
    output_type = node.output_types[output_slot]

    def fits(slot: UiSlot) -> bool:
        return _connectable(slot.kind, output_type) and _connectable(slot.kind, kind)

    if same is not None and fits(same):
        return same
    exact = [slot for slot in node.inputs if slot.kind == kind]
    return next(iter(exact + [slot for slot in node.inputs if fits(slot)]), None)


def _connectable(one: str, other: str) -> bool:
    """The frontend's rule for drawing a link, which knows a wildcard where the server does not."""
    return "*" in (one, other) or "" in (one, other) or types_fit(one.lower(), other.lower())
