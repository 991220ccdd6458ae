"""The whole method with real models: Stable Diffusion 1.5 by ComfyUI's own loaders, AnimPortrait3D's ControlNet."""

from __future__ import annotations

from collections.abc import Mapping

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.builder_scope import BuiltNode, Output

from .steps import (
    BOX_WIDTH,
    FIRST_NOTE,
    OPEN_A_BOX,
    PICK_WIDTH,
    SURFACE_NOTE,
    VIEWS_NOTE,
    Method,
    Seen,
    add_body,
    add_first_avatar,
    add_learned,
    add_learning,
    add_mesh,
    add_portrait,
    add_views,
)

FULL_METHOD_NOTE = f"""**The whole method with real models**, on a GPU. Files, where they are from, their licences and
their folders: `docs/models.md`. Press **R** after a file was added.

1. Choose your Portrait3D file in *Load Portrait3D*, and your SMPL-X file (`body`) in *First avatar*.
2. Choose the checkpoint (Realistic Vision V5.1, or any Stable Diffusion 1.5), its VAE and AnimPortrait3D's
ControlNet in *Stable Diffusion*, or connect loaders of your own in its place.
3. *Detail pass*, and the *LoRA* within *Stable Diffusion*, are bypassed: select one and press Ctrl+B.

*Learning* takes the numbers of the paper; its lengths shorten it.{OPEN_A_BOX}"""
MODEL_NOTE = """ComfyUI's own loaders. The *LoRA* is bypassed: select it and press Ctrl+B."""
DETAIL_NOTE = """The views get finer detail before their normals are estimated (paper, section 3.1): ControlNet Tile
holds what they show, a sampler adds to it with a denoise of 0.4. It needs `control_v11f1e_sd15_tile`."""
DETAIL_NEGATIVE = "tattoo, blur, lowres, bad anatomy, bad hands, cropped, worst quality"
VIEW_SIZE, MODEL_WIDTH = 512, 300
HUGGING_FACE = "https://huggingface.co"
CHECKPOINT = "Realistic_Vision_V5.1_fp16-no-ema.safetensors"
CONTROLNET, TILE = "AnimPortrait3D_controlnet.safetensors", "control_v11f1e_sd15_tile_fp16.safetensors"
VAE = "sd-vae-ft-ema.safetensors"
CONTROLNETS = "controlnet"
MODELS = {
    CHECKPOINT: (f"SG161222/Realistic_Vision_V5.1_noVAE/resolve/main/{CHECKPOINT}", "checkpoints"),
    VAE: ("stabilityai/sd-vae-ft-ema/resolve/main/diffusion_pytorch_model.safetensors", "vae"),
    CONTROLNET: (
        "onethousand/AnimPortrait3D_controlnet/resolve/main/diffusion_pytorch_model.safetensors",
        "controlnet",
    ),
    TILE: (f"comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{TILE}", CONTROLNETS),
}
"""Where a file is from, and the folder it belongs into: the frontend offers to fetch what is missing."""


def full_method(graph: WorkflowBuilder) -> None:
    """A Portrait3D portrait becomes an avatar that has learned its eyes and its mouth from Stable Diffusion."""
    graph.note("Start here", FULL_METHOD_NOTE, MODEL_WIDTH)
    model = _diffusion_model(graph)
    portrait = add_portrait(graph)
    seen, images = _detailed_views(graph, portrait, model)
    with graph.stage("3 First avatar", width=BOX_WIDTH):
        first = _first_avatar(graph, portrait, seen, images)
        graph.add("PreviewImage", title="First avatar", images=first["image"])
    with graph.stage("4 Learning", width=PICK_WIDTH):
        guidance = graph.add("AP3D_GuidanceFromModel", **model, text_lines=3)
        stages = add_learning(graph, first, guidance, portrait["prompt"], seen[1], preset="paper")
    add_learned(graph, 5, portrait, seen, first, stages, filmed=False)


