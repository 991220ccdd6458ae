"""Graphs as the frontend saves them (version 0.4): nodes, their slots and the links between them, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInput

MUTED, BYPASSED = 2, 4


@dataclass(frozen=True)
class UiLink:
    """From an output slot of one node to an input slot of another, both by number."""

    origin_id: str
    origin_slot: int
    target_id: str = ""
    target_slot: int = 0


@dataclass(frozen=True)
class UiSlot:
    """An input. `link` is the id of the link that feeds it; `widget` is named where the input has one."""

    name: str
    kind: str
    link: str | None = None
    widget: str | None = None


@dataclass(frozen=True)
class UiNode:
    """A node. `proxy_widgets`: (node id, name) of widgets inside that an instance of a subgraph shows as its own."""

    node_id: str
    class_type: str
    title: str
    mode: int = 0
    inputs: tuple[UiSlot, ...] = ()
    output_types: tuple[str, ...] = ()
    widget_values: list[Any] | dict[str, Any] = field(default_factory=list)
    proxy_widgets: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """How messages name this node."""
        return f"{self.class_type} (#{self.node_id})"

    @property
    def is_live(self) -> bool:
        """Whether it is neither muted nor bypassed."""
        return self.mode not in (MUTED, BYPASSED)


@dataclass(frozen=True)
class UiGraph:
    """Nodes and links by their ids."""

    nodes: Mapping[str, UiNode]
    links: Mapping[str, UiLink]


def read_ui_graph(graph: Mapping[str, Any]) -> UiGraph:
    """Nodes and links of a parsed graph, or of the definition of a subgraph. Raises `InvalidInput` for damaged ones."""
    nodes: dict[str, UiNode] = {}
    for entry in graph["nodes"]:
        node = _read_node(entry)
        if node.node_id in nodes:
            raise InvalidInput(f"run: node id {node.node_id} occurs twice in the graph.")
        nodes[node.node_id] = node
    return UiGraph(nodes, dict(_read_links(graph)))


def entries(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; anything else counts as none."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _read_node(entry: Any) -> UiNode:
    if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("type"), str):
        raise InvalidInput(f"run: a node of the graph lacks its id or type: {str(entry)[:80]}.")
    title, mode, values = entry.get("title"), entry.get("mode"), entry.get("widgets_values")
    properties = entry.get("properties")
    proxies = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    return UiNode(
        node_id=str(entry["id"]),
        class_type=entry["type"],
        title=title if isinstance(title, str) and title else entry["type"],
        mode=mode if isinstance(mode, int) else 0,
        inputs=tuple(_read_slot(slot) for slot in entries(entry.get("inputs"))),
        output_types=tuple(str(slot.get("type", "*")) for slot in entries(entry.get("outputs"))),
        widget_values=values if isinstance(values, (list, dict)) else [],
        proxy_widgets=tuple(_read_proxies(proxies)),
    )


def _read_proxies(proxies: Any) -> Iterator[tuple[str, str]]:
    for entry in proxies if isinstance(proxies, list) else []:
        if isinstance(entry, list) and len(entry) >= 2:
            yield str(entry[0]), str(entry[1])


def _read_slot(slot: Mapping[str, Any]) -> UiSlot:
    widget = slot.get("widget")
    link = slot.get("link")
    return UiSlot(
        name=str(slot.get("name", "")),
        kind=str(slot.get("type", "*")),
        link=str(link) if isinstance(link, int) else None,
        widget=str(widget.get("name")) if isinstance(widget, dict) else None,
    )


def _read_links(graph: Mapping[str, Any]) -> Iterator[tuple[str, UiLink]]:
    """Links as the arrays of a graph [id, origin, slot, target, slot, type] or as the objects of a subgraph."""
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
        yield str(link_id), UiLink(str(origin_id), origin_slot, str(target_id), target_slot)
