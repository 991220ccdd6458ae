"""The project's own motion file, safetensors: every parameter of every frame, exactly."""

from __future__ import annotations

import json
from pathlib import Path

from ...body.model import BodyModel
from ...body.parameters import BodyParameters
from ...errors import IncompatibleCheckpoint, InvalidInput
from ...files import parse_json, read_safetensors, write_safetensors
from ..motion import SCHEMA_VERSION, Motion
from .pose_track import expression_basis

MOTION_FORMAT = "animportrait3d.motion"


def save_motion(motion: Motion, body: BodyModel, path: str | Path) -> None:
    """Write a motion in one piece: parameters of `BodyParameters` by name, metadata `format schema_version fps names
    body_name basis`. Nothing of the body itself is in the file."""
    metadata = {
        "format": MOTION_FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "fps": repr(motion.fps),
        "names": json.dumps(list(motion.names)),
        "body_name": body.assets.name,
        "basis": expression_basis(body),
    }
    write_safetensors(path, motion.parameters.to_tensors(), metadata)


def load_motion(path: str | Path) -> tuple[Motion, str]:
    """The motion of a file, to the last bit, and the basis of its expressions; the inverse of `save_motion`.

    Raises `MissingModelFile`, `InvalidInput` (damaged, not finite) and `IncompatibleCheckpoint` (another format).
    """
    where = "load_motion"
    tensors, metadata = read_safetensors(path, where)
    if metadata.get("format") != MOTION_FORMAT or metadata.get("schema_version") != str(SCHEMA_VERSION):
        found = f"format '{metadata.get('format')}', version {metadata.get('schema_version')}"
        raise IncompatibleCheckpoint(
            f"{where}: '{path}' has {found[:200]}, expected '{MOTION_FORMAT}', version {SCHEMA_VERSION}; it is not a "
            "motion that Save Motion wrote."
        )
    try:
        names = parse_json(metadata.get("names", "[]"))
        fps = float(metadata["fps"])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidInput(f"{where}: '{path}': its names are no list of texts.")
        motion = Motion(BodyParameters.from_tensors(tensors), fps, tuple(names))
    except (ValueError, KeyError, RuntimeError) as error:
        raise InvalidInput(f"{where}: '{path}' has damaged metadata ({str(error)[:200]}).") from error
    return motion, metadata.get("basis", "smplx")
