"""Reading of mesh files: what must come out right, and what must be refused by name."""

from __future__ import annotations

import base64
import io
import json
import struct

import numpy as np
import PIL.Image
import pytest
import torch

from animportrait3d_core.errors import AnimPortraitError, InvalidInput, MissingModelFile
from animportrait3d_core.mesh_files import LoadSettings, load_mesh, load_mesh_with_report
from animportrait3d_core.mesh_files.colors import linear_to_srgb, srgb_to_linear
from animportrait3d_core.mesh_files.glb import GlbWriter
from animportrait3d_core.mesh_queries import surface_colors

TRIANGLE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
QUAD = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
QUAD_FACES = np.array([0, 1, 2, 0, 2, 3])
QUAD_UVS = np.array([[0.0, 1], [1, 1], [1, 0], [0, 0]])  # glTF: v down
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def png(rows: list[list[tuple[int, ...]]], texels: int = 8) -> bytes:
    """A picture of coloured squares, row 0 at the top, each `texels` wide."""
    pixels = np.repeat(np.repeat(np.array(rows, dtype=np.uint8), texels, 0), texels, 1)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


class GlbBuilder:
    """Writes small GLB files, with anything in them overridden."""

    def __init__(self) -> None:
        self.glb = GlbWriter()
        self.glb.tree.update(meshes=[], nodes=[], scenes=[{"nodes": []}], scene=0, materials=[], images=[], textures=[])

    def material(self, image: bytes | None = None, **fields) -> int:
        base = dict(fields.pop("base", {}))
        if image is not None:
            self.glb.tree["images"].append({"bufferView": self.glb.add_view(image), "mimeType": "image/png"})
            self.glb.tree["textures"].append({"source": len(self.glb.tree["images"]) - 1})
            base["baseColorTexture"] = {"index": len(self.glb.tree["textures"]) - 1, **fields.pop("info", {})}
        self.glb.tree["materials"].append({"pbrMetallicRoughness": base, **fields})
        return len(self.glb.tree["materials"]) - 1

    def mesh(self, positions, indices=None, uvs=None, colors=None, node=None, **primitive) -> GlbBuilder:
        attributes = {"POSITION": self.glb.add_array(np.asarray(positions))}
        if uvs is not None:
            attributes["TEXCOORD_0"] = self.glb.add_array(np.asarray(uvs))
        if colors is not None:
            attributes["COLOR_0"] = self.glb.add_array(np.asarray(colors, dtype=float))
        primitive = {"attributes": attributes, **primitive}
        if indices is not None:
            primitive["indices"] = self.glb.add_array(np.asarray(indices))
        self.glb.tree["meshes"].append({"primitives": [primitive]})
        self.glb.tree["scenes"][0]["nodes"].append(len(self.glb.tree["nodes"]))
        self.glb.tree["nodes"].append({"mesh": len(self.glb.tree["meshes"]) - 1, **(node or {})})
        return self

    def write(self, path):
        path.write_bytes(self.glb.tobytes())
        return path


def color_at(mesh, *point: float) -> list[int]:
    return torch.round(surface_colors(mesh, torch.tensor([point]))[0] * 255).int().tolist()


def test_texture_of_a_glb_lies_the_right_way_up(tmp_path):
    builder = GlbBuilder()
    material = builder.material(png([[RED, GREEN], [BLUE, WHITE]]))
    mesh, report = load_mesh_with_report(
        builder.mesh(QUAD, QUAD_FACES, QUAD_UVS, material=material).write(tmp_path / "a.glb")
    )
    found = [color_at(mesh, x, y, 0) for y in (0.75, 0.25) for x in (0.25, 0.75)]
    assert found == [list(RED), list(GREEN), list(BLUE), list(WHITE)]
    assert (report.color_source, report.textures, report.faces, report.warnings) == ("texture", 1, 2, ())


