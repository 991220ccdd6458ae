"""Trigrid portraits as files: Portrait3D's `{id}.pth`, and our own safetensors layout with all that rendering needs.

Our layout: tensors `trigrids.<r>` [3, C, D, r, r], `decoder.net.{0,2}.{weight,bias}`, `torgb.affine.{weight,bias}`,
`torgb.weight` [3, 32], `torgb.bias`, `ws` [14, 512], `background_features` [32, 128, 128], or [32, 1, 1] if constant.
Metadata: `format`, `schema_version`, `levels` (so that a missing one is noticed), `field` and `rendering` (JSON) and
`prompt`. Grids and background are float16 or float32, the rest is float32.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput, ShapeMismatch
from ...files import parse_json, read_safetensors, write_safetensors
from ...torch_checkpoints import read_torch_checkpoint
from .background import synthesize_background
from .data import (
    BACKGROUND_SIZE,
    FEATURES,
    LEVELS,
    NUM_WS,
    PLANES,
    SCHEMA_VERSION,
    W_DIM,
    Decoder,
    ToRgb,
)
from .generator import GENERATOR_HINT, Generator
from .portrait import TrigridPortrait
from .settings import FieldSettings, TrigridRenderSettings, settings_from

PORTRAIT_FORMAT = "animportrait3d-trigrid"
PORTRAIT_HINT = (
    "Expected a Portrait3D result {id}.pth with trigrids_8 to trigrids_512 and ws (made with "
    "github.com/oneThousand1000/Portrait3D, under the licence given there), or a .safetensors portrait of ours. "
    "Without such files the embedded portraits work."
)
# What other files hold, by the beginning of a tensor's name: what they are, and who reads them.
_FOREIGN = {
    "model.diffusion_model.": "a Stable Diffusion checkpoint (models/checkpoints, node Load Guidance)",
    "control_model.": "a ControlNet (models/controlnet, node Load Guidance)",
    "controlnet_": "a ControlNet (models/controlnet, node Load Guidance)",
    "input_hint_block.": "a ControlNet (models/controlnet, node Load Guidance)",
    "lora_": "a LoRA (models/loras, node Load Guidance)",
    "first_stage_model.": "a VAE (models/vae, node Load Guidance)",
    "encoder.conv_in": "a VAE (models/vae, node Load Guidance)",
    "binding": "an avatar (node Load Avatar)",
    "shapedirs": "a body model (models/smplx, node Load SMPL-X Body)",
    "backbone.synthesis.": "the generator itself, which belongs into `generator`",
    "decoder.net.": "a generator without a portrait, which belongs into `generator`",
}
MAX_FLOAT16 = 65504.0
_WHERE = "load_trigrid_portrait"
_DECODER_NAMES = ("decoder.net.0.weight", "decoder.net.0.bias", "decoder.net.2.weight", "decoder.net.2.bias")
_TO_RGB_NAMES = ("torgb.affine.weight", "torgb.affine.bias", "torgb.weight", "torgb.bias")


def load_trigrid_portrait(path: str | Path, generator: Generator | None = None, prompt: str = "") -> TrigridPortrait:
    """A portrait from `{id}.pth` (needs the model's `generator`, see `read_generator`) or from our safetensors.

    Nothing in a `.pth` runs. Its levels must be 8, 16, ... to the finest that the generator names, or without gaps to
    its own finest. It may carry generator weights of its own, by the names of the checkpoint, instead of `generator`.
    prompt: words in place of the file's own, which stand in its metadata or verbatim in `{id}.txt` beside it.

    Raises `MissingModelFile`, `InvalidInput` (damaged, NaN, unknown or missing levels), `ShapeMismatch`, or
    `IncompatibleCheckpoint` (code in the file, a decoder of another width, no generator).
    """
    path = Path(path)
    try:
        portrait = _from_safetensors(path) if carries_decoder(path) else _from_checkpoint(path, generator)
        return dataclasses.replace(portrait, prompt=prompt or portrait.prompt or prompt_beside(path))
    except AnimPortraitError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{_WHERE}: '{path}': {error}") from error


def carries_decoder(path: str | Path) -> bool:
    """Whether a portrait's file holds all that rendering needs, and no generator is read for it."""
    return Path(path).suffix.lower() == ".safetensors"


def prompt_beside(path: str | Path) -> str:
    """The text of `{id}.txt` beside a portrait's file, verbatim; empty if there is none."""
    text = Path(path).with_suffix(".txt")
    if not text.is_file():
        return ""
    try:
        return text.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"'{text}' cannot be read as UTF-8 text ({error}); it should hold the prompt.") from error


