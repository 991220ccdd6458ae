"""LoRAs: low-rank changes of a U-Net and a text encoder, added to their weights once and for all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import IncompatibleCheckpoint, InvalidInput, MissingExtension, MissingModelFile
from .model_files import Model, import_diffusers, read_weights

if TYPE_CHECKING:
    from .components import Components

_ADAPTER = "added"


def add_lora(where: str, parts: Components, file: Path, strength: float) -> None:
    """Add `strength` times a LoRA file (diffusers' or kohya's names) to the models' weights, in place.

    Raises `MissingExtension` without peft, `IncompatibleCheckpoint` when the file fits none of the models.
    """
    if not -10 <= strength <= 10:
        raise InvalidInput(f"{where}: strength {strength} of the LoRA '{file}', expected -10 to 10.")
    if not file.is_file():
        raise MissingModelFile(f"{where}: the LoRA '{file}' does not exist.")
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise MissingExtension(
            f"{where}: the package peft cannot be imported ({error}), which LoRAs need. Install it with 'pip install "
            "peft', or leave the LoRA out."
        ) from error
    weights, alphas = _diffusers_names(where, file, parts)
    applied = 0
    for prefix, model in (("unet", parts.unet), ("text_encoder", parts.text_encoder)):
        own = {name: value for name, value in weights.items() if name.startswith(f"{prefix}.")}
        if own:
            _merge(where, file, model, own, alphas, prefix, strength)
            applied += len(own)
    if applied == 0:
        raise IncompatibleCheckpoint(
            f"{where}: the LoRA '{file}' changes neither the U-Net nor the text encoder; choose one made for this "
            "checkpoint's family."
        )


def _diffusers_names(where: str, file: Path, parts: Components) -> tuple[dict[str, Tensor], Mapping[str, float] | None]:
    """Tensors by the names of diffusers' models, and kohya's alphas if it is such a file."""
    mixin = import_diffusers(where).loaders.StableDiffusionLoraLoaderMixin
    try:
        weights, alphas = mixin.lora_state_dict(read_weights(where, file), unet_config=parts.unet.config)
    except (ValueError, KeyError) as error:
        raise IncompatibleCheckpoint(f"{where}: '{file}' is no LoRA that diffusers knows ({error}).") from error
    return dict(weights), alphas


def _merge(
    where: str, file: Path, model: Model, weights: dict[str, Tensor], alphas: Mapping[str, float] | None,
    prefix: str, strength: float,
) -> None:  # fmt: skip
    """Let peft put the LoRA's layers around the model's, add them to the weights, and take them away again."""
    from diffusers.utils.peft_utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    mixin = import_diffusers(where).loaders.StableDiffusionLoraLoaderMixin
    try:
        if prefix == "unet":
            mixin.load_lora_into_unet(weights, alphas, model, adapter_name=_ADAPTER)
        else:
            mixin.load_lora_into_text_encoder(weights, alphas, model, prefix=prefix, adapter_name=_ADAPTER)
    except (RuntimeError, ValueError, KeyError) as error:
        raise IncompatibleCheckpoint(
            f"{where}: the LoRA '{file}' does not fit the {prefix} ({error}); choose one made for this checkpoint's "
            "family."
        ) from error
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    if not layers:
        raise IncompatibleCheckpoint(f"{where}: no layer of the {prefix} has a name that the LoRA '{file}' changes.")
    for layer in layers:
        layer.set_scale(_ADAPTER, strength)
        layer.merge()
    recurse_remove_peft_layers(model)
    del model.peft_config
    model._hf_peft_config_loaded = False
