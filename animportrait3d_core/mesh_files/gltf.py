"""glTF and GLB files, rewritten as one plain GLB before trimesh parses them.

trimesh reads the scene graph and the materials. What it would read wrongly without a word is settled here first:
normalised integers, sparse accessors, texture coordinates of other sets or with a transform, triangle fans, colour
spaces, indices and buffers that lie outside of the file, and compressed geometry.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput
from ..files import git_lfs_reason
from .colors import decodable, linear_to_srgb
from .companions import BYTE_ORDER_MARK, find_companion
from .parts import Notes
from .report import LoadSettings

COMPONENT_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
COMPONENT_COUNTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
UNDERSTOOD = {
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_materials_unlit",
    "KHR_materials_pbrSpecularGlossiness",
    "EXT_texture_webp",
}
TRIANGLES, STRIP, FAN = 4, 5, 6


class GltfSource:
    """Header and buffers of a glTF or GLB file, with bounds checked on every access."""

    def __init__(self, path: Path, settings: LoadSettings, notes: Notes) -> None:
        self.path, self.settings, self.notes = path, settings, notes
        data = path.read_bytes()
        binary = None
        if data[:4] == b"glTF":
            data, binary = self._split_glb(data)
        self.header: dict[str, Any] = json.loads(data.removeprefix(BYTE_ORDER_MARK))
        if not isinstance(self.header, dict) or "asset" not in self.header:
            raise InvalidInput(f"load_mesh: '{path.name}' has no glTF header (key 'asset'); export it again as GLB.")
        self._refuse_unreadable_extensions()
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

    def _refuse_unreadable_extensions(self) -> None:
        used = {str(name) for name in self.items("extensionsUsed") + self.items("extensionsRequired")}
        for name in COMPRESSIONS:
            if name in used:
                raise InvalidInput(
                    f"load_mesh: '{self.path.name}' holds compressed geometry ({name}), expected plain glTF. Export it "
                    "without mesh compression, or run `gltf-transform copy` or `gltfpack -noq` on it."
                )
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
        else:
            raise InvalidInput(f"load_mesh: '{self.path.name}' has no data for buffer {index}; export it again.")
        if len(data) < entry["byteLength"]:
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' is truncated: buffer {index} has {len(data)} bytes, "
                f"expected {entry['byteLength']}. Copy or download it again."
            )
        return data

    def _resolve(self, uri: str) -> bytes | None:
        """Bytes of a data URI or of a file beside the glTF; None if there is no such file."""
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.split(",", 1)[1], validate=False)
            except (IndexError, binascii.Error):
                return None
        file = find_companion([self.path.parent], urllib.parse.unquote(uri))
        if file is not None:
            self.notes.read(file)
        return None if file is None else file.read_bytes()

    def view(self, index: int) -> tuple[bytes, int]:
        """Bytes and stride (0 if tightly packed) of a buffer view."""
        entry = self.items("bufferViews")[_index(index)]
        start, size = entry.get("byteOffset", 0), entry["byteLength"]
        buffer = self.buffers[_index(entry["buffer"])]
        if start < 0 or size < 0 or start + size > len(buffer):
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' is damaged: buffer view {index} ends at byte {start + size} "
                f"of {len(buffer)}."
            )
        return buffer[start : start + size], entry.get("byteStride", 0)

    def accessor(self, index: int) -> np.ndarray:
        """Values [count, components] of an accessor: float64 if floating or normalised, else int64."""
        entry = self.items("accessors")[_index(index)]
        components, count = COMPONENT_COUNTS[entry["type"]], entry["count"]
        most = max(3 * self.settings.max_faces, 1 << 20)  # checked before anything of this size is allocated
        if not 0 <= count <= most:
            raise InvalidInput(
                f"load_mesh: '{self.path.name}' has an accessor of {count} elements, expected at most {most}; "
                "decimate the mesh."
            )
        dtype = np.dtype(COMPONENT_TYPES[entry["componentType"]])
        if "bufferView" in entry:
            values = self._strided(entry["bufferView"], entry.get("byteOffset", 0), count, components, dtype)
        else:
            values = np.zeros((count, components), dtype)
        if "sparse" in entry:
            values = self._with_sparse_values(values, entry["sparse"])
        if dtype.kind == "f":
            return values.astype(np.float64)
        if entry.get("normalized"):
            return np.maximum(values / float(np.iinfo(dtype).max), -1.0)
        return values.astype(np.int64)

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
        rows = self._strided(places["bufferView"], places.get("byteOffset", 0), count, 1, kind)[:, 0].astype(np.int64)
        new = self._strided(
            replacement["bufferView"], replacement.get("byteOffset", 0), count, values.shape[1], values.dtype
        )
        values = values.copy()
        values[rows] = new
        return values

    def image(self, index: int) -> bytes | None:
        """Encoded bytes of a picture that can be decoded; None, with a warning, otherwise."""
        entry = self.items("images")[_index(index)]
        name = str(entry.get("uri") or entry.get("name") or index)[:80]
        data = self.view(entry["bufferView"])[0] if "bufferView" in entry else self._resolve(entry["uri"])
        if data is None:
            self.notes.warn(f"the texture file '{name}' is not beside the mesh; its material stays untextured")
            return None
        reason = git_lfs_reason(data) or decodable(data)
        if reason is not None:
            self.notes.warn(f"the texture '{name}' cannot be decoded ({reason[:100]}); its material stays untextured")
            return None
        return data


def _index(value: Any) -> int:
    """A list index that must be a natural number: Python would quietly count -1 from the end."""
    if not isinstance(value, int) or value < 0:
        raise InvalidInput(
            f"load_mesh: the glTF header refers to entry {value!r}, expected 0 or more; export it again."
        )
    return value


class PlainGlb:
    """Collects arrays and pictures into one GLB with a single buffer."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.tree: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": []}

    def add_view(self, blob: bytes) -> int:
        """Append bytes, aligned to 4; returns the index of their buffer view."""
        self.data += b"\0" * (-len(self.data) % 4)
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(blob)})
        self.data += blob
        return len(self.tree["bufferViews"]) - 1

    def add_array(self, values: np.ndarray) -> int:
        """Append an array [N, C] as float32, or [N] as uint32; returns the index of its accessor."""
        floating = values.ndim == 2
        kind = {2: "VEC2", 3: "VEC3", 4: "VEC4"}[values.shape[1]] if floating else "SCALAR"
        blob = np.ascontiguousarray(values, dtype="<f4" if floating else "<u4").tobytes()
        entry = {"componentType": 5126 if floating else 5125, "type": kind, "count": len(values)}
        self.tree["accessors"].append({**entry, "bufferView": self.add_view(blob)})
        return len(self.tree["accessors"]) - 1

    def tobytes(self) -> bytes:
        """The GLB file."""
        self.data += b"\0" * (-len(self.data) % 4)
        self.tree["buffers"] = [{"byteLength": len(self.data)}]
        header = json.dumps(self.tree).encode()
        header += b" " * (-len(header) % 4)
        total = 28 + len(header) + len(self.data)
        chunks = struct.pack("<I4s", len(header), b"JSON") + header + struct.pack("<I4s", len(self.data), b"BIN\0")
        return struct.pack("<4sII", b"glTF", 2, total) + chunks + bytes(self.data)


