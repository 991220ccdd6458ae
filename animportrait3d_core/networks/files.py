"""Network folders: segmentation-models-pytorch's own format, and a small file that says what the channels mean.

A folder holds `config.json` and `model.safetensors` as `save_pretrained` of segmentation-models-pytorch writes them,
and `network.json`: {"role", "classes" (parts only: the name of each channel; a name may repeat), "size" (pixels of the
longer side in training), "mean", "std", "pixel_unshuffle" (1 unless the model wants each block of 2 x 2 or more pixels
as further channels of one; it may answer in such blocks too), "inputs" (["colors"], or ["colors", "normals"] for a
network that sees the surface beside the picture), "close_looks" (landmarks only: whether it was also trained on
cut-outs of an eye or the mouth alone; false if absent)}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import IncompatibleCheckpoint, InvalidInput, MissingExtension, MissingModelFile
from ..files import json_of_file, read_safetensors, require_file, write_json, write_safetensors
from ..landmarks import NUM_FACE_LANDMARKS
from ..model_weights import at_most_parameters, building, check_weights
from ..parts import PART_CLASSES
from .roles import check_classes, check_role

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE, WEIGHTS_FILE, NETWORK_FILE = "config.json", "model.safetensors", "network.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_SIZE = 256
COLORS_ALONE, COLORS_AND_NORMALS = ("colors",), ("colors", "normals")
"""What `inputs` of a network may be."""
COLOR_CHANNELS, SURFACE_CHANNELS = 3, 4
"""Channels of each pixel: red, green, blue; and of the surface its normal and whether there is one."""
_HINT = (
    "A network folder holds config.json and model.safetensors (as segmentation-models-pytorch's save_pretrained writes "
    "them) and network.json; docs/networks.md shows one. 'animportrait3d train-network' makes such a folder."
)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageNetwork:
    """A loaded network that is ready to predict.

    role: one of `ROLES`.  model: [B, C u u, S / u, S / u] -> [B, channels, s, s], s its own resolution (landmarks: and
    logits [B, 1 + 68]), C = `input_channels`.  classes: names of the classes that `segment_images` answers, empty for
    other roles.  channel_classes: for each output channel its position in `classes`.  size: S, pixels of the longer
    side of pictures in training.  mean, std: [3] of pictures.  pixel_unshuffle: u.  sees_normals: beside the picture it
    takes the surface that is seen, or none.  looks_closely: it knows cut-outs of an eye or the mouth alone.
    """

    role: str
    model: nn.Module
    classes: tuple[str, ...]
    channel_classes: tuple[int, ...]
    size: int
    mean: Tensor
    std: Tensor
    device: torch.device
    pixel_unshuffle: int = 1
    sees_normals: bool = False
    looks_closely: bool = False

    @property
    def input_channels(self) -> int:
        """Channels of each pixel that the model looks at."""
        return COLOR_CHANNELS + SURFACE_CHANNELS * self.sees_normals

    def maps(self, answer: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """The maps [B, channels, s, s] of a model's answer; blocks that it answers are spread out to single pixels."""
        maps = answer[0] if isinstance(answer, tuple) else answer
        in_blocks = maps.shape[1] == len(self.channel_classes) * self.pixel_unshuffle**2
        return torch.nn.functional.pixel_shuffle(maps, self.pixel_unshuffle) if in_blocks else maps


