"""The skinned head in a GLB: skeleton, vertices split at the seams of the texture, morph targets, material."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..mesh_files.colors import srgb_to_linear
from ..mesh_files.glb import ARRAY_BUFFER, ELEMENT_BUFFER, GlbWriter
from ..meshes import Mesh, vertex_normals
from ..rotations import matrix_to_quaternion
from .glb_rig import JOINT_NAMES, HeadRig, local_transforms

SMALLEST_OFFSET = 1e-7
"""World units: offsets of morph targets below this are written as 0."""


COLORS_BESIDE_TEXTURE = "_VERTEX_COLOR"


@dataclasses.dataclass(frozen=True)
class Surface:
    """What a mesh has beside the rig: faces [F, 3] wound outward, display colours [V, 3] in 0..1 of its vertices, and,
    together or not at all, texture coordinates [F, 3, 2] (v up) and texture [H, W, 3] in 0..1."""

    faces: Tensor
    vertex_colors: Tensor
    corner_uvs: Tensor | None = None
    texture: Tensor | None = None

    def mesh(self, vertices: Tensor) -> Mesh:
        """It as a mesh with vertices [V, 3] of a pose, with its texture or, without one, its colours."""
        colors = self.vertex_colors if self.texture is None else None
        return Mesh(vertices, self.faces, colors, self.corner_uvs, self.texture)


def add_skeleton(file: GlbWriter, rig: HeadRig, worlds: np.ndarray) -> list[int]:
    """Add the joints as nodes, in the pose of worlds [J, 4, 4]; returns their indices. The first is the root."""
    first = len(file.tree["nodes"])
    nodes: list[dict[str, Any]] = []
    translations, rotations, scales = local_transforms(rig, worlds[None])
    for index, joint in enumerate(rig.joints):
        node: dict[str, Any] = {"name": JOINT_NAMES[joint] if joint < len(JOINT_NAMES) else f"joint_{joint}"}
        node["translation"] = translations[0, index].tolist()
        node["rotation"] = xyzw(rotations[0, index]).tolist()
        if abs(scales[0, index] - 1) > 1e-6:
            node["scale"] = [float(scales[0, index])] * 3
        children = [first + child for child, parent in enumerate(rig.parents) if parent == index]
        nodes.append({**node, "children": children} if children else node)
    file.tree["nodes"] += nodes
    return list(range(first, first + len(nodes)))


def xyzw(rotations: np.ndarray) -> np.ndarray:
    """glTF's quaternions [..., 4] of rotation matrices [..., 3, 3]."""
    return matrix_to_quaternion(torch.from_numpy(np.ascontiguousarray(rotations))).numpy()[..., [1, 2, 3, 0]]


def add_head(file: GlbWriter, rig: HeadRig, surface: Surface, joints: list[int], weights: np.ndarray) -> int:
    """Add skin, mesh and its node, which the caller puts beside the root joint; returns the node's index.

    weights: [K] of the morph targets at rest.
    """
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(rig.joints), 1, 1))
    inverse[:, :3, 3] = -rig.joint_positions
    matrices = file.add_accessor(inverse.transpose(0, 2, 1).reshape(-1, 16).astype("<f4"))  # stored by columns
    skin = {"name": "head", "joints": joints, "skeleton": joints[0], "inverseBindMatrices": matrices}
    file.tree["skins"] = [skin]
    vertex, corners, uvs = _split(surface)
    attributes = _attributes(file, rig, surface, vertex)
    if uvs is not None:
        attributes["TEXCOORD_0"] = file.add_accessor(uvs.astype("<f4"), ARRAY_BUFFER)
    primitive: dict[str, Any] = {"attributes": attributes, "material": _add_material(file, surface.texture)}
    primitive["indices"] = file.add_accessor(corners.reshape(-1).astype("<u4"), ELEMENT_BUFFER)
    mesh: dict[str, Any] = {"name": "head", "primitives": [primitive]}
    if len(rig.morphs):
        primitive["targets"] = [{"POSITION": file.add_sparse(_rounded(offsets)[vertex])} for offsets in rig.morphs]
        mesh |= {"weights": weights.tolist(), "extras": {"targetNames": list(rig.morph_names)}}
    file.tree["meshes"].append(mesh)
    file.tree["nodes"].append({"name": "head_mesh", "mesh": len(file.tree["meshes"]) - 1, "skin": 0})
    return len(file.tree["nodes"]) - 1


