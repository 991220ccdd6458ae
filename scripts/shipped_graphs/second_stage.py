"""Graphs of the second stage: a guidance looked at, a saved avatar that learns, the whole method and its ablations."""

from __future__ import annotations

import dataclasses
import functools

from animportrait3d_core.workflow.builder import WorkflowBuilder

from .steps import (
    BOX_WIDTH,
    NOTE_WIDTH,
    OPEN_A_BOX,
    PICK_WIDTH,
    SHEET_WIDTH,
    Method,
    add_film,
    add_learned,
    add_learning,
    add_portrait,
    add_sheet,
    add_stress_clip,
    add_stress_motion,
    add_turntable,
    add_whole_first_avatar,
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
                asked |= {"condition": maps["packed"], "guidance_scale": 1.0, "steps": 8, "count": 4}
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


def second_stage(graph: WorkflowBuilder) -> None:
    """A saved avatar learns its eyes and its mouth from a diffusion model."""
    graph.note("Start here", SECOND_STAGE_NOTE, NOTE_WIDTH)
    with graph.stage("1 Avatar and model", width=PICK_WIDTH):
        loaded = graph.add("AP3D_LoadAvatar")
        guidance = graph.add("AP3D_LoadGuidance", text_lines=4)
    with graph.stage("2 Person", width=PICK_WIDTH):
        prompts = graph.add("AP3D_Prompts", prompt=loaded["prompt"], text_lines=8)
        views = graph.add(
            "AP3D_RenderViews", subject=loaded["avatar"], preset="face", title="At Rest", shows_picture=True
        )
    with graph.stage("3 Learning", width=BOX_WIDTH):
        stages = add_learning(graph, loaded, guidance, prompts, views)
        avatar = stages["Refinement"]
        graph.add("PreviewImage", title="Refinement: before, after", images=avatar["image"])
    add_film(graph, 4, avatar)
    with graph.stage("5 Results", width=BOX_WIDTH):
        graph.add("AP3D_SaveAvatar", avatar=avatar["avatar"], filename="avatar_dynamic", text_lines=1)
        with graph.folded("Turntable and sheet", "They lie in the output folder."):
            add_turntable(graph, avatar)
            rows = {f"{heading}: before, after": stage["image"] for heading, stage in stages.items()}
            sheet = add_sheet(graph, rows, columns=1, size=1024)
        graph.add("PreviewImage", title="Contact sheet", images=sheet["sheet"])


STYLES_NOTE = f"""**The style of an avatar is the style of its model**: a saved avatar learns twice, from the embedded
prior as it is, and from the same one with a LoRA that paints. Both are filmed in the same motion.

Put the `avatar.safetensors` of a first stage into the input folder. Swap `lora` for one of your own, or the whole model
in *Load Guidance*.{OPEN_A_BOX}"""
PAINTED_NOTE = """No portrait views are connected here: they would hold the avatar to its old colours. The embedded
prior knows faces, eyes and mouths; hair and clothes stay as they are."""


def two_styles(graph: WorkflowBuilder) -> None:
    """A saved avatar learns from the embedded prior, and from the same with a LoRA that paints; side by side."""
    graph.note("Start here", STYLES_NOTE, NOTE_WIDTH)
    with graph.stage("1 Avatar", width=PICK_WIDTH):
        loaded = graph.add("AP3D_LoadAvatar", text_lines=2)
    with graph.stage("2 Person", width=PICK_WIDTH):
        prompts = graph.add("AP3D_Prompts", prompt=loaded["prompt"], text_lines=8)
        views = graph.add(
            "AP3D_RenderViews", subject=loaded["avatar"], preset="face", title="At Rest", shows_picture=True
        )
    with graph.stage("3 As it is", width=PICK_WIDTH):
        guidance = graph.add("AP3D_LoadGuidance", title="Model", text_lines=4)
        plain = add_learning(graph, loaded, guidance, prompts, views, called="Plain")["Refinement"]
    with graph.stage("4 Painted", PAINTED_NOTE, width=PICK_WIDTH):
        painter = graph.add("AP3D_LoadGuidance", title="Model and Style", lora="embedded: painted", text_lines=4)
        painted = add_learning(graph, loaded, painter, prompts, None, called="Painted")["Refinement"]
    with graph.stage("5 Results", width=SHEET_WIDTH):
        graph.add("AP3D_SaveAvatar", avatar=plain["avatar"], filename="avatar_plain", title="Save Plain", text_lines=1)
        graph.add(
            "AP3D_SaveAvatar", avatar=painted["avatar"], filename="avatar_painted", title="Save Painted", text_lines=1
        )
        with graph.folded("Films and sheet", "They lie in the output folder."):
            stress = add_stress_motion(graph, loaded)
            rows = {
                style: add_stress_clip(graph, avatar, stress, style)["highlights"]
                for style, avatar in (("Before", loaded), ("Plain", plain), ("Painted", painted))
            }
            sheet = add_sheet(graph, rows)
        graph.add("PreviewImage", title="Contact sheet", images=sheet["sheet"])


QUICKSTART_NOTE = f"""**From a static portrait to an animatable avatar**, on any computer, without licensed files. The
portrait becomes an avatar, which then learns its eyes and its mouth from a diffusion model.

Press *Run*. Choose another portrait in *Load Portrait3D*: one of the pack's own, or a Portrait3D file in
`models/portrait3d`. Or put *Text to Portrait* in its place and describe a person.{OPEN_A_BOX}"""
ABLATION_NOTE = """{what}

Compare its films and its sheet with those of the whole method. `animportrait3d evaluate --ablation` measures all of
them against the truth of the embedded world."""


def whole_method(graph: WorkflowBuilder, plan: Method) -> None:
    """From a static portrait to an avatar that has learned its eyes and its mouth."""
    graph.note("Start here", plan.note, NOTE_WIDTH)
    portrait = add_portrait(graph)
    seen, first = add_whole_first_avatar(graph, portrait, plan)
    with graph.stage("3 Learning", width=PICK_WIDTH):
        guidance = graph.add("AP3D_LoadGuidance", controlnet_strength=plan.control, text_lines=4)
        stages = add_learning(graph, first, guidance, portrait["prompt"], seen[1], plan.stages)
    add_learned(graph, 4, portrait, seen, first, stages)


def quickstart(graph: WorkflowBuilder) -> None:
    """The whole method in the embedded world."""
    whole_method(graph, Method(QUICKSTART_NOTE))


SUPER_RESOLUTION_NOTE = """**Super-resolution only** (paper, appendix A3): views of a saved avatar in motion go through
an upscaler of ComfyUI's own, and the avatar follows them. Put `RealESRGAN_x2plus.pth` into `models/upscale_models`.

In place of the upscaler use VAE Encode, KSampler with a low denoise and VAE Decode, or anything else that keeps
pictures in their order: *Fit To Views* does not ask who made them."""


def super_resolution_only(graph: WorkflowBuilder) -> None:
    """A saved avatar follows upscaled pictures of itself."""
    graph.note("Start here", SUPER_RESOLUTION_NOTE, NOTE_WIDTH)
    with graph.stage("1 Avatar in motion", width=PICK_WIDTH):
        loaded = graph.add("AP3D_LoadAvatar")
        motion = graph.add("AP3D_LoadMotion", avatar=loaded["avatar"], motion="stress clip", title="Motion")
        views = graph.add("AP3D_RenderViews", subject=loaded["avatar"], motion=motion["motion"], shows_picture=True)
    with graph.stage("2 Upscaler", "Twice as large, then back to the size that the avatar can hold.", PICK_WIDTH):
        model = graph.add("UpscaleModelLoader")
        larger = graph.add("ImageUpscaleWithModel", upscale_model=model["UPSCALE_MODEL"], image=views["images"])
        images = graph.add("ImageScale", image=larger["IMAGE"])
    with graph.stage("3 Avatar", width=PICK_WIDTH):
        replaced = graph.add("AP3D_ReplaceViewImages", views=views["views"], images=images["IMAGE"], shows_picture=True)
        fitted = graph.add("AP3D_FitToViews", avatar=loaded["avatar"], views=replaced["views"], shows_picture=True)
        graph.add("AP3D_SaveAvatar", avatar=fitted["avatar"], filename="avatar_upscaled", text_lines=1)
    with graph.stage("4 Results", width=BOX_WIDTH):
        with graph.folded("Films", "They lie in the output folder."):
            add_turntable(graph, fitted)
            clip = add_stress_clip(graph, fitted, add_stress_motion(graph, fitted))
        graph.add("PreviewImage", title="In motion", images=clip["highlights"])


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
