"""The parts of a guidance from a diffusers folder, and the parts that may come from elsewhere (VAE, ControlNet)."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import IncompatibleCheckpoint, InvalidInput, MissingModelFile
from ..model_weights import at_most_parameters, building, check_weights
from .families import ADVICE, check_pipeline_class, check_unet_config, family_of_width, refuse
from .guidance import CONTROL_CHANNELS
from .model_files import (
    CONFIG_FILE,
    Model,
    assign_weights,
    build_empty,
    import_diffusers,
    import_transformers,
    read_config,
    read_folder_weights,
    read_weights,
    rename_old_attention,
)
from .schedule import PREDICTION_TYPES, NoiseSchedule, PredictionType

_CONDITION_WIDTHS = (16, 32, 96, 256)
"""Of the layers that shrink a condition image, as in the first ControlNets; each but the first halves its side."""
MOST_TIMESTEPS = 100_000
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")


@dataclasses.dataclass(eq=False)
class Components:
    """Models on the CPU, in the precision of their files."""

    unet: Model
    vae: Model
    text_encoder: Model
    tokenizer: Any
    schedule: NoiseSchedule
    prediction_type: PredictionType


def load_folder(where: str, folder: Path) -> Components:
    """Every part of a Stable-Diffusion-shaped pipeline folder. Raises an error that names the part which is wrong."""
    index = folder / "model_index.json"
    if index.is_file():
        check_pipeline_class(where, folder, str(read_config(where, folder, index.name).get("_class_name", "")))
    if (folder / "transformer").is_dir():
        refuse(where, folder, str(read_config(where, folder / "transformer").get("_class_name", "a transformer model")))
    if (folder / "text_encoder_2").is_dir():
        refuse(where, folder, "a model with two text encoders (SDXL and the like)")
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        found = sorted(entry.name for entry in folder.iterdir())
        raise MissingModelFile(
            f"{where}: '{folder}' lacks {', '.join(missing)}: found {found}, expected the folders {', '.join(_PARTS)}. "
            "Give the folder that diffusers' save_pretrained wrote."
        )
    unet = load_unet(where, folder / "unet")
    schedule, prediction_type = load_schedule(where, folder / "scheduler")
    return Components(
        unet, load_vae(where, folder / "vae"), load_text_encoder(where, folder / "text_encoder"),
        load_tokenizer(where, folder / "tokenizer"), schedule, prediction_type,
    )  # fmt: skip


def load_unet(where: str, folder: Path) -> Model:
    """A `UNet2DConditionModel` folder."""
    config = read_config(where, folder)
    check_unet_config(where, folder, config)
    weights = read_folder_weights(where, folder)
    unet = build_empty(import_diffusers(where).UNet2DConditionModel, config, where, len(weights))
    assign_weights(f"{where}: '{folder}'", unet, weights)
    return unet


def load_vae(where: str, folder: Path, weights: Mapping[str, Tensor] | None = None) -> Model:
    """A folder of an `AutoencoderKL` or `AutoencoderTiny`; with `weights` in place of those in it."""
    config = read_config(where, folder)
    name = str(config.get("_class_name", "AutoencoderKL"))
    if name not in _AUTOENCODERS:
        raise IncompatibleCheckpoint(f"{where}: '{folder}' is a {name}, expected {' or '.join(_AUTOENCODERS)}.")
    weights = read_folder_weights(where, folder) if weights is None else weights
    vae = build_empty(getattr(import_diffusers(where), name), config, where, len(weights))
    assign_weights(f"{where}: '{folder}'", vae, rename_old_attention(weights) if name == "AutoencoderKL" else weights)
    return vae


def load_text_encoder(where: str, folder: Path) -> Model:
    """A `CLIPTextModel` folder of any version of transformers."""
    config = read_config(where, folder)
    if config.get("model_type", "clip_text_model") != "clip_text_model":
        refuse(where, folder, f"a text encoder of type '{config.get('model_type')}'")
    return build_text_encoder(where, config, read_folder_weights(where, folder))


def build_text_encoder(where: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Model:
    """A CLIP text model from its configuration and weights, with or without "text_model." before their names."""
    transformers = import_transformers(where)
    what = f"{where}: transformers cannot build the text encoder of the configuration"
    with building(what), at_most_parameters(where, len(weights)), torch.device("meta"):
        skeleton = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config))
    prefix = "text_model."
    plain = {name.removeprefix(prefix): value for name, value in weights.items() if "position_ids" not in name}
    own = {name.removeprefix(prefix): name for name in skeleton.state_dict()}
    named = {own.get(name, name): value for name, value in plain.items()}
    # Before the memory that the configuration asks for is taken: it must be what the file holds.
    check_weights(f"{where}: text encoder", skeleton, named)
    model = transformers.CLIPTextModel(skeleton.config)  # some of its numbers are in no file
    assign_weights(f"{where}: text encoder", model, named)
    return model


def load_tokenizer(where: str, folder: Path) -> Any:
    """The tokenizer of a folder, of the class that its configuration names."""
    transformers = import_transformers(where)
    config = read_config(where, folder, "tokenizer_config.json")
    name = str(config.get("tokenizer_class", "CLIPTokenizer")).removesuffix("Fast")
    clip = name == "CLIPTokenizer"
    needed = ["vocab.json"] if clip and not (folder / "tokenizer.json").is_file() else ["tokenizer.json"]
    needed += ["merges.txt"] if needed == ["vocab.json"] else []
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing:
        raise MissingModelFile(f"{where}: the tokenizer '{folder}' lacks {' and '.join(missing)}.")
    kind = transformers.CLIPTokenizer if clip else transformers.PreTrainedTokenizerFast
    with building(f"{where}: transformers cannot load the tokenizer '{folder}'"):
        return kind.from_pretrained(str(folder), local_files_only=True)


def load_schedule(where: str, folder: Path) -> tuple[NoiseSchedule, PredictionType]:
    """Schedule and type of prediction of a scheduler's configuration."""
    config = read_config(where, folder, "scheduler_config.json")
    name, prediction_type = str(config.get("_class_name", "")), str(config.get("prediction_type", "epsilon"))
    if "FlowMatch" in name or prediction_type.startswith("flow"):
        refuse(where, folder.parent, f"a flow model ({name})")
    if prediction_type not in PREDICTION_TYPES:
        refuse(where, folder.parent, f"a model with prediction type '{prediction_type}'")
    known = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    settings = {key: config[key] for key in known if config.get(key) is not None}
    zero = bool(config.get("rescale_betas_zero_snr", False))
    steps = settings.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 1 <= steps <= MOST_TIMESTEPS:
        raise InvalidInput(f"{where}: '{folder}' has {steps!r} timesteps, expected 1 to {MOST_TIMESTEPS}.")
    with building(f"{where}: the schedule in '{folder}' is not known"):
        scheduler = import_diffusers(where).DDIMScheduler(**settings, rescale_betas_zero_snr=zero)
    return NoiseSchedule(scheduler.alphas_cumprod), prediction_type  # type: ignore[return-value]


