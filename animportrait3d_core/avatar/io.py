"""The avatar file, `avatar.safetensors`: everything needed to pose the avatar again, exactly.

Tensors: `means quats log_scales logit_opacities sh binding part_id` (relative to the triangles), `body.*` (rest pose),
`assets.*` (the body itself, with its personal offsets) or, where its licence forbids passing it on, `personal.*` (those
offsets alone, if there are any). Metadata: strings, see `save_avatar`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..body.model import BodyModel
from ..body.parameters import BodyParameters
from ..body.personal import PersonalOffsets
from ..errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput, MissingModelFile
from ..files import parse_json, read_safetensors, write_safetensors
from ..gaussians import Gaussians
from .model import SCHEMA_VERSION, RiggedAvatar

FORMAT = "animportrait3d.avatar"
GAUSSIAN_TENSORS = ("means", "quats", "log_scales", "logit_opacities", "sh")
_MOST_HEADER_BYTES = 1 << 24
_BODY_PREFIX, _ASSETS_PREFIX, _PERSONAL_PREFIX = "body.", "assets.", "personal."


def vertex_order(faces: Tensor) -> str:
    """SHA-256 of the body's faces [F, 3]: local coordinates depend on their order and on that of their corners."""
    return hashlib.sha256(faces.contiguous().cpu().to(torch.int64).numpy().tobytes()).hexdigest()


def is_avatar_file(path: Path) -> bool:
    """Whether a safetensors file says that it holds an avatar; only its header is read."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(size)) if size <= _MOST_HEADER_BYTES else {}
    except (OSError, ValueError):
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and metadata.get("format") == FORMAT


def save_avatar(avatar: RiggedAvatar, path: str | Path, graph: Mapping[str, str] | None = None) -> None:
    """Write the avatar as one safetensors file, in one piece.

    graph: further metadata: what it was made by, as ComfyUI's frontend looks for it (`workflow`: JSON).

    Metadata: format, schema_version, quaternion_order, vertex_order, body_name, body_fingerprint, base_fingerprint (of
    the body without its personal offsets, if it has some), prompt, versions and the avatar's own `metadata` (seeds,
    hashes), the last two as JSON. A body that may be passed on is stored with it.
    """
    avatar.gaussians.check_finite("save_avatar")
    tensors = {name: getattr(avatar.gaussians, name) for name in GAUSSIAN_TENSORS}
    tensors |= {"binding": avatar.binding, "part_id": avatar.part_id}
    tensors |= {_BODY_PREFIX + name: value for name, value in avatar.parameters.to_tensors().items()}
    metadata = {
        "format": FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "quaternion_order": avatar.quaternion_order,
        "vertex_order": vertex_order(avatar.body.faces),
        "body_name": avatar.body.assets.name,
        "body_fingerprint": avatar.body.fingerprint,
        "prompt": avatar.prompt,
        "versions": json.dumps({"torch": torch.__version__}),
        "metadata": json.dumps(dict(avatar.metadata), sort_keys=True),
    }
    metadata |= {name: text for name, text in (graph or {}).items() if name not in metadata}
    base, personal = avatar.body.base_fingerprint, avatar.body.personal
    metadata |= {"base_fingerprint": base} if base is not None else {}
    if personal is not None and not avatar.body.redistributable:
        tensors |= {_PERSONAL_PREFIX + name: value for name, value in personal.to_tensors().items()}
    if avatar.body.redistributable:
        body_tensors, body_metadata = avatar.body.to_tensors()
        tensors |= {_ASSETS_PREFIX + name: value for name, value in body_tensors.items()}
        metadata |= body_metadata
    # safetensors refuses tensors that share memory (a body's own fields may).
    write_safetensors(path, {name: value.detach().cpu().clone() for name, value in tensors.items()}, metadata)


def load_avatar(path: str | Path, body: BodyModel | None = None) -> RiggedAvatar:
    """Read an avatar file; the inverse of `save_avatar`, to the last bit.

    body: needed for avatars of licensed bodies, whose files do not contain the body; must be the very one.
    Raises InvalidInput (damaged), IncompatibleCheckpoint (another format, version or body), MissingModelFile (no body).
    """
    where = f"load_avatar: '{path}'"
    tensors, metadata = read_safetensors(path, "load_avatar")
    _check_format(where, tensors, metadata)
    try:
        body = _body(where, tensors, metadata, body)
        parameters = BodyParameters.from_tensors(_without_prefix(tensors, _BODY_PREFIX))
        gaussians = Gaussians(**{name: tensors[name] for name in GAUSSIAN_TENSORS})
        gaussians.check_finite("load_avatar")
        return RiggedAvatar(
            gaussians=gaussians,
            binding=tensors["binding"],
            part_id=tensors["part_id"],
            body=body,
            parameters=parameters,
            prompt=metadata.get("prompt", ""),
            quaternion_order=metadata["quaternion_order"],  # type: ignore[arg-type]  # checked by RiggedAvatar
            metadata=_json_strings(where, metadata.get("metadata", "{}")),
        )
    except (MissingModelFile, IncompatibleCheckpoint):
        raise
    except AnimPortraitError as error:
        raise InvalidInput(f"{where} holds an avatar that cannot be used: {error}") from error


def _check_format(where: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    found = metadata.get("format", "no format")
    if found != FORMAT:
        raise IncompatibleCheckpoint(f"{where} is a safetensors file of '{found}', expected '{FORMAT}'.")
    version = metadata.get("schema_version", "none")
    if version != str(SCHEMA_VERSION):
        raise IncompatibleCheckpoint(
            f"{where} has schema version {version}, expected {SCHEMA_VERSION}; use the pack's version that wrote it."
        )
    wanted = (*GAUSSIAN_TENSORS, "binding", "part_id")
    missing = [name for name in wanted if name not in tensors]
    missing += [name for name in ("quaternion_order", "vertex_order", "body_fingerprint") if name not in metadata]
    if missing:
        raise InvalidInput(f"{where} lacks {missing}; the file is damaged or was edited.")


def _body(where: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], body: BodyModel | None) -> BodyModel:
    """The given body if it is the avatar's, else the one in the file."""
    name, wanted = metadata.get("body_name", "unknown"), metadata["body_fingerprint"]
    stored = _without_prefix(tensors, _ASSETS_PREFIX)
    if body is None and not stored:
        raise MissingModelFile(
            f"{where} is rigged to the licensed body '{name}', which the file may not contain: load that body "
            "(node Load SMPL-X) and pass it as `body` (`--body FILE`)."
        )
    base = metadata.get("base_fingerprint")
    if body is None or (stored and body.fingerprint == base):
        body = BodyModel.from_tensors(stored, metadata)
    elif base is not None and body.fingerprint == base:
        body = body.personalized(PersonalOffsets.from_tensors(_without_prefix(tensors, _PERSONAL_PREFIX), base))
    if vertex_order(body.faces) != metadata["vertex_order"] or body.fingerprint != wanted:
        raise IncompatibleCheckpoint(
            f"{where} is rigged to the body '{name}' ({wanted[:12]}), but got '{body.assets.name}' "
            f"({body.fingerprint[:12]}); pass the body, and the body assets, that the avatar was made with"
            f"{', or none: the file holds its own' if stored else ''}."
        )
    return body


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _json_strings(where: str, text: str) -> dict[str, str]:
    try:
        value: Any = parse_json(text)
    except ValueError as error:
        raise InvalidInput(f"{where}: its metadata is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: its metadata is {type(value).__name__}, expected an object.")
    return {str(name): str(entry) for name, entry in value.items()}
