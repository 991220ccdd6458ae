#!/usr/bin/env python3
"""Writes the shipped graphs in workflows/ from the node classes; `--check` only compares, and fails on a difference.

A graph is a function below that fills a `WorkflowBuilder`. After a change of a node's inputs run this script again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from animportrait3d_core.workflow import load_registry  # noqa: E402  (needs the path above)
from animportrait3d_core.workflow.builder import BuiltNode, Output, WorkflowBuilder  # noqa: E402
from animportrait3d_core.workflow.prepare import prepare  # noqa: E402


def health_check(graph: WorkflowBuilder) -> None:
    """Is everything there?"""
    note = "**Run me first.** Lists packages, back-ends and model files, and where to get what is missing."
    with graph.stage("Health check", note):
        graph.add("AP3D_Doctor", shows_picture=True)


QUICKSTART_NOTE = """**From a static portrait to an animatable avatar**, on any computer, without licensed files.

Press *Run*. Choose another portrait in *Load Portrait3D*: one of the pack's own, or a Portrait3D file in
`models/portrait3d`. Or put *Text to Portrait* in its place and describe a person."""

SURFACE_NOTE = """The portrait is seen from all sides. Its raw surface is taken out, and refined by the normals that a
network sees in the views."""
BODY_NOTE = """The body that will move it, fitted to the skin of the surface, the silhouettes and the landmarks found in
the views. It stays under hair and clothes."""
PARTS_NOTE = """A network names what each pixel shows, and the views vote for each face of the surface. What it gets
wrong can be painted: *Correct Labels*."""
POINTS_NOTE = """Points on body, hair and clothes, each bound to a face of the body, with the colours that a hash grid
learns from the views."""
MESH_NOTE = """**From a 3D head to an animatable avatar**, on any computer, without licensed files.

Press *Run*. Choose another head in *Portrait from Mesh*: one of the pack's own, or any GLB, OBJ or PLY head in the
input folder."""


def quickstart(graph: WorkflowBuilder) -> None:
    """A trigrid portrait becomes an avatar that opens its mouth, blinks, looks around and turns its head."""
    with graph.stage("1 Portrait", QUICKSTART_NOTE):
        portrait = graph.add("AP3D_LoadPortrait3D", shows_picture=True, text_lines=2)
    with graph.stage("2 Views and surface", SURFACE_NOTE):
        views, close = _views(graph, portrait)
        mesh = _surface(graph, portrait, views)
    avatar = _avatar_of_surface(graph, 3, portrait, (views, close), mesh["mesh"])
    _results(graph, ("7", "8"), portrait, views, avatar)


INITIALIZATION_NOTE = """**The first stage of AnimPortrait3D, step by step** (paper, section 3.1): a static portrait
becomes an avatar that is rigged to SMPL-X. Every node shows what it made, and each can be replaced by your own: normals
of another estimator, masks, label pictures, painted corrections."""
VIEWS_NOTE = "From all sides, and close. *Matte Views* takes other masks where the field's own are bad."


def initialization(graph: WorkflowBuilder) -> None:
    """The initialization stage with every step open: mattes, normals, labels, corrections, points, avatar."""
    with graph.stage("1 Portrait", INITIALIZATION_NOTE):
        portrait = graph.add("AP3D_LoadPortrait3D", shows_picture=True, text_lines=2)
    with graph.stage("2 Views", VIEWS_NOTE):
        seen, close = _views(graph, portrait)
        views = graph.add("AP3D_MatteViews", views=seen["views"], shows_picture=True)
    with graph.stage("3 Surface", SURFACE_NOTE):
        mesh = _surface(graph, portrait, views)
    avatar = _avatar_of_surface(graph, 4, portrait, (views, close), mesh["mesh"])
    _measured(graph, "8", portrait, views, avatar)


def mesh_portrait(graph: WorkflowBuilder) -> None:
    """A mesh portrait becomes an avatar."""
    with graph.stage("1 Body and portrait", MESH_NOTE):
        body = graph.add("AP3D_LoadSMPLX", shows_picture=True)
        portrait = graph.add(
            "AP3D_PortraitFromMesh", body=body["body"], shading="unlit", shows_picture=True, text_lines=4
        )
    with graph.stage("2 Views", "The head is seen from all sides, and close."):
        views, close = _views(graph, portrait)
    avatar = _avatar_of_surface(graph, 3, portrait, (views, close), portrait["mesh"], body)
    _results(graph, ("7", "8"), portrait, views, avatar)


def _views(graph: WorkflowBuilder, portrait: BuiltNode) -> tuple[BuiltNode, BuiltNode]:
    """All around, and close to the face."""
    views = graph.add("AP3D_RenderViews", subject=portrait["portrait"], title="Views", shows_picture=True)
    close = graph.add(
        "AP3D_RenderViews", subject=portrait["portrait"], preset="face", title="Close Views", shows_picture=True
    )
    return views, close


def _surface(graph: WorkflowBuilder, portrait: BuiltNode, views: BuiltNode) -> BuiltNode:
    """The portrait's surface, refined by the normals of the views."""
    raw = graph.add("AP3D_ExtractMesh", portrait=portrait["portrait"], shows_picture=True, text_lines=1)
    normals = graph.add("AP3D_EstimateNormals", views=views["views"], shows_picture=True)
    return graph.add(
        "AP3D_RefineMesh",
        mesh=raw["mesh"],
        normals=normals["normals"],
        views=views["views"],
        shows_picture=True,
        text_lines=2,
    )


