"""Steps that several of the shipped graphs have in common, each a box or a few nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.builder_scope import BuiltNode, Output

OPEN_A_BOX = """

The coloured boxes are folded steps: the icon in a box's title opens it, with a note and all of its nodes."""
VIEWS_NOTE = "From all sides, and close. *Matte Views* takes other masks where the field's own are bad."
SURFACE_NOTE = """The portrait is seen from all sides. Its raw surface is taken out, and refined by the normals that a
network sees in the views."""
BODY_NOTE = """A network names what each pixel shows, and the views vote for each face of the surface: hair, clothes,
skin. What it gets wrong can be painted: *Correct Labels*.

The body that will move it is fitted to the skin, the silhouettes and the landmarks found in the views. It stays under
hair and clothes."""
FIRST_NOTE = """From the portrait to an avatar that is rigged to the body (paper, section 3.1): the surface, the body
under it, and the points that become Gaussians. The boxes open."""
POINTS_NOTE = """Points on body, hair and clothes, each bound to a face of the body, with the colours that a hash grid
learns from the views. The points become 3D Gaussians, trained on the views."""
RESULTS_NOTE = """Films and numbers lie in the output folder: how alike the avatar is at rest, and whether it shows
holes in motion."""

NOTE_WIDTH, PICK_WIDTH, BOX_WIDTH, SHEET_WIDTH = 250, 280, 260, 460
Seen = tuple[BuiltNode, BuiltNode]
"""The portrait from all sides, and close."""
BARE_POINTS_NOTE = """Whatever lies within reach of the body is skin. The points become 3D Gaussians, trained on the
views."""
LEARNING_NOTE = """The avatar learns what the portrait never showed from a diffusion model: the embedded prior, or your
own Stable Diffusion with the ControlNet of AnimPortrait3D."""
DYNAMIC_STAGES = (  # node, heading, note
    ("AP3D_PretrainEyes", "Eyes", "Crops of the eyes are edited by the model, and lids and eyeballs follow."),
    ("AP3D_PretrainMouth", "Mouth", "Teeth and the inside of the mouth, which the portrait never showed."),
    ("AP3D_ISMOptimize", "Whole avatar", "Face, eyes, mouth and the whole picture, together and in motion."),
    ("AP3D_SDEditRefine", "Refinement", "Small edits of the moving avatar, for detail."),
)


ALL_HEADINGS = tuple(heading for _, heading, _ in DYNAMIC_STAGES)


@dataclasses.dataclass(frozen=True)
class Method:
    """The whole method, or what is left of it in an ablation (paper, section 4.3 and appendix A3).

    note: what it is.  colors: of the points.  iterations: of the first avatar's training.  covered: whether hair and
    clothes get points of their own.  control: strength of the ControlNet.  stages: headings of those that are carried
    out.
    """

    note: str
    colors: str = "hash grid"
    iterations: int = 1000
    covered: bool = True
    control: float = 1.0
    stages: tuple[str, ...] = ALL_HEADINGS


def add_portrait(graph: WorkflowBuilder) -> BuiltNode:
    with graph.stage("1 Portrait", width=PICK_WIDTH):
        return graph.add("AP3D_LoadPortrait3D", shows_picture=True, text_lines=2)


def add_views(graph: WorkflowBuilder, portrait: BuiltNode, size: int | None = None) -> Seen:
    """All around, and close to the face.  size: of the pictures, the node's own if None."""
    asked = {"subject": portrait["portrait"], "shows_picture": True} | ({"size": size} if size else {})
    views = graph.add("AP3D_RenderViews", title="Views", **asked)
    close = graph.add("AP3D_RenderViews", preset="face", title="Close Views", **asked)
    return views, close


def add_surface(graph: WorkflowBuilder, portrait: BuiltNode, mattes: bool = False) -> tuple[Seen, BuiltNode]:
    """The portrait's views and its surface, refined by their normals. mattes: whether the views get masks anew."""
    with graph.folded("Views and surface", f"{VIEWS_NOTE}\n\n{SURFACE_NOTE}" if mattes else SURFACE_NOTE):
        views, close = add_views(graph, portrait)
        if mattes:
            views = graph.add("AP3D_MatteViews", views=views["views"], shows_picture=True)
        mesh = add_mesh(graph, portrait, views)
    graph.add("PreviewImage", title="Refined surface", images=mesh["image"])
    return (views, close), mesh


def add_mesh(graph: WorkflowBuilder, portrait: BuiltNode, views: BuiltNode) -> BuiltNode:
    """The portrait's surface, refined by the normals of the views."""
    raw = graph.add(
        "AP3D_ExtractMesh",
        portrait=portrait["portrait"],
        knobs={"preset": "surface preset"},
        shows_picture=True,
        text_lines=1,
    )
    normals = graph.add("AP3D_EstimateNormals", views=views["views"], shows_picture=True)
    return graph.add(
        "AP3D_RefineMesh",
        mesh=raw["mesh"],
        normals=normals["normals"],
        views=views["views"],
        knobs={"preset": "refine preset"},
        shows_picture=True,
        text_lines=2,
    )


