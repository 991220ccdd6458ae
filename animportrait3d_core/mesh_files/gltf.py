"""glTF and GLB files, rewritten as one plain GLB before trimesh parses them.

trimesh reads the scene graph and the materials. What it would read wrongly without a word is settled here first:
normalised integers, sparse accessors, skins, texture coordinates of other sets or with a transform, triangle fans,
hidden nodes, colour spaces, indices and buffers that lie outside of the file, and compressed geometry.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput
from .colors import linear_to_srgb
from .compression import DRACO, decode_draco
from .glb import GlbWriter
from .gltf_nodes import hidden_nodes, skinned_positions, world_transforms
from .gltf_source import GltfSource, list_index, plain_numbers
from .parts import Notes
from .report import LoadSettings

TRIANGLES, STRIP, FAN = 4, 5, 6


def prepare_gltf(path: Path, settings: LoadSettings, notes: Notes) -> bytes:
    """A plain GLB of the triangles, base colours and scene graph of a glTF or GLB file; warnings go to the notes.

    Colours in it are display colours: `COLOR_0` and `baseColorFactor` are converted from linear light.
    """
    source, target = GltfSource(path, settings, notes), GlbWriter()
    materials = _Materials(source, target)
    geometries = [_read_mesh(source, materials, mesh) for mesh in source.items("meshes")]
    target.tree["meshes"] = [_plain_mesh(target, geometry) for geometry in geometries]
    target.tree["nodes"] = _plain_nodes(source, target, geometries)
    added = range(len(source.items("nodes")), len(target.tree["nodes"]))
    target.tree["scenes"] = [{"nodes": [*_scene_roots(source), *added]}]
    target.tree["scene"] = 0
    return target.tobytes()


@dataclasses.dataclass
class _Primitive:
    """Triangles of one material: positions [V, 3], faces [F, 3], uvs [V, 2] or None, display colours [V, 3 or 4] or
    None; joints [V, K] and weights [V, K] or None; targets: accessors of the morph targets, by attribute."""

    positions: np.ndarray
    faces: np.ndarray
    material: int | None
    uvs: np.ndarray | None
    colors: np.ndarray | None
    joints: np.ndarray | None
    weights: np.ndarray | None
    targets: list[dict[str, int]]


@dataclasses.dataclass
class _Attributes:
    """Attributes of a primitive by name, from its accessors or, first, from its Draco data."""

    source: GltfSource
    accessors: dict[str, int]
    decoded: dict[str, np.ndarray]

    def __contains__(self, name: str) -> bool:
        return name in self.accessors or name in self.decoded

    def __getitem__(self, name: str) -> np.ndarray:
        return self.decoded[name] if name in self.decoded else self.source.accessor(self.accessors[name])

    def columns(self, prefix: str) -> np.ndarray | None:
        """prefix_0, prefix_1, ... side by side."""
        sets = [self[f"{prefix}_{i}"] for i in range(4) if f"{prefix}_{i}" in self]
        return np.concatenate(sets, axis=1) if sets else None


class _Materials:
    """Base colours of the materials: factor, texture, alpha, and where its texture coordinates come from."""

    def __init__(self, source: GltfSource, target: GlbWriter) -> None:
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
        linear = np.clip(self.source.finite("colours", np.asarray(factor, dtype=np.float64)), 0, 1)
        display = [*linear_to_srgb(linear[:3]).tolist(), float(linear[3])]
        plain["alphaMode"] = str(material.get("alphaMode", "OPAQUE"))
        plain["alphaCutoff"] = float(material.get("alphaCutoff", 0.5))
        index = self._texture(list_index(texture["index"])) if texture else None
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


def _read_mesh(source: GltfSource, materials: _Materials, mesh: dict[str, Any]) -> list[_Primitive]:
    primitives = []
    for primitive in mesh.get("primitives", []):
        if primitive.get("mode", TRIANGLES) in (TRIANGLES, STRIP, FAN):
            primitives.append(_read_primitive(source, materials, primitive))
        else:
            source.notes.warn("points and lines in the file are ignored")
    return [primitive for primitive in primitives if len(primitive.faces)]


def _read_primitive(source: GltfSource, materials: _Materials, primitive: dict[str, Any]) -> _Primitive:
    compressed = primitive.get("extensions", {}).get(DRACO)
    decoded: dict[str, np.ndarray] = {}
    flat: np.ndarray | None = None
    if compressed is not None and "bufferView" not in source.items("accessors")[primitive["attributes"]["POSITION"]]:
        decoded, flat = _decoded(source, primitive, compressed)
    attributes = _Attributes(source, primitive["attributes"], decoded)
    positions = attributes["POSITION"].astype(np.float64)
    mode = primitive.get("mode", TRIANGLES) if flat is None else TRIANGLES
    if flat is None and "indices" in primitive:
        flat = source.accessor(primitive["indices"])[:, 0]
    material = list_index(primitive["material"]) if "material" in primitive else None
    info = materials.texture_infos[material] if material is not None else {}
    colors = None
    if "COLOR_0" in attributes:
        colors = source.finite("colours", attributes["COLOR_0"].astype(np.float64))
        if _colors_are_linear(source):
            colors[:, :3] = linear_to_srgb(np.clip(colors[:, :3], 0, 1))
    return _Primitive(
        positions,
        _triangles(source, mode, flat, len(positions)),
        material,
        _texture_coordinates(source, attributes, info),
        colors,
        attributes.columns("JOINTS"),
        attributes.columns("WEIGHTS"),
        primitive.get("targets") or [],
    )


def _decoded(
    source: GltfSource, primitive: dict[str, Any], compressed: dict[str, Any]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Attributes of a Draco primitive as its accessors would give them, and indices [I]."""
    data = source.view(compressed["bufferView"])[0]
    stored, indices = decode_draco(source.path, data, compressed["attributes"])
    decoded: dict[str, np.ndarray] = {}
    for name, values in stored.items():
        accessor = source.items("accessors")[list_index(primitive["attributes"][name])]
        if len(values) != accessor["count"]:
            raise InvalidInput(
                f"load_mesh: '{source.path.name}' holds {len(values)} Draco points, its header says "
                f"{accessor['count']}; export it again."
            )
        decoded[name] = plain_numbers(values, bool(accessor.get("normalized")))
    return decoded, indices