def _fit(graph: WorkflowBuilder, views: BuiltNode, body: BuiltNode, parts: BuiltNode) -> BuiltNode:
    """The body, fitted to the parts of the surface with the landmarks that a network finds."""
    landmarks = graph.add("AP3D_DetectLandmarks", views=views["views"], shows_picture=True)
    return graph.add(
        "AP3D_FitSMPLX",
        views=views["views"],
        body=body["body"],
        parts=parts["parts"],
        landmarks=landmarks["landmarks"],
        shows_picture=True,
    )


def _avatar_of_surface(
    graph: WorkflowBuilder,
    number: int,
    portrait: BuiltNode,
    views_and_close: tuple[BuiltNode, BuiltNode],
    mesh: Output,
    body: BuiltNode | None = None,
) -> BuiltNode:
    """Four stages, counted from `number`: parts of the surface, the body under them, points on both, the avatar.

    body: if it is in the graph already.
    """
    parts, fit = _parts_and_body(graph, number, views_and_close[0], mesh, body)
    with graph.stage(f"{number + 2} Points", POINTS_NOTE):
        points = _points(graph, mesh, fit, parts, views_and_close)
    return _avatar(graph, str(number + 3), portrait, views_and_close, fit, points)


def _parts_and_body(
    graph: WorkflowBuilder, number: int, views: BuiltNode, mesh: Output, body: BuiltNode | None = None
) -> tuple[BuiltNode, BuiltNode]:
    """Two stages, counted from `number`: parts of the surface, and the body (if it is not there yet) fitted to them."""
    with graph.stage(f"{number} Parts", PARTS_NOTE):
        parts = _parts(graph, views, mesh)
    with graph.stage(f"{number + 1} Body", BODY_NOTE):
        body = body or graph.add("AP3D_LoadSMPLX", shows_picture=True)
        fit = _fit(graph, views, body, parts)
    return parts, fit


def _parts(graph: WorkflowBuilder, views: BuiltNode, mesh: Output) -> BuiltNode:
    """Hair, clothes and skin of the surface by the vote of the views."""
    labels = graph.add("AP3D_SegmentViews", views=views["views"], shows_picture=True)
    return graph.add(
        "AP3D_FaceRevote",
        mesh=mesh,
        labels=labels["labels"],
        views=views["views"],
        shows_picture=True,
        text_lines=4,
    )


