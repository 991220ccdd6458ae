"""Single checkpoint files in the original layout of Stable Diffusion 1.x: one file with U-Net, VAE and text encoder.

The architecture is read from the tensors' shapes; diffusers renames them. What no tensor tells is Stable Diffusion
1.5's: eight attention heads, groups of 32, the schedule. Files that carry `v_pred` or `ztsnr` (empty tensors, by
convention of their trainers) predict v, or end without signal. The words of the tokenizer are in no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import IncompatibleCheckpoint, MissingModelFile
from .components import Components, build_text_encoder, load_tokenizer, load_vae
from .families import ADVICE, check_channels, check_single_file_keys, family_of_width, refuse
from .model_files import CONFIG_FILE, Model, assign_weights, build_empty, import_diffusers, read_weights
from .schedule import NoiseSchedule

_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
_VAE_SCALE = 0.18215
_CLIP_LARGE = "openai/clip-vit-large-patch14"


def load_single_file(where: str, path: Path, tokenizer: Path | None) -> Components:
    """All parts of a checkpoint file. Raises errors that name the family that it is of, or the part that is missing."""
    weights = read_weights(where, path)
    check_single_file_keys(where, path, weights.keys())
    if f"{_UNET}input_blocks.0.0.weight" not in weights:
        raise IncompatibleCheckpoint(
            f"{where}: '{path}' holds {len(weights)} tensors but no '{_UNET}input_blocks.0.0.weight': it is no "
            f"complete Stable Diffusion checkpoint (perhaps a LoRA, a VAE or a U-Net alone). {ADVICE}"
        )
    if f"{_TEXT}text_model.embeddings.token_embedding.weight" not in weights:
        second = any(name.startswith("cond_stage_model.model.") for name in weights)
        kind = "Stable Diffusion 2 as a single file" if second else "a checkpoint without its CLIP text encoder"
        refuse(where, path, f"{kind}; give it as a diffusers folder instead")
    v_prediction, zero_snr = "v_pred" in weights, "ztsnr" in weights
    schedule = NoiseSchedule.stable_diffusion()
    if zero_snr:
        schedule = NoiseSchedule.from_betas(_betas(schedule), zero_terminal_snr=True)
    return Components(
        _unet(where, path, weights), _vae(where, path, weights), _text_encoder(where, weights),
        _tokenizer(where, path, tokenizer), schedule, "v_prediction" if v_prediction else "epsilon",
    )  # fmt: skip


def load_single_file_vae(where: str, path: Path) -> Model:
    """A VAE from a file alone: an `AutoencoderKL` in the original layout, or the weights of the config.json beside."""
    if not path.is_file():
        raise MissingModelFile(f"{where}: the VAE '{path}' does not exist.")
    weights = read_weights(where, path)
    original = any("encoder.down.0.block." in name for name in weights)
    if not original and (path.parent / CONFIG_FILE).is_file():
        return load_vae(where, path.parent, weights)
    prefixed = {name if name.startswith(_VAE) else _VAE + name: value for name, value in weights.items()}
    return _vae(where, path, prefixed)


def _betas(schedule: NoiseSchedule) -> Tensor:
    alphas = schedule.alphas_cumprod
    return 1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])


def _unet(where: str, path: Path, weights: Mapping[str, Tensor]) -> Model:
    config = unet_config({name.removeprefix(_UNET): value for name, value in weights.items() if _UNET in name})
    check_channels(where, path, config["in_channels"], config["out_channels"])
    if config["cross_attention_dim"] != 768 and family_of_width(config["cross_attention_dim"]) in ("sd2", "sdxl"):
        refuse(where, path, f"of family {family_of_width(config['cross_attention_dim'])} as a single file")
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    model = build_empty(import_diffusers(where).UNet2DConditionModel, config, where, len(weights))
    assign_weights(f"{where}: '{path}'", model, convert_ldm_unet_checkpoint(dict(weights), dict(model.config)))
    return model


def unet_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Configuration for diffusers from the shapes of a U-Net's tensors in the original layout (no prefix)."""
    first = weights["input_blocks.0.0.weight"]
    downs = sorted(int(name.split(".")[1]) for name in weights if name.endswith(".0.op.weight"))
    levels, layers = len(downs) + 1, (downs[0] if downs else 2) - 1
    widths, down_blocks = [], []
    for level in range(levels):
        block = level * (layers + 1) + 1
        widths.append(weights[f"input_blocks.{block}.0.out_layers.3.weight"].shape[0])
        attends = f"input_blocks.{block}.1.proj_in.weight" in weights
        down_blocks.append("CrossAttnDownBlock2D" if attends else "DownBlock2D")
    text = next(value for name, value in weights.items() if name.endswith("attn2.to_k.weight"))
    return {
        "in_channels": first.shape[1], "out_channels": weights["out.2.weight"].shape[0], "sample_size": 64,
        "block_out_channels": widths, "down_block_types": down_blocks, "layers_per_block": layers,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down_blocks)],
        "cross_attention_dim": text.shape[1], "attention_head_dim": 8,
    }  # fmt: skip


