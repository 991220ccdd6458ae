#!/usr/bin/env python3
"""Writes the shipped graphs in workflows/ from the node classes; `--check` only compares, and fails on a difference.

A graph is a function below that fills a `WorkflowBuilder`. After a change of a node's inputs run this script again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from animportrait3d_core.workflow import load_registry  # noqa: E402  (needs the path above)
from animportrait3d_core.workflow.builder import WorkflowBuilder  # noqa: E402
from animportrait3d_core.workflow.builder_scope import BuiltNode, Output  # noqa: E402
from animportrait3d_core.workflow.prepare import prepare  # noqa: E402


def health_check(graph: WorkflowBuilder) -> None:
    """Is everything there?"""
    note = "**Run me first.** Lists packages, back-ends and model files, and where to get what is missing."
    with graph.stage("Health check", note):
        graph.add("AP3D_Doctor", shows_picture=True)


OPEN_A_BOX = """

The coloured boxes are folded steps: the icon in a box's title opens it, with a note and all of its nodes."""
QUICKSTART_NOTE = f"""**From a static portrait to an animatable avatar**, on any computer, without licensed files.

Press *Run*. Choose another portrait in *Load Portrait3D*: one of the pack's own, or a Portrait3D file in
`models/portrait3d`. Or put *Text to Portrait* in its place and describe a person.{OPEN_A_BOX}"""
MESH_NOTE = f"""**From a 3D head to an animatable avatar**, on any computer, without licensed files.

Press *Run*. Choose another head in *Portrait from Mesh*: one of the pack's own, or any GLB, OBJ or PLY head in the
input folder.{OPEN_A_BOX}"""
INITIALIZATION_NOTE = f"""**The first stage of AnimPortrait3D, step by step** (paper, section 3.1): a static portrait
becomes an avatar that is rigged to SMPL-X.

Each step can be replaced by your own: normals of another estimator, masks, label pictures, painted
corrections.{OPEN_A_BOX}"""

VIEWS_NOTE = "From all sides, and close. *Matte Views* takes other masks where the field's own are bad."
SURFACE_NOTE = """The portrait is seen from all sides. Its raw surface is taken out, and refined by the normals that a
network sees in the views."""
BODY_NOTE = """A network names what each pixel shows, and the views vote for each face of the surface: hair, clothes,
skin. What it gets wrong can be painted: *Correct Labels*.

The body that will move it is fitted to the skin, the silhouettes and the landmarks found in the views. It stays under
hair and clothes."""
POINTS_NOTE = """Points on body, hair and clothes, each bound to a face of the body, with the colours that a hash grid
learns from the views. The points become 3D Gaussians, trained on the views."""
RESULTS_NOTE = """Films and numbers lie in the output folder: how alike the avatar is at rest, and whether it shows
holes in motion."""

NOTE_WIDTH, PICK_WIDTH, BOX_WIDTH, SHEET_WIDTH = 250, 280, 220, 460
Seen = tuple[BuiltNode, BuiltNode]
"""The portrait from all sides, and close."""


def quickstart(graph: WorkflowBuilder) -> None:
    """A trigrid portrait becomes an avatar that opens its mouth, blinks, looks around and turns its head."""
    graph.note("Start here", QUICKSTART_NOTE, NOTE_WIDTH)
    portrait = _load_portrait(graph)
    seen, mesh = _surface(graph, portrait)
    _avatar_of_surface(graph, 3, portrait, seen, mesh["mesh"])


def initialization(graph: WorkflowBuilder) -> None:
    """The initialization stage with its own mattes."""
    graph.note("Start here", INITIALIZATION_NOTE, NOTE_WIDTH)
    portrait = _load_portrait(graph)
    seen, mesh = _surface(graph, portrait, mattes=True)
    _avatar_of_surface(graph, 3, portrait, seen, mesh["mesh"], films=False)


def mesh_portrait(graph: WorkflowBuilder) -> None:
    """A mesh portrait becomes an avatar."""
    graph.note("Start here", MESH_NOTE, NOTE_WIDTH)
    with graph.stage("1 Portrait", width=PICK_WIDTH):
        body = graph.add("AP3D_LoadSMPLX")
        portrait = graph.add(
            "AP3D_PortraitFromMesh", body=body["body"], shading="unlit", shows_picture=True, text_lines=4
        )
    with graph.stage("2 Views", width=BOX_WIDTH):
        with graph.folded("Views", "The head is seen from all sides, and close."):
            seen = _views(graph, portrait)
        graph.add("PreviewImage", title="From all sides", images=seen[0]["images"])
    _avatar_of_surface(graph, 3, portrait, seen, portrait["mesh"], body=body)


