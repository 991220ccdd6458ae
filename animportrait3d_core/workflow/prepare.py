"""From a parsed file to a prompt that may run: convert, drop what only the host shows, apply overrides, validate."""

from __future__ import annotations

import graphlib
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidInput
from .convert import ui_to_prompt
from .definitions import InputDefinition, NodeDefinition, Registry, define_node, types_fit
from .file_inputs import check_file
from .graph import Link, Prompt, PromptNode, is_ui_graph, prompt_from_json
from .overrides import apply_override, apply_seed
from .subgraphs import subgraph_entries
from .ui_graph import entries

# Core nodes at the end of a branch that only show or save: the headless runner leaves them out.
CORE_TERMINALS = frozenset(
    {
        "MaskPreview",
        "Preview3D",
        "Preview3DAdvanced",
        "Preview3DAnimation",
        "PreviewAny",
        "PreviewGaussianSplat",
        "PreviewImage",
        "PreviewPointCloud",
        "SaveAnimatedPNG",
        "SaveAnimatedWEBP",
        "SaveGLB",
        "SaveImage",
        "SaveVideo",
        "SaveWEBM",
    }
)


@dataclass(frozen=True)
class Plan:
    """A validated prompt, the definitions of its nodes, and the node ids in the order of execution."""

    prompt: Prompt
    definitions: Mapping[str, NodeDefinition]
    order: tuple[str, ...]


def prepare(
    graph: Mapping[str, Any], registry: Registry, overrides: Iterable[str] = (), seed: int | None = None
) -> Plan:
    """Turn a parsed workflow into a `Plan`, or raise one error that names the node and the fault.

    Raises `InvalidInput`; `MissingModelFile` where a file input is given a path at which no file lies.
    """
    definitions = _definitions(graph, registry)
    prompt = ui_to_prompt(graph, definitions) if is_ui_graph(graph) else prompt_from_json(graph)
    targets = _drop_host_nodes(prompt, definitions)
    _check_links_exist(prompt, definitions)
    for override in overrides:
        apply_override(prompt, definitions, override)
    if seed is not None:
        apply_seed(prompt, definitions, seed)
    order = _execution_order(prompt, targets, definitions)
    for node_id in order:
        prompt[node_id] = _validated(prompt, definitions, prompt[node_id])
    return Plan(prompt, definitions, order)


def _definitions(graph: Mapping[str, Any], registry: Registry) -> dict[str, NodeDefinition]:
    """Definitions of the node types that occur in the graph and in the registry."""
    if is_ui_graph(graph):
        found = [node.get("type") for one in (graph, *subgraph_entries(graph)) for node in entries(one.get("nodes"))]
    else:
        inner = graph.get("prompt")
        nodes = [*graph.values(), *(inner.values() if isinstance(inner, dict) else ())]
        found = [node.get("class_type") for node in nodes if isinstance(node, dict)]
    names = sorted({name for name in found if isinstance(name, str) and name in registry})
    return {name: define_node(name, registry[name]) for name in names}


def _drop_host_nodes(prompt: Prompt, definitions: Mapping[str, NodeDefinition]) -> list[str]:
    """Remove branches that end in a core preview or save node; return the ids that must run.

    These are our output nodes and the nodes that fed what was removed: what runs in ComfyUI runs here. Any other node
    that is not registered is refused.
    """
    foreign = {node_id: node for node_id, node in prompt.items() if node.class_type not in definitions}
    consumers: dict[str, list[PromptNode]] = {node_id: [] for node_id in prompt}
    for node in prompt.values():
        for link in node.links().values():
            consumers.get(link.node_id, []).append(node)
    dropped: set[str] = set()
    grows = True
    while grows:
        candidates = {
            node_id
            for node_id, node in foreign.items()
            if all(consumer.node_id in dropped for consumer in consumers[node_id])
            and (consumers[node_id] or node.class_type in CORE_TERMINALS)
        }
        grows = not candidates <= dropped
        dropped |= candidates
    _refuse_foreign([node for node_id, node in foreign.items() if node_id not in dropped], consumers)
    fed = {link.node_id for node_id in dropped for link in prompt[node_id].links().values()} - dropped
    for node_id in dropped:
        del prompt[node_id]
    outputs = {node_id for node_id, node in prompt.items() if definitions[node.class_type].is_output}
    targets = [node_id for node_id in prompt if node_id in outputs | fed]
    if not targets:
        raise InvalidInput("run: no node of the graph saves or shows anything, so nothing would run.")
    return targets


def _refuse_foreign(nodes: list[PromptNode], consumers: Mapping[str, list[PromptNode]]) -> None:
    if not nodes:
        return
    node = nodes[0]
    if node.class_type.startswith("AP3D_"):
        raise InvalidInput(f"{node.label}: unknown node; this version of the pack has none of that name.")
    needing = next(iter(consumers[node.node_id]), None)
    if needing is not None:
        raise InvalidInput(
            f"{node.label}: is not a node of this pack, and {needing.label} needs its output; "
            "run this graph in ComfyUI, or replace the node."
        )
    raise InvalidInput(f"{node.label}: unknown node; remove it, or run this graph in ComfyUI with its pack installed.")


def _check_links_exist(prompt: Prompt, definitions: Mapping[str, NodeDefinition]) -> None:
    for node in prompt.values():
        for name, link in node.links().items():
            origin = prompt.get(link.node_id)
            if origin is None:
                raise InvalidInput(f"{node.label}: input '{name}' is linked to node #{link.node_id}: no such node.")
            outputs = definitions[origin.class_type].return_types
            if link.slot >= len(outputs) or link.slot < 0:
                raise InvalidInput(
                    f"{node.label}: input '{name}' is linked to output {link.slot} of {origin.label}, "
                    f"which has {len(outputs)} outputs."
                )