def _vae(where: str, path: Path, weights: Mapping[str, Tensor]) -> Model:
    own = {name.removeprefix(_VAE): value for name, value in weights.items() if name.startswith(_VAE)}
    if "decoder.conv_in.weight" not in own or "quant_conv.weight" not in own:
        raise MissingModelFile(f"{where}: '{path}' holds no VAE in the original layout; give a VAE folder or file.")
    config = vae_config(own)
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    model = build_empty(import_diffusers(where).AutoencoderKL, config, where, len(weights))
    assign_weights(f"{where}: VAE of '{path}'", model, convert_ldm_vae_checkpoint(dict(weights), dict(model.config)))
    return model


def vae_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Configuration for diffusers from the shapes of an autoencoder's tensors in the original layout (no prefix)."""
    widths: list[int] = []
    while (name := f"encoder.down.{len(widths)}.block.0.conv2.weight") in weights:
        widths.append(weights[name].shape[0])
    layers = sum(1 for name in weights if name.startswith("encoder.down.0.block.") and name.endswith(".conv1.weight"))
    count = len(widths)
    return {
        "block_out_channels": widths, "layers_per_block": layers, "scaling_factor": _VAE_SCALE,
        "latent_channels": weights["decoder.conv_in.weight"].shape[1],
        "down_block_types": ["DownEncoderBlock2D"] * count, "up_block_types": ["UpDecoderBlock2D"] * count,
    }  # fmt: skip


def _text_encoder(where: str, weights: Mapping[str, Tensor]) -> Model:
    own = {name.removeprefix(_TEXT): value for name, value in weights.items() if name.startswith(_TEXT)}
    return build_text_encoder(where, text_config(own), own)


def text_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Configuration for transformers from the shapes of a CLIP text encoder's tensors."""
    words, width = weights["text_model.embeddings.token_embedding.weight"].shape
    layers = 1 + max(int(name.split(".")[3]) for name in weights if name.startswith("text_model.encoder.layers."))
    return {
        "vocab_size": words, "hidden_size": width, "num_hidden_layers": layers,
        "intermediate_size": weights["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "max_position_embeddings": weights["text_model.embeddings.position_embedding.weight"].shape[0],
        "num_attention_heads": max(1, width // 64), "projection_dim": width,
    }  # fmt: skip


def _tokenizer(where: str, path: Path, folder: Path | None) -> Any:
    """The tokenizer of the folder, or CLIP's if this machine has it in the cache of huggingface_hub."""
    if folder is not None:
        return load_tokenizer(where, Path(folder))
    import huggingface_hub

    # Not by the hub's name: of a model that is not in the cache, transformers 5 makes a tokenizer without any words.
    cache = huggingface_hub.constants.HF_HUB_CACHE
    vocabulary = huggingface_hub.try_to_load_from_cache(_CLIP_LARGE, "vocab.json", cache_dir=cache)
    if not isinstance(vocabulary, str):
        raise MissingModelFile(
            f"{where}: the file '{path}' holds no tokenizer, and CLIP's is not on this machine. Give a folder with its "
            f"vocab.json and merges.txt (from {_CLIP_LARGE}, MIT licence; ComfyUI has it in comfy/sd1_tokenizer), or a "
            "diffusers folder in place of the file."
        )
    return load_tokenizer(where, Path(vocabulary).parent)
