"""The part of Portrait3D's `model_512.pkl` that rendering needs: decoder, ToRGB, background network, constants.

The official file is a pickle of whole networks, with Python source that upstream's loader executes. Here every object
of it is an inert record, and the weights are collected by walking `_modules`, `_parameters` and `_buffers`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import IncompatibleCheckpoint, InvalidInput
from ...files import parse_json, read_safetensors, write_safetensors
from ...pickles import Record
from ...torch_checkpoints import StoredTensor, materialize, read_stored
from .background import PREFIX as BACKGROUND_PREFIX
from .data import LEVELS, PLANES, Decoder, ToRgb
from .settings import FieldSettings, settings_from

GENERATOR_FORMAT = "animportrait3d-trigrid-generator"
GENERATOR_HINT = (
    "Expected Portrait3D's model_512.pkl (see github.com/oneThousand1000/Portrait3D; non-commercial licence of "
    "NVIDIA's EG3D), or our safetensors copy of it. Without it the embedded portraits work."
)
KEPT_PREFIXES = ("decoder.", "torgb.", BACKGROUND_PREFIX)
_WHERE = "read_generator"
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
_RENDERING_FIELDS = {  # name in the pickle -> the value that the renderer implements
    "decoder_activation": "none",
    "disparity_space_sampling": False,
    "clamp_mode": "softplus",
    "use_torgb_raw": True,
    "use_background": True,
    "decoder_lr_mul": 1,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """Weights shared by all portraits of one model.

    tensors: state dict by upstream's names, with the prefixes 'decoder.', 'torgb.' and 'bcg_synthesis.' only.
    depth: slices D of a trigrid.  finest: resolution of the last level of its portraits, None if the file tells none.
    """

    tensors: Mapping[str, Tensor]
    field: FieldSettings = FieldSettings()
    depth: int = PLANES
    finest: int | None = None

    @property
    def decoder(self) -> Decoder:
        names = ("net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias")
        return Decoder(*(_required(self.tensors, "decoder." + name) for name in names))

    @property
    def to_rgb(self) -> ToRgb:
        weight = _required(self.tensors, "torgb.weight")
        return ToRgb(
            _required(self.tensors, "torgb.affine.weight"),
            _required(self.tensors, "torgb.affine.bias"),
            weight[:, :, 0, 0] if weight.shape[2:] == (1, 1) else weight,
            _required(self.tensors, "torgb.bias"),
        )

    @property
    def background_weights(self) -> dict[str, Tensor]:
        """State dict of the background network without its prefix; empty if the file has none."""
        start = len(BACKGROUND_PREFIX)
        return {name[start:]: value for name, value in self.tensors.items() if name.startswith(BACKGROUND_PREFIX)}


def _required(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise IncompatibleCheckpoint(f"{_WHERE}: '{name}' is missing among {len(tensors)} tensors. {GENERATOR_HINT}")
    return tensors[name].float()


def read_generator(path: str | Path) -> Generator:
    """The generator of `model_512.pkl` (or another pickle of that structure), or of a copy by `save_generator`.

    Nothing in the file runs. Raises `MissingModelFile`, `InvalidInput` or `IncompatibleCheckpoint`.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path, _WHERE)
        if metadata.get("format") != GENERATOR_FORMAT:
            raise IncompatibleCheckpoint(f"{_WHERE}: '{path}' is a {metadata.get('format')} file. {GENERATOR_HINT}")
        return _from_copy(path, tensors, metadata)
    return _from_pickle(path)


