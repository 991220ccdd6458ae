"""Reads what `torch.save` and plain pickles of torch objects hold, without running anything in them.

Four layouts are known by their first bytes: the zip archive of torch 1.6 and later, the older stream of pickles
followed by raw storages, a plain pickle whose storages are byte strings of the older stream, and a .npy file, whose
objects may be such a pickle. Tensors, those of a GPU too, are cut out of the raw storages as CPU tensors here; torch's
own unpickler is not used.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .archives import open_archive, read_member
from .errors import IncompatibleCheckpoint, InvalidInput
from .files import require_file
from .npy_arrays import NPY_MAGIC, array_of_npy
from .pickles import MAX_ELEMENTS, NUMPY_BUILDERS, Builder, Global, Record, restricted_unpickle

_WHERE = "read_torch_checkpoint"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PICKLES = 5  # magic number, protocol, system, contents, keys of the storages
_MAX_PICKLE_BYTES = 1 << 28
MAX_REPEATED = 1 << 24
"""Elements of a tensor that repeats the few numbers of its storage (a plain background does)."""

MAX_STEP = 1 << 62
"""From one element of a tensor to the next; torch takes no number that needs more than 64 bits."""

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclasses.dataclass
class Storage:
    """Raw numbers of a file: their type, how many, and (once it is known) how to read them."""

    dtype: torch.dtype
    count: int
    read: Callable[[], bytes] | None = None

    def values(self) -> Tensor:
        """The numbers [count], read from the file."""
        data = b"" if self.read is None else self.read()
        expected = self.count * self.dtype.itemsize
        if len(data) != expected:
            raise InvalidInput(f"a tensor's storage has {len(data)} bytes, expected {expected}: the file is cut short.")
        return torch.frombuffer(bytearray(data), dtype=self.dtype) if expected else torch.empty(0, dtype=self.dtype)


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file, not read yet: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor, with a memory of its own; `InvalidInput` if it reaches beyond its storage."""
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise InvalidInput(f"a tensor of shape {list(self.shape)} is refused, at most {MAX_ELEMENTS} elements.")
        if math.prod(self.shape) > max(self.storage.count, MAX_REPEATED):
            raise InvalidInput(f"a tensor of shape {list(self.shape)} is made of {self.storage.count} numbers.")
        if any(abs(step) > MAX_STEP for step in (*self.stride, self.offset)):
            raise InvalidInput(f"a tensor of shape {list(self.shape)} has steps beyond {MAX_STEP}.")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride))
        if math.prod(self.shape) and last >= self.storage.count:
            raise InvalidInput(f"a tensor of shape {list(self.shape)} reaches beyond its {self.storage.count} numbers.")
        values = self.storage.values()
        if not math.prod(self.shape):
            return values.new_empty(self.shape)
        return torch.as_strided(values, self.shape, self.stride, self.offset).clone()


def read_torch_checkpoint(path: str | Path, hint: str = "") -> Any:
    """Contents of a `.pth`, `.pt` or `.pkl` written by torch: dictionaries, lists, numbers, texts and CPU tensors.

    Nothing in the file runs. Names other than tensors, arrays and ordered dictionaries are refused.

    Raises `MissingModelFile`, `InvalidInput` (damaged, cut short) or `IncompatibleCheckpoint` (the file asks for code).
    """
    return materialize(read_stored(path, hint=hint), str(path))


def read_stored(path: str | Path, others: Builder | None = None, hint: str = "") -> Any:
    """As `read_torch_checkpoint`, with tensors left as `StoredTensor`; `others` makes values of unknown objects."""
    path = require_file(_WHERE, path, hint)
    try:
        data = path.read_bytes()
        return _read_any(data, path.name, others)
    except OSError as error:
        raise InvalidInput(f"{_WHERE}: cannot read '{path}' ({error.strerror}).") from error
    except (IncompatibleCheckpoint, InvalidInput) as error:
        raise type(error)(f"{_WHERE}: '{path}': {error} {hint}".rstrip()) from error


