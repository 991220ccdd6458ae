"""Tensors of diffusers' models under the names of the original Stable Diffusion files, written from their layout."""

from __future__ import annotations

import re

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_OUTER = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "controlnet_mid_block": "middle_block_out.0",
}  # fmt: skip
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name, layers, attends):
    """attends: for each block of the decoder whether it has attention."""
    whole, _, kind = name.rpartition(".")
    if whole in _OUTER:
        return f"{_OUTER[whole]}.{kind}"
    if found := re.match(r"controlnet_cond_embedding\.(conv_in|conv_out|blocks\.(\d+))\.", name):
        index = {"conv_in": 0, "conv_out": 14}.get(found[1])
        return f"input_hint_block.{2 + 2 * int(found[2]) if index is None else index}.{kind}"
    if found := re.match(r"controlnet_down_blocks\.(\d+)\.", name):
        return f"zero_convs.{found[1]}.0.{kind}"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = f"middle_block.{1 if found[1] == 'attentions' else 2 * int(found[2])}"
        return f"{place}.{_resnet(found[3]) if found[1] == 'resnets' else found[3]}"
    side, block, part, index, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()
    block, index = int(block), int(index)
    if part == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{kind}"
    if part == "upsamplers":
        return f"output_blocks.{block * (layers + 1) + layers}.{2 if attends[block] else 1}.conv.{kind}"
    place = block * (layers + 1) + index + (1 if side == "down" else 0)
    inner = f"0.{_resnet(rest)}" if part == "resnets" else f"1.{rest}"
    return f"{'input' if side == 'down' else 'output'}_blocks.{place}.{inner}"


def _resnet(rest):
    first, _, kind = rest.partition(".")
    return f"{_RESNET[first]}.{kind}"


def vae_entry(name, value, blocks):
    """(original name, tensor): the attention's matrices are 1 x 1 convolutions there."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if found := re.match(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.*)\.(\w+)$", name):
        value = value[..., None, None] if value.ndim == 2 else value
        return f"{found[1]}.mid.attn_1.{_ATTENTION[found[2]]}.{found[3]}", value
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{blocks - 1 - int(found[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{blocks - 1 - int(found[1])}.upsample", name)
    return name, value


def original_checkpoint(unet, vae, text_encoder):
    """All tensors of one file."""
    layers = unet.config.layers_per_block
    attends = ["CrossAttn" in name for name in unet.config.up_block_types]
    tensors = {
        f"model.diffusion_model.{unet_name(name, layers, attends)}": value for name, value in unet.state_dict().items()
    }
    blocks = len(vae.config.block_out_channels)
    for name, value in vae.state_dict().items():
        name, value = vae_entry(name, value, blocks)
        tensors[f"first_stage_model.{name}"] = value
    for name, value in text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    return {name: value.contiguous() for name, value in tensors.items()}


def original_controlnet(controlnet):
    """All tensors of a ControlNet's file."""
    layers = controlnet.config.layers_per_block
    return {f"control_model.{unet_name(k, layers, [])}": v.contiguous() for k, v in controlnet.state_dict().items()}