def _from_copy(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Generator:
    try:
        field = settings_from(FieldSettings, dict(parse_json(metadata["field"])))
        finest = int(metadata["finest"]) if "finest" in metadata else None
        return Generator(tensors, field, int(metadata["depth"]), finest)
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidInput(f"{_WHERE}: '{path}' has damaged metadata ({error}); convert the pickle again.") from error


def save_generator(generator: Generator, path: str | Path) -> None:
    """Write a generator as one safetensors file, 0.1 GB instead of the pickle's gigabytes."""
    metadata = {
        "format": GENERATOR_FORMAT,
        "depth": str(generator.depth),
        "field": json.dumps(dataclasses.asdict(generator.field)),
    }
    if generator.finest is not None:
        metadata["finest"] = str(generator.finest)
    write_safetensors(path, generator.tensors, metadata)


def _from_pickle(path: Path) -> Generator:
    contents = read_stored(path, others=_inert, hint=GENERATOR_HINT)
    networks = contents if isinstance(contents, dict) else {}
    if not isinstance(networks.get("G_ema"), Record):
        found = ", ".join(map(str, networks)) or type(contents).__name__
        raise IncompatibleCheckpoint(f"{_WHERE}: '{path}' holds {found}, expected a network 'G_ema'. {GENERATOR_HINT}")
    state = _state(networks["G_ema"])
    tensors = dict(_walk(networks["G_ema"], ""))
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(KEPT_PREFIXES)}
    if not kept:
        raise IncompatibleCheckpoint(
            f"{_WHERE}: the network in '{path}' has {len(tensors)} tensors, none of {', '.join(KEPT_PREFIXES)}. "
            f"{GENERATOR_HINT}"
        )
    return Generator(materialize(kept, str(path)), *_rendering(state, path))


def _inert(record: Record) -> Record:
    """Objects of the pickle stay descriptions of objects."""
    return record


def _state(record: Record) -> dict[str, Any]:
    """Attributes of a module: of upstream's persistent classes the 'state' of their only argument, else its own."""
    if record.name.endswith("_reconstruct_persistent_obj") and record.arguments:
        meta = _mapping(record.arguments[0])
        return _mapping(meta.get("state"))
    return _mapping(record.state)


def _mapping(value: Any) -> dict[str, Any]:
    """A dictionary, or what a record of one (EasyDict, say) would hold."""
    if isinstance(value, Record):
        pairs = [item for item in value.items if isinstance(item, tuple) and len(item) == 2]
        return {**dict(pairs), **(value.state if isinstance(value.state, dict) else {})}
    return value if isinstance(value, dict) else {}


def _walk(module: Record, prefix: str) -> Iterator[tuple[str, StoredTensor]]:
    """(name, tensor) of all parameters and buffers, named as `state_dict` names them."""
    state = _state(module)
    for part in _MODULE_PARTS:
        for name, value in _mapping(state.get(part)).items():
            if isinstance(value, StoredTensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, Record) and part == "_modules":
                yield from _walk(value, f"{prefix}{name}.")


def _rendering(state: Mapping[str, Any], path: Path) -> tuple[FieldSettings, int, int | None]:
    """Field, slices and finest level by the network's `rendering_kwargs`; what only the driver sets keeps defaults."""
    found = _mapping(state.get("rendering_kwargs"))
    if not found:
        found = _mapping(_mapping(state.get("_init_kwargs")).get("rendering_kwargs"))
    for name, wanted in _RENDERING_FIELDS.items():
        if name in found and found[name] != wanted:
            raise IncompatibleCheckpoint(
                f"{_WHERE}: '{path}' renders with {name} = {found[name]!r}, expected {wanted!r}: another model."
            )
    depth, box_warp = found.get("triplane_depth", PLANES), found.get("box_warp", FieldSettings.box_warp)
    if not isinstance(depth, int) or not isinstance(box_warp, (int, float)):
        raise InvalidInput(f"{_WHERE}: '{path}' has triplane_depth {depth!r}, box_warp {box_warp!r}, expected numbers.")
    # The pyramid of Portrait3D ends at the resolution of its pictures.
    finest = found.get("image_resolution")
    if finest is not None and finest not in LEVELS:
        raise IncompatibleCheckpoint(
            f"{_WHERE}: '{path}' makes pictures of {finest!r} pixels, expected one of {', '.join(map(str, LEVELS))}."
        )
    return FieldSettings(box_warp=float(box_warp)), depth, finest
