"""The whole method with real models: Stable Diffusion 1.5 by ComfyUI's own loaders, AnimPortrait3D's ControlNet."""

from __future__ import annotations

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.builder_scope import BuiltNode, Output

from .steps import (
    BOX_WIDTH,
    NOTE_WIDTH,
    OPEN_A_BOX,
    PICK_WIDTH,
    SURFACE_NOTE,
    VIEWS_NOTE,
    Method,
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

1. Choose your Portrait3D file in *Load Portrait3D*, and your SMPL-X file in *Parts and body*.
2. Choose the checkpoint (Realistic Vision V5.1, or any Stable Diffusion 1.5), its VAE and AnimPortrait3D's ControlNet.
3. *LoRA* and *Detail pass* are bypassed: select one and press Ctrl+B.

*Learning* takes the numbers of the paper; its lengths shorten it.{OPEN_A_BOX}"""
DETAIL_NOTE = """The views get finer detail before their normals are estimated (paper, section 3.1): ControlNet Tile
holds what they show, a sampler adds to it with a denoise of 0.4. It needs `control_v11f1e_sd15_tile`."""
DETAIL_NEGATIVE = "tattoo, blur, lowres, bad anatomy, bad hands, cropped, worst quality"
VIEW_SIZE = 512
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
    graph.note("Start here", FULL_METHOD_NOTE, NOTE_WIDTH)
    portrait = add_portrait(graph)
    model, clip, vae = _diffusion_model(graph)
    seen, mesh = _detailed_surface(graph, portrait, (model, clip, vae))
    parts, fit = add_body(graph, 4, seen[0], mesh["mesh"])
    with graph.stage("5 First avatar", width=BOX_WIDTH):
        first = add_first_avatar(graph, portrait, seen, mesh["mesh"], parts, fit, Method(""))
    with graph.stage("6 Words", width=BOX_WIDTH, new_row=True):
        prompts = graph.add("AP3D_Prompts", prompt=portrait["prompt"], text_lines=8, collapsed=True)
    with graph.stage("7 Guidance", width=PICK_WIDTH):
        control = _model_file(graph, "ControlNetLoader", "control_net_name", CONTROLNET)
        parts_of_model = {"model": model, "clip": clip, "vae": vae, "control_net": control[0]}
        guidance = graph.add("AP3D_GuidanceFromModel", **parts_of_model, text_lines=3)
    with graph.stage("8 Learning", width=BOX_WIDTH):
        stages = add_learning(graph, first, guidance, prompts, seen[1], preset="paper")
    add_learned(graph, 9, portrait, seen, first, stages)


def _model_file(graph: WorkflowBuilder, loader: str, widget: str, name: str, title: str = "") -> BuiltNode:
    """A loader of ComfyUI's own with the file that it should find, and where that is from."""
    address, directory = MODELS[name]
    models = [{"name": name, "url": f"{HUGGING_FACE}/{address}", "directory": directory}]
    return graph.add(loader, title=title, models=models, **{widget: name})


def _diffusion_model(graph: WorkflowBuilder) -> tuple[Output, Output, Output]:
    """MODEL, CLIP and VAE."""
    with graph.stage("2 Model", width=PICK_WIDTH):
        checkpoint = _model_file(graph, "CheckpointLoaderSimple", "ckpt_name", CHECKPOINT)
        changed = graph.add("LoraLoader", title="LoRA", model=checkpoint[0], clip=checkpoint[1], bypassed=True)
        vae = _model_file(graph, "VAELoader", "vae_name", VAE)
    return changed[0], changed[1], vae[0]


def _detailed_surface(
    graph: WorkflowBuilder, portrait: BuiltNode, model: tuple[Output, Output, Output]
) -> tuple[tuple[BuiltNode, BuiltNode], BuiltNode]:
    """Views, with more detail if that is wanted, and the surface that is refined by their normals."""
    with graph.stage("3 Surface", width=BOX_WIDTH):
        with graph.folded("Views", VIEWS_NOTE):
            views, close = add_views(graph, portrait, VIEW_SIZE)
        with graph.folded("Detail pass", DETAIL_NOTE, bypassed=True):
            images = _detail_pass(graph, views["images"], portrait["prompt"], model)
        with graph.folded("Surface", SURFACE_NOTE):
            detailed = graph.add("AP3D_ReplaceViewImages", views=views["views"], images=images, shows_picture=True)
            mesh = add_mesh(graph, portrait, detailed)
        graph.add("PreviewImage", title="Refined surface", images=mesh["image"])
    return (views, close), mesh


def _detail_pass(
    graph: WorkflowBuilder, images: Output, prompt: Output, model: tuple[Output, Output, Output]
) -> Output:
    """Pictures of the same size with more detail. The first node takes them, so that a bypassed box hands them on."""
    network, clip, vae = model
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
    return graph.add("VAEDecode", samples=sampled[0], vae=vae)[0]