def _points(
    graph: WorkflowBuilder,
    mesh: Output,
    fit: BuiltNode,
    parts: BuiltNode,
    views_and_close: tuple[BuiltNode, BuiltNode],
    method: str = "hash grid",
) -> BuiltNode:
    """Coloured points, bound to the body's faces."""
    views, close = views_and_close
    points = graph.add("AP3D_RigPoints", parts=parts["parts"], fit=fit["fit"], shows_picture=True)
    return graph.add(
        "AP3D_ColorPoints",
        points=points["points"],
        mesh=mesh,
        fit=fit["fit"],
        views=views["views"],
        close_views=close["views"],
        method=method,
        shows_picture=True,
    )


def _trained(
    graph: WorkflowBuilder,
    portrait: BuiltNode,
    views_and_close: tuple[BuiltNode, BuiltNode],
    fit: BuiltNode,
    points: BuiltNode,
    iterations: int = 1000,
) -> BuiltNode:
    """Points as a trained avatar."""
    views, close = views_and_close
    return graph.add(
        "AP3D_InitializeAvatar",
        points=points["points"],
        views=views["views"],
        fit=fit["fit"],
        prompt=portrait["prompt"],
        portrait=portrait["portrait"],
        close_views=close["views"],
        iterations=iterations,
        shows_picture=True,
    )


def _avatar(
    graph: WorkflowBuilder,
    number: str,
    portrait: BuiltNode,
    views_and_close: tuple[BuiltNode, BuiltNode],
    fit: BuiltNode,
    points: BuiltNode,
) -> BuiltNode:
    """The stage in which points become a trained avatar, which is saved."""
    with graph.stage(f"{number} Avatar", "The points become 3D Gaussians, trained on the views."):
        avatar = _trained(graph, portrait, views_and_close, fit, points)
        graph.add("AP3D_SaveAvatar", text_lines=1, avatar=avatar["avatar"])
        graph.add("AP3D_ExportAvatar", text_lines=1, avatar=avatar["avatar"])
    return avatar