def add_body(
    graph: WorkflowBuilder, seen: Seen, mesh: Output, body: BuiltNode | None = None
) -> tuple[BuiltNode, BuiltNode]:
    """Parts of the surface by the vote of the views, and the body (if it is not there yet) fitted to them.

    Landmarks are looked for in the close views, where lids and lips are larger.
    """
    views, close = seen
    with graph.folded("Parts and body", BODY_NOTE):
        labels = graph.add("AP3D_SegmentViews", views=views["views"], shows_picture=True)
        body = body or graph.add("AP3D_LoadSMPLX", knobs={"body": "body"}, shows_picture=True)
        landmarks = graph.add(
            "AP3D_DetectLandmarks", views=views["views"], close_views=close["views"], shows_picture=True
        )
        asked = {"mesh": mesh, "labels": labels["labels"], "views": views["views"]}
        parts = graph.add("AP3D_FaceRevote", **asked, shows_picture=True, text_lines=4)
        fit = graph.add(
            "AP3D_FitSMPLX",
            views=views["views"],
            body=body["body"],
            parts=parts["parts"],
            landmarks=landmarks["landmarks"],
            knobs={"fit_expression": "fit expression"},
            shows_picture=True,
            text_lines=4,
        )
    graph.add("PreviewImage", title="Fitted body", images=fit["image"])
    return parts, fit


def add_first_avatar(
    graph: WorkflowBuilder,
    portrait: BuiltNode,
    seen: Seen,
    mesh: Output,
    parts: BuiltNode,
    fit: BuiltNode,
    plan: Method,
) -> BuiltNode:
    """Coloured points, bound to the body's faces, and the avatar that is trained of them."""
    views, close = seen
    with graph.folded("Points and training", POINTS_NOTE if plan.covered else BARE_POINTS_NOTE):
        if not plan.covered:
            everything = {"mesh": mesh, "fit": fit["fit"], "skin_distance": 0.5, "cover_distance": 0.5}
            parts = graph.add("AP3D_SplitPartsByDistance", **everything, shows_picture=True)
        points = graph.add(
            "AP3D_RigPoints", parts=parts["parts"], fit=fit["fit"], knobs={"count": "points"}, shows_picture=True
        )
        points = graph.add(
            "AP3D_ColorPoints",
            points=points["points"],
            mesh=mesh,
            fit=fit["fit"],
            views=views["views"],
            close_views=close["views"],
            method=plan.colors,
            shows_picture=True,
        )
        avatar = graph.add(
            "AP3D_InitializeAvatar",
            points=points["points"],
            views=views["views"],
            fit=fit["fit"],
            prompt=portrait["prompt"],
            portrait=portrait["portrait"],
            close_views=close["views"],
            iterations=plan.iterations,
            knobs={"iterations": "training steps"},
            output_names={"avatar": "first avatar", "image": "first avatar, image"},
            shows_picture=True,
        )
    return avatar


def add_turntable(graph: WorkflowBuilder, avatar: BuiltNode) -> BuiltNode:
    """A film around the avatar, which holds still."""
    still = graph.add("AP3D_LoadMotion", avatar=avatar["avatar"], motion="rest", title="Hold Still")
    return graph.add(
        "AP3D_AnimateAvatar",
        avatar=avatar["avatar"],
        motion=still["motion"],
        camera="turntable",
        filename="turntable",
        title="Turntable",
        shows_picture=True,
    )


def add_stress_motion(graph: WorkflowBuilder, avatar: BuiltNode) -> BuiltNode:
    """The motion that tries everything."""
    return graph.add("AP3D_LoadMotion", avatar=avatar["avatar"], motion="stress clip", title="Stress Clip")


def add_stress_clip(graph: WorkflowBuilder, avatar: BuiltNode, stress: BuiltNode, called: str = "") -> BuiltNode:
    """The film of that motion.  called: where a graph has several."""
    return graph.add(
        "AP3D_AnimateAvatar",
        avatar=avatar["avatar"],
        motion=stress["motion"],
        filename=f"stress_clip_{called.lower()}" if called else "stress_clip",
        title=f"Animate {called}".rstrip(),
        shows_picture=True,
    )


def add_moving(graph: WorkflowBuilder, avatar: BuiltNode) -> tuple[BuiltNode, BuiltNode]:
    """The motion that tries everything, and its film."""
    stress = add_stress_motion(graph, avatar)
    return stress, add_stress_clip(graph, avatar, stress)


def add_film(graph: WorkflowBuilder, number: int, avatar: BuiltNode) -> tuple[BuiltNode, BuiltNode]:
    """Both as a stage of their own: the film is seen at once."""
    with graph.stage(f"{number} In motion", width=PICK_WIDTH):
        return add_moving(graph, avatar)


