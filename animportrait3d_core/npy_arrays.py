"""Arrays of .npy files, those of objects too, without running anything in them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import InvalidInput
from .pickles import Builder, restricted_unpickle

NPY_MAGIC = b"\x93NUMPY"


def array_of_npy(data: bytes, builders: Mapping[str, Builder], name: str) -> Any:
    """The array of the bytes of a .npy file; a single object, as `numpy.save` stores a dictionary, is given itself.

    builders: see `restricted_unpickle`, through which arrays of objects go.  name: the file's, for messages.

    Raises `InvalidInput` or `ValueError` for damaged files and what `restricted_unpickle` raises.
    """
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise InvalidInput(f"its array '{name}' has format version {version}, expected 1.0 or 2.0.")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(stream)
    if not dtype.hasobject:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    value = restricted_unpickle(data[stream.tell() :], builders, name)
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