def prepare_gltf(path: Path, settings: LoadSettings, notes: Notes) -> bytes:
    """A plain GLB of the triangles, base colours and scene graph of a glTF or GLB file; warnings go to the notes.

    Colours in it are display colours: `COLOR_0` and `baseColorFactor` are converted from linear light.
    """
    source, target = GltfSource(path, settings, notes), PlainGlb()
    materials = _Materials(source, target)
    meshes = [_plain_mesh(source, target, materials, mesh) for mesh in source.items("meshes")]
    target.tree["meshes"] = meshes
    target.tree["nodes"] = _plain_nodes(source, meshes)
    target.tree["scenes"] = [{"nodes": _scene_roots(source)}]
    target.tree["scene"] = 0
    if source.items("skins"):
        source.notes.warn("the skin (bones) of the file is ignored: the mesh is read in its bind pose")
    return target.tobytes()


class _Materials:
    """Base colours of the materials: factor, texture, alpha, and where its texture coordinates come from."""

    def __init__(self, source: GltfSource, target: PlainGlb) -> None:
        self.source, self.target = source, target
        self.texture_infos: list[dict[str, Any]] = []
        self.textures: dict[int, int | None] = {}
        target.tree.update(materials=[], textures=[], images=[])
        for material in source.items("materials"):
            target.tree["materials"].append(self._plain(material))

    def _plain(self, material: dict[str, Any]) -> dict[str, Any]:
        base = material.get("pbrMetallicRoughness", {})
        factor, texture = base.get("baseColorFactor", [1, 1, 1, 1]), base.get("baseColorTexture")
        gloss = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
        if gloss is not None:
            factor, texture = gloss.get("diffuseFactor", [1, 1, 1, 1]), gloss.get("diffuseTexture")
        if not any(factor[:3]) and "emissiveTexture" in material:
            # How exporters write a shadeless picture: black base, glowing texture.
            factor, texture = [1, 1, 1, factor[3]], material["emissiveTexture"]
        plain: dict[str, Any] = {"name": str(material.get("name", "")), "pbrMetallicRoughness": {}}
        linear = np.clip(np.asarray(factor, dtype=np.float64), 0, 1)
        display = [*linear_to_srgb(linear[:3]).tolist(), float(linear[3])]
        plain["alphaMode"] = str(material.get("alphaMode", "OPAQUE"))
        plain["alphaCutoff"] = float(material.get("alphaCutoff", 0.5))
        index = self._texture(_index(texture["index"])) if texture else None
        if index is not None:
            plain["pbrMetallicRoughness"]["baseColorTexture"] = {"index": index}
        # White beside a picture that was not read is no colour.
        if index is not None or not texture or linear.min() < 1:
            plain["pbrMetallicRoughness"]["baseColorFactor"] = display
        self.texture_infos.append(texture if index is not None and texture else {})
        return plain

    def _texture(self, index: int) -> int | None:
        """Index in the plain file of a texture, or None if its picture cannot be read."""
        if index not in self.textures:
            self.textures[index] = self._copy_texture(self.source.items("textures")[index])
        return self.textures[index]

    def _copy_texture(self, texture: dict[str, Any]) -> int | None:
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {}).get("source")
        image = texture.get("source") if webp is None else webp
        if image is None:
            self.source.notes.warn(
                "a texture is compressed for graphics cards (KTX2) and was not read; use PNG or JPEG"
            )
            return None
        blob = self.source.image(image)
        if blob is None:
            return None
        kind = "image/jpeg" if blob[:2] == b"\xff\xd8" else "image/webp" if blob[8:12] == b"WEBP" else "image/png"
        self.target.tree["images"].append({"bufferView": self.target.add_view(blob), "mimeType": kind})
        self.target.tree["textures"].append({"source": len(self.target.tree["images"]) - 1})
        return len(self.target.tree["textures"]) - 1


