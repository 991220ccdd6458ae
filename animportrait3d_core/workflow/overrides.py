"""Values that a run changes in a graph: `--set NODE.INPUT=VALUE` (`none` disconnects an optional input), `--seed`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import InvalidInput
from .definitions import InputDefinition, NodeDefinition
from .file_inputs import file_of_command_line
from .graph import Link, Prompt, PromptNode


def apply_override(prompt: Prompt, definitions: Mapping[str, NodeDefinition], override: str) -> None:
    """Apply one NODE.INPUT=VALUE; NODE is an id, a title or a node type that occurs once."""
    target, equals, text = override.partition("=")
    node_key, dot, input_name = target.rpartition(".")
    if not (equals and dot and node_key and input_name):
        raise InvalidInput(f"--set {override}: expected NODE.INPUT=VALUE, NODE an id, a title or a node type.")
    node = _find_node(prompt, node_key, override)
    definition = definitions[node.class_type]
    entry = definition.input(input_name)
    if entry is not None and not entry.is_widget and not entry.required and text == "none":
        kept = {name: value for name, value in node.inputs.items() if name != input_name}
        prompt[node.node_id] = replace(node, inputs=kept)
        return
    if entry is None or not entry.is_widget:
        settable = ", ".join(widget.name for widget in definition.widgets) or "none"
        raise InvalidInput(f"--set {override}: {node.label} has no value '{input_name}'; its values: {settable}.")
    is_file = bool(entry.file_input)
    value = file_of_command_line(node.label, entry, text) if is_file else _parse_override(override, entry, text)
    prompt[node.node_id] = replace(node, inputs={**node.inputs, input_name: value})


def _find_node(prompt: Prompt, key: str, override: str) -> PromptNode:
    if key in prompt:
        return prompt[key]
    found = [node for node in prompt.values() if key in (node.title, node.class_type)]
    if len(found) == 1:
        return found[0]
    if found:
        labels = ", ".join(node.label for node in found)
        raise InvalidInput(f"--set {override}: '{key}' fits {len(found)} nodes ({labels}); use the id.")
    known = ", ".join(node.label for node in prompt.values())
    raise InvalidInput(f"--set {override}: the graph has no node '{key}'; it has {known}.")


def _parse_override(override: str, entry: InputDefinition, text: str) -> Any:
    if entry.kind == "BOOLEAN":
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise InvalidInput(f"--set {override}: '{entry.name}' takes true or false.")
        return words[text.lower()]
    if entry.kind == "COMBO":
        return next((choice for choice in entry.choices or () if str(choice) == text), text)
    return text


def apply_seed(prompt: Prompt, definitions: Mapping[str, NodeDefinition], seed: int) -> None:
    """Set every seed of the graph that is a constant."""
    for node in list(prompt.values()):
        seeds = {
            entry.name: seed
            for entry in definitions[node.class_type].inputs
            if entry.is_seed and not isinstance(node.inputs.get(entry.name), Link)
        }
        prompt[node.node_id] = replace(node, inputs={**node.inputs, **seeds})