def _attributes(file: GlbWriter, rig: HeadRig, surface: Surface, vertex: np.ndarray) -> dict[str, int]:
    """Accessors of what every vertex has; `vertex` [n] are the body's numbers of those of the file."""
    bind = torch.from_numpy(rig.positions)
    normals = vertex_normals(bind, surface.faces).numpy()
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0, 0, 1)  # vertices of no face
    colors = srgb_to_linear(surface.vertex_colors.clamp(0, 1).double().numpy())
    # A texture is multiplied by COLOR_0, so that beside one the colours go by a name of our own, which nothing shows.
    name = "COLOR_0" if surface.texture is None else COLORS_BESIDE_TEXTURE
    arrays = {
        "NORMAL": normals.astype("<f4"),
        name: np.rint(np.pad(colors, ((0, 0), (0, 1)), constant_values=1) * 65535).astype("<u2"),
        "JOINTS_0": rig.vertex_joints.astype("u1"),
        "WEIGHTS_0": _normalized(rig.vertex_weights),
    }
    attributes = {"POSITION": file.add_accessor(rig.positions[vertex].astype("<f4"), ARRAY_BUFFER, bounds=True)}
    attributes |= {key: file.add_accessor(values[vertex], ARRAY_BUFFER) for key, values in arrays.items()}
    normalized = file.tree["accessors"][attributes[name]]
    normalized["normalized"] = True
    return attributes


def _split(surface: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The body's vertex [n] of each vertex of the file, corners [F, 3] among those, their coordinates [n, 2], v down.

    glTF has one texture coordinate per vertex, so that vertices on a seam stand in the file more than once.
    """
    faces = surface.faces.numpy()
    if surface.corner_uvs is None:
        return np.arange(len(surface.vertex_colors)), faces, None
    uvs = surface.corner_uvs.reshape(-1, 2).numpy().astype(np.float64)
    corners = np.concatenate([faces.reshape(-1, 1), uvs], axis=1)
    unique, index = np.unique(corners, axis=0, return_inverse=True)
    return unique[:, 0].astype(np.int64), index.reshape(-1, 3), np.stack([unique[:, 1], 1 - unique[:, 2]], axis=1)


def _add_material(file: GlbWriter, texture: Tensor | None) -> int:
    """The splats' colours hold their light: shown as they are, by viewers without that extension as a matt surface."""
    material: dict[str, Any] = {"name": "head", "doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}
    material["pbrMetallicRoughness"] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if texture is not None:
        file.tree["images"] = [{"name": "head", "bufferView": file.add_view(_png(texture)), "mimeType": "image/png"}]
        file.tree["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        file.tree["textures"] = [{"source": 0, "sampler": 0}]
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    file.tree["extensionsUsed"].append("KHR_materials_unlit")
    file.tree["materials"] = [material]
    return 0


def _png(texture: Tensor) -> bytes:
    import PIL.Image

    stream = io.BytesIO()
    pixels = torch.round(texture.clamp(0, 1) * 255).to(torch.uint8).numpy()
    PIL.Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def _normalized(weights: np.ndarray) -> np.ndarray:
    """Weights [V, 4] as float32 whose sum is 1 to its last bit: the largest takes the rounding of the others."""
    rounded = weights.astype(np.float32)
    rounded[:, 0] = 1 - rounded[:, 1:].astype(np.float64).sum(axis=1)
    return rounded


def _rounded(offsets: np.ndarray) -> np.ndarray:
    return np.where(np.abs(offsets) < SMALLEST_OFFSET, 0, offsets).astype("<f4")