def test_gltf_factor_tints_in_linear_light(tmp_path):
    builder = GlbBuilder()
    material = builder.material(png([[(188, 188, 188)]]), base={"baseColorFactor": [0.5, 1, 0.25, 1]})
    mesh = load_mesh(builder.mesh(QUAD, QUAD_FACES, QUAD_UVS, material=material).write(tmp_path / "a.glb"))
    expected = linear_to_srgb(srgb_to_linear(np.full(3, 188 / 255)) * [0.5, 1, 0.25]) * 255
    assert np.abs(np.array(color_at(mesh, 0.5, 0.5, 0)) - expected).max() <= 1.5


def test_linear_vertex_colors_become_display_colors(tmp_path):
    linear = np.array([[0.0, 0.2140, 1.0], [0.0123, 0.5, 0.0], [1.0, 1.0, 1.0]])
    path = GlbBuilder().mesh(TRIANGLE, colors=linear).write(tmp_path / "a.glb")
    mesh = load_mesh(path)
    assert torch.allclose(mesh.vertex_colors, torch.tensor(linear_to_srgb(linear)).float(), atol=0.6 / 255)
    as_stored = load_mesh(path, LoadSettings(vertex_color_space="srgb"))
    assert torch.allclose(as_stored.vertex_colors, torch.tensor(linear).float(), atol=0.6 / 255)


def test_scene_transforms_and_mirroring(tmp_path):
    half_turn_y = [0.0, 1.0, 0.0, 0.0]
    builder = GlbBuilder().mesh(TRIANGLE, colors=np.ones((3, 3)), node={"translation": [10, 0, 0], "scale": [2, 2, -2]})
    builder.mesh(TRIANGLE, colors=np.zeros((3, 3)), node={"rotation": half_turn_y, "translation": [0, 5, 0]})
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    corners = mesh.vertices[mesh.faces]
    corners = corners[corners[:, 0, 0].argsort(descending=True)]
    assert report.geometries == 2
    assert {tuple(v) for v in corners[0].tolist()} == {(10, 0, 0), (12, 0, 0), (10, 2, 0)}
    assert torch.allclose(corners[1], torch.tensor([[0.0, 5, 0], [-1, 5, 0], [0, 6, 0]]), atol=1e-6)
    normal = torch.linalg.cross(corners[0, 1] - corners[0, 0], corners[0, 2] - corners[0, 0])
    assert normal[2] < 0  # mirrored in z: what faced +z now faces -z


def test_nested_nodes_multiply(tmp_path):
    builder = GlbBuilder().mesh(TRIANGLE, colors=np.ones((3, 3)), node={"translation": [1, 0, 0]})
    builder.glb.tree["nodes"].append({"scale": [3, 3, 3], "children": [0]})
    builder.glb.tree["scenes"][0]["nodes"] = [1]
    mesh = load_mesh(builder.write(tmp_path / "a.glb"))
    assert mesh.vertices.min(0).values.tolist() == [3, 0, 0]
    assert mesh.vertices.max(0).values.tolist() == [6, 3, 0]


def test_several_materials_become_one_atlas(tmp_path):
    """Two textures, one of them repeated, a flat colour and vertex colours: each keeps its place and colour."""
    builder = GlbBuilder()
    first = builder.material(png([[RED, GREEN], [BLUE, WHITE]]))
    second = builder.material(png([[(10, 20, 30), (200, 100, 50)]], texels=5))
    flat = builder.material(base={"baseColorFactor": [0, 0, 1, 1]})
    builder.mesh(QUAD, QUAD_FACES, QUAD_UVS, material=first)
    builder.mesh(QUAD + [2, 0, 0], QUAD_FACES, QUAD_UVS * [2, 1] + [-3, 4], material=second)
    builder.mesh(QUAD + [4, 0, 0], QUAD_FACES, material=flat)
    corners = np.array([[0.2, 0.3, 0.4], [0.8, 0.4, 0.4], [0.2, 0.3, 0.9]])
    builder.mesh(TRIANGLE + [6, 0, 0], colors=srgb_to_linear(corners))
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    assert (report.textures, report.geometries, report.color_source) == (2, 4, "texture")
    assert [color_at(mesh, x, 0.75, 0) for x in (0.25, 0.75)] == [list(RED), list(GREEN)]
    repeated = [color_at(mesh, 2 + x, 0.5, 0) for x in (0.125, 0.375, 0.625, 0.875)]
    assert repeated == [[10, 20, 30], [200, 100, 50]] * 2
    assert color_at(mesh, 4.5, 0.5, 0) == list(BLUE)
    # Interior: the blend of the corners, at the corners themselves their own colour.
    assert np.abs(np.array(color_at(mesh, 6.25, 0.25, 0)) - 255 * np.array([0.5, 0.25, 0.25]) @ corners).max() <= 1
    assert np.abs(np.array(color_at(mesh, 7.0, 0.0, 0)) - 255 * corners[1]).max() <= 1


