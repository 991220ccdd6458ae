"""Writes graphs in the frontend's UI format 0.4 from a few lines of Python, so that they stay true to the nodes.

    graph = WorkflowBuilder("quickstart", registry)
    with graph.stage("1 Portrait", note="Any GLB, OBJ or PLY head."):
        portrait = graph.add("AP3D_PortraitFromMesh", file="head.glb")
    with graph.stage("2 Views"):
        views = graph.add("AP3D_RenderViews", portrait=portrait["portrait"], size=256)
        graph.add("PreviewImage", images=views["images"])
    text = graph.to_text()

A stage is a titled box; stages stand from left to right, nodes of a stage below each other, its note above them.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from .definitions import InputDefinition, NodeDefinition, Registry, define_node, types_fit

FORMAT_VERSION = 0.4
REGISTRY_ID = "animportrait3d"
NODE_WIDTH, GAP, MARGIN, TITLE_HEIGHT = 340, 74, 20, 60
SLOT_HEIGHT, WIDGET_HEIGHT, MULTILINE_HEIGHT, PICTURE_HEIGHT = 20, 24, 110, 260
TEXT_HEIGHT, TEXT_LINE_HEIGHT = 36, 13
NOTE_LINE_HEIGHT, NOTE_CHARACTERS_PER_LINE = 20, 42
STAGE_COLORS = ("#3f789e", "#8a5a9e", "#a1683f", "#5a8a4a", "#9e4f5c", "#4a8a8a")


def _core_node(inputs: Mapping[str, tuple], returns: tuple[str, ...] = ()) -> type:
    """What we need to know of a node of ComfyUI's own."""
    declared = {"required": dict(inputs)}
    methods = {"INPUT_TYPES": classmethod(lambda cls: declared), "RETURN_TYPES": returns, "OUTPUT_NODE": not returns}
    return type("CoreNode", (), methods)