def _load_portrait(graph: WorkflowBuilder) -> BuiltNode:
    with graph.stage("1 Portrait", width=PICK_WIDTH):
        return graph.add("AP3D_LoadPortrait3D", shows_picture=True, text_lines=2)


def _views(graph: WorkflowBuilder, portrait: BuiltNode) -> Seen:
    """All around, and close to the face."""
    views = graph.add("AP3D_RenderViews", subject=portrait["portrait"], title="Views", shows_picture=True)
    close = graph.add(
        "AP3D_RenderViews", subject=portrait["portrait"], preset="face", title="Close Views", shows_picture=True
    )
    return views, close


def _surface(graph: WorkflowBuilder, portrait: BuiltNode, mattes: bool = False) -> tuple[Seen, BuiltNode]:
    """The portrait's views and its surface, refined by their normals. mattes: whether the views get masks anew."""
    with graph.stage("2 Surface", width=BOX_WIDTH):
        with graph.folded("Views and surface", f"{VIEWS_NOTE}\n\n{SURFACE_NOTE}" if mattes else SURFACE_NOTE):
            views, close = _views(graph, portrait)
            if mattes:
                views = graph.add("AP3D_MatteViews", views=views["views"], shows_picture=True)
            raw = graph.add(
                "AP3D_ExtractMesh",
                portrait=portrait["portrait"],
                knobs={"preset": "surface preset"},
                shows_picture=True,
                text_lines=1,
            )
            normals = graph.add("AP3D_EstimateNormals", views=views["views"], shows_picture=True)
            mesh = graph.add(
                "AP3D_RefineMesh",
                mesh=raw["mesh"],
                normals=normals["normals"],
                views=views["views"],
                knobs={"preset": "refinement preset"},
                shows_picture=True,
                text_lines=2,
            )
        graph.add("PreviewImage", title="Refined surface", images=mesh["image"])
    return (views, close), mesh


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
    parts, fit = _body(graph, number, seen[0], mesh, body)
    with graph.stage(f"{number + 1} Avatar", width=BOX_WIDTH):
        avatar = _first_avatar(graph, portrait, seen, mesh, parts, fit, Method(""))
    with graph.stage(f"{number + 2} Results", width=SHEET_WIDTH, beside=True):
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], text_lines=1)
        with graph.folded("Films and numbers", RESULTS_NOTE):
            graph.add("AP3D_ExportAvatar", avatar=avatar["avatar"], text_lines=1)
            turn = _turntable(graph, avatar)
            stress = _stress_motion(graph, avatar)
            clip = _stress_clip(graph, avatar, stress) if films else None
            _evaluation(graph, portrait, avatar, stress, "initial")
        rows = {"Portrait": seen[0]["images"], "Avatar, turned around": turn["frames"]}
        rows |= {"Avatar in motion": clip["highlights"]} if clip else {}
        _sheet(graph, rows, lines=2 if films else 1)


def _body(
    graph: WorkflowBuilder, number: int, views: BuiltNode, mesh: Output, body: BuiltNode | None = None
) -> tuple[BuiltNode, BuiltNode]:
    """Parts of the surface by the vote of the views, and the body (if it is not there yet) fitted to them."""
    with graph.stage(f"{number} Body", width=BOX_WIDTH):
        with graph.folded("Parts and body", BODY_NOTE):
            labels = graph.add("AP3D_SegmentViews", views=views["views"], shows_picture=True)
            body = body or graph.add("AP3D_LoadSMPLX", shows_picture=True)
            landmarks = graph.add("AP3D_DetectLandmarks", views=views["views"], shows_picture=True)
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
            )
        graph.add("PreviewImage", title="Fitted body", images=fit["image"])
    return parts, fit


def _first_avatar(
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
            output_names={"avatar": "first avatar"},
            shows_picture=True,
        )
    graph.add("PreviewImage", title="First avatar", images=avatar["image"])
    return avatar


def _turntable(graph: WorkflowBuilder, avatar: BuiltNode) -> BuiltNode:
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


def _stress_motion(graph: WorkflowBuilder, avatar: BuiltNode) -> BuiltNode:
    """The motion that tries everything."""
    return graph.add("AP3D_LoadMotion", avatar=avatar["avatar"], motion="stress clip", title="Stress Clip")


def _stress_clip(graph: WorkflowBuilder, avatar: BuiltNode, stress: BuiltNode) -> BuiltNode:
    """The film of that motion."""
    return graph.add(
        "AP3D_AnimateAvatar",
        avatar=avatar["avatar"],
        motion=stress["motion"],
        filename="stress_clip",
        title="Animate",
        shows_picture=True,
    )


