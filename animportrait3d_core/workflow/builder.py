"""Writes graphs in the frontend's UI format 0.4 from a few lines of Python, so that they stay true to the nodes.

    graph = WorkflowBuilder("quickstart", registry)
    with graph.stage("1 Portrait", note="Any GLB, OBJ or PLY head."):
        portrait = graph.add("AP3D_PortraitFromMesh", file="head.glb")
    with graph.stage("2 Surface"):
        with graph.folded("Surface"):
            views = graph.add("AP3D_RenderViews", portrait=portrait["portrait"], knobs={"size": "view size"})
            ...
        graph.add("PreviewImage", images=mesh["image"])
    text = graph.to_text()

A stage is a titled frame; stages stand from left to right, nodes of a stage below each other, its note above them. What
is folded is one box, a subgraph. Links may cross its border: the box gets the inputs and outputs that they need.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidInput
from .builder_layout import Column, Layout, box_colors, layers, node_height, note_height, opening_view, shown_height
from .builder_scope import BuiltNode, Output, Scope, Source
from .core_nodes import CORE_NODES
from .definitions import InputDefinition, NodeDefinition, Registry, define_node, types_fit
from .subgraphs import INPUT_NODE_ID, OUTPUT_NODE_ID
from .ui_graph import BYPASSED

FORMAT_VERSION = 0.4
REGISTRY_ID = "animportrait3d"
NODE_WIDTH = 340
NOTE_COLORS = {"color": "#432", "bgcolor": "#653"}


class WorkflowBuilder:
    """A graph under construction. Nodes can only be linked to nodes added before, so there are no cycles."""

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self.registry = registry
        self._root = self._scope = Scope()
        self._folded: list[Scope] = []
        self._node_ids, self._link_ids = itertools.count(1), itertools.count(1)

    @contextlib.contextmanager
    def stage(self, title: str, note: str = "", width: int = NODE_WIDTH) -> Iterator[None]:
        """A titled frame around what is added inside the block: a column of nodes of one width.

        note: Markdown.
        """
        if self._scope is not self._root:
            raise InvalidInput(f"WorkflowBuilder: stage '{title}' cannot stand in a folded box.")
        self._scope.columns.append(Column(width, title))
        if note:
            self._add_note(title, note)
        yield

    def note(self, title: str, text: str, width: int = NODE_WIDTH) -> None:
        """A note that is a column of its own."""
        self._root.columns.append(Column(width))
        self._add_note(title, text)

    @contextlib.contextmanager
    def folded(self, title: str, note: str = "", bypassed: bool = False) -> Iterator[None]:
        """A box, inside of which stands what is added inside the block: a subgraph. Bypassed, it hands on its first
        input of the type of each output, until its user says otherwise."""
        outer, node_id = self._scope, next(self._node_ids)
        entry: dict[str, Any] = {"type": self._uuid(str(node_id)), "title": title, "inputs": [], "outputs": []}
        entry |= {
            # Else newer frontends show the pictures of the nodes inside, for which there is no room.
            "properties": {"previewExposures": []},
            "widgets_values": [],
            **_mode(bypassed),
            **box_colors(sum(bool(column.title) for column in self._root.columns) - 1),
        }
        definition = NodeDefinition(entry["type"], object, (), {}, (), (), False)
        self._scope = Scope(BuiltNode(node_id, definition, self._stand(outer, node_id, entry, 0), outer), title)
        self._folded.append(self._scope)
        if note:
            self._add_note(title, note)
        yield
        self._scope = outer

    def add(
        self,
        class_type: str,
        *,
        title: str = "",
        shows_picture: bool = False,
        text_lines: int = 0,
        page_height: int = 0,
        models: Any = None,
        knobs: Mapping[str, str] | None = None,
        output_names: Mapping[str, str] | None = None,
        collapsed: bool = False,
        bypassed: bool = False,
        **values: Any,
    ) -> BuiltNode:
        """Add a node; `values` are constants or outputs of earlier nodes, what is left out keeps its default.

        `shows_picture` leaves room for a picture or a long text on the node, `text_lines` for a short text, and
        `page_height` as many pixels for what a node of its own draws there. `models`
        ([{name, url, directory}]) drives the frontend's dialog about missing models. `knobs` are widgets that the box
        around the node (the outermost, where boxes lie in boxes) shows as well, and `output_names` what its outputs are
        called on boxes, both {own name: other}.
        A node that is `collapsed` shows its title alone, a `bypassed` one hands its inputs on.
        """
        definition = self._define(class_type)
        unknown = sorted((set(values) | set(knobs or ())) - {entry.name for entry in definition.inputs})
        if unknown:
            raise InvalidInput(f"WorkflowBuilder: {class_type} has no input {', '.join(unknown)}.")
        node_id, scope = next(self._node_ids), self._scope
        inputs = self._inputs(definition, values, knobs or {}, node_id)
        package = "comfy-core" if class_type in CORE_NODES else REGISTRY_ID
        properties = {"Node name for S&R": class_type, "cnr_id": package}
        entry = {
            "type": class_type,
            **_mode(bypassed),
            "flags": {"collapsed": True} if collapsed else {},
            "inputs": inputs,
            "outputs": [
                {"name": name, "type": kind, "links": []}
                for name, kind in zip(definition.return_names, definition.return_types)
            ],
            "properties": properties | ({"models": models} if models else {}),
            "widgets_values": _widget_values(definition, values),
        }
        if title:
            entry["title"] = title
        multiline, rows = _widget_rows(definition)
        shown = shown_height(shows_picture or class_type == "PreviewImage", text_lines) + page_height
        sockets = sum("widget" not in slot or slot["link"] is not None for slot in inputs)
        height = node_height(max(sockets, len(definition.return_types)), rows, multiline, shown)
        return BuiltNode(node_id, definition, self._stand(scope, node_id, entry, height), scope, output_names or {})

    def to_json(self) -> dict[str, Any]:
        """The graph as the frontend would save it."""
        scopes, root, reroute_ids = [self._root, *self._folded], self._root, itertools.count(1)
        last = {
            "last_node_id": max((node["id"] for scope in scopes for node in scope.nodes), default=0),
            "last_link_id": max((link["id"] for scope in scopes for link in scope.links), default=0),
        }
        # The inner ones first: frontend 1.27 finds the knobs of a box only of boxes in it that it has read before.
        subgraphs = [self._definition_json(scope, last, reroute_ids) for scope in reversed(self._folded)]
        layout = Layout(root.columns, root.links, {})
        reroutes = layout.reroutes(reroute_ids)
        parents = [{"id": link["id"], "parentId": link["parentId"]} for link in root.links if "parentId" in link]
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        extra = {"ds": opening_view(layout)}
        return {
            "id": self._uuid(""),
            "revision": 0,
            **last,
            "nodes": root.nodes,
            "links": [[link[key] for key in keys] for link in root.links],
            "groups": layout.frames,
            **({"definitions": {"subgraphs": subgraphs}} if subgraphs else {}),
            "config": {},
            "extra": extra | ({"reroutes": reroutes, "linkExtensions": parents} if reroutes else {}),
            "version": FORMAT_VERSION,
        }

    def to_text(self) -> str:
        """The content of the file."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    def _uuid(self, name: str) -> str:
        path = f"{REGISTRY_ID}/{self.name}" + (f"/{name}" if name else "")
        return str(uuid.uuid5(uuid.NAMESPACE_URL, path))

    def _define(self, class_type: str) -> NodeDefinition:
        node_class = self.registry.get(class_type) or CORE_NODES.get(class_type)
        if node_class is None:
            raise InvalidInput(f"WorkflowBuilder: no node '{class_type}' is registered.")
        return define_node(class_type, node_class)

    def _stand(self, scope: Scope, node_id: int, entry: dict[str, Any], height: int) -> dict[str, Any]:
        """Put a node into the last column of a scope; return what is stored of it."""
        if not scope.columns:
            scope.columns.append(Column(NODE_WIDTH))
        full = {"id": node_id, "type": entry.pop("type"), "pos": [0, 0], "size": [0, height]}
        full |= {"flags": {}, "order": node_id - 1, "mode": 0, **entry}
        scope.columns[-1].nodes.append(full)
        return full

    def _inputs(
        self, definition: NodeDefinition, values: Mapping[str, Any], knobs: Mapping[str, str], node_id: int
    ) -> list[dict[str, Any]]:
        """The input slots as saved: sockets always, widgets when linked.

        Within a box, all widgets of a node when one is linked, behind the sockets: frontend 1.27 goes by the number of
        a slot there, and counts so.
        """
        sockets = [entry for entry in definition.inputs if not entry.is_widget]
        linked = [one for one in definition.widgets if one.name in knobs or isinstance(values.get(one.name), Output)]
        widgets = list(definition.widgets) if linked and self._scope.box is not None else linked
        slots = []
        for position, entry in enumerate([*sockets, *widgets]):
            source = self._source(definition, entry, values.get(entry.name, entry.default), knobs.get(entry.name))
            link = self._connect(source, node_id, position) if source is not None else None
            slot: dict[str, Any] = {"name": entry.name, "type": entry.kind, "link": link}
            slots.append(slot | ({"widget": {"name": entry.name}} if entry.is_widget else {}))
        return slots

    def _source(
        self, definition: NodeDefinition, entry: InputDefinition, value: Any, knob: str | None
    ) -> Source | None:
        """Where an input's value comes from, if not from its own widget."""
        if knob is not None:
            return self._knob(definition, entry, value, knob)
        if isinstance(value, Output):
            kind = value.node.definition.return_types[value.slot]
            if entry.kind != "*" and not types_fit(kind, entry.kind):
                raise InvalidInput(
                    f"WorkflowBuilder: {definition.class_type} takes {entry.kind} for '{entry.name}', "
                    f"{value.node.definition.class_type} gives {kind}."
                )
            return self._within(value, entry)
        if entry.required and not entry.is_widget:
            need = f"a link for '{entry.name}' ({entry.kind})"
            raise InvalidInput(f"WorkflowBuilder: {definition.class_type} needs {need}.")
        return None

    def _connect(self, source: Source, target_id: int, target_slot: int) -> int:
        link_id = next(self._link_ids)
        ends = {"origin_id": source.node_id, "origin_slot": source.slot, "target_id": target_id}
        source.scope.links.append({"id": link_id, **ends, "target_slot": target_slot, "type": source.kind})
        source.links.append(link_id)
        return link_id

    def _within(self, output: Output, entry: InputDefinition) -> Source:
        """An output as it is seen from the open scope: through the borders of the boxes on the way."""
        slot, given = output.node.json["outputs"][output.slot], output.node.output_names
        name = given.get(slot["name"], slot["name"])
        source = Source(output.node.scope, output.node.node_id, output.slot, slot["type"], name, slot["links"])
        around = self._scope.around
        while not any(source.scope is scope for scope in around):
            source = self._lifted(source, entry)
        inner = around[: next(i for i, scope in enumerate(around) if scope is source.scope)]
        for scope in reversed(inner):
            source = self._lowered(source, scope, entry)
        return source

    def _lifted(self, source: Source, entry: InputDefinition) -> Source:
        """An output inside a box as an output of the box."""
        scope, key = source.scope, (source.node_id, source.slot)
        assert scope.box is not None
        slots = scope.box.json["outputs"]
        if key not in scope.given:
            scope.given[key] = len(slots)
            port = self._port(scope, "outputs", (source.name, entry.name), source.kind)
            port["linkIds"].append(self._connect(source, OUTPUT_NODE_ID, len(slots)))
            slots.append({"name": port["name"], "type": source.kind, "links": []})
        slot = slots[scope.given[key]]
        return Source(scope.box.scope, scope.box.node_id, scope.given[key], source.kind, slot["name"], slot["links"])

    def _lowered(self, source: Source, scope: Scope, entry: InputDefinition) -> Source:
        """An output outside a box as an input of the box, seen from inside."""
        key = (source.node_id, source.slot)
        assert scope.box is not None
        slots = scope.box.json["inputs"]
        if key not in scope.taken:
            scope.taken[key] = len(slots)
            port = self._port(scope, "inputs", (source.name, entry.name), source.kind)
            link = self._connect(source, scope.box.node_id, len(slots))
            slots.append({"name": port["name"], "type": source.kind, "link": link})
        slot = scope.taken[key]
        port = scope.ports["inputs"][slot]
        if entry.is_widget:
            # What feeds a widget is a widget of the box as well, with a place among its values.
            slots[slot]["widget"] = {"name": port["name"]}
            scope.values.setdefault(slot, entry.default)
            scope.multiline |= {slot} if entry.options.get("multiline") else set()
        return Source(scope, INPUT_NODE_ID, slot, source.kind, port["name"], port["linkIds"])

    def _knob(self, definition: NodeDefinition, entry: InputDefinition, value: Any, name: str) -> Source:
        """An input of the box that is a widget, and sets one inside."""
        scope = self._scope
        if scope.box is None or not entry.is_widget or isinstance(value, Output):
            raise InvalidInput(f"WorkflowBuilder: {definition.class_type}.{entry.name} cannot be a knob of a box.")
        # The box that stands in the open has it, and hands it inwards.
        *inner, outer = scope.around[:-1]
        assert outer.box is not None
        port = self._port(outer, "inputs", (name,), entry.kind)
        slots = outer.box.json["inputs"]
        slots.append({"name": port["name"], "type": entry.kind, "link": None, "widget": {"name": port["name"]}})
        outer.values[len(slots) - 1] = value
        source = Source(outer, INPUT_NODE_ID, len(slots) - 1, entry.kind, port["name"], port["linkIds"])
        for one in reversed(inner):
            source = self._lowered(source, one, entry)
        return source

    def _port(self, scope: Scope, side: str, names: tuple[str, ...], kind: str) -> dict[str, Any]:
        """A new input or output of a subgraph, with the first of the names that is free."""
        assert scope.box is not None
        used = {port["name"] for port in scope.ports[side]}
        numbered = (f"{names[0]}_{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain(names, numbered) if name not in used)
        port = {"id": self._uuid(f"{scope.box.node_id}/{side}/{name}"), "name": name, "type": kind, "linkIds": []}
        scope.ports[side].append(port)
        return port

    def _definition_json(self, scope: Scope, last: Mapping[str, int], ids: itertools.count) -> dict[str, Any]:
        """The definition of a folded box, whose height becomes what its sockets and knobs need."""
        assert scope.box is not None
        scope.box.json["widgets_values"] = [scope.values[slot] for slot in sorted(scope.values)]
        inputs, outputs, knobs = (len(scope.box.json[key]) for key in ("inputs", "outputs", "widgets_values"))
        multiline = len(scope.multiline)
        scope.box.json["size"][1] = node_height(max(inputs - knobs, outputs), knobs - multiline, multiline, 0)
        columns = layers(scope.nodes, scope.links, NODE_WIDTH)
        layout = Layout(columns, scope.links, {INPUT_NODE_ID: inputs, OUTPUT_NODE_ID: outputs})
        reroutes = layout.reroutes(ids)
        return {
            "id": scope.box.json["type"],
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": last["last_node_id"],
                "lastLinkId": last["last_link_id"],
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": scope.title,
            "inputNode": {"id": INPUT_NODE_ID, "bounding": layout.bounds[INPUT_NODE_ID]},
            "outputNode": {"id": OUTPUT_NODE_ID, "bounding": layout.bounds[OUTPUT_NODE_ID]},
            **scope.ports,
            "widgets": [],
            "nodes": scope.nodes,
            "groups": [],
            "links": scope.links,
            **({"reroutes": reroutes} if reroutes else {}),
            "extra": {},
        }

    def _add_note(self, title: str, text: str) -> None:
        note = {"type": "MarkdownNote", "title": title, "inputs": [], "outputs": [], "properties": {}}
        note |= {"widgets_values": [text], **NOTE_COLORS}
        columns = self._scope.columns
        width = columns[-1].width if columns else NODE_WIDTH
        self._stand(self._scope, next(self._node_ids), note, note_height(text, width))


def _widget_values(definition: NodeDefinition, values: Mapping[str, Any]) -> list[Any]:
    """Stored values by position, with the frontend's companions: seeds are fixed, so that a shipped graph repeats."""
    stored: list[Any] = []
    for entry in definition.widgets:
        value = values.get(entry.name, entry.default)
        stored.append(entry.default if isinstance(value, Output) else value)
        companions: list[Any] = ["image"] if entry.options.get("image_upload") else []
        controls = entry.companion_widgets - len(companions)
        stored += ["fixed", ""][:controls] + companions
    return stored


def _widget_rows(definition: NodeDefinition) -> tuple[int, int]:
    """How many widgets of several rows a node shows, and how many rows of others: its advanced widgets are behind a
    button, as the frontend has them until somebody asks, and files have a button for uploads."""
    shown = [one for one in definition.widgets if not one.options.get("advanced")]
    multiline = sum(bool(one.options.get("multiline")) for one in shown)
    rows = sum(1 + one.companion_widgets for one in shown) - multiline
    rows += len(shown) < len(definition.widgets)
    rows += any(one.file_input.get("upload") for one in definition.inputs)
    return multiline, rows


def _mode(bypassed: bool) -> dict[str, int]:
    return {"mode": BYPASSED} if bypassed else {}
