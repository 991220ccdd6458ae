#!/usr/bin/env python3
"""Writes the shipped graphs in workflows/ from the node classes; `--check` only compares, and fails on a difference.

A graph is a function below that fills a `WorkflowBuilder`. After a change of a node's inputs run this script again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from animportrait3d_core.workflow import load_registry  # noqa: E402  (needs the path above)
from animportrait3d_core.workflow.builder import WorkflowBuilder  # noqa: E402
from animportrait3d_core.workflow.prepare import prepare  # noqa: E402


def health_check(graph: WorkflowBuilder) -> None:
    """Is everything there?"""
    note = "**Run me first.** Lists packages, back-ends and model files, and where to get what is missing."
    with graph.stage("Health check", note):
        graph.add("AP3D_Doctor", shows_picture=True)


QUICKSTART_NOTE = """**From a static head to an animatable avatar**, on any computer, without licensed files.

Press *Run*. Choose another head in *Portrait from Mesh*: one of the pack's own, or any GLB, OBJ or PLY head in the
input folder."""


def quickstart(graph: WorkflowBuilder) -> None:
    """A mesh portrait becomes an avatar that opens its mouth, blinks, looks around and turns its head."""
    with graph.stage("1 Body and portrait", QUICKSTART_NOTE):
        body = graph.add("AP3D_LoadSMPLX", shows_picture=True)
        portrait = graph.add("AP3D_PortraitFromMesh", body=body["body"], shading="unlit", shows_picture=True)
    with graph.stage("2 Views and fit", "The head is seen from all sides, and the body is fitted to what is seen."):
        views = graph.add("AP3D_RenderViews", subject=portrait["portrait"], title="Views", shows_picture=True)
        close = graph.add(
            "AP3D_RenderViews", subject=portrait["portrait"], preset="face", title="Close Views", shows_picture=True
        )
        fit = graph.add(
            "AP3D_FitSMPLX", views=views["views"], body=body["body"], mesh=portrait["mesh"], shows_picture=True
        )
    with graph.stage("3 Points", "Points on body, hair and clothes, each bound to a face of the body."):
        parts = graph.add("AP3D_SplitPartsByDistance", mesh=portrait["mesh"], fit=fit["fit"], shows_picture=True)
        points = graph.add("AP3D_RigPoints", parts=parts["parts"], fit=fit["fit"], shows_picture=True)
        colored = graph.add(
            "AP3D_ColorPoints", points=points["points"], mesh=portrait["mesh"], fit=fit["fit"], shows_picture=True
        )
    with graph.stage("4 Avatar", "The points become 3D Gaussians, trained on the views."):
        avatar = graph.add(
            "AP3D_InitializeAvatar",
            points=colored["points"],
            views=views["views"],
            fit=fit["fit"],
            prompt=portrait["prompt"],
            portrait=portrait["portrait"],
            close_views=close["views"],
            shows_picture=True,
        )
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"])
        graph.add("AP3D_ExportAvatar", avatar=avatar["avatar"])
    with graph.stage("5 Motion", "Films and numbers lie in the output folder."):
        still = graph.add("AP3D_LoadMotion", avatar=avatar["avatar"], motion="rest", title="Hold Still")
        turn = graph.add(
            "AP3D_AnimateAvatar",
            avatar=avatar["avatar"],
            motion=still["motion"],
            camera="turntable",
            filename="turntable",
            title="Turntable",
            shows_picture=True,
        )
        stress = graph.add("AP3D_LoadMotion", avatar=avatar["avatar"], motion="stress clip", title="Stress Clip")
        clip = graph.add(
            "AP3D_AnimateAvatar",
            avatar=avatar["avatar"],
            motion=stress["motion"],
            filename="stress_clip",
            title="Animate",
            shows_picture=True,
        )
    with graph.stage("6 Result", "How alike it is at rest, and whether it shows holes in motion."):
        graph.add(
            "AP3D_EvaluateAvatar",
            avatar=avatar["avatar"],
            portrait=portrait["portrait"],
            motion=stress["motion"],
        )
        graph.add(
            "AP3D_ContactSheet",
            row_1=views["images"],
            row_2=turn["frames"],
            row_3=clip["highlights"],
            columns=10,
            tile_size=224,
            lines=2,
            captions="Portrait\nAvatar, turned around\nAvatar in motion",
            shows_picture=True,
        )


WORKFLOWS: dict[str, Callable[[WorkflowBuilder], None]] = {"health_check": health_check, "quickstart": quickstart}


def build(name: str) -> str:
    """The text of one graph; refuses a graph that the headless runner would refuse."""
    registry = load_registry(ROOT)
    graph = WorkflowBuilder(name, registry)
    WORKFLOWS[name](graph)
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
            different.append(file.name)
        if not same and not check:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        print(f"{file.relative_to(ROOT)}: {'unchanged' if same else 'differs' if check else 'written'}")
    if different:
        print(f"out of date: {', '.join(different)}; run scripts/make_workflows.py", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