def _plain_mesh(source: GltfSource, target: PlainGlb, materials: _Materials, mesh: dict[str, Any]) -> dict[str, Any]:
    if any(mesh.get("weights") or []):
        source.notes.warn("morph targets are ignored: the mesh is read in its base shape")
    primitives = []
    for primitive in mesh.get("primitives", []):
        if primitive.get("mode", TRIANGLES) in (TRIANGLES, STRIP, FAN):
            primitives.append(_plain_primitive(source, target, materials, primitive))
        else:
            source.notes.warn("points and lines in the file are ignored")
    return {"name": str(mesh.get("name", "mesh")), "primitives": [p for p in primitives if p is not None]}


def _plain_primitive(
    source: GltfSource, target: PlainGlb, materials: _Materials, primitive: dict[str, Any]
) -> dict[str, Any] | None:
    attributes = primitive["attributes"]
    positions = source.accessor(attributes["POSITION"])
    faces = _triangles(source, primitive, len(positions))
    if len(faces) == 0:
        return None
    plain: dict[str, Any] = {"attributes": {"POSITION": target.add_array(positions)}, "mode": TRIANGLES}
    plain["indices"] = target.add_array(faces.reshape(-1))
    info: dict[str, Any] = {}
    if "material" in primitive:
        plain["material"] = _index(primitive["material"])
        info = materials.texture_infos[plain["material"]]
    uvs = _texture_coordinates(source, attributes, info)
    if uvs is not None:
        plain["attributes"]["TEXCOORD_0"] = target.add_array(uvs)
    if "COLOR_0" in attributes:
        colors = source.accessor(attributes["COLOR_0"]).astype(np.float64)
        if _colors_are_linear(source):
            colors[:, :3] = linear_to_srgb(np.clip(colors[:, :3], 0, 1))
        plain["attributes"]["COLOR_0"] = target.add_array(np.clip(colors, 0, 1))
    return plain


