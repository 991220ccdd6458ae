"""Small whole mesh files of every kind that is read: plain, coloured, textured, skinned, quantised, compressed."""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from animportrait3d_core.mesh_files import save_mesh
from animportrait3d_core.meshes import Mesh
from tests.fuzz.format import Seed
from tests.mesh_files.test_gltf_geometry import add, draco_file, meshopt_file, skinned
from tests.mesh_files.test_load_mesh import QUAD, QUAD_FACES, QUAD_UVS, TRIANGLE, GlbBuilder


@functools.cache
def bump() -> Mesh:
    """A bent sheet of 5 x 5 points with vertex colours."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 5), indexing="ij")
    points = torch.stack([x, y, 1 - x * x - y * y], -1).reshape(-1, 3)
    first = (torch.arange(4)[:, None] * 5 + torch.arange(4)).reshape(-1)
    faces = torch.cat(
        [torch.stack([first, first + 1, first + 5], 1), torch.stack([first + 1, first + 6, first + 5], 1)]
    )
    return Mesh(points, faces, vertex_colors=((points + 1) / 2).clamp(0, 1))


def textured() -> Mesh:
    """The sheet with a picture."""
    mesh = bump()
    uvs = ((mesh.vertices[mesh.faces][..., :2] + 1) / 2).contiguous()
    picture = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0))
    return Mesh(mesh.vertices, mesh.faces, corner_uvs=uvs, texture=picture)


def picture(mode: str = "RGB", kind: str = "PNG") -> bytes:
    """An encoded picture of 8 x 8."""
    import PIL.Image

    values = np.random.default_rng(1).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(values, "RGBA").convert(mode).save(stream, kind)
    return stream.getvalue()


def written(name: str, mesh: Mesh) -> bytes:
    """A file as our own writer makes it."""
    with tempfile.TemporaryDirectory() as folder:
        return save_mesh(mesh, Path(folder) / name).read_bytes()


def obj_seeds() -> list[Seed]:
    mesh = bump()
    vertices = "".join(f"v {x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in mesh.vertices.tolist())
    uvs = "".join(f"vt {(x + 1) / 2:.3f} {(y + 1) / 2:.3f}\n" for x, y, _ in mesh.vertices.tolist())
    faces = [[index + 1 for index in row] for row in mesh.faces.tolist()]
    mapped = "".join("f " + " ".join(f"{i}/{i}" for i in row) + "\n" for row in faces)
    relative = "".join("f " + " ".join(f"{i - 26}//-1" for i in row) + "\n" for row in faces)
    material = (
        "newmtl skin\nKd 0.8 0.7 0.6\nd 1.0\nmap_Kd -s 2 2 1 -o 0.5 0 0 skin.png\nnewmtl plain\nKd 1 0 0\nd 0.5\n"
    )
    half = len(mapped) // 2
    half = mapped.index("\n", half) + 1
    text = f"mtllib a.mtl\n{vertices}{uvs}usemtl skin\n{mapped[:half]}usemtl plain\n{mapped[half:]}"
    files = {"a.obj": text.encode(), "a.mtl": material.encode()}
    return [
        Seed({"a.obj": written("a.obj", mesh)}),
        Seed({**files, "skin.png": picture()}),
        Seed({**files, "skin.png": picture("RGB", "JPEG")}),
        Seed({**files, "skin.png": picture("RGBA")}),
        Seed({"a.obj": (vertices + "vn 0 0 1\n" + relative + "f 1 2 7 6\n").encode()}),
    ]


def _ply(kind: str, mesh: Mesh, extra: str = "", corners: str = "") -> bytes:
    header = f"ply\nformat {kind} 1.0\n{extra}element vertex {len(mesh.vertices)}\nproperty float x\nproperty float y\n"
    header += f"property float z\nelement face {len(mesh.faces)}\nproperty list uchar int vertex_indices\n{corners}"
    header += "end_header\n"
    if kind == "ascii":
        rows = [" ".join(f"{value:.4f}" for value in row) for row in mesh.vertices.tolist()]
        uvs = " 6 0 0 1 0 0 1" if corners else ""
        rows += ["3 " + " ".join(map(str, row)) + uvs for row in mesh.faces.tolist()]
        return (header + "\n".join(rows) + "\n").encode()
    order = "<" if "little" in kind else ">"
    kinds = [("n", "u1"), ("i", order + "i4", 3)] + ([("m", "u1"), ("t", order + "f4", 6)] if corners else [])
    table = np.zeros(len(mesh.faces), kinds)
    table["n"], table["i"] = 3, mesh.faces.numpy()
    if corners:
        table["m"], table["t"] = 6, np.array([0, 0, 1, 0, 0, 1])
    return header.encode() + mesh.vertices.numpy().astype(order + "f4").tobytes() + table.tobytes()


TEXCOORD = "property list uchar float texcoord\n"


def ply_ascii_seeds() -> list[Seed]:
    named = "comment TextureFile skin.png\n"
    return [
        Seed({"a.ply": _ply("ascii", bump())}),
        Seed({"a.ply": _ply("ascii", bump(), named, TEXCOORD), "skin.png": picture()}),
        Seed({"a.ply": _ply("ascii", bump(), named, TEXCOORD)}),
    ]


def ply_binary_seeds() -> list[Seed]:
    named = "comment TextureFile skin.png\n"
    return [
        Seed({"a.ply": written("a.ply", bump())}),
        Seed({"a.ply": _ply("binary_little_endian", bump(), named, TEXCOORD), "skin.png": picture("RGBA")}),
        Seed({"a.ply": _ply("binary_big_endian", bump())}),
    ]


def _of_builder(builder: GlbBuilder) -> Seed:
    return Seed({"a.glb": builder.glb.tobytes()})


def glb_seeds() -> list[Seed]:
    pictured = GlbBuilder()
    material = pictured.material(
        picture("RGBA"), base={"baseColorFactor": [1, 0.5, 1, 1]}, alphaMode="MASK", alphaCutoff=0.4,
        info={"extensions": {"KHR_texture_transform": {"scale": [2, 2], "offset": [0.1, 0], "rotation": 0.2}}},
    )  # fmt: skip
    pictured.mesh(QUAD, QUAD_FACES, QUAD_UVS, material=material, mode=4)
    sparse = GlbBuilder().mesh(QUAD, [0, 1, 2, 3], colors=np.ones((4, 4)) * 0.5, mode=5, node={"scale": [1, 2, 1]})
    tree = sparse.glb.tree
    places = {"bufferView": sparse.glb.add_view(np.array([1], "<u2").tobytes()), "componentType": 5123}
    replaced = {"bufferView": sparse.glb.add_view(np.array([[5, 0, 1]], "<f4").tobytes())}
    tree["accessors"][0]["sparse"] = {"count": 1, "indices": places, "values": replaced}
    quantised = GlbBuilder().mesh(QUAD, QUAD_FACES, node={"scale": [0.001] * 3, "children": [1]})
    quantised.glb.tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = add(
        quantised, 1000 * QUAD, "VEC3", "<i2"
    )
    quantised.glb.tree["nodes"].append({"matrix": np.eye(4).ravel().tolist(), "mesh": 0})
    quantised.glb.tree["extensionsRequired"] = ["KHR_mesh_quantization"]
    return [
        Seed({"a.glb": written("a.glb", bump())}),
        Seed({"a.glb": written("a.glb", textured())}),
        *(_of_builder(builder) for builder in (pictured, sparse, quantised, skinned())),
    ]


def gltf_seeds() -> list[Seed]:
    inner = GlbBuilder().mesh(TRIANGLE, [0, 1, 2], colors=np.ones((3, 3)))
    builder = GlbBuilder()
    builder.mesh(QUAD, QUAD_FACES, QUAD_UVS, material=0)
    outer = builder.glb.tree
    outer["images"], outer["textures"] = [{"uri": "skin%20a.png"}], [{"source": 0}]
    outer["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    whole = []
    for tree, data, uri in ((inner.glb.tree, inner.glb.data, None), (outer, builder.glb.data, "a.bin")):
        coded = "data:application/octet-stream;base64," + base64.b64encode(bytes(data)).decode()
        tree["buffers"] = [{"byteLength": len(data), "uri": uri or coded}]
        whole.append({"a.gltf": json.dumps(tree).encode()})
    return [Seed(whole[0]), Seed({**whole[1], "a.bin": bytes(builder.glb.data), "skin a.png": picture()})]


def draco_seeds() -> list[Seed]:
    """Of what the package can be asked; it must be there."""
    import DracoPy

    faces = QUAD_FACES.reshape(-1, 3).astype(np.uint32)
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for index, settings in enumerate(({"quantization_bits": 14}, {"preserve_order": True})):
            blob = DracoPy.encode(QUAD.astype(np.float32), faces, tex_coord=QUAD_UVS, **settings)
            kinds = {entry["attribute_type"]: entry["unique_id"] for entry in DracoPy.decode(blob).attributes}
            path = draco_file(Path(folder) / f"{index}.glb", blob, {"POSITION": kinds[0], "TEXCOORD_0": kinds[3]})
            seeds.append(Seed({"a.glb": path.read_bytes()}))
    return seeds


def meshopt_seeds() -> list[Seed]:
    """Values, values behind a filter, indices; the package must be there."""
    import meshoptimizer

    seeds = []
    indices = bytes(meshoptimizer.encode_index_buffer(np.array([0, 1, 2], dtype=np.uint32), 3, 3))
    exponential = (TRIANGLE * 2).astype("<u4") | np.uint32(0xFF << 24)
    with tempfile.TemporaryDirectory() as folder:
        for values, mode in ((TRIANGLE.astype("<f4"), {}), (exponential, {"filter": "EXPONENTIAL"})):
            positions = bytes(meshoptimizer.encode_vertex_buffer(values, 3, 12))
            path = meshopt_file(Path(folder) / "a.gltf", positions, indices, **mode)
            seeds.append(Seed({"a.gltf": path.read_bytes()}))
    return seeds


def stl_seeds() -> list[Seed]:
    corners = bump().vertices[bump().faces].numpy().astype("<f4")
    rows = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    rows["corners"] = corners
    binary = bytes(80) + np.array([len(rows)], "<u4").tobytes() + rows.tobytes()
    words = "".join(
        "facet normal 0 0 1\nouter loop\n"
        + "".join(f"vertex {x} {y} {z}\n" for x, y, z in face)
        + "endloop\nendfacet\n"
        for face in corners.tolist()
    )
    return [Seed({"a.stl": binary}), Seed({"a.stl": f"solid a\n{words}endsolid a\n".encode()})]


def off_seeds() -> list[Seed]:
    mesh = bump()
    rows = [" ".join(map(str, row)) for row in mesh.vertices.tolist()]
    rows += ["3 " + " ".join(map(str, row)) for row in mesh.faces.tolist()]
    return [Seed({"a.off": f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n".encode() + "\n".join(rows).encode()})]


def installed(package: str) -> bool:
    """Whether a package could be imported."""
    return importlib.util.find_spec(package) is not None