def _evaluation(
    graph: WorkflowBuilder, portrait: BuiltNode, avatar: BuiltNode, stress: BuiltNode, stage: str, title: str = ""
) -> None:
    """How alike the avatar is, and whether it shows holes."""
    asked = {"portrait": portrait["portrait"], "motion": stress["motion"], "stage": stage}
    graph.add("AP3D_EvaluateAvatar", title=title, avatar=avatar["avatar"], **asked, text_lines=8)


def _sheet(
    graph: WorkflowBuilder, rows: Mapping[str, Output], lines: int = 1, columns: int = 10, size: int = 224
) -> None:
    """One picture of everything, row by row with its caption."""
    pictures = {f"row_{number}": images for number, images in enumerate(rows.values(), start=1)}
    settings = {"columns": columns, "tile_size": size, "lines": lines, "captions": "\n".join(rows)}
    graph.add("AP3D_ContactSheet", **pictures, **settings, shows_picture=True)


GUIDANCE_NOTE = """**What is a diffusion model worth for an avatar?** Look before an hour is spent with it.

The embedded prior knows the people of the pack's own world. Choose your own model, VAE, ControlNet or LoRA in *Load
Guidance*; for Stable Diffusion 1.5 set the `size` of the maps to 512 and the `guidance_scale` to 7.5."""
POSED_NOTE = "A body, and a motion whose frames pose it. Connect an avatar or a fit in its place to see your own."
SAMPLES_NOTE = """What the ControlNet is shown, and what the model makes of it, with the ControlNet and without, from
the same noise. {look}"""
LOOKED_AT = (  # title, region, frame of the stress clip, what to look for
    ("Face", "face", 5, "The mouth must be open as in the maps, and the person as in the words."),
    ("Eyes", "both eyes", 27, "Both eyes must look where the maps do. Without ControlNet it is any pair of eyes."),
    ("Mouth", "mouth", 5, "It must be a mouth with its teeth where the maps have them, and no whole face."),
)


def look_at_guidance(graph: WorkflowBuilder) -> None:
    """Condition maps of a posed body beside samples of a guidance, with its ControlNet and without."""
    graph.note("Start here", GUIDANCE_NOTE, NOTE_WIDTH)
    with graph.stage("1 Model and words", width=PICK_WIDTH):
        guidance = graph.add("AP3D_LoadGuidance", text_lines=4)
        words = "a young woman, long red hair, green eyes, pale skin, thin brown eyebrows, freckles, teal sweater"
        prompts = graph.add("AP3D_Prompts", prompt=words, text_lines=8)
    with graph.stage("2 Body", POSED_NOTE, width=BOX_WIDTH):
        body = graph.add("AP3D_LoadSMPLX", shows_picture=True)
        motion = graph.add("AP3D_LoadMotion", avatar=body["body"], motion="stress clip")
    for number, (title, region, frame, look) in enumerate(LOOKED_AT, start=3):
        with graph.stage(f"{number} {title}", width=PICK_WIDTH):
            with graph.folded(f"{title}: maps and samples", SAMPLES_NOTE.format(look=look)):
                shown = {"subject": body["body"], "motion": motion["motion"], "region": region, "size": 128}
                maps = graph.add(
                    "AP3D_ConditionMaps",
                    title=f"{title} Maps",
                    **shown,
                    frame=frame,
                    knobs={"frame": "frame"},
                    shows_picture=True,
                    text_lines=1,
                )
                asked = {"guidance": guidance["guidance"], "prompts": prompts["prompts"], "region": region}
                asked |= {"condition": maps["packed"], "guidance_scale": 2.0, "count": 4}
                room = {"shows_picture": True, "text_lines": 4}
                controlled = graph.add(
                    "AP3D_SampleGuidance",
                    title=f"{title} Controlled",
                    **asked,
                    **room,
                    output_names={"images": "with ControlNet"},
                )
                free = graph.add(
                    "AP3D_SampleGuidance",
                    title=f"{title} Free",
                    controlnet=False,
                    **asked,
                    **room,
                    output_names={"images": "without"},
                )
            graph.add(
                "AP3D_ContactSheet",
                title=f"{title} Sheet",
                row_1=maps["normals"],
                row_2=maps["labels"],
                row_3=controlled["images"],
                row_4=free["images"],
                columns=4,
                captions="Normals\nLabels\nWith ControlNet\nWithout",
                filename=f"guidance_{title.lower()}",
                shows_picture=True,
            )


