"""Which family of diffusion models a file is of, and refusal by name of those that this package cannot use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import IncompatibleCheckpoint

_TEXT_WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
_REFUSED_PIPELINES = (
    ("StableDiffusionXL", "SDXL"), ("StableDiffusion3", "Stable Diffusion 3"), ("Flux", "Flux"), ("PixArt", "PixArt"),
    ("Sana", "Sana"), ("AuraFlow", "AuraFlow"), ("Lumina", "Lumina"), ("Qwen", "Qwen-Image"),
    ("Kandinsky", "Kandinsky"), ("StableCascade", "Stable Cascade"), ("StableUnCLIP", "unCLIP"),
    ("Inpaint", "an inpainting model"),
)  # fmt: skip
# Keys that only one family has, in the layout of single files with or without "model.diffusion_model." before them.
_REFUSED_KEYS = (
    ("label_emb.0.0.weight", "SDXL"), ("joint_blocks.0.context_block.adaLN_modulation.1.weight", "Stable Diffusion 3"),
    ("double_blocks.0.img_attn.norm.key_norm.scale", "Flux"), ("double_blocks.0.img_attn.qkv.weight", "Flux"),
    ("add_embedding.linear_1.weight", "SDXL"),
    ("transformer_blocks.0.attn.add_k_proj.weight", "a transformer (Stable Diffusion 3, Flux and the like)"),
)  # fmt: skip
ADVICE = (
    "Supported are latent diffusion models of the shape of Stable Diffusion 1.5: one U-Net, one CLIP text encoder, "
    "epsilon or v prediction. Choose such a checkpoint."
)


def family_of_width(cross_attention_dim: int) -> str:
    """Name of the family whose text embedding is so wide.

    >>> family_of_width(768), family_of_width(64)
    ('sd15', 'sd-64')
    """
    return _TEXT_WIDTHS.get(cross_attention_dim, f"sd-{cross_attention_dim}")


def refuse(where: str, path: object, family: str) -> None:
    """Raise `IncompatibleCheckpoint` that names the family."""
    raise IncompatibleCheckpoint(f"{where}: '{path}' is {family}, which cannot be used here. {ADVICE}")


def check_pipeline_class(where: str, path: object, name: str) -> None:
    """Refuse folders whose model_index.json names another pipeline."""
    for begin, family in _REFUSED_PIPELINES:
        if begin in name:
            refuse(where, path, family)


def check_unet_config(where: str, path: object, config: Mapping[str, Any]) -> None:
    """Refuse U-Nets of SDXL, inpainting and other kinds by their configuration."""
    name = str(config.get("_class_name", "UNet2DConditionModel"))
    if name != "UNet2DConditionModel":
        refuse(where, path, f"a {name}")
    if config.get("addition_embed_type") == "text_time":
        refuse(where, path, "SDXL")
    if config.get("addition_embed_type") not in (None, "text"):
        refuse(where, path, f"a U-Net with '{config['addition_embed_type']}' embedding")
    check_channels(where, path, int(config.get("in_channels", 4)), int(config.get("out_channels", 4)))


def check_channels(where: str, path: object, inputs: int, outputs: int) -> None:
    """Refuse U-Nets that want more than the noisy latents (inpainting, depth, edits by instruction)."""
    if inputs != outputs:
        kind = "an inpainting model" if inputs == 2 * outputs + 1 else "a model with a further input image"
        refuse(where, path, f"{kind} ({inputs} input and {outputs} output channels)")


def check_single_file_keys(where: str, path: object, keys: Collection[str]) -> None:
    """Refuse single files by keys that only another family has."""
    for key, family in _REFUSED_KEYS:
        if key in keys or f"model.diffusion_model.{key}" in keys:
            refuse(where, path, family)
