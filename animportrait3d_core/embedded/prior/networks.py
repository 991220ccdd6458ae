"""The prior's networks: a text encoder, a U-Net with text in its time embedding, and a ControlNet, trained as one."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion import NoiseSchedule
from ...diffusion.model_files import Model
from .codec import LATENT_CHANNELS
from .vocabulary import MAX_TOKENS

TEXT_WIDTH = 64
LATENT_SIZE = 32
CONDITION_WIDTHS = (16, 32, 64)
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02,
    "beta_schedule": "linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0,
}  # fmt: skip
UNET_CONFIG: dict[str, Any] = {
    "sample_size": LATENT_SIZE, "in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS,
    # Attention at the coarsest level alone: on CPUs its backward pass at finer ones costs more than all convolutions.
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"), "block_out_channels": (32, 64, 128),
    "layers_per_block": 1, "cross_attention_dim": TEXT_WIDTH, "attention_head_dim": 4, "norm_num_groups": 8,
    "addition_embed_type": "text", "addition_embed_type_num_heads": 4,
}  # fmt: skip


def prior_schedule() -> NoiseSchedule:
    """1000 linear betas, shifted so that the last step has no signal."""
    betas = torch.linspace(SCHEDULER_CONFIG["beta_start"], SCHEDULER_CONFIG["beta_end"], 1000)
    return NoiseSchedule.from_betas(betas, zero_terminal_snr=True)


class PriorNetworks(nn.Module):
    """text_encoder: `CLIPTextModel`.  unet: `UNet2DConditionModel`.  controlnet: `ControlNetModel`."""

    def __init__(self, words: int) -> None:
        """words: size of the vocabulary. First weights are drawn by the libraries, from torch's global generator."""
        super().__init__()
        from diffusers import ControlNetModel, UNet2DConditionModel
        from diffusers.models.attention_processor import AttnProcessor
        from transformers import CLIPTextConfig, CLIPTextModel

        self.text_encoder: Model = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=words, hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=MAX_TOKENS, projection_dim=TEXT_WIDTH,
                bos_token_id=1, eos_token_id=2, pad_token_id=2,
            )
        )  # fmt: skip
        unet: Model = UNet2DConditionModel(**UNET_CONFIG)
        # Not `ControlNetModel.from_unet`, which forgets the number of heads of the text in the time embedding.
        accepted = inspect.signature(ControlNetModel.__init__).parameters
        shared = {name: value for name, value in unet.config.items() if name in accepted}
        control = {"conditioning_channels": 4, "conditioning_embedding_out_channels": CONDITION_WIDTHS}
        controlnet: Model = ControlNetModel(**{**shared, **control})
        self.unet, self.controlnet = unet, controlnet
        for network in (unet, controlnet):
            network.set_attn_processor(AttnProcessor())

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """v [B, 8, 32, 32] of noisy latents.  tokens: [B, L].  condition: [B, 4, 128, 128] in 0..1, or None."""
        states = self.text_encoder(tokens)[0]
        down, middle = None, None
        if condition is not None:
            down, middle = self.controlnet(noisy, timesteps, states, controlnet_cond=condition, return_dict=False)
        return self.unet(
            noisy, timesteps, states, down_block_additional_residuals=down, mid_block_additional_residual=middle,
            return_dict=False,
        )[0]  # fmt: skip