def test_atlas_edges_do_not_bleed(tmp_path):
    """At the rim of a texture in an atlas the neighbour in the atlas must not show."""
    builder = GlbBuilder()
    for shift, color in ((0, RED), (2, GREEN), (4, BLUE)):
        builder.mesh(QUAD + [shift, 0, 0], QUAD_FACES, QUAD_UVS, material=builder.material(png([[color]], texels=7)))
    mesh = load_mesh(builder.write(tmp_path / "a.glb"))
    for shift, color in ((0, RED), (2, GREEN), (4, BLUE)):
        rim = [color_at(mesh, shift + x, y, 0) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0), (0, 0.5))]
        assert rim == [list(color)] * 6


def test_normalised_integer_coordinates_are_scaled(tmp_path):
    builder = GlbBuilder()
    material = builder.material(png([[RED, GREEN], [BLUE, WHITE]]))
    builder.mesh(QUAD, QUAD_FACES, QUAD_UVS, material=material)
    tree = builder.glb.tree
    place = tree["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"]
    view = builder.glb.add_view((QUAD_UVS * 65535).astype("<u2").tobytes())
    tree["accessors"][place] = {
        "componentType": 5123,
        "normalized": True,
        "type": "VEC2",
        "count": 4,
        "bufferView": view,
    }
    mesh = load_mesh(builder.write(tmp_path / "a.glb"))
    assert color_at(mesh, 0.25, 0.75, 0) == list(RED) and color_at(mesh, 0.75, 0.25, 0) == list(WHITE)


def test_sparse_positions_are_applied(tmp_path):
    builder = GlbBuilder().mesh(TRIANGLE, colors=np.ones((3, 3)))
    rows, values = builder.glb.add_view(struct.pack("<H", 1)), builder.glb.add_view(struct.pack("<3f", 7, 8, 9))
    builder.glb.tree["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": rows, "componentType": 5123},
        "values": {"bufferView": values},
    }
    mesh = load_mesh(builder.write(tmp_path / "a.glb"))
    assert [7.0, 8.0, 9.0] in mesh.vertices.tolist()


def test_texture_transform_and_second_coordinate_set(tmp_path):
    builder = GlbBuilder()
    transform = {"scale": [0.5, 0.5], "offset": [0.5, 0.0]}  # the upper right quarter of the picture
    info = {"texCoord": 1, "extensions": {"KHR_texture_transform": transform}}
    material = builder.material(png([[RED, GREEN], [BLUE, WHITE]]), info=info)
    builder.mesh(QUAD, QUAD_FACES, np.zeros((4, 2)), material=material)
    attributes = builder.glb.tree["meshes"][0]["primitives"][0]["attributes"]
    attributes["TEXCOORD_1"] = builder.glb.add_array(QUAD_UVS)
    mesh = load_mesh(builder.write(tmp_path / "a.glb"))
    assert [color_at(mesh, x, y, 0) for x, y in ((0.2, 0.2), (0.8, 0.8))] == [list(GREEN)] * 2