SECOND_STAGE_NOTE = """**The second stage of AnimPortrait3D** (paper, section 3.2): a saved avatar learns to blink and
to open its mouth from a diffusion model.

Put the `avatar.safetensors` of a first stage into the input folder. Choose your own model in *Load Guidance*, and
describe the person in *Prompts*. Each stage can be run on its own, and a stopped one goes on where it was."""
LEARNING_NOTE = """The avatar learns what the portrait never showed from a diffusion model: the embedded prior, or your
own Stable Diffusion with the ControlNet of AnimPortrait3D."""
DYNAMIC_STAGES = (  # node, heading, note
    ("AP3D_PretrainEyes", "Eyes", "Crops of the eyes are edited by the model, and lids and eyeballs follow."),
    ("AP3D_PretrainMouth", "Mouth", "Teeth and the inside of the mouth, which the portrait never showed."),
    ("AP3D_ISMOptimize", "Whole avatar", "Face, eyes, mouth and the whole picture, together and in motion."),
    ("AP3D_SDEditRefine", "Refinement", "Small edits of the moving avatar, for detail."),
)


def second_stage(graph: WorkflowBuilder) -> None:
    """A saved avatar learns its eyes and its mouth from a diffusion model."""
    graph.note("Start here", SECOND_STAGE_NOTE, NOTE_WIDTH)
    with graph.stage("1 Avatar and model", width=PICK_WIDTH):
        loaded = graph.add("AP3D_LoadAvatar")
        guidance = graph.add("AP3D_LoadGuidance", text_lines=4)
    with graph.stage("2 Person", width=PICK_WIDTH):
        prompts = graph.add("AP3D_Prompts", prompt=loaded["prompt"], text_lines=8)
        views = graph.add("AP3D_RenderViews", subject=loaded["avatar"], preset="face", title="At Rest")
    with graph.stage("3 Learning", width=BOX_WIDTH):
        stages = _learning(graph, loaded, guidance, prompts, views)
        avatar = stages["Refinement"]
        graph.add("PreviewImage", title="Before above, after below", images=avatar["image"])
    with graph.stage("4 Results", width=SHEET_WIDTH, beside=True):
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], filename="avatar_dynamic", text_lines=1)
        with graph.folded("Films", "They lie in the output folder."):
            _turntable(graph, avatar)
            _stress_clip(graph, avatar, _stress_motion(graph, avatar))
        _sheet(graph, {heading: stage["image"] for heading, stage in stages.items()}, columns=1, size=1024)


ALL_HEADINGS = tuple(heading for _, heading, _ in DYNAMIC_STAGES)


def _learning(
    graph: WorkflowBuilder,
    avatar: BuiltNode,
    guidance: BuiltNode,
    prompts: BuiltNode,
    views: BuiltNode,
    headings: Collection[str] = ALL_HEADINGS,
) -> dict[str, BuiltNode]:
    """Steps of dynamic optimization by their headings, one after the other, in one box.

    views: that the avatar goes on looking like at rest.
    """
    chosen = [stage for stage in DYNAMIC_STAGES if stage[1] in headings]
    stages: dict[str, BuiltNode] = {}
    note = "\n".join([LEARNING_NOTE, "", *(f"- **{heading}**: {note}" for _, heading, note in chosen)])
    with graph.folded("Eyes, mouth, motion", note):
        for node, heading, _ in chosen:
            asked = {"guidance": guidance["guidance"], "prompts": prompts["prompts"], "portrait_views": views["views"]}
            avatar = stages[heading] = graph.add(
                node,
                avatar=avatar["avatar"],
                **asked,
                knobs={"length": f"{heading.lower()}, length"},
                output_names={"image": heading.lower()},
                shows_picture=True,
                text_lines=1,
            )
    return stages


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


ABLATION_NOTE = """{what}

Compare its films and its sheet with those of the whole method. `animportrait3d evaluate --ablation` measures all of
them against the truth of the embedded world."""
BARE_POINTS_NOTE = """Whatever lies within reach of the body is skin. The points become 3D Gaussians, trained on the
views."""


