"""Graphs of the first stage, from a portrait to a rigged avatar, and the health check."""

from __future__ import annotations

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.builder_scope import BuiltNode, Output

from .steps import (
    BOX_WIDTH,
    NOTE_WIDTH,
    OPEN_A_BOX,
    PICK_WIDTH,
    RESULTS_NOTE,
    SHEET_WIDTH,
    Method,
    Seen,
    add_body,
    add_evaluation,
    add_first_avatar,
    add_portrait,
    add_sheet,
    add_stress_clip,
    add_stress_motion,
    add_surface,
    add_turntable,
    add_views,
)

MESH_NOTE = f"""**From a 3D head to an animatable avatar**, on any computer, without licensed files.

Press *Run*. Choose another head in *Portrait from Mesh*: one of the pack's own, or any GLB, OBJ or PLY head in the
input folder.{OPEN_A_BOX}"""
INITIALIZATION_NOTE = f"""**The first stage of AnimPortrait3D, step by step** (paper, section 3.1): a static portrait
becomes an avatar that is rigged to SMPL-X.

Each step can be replaced by your own: normals of another estimator, masks, label pictures, painted
corrections.{OPEN_A_BOX}"""

REPORT_WIDTH, REPORT_LINES = 640, 34


def health_check(graph: WorkflowBuilder) -> None:
    """Is everything there?"""
    note = "**Run me first.** Lists packages, back-ends and model files, and where to get what is missing."
    with graph.stage("Health check", note, REPORT_WIDTH):
        graph.add("AP3D_Doctor", text_lines=REPORT_LINES)


def initialization(graph: WorkflowBuilder) -> None:
    """The initialization stage with its own mattes."""
    graph.note("Start here", INITIALIZATION_NOTE, NOTE_WIDTH)
    portrait = add_portrait(graph)
    with graph.stage("2 Surface", width=BOX_WIDTH):
        seen, mesh = add_surface(graph, portrait, mattes=True)
    _avatar_of_surface(graph, 3, portrait, seen, mesh["mesh"], films=False)


def mesh_portrait(graph: WorkflowBuilder) -> None:
    """A mesh portrait becomes an avatar."""
    graph.note("Start here", MESH_NOTE, NOTE_WIDTH)
    with graph.stage("1 Portrait", width=PICK_WIDTH):
        body = graph.add("AP3D_LoadSMPLX", collapsed=True)
        portrait = graph.add(
            "AP3D_PortraitFromMesh", body=body["body"], shading="unlit", shows_picture=True, text_lines=13
        )
    with graph.stage("2 Views", width=BOX_WIDTH):
        with graph.folded("Views", "The head is seen from all sides, and close."):
            seen = add_views(graph, portrait)
        graph.add("PreviewImage", title="From all sides", images=seen[0]["images"])
    _avatar_of_surface(graph, 3, portrait, seen, portrait["mesh"], body=body)


def _avatar_of_surface(
    graph: WorkflowBuilder,
    number: int,
    portrait: BuiltNode,
    seen: Seen,
    mesh: Output,
    body: BuiltNode | None = None,
    films: bool = True,
) -> None:
    """Stages counted from `number`: the body under the surface, the avatar, its films and numbers, and one sheet.

    body: if it is in the graph already.
    """
    with graph.stage(f"{number} Body", width=BOX_WIDTH):
        parts, fit = add_body(graph, seen, mesh, body)
    with graph.stage(f"{number + 1} Avatar", width=BOX_WIDTH):
        avatar = add_first_avatar(graph, portrait, seen, mesh, parts, fit, Method(""))
        graph.add("PreviewImage", title="First avatar", images=avatar["image"])
    with graph.stage(f"{number + 2} Results", width=SHEET_WIDTH):
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], text_lines=1)
        with graph.folded("Films and numbers", RESULTS_NOTE):
            graph.add("AP3D_ExportAvatar", avatar=avatar["avatar"], text_lines=1)
            turn = add_turntable(graph, avatar)
            stress = add_stress_motion(graph, avatar)
            clip = add_stress_clip(graph, avatar, stress) if films else None
            add_evaluation(graph, portrait, avatar, stress, "initial")
            rows = {"Portrait": seen[0]["images"], "Avatar, turned around": turn["frames"]}
            rows |= {"Avatar in motion": clip["highlights"]} if clip else {}
            sheet = add_sheet(graph, rows, lines=2 if films else 1)
        graph.add("PreviewImage", title="Contact sheet", images=sheet["sheet"])