def _results(
    graph: WorkflowBuilder, numbers: tuple[str, str], portrait: BuiltNode, views: BuiltNode, avatar: BuiltNode
) -> None:
    """The stages of films, numbers and one sheet of everything."""
    with graph.stage(f"{numbers[0]} Motion", "Films and numbers lie in the output folder."):
        turn = _turntable(graph, avatar)
        stress, clip = _stress_clip(graph, avatar)
    with graph.stage(f"{numbers[1]} Result", "How alike it is at rest, and whether it shows holes in motion."):
        graph.add(
            "AP3D_EvaluateAvatar",
            text_lines=8,
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


def _stress_clip(graph: WorkflowBuilder, avatar: BuiltNode) -> tuple[BuiltNode, BuiltNode]:
    """The motion that tries everything, and its film."""
    stress = graph.add("AP3D_LoadMotion", avatar=avatar["avatar"], motion="stress clip", title="Stress Clip")
    clip = graph.add(
        "AP3D_AnimateAvatar",
        avatar=avatar["avatar"],
        motion=stress["motion"],
        filename="stress_clip",
        title="Animate",
        shows_picture=True,
    )
    return stress, clip


def _measured(graph: WorkflowBuilder, number: str, portrait: BuiltNode, views: BuiltNode, avatar: BuiltNode) -> None:
    """How alike the avatar is, and one sheet."""
    with graph.stage(f"{number} Result", "How alike it is at rest, and whether it shows holes in motion."):
        turn = _turntable(graph, avatar)
        stress = graph.add("AP3D_LoadMotion", avatar=avatar["avatar"], motion="stress clip", title="Stress Clip")
        graph.add(
            "AP3D_EvaluateAvatar",
            text_lines=8,
            avatar=avatar["avatar"],
            portrait=portrait["portrait"],
            motion=stress["motion"],
        )
        graph.add(
            "AP3D_ContactSheet",
            row_1=views["images"],
            row_2=turn["frames"],
            columns=10,
            tile_size=224,
            captions="Portrait\nAvatar, turned around",
            shows_picture=True,
        )


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
    with graph.stage("1 Model and words", GUIDANCE_NOTE):
        guidance = graph.add("AP3D_LoadGuidance", text_lines=4)
        words = "a young woman, long red hair, green eyes, pale skin, thin brown eyebrows, freckles, teal sweater"
        prompts = graph.add("AP3D_Prompts", prompt=words, text_lines=8)
    with graph.stage("2 Body", POSED_NOTE):
        body = graph.add("AP3D_LoadSMPLX", shows_picture=True)
        motion = graph.add("AP3D_LoadMotion", avatar=body["body"], motion="stress clip")
    for number, (title, region, frame, look) in enumerate(LOOKED_AT, start=3):
        with graph.stage(f"{number} {title}", SAMPLES_NOTE.format(look=look)):
            shown = {"subject": body["body"], "motion": motion["motion"], "frame": frame, "region": region, "size": 128}
            maps = graph.add("AP3D_ConditionMaps", title=f"{title} Maps", **shown, shows_picture=True, text_lines=1)
            asked = {"guidance": guidance["guidance"], "prompts": prompts["prompts"], "region": region}
            asked |= {"condition": maps["packed"], "guidance_scale": 2.0, "count": 4}
            room = {"shows_picture": True, "text_lines": 4}
            controlled = graph.add("AP3D_SampleGuidance", title=f"{title} Controlled", **asked, **room)
            free = graph.add("AP3D_SampleGuidance", title=f"{title} Free", controlnet=False, **asked, **room)
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
DYNAMIC_STAGES = (  # node, heading, note
    ("AP3D_PretrainEyes", "Eyes", "Crops of the eyes are edited by the model, and lids and eyeballs follow."),
    ("AP3D_PretrainMouth", "Mouth", "Teeth and the inside of the mouth, which the portrait never showed."),
    ("AP3D_ISMOptimize", "Whole avatar", "Face, eyes, mouth and the whole picture, together and in motion."),
    ("AP3D_SDEditRefine", "Refinement", "Small edits of the moving avatar, for detail."),
)


def second_stage(graph: WorkflowBuilder) -> None:
    """A saved avatar learns its eyes and its mouth from a diffusion model."""
    with graph.stage("1 Avatar and model", SECOND_STAGE_NOTE):
        loaded = graph.add("AP3D_LoadAvatar")
        guidance = graph.add("AP3D_LoadGuidance", text_lines=4)
        prompts = graph.add("AP3D_Prompts", prompt=loaded["prompt"], text_lines=8)
        views = graph.add(
            "AP3D_RenderViews", subject=loaded["avatar"], preset="face", title="At Rest", shows_picture=True
        )
    stages = _dynamic(graph, 2, loaded, guidance, prompts, views)
    avatar = stages["Refinement"]
    with graph.stage("6 Result", "Before above, after below, stage by stage. Films lie in the output folder."):
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], filename="avatar_dynamic", text_lines=1)
        _turntable(graph, avatar)
        _stress_clip(graph, avatar)
        rows = {f"row_{number}": stage["image"] for number, stage in enumerate(stages.values(), start=1)}
        graph.add(
            "AP3D_ContactSheet", **rows, columns=1, tile_size=1024, captions="\n".join(stages), shows_picture=True
        )


def _dynamic(
    graph: WorkflowBuilder,
    number: int,
    avatar: BuiltNode,
    guidance: BuiltNode,
    prompts: BuiltNode,
    views: BuiltNode,
    headings: Collection[str] = [heading for _, heading, _ in DYNAMIC_STAGES],
) -> dict[str, BuiltNode]:
    """Stages of dynamic optimization by their headings, one after the other, counted from `number`.

    views: that the avatar goes on looking like at rest.
    """
    stages: dict[str, BuiltNode] = {}
    for node, heading, note in (stage for stage in DYNAMIC_STAGES if stage[1] in headings):
        with graph.stage(f"{number + len(stages)} {heading}", note):
            asked = {"guidance": guidance["guidance"], "prompts": prompts["prompts"], "portrait_views": views["views"]}
            avatar = graph.add(node, avatar=avatar["avatar"], **asked, shows_picture=True, text_lines=1)
            stages[heading] = avatar
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
    stages: tuple[str, ...] = tuple(heading for _, heading, _ in DYNAMIC_STAGES)


