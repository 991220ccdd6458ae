"""Runs ComfyUI graphs without ComfyUI, as the host does: worker thread, inference mode, outputs cached, never mutated.

Here: reading UI and API graphs, converting one to the other, validation, execution, the run report, and the builder
that writes the shipped graphs. Not here: anything about portraits; node classes are handed in as a registry
(`{"AP3D_X": class}`) and never imported.
"""

from __future__ import annotations

from .context import Interrupted, RunContext, RunListener, active_context, plain_context
from .convert import ui_to_prompt
from .graph import Link, Prompt, PromptNode, prompt_to_json, read_graph_file
from .registry import load_registry
from .report import RunReport
from .runner import OutputCache, RunResult, RunSettings, run

__all__ = [
    "Interrupted",
    "Link",
    "OutputCache",
    "Prompt",
    "PromptNode",
    "RunContext",
    "RunListener",
    "RunReport",
    "RunResult",
    "RunSettings",
    "active_context",
    "load_registry",
    "plain_context",
    "prompt_to_json",
    "read_graph_file",
    "run",
    "ui_to_prompt",
]