def materialize(value: Any, source: str) -> Any:
    """The same tree with every `StoredTensor` read."""
    if isinstance(value, StoredTensor):
        try:
            return value.read()
        except (InvalidInput, RuntimeError) as error:
            raise InvalidInput(f"{_WHERE}: '{source}': {error}") from error
    if isinstance(value, dict):
        return {key: materialize(item, source) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(materialize(item, source) for item in value)
    return value


def _read_any(data: bytes, source: str, others: Builder | None) -> Any:
    if data[:4] == b"PK\x03\x04":
        return _read_zip(data, source, others)
    if data[: len(NPY_MAGIC)] == NPY_MAGIC:
        return array_of_npy(data, _builders(), source)
    if data[:1] != b"\x80":
        raise InvalidInput(f"starts with {data[:4]!r}, expected a file written by torch.save.")
    if _first_pickle_is_magic(data):
        return _read_legacy(data, source, others)
    return restricted_unpickle(data, _builders(), source, others=others)


def _read_zip(data: bytes, source: str, others: Builder | None) -> Any:
    """The archive: <name>/data.pkl and one uncompressed file <name>/data/<key> per storage."""
    archive = open_archive(data)
    names = archive.namelist()
    roots = [name[: -len("data.pkl")] for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise InvalidInput(f"holds {len(roots)} files named data.pkl, expected one: not written by torch.save.")
    root = roots[0]
    if f"{root}byteorder" in names and read_member(archive, f"{root}byteorder", 16).strip() != sys.byteorder.encode():
        raise InvalidInput(f"is stored in another byte order than this machine's ({sys.byteorder}-endian).")

    def storage(identity: Any) -> Storage:
        dtype, key, count = _storage_identity(identity)
        size = count * dtype.itemsize
        return Storage(dtype, count, lambda: read_member(archive, f"{root}data/{key}", size))

    contents = read_member(archive, f"{root}data.pkl", _MAX_PICKLE_BYTES)
    return restricted_unpickle(contents, _builders(), source, storage, others)


def _first_pickle_is_magic(data: bytes) -> bool:
    """Whether the stream begins as the older layout does: a pickle of one certain number."""
    try:
        for position, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "LONG1":
                return bool(argument == _LEGACY_MAGIC)
            if position > 2:
                break
    except ValueError as error:
        raise InvalidInput(f"is no pickle ({str(error)[:200]}); the file is damaged.") from error
    return False


def _read_legacy(data: bytes, source: str, others: Builder | None) -> Any:
    """The older stream: five pickles, then per storage, in the order of the keys, its length and its numbers."""
    stream = io.BytesIO(data)
    starts = []
    for _ in range(_LEGACY_PICKLES):
        starts.append(stream.tell())
        try:
            for opcode, _, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    break
        except ValueError as error:
            raise InvalidInput(f"is cut short in its pickles ({str(error)[:200]}).") from error
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        dtype, key, count = _storage_identity(identity)
        return storages.setdefault(key, Storage(dtype, count))

    contents = restricted_unpickle(data[starts[3] : starts[4]], _builders(), source, storage, others)
    keys = restricted_unpickle(data[starts[4] : stream.tell()], {}, source)
    _locate_legacy_storages(data, stream.tell(), keys, storages)
    return contents


def _locate_legacy_storages(data: bytes, position: int, keys: Any, storages: dict[str, Storage]) -> None:
    if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
        raise InvalidInput(f"lists {len(keys) if isinstance(keys, list) else 0} storages, expected {len(storages)}.")
    for key in keys:
        storage = storages[str(key)]
        found = int.from_bytes(data[position : position + 8], sys.byteorder, signed=True)
        if found != storage.count:
            raise InvalidInput(f"storage '{key}' has {found} numbers, expected {storage.count}: it is cut short.")
        start, stop = position + 8, position + 8 + storage.count * storage.dtype.itemsize
        storage.read = lambda start=start, stop=stop: data[start:stop]
        position = stop


def _storage_identity(identity: Any) -> tuple[torch.dtype, str, int]:
    """(type, key, count) of a persistent id ('storage', type, key, device, count[, view])."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise InvalidInput("names a storage in an unknown way.")
    _, kind, key, _, count = identity[:5]
    if not isinstance(kind, Global) or not isinstance(key, (str, int)) or not isinstance(count, int) or count < 0:
        raise InvalidInput("names a storage in an unknown way.")
    if len(identity) > 5 and identity[5] is not None:
        raise InvalidInput("uses views of storages, a layout of torch before 0.4; save it again with a newer torch.")
    dtype = _STORAGE_TYPES.get(kind.name.removeprefix("torch."))
    if dtype is None:
        raise IncompatibleCheckpoint(f"has numbers of type '{kind.name[:120]}', expected {', '.join(_STORAGE_TYPES)}.")
    if count > MAX_ELEMENTS:
        raise InvalidInput(f"has a storage of {count} numbers, at most {MAX_ELEMENTS} are read.")
    return dtype, str(key), count


def _builders() -> dict[str, Builder]:
    storages: dict[str, Builder] = {f"torch.{name}": _refuse_call for name in _STORAGE_TYPES}
    return {
        **NUMPY_BUILDERS,
        **storages,
        "torch._utils._rebuild_tensor": _build_tensor,
        "torch._utils._rebuild_tensor_v2": _build_tensor,
        "torch._utils._rebuild_parameter": _build_parameter,
        "torch.storage._load_from_bytes": _build_storage,
        "torch.Size": _build_size,
        "torch.device": _build_device,
    }


def _refuse_call(record: Record) -> Any:
    raise IncompatibleCheckpoint(f"calls '{record.name[:120]}', which only names a type of number.")


def _build_tensor(record: Record) -> StoredTensor:
    storage, offset, shape, stride = record.arguments[:4]
    sizes = (*shape, *stride, offset)
    if not isinstance(storage, Storage) or len(shape) != len(stride):
        raise InvalidInput("holds a tensor without a storage.")
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 0 for size in sizes):
        raise InvalidInput(f"holds a tensor of shape {list(shape)} and stride {list(stride)}.")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _build_parameter(record: Record) -> StoredTensor:
    tensor = record.arguments[0]
    if not isinstance(tensor, StoredTensor):
        raise InvalidInput("holds a parameter without a tensor.")
    return tensor


def _build_storage(record: Record) -> Storage:
    """A storage of a plain pickle: a whole file of the older layout, as a byte string."""
    (data,) = record.arguments
    if not isinstance(data, bytes) or not _first_pickle_is_magic(data):
        raise InvalidInput("holds a storage in an unknown layout.")
    storage = _read_legacy(data, "storage", None)
    if not isinstance(storage, Storage):
        raise InvalidInput("holds a storage in an unknown layout.")
    return storage


def _build_size(record: Record) -> tuple[Any, ...]:
    return tuple(record.arguments[0]) if record.arguments else ()


def _build_device(record: Record) -> str:
    return str(record.arguments[0])