ABLATION_NOTE = """{what}

Compare its films and its sheet with those of the whole method. `animportrait3d evaluate --ablation` measures all of
them against the truth of the embedded world."""
GUIDANCE_STAGE_NOTE = """What knows how people look: the embedded prior, or your own Stable Diffusion with the
ControlNet of AnimPortrait3D."""


def whole_method(graph: WorkflowBuilder, plan: Method) -> None:
    """From a static portrait to an avatar that has learned its eyes and its mouth."""
    with graph.stage("1 Portrait", plan.note):
        portrait = graph.add("AP3D_LoadPortrait3D", shows_picture=True, text_lines=2)
    with graph.stage("2 Views and surface", SURFACE_NOTE):
        seen = _views(graph, portrait)
        mesh = _surface(graph, portrait, seen[0])
    parts, fit = _parts_and_body(graph, 3, seen[0], mesh["mesh"])
    with graph.stage("5 Points", POINTS_NOTE if plan.covered else "Whatever lies within reach of the body is skin."):
        if not plan.covered:
            everything = {"mesh": mesh["mesh"], "fit": fit["fit"], "skin_distance": 0.5, "cover_distance": 0.5}
            parts = graph.add("AP3D_SplitPartsByDistance", **everything, shows_picture=True)
        points = _points(graph, mesh["mesh"], fit, parts, seen, plan.colors)
    with graph.stage("6 Avatar", "The points become 3D Gaussians, trained on the views."):
        avatar = _trained(graph, portrait, seen, fit, points, plan.iterations)
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], filename="avatar_initial", text_lines=1)
    with graph.stage("7 Model", GUIDANCE_STAGE_NOTE):
        guidance = graph.add("AP3D_LoadGuidance", controlnet_strength=plan.control, text_lines=4)
        prompts = graph.add("AP3D_Prompts", prompt=portrait["prompt"], text_lines=8)
    stages = _dynamic(graph, 8, avatar, guidance, prompts, seen[1], plan.stages)
    _learned(graph, 8 + len(stages), portrait, avatar, stages)


def _learned(
    graph: WorkflowBuilder, number: int, portrait: BuiltNode, initial: BuiltNode, stages: dict[str, BuiltNode]
) -> None:
    """The last avatar: its file, films, numbers beside those of the first one, and a sheet of what it has learned."""
    last = [*stages.values()][-1]
    with graph.stage(f"{number} Motion", "Films and numbers lie in the output folder."):
        graph.add("AP3D_SaveAvatar", avatar=last["avatar"], text_lines=1)
        graph.add("AP3D_ExportAvatar", avatar=last["avatar"], text_lines=1)
        turn = _turntable(graph, last)
        stress, clip = _stress_clip(graph, last)
    with graph.stage(f"{number + 1} Result", "How alike it is at rest, and whether it shows holes in motion."):
        for title, stage, one in (("Before", "initial", initial), ("After", "refined", last)):
            asked = {"portrait": portrait["portrait"], "motion": stress["motion"], "stage": stage}
            graph.add("AP3D_EvaluateAvatar", title=title, avatar=one["avatar"], **asked, text_lines=8)
        graph.add(
            "AP3D_ContactSheet",
            row_1=turn["frames"],
            row_2=clip["highlights"],
            **{f"row_{row}": stage["image"] for row, stage in enumerate(stages.values(), start=3)},
            columns=10,
            tile_size=224,
            captions="\n".join(["Turned around", "In motion", *(f"{heading}: before, after" for heading in stages)]),
            shows_picture=True,
        )


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
        _stress_clip(graph, fitted)


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