def load_controlnet(where: str, path: Path, unet: Model) -> Model:
    """A ControlNet for `unet` from a diffusers folder, or from a file in diffusers' or the original layout.

    A file alone says little of its architecture: it is taken to be a copy of the U-Net's encoder, as ControlNets are.
    Raises `IncompatibleCheckpoint` when it is of another family or takes other than 4 condition channels.
    """
    folder = path.parent if path.is_file() and (path.parent / CONFIG_FILE).is_file() else path
    if folder.is_dir():
        config = read_config(where, folder, hint="A ControlNet folder holds config.json and its weights.")
        name = str(config.get("_class_name", "ControlNetModel"))
        if name != "ControlNetModel":
            raise IncompatibleCheckpoint(f"{where}: '{path}' is a {name}, expected a ControlNetModel.")
        weights = read_weights(where, path) if path.is_file() else read_folder_weights(where, folder)
    elif path.is_file():
        weights = {name.removeprefix("control_model."): value for name, value in read_weights(where, path).items()}
        config = _config_of_file(where, path, weights, unet)
    else:
        raise MissingModelFile(f"{where}: the ControlNet '{path}' does not exist.")
    _check_controlnet(where, path, config, unet.config)
    model_class = import_diffusers(where).ControlNetModel
    model = build_empty(model_class, config, where, len(weights))
    if "time_embed.0.weight" in weights:
        from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

        weights = convert_controlnet_checkpoint(weights, model.config)
    assign_weights(f"{where}: ControlNet '{path}'", model, weights)
    return model


def controlnet_from_unet(where: str, unet: Model, latent_factor: int, seed: int) -> Model:
    """A new ControlNet of 4 condition channels with the weights of the U-Net's encoder, float32 on the CPU.

    latent_factor: side of an image over that of its latents, by which the condition is shrunk.  seed: of the
    condition's first layers, the only weights that are drawn.
    """
    widths = _CONDITION_WIDTHS[: latent_factor.bit_length()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # diffusers draws from the global generator
        model = import_diffusers(where).ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=widths, conditioning_channels=CONTROL_CHANNELS
        )
    if unet.config.get("addition_embed_type") == "text":
        # diffusers forgets how many heads look at the text there.
        model.add_embedding = copy.deepcopy(unet.add_embedding).requires_grad_(True)
        model.register_to_config(addition_embed_type_num_heads=unet.config["addition_embed_type_num_heads"])
    return nn.Module.to(model, device="cpu", dtype=torch.float32)