def build_model(config: Mapping[str, Any], where: str = "build_model") -> nn.Module:
    """The untrained model of a `config.json`. Never loads encoder weights, so that nothing is fetched.

    Raises `MissingExtension` without segmentation-models-pytorch, `IncompatibleCheckpoint` for a config it refuses.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise MissingExtension(
            f"{where}: the package segmentation-models-pytorch cannot be imported ({error}). Install it with "
            "'pip install segmentation-models-pytorch'; without it the networks for parts, normals and landmarks are "
            "unavailable, everything else works."
        ) from error
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    name = str(config.get("_model_class", ""))
    model_class = smp.MODEL_ARCHITECTURES_MAPPING.get(name.lower())
    if model_class is None:
        known = ", ".join(kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values())
        raise IncompatibleCheckpoint(f"{where}: `_model_class` is '{name}', expected one of {known}.")
    with building(f"{where}: segmentation-models-pytorch {smp.__version__} cannot build this {name}"):
        return model_class(**{**settings, "encoder_weights": None})


def load_network(path: str | Path, role: str, device: torch.device | str = "cpu") -> ImageNetwork:
    """Load a network folder (or a file in it) for `role` "parts", "normals" or "landmarks".

    Raises `MissingModelFile` when a file is absent, `IncompatibleCheckpoint` when the network has another role, lacks
    classes or has other channels or weights than its config says, `InvalidInput` for damaged files.
    """
    check_role("load_network", role)
    folder = Path(path)
    folder = folder.parent if folder.is_file() else folder
    where = f"load_network: '{folder}'"
    description = _read_json(folder / NETWORK_FILE, role)
    found_role = description.get("role")
    if found_role != role:
        raise IncompatibleCheckpoint(
            f"{where} is a network for '{found_role}', expected one for '{role}': choose another folder, or correct "
            f"`role` in its {NETWORK_FILE}."
        )
    names = _channel_names(where, role, description)
    with torch.inference_mode(False):
        config = _read_json(folder / CONFIG_FILE, role)
        tensors, _ = read_safetensors(_existing(folder / WEIGHTS_FILE, role), "load_network")
        _check_sizes(where, config, tensors)
        with at_most_parameters(where, len(tensors)):
            model = build_model(config, where)
        check_weights(where, model, tensors)
        # What is saved in float16 is computed in the model's own type.
        model.load_state_dict({name: tensors[name].to(value.dtype) for name, value in model.state_dict().items()})
        unshuffle = _pixel_unshuffle(where, description)
        sees_normals = _sees_normals(where, role, description)
        of_pixel = COLOR_CHANNELS + SURFACE_CHANNELS * sees_normals
        _check_output(where, role, model, len(names), unshuffle, of_pixel)
        mean = _three_numbers(where, "mean", description.get("mean", IMAGENET_MEAN))
        std = _three_numbers(where, "std", description.get("std", IMAGENET_STD))
        model = model.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
    classes = PART_CLASSES if role == "parts" else ()
    positions = tuple(classes.index(name) for name in names) if role == "parts" else tuple(range(len(names)))
    return ImageNetwork(
        role, model, classes, positions, _size(where, description), mean.to(device), std.to(device),
        torch.device(device), unshuffle, sees_normals, _looks_closely(where, role, description),
    )  # fmt: skip


def _check_sizes(where: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a config that asks for other sizes than the weights have, before the model takes memory of that size."""
    try:
        with at_most_parameters(where, len(tensors)), torch.device("meta"):
            skeleton = build_model(config, where)
    except IncompatibleCheckpoint as error:
        if "meta tensor" not in str(error.__cause__):
            raise
        return  # a few encoders read numbers while they are built, which stand nowhere yet
    check_weights(where, skeleton, tensors)