@pytest.mark.parametrize("mode, indices", [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])])
def test_strips_and_fans_become_triangles(tmp_path, mode, indices):
    path = GlbBuilder().mesh(QUAD, indices, colors=np.ones((4, 3)), mode=mode).write(tmp_path / "a.glb")
    mesh = load_mesh(path)
    edges = mesh.vertices[mesh.faces]
    doubled = torch.linalg.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])
    assert torch.allclose(doubled.sum(0), torch.tensor([0.0, 0, 2.0]))
    assert (doubled[:, 2] > 0).all()


def test_transparent_shells_are_removed(tmp_path):
    """A cornea in front of the eye is invisible in every viewer and must not hide the iris."""
    builder = GlbBuilder()
    builder.mesh(QUAD, QUAD_FACES, colors=np.ones((4, 3)))
    glass = builder.material(base={"baseColorFactor": [1, 1, 1, 0.1]}, alphaMode="BLEND")
    builder.mesh(QUAD + [0, 0, 1], QUAD_FACES, material=glass)
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    assert report.transparent_faces_removed == 2 and mesh.vertices[:, 2].max() == 0


def test_masked_texels_remove_faces_that_are_wholly_clear(tmp_path):
    builder = GlbBuilder()
    image = png([[(255, 0, 0, 255), (0, 0, 0, 0)]])
    material = builder.material(image, alphaMode="MASK")
    left, right = QUAD_UVS * [0.5, 1], QUAD_UVS * [0.5, 1] + [0.5, 0]
    builder.mesh(QUAD, QUAD_FACES, left * 0.98 + 0.005, material=material)
    builder.mesh(QUAD + [2, 0, 0], QUAD_FACES, right * 0.98 + [0.01, 0.01], material=material)
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    assert report.transparent_faces_removed == 2 and mesh.vertices[:, 0].max() == 1


def test_vertices_at_seams_are_joined_and_hard_colors_kept(tmp_path):
    """Two triangles of different colour over a shared edge: the edge is split; of one colour: it is joined."""
    positions = QUAD[QUAD_FACES]
    same = load_mesh(GlbBuilder().mesh(positions, colors=np.ones((6, 3))).write(tmp_path / "a.glb"))
    assert len(same.vertices) == 4
    colors = np.repeat([[1.0, 0, 0], [0, 0, 1.0]], 3, axis=0)
    split = load_mesh(GlbBuilder().mesh(positions, colors=colors).write(tmp_path / "b.glb"))
    assert len(split.vertices) == 6
    assert color_at(split, 0.7, 0.3, 0) == list(RED) and color_at(split, 0.3, 0.7, 0) == list(BLUE)


def test_degenerate_faces_and_lonely_vertices_are_counted(tmp_path):
    positions = np.concatenate([QUAD, [[9, 9, 9]], [[0.5, 0, 0]]])
    faces = np.concatenate([QUAD_FACES, [0, 0, 1], [0, 5, 1]])  # a repeated corner, three points in a line
    path = GlbBuilder().mesh(positions, faces, colors=np.ones((6, 3))).write(tmp_path / "a.glb")
    mesh, report = load_mesh_with_report(path)
    assert (report.degenerate_faces_removed, report.unused_vertices_dropped) == (2, 1)
    assert len(mesh.faces) == 2 and len(mesh.vertices) == 4
    assert report.boundary_edges == 4 and report.non_manifold_edges == 0


def test_non_manifold_edges_are_counted(tmp_path):
    positions = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]])
    path = GlbBuilder().mesh(positions, [0, 1, 2, 0, 1, 3, 0, 1, 4], colors=np.ones((5, 3))).write(tmp_path / "a.glb")
    _, report = load_mesh_with_report(path)
    assert report.non_manifold_edges == 1 and any("three or more" in warning for warning in report.warnings)


