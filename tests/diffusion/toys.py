"""Small random models of every kind, saved as diffusers and others save them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import torch

from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance

WORDS = ("<pad>", "<s>", "</s>", "<unk>", "a", "young", "man", "red", "hair", "front", "view")
LENGTH, WIDTH, FACTOR, SIZE = 8, 32, 4, 32
CONTROL_WIDTHS = (8, 8, 16)


def randomized(model, seed):
    """Random weights everywhere, also where training would begin with zeros."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
        if parameter.ndim == 1:
            parameter.data += 1.0 if parameter.data.mean() == 0 else 0.0
    return model


def toy_unet(channels=4, inputs=None, **changes):
    from diffusers import UNet2DConditionModel

    settings = {
        "sample_size": SIZE // FACTOR, "in_channels": inputs or channels, "out_channels": channels,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "block_out_channels": (16, 32), "layers_per_block": 1,
        "cross_attention_dim": WIDTH, "attention_head_dim": 2, "norm_num_groups": 8,
    }  # fmt: skip
    return randomized(UNet2DConditionModel(**{**settings, **changes}), 1)


def toy_controlnet(unet, channels=4, widths=CONTROL_WIDTHS):
    from diffusers import ControlNetModel

    # Not `from_unet`, which forgets the number of heads of the text in the time embedding.
    accepted = inspect.signature(ControlNetModel.__init__).parameters
    config = {name: value for name, value in unet.config.items() if name in accepted}
    config |= {"conditioning_channels": channels, "conditioning_embedding_out_channels": widths}
    return randomized(ControlNetModel(**config), 2)


def toy_vae(channels=4, tiny=False, **changes):
    from diffusers import AutoencoderKL, AutoencoderTiny

    if tiny:
        settings = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
        blocks = {"num_encoder_blocks": (1, 1, 0), "num_decoder_blocks": (1, 1, 1)}
        return randomized(AutoencoderTiny(latent_channels=channels, scaling_factor=2.0, **settings, **blocks), 3)
    settings = {
        "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (8, 8, 8), "norm_num_groups": 4, "latent_channels": channels, "scaling_factor": 0.18215,
    }  # fmt: skip
    return randomized(AutoencoderKL(**{**settings, **changes}), 3)


def toy_text_encoder(width=WIDTH, heads=2):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(WORDS), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
        num_attention_heads=heads, max_position_embeddings=LENGTH, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return randomized(CLIPTextModel(config), 4)


def save_tokenizer(folder: Path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(folder))


def save_scheduler(folder: Path, prediction_type="epsilon", zero_snr=False, name="DDIMScheduler"):
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "_class_name": name, "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "prediction_type": prediction_type, "rescale_betas_zero_snr": zero_snr,
    }  # fmt: skip
    (folder / "scheduler_config.json").write_text(json.dumps(config))


def save_toy(folder: Path, prediction_type="epsilon", zero_snr=False, channels=4, tiny=False, **unet_changes):
    """A pipeline folder and beside it `controlnet`; the folder."""
    unet = toy_unet(channels, **unet_changes)
    unet.save_pretrained(folder / "unet")
    toy_controlnet(unet).save_pretrained(folder / "controlnet")
    toy_vae(channels, tiny).save_pretrained(folder / "vae")
    toy_text_encoder().save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    save_scheduler(folder / "scheduler", prediction_type, zero_snr)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def load_toy(folder, dtype=torch.float64, control=True, **files):
    """The guidance of a toy's folder."""
    files = GuidanceFiles(folder, controlnet=folder / "controlnet" if control else None, **files)
    return load_guidance(files, dtype=dtype)