def _config_of_file(where: str, path: Path, weights: Mapping[str, Tensor], unet: Model) -> dict[str, Any]:
    """The configuration of ControlNet weights without one: the U-Net's, with what the tensors' shapes tell."""
    original = "time_embed.0.weight" in weights
    first = "input_hint_block.0.weight" if original else "controlnet_cond_embedding.conv_in.weight"
    if first not in weights:
        raise IncompatibleCheckpoint(f"{where}: '{path}' is no ControlNet: it has no tensor '{first}'.")
    if original:
        later = [f"input_hint_block.{index}.weight" for index in range(4, 100, 4)]
    else:
        later = [f"controlnet_cond_embedding.blocks.{index}.weight" for index in range(1, 100, 2)]
    widths = [weights[name].shape[0] for name in [first, *later] if name in weights]
    accepted = inspect.signature(import_diffusers(where).ControlNetModel.__init__).parameters
    config = {name: value for name, value in unet.config.items() if name in accepted}
    text = [value.shape[-1] for name, value in weights.items() if name.endswith("attn2.to_k.weight")]
    first_input = weights["input_blocks.0.0.weight" if original else "conv_in.weight"]
    return {
        **config, "conditioning_channels": weights[first].shape[1], "conditioning_embedding_out_channels": widths,
        "cross_attention_dim": text[0] if text else None, "in_channels": first_input.shape[1],
    }  # fmt: skip


def _check_controlnet(where: str, path: Path, config: Mapping[str, Any], unet: Mapping[str, Any]) -> None:
    """Refuse ControlNets of another family, size or number of condition channels than the U-Net's."""
    width, wanted = config.get("cross_attention_dim"), unet["cross_attention_dim"]
    if width != wanted:
        raise IncompatibleCheckpoint(
            f"{where}: the ControlNet '{path}' is of family {family_of_width(width or 0)} (text of {width} numbers), "
            f"the checkpoint of family {family_of_width(wanted)} ({wanted}). Choose a ControlNet of the same family."
        )
    for name in ("in_channels", "block_out_channels", "layers_per_block", "addition_embed_type"):
        found, expected = config.get(name), unet.get(name)
        if _plain(found) != _plain(expected):
            raise IncompatibleCheckpoint(
                f"{where}: the ControlNet '{path}' has `{name}` {found}, the checkpoint {expected}. Choose one made "
                "for this checkpoint's family."
            )
    channels = config.get("conditioning_channels", 3)
    if channels != CONTROL_CHANNELS:
        raise IncompatibleCheckpoint(
            f"{where}: the ControlNet '{path}' takes condition images of {channels} channels, expected "
            f"{CONTROL_CHANNELS} (normals and label map), as AnimPortrait3D's does; ordinary ControlNets do not fit."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def check_components(where: str, parts: Components) -> None:
    """Refuse parts that do not fit each other."""
    unet, vae, text = parts.unet.config, parts.vae.config, parts.text_encoder.config
    if unet["in_channels"] != vae["latent_channels"]:
        raise IncompatibleCheckpoint(
            f"{where}: the VAE has {vae['latent_channels']} latent channels, the U-Net {unet['in_channels']}. Choose "
            "the VAE that belongs to the checkpoint."
        )
    if unet["cross_attention_dim"] != text.hidden_size:
        raise IncompatibleCheckpoint(
            f"{where}: the text encoder's embedding has {text.hidden_size} numbers, the U-Net expects "
            f"{unet['cross_attention_dim']}. {ADVICE}"
        )
    words, known = len(parts.tokenizer), text.vocab_size
    if words > known:
        raise IncompatibleCheckpoint(
            f"{where}: the tokenizer knows {words} tokens, the text encoder {known}. Choose the tokenizer that belongs "
            "to the checkpoint."
        )
    if parts.prediction_type == "epsilon" and parts.schedule.has_zero_terminal_snr:
        raise IncompatibleCheckpoint(
            f"{where}: the schedule ends without signal (rescale_betas_zero_snr), where a model that predicts epsilon "
            "says nothing. Correct `prediction_type` in scheduler_config.json."
        )


def frozen(model: Model, device: torch.device, dtype: torch.dtype) -> Model:
    """A model ready to predict, without gradients of its weights."""
    # The libraries' own `to` warns of casts that are meant here.
    model = nn.Module.to(model.requires_grad_(False).eval(), device=device, dtype=dtype)
    return nn.Module.to(model, memory_format=torch.channels_last)
