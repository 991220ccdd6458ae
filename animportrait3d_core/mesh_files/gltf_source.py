"""The header and buffers of a glTF or GLB file, with bounds checked on every access and compressed data decoded."""

from __future__ import annotations

import base64
import binascii
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput
from ..files import git_lfs_reason, parse_json
from .colors import decodable
from .companions import BYTE_ORDER_MARK, MAX_REASON, find_companion, is_data
from .compression import COMPRESSIONS, decode_meshopt, meshopt_of
from .parts import Notes
from .report import LoadSettings

COMPONENT_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
MAX_INDEX = 2**32 - 1
COMPONENT_COUNTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
UNDERSTOOD = {
    *COMPRESSIONS,
    "KHR_mesh_quantization",
    "KHR_node_visibility",
    "KHR_texture_transform",
    "KHR_materials_unlit",
    "KHR_materials_pbrSpecularGlossiness",
    "EXT_texture_webp",
}


class GltfSource:
    """Header and buffers of a glTF or GLB file, with bounds checked on every access."""

    def __init__(self, path: Path, settings: LoadSettings, notes: Notes) -> None:
        self.path, self.settings, self.notes = path, settings, notes
        self._decoded: dict[int, bytes] = {}
        data = path.read_bytes()
        binary = None
        if data[:4] == b"glTF":
            data, binary = self._split_glb(data)
        self.header: dict[str, Any] = parse_json(data.removeprefix(BYTE_ORDER_MARK))
        if not isinstance(self.header, dict) or "asset" not in self.header:
            raise InvalidInput(f"load_mesh: '{path.name}' has no glTF header (key 'asset'); export it again as GLB.")
        self._warn_of_unknown_extensions()
        self.buffers = [self._buffer(index, entry, binary) for index, entry in enumerate(self.items("buffers"))]

    def items(self, key: str) -> list[Any]:
        """The list `key` of the header, empty if absent."""
        return list(self.header.get(key) or [])

    def _split_glb(self, data: bytes) -> tuple[bytes, bytes | None]:
        if len(data) < 20:
            raise InvalidInput(f"load_mesh: '{self.path.name}' is truncated: {len(data)} bytes, a GLB has at least 20.")
        version, length = struct.unpack_from("<II", data, 4)
        if version != 2:
            raise InvalidInput(f"load_mesh: '{self.path.name}' is glTF version {version}, expected 2; export it again.")
        if length > len(data):
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' is truncated: {len(data)} bytes, its header promises {length}. "
                "Copy or download it again."
            )
        header, binary, offset = None, None, 12
        while offset + 8 <= length:
            size, kind = struct.unpack_from("<I4s", data, offset)
            if offset + 8 + size > length:
                raise InvalidInput(
                    f"load_mesh: '{self.path.name}' has a chunk of {size} bytes beyond its end; export it again."
                )
            chunk = data[offset + 8 : offset + 8 + size]
            if kind == b"JSON" and header is None:
                header = chunk
            elif kind == b"BIN\0" and binary is None:
                binary = chunk
            offset += 8 + size
        if header is None:
            raise InvalidInput(f"load_mesh: '{self.path.name}' is a GLB without a JSON chunk; export it again.")
        return header, binary

    def _warn_of_unknown_extensions(self) -> None:
        unknown = sorted({str(name) for name in self.items("extensionsRequired")} - UNDERSTOOD - {"KHR_texture_basisu"})
        if unknown:
            self.notes.warn(f"required glTF extensions not understood and ignored: {', '.join(unknown)}")

    def _buffer(self, index: int, entry: dict[str, Any], binary: bytes | None) -> bytes:
        if "uri" in entry:
            data = self._resolve(entry["uri"])
            if data is None:
                raise InvalidInput(
                    f"load_mesh: '{self.path.name}' needs the file '{entry['uri'][:80]}', which is not beside it; "
                    "copy it there or export as GLB."
                )
        elif index == 0 and binary is not None:
            data = binary
        elif meshopt_of(entry) is not None:
            return b""  # stands for what its buffer views decode
        else:
            raise InvalidInput(f"load_mesh: '{self.path.name}' has no data for buffer {index}; export it again.")
        reason = git_lfs_reason(data)
        if reason is not None:
            raise InvalidInput(f"load_mesh: the data of '{self.path.name}' cannot be read: {reason}.")
        if len(data) < entry["byteLength"]:
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' is truncated: buffer {index} has {len(data)} bytes, "
                f"expected {entry['byteLength']}. Copy or download it again."
            )
        return data

    def _resolve(self, uri: str) -> bytes | None:
        """Bytes of a data URI or of a file beside the glTF; None if there is no such file."""
        if is_data(uri):
            kind, _, text = uri.partition(",")
            data = urllib.parse.unquote_to_bytes(text)
            try:
                return base64.b64decode(data, validate=False) if kind.lower().endswith(";base64") else data
            except binascii.Error:
                return None
        file = find_companion([self.path.parent], uri)
        if file is not None:
            self.notes.read(file)
        return None if file is None else file.read_bytes()

    def view(self, index: int) -> tuple[bytes, int]:
        """Bytes and stride (0 if tightly packed) of a buffer view."""
        entry = self.items("bufferViews")[list_index(index)]
        compressed = meshopt_of(entry)
        if compressed is not None and len(self.buffers[list_index(entry["buffer"])]) < entry["byteLength"]:
            return self._decompressed(index, compressed)
        start, size = entry.get("byteOffset", 0), entry["byteLength"]
        buffer = self.buffers[list_index(entry["buffer"])]
        if start < 0 or size < 0 or start + size > len(buffer):
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' is damaged: buffer view {index} ends at byte {start + size} "
                f"of {len(buffer)}."
            )
        return buffer[start : start + size], entry.get("byteStride", 0)

    def _decompressed(self, index: int, compressed: dict[str, Any]) -> tuple[bytes, int]:
        """The bytes and stride that a compressed buffer view without plain data stands for; decoded once."""
        if index not in self._decoded:
            buffer = self.buffers[list_index(compressed["buffer"])]
            start, size = compressed.get("byteOffset", 0), compressed["byteLength"]
            self.check_count(compressed["count"])
            self._decoded[index] = decode_meshopt(self.path, compressed, buffer[start : start + size])
        return self._decoded[index], compressed["byteStride"]

    def check_count(self, count: int) -> None:
        """Refuse more elements than the largest mesh has, before anything of that size is allocated."""
        most = max(3 * self.settings.max_faces, 1 << 20)
        if not 0 <= count <= most:
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' has an accessor of {count} elements, expected at most {most}; "
                "decimate the mesh."
            )

    def accessor(self, index: int) -> np.ndarray:
        """Values [count, components] of an accessor: float64 if floating or normalised, else int64."""
        entry = self.items("accessors")[list_index(index)]
        components, count = COMPONENT_COUNTS[entry["type"]], entry["count"]
        self.check_count(count)
        dtype = np.dtype(COMPONENT_TYPES[entry["componentType"]])
        if "bufferView" in entry:
            values = self._strided(entry["bufferView"], entry.get("byteOffset", 0), count, components, dtype)
        else:
            values = np.zeros((count, components), dtype)
        if "sparse" in entry:
            values = self._with_sparse_values(values, entry["sparse"])
        return plain_numbers(values, bool(entry.get("normalized")))

    def _strided(self, view: int, offset: int, count: int, components: int, dtype: np.dtype) -> np.ndarray:
        data, stride = self.view(view)
        row = components * dtype.itemsize
        stride = stride or row
        needed = offset + (count - 1) * stride + row if count else offset
        if offset < 0 or stride < row or needed > len(data):
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' is damaged: {count} elements need {needed} bytes, "
                f"their buffer view has {len(data)}."
            )
        if count == 0:
            return np.zeros((0, components), dtype)
        rows = np.lib.stride_tricks.as_strided(
            np.frombuffer(data, np.uint8)[offset:], shape=(count, row), strides=(stride, 1)
        )
        return np.ascontiguousarray(rows).view(dtype)

    def _with_sparse_values(self, values: np.ndarray, sparse: dict[str, Any]) -> np.ndarray:
        count, places, replacement = sparse["count"], sparse["indices"], sparse["values"]
        kind = np.dtype(COMPONENT_TYPES[places["componentType"]])
        rows = self._strided(places["bufferView"], places.get("byteOffset", 0), count, 1, kind)[:, 0]
        rows = self.whole_numbers("sparse indices", rows)
        new = self._strided(
            replacement["bufferView"], replacement.get("byteOffset", 0), count, values.shape[1], values.dtype
        )
        values = values.copy()
        values[rows] = new
        return values

    def whole_numbers(self, name: str, values: np.ndarray) -> np.ndarray:
        """Indices [...] as int64; floating-point ones are refused, unless they are whole."""
        if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            raise InvalidInput(f"load_mesh: '{self.path.name}' has {name} that are no whole numbers; export it again.")
        if len(values) and np.abs(values).max() > MAX_INDEX:
            raise InvalidInput(f"load_mesh: '{self.path.name}' has {name} beyond {MAX_INDEX}; export it again.")
        return values.astype(np.int64)

    def finite(self, name: str, values: np.ndarray) -> np.ndarray:
        """The values, refused if one is not finite."""
        if not np.isfinite(values).all():
            raise InvalidInput(f"load_mesh: '{self.path.name}' holds {name} that are not finite; export it again.")
        return values

    def image(self, index: int) -> bytes | None:
        """Encoded bytes of a picture that can be decoded; None, with a warning, otherwise."""
        entry = self.items("images")[list_index(index)]
        name = str(entry.get("uri") or entry.get("name") or index)[:80]
        data = self.view(entry["bufferView"])[0] if "bufferView" in entry else self._resolve(entry["uri"])
        if data is None:
            self.notes.warn(f"the texture file '{name}' is not beside the mesh; its material stays untextured")
            return None
        reason = git_lfs_reason(data) or decodable(data)
        if reason is not None:
            self.notes.warn(
                f"the texture '{name}' cannot be decoded ({reason[:MAX_REASON]}); its material stays untextured"
            )
            return None
        return data


def plain_numbers(values: np.ndarray, normalized: bool) -> np.ndarray:
    """Stored numbers as float64 if they are floating or normalised, else as int64."""
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # some NaN complain when they are widened
            return values.astype(np.float64)
    return np.maximum(values / float(np.iinfo(values.dtype).max), -1.0) if normalized else values.astype(np.int64)


def list_index(value: Any) -> int:
    """A list index that must be a natural number: Python would quietly count -1 from the end."""
    if not isinstance(value, int) or value < 0:
        raise InvalidInput(
            f"load_mesh: the glTF header refers to entry {value!r}, expected 0 or more; export it again."
        )
    return value