def save_network(
    folder: str | Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write a network folder: weights in half precision, `config` and `description` as the module's docstring says."""
    folder = Path(folder)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    write_safetensors(folder / WEIGHTS_FILE, halves, {"format": "pt"})
    write_json(folder / CONFIG_FILE, dict(config))
    write_json(folder / NETWORK_FILE, dict(description))


def _existing(file: Path, role: str) -> Path:
    if not file.is_file():
        raise MissingModelFile(f"load_network: '{file}' does not exist; it is part of the network for {role}. {_HINT}")
    return file


def _read_json(file: Path, role: str) -> dict[str, Any]:
    """A JSON object; `MissingModelFile` or `InvalidInput`."""
    try:
        value = json_of_file(require_file("load_network", _existing(file, role)))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"load_network: '{file}' is not readable JSON ({error}). {_HINT}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"load_network: '{file}' holds a {type(value).__name__}, expected an object. {_HINT}")
    return value


def _channel_names(where: str, role: str, description: Mapping[str, Any]) -> tuple[str, ...]:
    """The meaning of each output channel."""
    if role == "normals":
        return ("x", "y", "z")
    if role == "landmarks":
        return tuple(str(index) for index in range(NUM_FACE_LANDMARKS))
    names = description.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(
            f"{where}: `classes` in {NETWORK_FILE} is {names!r}, expected a list with the name of each channel: "
            f"{', '.join(PART_CLASSES)}."
        )
    check_classes(where, tuple(names))
    return tuple(names)


def _check_output(where: str, role: str, model: nn.Module, channels: int, unshuffle: int, of_pixel: int) -> None:
    """Run the model on an empty picture: the number of channels that counts is the one it answers."""
    inputs = of_pixel * unshuffle**2
    model.eval()
    try:
        with torch.no_grad():
            output = model(torch.zeros(1, inputs, 64, 64))
    except RuntimeError as error:
        raise IncompatibleCheckpoint(
            f"{where}: the model fails on a picture of {inputs} channels and 64 x 64 pixels ({error}); expected "
            f"`in_channels` {inputs}: {of_pixel} x the square of `pixel_unshuffle` in {NETWORK_FILE}."
        ) from error
    maps, logits = output if isinstance(output, tuple) else (output, None)
    if maps.shape[1] not in (channels, channels * unshuffle**2):
        meaning = f"`classes` in {NETWORK_FILE} names {channels}" if role == "parts" else f"{role} need {channels}"
        raise IncompatibleCheckpoint(f"{where}: the model answers {maps.shape[1]} channels, but {meaning}.")
    if role == "landmarks" and (logits is None or logits.shape[1] != 1 + NUM_FACE_LANDMARKS):
        found = "no logits" if logits is None else f"{logits.shape[1]} logits"
        raise IncompatibleCheckpoint(
            f"{where}: the model answers {found} beside its heatmaps, expected {1 + NUM_FACE_LANDMARKS}: one for a "
            "face, one per landmark that is visible (`aux_params` in config.json)."
        )


def _sees_normals(where: str, role: str, description: Mapping[str, Any]) -> bool:
    inputs = description.get("inputs", list(COLORS_ALONE))
    known = [list(COLORS_ALONE)] if role == "normals" else [list(COLORS_ALONE), list(COLORS_AND_NORMALS)]
    if inputs not in known:
        choices = " or ".join(str(choice) for choice in known)
        raise InvalidInput(f"{where}: `inputs` in {NETWORK_FILE} is {inputs!r}, expected {choices} for {role}.")
    return inputs == list(COLORS_AND_NORMALS)


def _looks_closely(where: str, role: str, description: Mapping[str, Any]) -> bool:
    value = description.get("close_looks", False)
    if not isinstance(value, bool) or (value and role != "landmarks"):
        expected = "true or false" if role == "landmarks" else f"none for {role}"
        raise InvalidInput(f"{where}: `close_looks` in {NETWORK_FILE} is {value!r}, expected {expected}.")
    return value


def _three_numbers(where: str, name: str, values: Sequence[float]) -> Tensor:
    fine = isinstance(values, (list, tuple)) and len(values) == 3
    if not fine or not all(isinstance(value, (int, float)) for value in values) or (name == "std" and min(values) <= 0):
        raise InvalidInput(f"{where}: `{name}` in {NETWORK_FILE} is {values!r}, expected three numbers per colour.")
    return torch.tensor(values, dtype=torch.float32)


def _size(where: str, description: Mapping[str, Any]) -> int:
    size = description.get("size", DEFAULT_SIZE)
    if not isinstance(size, int) or isinstance(size, bool) or not 64 <= size <= 2048:
        raise InvalidInput(f"{where}: `size` in {NETWORK_FILE} is {size!r}, expected 64 to 2048 pixels.")
    return size


def _pixel_unshuffle(where: str, description: Mapping[str, Any]) -> int:
    factor = description.get("pixel_unshuffle", 1)
    if not isinstance(factor, int) or isinstance(factor, bool) or not 1 <= factor <= 8:
        raise InvalidInput(f"{where}: `pixel_unshuffle` in {NETWORK_FILE} is {factor!r}, expected 1 to 8.")
    return factor
