"""Writing a `Mesh` as GLB, OBJ (with MTL and PNG) or PLY, in one piece."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InvalidInput
from ..files import atomic_write
from ..mesh_queries import colors_at
from ..meshes import Mesh, split_at_seams
from .colors import srgb_to_linear

SAVE_FORMATS = (".glb", ".obj", ".ply")


def save_mesh(mesh: Mesh, path: str | Path) -> Path:
    """Write a mesh; the extension chooses GLB, OBJ or PLY. Returns the path.

    Textures are stored as PNG: inside a GLB, beside an OBJ as `<stem>.mtl` and `<stem>.png`. A PLY cannot hold one and
    is refused; see `texture_to_vertex_colors`. Vertex colours are stored as linear 16-bit values in GLB, as its
    specification asks, and as 8-bit display colours in PLY and OBJ. Materials are matt and double-sided.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SAVE_FORMATS:
        raise InvalidInput(f"save_mesh: '{path.name}' ends in '{suffix}', expected one of {', '.join(SAVE_FORMATS)}.")
    if len(mesh.faces) == 0:
        raise InvalidInput(f"save_mesh: the mesh for '{path.name}' has 0 faces, expected at least 1.")
    if suffix == ".ply" and mesh.texture is not None:
        raise InvalidInput(
            f"save_mesh: PLY cannot hold the texture of '{path.name}'; choose .glb or .obj, or convert the mesh with "
            "texture_to_vertex_colors first."
        )
    if suffix == ".glb":
        _write(path, _glb_bytes(mesh))
    elif suffix == ".ply":
        _write(path, _to_trimesh(mesh).export(file_type="ply"))
    else:
        _write_obj(mesh, path)
    return path


def texture_to_vertex_colors(mesh: Mesh) -> Mesh:
    """The mesh with vertex colours instead of its texture: at each vertex the mean over the corners that meet there."""
    if mesh.texture is None:
        return mesh
    faces = torch.arange(len(mesh.faces))[:, None].expand(-1, 3)
    corners = colors_at(mesh, faces, torch.eye(3).expand(len(mesh.faces), 3, 3))
    total = torch.zeros(len(mesh.vertices), 3).index_add(0, mesh.faces.reshape(-1), corners.reshape(-1, 3))
    count = torch.bincount(mesh.faces.reshape(-1), minlength=len(mesh.vertices)).clamp(min=1)
    return Mesh(mesh.vertices, mesh.faces, vertex_colors=total / count[:, None])


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _texture_png(mesh: Mesh) -> Any:
    import PIL.Image

    if mesh.texture is None:
        return None
    pixels = torch.round(mesh.texture.clamp(0, 1) * 255).to(torch.uint8).numpy()
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, format="PNG")
    return PIL.Image.open(stream)


def _to_trimesh(mesh: Mesh) -> Any:
    """A trimesh object; vertices are split where texture coordinates meet, since these files index both at once."""
    import trimesh

    faces = mesh.faces.numpy()
    if mesh.texture is None or mesh.corner_uvs is None:
        colors = None
        if mesh.vertex_colors is not None:
            colors = torch.round(mesh.vertex_colors.clamp(0, 1) * 255).to(torch.uint8).numpy()
        return trimesh.Trimesh(mesh.vertices.numpy(), faces, vertex_colors=colors, process=False)
    split = split_at_seams(mesh)
    material = trimesh.visual.material.PBRMaterial(
        name="portrait", baseColorTexture=_texture_png(mesh), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    visual = trimesh.visual.TextureVisuals(uv=split.uvs.double().numpy(), material=material)
    return trimesh.Trimesh(split.vertices.numpy(), split.faces.numpy(), visual=visual, process=False)


def _glb_bytes(mesh: Mesh) -> bytes:
    """GLB through trimesh, with our name as the generator and vertex colours in linear light."""
    import trimesh

    colors = None
    if mesh.texture is None and mesh.vertex_colors is not None:
        linear = srgb_to_linear(mesh.vertex_colors.clamp(0, 1).numpy().astype(np.float64))
        colors = np.ones((len(linear), 4), dtype="<u2") * np.uint16(65535)
        colors[:, :3] = np.rint(linear * 65535)

    def add_colors(buffer_items: dict[Any, bytes], tree: dict[str, Any]) -> None:
        if colors is None:
            return
        key = ("vertex colors", len(buffer_items))
        buffer_items[key] = colors.tobytes()
        view = list(buffer_items).index(key)
        accessor = {"componentType": 5123, "normalized": True, "type": "VEC4", "count": len(colors)}
        name = f"color-{len(tree['accessors'])}"
        tree["accessors"][name] = {**accessor, "bufferView": view, "byteOffset": 0}
        primitive = tree["meshes"][0]["primitives"][0]
        primitive["attributes"]["COLOR_0"] = len(tree["accessors"]) - 1
        pbr = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        tree["materials"].append({"name": "portrait", "doubleSided": True, "pbrMetallicRoughness": pbr})
        primitive["material"] = len(tree["materials"]) - 1

    def sign(tree: dict[str, Any]) -> None:
        tree["asset"]["generator"] = "animportrait3d"

    bare = Mesh(mesh.vertices, mesh.faces) if colors is not None else mesh
    return trimesh.exchange.gltf.export_glb(
        trimesh.Scene(_to_trimesh(bare)),
        include_normals=False,
        buffer_postprocessor=add_colors,
        tree_postprocessor=sign,
    )


def _write_obj(mesh: Mesh, path: Path) -> None:
    """OBJ with its companions; the OBJ is renamed into place last, so that it never names files that are not there."""
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices.tolist()]
    if mesh.texture is not None and mesh.corner_uvs is not None:
        image = path.with_suffix(".png")
        with atomic_write(image) as temporary:
            _texture_png(mesh).save(temporary, format="PNG")
        material = f"newmtl portrait\nKd 1 1 1\nmap_Kd {image.name}\n"
        _write(path.with_suffix(".mtl"), material.encode())
        uvs, index = np.unique(mesh.corner_uvs.numpy().reshape(-1, 2), axis=0, return_inverse=True)
        lines += [f"vt {u:.9g} {v:.9g}" for u, v in uvs.tolist()]
        lines = [f"mtllib {path.stem}.mtl", *lines, "usemtl portrait"]
        for corners, places in zip((mesh.faces + 1).tolist(), (index.reshape(-1, 3) + 1).tolist()):
            lines.append("f " + " ".join(f"{corner}/{place}" for corner, place in zip(corners, places)))
    else:
        if mesh.vertex_colors is not None:
            colors = mesh.vertex_colors.clamp(0, 1).tolist()
            lines = [f"{line} {r:.5f} {g:.5f} {b:.5f}" for line, (r, g, b) in zip(lines, colors)]
        lines += ["f {} {} {}".format(*corners) for corners in (mesh.faces + 1).tolist()]
    _write(path, ("\n".join(lines) + "\n").encode())
