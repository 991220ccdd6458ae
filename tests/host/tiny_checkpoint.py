"""A random checkpoint that ComfyUI takes for Stable Diffusion 1.5, small where its loader lets it be, and ControlNets.

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
HINT_WIDTHS = (16, 32, 96, 256)


def write_tiny_checkpoint(folder: Path) -> Path:
    """The four files; the folder."""
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
    return folder


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
