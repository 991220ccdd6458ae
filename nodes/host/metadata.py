"""The graph that a file was made by, inside of the file: dropped on the canvas, it is there again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .environment import comfy_module

GRAPH_INPUTS = {"graph_prompt": "PROMPT", "graph_extra": "EXTRA_PNGINFO"}
"""Hidden inputs of nodes that save files; their values go to `graph_texts`."""


def graph_texts(graph_prompt: Mapping[str, Any] | None, graph_extra: Mapping[str, Any] | None) -> dict[str, str]:
    """JSON texts by the names that the frontend looks for: `workflow`, the graph as it was seen, and `prompt`, as it
    was run. Empty under ComfyUI's --disable-metadata."""
    options = comfy_module("comfy.cli_args")
    if options is not None and options.args.disable_metadata:
        return {}
    values = {**(graph_extra or {}), **({"prompt": graph_prompt} if graph_prompt else {})}
    return {name: json.dumps(value) for name, value in values.items()}
