"""Arrays of .npy files, those of objects too, without running anything in them."""

from __future__ import annotations

import io
import tokenize
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from .archives import member_size, read_member
from .errors import InvalidInput
from .pickles import Builder, array_from_bytes, restricted_unpickle

NPY_MAGIC = b"\x93NUMPY"


def array_of_npy(data: bytes, builders: Mapping[str, Builder], name: str) -> Any:
    """The array of the bytes of a .npy file; a single object, as `numpy.save` stores a dictionary, is given itself.

    builders: see `restricted_unpickle`, through which arrays of objects go.  name: the file's, for messages.

    Raises `InvalidInput` for damaged files and what `restricted_unpickle` raises.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise InvalidInput(f"its array '{name}' has format version {version}, expected 1.0 or 2.0.")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Python 2 wrote it, which numpy mends
            shape, fortran_order, dtype = read_header(stream)
    # NumPy reads headers as Python, which fails in as many ways as Python.
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError, TypeError) as error:
        raise InvalidInput(f"holds a damaged array '{name}' ({error}).") from error
    if not dtype.hasobject:
        return array_from_bytes(data[stream.tell() :], dtype, shape, fortran_order)
    value = restricted_unpickle(data[stream.tell() :], builders, name)
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def arrays_of_npz(archive: zipfile.ZipFile, builders: Mapping[str, Builder], most: int) -> dict[str, Any]:
    """The arrays of an open .npz by name, empty if there are none; they may have `most` bytes in all when unpacked.

    Raises what `read_member` and `array_of_npy` raise, and `InvalidInput` where there is more.
    """
    members = [member for member in archive.namelist() if member.endswith(".npy")]
    total = sum(member_size(archive, member) for member in members)
    if total > most:
        raise InvalidInput(f"its arrays are over {most >> 20} MiB when unpacked: refused.")
    return {m.removesuffix(".npy"): array_of_npy(read_member(archive, m, total), builders, m) for m in members}
