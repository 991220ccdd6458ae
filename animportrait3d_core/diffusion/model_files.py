"""Model folders and weight files of diffusers and transformers, read without the network and without running code.

The libraries build the models; their files are read here, so that a folder is only ever a folder (never a name on a
hub) and every message says which part of it is missing or does not fit.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput, MissingExtension, MissingModelFile
from ..files import json_of_file, read_safetensors, require_file
from ..model_weights import at_most_parameters, building, check_weights
from ..torch_checkpoints import read_torch_checkpoint

Model = Any
"""A model of diffusers or transformers: an `nn.Module` with a `config`, of which torch's types know nothing."""

CONFIG_FILE = "config.json"
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_SUFFIXES = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
# Names that diffusers gave the layers of the autoencoder's attention before version 0.15; many files still have them.
_OLD_ATTENTION = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))


def import_diffusers(where: str) -> Any:
    """The package diffusers; `MissingExtension` says what works without it."""
    try:
        import diffusers
    except ImportError as error:
        raise _missing_package(where, "diffusers", error) from error
    return diffusers


def import_transformers(where: str) -> Any:
    """The package transformers; `MissingExtension` says what works without it."""
    try:
        import transformers
    except ImportError as error:
        raise _missing_package(where, "transformers", error) from error
    return transformers


def _missing_package(where: str, package: str, error: ImportError) -> MissingExtension:
    return MissingExtension(
        f"{where}: the package {package} cannot be imported ({error}). Install it with 'pip install {package}'; "
        "without it diffusion models cannot be loaded from files, and everything that needs none works."
    )


def read_config(where: str, folder: Path, file: str = CONFIG_FILE, hint: str = "") -> dict[str, Any]:
    """The JSON object in a model folder. Raises `MissingModelFile` or `InvalidInput`."""
    path = folder / file
    if not path.is_file():
        raise MissingModelFile(f"{where}: '{path}' does not exist. {hint}".rstrip())
    try:
        value = json_of_file(require_file(where, path, hint))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{where}: '{path}' is not readable JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: '{path}' holds a {type(value).__name__}, expected an object.")
    return value


def read_weights(where: str, path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file or of a pickle (.bin, .pt, .pth, .ckpt), which is read without running it."""
    if path.suffix == ".safetensors":
        return read_safetensors(path, where)[0]
    content = read_torch_checkpoint(path)
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise InvalidInput(f"{where}: '{path}' holds a {type(content).__name__}, expected named tensors.")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_folder_weights(where: str, folder: Path) -> dict[str, Tensor]:
    """The weights of a model folder, safetensors first, full precision first."""
    for suffix in _SUFFIXES:
        for stem in _STEMS:
            if (folder / f"{stem}{suffix}").is_file():
                return read_weights(where, folder / f"{stem}{suffix}")
    found = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    raise MissingModelFile(
        f"{where}: '{folder}' has no weights: found {found}, expected {_STEMS[0]}.safetensors or {_STEMS[1]}"
        ".safetensors."
    )


def rename_old_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's weights with the names that diffusers has used since 0.15."""
    renamed = {}
    for name, value in tensors.items():
        for old, new in _OLD_ATTENTION:
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


def build_empty(model_class: Any, config: Mapping[str, Any], where: str, tensors: int) -> Model:
    """A diffusers model without memory for its weights, which `assign_weights` brings; tensors: how many it brings."""
    # Files of other versions, and the libraries themselves, write settings that the class does not know.
    accepted = inspect.signature(model_class.__init__).parameters
    settings = {name: value for name, value in config.items() if name in accepted}
    what = f"{where}: this version of diffusers cannot build the {model_class.__name__} of the configuration"
    with building(what), at_most_parameters(where, tensors), torch.device("meta"):
        return model_class.from_config(settings)


def assign_weights(where: str, model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Give a model its weights; all must be there, of the right shape, and finite."""
    check_weights(where, model, tensors)
    model.load_state_dict(dict(tensors), assign=True)