def _plain_mesh(target: GlbWriter, primitives: list[_Primitive]) -> dict[str, Any]:
    plain = []
    for primitive in primitives:
        entry: dict[str, Any] = {"attributes": {"POSITION": target.add_array(primitive.positions)}, "mode": TRIANGLES}
        entry["indices"] = target.add_array(primitive.faces.reshape(-1))
        if primitive.material is not None:
            entry["material"] = primitive.material
        if primitive.uvs is not None:
            entry["attributes"]["TEXCOORD_0"] = target.add_array(primitive.uvs)
        if primitive.colors is not None:
            entry["attributes"]["COLOR_0"] = target.add_array(np.clip(primitive.colors, 0, 1))
        plain.append(entry)
    return {"name": "mesh", "primitives": plain}


def _triangles(source: GltfSource, mode: int, indices: np.ndarray | None, vertices: int) -> np.ndarray:
    """Faces [F, 3] of a primitive of any triangle mode from its indices [I] (None: in order), all in range."""
    flat = np.arange(vertices) if indices is None else source.whole_numbers("indices", indices)
    if len(flat) and not (0 <= flat.min() and flat.max() < vertices):
        raise InvalidInput(
            f"load_mesh: '{source.path.name}' has faces that point at vertex {flat.max()}, "
            f"but there are {vertices}; export it again."
        )
    if mode == TRIANGLES:
        return flat[: len(flat) // 3 * 3].reshape(-1, 3)
    if len(flat) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.full(len(flat) - 2, flat[0]), flat[1:-1], flat[2:]], axis=1)
    strip = np.stack([flat[:-2], flat[1:-1], flat[2:]], axis=1)
    strip[1::2] = strip[1::2, [1, 0, 2]]  # every second triangle of a strip is wound the other way
    return strip


def _texture_coordinates(source: GltfSource, attributes: _Attributes, info: dict[str, Any]) -> np.ndarray | None:
    """Texture coordinates [V, 2] of the set the material uses, with KHR_texture_transform applied."""
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
    if name not in attributes:
        return None
    uvs = attributes[name].astype(np.float64)
    scale, offset = transform.get("scale", [1, 1]), transform.get("offset", [0, 0])
    angle = transform.get("rotation", 0.0)
    placed = source.finite("texture transforms", np.array([[angle, 0], [*scale], [*offset]], dtype=np.float64))
    cos, sin = np.cos(placed[0, 0]), np.sin(placed[0, 0])
    with np.errstate(invalid="ignore", over="ignore"):  # coordinates that are not finite are told where they are used
        return (uvs * placed[1]) @ np.array([[cos, sin], [-sin, cos]]).T + placed[2]