def _execution_order(
    prompt: Prompt, targets: Iterable[str], definitions: Mapping[str, NodeDefinition]
) -> tuple[str, ...]:
    """Topological order of the targets and what they need. Only declared inputs count, as in ComfyUI."""
    needs = {
        node_id: [
            link.node_id for name, link in node.links().items() if definitions[node.class_type].input(name) is not None
        ]
        for node_id, node in prompt.items()
    }
    try:
        order = tuple(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        path = " -> ".join(prompt[node_id].label for node_id in error.args[1])
        raise InvalidInput(f"run: the graph has a cycle: {path}.") from error
    wanted, open_ids = set(), list(targets)
    while open_ids:
        node_id = open_ids.pop()
        if node_id not in wanted:
            wanted.add(node_id)
            open_ids.extend(needs[node_id])
    return tuple(node_id for node_id in order if node_id in wanted)


def _validated(prompt: Prompt, definitions: Mapping[str, NodeDefinition], node: PromptNode) -> PromptNode:
    """The node with its constants converted to the declared types; raises on the first fault."""
    definition = definitions[node.class_type]
    check = getattr(definition.node_class, "VALIDATE_INPUTS", None)
    arguments = inspect.getfullargspec(check) if check is not None else None
    self_checked = set(arguments.args) - {"cls"} if arguments else set()
    if arguments and arguments.varkw:
        self_checked |= {entry.name for entry in definition.inputs}
    inputs: dict[str, Any] = {}
    for entry in definition.inputs:
        if entry.name not in node.inputs:
            if entry.required:
                raise InvalidInput(
                    f"{node.label}: required input '{entry.name}' ({entry.kind}) is missing. Connect it; if the node "
                    "before it is muted, bypass that one instead."
                )
            continue
        value = node.inputs[entry.name]
        if isinstance(value, Link):
            if "input_types" not in self_checked:
                _check_link_type(prompt, definitions, node, entry, value)
        else:
            value = _convert_constant(node.label, entry, value)
            if entry.name not in self_checked:
                _check_range(node.label, entry, value)
        inputs[entry.name] = value
    if arguments is not None:
        _call_validate_inputs(node, definition, inputs, self_checked, prompt, definitions)
    return replace(node, inputs=inputs)


def _check_link_type(
    prompt: Prompt, definitions: Mapping[str, NodeDefinition], node: PromptNode, entry: InputDefinition, link: Link
) -> None:
    origin = prompt[link.node_id]
    given = definitions[origin.class_type].return_types[link.slot]
    if not types_fit(given, entry.kind):
        raise InvalidInput(
            f"{node.label}: input '{entry.name}' takes {entry.kind}, but is linked to output {link.slot} "
            f"of {origin.label}, which gives {given}."
        )


def _convert_constant(label: str, entry: InputDefinition, value: Any) -> Any:
    """The constant in the declared Python type; refuses what would lose something on the way."""
    if entry.kind not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
        raise InvalidInput(f"{label}: input '{entry.name}' takes a link of type {entry.kind}, found {value!r}.")
    if entry.kind == "COMBO":
        return value
    if entry.kind == "BOOLEAN" and isinstance(value, (bool, int)):
        return bool(value)
    if entry.kind == "STRING" and isinstance(value, (str, int, float)):
        return str(value)
    if entry.kind in ("INT", "FLOAT") and isinstance(value, (int, float, str)):
        try:
            number = float(value)
            if entry.kind == "FLOAT" and math.isfinite(number):
                return number
            if entry.kind == "INT" and number.is_integer():
                return int(value)
        except (ValueError, OverflowError):
            number = math.nan
    raise InvalidInput(f"{label}: input '{entry.name}' takes {entry.kind}, found {value!r}.")


def _check_range(label: str, entry: InputDefinition, value: Any) -> None:
    if entry.kind == "COMBO" and entry.file_input:
        check_file(label, entry, value)
        return
    if entry.kind == "COMBO":
        choices = entry.choices or ()
        if value not in choices:
            shown = ", ".join(repr(choice) for choice in choices[:12]) + (", ..." if len(choices) > 12 else "")
            raise InvalidInput(f"{label}: input '{entry.name}' is {value!r}, expected one of {shown or 'no choices'}.")
        return
    for bound, outside in (("min", lambda limit: value < limit), ("max", lambda limit: value > limit)):
        limit = entry.options.get(bound)
        if limit is not None and entry.kind in ("INT", "FLOAT") and outside(limit):
            raise InvalidInput(f"{label}: input '{entry.name}' is {value}, {bound} {limit}.")


def _call_validate_inputs(
    node: PromptNode,
    definition: NodeDefinition,
    inputs: Mapping[str, Any],
    self_checked: set[str],
    prompt: Prompt,
    definitions: Mapping[str, NodeDefinition],
) -> None:
    """VALIDATE_INPUTS sees constants and, if it asks, the types of the links."""
    given = {name: value for name, value in inputs.items() if name in self_checked and not isinstance(value, Link)}
    if "input_types" in self_checked:
        given["input_types"] = {
            name: definitions[prompt[link.node_id].class_type].return_types[link.slot]
            for name, link in inputs.items()
            if isinstance(link, Link)
        }
    verdict = definition.node_class.VALIDATE_INPUTS(**given)  # type: ignore[attr-defined]
    if verdict is not True:
        raise InvalidInput(f"{node.label}: {verdict if isinstance(verdict, str) else 'its inputs were refused.'}")
