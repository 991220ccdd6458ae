#!/usr/bin/env python3
"""Writes the shipped graphs in workflows/ from the node classes; `--check` only compares, and fails on a difference.

A graph is a function of `shipped_graphs` that fills a `WorkflowBuilder`. After a change of a node's inputs run this
script again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from shipped_graphs import first_stage, real_models, saved_avatar, second_stage  # noqa: E402  (needs the path above)

from animportrait3d_core.workflow.builder import WorkflowBuilder  # noqa: E402
from animportrait3d_core.workflow.prepare import prepare  # noqa: E402
from animportrait3d_core.workflow.registry import load_registry  # noqa: E402

WORKFLOWS: dict[str, Callable[[WorkflowBuilder], None]] = {
    "health_check": first_stage.health_check,
    "quickstart": second_stage.quickstart,
    "initialization": first_stage.initialization,
    "mesh_portrait": first_stage.mesh_portrait,
    "look_at_guidance": second_stage.look_at_guidance,
    "second_stage": second_stage.second_stage,
    "two_styles": second_stage.two_styles,
    "animate": saved_avatar.animate,
    "export": saved_avatar.export,
    "full_method": real_models.full_method,
    **{f"ablation/{name}": write for name, write in second_stage.ABLATIONS.items()},
    "ablation/super_resolution_only": second_stage.super_resolution_only,
}
HOST_ONLY = ("full_method", "ablation/super_resolution_only")
"""Graphs that need nodes of ComfyUI's own, and with them ComfyUI."""


def build(name: str) -> str:
    """The text of one graph; refuses a graph that the headless runner would refuse, unless it is for the host alone."""
    registry = load_registry(ROOT)
    graph = WorkflowBuilder(name.rpartition("/")[2], registry)
    WORKFLOWS[name](graph)
    if name not in HOST_ONLY:
        prepare(graph.to_json(), registry)
    return graph.to_text()


def main() -> int:
    """Write or compare all graphs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    check = parser.parse_args().check
    different = []
    for name in WORKFLOWS:
        file = ROOT / "workflows" / f"{name}.json"
        text = build(name)
        same = file.is_file() and file.read_text(encoding="utf-8") == text
        if not same and check:
            different.append(name)
        if not same and not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        print(f"{file.relative_to(ROOT)}: {'unchanged' if same else 'differs' if check else 'written'}")
    if different:
        print(f"out of date: {', '.join(different)}; run scripts/make_workflows.py", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
