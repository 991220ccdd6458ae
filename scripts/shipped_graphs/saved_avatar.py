"""Graphs of a saved avatar: in motion, and in other programs' formats."""

from __future__ import annotations

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.builder_scope import BuiltNode

from .steps import (
    BOX_WIDTH,
    NOTE_WIDTH,
    OPEN_A_BOX,
    PICK_WIDTH,
    SHEET_WIDTH,
    add_sheet,
    add_stress_motion,
    add_turntable,
)

ANIMATE_NOTE = f"""**Make a saved avatar move.** Choose it in *Load Avatar*, press *Run*.

Three named faces are joined into one motion and edited; a film shows it, and *Preview Avatar*, where you turn the
avatar and move its sliders. To drive it with a recording, put the file into the input folder, choose it in *Load Motion
File* and take the bypass off (Ctrl+B).

A sound of ComfyUI's own *Load Audio* goes into *Animate*. `format` makes films and pictures with alpha, `beside` puts
the body's mesh next to the avatar.{OPEN_A_BOX}"""
FACES_NOTE = """Named faces, each reached and left again, with sliders on top: mouth, brows, lids, gaze, head. They work
on any body."""
RECORDING_NOTE = """A recording: ARKit shapes of Live Link Face or MediaPipe, FLAME of a tracker, the authors' files. It
is bypassed until you choose a file."""
MOTION_NOTE = (
    "One after the other, faded into each other; then blinks, smoothing, strength of each region, another speed."
)
MORE_NOTE = """The film with alpha lies in the output folder, and so does the page: one file that opens in any browser,
without a server."""
PAGE_HEIGHT = 360
"""Of the page on *Preview Avatar* (web/preview_avatar.js)."""
FACES = (  # title, preset, what else moves, frames
    ("Smile", "smile", {"turn_degrees": 15.0}, 30),
    ("Surprise", "surprised", {"nod_degrees": 8.0}, 30),
    ("Wink", "wink", {"tilt_degrees": -8.0}, 24),
)


def animate(graph: WorkflowBuilder) -> None:
    """Faces and a recording, joined and edited; films, a page, and the avatar alive on its node."""
    graph.note("Start here", ANIMATE_NOTE, NOTE_WIDTH)
    with graph.stage("1 Avatar", width=PICK_WIDTH):
        loaded = graph.add("AP3D_LoadAvatar", text_lines=1)
    with graph.stage("2 Faces or recording", RECORDING_NOTE, width=PICK_WIDTH):
        faces = add_faces(graph, loaded)
        recording = graph.add("AP3D_LoadMotionFile", avatar=loaded["avatar"], bypassed=True, text_lines=2)
    with graph.stage("3 Motion", MOTION_NOTE, width=PICK_WIDTH):
        named = {f"motion_{place}": face["motion"] for place, face in enumerate(faces[1:], start=2)}
        joined = graph.add("AP3D_JoinMotions", motion=faces[0]["motion"], **named, motion_4=recording["motion"])
        motion = graph.add(
            "AP3D_EditMotion", avatar=loaded["avatar"], motion=joined["motion"], blinks_per_minute=15.0, title="Edit"
        )
    shown = {"avatar": loaded["avatar"], "motion": motion["motion"]}
    with graph.stage("4 Films", width=PICK_WIDTH):
        film = graph.add("AP3D_AnimateAvatar", **shown, title="Animate", shows_picture=True, text_lines=1)
        with graph.folded("Alpha, turntable, page, sheet", MORE_NOTE):
            cut_out = {"filename": "motion_alpha", "format": "webm", "title": "With Alpha"}
            graph.add("AP3D_AnimateAvatar", **shown, **cut_out, shows_picture=True, text_lines=1)
            turn = add_turntable(graph, loaded)
            graph.add("AP3D_ExportPage", **shown, knobs={"budget": "page, Gaussians"}, text_lines=2)
            rows = {"In motion": film["frames"], "Turned around": turn["frames"]}
            sheet = add_sheet(graph, rows, columns=6)
    with graph.stage("5 Alive", width=SHEET_WIDTH):
        graph.add("AP3D_PreviewAvatar", **shown, page_height=PAGE_HEIGHT)
        graph.add("PreviewImage", title="Contact sheet", images=sheet["sheet"])


def add_faces(graph: WorkflowBuilder, loaded: BuiltNode) -> list[BuiltNode]:
    """A motion for each of the faces, in one box."""
    faces = []
    with graph.folded("Faces", FACES_NOTE):
        for title, preset, sliders, frames in FACES:
            asked = {
                "avatar": loaded["avatar"],
                "preset": preset,
                "move": "there and back",
                "frames": frames,
                **sliders,
            }
            knobs = {"preset": title.lower(), "frames": f"{title.lower()}, frames"}
            names = {"motion": title.lower()}
            faces.append(graph.add("AP3D_PoseSliders", title=title, **asked, knobs=knobs, output_names=names))
    return faces


EXPORT_NOTE = f"""**Take a saved avatar to other programs.** Choose it in *Load Avatar*, press *Run*; the files lie in
the output folder.

The page opens from disk in any browser. `docs/export.md` in the pack's folder says what each file holds and what opens
it.{OPEN_A_BOX}"""
CLIP_NOTE = "What moves in the GLB and on the page. Any motion does: see the graph *animate*."
PLY_NOTE = """Splats at rest for viewers and editors, and the authors' columns, relative to the body's triangles."""
GLB_NOTE = "Skinned head with morph targets, a baked texture and the clip; the splats beside it."
PAGE_NOTE = """`budget` is the number of Gaussians that stay, those that colour the pictures most; 0 keeps all."""


def export(graph: WorkflowBuilder) -> None:
    """Splats, rigged splats, a GLB and a page within a budget."""
    graph.note("Start here", EXPORT_NOTE, NOTE_WIDTH)
    with graph.stage("1 Avatar and clip", CLIP_NOTE, width=PICK_WIDTH):
        loaded = graph.add("AP3D_LoadAvatar", text_lines=1)
        motion = add_stress_motion(graph, loaded)
    avatar, moving = {"avatar": loaded["avatar"]}, {"motion": motion["motion"]}
    with graph.stage("2 Splats", PLY_NOTE, width=BOX_WIDTH):
        with graph.folded("PLY files", PLY_NOTE):
            graph.add("AP3D_ExportAvatar", **avatar, layout="splat", title="Splat PLY", text_lines=1)
            order = {"quaternion_order": "rotations"}
            graph.add("AP3D_ExportAvatar", **avatar, layout="rigged", title="Rigged PLY", knobs=order, text_lines=1)
    with graph.stage("3 Head", GLB_NOTE, width=PICK_WIDTH):
        graph.add("AP3D_ExportAvatar", **avatar, **moving, layout="glb", title="GLB", text_lines=3)
    with graph.stage("4 Page", PAGE_NOTE, width=PICK_WIDTH):
        graph.add("AP3D_ExportPage", **avatar, **moving, budget=40000, title="Page", text_lines=2)
