"""A random checkpoint that ComfyUI takes for Stable Diffusion 1.5, small where its loader lets it be, its ControlNets,
and an upscaler.

The loader knows the family by the width of the first layer (320) and of the text (768); it builds the text encoder and
the autoencoder in full size whatever the file says, so that those two are. Weights are kept in half precision, so that
all who load the file begin with the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.diffusion.original_names import original_checkpoint, original_controlnet
from tests.diffusion.toys import randomized, toy_controlnet, toy_unet, toy_vae

CHECKPOINT, CONTROLNET, ORDINARY_CONTROLNET = "tiny_sd15.safetensors", "tiny_4.safetensors", "tiny_3.safetensors"
VAE, VAE_PREFIX = "tiny_vae.safetensors", "first_stage_model."
UPSCALER, UPSCALER_WIDTH, UPSCALER_GROWTH = "tiny_upscaler.pth", 8, 32
HINT_WIDTHS = (16, 32, 96, 256)


def write_tiny_checkpoint(folder: Path) -> Path:
    """The five files; the folder."""
    unet = toy_unet(
        block_out_channels=(320, 320), layers_per_block=1, attention_head_dim=8, norm_num_groups=32,
        cross_attention_dim=768, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = toy_vae(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), norm_num_groups=32, layers_per_block=2,
    )  # fmt: skip
    tensors = original_checkpoint(unet, vae, _text_encoder())
    save(tensors, folder / CHECKPOINT)
    own = {name.removeprefix(VAE_PREFIX): value for name, value in tensors.items() if name.startswith(VAE_PREFIX)}
    save(own, folder / VAE)
    for channels, name in ((4, CONTROLNET), (3, ORDINARY_CONTROLNET)):
        control = toy_controlnet(unet, channels, HINT_WIDTHS)
        save(original_controlnet(control), folder / name)
    torch.save(_upscaler(), folder / UPSCALER)
    return folder


def _upscaler():
    """Names and shapes of RealESRGAN x2, with one block in place of 23."""
    width, growth = UPSCALER_WIDTH, UPSCALER_GROWTH
    shapes = {"conv_first": (width, 12), "conv_last": (3, width)}
    shapes |= dict.fromkeys(("conv_body", "conv_up1", "conv_up2", "conv_hr"), (width, width))
    for dense in (1, 2, 3):
        for number in range(1, 6):
            out = growth if number < 5 else width
            shapes[f"body.0.rdb{dense}.conv{number}"] = (out, width + growth * (number - 1))
    weights = {f"{name}.weight": 0.1 * torch.randn(*shape, 3, 3) for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}


def save(tensors, path):
    save_file({name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}, path)


def _text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    return randomized(CLIPTextModel(config), 4)


if __name__ == "__main__":
    import sys

    torch.manual_seed(0)
    write_tiny_checkpoint(Path(sys.argv[1]))