def _triangles(source: GltfSource, primitive: dict[str, Any], vertices: int) -> np.ndarray:
    """Faces [F, 3] of a primitive of any triangle mode, with every index in range."""
    mode = primitive.get("mode", TRIANGLES)
    flat = source.accessor(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(vertices)
    if len(flat) and not (0 <= flat.min() and flat.max() < vertices):
        raise InvalidInput(
            f"load_mesh: '{source.path.name}' has faces that point at vertex {flat.max():.0f}, "
            f"but there are {vertices}; export it again."
        )
    flat = flat.astype(np.int64)
    if mode == TRIANGLES:
        return flat[: len(flat) // 3 * 3].reshape(-1, 3)
    if len(flat) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.full(len(flat) - 2, flat[0]), flat[1:-1], flat[2:]], axis=1)
    strip = np.stack([flat[:-2], flat[1:-1], flat[2:]], axis=1)
    strip[1::2] = strip[1::2, [1, 0, 2]]  # every second triangle of a strip is wound the other way
    return strip


def _texture_coordinates(source: GltfSource, attributes: dict[str, Any], info: dict[str, Any]) -> np.ndarray | None:
    """Texture coordinates [V, 2] of the set the material uses, with KHR_texture_transform applied."""
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
    if name not in attributes:
        return None
    uvs = source.accessor(attributes[name]).astype(np.float64)
    scale, offset = transform.get("scale", [1, 1]), transform.get("offset", [0, 0])
    angle = transform.get("rotation", 0.0)
    cos, sin = np.cos(angle), np.sin(angle)
    return (uvs * scale) @ np.array([[cos, sin], [-sin, cos]]).T + offset


def _colors_are_linear(source: GltfSource) -> bool:
    if source.settings.vertex_color_space != "auto":
        return source.settings.vertex_color_space == "linear"
    if "trimesh" in str(source.header["asset"].get("generator", "")):
        source.notes.warn("written by trimesh, whose vertex colours are read as display colours (sRGB)")
        return False
    return True


def _plain_nodes(source: GltfSource, meshes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nodes with their transform, children and mesh; a node reached twice (a cycle or two parents) is refused."""
    nodes = source.items("nodes")
    parents = [0] * len(nodes)
    plain = []
    for node in nodes:
        kept = {key: node[key] for key in ("matrix", "translation", "rotation", "scale", "children") if key in node}
        for child in kept.get("children", []):
            parents[_index(child)] += 1
        if "mesh" in node and meshes[_index(node["mesh"])]["primitives"]:
            kept["mesh"] = node["mesh"]
        plain.append(kept)
    if any(count > 1 for count in parents):
        raise InvalidInput(
            f"load_mesh: '{source.path.name}' has a node with two parents, expected a tree; export it again."
        )
    return plain


def _scene_roots(source: GltfSource) -> list[int]:
    """Roots of the default scene; without a scene, the nodes that are nobody's children."""
    scenes, nodes = source.items("scenes"), source.items("nodes")
    if scenes:
        return [_index(root) for root in scenes[_index(source.header.get("scene", 0))].get("nodes", [])]
    children = {child for node in nodes for child in node.get("children", [])}
    return [index for index in range(len(nodes)) if index not in children]