def whole_method(graph: WorkflowBuilder, plan: Method) -> None:
    """From a static portrait to an avatar that has learned its eyes and its mouth."""
    graph.note("Start here", plan.note, NOTE_WIDTH)
    portrait = _load_portrait(graph)
    seen, mesh = _surface(graph, portrait)
    parts, fit = _body(graph, 3, seen[0], mesh["mesh"])
    with graph.stage("4 First avatar", width=BOX_WIDTH):
        first = _first_avatar(graph, portrait, seen, mesh["mesh"], parts, fit, plan)
    with graph.stage("5 Words", width=BOX_WIDTH, new_row=True):
        prompts = graph.add("AP3D_Prompts", prompt=portrait["prompt"], text_lines=8, collapsed=True)
    with graph.stage("6 Model", width=PICK_WIDTH):
        guidance = graph.add("AP3D_LoadGuidance", controlnet_strength=plan.control, text_lines=4)
    with graph.stage("7 Learning", width=BOX_WIDTH):
        stages = _learning(graph, first, guidance, prompts, seen[1], plan.stages)
        avatar = [*stages.values()][-1]
    with graph.stage("8 Results", width=SHEET_WIDTH, beside=True):
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], text_lines=1)
        with graph.folded("Films and numbers", RESULTS_NOTE):
            graph.add("AP3D_SaveAvatar", avatar=first["avatar"], filename="avatar_initial", text_lines=1)
            graph.add("AP3D_ExportAvatar", avatar=avatar["avatar"], text_lines=1)
            turn = _turntable(graph, avatar)
            stress = _stress_motion(graph, avatar)
            clip = _stress_clip(graph, avatar, stress)
            _evaluation(graph, portrait, first, stress, "initial", "Before")
            _evaluation(graph, portrait, avatar, stress, "refined", "After")
        rows = {"Turned around": turn["frames"], "In motion": clip["highlights"]}
        _sheet(graph, rows | {f"{heading}: before, after": stage["image"] for heading, stage in stages.items()})


SUPER_RESOLUTION_NOTE = """**Super-resolution only** (paper, appendix A3): views of a saved avatar in motion go through
an upscaler of ComfyUI's own, and the avatar follows them. Put `RealESRGAN_x2plus.pth` into `models/upscale_models`.

In place of the upscaler use VAE Encode, KSampler with a low denoise and VAE Decode, or anything else that keeps
pictures in their order: *Fit To Views* does not ask who made them."""


def super_resolution_only(graph: WorkflowBuilder) -> None:
    """A saved avatar follows upscaled pictures of itself."""
    with graph.stage("1 Avatar in motion", SUPER_RESOLUTION_NOTE):
        loaded = graph.add("AP3D_LoadAvatar")
        motion = graph.add("AP3D_LoadMotion", avatar=loaded["avatar"], motion="stress clip")
        views = graph.add("AP3D_RenderViews", subject=loaded["avatar"], motion=motion["motion"], shows_picture=True)
    with graph.stage("2 Upscaler", "Twice as large, then back to the size that the avatar can hold."):
        model = graph.add("UpscaleModelLoader")
        larger = graph.add("ImageUpscaleWithModel", upscale_model=model["UPSCALE_MODEL"], image=views["images"])
        images = graph.add("ImageScale", image=larger["IMAGE"])
    with graph.stage("3 Avatar", "The views with the new pictures, which the avatar follows."):
        replaced = graph.add("AP3D_ReplaceViewImages", views=views["views"], images=images["IMAGE"], shows_picture=True)
        fitted = graph.add("AP3D_FitToViews", avatar=loaded["avatar"], views=replaced["views"], shows_picture=True)
        graph.add("AP3D_SaveAvatar", avatar=fitted["avatar"], filename="avatar_upscaled", text_lines=1)
    with graph.stage("4 Motion"):
        _turntable(graph, fitted)
        _stress_clip(graph, fitted, _stress_motion(graph, fitted))


ABLATIONS = {
    name: functools.partial(whole_method, plan=dataclasses.replace(plan, note=ABLATION_NOTE.format(what=plan.note)))
    for name, plan in {
        "no_appearance_initialization": Method(
            "**No appearance initialization**: the Gaussians begin grey and have seen no view.", "none", 0
        ),
        "no_geometry_initialization": Method(
            "**No geometry initialization**: all points lie on the body itself, none on hair or clothes.", covered=False
        ),
        "no_pretraining": Method("**No pre-training** of eyes and mouth.", stages=("Whole avatar", "Refinement")),
        "no_controlnet": Method(
            "**No ControlNet**: the model sees neither normals nor labels of the body.", control=0.0
        ),
        "refinement_only": Method(
            "**Refinement only**: the first avatar is edited, and nothing else.", stages=("Refinement",)
        ),
    }.items()
}
WORKFLOWS: dict[str, Callable[[WorkflowBuilder], None]] = {
    "health_check": health_check,
    "quickstart": quickstart,
    "initialization": initialization,
    "mesh_portrait": mesh_portrait,
    "look_at_guidance": look_at_guidance,
    "second_stage": second_stage,
    **{f"ablation/{name}": write for name, write in ABLATIONS.items()},
    "ablation/super_resolution_only": super_resolution_only,
}
HOST_ONLY = ("ablation/super_resolution_only",)
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