def save_trigrid_portrait(portrait: TrigridPortrait, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write our safetensors layout; grids and background in float16 (levels to 128: 5 MB) or float32 (lossless)."""
    if dtype not in (torch.float16, torch.float32):
        raise InvalidInput(f"save_trigrid_portrait: type {dtype}, expected torch.float16 or torch.float32.")
    background = portrait.background_features
    if bool((background == background[:, :1, :1]).all()):
        background = background[:, :1, :1]
    stored = {f"trigrids.{resolution}": grid for resolution, grid in portrait.levels.items()}
    stored["background_features"] = background
    for name, tensor in stored.items():
        if dtype == torch.float16 and float(tensor.abs().max()) > MAX_FLOAT16:
            raise InvalidInput(
                f"save_trigrid_portrait: `{name}` reaches {float(tensor.abs().max()):.3g}, more than float16 holds "
                f"({MAX_FLOAT16:.0f}); save it with dtype=torch.float32."
            )
    tensors = {name: tensor.to(dtype) for name, tensor in stored.items()}
    decoder, to_rgb = portrait.decoder, portrait.to_rgb
    tensors.update({name: getattr(decoder, field.name).float() for name, field in _pairs(_DECODER_NAMES, decoder)})
    tensors.update({name: getattr(to_rgb, field.name).float() for name, field in _pairs(_TO_RGB_NAMES, to_rgb)})
    tensors["ws"] = portrait.ws.float()
    metadata = {
        "format": PORTRAIT_FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "levels": json.dumps(sorted(portrait.levels)),
        "field": json.dumps(dataclasses.asdict(portrait.field)),
        "rendering": json.dumps(dataclasses.asdict(portrait.rendering)),
        "prompt": portrait.prompt,
    }
    write_safetensors(path, tensors, metadata)


def _level_names() -> list[str]:
    return [f"trigrids.{resolution}" for resolution in LEVELS]


def _pairs(names: tuple[str, ...], value: Any) -> list[tuple[str, dataclasses.Field[Any]]]:
    return list(zip(names, dataclasses.fields(value)))


def _from_safetensors(path: Path) -> TrigridPortrait:
    tensors, metadata = read_safetensors(path, _WHERE)
    if metadata.get("format") != PORTRAIT_FORMAT:
        raise IncompatibleCheckpoint(_foreign(tensors, metadata.get("format", "")))
    if metadata.get("schema_version") != str(SCHEMA_VERSION):
        raise IncompatibleCheckpoint(
            f"has schema version {metadata.get('schema_version')}, this program reads {SCHEMA_VERSION}; update it."
        )
    listed = _parsed(metadata, "levels", list)
    levels = {
        resolution: tensors[f"trigrids.{resolution}"] for resolution in LEVELS if f"trigrids.{resolution}" in tensors
    }
    unknown = [name for name in tensors if name.startswith("trigrids.") and name not in _level_names()]
    if sorted(levels) != listed or unknown:
        raise InvalidInput(f"has the levels {[*levels, *unknown]}, its own list says {listed}; the file is damaged.")
    missing = {*_DECODER_NAMES, *_TO_RGB_NAMES, "ws", "background_features"} - set(tensors)
    if missing:
        raise InvalidInput(f"lacks {', '.join(sorted(missing))}; the file is damaged.")
    size = BACKGROUND_SIZE
    background = tensors["background_features"]
    if background.shape == (FEATURES, 1, 1):
        background = background.expand(FEATURES, size, size).contiguous()
    return TrigridPortrait(
        levels,
        Decoder(*(tensors[name] for name in _DECODER_NAMES)),
        ToRgb(*(tensors[name] for name in _TO_RGB_NAMES)),
        tensors["ws"],
        background.float(),
        settings_from(FieldSettings, _parsed(metadata, "field", dict)),
        settings_from(TrigridRenderSettings, _parsed(metadata, "rendering", dict)),
        metadata.get("prompt", ""),
    )


def _foreign(tensors: Mapping[str, Tensor], file_format: str = "") -> str:
    """What a file is that holds no portrait, as far as its format and the names in it tell."""
    names = sorted(tensors)
    if any(name in tensors for name in _level_names()):
        return f"is a '{file_format or 'foreign'}' safetensors file. {PORTRAIT_HINT}"
    known = next((kind for begin, kind in _FOREIGN.items() if any(name.startswith(begin) for name in names)), None)
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "none"
    kind = f"is {known}, not a portrait" if known else "is no portrait"
    return (
        f"{kind}: it holds no trigrids among its {len(names)} tensors ({shown}). Expected a static portrait with "
        "trigrids and its code `ws`; the embedded portraits need no file."
    )


def _parsed(metadata: Mapping[str, str], name: str, kind: type) -> Any:
    try:
        value = parse_json(metadata.get(name, ""))
    except ValueError as error:
        raise InvalidInput(f"has no readable '{name}' in its metadata ({error}); the file is damaged.") from error
    if not isinstance(value, kind):
        raise InvalidInput(f"has a {type(value).__name__} as '{name}' in its metadata, expected a {kind.__name__}.")
    return value


def _from_checkpoint(path: Path, generator: Generator | None) -> TrigridPortrait:
    contents = read_torch_checkpoint(path, hint=PORTRAIT_HINT)
    model = contents.get("model", contents) if isinstance(contents, dict) else None
    if not isinstance(model, dict):
        raise IncompatibleCheckpoint(f"holds a {type(contents).__name__}, expected a dictionary. {PORTRAIT_HINT}")
    tensors = {str(name): value for name, value in model.items() if isinstance(value, Tensor)}
    if not any(name.startswith("trigrids_") for name in tensors):
        raise IncompatibleCheckpoint(_foreign(tensors))
    own = {name: value for name, value in tensors.items() if name in (*_DECODER_NAMES, *_TO_RGB_NAMES)}
    if own:
        base = generator or Generator({})
        generator = dataclasses.replace(base, tensors={**base.tensors, **own})
    if generator is None:
        raise IncompatibleCheckpoint(
            f"has no decoder in it, as usual for Portrait3D; give the generator too. {GENERATOR_HINT}"
        )
    levels = _named_levels(tensors, generator.depth)
    _check_pyramid(levels, generator.finest)
    ws = _code(tensors)
    background = tensors.get("background_features")
    if background is None:
        if not generator.background_weights:
            raise IncompatibleCheckpoint("has no background, and the generator no background network (bcg_synthesis).")
        background = synthesize_background(generator.background_weights, ws)
    return TrigridPortrait(levels, generator.decoder, generator.to_rgb, ws, background.float(), field=generator.field)


def _check_pyramid(levels: Mapping[int, Tensor], finest: int | None) -> None:
    """A feature is the mean over all levels of the model, so one too few or too many changes every colour."""
    wanted = [level for level in LEVELS if level <= (finest or max(levels))]
    missing = [f"trigrids_{level}" for level in wanted if level not in levels]
    extra = [f"trigrids_{level}" for level in sorted(levels) if level not in wanted]
    if missing or extra:
        found = f"{', '.join(missing)} missing" if missing else f"{', '.join(extra)} too many"
        raise InvalidInput(
            f"has the levels {sorted(levels)}, expected {wanted}: {found}; the file is incomplete or of another model."
        )


def _named_levels(tensors: Mapping[str, Tensor], depth: int) -> dict[int, Tensor]:
    """Levels [3, C, D, r, r] from `trigrids_<r>` stored as [1, 3, C D, r, r] or [3, C D, r, r]; channel = c D + d."""
    levels = {}
    for name, grid in tensors.items():
        resolution = name.removeprefix("trigrids_")
        if not name.startswith("trigrids_"):
            continue
        if not resolution.isdigit() or int(resolution) not in LEVELS:
            raise InvalidInput(f"has an unknown level '{name}', expected trigrids_<r> with r one of {LEVELS}.")
        size = int(resolution)
        flat = grid[0] if grid.ndim == 5 and len(grid) == 1 else grid
        if flat.ndim != 4 or flat.shape[0] != PLANES or flat.shape[2:] != (size, size) or flat.shape[1] % depth:
            raise ShapeMismatch(
                f"`{name}` has shape {list(grid.shape)}, expected [1, {PLANES}, C x {depth}, {size}, {size}] "
                f"or [{PLANES}, C x {depth}, {size}, {size}]."
            )
        stored = flat if flat.dtype in (torch.float16, torch.float32) else flat.float()
        levels[size] = stored.reshape(PLANES, -1, depth, size, size)
    return levels


def _code(tensors: Mapping[str, Tensor]) -> Tensor:
    ws = tensors.get("ws")
    if ws is None:
        raise InvalidInput(f"has no `ws` among {', '.join(sorted(tensors))}. {PORTRAIT_HINT}")
    if math.prod(ws.shape) != NUM_WS * W_DIM or ws.shape[-1] != W_DIM:
        raise ShapeMismatch(f"`ws` has shape {list(ws.shape)}, expected [1, {NUM_WS}, {W_DIM}].")
    return ws.float().reshape(NUM_WS, W_DIM)
