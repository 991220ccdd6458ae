"""Arrays of numbers from .npy and .npz files, without running anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...archives import open_archive
from ...errors import AnimPortraitError, InvalidInput
from ...files import require_file
from ...npy_arrays import array_of_npy, arrays_of_npz
from ...pickles import NUMPY_BUILDERS

MOST_BYTES = 1 << 29
"""Of a motion: an hour of 100 expressions at 100 frames per second has a quarter of it."""


def read_array(where: str, path: Path) -> Tensor:
    """The float32 array of a .npy file; a damaged one, or one of anything but numbers, is an `InvalidInput`."""
    data = _bytes_of(where, path)
    try:
        array = array_of_npy(data, NUMPY_BUILDERS, path.name)
    except AnimPortraitError as error:
        raise InvalidInput(f"{where}: '{path}': {error}") from error
    return number_tensor(where, str(path), array)


def read_arrays(where: str, path: Path) -> dict[str, Any]:
    """All arrays of a .npz file by name, unchecked: a tracker also saves pictures' names and sizes."""
    data = _bytes_of(where, path)
    try:
        with open_archive(data) as archive:
            return arrays_of_npz(archive, NUMPY_BUILDERS, MOST_BYTES)
    except AnimPortraitError as error:
        raise InvalidInput(f"{where}: '{path}': {error}") from error


def _bytes_of(where: str, path: Path) -> bytes:
    path = require_file(where, path)
    if path.stat().st_size > MOST_BYTES:
        raise InvalidInput(
            f"{where}: '{path}' has {path.stat().st_size >> 20} MiB, expected at most {MOST_BYTES >> 20}."
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{where}: cannot read '{path}' ({error.strerror}).") from error


def number_tensor(where: str, name: str, value: Any) -> Tensor:
    """A float32 tensor of an array of numbers; all must be finite."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.size == 0:
        found = (
            f"an array of {value.dtype} of shape {list(value.shape)}" if isinstance(value, np.ndarray) else "no array"
        )
        raise InvalidInput(f"{where}: `{name}` is {found}, expected numbers.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told of below
        tensor = torch.from_numpy(np.ascontiguousarray(value).astype(np.float32))
    rows = tensor.reshape(len(tensor) if tensor.ndim else 1, -1)
    bad = torch.nonzero(~torch.isfinite(rows).all(dim=1)).squeeze(1)
    if len(bad):
        raise InvalidInput(
            f"{where}: `{name}` is not finite in {len(bad)} of {len(rows)} frames, the first of them frame "
            f"{int(bad[0])}; cut them out or record again."
        )
    return tensor