def test_obj_with_material_texture_quads_and_corner_coordinates(tmp_path):
    (tmp_path / "skin.png").write_bytes(png([[RED, GREEN], [BLUE, WHITE]]))
    (tmp_path / "a.mtl").write_text("newmtl skin\nKd 0.8 0.8 0.8\nmap_Kd skin.png\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 2 0 0\nv 2 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        "usemtl skin\nf 1/1 2/2 3/3 4/4\nf 2/1 5/2 6/3 3/4\n"
    )
    mesh, report = load_mesh_with_report(tmp_path / "a.obj")
    assert report.faces == 4 and len(mesh.vertices) == 6
    for shift in (0, 1):  # both quads show the whole picture although they share an edge
        assert [color_at(mesh, shift + x, y, 0) for y in (0.75, 0.25) for x in (0.25, 0.75)] == [
            list(RED), list(GREEN), list(BLUE), list(WHITE)
        ]  # fmt: skip


def test_obj_without_its_companions_is_grey_and_told(tmp_path):
    (tmp_path / "a.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl skin\nf 1 2 3\n")
    mesh, report = load_mesh_with_report(tmp_path / "a.obj")
    assert report.color_source == "none" and torch.allclose(mesh.vertex_colors, torch.full((3, 3), 0.7))
    assert any("gone.mtl" in warning for warning in report.warnings)
    assert any("grey" in warning for warning in report.warnings)