CORE_NODES: Registry = {
    "ImageScale": _core_node(
        {
            "image": ("IMAGE", {}),
            "upscale_method": (["nearest-exact", "bilinear", "area", "bicubic", "lanczos"], {"default": "area"}),
            "width": ("INT", {"default": 512}),
            "height": ("INT", {"default": 512}),
            "crop": (["disabled", "center"], {"default": "disabled"}),
        },
        ("IMAGE",),
    ),
    "ImageUpscaleWithModel": _core_node({"upscale_model": ("UPSCALE_MODEL", {}), "image": ("IMAGE", {})}, ("IMAGE",)),
    "LoadImage": _core_node({"image": ([], {"image_upload": True})}, ("IMAGE", "MASK")),
    "PreviewAny": _core_node({"source": ("*", {})}),
    "PreviewImage": _core_node({"images": ("IMAGE", {})}),
    "Preview3D": _core_node({"model_file": ("STRING", {"default": ""})}),
    "UpscaleModelLoader": _core_node({"model_name": (["RealESRGAN_x2plus.pth"], {})}, ("UPSCALE_MODEL",)),
    "SaveImage": _core_node({"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})}),
}


@dataclass(frozen=True)
class Output:
    """An output of a node in a builder, to be given to a later node."""

    node: BuiltNode
    slot: int


@dataclass
class BuiltNode:
    """A node in a builder; index it by output name or number."""

    node_id: int
    definition: NodeDefinition
    json: dict[str, Any]

    def __getitem__(self, output: str | int) -> Output:
        names = self.definition.return_names
        slot = names.index(output) if isinstance(output, str) and output in names else output
        if not isinstance(slot, int) or not 0 <= slot < len(names):
            class_type = self.definition.class_type
            raise InvalidInput(f"WorkflowBuilder: {class_type} has no output {output!r}; it has {', '.join(names)}.")
        return Output(self, slot)


class WorkflowBuilder:
    """A graph under construction. Nodes can only be linked to nodes added before, so there are no cycles."""

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self.registry = registry
        self._nodes: list[dict[str, Any]] = []
        self._links: list[list[Any]] = []
        self._groups: list[dict[str, Any]] = []
        self._column_x = 0
        self._next_y = 0

    @contextlib.contextmanager
    def stage(self, title: str, note: str = "") -> Iterator[None]:
        """A titled box; what is added inside the block stands in it. `note` is Markdown."""
        self._next_y = TITLE_HEIGHT + MARGIN
        if note:
            self._add_note(note)
        yield
        width = NODE_WIDTH + 2 * MARGIN
        self._groups.append(
            {
                "id": len(self._groups) + 1,
                "title": title,
                "bounding": [self._column_x - MARGIN, 0, width, self._next_y - GAP + MARGIN],
                "color": STAGE_COLORS[len(self._groups) % len(STAGE_COLORS)],
                "font_size": 24,
                "flags": {},
            }
        )
        self._column_x += width + GAP

    def add(
        self,
        class_type: str,
        *,
        title: str = "",
        shows_picture: bool = False,
        text_lines: int = 0,
        models: Any = None,
        **values: Any,
    ) -> BuiltNode:
        """Add a node; `values` are constants or outputs of earlier nodes, what is left out keeps its default.

        `shows_picture` leaves room for a picture or a long text on the node, `text_lines` for a short text. `models`
        ([{name, url, directory}]) drives the frontend's dialog about missing models.
        """
        definition = self._define(class_type)
        unknown = sorted(set(values) - {entry.name for entry in definition.inputs})
        if unknown:
            raise InvalidInput(f"WorkflowBuilder: {class_type} has no input {', '.join(unknown)}.")
        node_id = len(self._nodes) + 1
        slots = [self._slot(definition, entry, values.get(entry.name), node_id) for entry in definition.inputs]
        inputs = [slot for slot in slots if slot is not None]
        for position, slot in enumerate(inputs):
            if slot["link"] is not None:
                self._links[slot["link"] - 1][4] = position
        shown_height = _shown_height(shows_picture or class_type == "PreviewImage", text_lines)
        package = "comfy-core" if class_type in CORE_NODES else REGISTRY_ID
        properties = {"Node name for S&R": class_type, "cnr_id": package}
        entry = {
            "id": node_id,
            "type": class_type,
            **self._place(definition, len(inputs), shown_height),
            "flags": {},
            "order": node_id - 1,
            "mode": 0,
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
        self._nodes.append(entry)
        return BuiltNode(node_id, definition, entry)

    def to_json(self) -> dict[str, Any]:
        """The graph as the frontend would save it."""
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{REGISTRY_ID}/{self.name}")),
            "revision": 0,
            "last_node_id": len(self._nodes),
            "last_link_id": len(self._links),
            "nodes": self._nodes,
            "links": self._links,
            "groups": self._groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [80, 80]}},
            "version": FORMAT_VERSION,
        }

    def to_text(self) -> str:
        """The content of the file."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    def _define(self, class_type: str) -> NodeDefinition:
        node_class = self.registry.get(class_type) or CORE_NODES.get(class_type)
        if node_class is None:
            raise InvalidInput(f"WorkflowBuilder: no node '{class_type}' is registered.")
        return define_node(class_type, node_class)

    def _slot(self, definition: NodeDefinition, entry: InputDefinition, value: Any, node_id: int) -> dict | None:
        """The input slot as saved: sockets always, widgets only when linked."""
        linked = isinstance(value, Output)
        if entry.is_widget and not linked:
            return None
        if entry.required and not linked:
            need = f"a link for '{entry.name}' ({entry.kind})"
            raise InvalidInput(f"WorkflowBuilder: {definition.class_type} needs {need}.")
        slot: dict[str, Any] = {"name": entry.name, "type": entry.kind, "link": None}
        if entry.is_widget:
            slot["widget"] = {"name": entry.name}
        if linked:
            slot["link"] = self._link(definition, entry, value, node_id)
        return slot

    def _link(self, definition: NodeDefinition, entry: InputDefinition, output: Output, node_id: int) -> int:
        kind = output.node.definition.return_types[output.slot]
        if entry.kind != "*" and not types_fit(kind, entry.kind):
            raise InvalidInput(
                f"WorkflowBuilder: {definition.class_type} takes {entry.kind} for '{entry.name}', "
                f"{output.node.definition.class_type} gives {kind}."
            )
        link_id = len(self._links) + 1
        self._links.append([link_id, output.node.node_id, output.slot, node_id, 0, kind])
        output.node.json["outputs"][output.slot]["links"].append(link_id)
        return link_id

    def _place(self, definition: NodeDefinition, inputs: int, shown_height: int) -> dict[str, Any]:
        """Position and size below the last node of the column, from the number of slots and widgets."""
        multiline = sum(bool(entry.options.get("multiline")) for entry in definition.widgets)
        rows = sum(1 + entry.companion_widgets for entry in definition.widgets) - multiline
        height = 10 + SLOT_HEIGHT * max(inputs, len(definition.return_types)) + WIDGET_HEIGHT * rows
        height += MULTILINE_HEIGHT * multiline + shown_height
        place = {"pos": [self._column_x, self._next_y], "size": [NODE_WIDTH, height]}
        # The title bar of a node stands above its position, and the badge with the name of its pack above that.
        self._next_y += height + GAP
        return place

    def _add_note(self, text: str) -> None:
        lines = sum(1 + len(line) // NOTE_CHARACTERS_PER_LINE for line in text.splitlines())
        height = 30 + NOTE_LINE_HEIGHT * lines
        node_id = len(self._nodes) + 1
        self._nodes.append(
            {
                "id": node_id,
                "type": "MarkdownNote",
                "pos": [self._column_x, self._next_y],
                "size": [NODE_WIDTH, height],
                "flags": {},
                "order": node_id - 1,
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "properties": {},
                "widgets_values": [text],
                "color": "#432",
                "bgcolor": "#653",
            }
        )
        self._next_y += height + GAP


def _shown_height(picture: bool, text_lines: int) -> int:
    """Room for what a node will show below its widgets."""
    return (PICTURE_HEIGHT if picture else 0) + (TEXT_HEIGHT + TEXT_LINE_HEIGHT * text_lines if text_lines else 0)


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