def _colors_are_linear(source: GltfSource) -> bool:
    if source.settings.vertex_color_space != "auto":
        return source.settings.vertex_color_space == "linear"
    if "trimesh" in str(source.header["asset"].get("generator", "")):
        source.notes.warn("written by trimesh, whose vertex colours are read as display colours (sRGB)")
        return False
    return True


def _plain_nodes(source: GltfSource, target: GlbWriter, geometries: list[list[_Primitive]]) -> list[dict[str, Any]]:
    """Nodes with their transform, children and mesh, then one for each skinned mesh, which stands in the world. A node
    reached twice (a cycle or two parents) is refused, hidden ones lose their mesh."""
    nodes = source.items("nodes")
    parents = [0] * len(nodes)
    plain, skinned = [], []
    for node in nodes:
        kept = {key: node[key] for key in ("matrix", "translation", "rotation", "scale", "children") if key in node}
        for child in kept.get("children", []):
            parents[list_index(child)] += 1
        plain.append(kept)
    if any(count > 1 for count in parents):
        raise InvalidInput(
            f"load_mesh: '{source.path.name}' has a node with two parents, expected a tree; export it again."
        )
    shown, hidden = hidden_nodes(nodes, _scene_roots(source))
    transforms = world_transforms(nodes)
    for index, node in enumerate(nodes):
        if "mesh" not in node or not geometries[list_index(node["mesh"])]:
            continue
        if index in hidden:
            source.notes.warn("the file hides some of its meshes (KHR_node_visibility); they are left out")
        elif index in shown:
            weights = node.get("weights") or source.items("meshes")[node["mesh"]].get("weights") or []
            parts = [_morphed(source, part, weights) for part in geometries[node["mesh"]]]
            if "skin" in node:
                parts = [_posed(source, node["skin"], part, transforms) for part in parts]
                skinned.append({"mesh": _added_mesh(target, parts)})
            else:
                plain[index]["mesh"] = _added_mesh(target, parts) if any(weights) else node["mesh"]
    return plain + skinned


def _added_mesh(target: GlbWriter, parts: list[_Primitive]) -> int:
    target.tree["meshes"].append(_plain_mesh(target, parts))
    return len(target.tree["meshes"]) - 1


def _morphed(source: GltfSource, part: _Primitive, weights: list[float]) -> _Primitive:
    """A primitive moved by its morph targets, by the weights of its node or its mesh (glTF 2.0, 3.7.2.2)."""
    positions = part.positions
    for target, weight in zip(part.targets, source.finite("weights", np.asarray(weights, dtype=np.float64))):
        if weight and "POSITION" in target:
            moves = source.accessor(target["POSITION"])
            if len(moves) != len(positions):
                raise InvalidInput(
                    f"load_mesh: '{source.path.name}' has a morph target of {len(moves)} points, expected "
                    f"{len(positions)}; export it again."
                )
            with np.errstate(invalid="ignore", over="ignore"):  # told when parts are merged
                positions = positions + weight * moves
    return dataclasses.replace(part, positions=positions)


def _posed(source: GltfSource, skin: int, part: _Primitive, transforms: dict[int, np.ndarray]) -> _Primitive:
    """A primitive moved into the world by its joints."""
    if part.joints is None or part.weights is None:
        source.notes.warn("a mesh with a skin has no joints or weights and stays where it was modelled")
        return part
    positions, mirrored = skinned_positions(source, skin, part.positions, (part.joints, part.weights), transforms)
    faces = part.faces[:, ::-1] if mirrored else part.faces
    return dataclasses.replace(part, positions=positions, faces=np.ascontiguousarray(faces))


def _scene_roots(source: GltfSource) -> list[int]:
    """Roots of the default scene; without a scene, the nodes that are nobody's children."""
    scenes, nodes = source.items("scenes"), source.items("nodes")
    if scenes:
        return [list_index(root) for root in scenes[list_index(source.header.get("scene", 0))].get("nodes", [])]
    children = {child for node in nodes for child in node.get("children", [])}
    return [index for index in range(len(nodes)) if index not in children]