def _model_file(
    graph: WorkflowBuilder, loader: str, widget: str, name: str, title: str = "", knob: str = ""
) -> BuiltNode:
    """A loader of ComfyUI's own with the file that it should find, and where that is from."""
    address, directory = MODELS[name]
    models = [{"name": name, "url": f"{HUGGING_FACE}/{address}", "directory": directory}]
    return graph.add(loader, title=title, models=models, knobs={widget: knob} if knob else {}, **{widget: name})


def _diffusion_model(graph: WorkflowBuilder) -> dict[str, Output]:
    """MODEL, CLIP, VAE and CONTROL_NET, in a box that the user's own loaders may stand in for."""
    with graph.folded("Stable Diffusion", MODEL_NOTE):
        checkpoint = _model_file(graph, "CheckpointLoaderSimple", "ckpt_name", CHECKPOINT, knob="checkpoint")
        changed = graph.add("LoraLoader", title="LoRA", model=checkpoint[0], clip=checkpoint[1], bypassed=True)
        vae = _model_file(graph, "VAELoader", "vae_name", VAE, knob="VAE file")
        control = _model_file(graph, "ControlNetLoader", "control_net_name", CONTROLNET, knob="ControlNet")
    return {"model": changed[0], "clip": changed[1], "vae": vae[0], "control_net": control[0]}


def _detailed_views(graph: WorkflowBuilder, portrait: BuiltNode, model: Mapping[str, Output]) -> tuple[Seen, Output]:
    """Views, and the pictures of those from all sides with more detail if that is wanted."""
    with graph.stage("2 Views", width=BOX_WIDTH):
        with graph.folded("Views", VIEWS_NOTE):
            views, close = add_views(graph, portrait, VIEW_SIZE)
        with graph.folded("Detail pass", DETAIL_NOTE, bypassed=True):
            images = _detail_pass(graph, views["images"], portrait["prompt"], model)
        graph.add("PreviewImage", title="From all sides", images=images)
    return (views, close), images


def _first_avatar(graph: WorkflowBuilder, portrait: BuiltNode, seen: Seen, images: Output) -> BuiltNode:
    """The avatar of the views with these pictures, in one box of boxes."""
    with graph.folded("First avatar", FIRST_NOTE):
        with graph.folded("Surface", SURFACE_NOTE):
            detailed = graph.add("AP3D_ReplaceViewImages", views=seen[0]["views"], images=images, shows_picture=True)
            mesh = add_mesh(graph, portrait, detailed)
        graph.add("PreviewImage", title="Refined surface", images=mesh["image"])
        parts, fit = add_body(graph, seen, mesh["mesh"])
        return add_first_avatar(graph, portrait, seen, mesh["mesh"], parts, fit, Method(""))


def _detail_pass(graph: WorkflowBuilder, images: Output, prompt: Output, model: Mapping[str, Output]) -> Output:
    """Pictures of the same size with more detail. The first node takes them, so that a bypassed box hands them on."""
    network, clip, vae = model["model"], model["clip"], model["vae"]
    latents = graph.add("VAEEncode", pixels=images, vae=vae)
    tile = _model_file(graph, "ControlNetLoader", "control_net_name", TILE, title="ControlNet Tile")
    positive = graph.add("CLIPTextEncode", text=prompt, clip=clip)
    negative = graph.add("CLIPTextEncode", text=DETAIL_NEGATIVE, clip=clip)
    asked = graph.add(
        "ControlNetApplyAdvanced", positive=positive[0], negative=negative[0], control_net=tile[0], image=images
    )
    sampled = graph.add(
        "KSampler",
        model=network,
        positive=asked[0],
        negative=asked[1],
        latent_image=latents[0],
        steps=32,
        cfg=7.5,
        denoise=0.4,
        knobs={"denoise": "denoise"},
    )
    return graph.add("VAEDecode", samples=sampled[0], vae=vae, output_names={"IMAGE": "detailed"})[0]
