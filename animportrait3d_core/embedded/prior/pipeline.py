"""The prior as a pipeline folder of diffusers: written from networks in training, and read as first weights of another.

Weights are stored in half precision, except the codec's encoder, a closed form that 180 kB keep exact, and the text
encoder: transformers opens a file in the precision it has, and the pipelines of diffusers want one precision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...diffusion.components import load_controlnet, load_text_encoder, load_unet, load_vae
from ...diffusion.diffusers_adapter import CONTROLNET_FOLDER, SETTINGS_FILE
from ...diffusion.model_files import CONFIG_FILE, Model
from ...errors import IncompatibleCheckpoint
from ...files import write_json, write_safetensors
from ...regions import IMAGE_REGIONS
from .networks import SCHEDULER_CONFIG, PriorNetworks
from .vocabulary import save_tokenizer

GUIDANCE_SCALE = 1.0
"""With which the prior's samples are best."""
CROPS_OF = {"bust": ("bust",), "face": ("face",), "eyes": ("left eye", "right eye", "both eyes"), "mouth": ("mouth",)}
"""Of what a picture of a data set shows: the regions of `conditioning.CROP_REGIONS`."""
_WHERE = "embedded prior"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionControlNetPipeline",
    "controlnet": ["diffusers", "ControlNetModel"], "feature_extractor": [None, None], "image_encoder": [None, None],
    "requires_safety_checker": False, "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderTiny"],
}  # fmt: skip


def save_codec(codec: Model, folder: str | Path) -> None:
    """Write an `AutoencoderTiny` folder."""
    _write_config(codec, Path(folder))
    weights = codec.state_dict()
    halves = {name: value if name.startswith("encoder.") else value.half() for name, value in weights.items()}
    write_safetensors(Path(folder) / _WEIGHTS, halves, {"format": "pt"})


def load_codec(folder: str | Path) -> Model:
    """The codec of an `AutoencoderTiny` folder in float32, frozen."""
    return load_vae(_WHERE, Path(folder)).float().eval().requires_grad_(False)


def save_pipeline(
    networks: PriorNetworks,
    codec_folder: Path,
    tokenizer: Any,
    folder: str | Path,
    shown: Collection[str] = IMAGE_REGIONS,
) -> None:
    """Write the whole pipeline; every file in one piece, `model_index.json` last.

    shown: of IMAGE_REGIONS, what the networks have seen; told to those who ask about regions.
    """
    folder = Path(folder)
    for name, network in networks.named_children():
        _write_config(network, folder / name)
        text, weights = name == "text_encoder", network.state_dict()
        stored = weights if text else {key: value.half() for key, value in weights.items()}
        write_safetensors(folder / name / ("model.safetensors" if text else _WEIGHTS), stored, {"format": "pt"})
    save_codec(load_codec(codec_folder), folder / "vae")
    save_tokenizer(tokenizer, folder / "tokenizer")
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    known = [name for region in shown for name in CROPS_OF[region]]
    write_json(folder / SETTINGS_FILE, {"guidance_scale": GUIDANCE_SCALE, "regions": known})
    write_json(folder / "model_index.json", _INDEX)


def load_weights(networks: PriorNetworks, folder: str | Path) -> None:
    """Give networks the weights of a pipeline folder (in float32, from its half precision)."""
    folder = Path(folder)
    unet = load_unet(_WHERE, folder / "unet")
    parts: Mapping[str, nn.Module] = {
        "unet": unet, "text_encoder": load_text_encoder(_WHERE, folder / "text_encoder"),
        "controlnet": load_controlnet(_WHERE, folder / CONTROLNET_FOLDER, unet),
    }  # fmt: skip
    for name, part in parts.items():
        weights: dict[str, Tensor] = {key: value.float() for key, value in part.state_dict().items()}
        try:
            getattr(networks, name).load_state_dict(weights)
        except RuntimeError as error:
            raise IncompatibleCheckpoint(
                f"{_WHERE}: the {name} in '{folder}' is not of the architecture that is trained ({error}). Start "
                "without it."
            ) from error


def _write_config(network: Model, folder: Path) -> None:
    """The configuration as the library writes it; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(network, "save_config"):
        network.save_config(str(folder))
        return
    text: Any = network.config
    write_json(folder / CONFIG_FILE, {**text.to_diff_dict(), "architectures": [type(network).__name__]})