def add_evaluation(
    graph: WorkflowBuilder, portrait: BuiltNode, avatar: BuiltNode, stress: BuiltNode, stage: str, title: str = ""
) -> None:
    """How alike the avatar is, and whether it shows holes."""
    asked = {"portrait": portrait["portrait"], "motion": stress["motion"], "stage": stage}
    graph.add("AP3D_EvaluateAvatar", title=title, avatar=avatar["avatar"], **asked, text_lines=8)


def add_sheet(
    graph: WorkflowBuilder, rows: Mapping[str, Output], lines: int = 1, columns: int = 10, size: int = 224
) -> BuiltNode:
    """One picture of everything, row by row with its caption."""
    pictures = {f"row_{number}": images for number, images in enumerate(rows.values(), start=1)}
    settings = {"columns": columns, "tile_size": size, "lines": lines, "captions": "\n".join(rows)}
    return graph.add("AP3D_ContactSheet", **pictures, **settings, shows_picture=True)


def add_learning(
    graph: WorkflowBuilder,
    avatar: BuiltNode,
    guidance: BuiltNode,
    words: BuiltNode | Output,
    views: BuiltNode | None,
    headings: Collection[str] = ALL_HEADINGS,
    preset: str = "standard",
    called: str = "",
) -> dict[str, BuiltNode]:
    """Steps of dynamic optimization by their headings, one after the other, in one box.

    words: the prompts, or the prompt that they are made of in the box.  views: that the avatar goes on looking like at
    rest, if it does.  called: what the box and its nodes are called where a graph has several.
    """
    chosen = [stage for stage in DYNAMIC_STAGES if stage[1] in headings]
    stages: dict[str, BuiltNode] = {}
    note = "\n".join([LEARNING_NOTE, "", *(f"- **{heading}**: {note}" for _, heading, note in chosen)])
    kept = {} if views is None else {"portrait_views": views["views"]}
    with graph.folded(called or "Eyes, mouth, motion", note):
        prompts = graph.add("AP3D_Prompts", prompt=words, text_lines=8) if isinstance(words, Output) else words
        for node, heading, _ in chosen:
            asked = {"guidance": guidance["guidance"], "prompts": prompts["prompts"], **kept}
            avatar = stages[heading] = graph.add(
                node,
                title=f"{called}: {heading}" if called else "",
                avatar=avatar["avatar"],
                preset=preset,
                **asked,
                knobs={"length": f"{heading.lower().removeprefix('whole ')} length"},
                output_names={"image": heading.lower()},
                shows_picture=True,
                text_lines=1,
            )
    return stages


def add_whole_first_avatar(graph: WorkflowBuilder, portrait: BuiltNode, plan: Method) -> tuple[Seen, BuiltNode]:
    """The first stage in one box of boxes, and what comes out of it: the portrait's views and the first avatar."""
    with graph.stage("2 First avatar", width=BOX_WIDTH):
        with graph.folded("First avatar", FIRST_NOTE):
            seen, mesh = add_surface(graph, portrait)
            parts, fit = add_body(graph, seen, mesh["mesh"])
            first = add_first_avatar(graph, portrait, seen, mesh["mesh"], parts, fit, plan)
        graph.add("PreviewImage", title="First avatar", images=first["image"])
    return seen, first


def add_learned(
    graph: WorkflowBuilder,
    number: int,
    portrait: BuiltNode,
    seen: Seen,
    first: BuiltNode,
    stages: dict[str, BuiltNode],
    filmed: bool = True,
) -> None:
    """The last avatar: its film, file, numbers beside those of the first one, and a sheet of what it has learned.

    filmed: whether there is room for the film as a stage of its own; else it is folded.
    """
    avatar = [*stages.values()][-1]
    moving = add_film(graph, number, avatar) if filmed else None
    with graph.stage(f"{number + filmed} Results", width=SHEET_WIDTH):
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], text_lines=1)
        with graph.folded("Films and numbers", RESULTS_NOTE):
            graph.add("AP3D_SaveAvatar", avatar=first["avatar"], filename="avatar_initial", text_lines=1)
            graph.add("AP3D_ExportAvatar", avatar=avatar["avatar"], text_lines=1)
            turn = add_turntable(graph, avatar)
            stress, clip = moving or add_moving(graph, avatar)
            add_evaluation(graph, portrait, first, stress, "initial", "Before")
            add_evaluation(graph, portrait, avatar, stress, "refined", "After")
            rows = {"Portrait": seen[0]["images"], "Avatar, turned around": turn["frames"]}
            rows["Avatar in motion"] = clip["highlights"]
            rows |= {f"{heading}: before, after": stage["image"] for heading, stage in stages.items()}
            sheet = add_sheet(graph, rows)
        graph.add("PreviewImage", title="Contact sheet", images=sheet["sheet"])