def test_gltf_with_embedded_buffer_and_missing_picture(tmp_path):
    data = TRIANGLE.astype("<f4").tobytes() + QUAD_UVS[:3].astype("<f4").tobytes()
    tree = {
        "asset": {"version": "2.0"},
        "buffers": [
            {"byteLength": 60, "uri": "data:application/octet-stream;base64," + base64.b64encode(data).decode()}
        ],
        "bufferViews": [{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 24}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": 3},
            {"bufferView": 1, "componentType": 5126, "type": "VEC2", "count": 3},
        ],
        "images": [{"uri": "my%20skin.png"}],
        "textures": [{"source": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
        "nodes": [{"mesh": 0}],
    }
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(tree))
    mesh, report = load_mesh_with_report(path)
    assert mesh.texture is None and any("my%20skin.png" in warning for warning in report.warnings)
    (tmp_path / "my skin.png").write_bytes(png([[GREEN]]))
    mesh, report = load_mesh_with_report(path)
    assert color_at(mesh, 0.2, 0.2, 0) == list(GREEN) and report.warnings == ()


def test_large_textures_are_shrunk_and_told(tmp_path):
    builder = GlbBuilder()
    builder.mesh(QUAD, QUAD_FACES, QUAD_UVS, material=builder.material(png([[RED, GREEN]], texels=64)))
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"), LoadSettings(max_texture_size=16))
    assert tuple(mesh.texture.shape) == (8, 16, 3) and any("shrunk" in warning for warning in report.warnings)
    assert color_at(mesh, 0.25, 0.5, 0) == list(RED)


ASCII_PLY = """ply
format ascii 1.0
element vertex 3
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face 1
property list uchar int vertex_indices
end_header
0 0 0 255 0 0
1 0 0 0 255 0
0 1 0 0 0 255
3 0 1 2
"""


def test_ply_colors(tmp_path):
    (tmp_path / "a.ply").write_text(ASCII_PLY)
    mesh, report = load_mesh_with_report(tmp_path / "a.ply")
    assert report.color_source == "vertex colors"
    assert color_at(mesh, 1, 0, 0) == list(GREEN) and color_at(mesh, 0, 1, 0) == list(BLUE)


def test_stl_and_off_are_read_grey(tmp_path):
    corners = TRIANGLE.astype("<f4").tobytes()
    (tmp_path / "a.stl").write_bytes(bytes(80) + struct.pack("<I", 1) + bytes(12) + corners + bytes(2))
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    for name in ("a.stl", "a.off"):
        mesh, report = load_mesh_with_report(tmp_path / name)
        assert len(mesh.vertices) == 3 and report.color_source == "none" and "grey" in report.summary()


def write_bad_files(folder):
    good = GlbBuilder().mesh(QUAD, QUAD_FACES, colors=np.ones((4, 3)))
    data = good.glb.tobytes()
    cases = {
        "truncated.glb": (data[: len(data) // 2], "truncated: .* its header promises"),
        "head.glb": (data[:10], "truncated: 10 bytes"),
        "text.glb": (b"<html>404 not found</html>", "could not be read as GLB"),
        "empty.glb": (b"", "is empty"),
        "cloud.ply": (ASCII_PLY.replace("element face 1", "element face 0").encode(), "point cloud of 3 points"),
        "short.ply": (ASCII_PLY[:-20].encode(), "truncated: 3 rows"),
        "splat.ply": (ASCII_PLY.replace("red", "f_dc_0").replace("green", "rot_0").encode(), "'Portrait from Splats'"),
        "small.ply": (ASCII_PLY.replace("red", "packed_rotation").encode(), "compressed Gaussian splats"),
        "nan.ply": (ASCII_PLY.replace("0 0 0 255 0 0", "nan 0 0 255 0 0").encode(), "1 vertices of 3 with NaN"),
        "range.ply": (ASCII_PLY.replace("3 0 1 2", "3 0 1 7").encode(), "vertices 0 to 7"),
        "points.obj": (b"v 0 0 0\nv 1 0 0\n", "2 vertices and 0 faces"),
        "range.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "there are 3"),
        "zero.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "counts from 1"),
        "relative.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 5 5 5\n", "relative"),
        "line.obj": (b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "without area"),
        "huge.obj": (b"v 0 0 0\nv 1e9 0 0\nv 0 1 0\nf 1 2 3\n", "1e\\+09 units large"),
        "tiny.obj": (b"v 0 0 0\nv 1e-9 0 0\nv 0 1e-9 0\nf 1 2 3\n", "1e-09 units large"),
        "short.stl": (bytes(80) + struct.pack("<I", 1000) + bytes(50), "1000 faces need 50084"),
        "odd.xyz": (b"1 2 3", "ends in '.xyz'"),
    }
    bad = GlbBuilder().mesh(QUAD, [0, 1, 9], colors=np.ones((4, 3)))
    cases["range.glb"] = (bad.glb.tobytes(), "vertex 9, but there are 4")
    points = GlbBuilder().mesh(QUAD, mode=0)
    cases["points.glb"] = (points.glb.tobytes(), "0 visible faces")
    cycle = GlbBuilder().mesh(QUAD, QUAD_FACES)
    cycle.glb.tree["nodes"] += [{"children": [2]}, {"children": [1, 0]}]
    cycle.glb.tree["scenes"][0]["nodes"] = [1]
    cases["cycle.glb"] = (cycle.glb.tobytes(), "0 visible faces|cycle")
    parents = GlbBuilder().mesh(QUAD, QUAD_FACES)
    parents.glb.tree["nodes"] += [{"children": [0]}, {"children": [0]}]
    cases["parents.glb"] = (parents.glb.tobytes(), "two parents")
    for name, (content, _) in cases.items():
        (folder / name).write_bytes(content)
    return {name: message for name, (_, message) in cases.items()}


def test_bad_files_are_refused_with_the_reason(tmp_path):
    for name, message in write_bad_files(tmp_path).items():
        with pytest.raises(InvalidInput, match=message) as caught:
            load_mesh(tmp_path / name)
        assert str(caught.value).startswith("load_mesh: '"), name
        assert name in str(caught.value)


def test_missing_files_and_folders_are_told_apart(tmp_path):
    with pytest.raises(MissingModelFile, match="does not exist"):
        load_mesh(tmp_path / "none.glb")
    with pytest.raises(MissingModelFile, match="is a folder"):
        load_mesh(tmp_path)


def test_too_many_faces_are_refused_with_both_numbers(tmp_path):
    path = GlbBuilder().mesh(QUAD, QUAD_FACES, colors=np.ones((4, 3))).write(tmp_path / "a.glb")
    with pytest.raises(AnimPortraitError, match="2 faces, expected at most 1"):
        load_mesh(path, LoadSettings(max_faces=1))


def test_settings_are_checked():
    with pytest.raises(InvalidInput, match="'rec709'"):
        LoadSettings(vertex_color_space="rec709")
    with pytest.raises(InvalidInput, match="at least 1"):
        LoadSettings(max_faces=0)
