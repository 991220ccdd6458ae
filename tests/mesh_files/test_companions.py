"""Files beside a mesh: found as other systems name them, read, and said truly when they are not."""

from __future__ import annotations

import base64
import io
import json
import urllib.parse

import numpy as np
import PIL.Image
import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.files import require_file
from animportrait3d_core.mesh_files import load_mesh_with_report
from animportrait3d_core.mesh_files.companions import companion_files
from tests.mesh_files.test_load_mesh import (
    BLUE,
    GREEN,
    QUAD,
    QUAD_FACES,
    QUAD_UVS,
    RED,
    WHITE,
    GlbBuilder,
    color_at,
    png,
)

QUAD_OBJ = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl skin\nf 1/1 2/2 3/3 4/4\n"
PICTURE = png([[RED, GREEN], [BLUE, WHITE]])
BOM = b"\xef\xbb\xbf"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def corners(mesh):
    return [color_at(mesh, x, y, 0) for y in (0.75, 0.25) for x in (0.25, 0.75)]


def write(folder, mtl, files, obj=QUAD_OBJ):
    """An OBJ with its material file and other files by name."""
    (folder / "a.obj").write_text(f"mtllib a.mtl\n{obj}")
    for name, data in {**files, "a.mtl": mtl.encode()}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / "a.obj"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("map_Kd textures\\tex.png", "textures/tex.png"),
        ("map_Kd TEX.PNG", "tex.png"),
        ("map_Kd Textures\\Tex.png", "textures/tex.PNG"),
        ("map_Kd C:\\Users\\me\\Desktop\\my tex.png", "my tex.png"),
        ("map_Kd /home/me/tex.png", "tex.png"),
        ("map_Kd -clamp on -bm 1.0 tex.png", "tex.png"),
        ("map_Kd -s 1 1 1 -o 0 0 0 my tex.png", "my tex.png"),
        ('map_Kd "my tex.png"', "my tex.png"),
        ("\tmap_Kd\ttex.png", "tex.png"),
        ("map_Kd -colorspace sRGB tex.png", "tex.png"),
        ("map_Kd tex.png # the skin", "tex.png"),
        ("map_Kd my%20tex.png", "my tex.png"),
        ("map_Kd k\u00f6pf.png", "ko\u0308pf.png"),
        ("Kd 0 0 0\nmap_Ke tex.png", "tex.png"),
        ("map_Ka tex.png", "tex.png"),
        ("map_Kd C:\\art\\textures\\tex.png", "textures/tex.png"),
        ("map_Kd ..\\gone\\textures\\tex.png", "textures/tex.png"),
        ("map_Kd tex.png", "Textures/tex.png"),
        ("map_Kd 'my tex.png'", "my tex.png"),
        ("map_Kd tex.png -s 1 1 1", "tex.png"),
    ],
)
def test_a_picture_is_found_however_it_is_named(tmp_path, line, place):
    path = write(tmp_path, f"newmtl skin\nKd 0 0 0\n{line}\n", {place: PICTURE})
    mesh, report = load_mesh_with_report(path)
    assert corners(mesh) == [list(RED), list(GREEN), list(BLUE), list(WHITE)]
    assert (report.color_source, report.warnings) == ("texture", ())
    assert sorted(report.files) == sorted(["a.mtl", place.split("/")[-1]]) and place.split("/")[-1] in report.summary()
    assert companion_files(path) == [tmp_path / "a.mtl", tmp_path / place]


def test_a_glow_beside_a_colour_is_no_texture(tmp_path):
    mesh, report = load_mesh_with_report(
        write(tmp_path, "newmtl skin\nKd 1 0 0\nmap_Ke tex.png\n", {"tex.png": PICTURE})
    )
    assert report.color_source == "material colors" and color_at(mesh, 0.5, 0.5, 0) == list(RED)


@pytest.mark.parametrize("ends", ["\r", "\r\n"])
@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_files_of_other_systems(tmp_path, ends, code):
    (tmp_path / "a.obj").write_bytes(f"mtllib a.mtl\n{QUAD_OBJ}".replace("\n", ends).encode(code))
    (tmp_path / "a.mtl").write_bytes("newmtl skin\nmap_Kd tex.png\n".replace("\n", ends).encode(code))
    (tmp_path / "tex.png").write_bytes(PICTURE)
    mesh, report = load_mesh_with_report(tmp_path / "a.obj")
    assert corners(mesh) == [list(RED), list(GREEN), list(BLUE), list(WHITE)] and report.warnings == ()
    assert [file.name for file in companion_files(tmp_path / "a.obj")] == ["a.mtl", "tex.png"]


@pytest.mark.parametrize(
    ("use", "warning"),
    [
        ("usemtl Skin", ""),
        ("usemtl skin # front", ""),
        ("usemtl nose", "the material 'nose' is in none of the material files; the only one there, 'skin', is used"),
        ("", "faces name no material; the only one there, 'skin', is used"),
    ],
)
def test_a_material_that_faces_name_wrongly(tmp_path, use, warning):
    obj = QUAD_OBJ.replace("usemtl skin", use)
    mesh, report = load_mesh_with_report(write(tmp_path, "newmtl skin\nmap_Kd tex.png\n", {"tex.png": PICTURE}, obj))
    assert report.color_source == "texture" and report.warnings == ((warning,) if warning else ())


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.full((8, 8), 0.6, np.float32), 153),
        (np.full((8, 8), 153.0, np.float32), 153),
        (np.full((8, 8), 200, np.uint16), 1),
        (np.full((8, 8), 153 * 257, np.uint16), 153),
    ],
)
def test_grey_pictures_of_more_than_eight_bits(tmp_path, values, grey):
    stream = io.BytesIO()
    PIL.Image.fromarray(values).save(stream, format="TIFF")
    path = write(tmp_path, "newmtl skin\nmap_Kd tex.tif\n", {"tex.tif": stream.getvalue()})
    assert color_at(load_mesh_with_report(path)[0], 0.5, 0.5, 0) == [grey] * 3


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("my%20tex.png", "my tex.png"),
        ("my%20tex.png", "my%20tex.png"),
        ("tex.png?v=2", "tex.png"),
        ("file:///C:/x/tex.png", "tex.png"),
        ("data:image/png;base64," + urllib.parse.quote(base64.b64encode(PICTURE).decode(), safe=""), "other.png"),
        ("DATA:image/png;base64," + base64.b64encode(PICTURE).decode(), "other.png"),
    ],
)
def test_addresses_in_gltf_files(tmp_path, uri, place):
    builder = GlbBuilder()
    builder.mesh(QUAD, QUAD_FACES, uvs=QUAD_UVS, material=builder.material(PICTURE))
    builder.glb.tree["images"] = [{"uri": uri}]
    (tmp_path / place).write_bytes(PICTURE)
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    assert report.color_source == "texture" and report.warnings == ()


def test_texture_coordinates_may_have_one_or_three_numbers(tmp_path):
    deep = QUAD_OBJ.replace("vt 0 0", "vt 0 0 0.000").replace("vt 1 1", "vt 1 1 0.000")
    deep = deep.replace("vt 1 0", "vt 1 0 0.000").replace("vt 0 1", "vt 0 1 0.000")
    mesh, _ = load_mesh_with_report(write(tmp_path, "newmtl skin\nmap_Kd tex.png\n", {"tex.png": PICTURE}, deep))
    assert corners(mesh) == [list(RED), list(GREEN), list(BLUE), list(WHITE)]
    flat = QUAD_OBJ.replace("vt 0 0", "vt 0").replace("vt 1 0", "vt 1")
    mesh, _ = load_mesh_with_report(write(tmp_path, "newmtl skin\nmap_Kd tex.png\n", {"tex.png": PICTURE}, flat))
    assert corners(mesh) == [list(RED), list(GREEN), list(BLUE), list(WHITE)]


def test_scale_and_offset_of_a_map_move_its_coordinates(tmp_path):
    path = write(tmp_path, "newmtl skin\nmap_Kd -s 0.5 0.5 1 -o 0.5 0.5 0 tex.png\n", {"tex.png": PICTURE})
    mesh, _ = load_mesh_with_report(path)
    assert corners(mesh) == [list(GREEN)] * 4  # the upper right quarter


@pytest.mark.parametrize(
    ("mtllib", "place"),
    [("materials/a.mtl", "materials/a.mtl"), ("Materials\\A.MTL", "materials/a.mtl"), ("C:\\x\\a.mtl", "a.mtl")],
)
def test_a_material_file_elsewhere_and_with_a_byte_order_mark(tmp_path, mtllib, place):
    """The picture lies beside the material file, whose names are relative to it."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(BOM + b"newmtl skin\r\nmap_Kd tex.png\r\n")
    (tmp_path / place).with_name("tex.png").write_bytes(PICTURE)
    (tmp_path / "a.obj").write_bytes(BOM + f"mtllib {mtllib}\r\n{QUAD_OBJ}".encode())
    mesh, report = load_mesh_with_report(tmp_path / "a.obj")
    assert corners(mesh) == [list(RED), list(GREEN), list(BLUE), list(WHITE)] and report.warnings == ()


COLORED = QUAD_OBJ.replace("v 0 0 0", "v 0 0 0 1 0 0").replace("v 1 0 0", "v 1 0 0 1 0 0")
COLORED = COLORED.replace("v 1 1 0", "v 1 1 0 0 0 1").replace("v 0 1 0", "v 0 1 0 0 0 1")


@pytest.mark.parametrize("mtl", [None, "newmtl skin\nKd 0.8 0.8 0.8\n", "newmtl skin\nmap_Kd gone.png\n"])
def test_vertex_colours_are_read_where_no_picture_is(tmp_path, mtl):
    path = tmp_path / "a.obj"
    path.write_text(COLORED if mtl is None else f"mtllib a.mtl\n{COLORED}")
    if mtl is not None:
        (tmp_path / "a.mtl").write_text(mtl)
    mesh, report = load_mesh_with_report(path)
    assert report.color_source == "vertex colors" and mesh.texture is None
    assert color_at(mesh, 0.5, 0, 0) == list(RED) and color_at(mesh, 0.5, 1, 0) == list(BLUE)
    assert bool(report.warnings) == ("gone" in (mtl or ""))


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (b"not a picture", "the texture 'tex.png' cannot be decoded"),
        (PICTURE[:40], "the texture 'tex.png' cannot be decoded"),
        (POINTER, "it is a Git LFS pointer"),
        (None, "the file 'tex.png' named in the mesh is not beside it"),
    ],
)
def test_a_picture_that_cannot_be_read_is_no_texture(tmp_path, picture, words):
    path = write(tmp_path, "newmtl skin\nKd 0 0 0\nmap_Kd tex.png\n", {"tex.png": picture} if picture else {})
    mesh, report = load_mesh_with_report(path)
    assert (report.color_source, report.textures, mesh.texture) == ("none", 0, None)
    assert torch.allclose(mesh.vertex_colors, torch.full((4, 3), 0.7))
    assert any(words in warning for warning in report.warnings) and any("grey" in w for w in report.warnings)


def test_a_picture_of_a_similar_name_is_offered(tmp_path):
    (tmp_path / "head.obj").write_text(QUAD_OBJ)
    (tmp_path / "head_diffuse.tga").write_bytes(PICTURE)
    _, report = load_mesh_with_report(tmp_path / "head.obj")
    assert any("map_Kd head_diffuse.tga" in warning for warning in report.warnings)
    (tmp_path / "head.mtl").write_text("newmtl skin\nmap_Kd head_diffuse.tga\n")  # what it says to do; no mtllib needed
    mesh, report = load_mesh_with_report(tmp_path / "head.obj")
    assert corners(mesh)[0] == list(RED) and report.warnings == ()


def test_a_picture_in_a_folder_of_textures_beside_the_folder_of_the_mesh(tmp_path):
    """As archives are packed: source/a.obj and textures/tex.png, which the material names alone."""
    (tmp_path / "source").mkdir()
    path = write(tmp_path / "source", "newmtl skin\nmap_Kd tex.png\n", {"../Textures/tex.png": PICTURE})
    mesh, report = load_mesh_with_report(path)
    assert corners(mesh)[0] == list(RED) and report.warnings == ()


def test_colours_that_zbrush_keeps_in_remarks(tmp_path):
    paint = "#MRGB ffff0000ffff0000\n#MRGB ff0000ffff0000ff\n"
    (tmp_path / "a.obj").write_text(QUAD_OBJ + paint)
    mesh, report = load_mesh_with_report(tmp_path / "a.obj")
    assert (report.color_source, report.warnings) == ("vertex colors", ())
    assert color_at(mesh, 0.5, 0, 0) == list(RED) and color_at(mesh, 0.5, 1, 0) == list(BLUE)
    (tmp_path / "a.obj").write_text(QUAD_OBJ + paint[:-3])
    _, report = load_mesh_with_report(tmp_path / "a.obj")
    assert report.color_source == "none" and any("#MRGB" in warning for warning in report.warnings)


def test_a_colour_with_commas_for_points(tmp_path):
    mesh, report = load_mesh_with_report(write(tmp_path, "newmtl skin\nKd 1,0 0,0 0,0\n", {}))
    assert report.color_source == "material colors" and color_at(mesh, 0.5, 0.5, 0) == list(RED)


def test_a_picture_that_no_face_uses_is_not_listed(tmp_path):
    mtl = "newmtl plain\nKd 0 0 1\nnewmtl skin\nmap_Kd tex.png\n"
    for use, words in (("usemtl plain", 0), ("", 1)):
        path = write(tmp_path, mtl, {"tex.png": PICTURE}, QUAD_OBJ.replace("usemtl skin", use))
        report = load_mesh_with_report(path)[1]
        assert report.files == ("a.mtl",)
        assert sum("faces name no material; those faces get none of the 2" in w for w in report.warnings) == words


def test_several_materials_some_without_coordinates(tmp_path):
    obj = QUAD_OBJ + ("v 2 0 0\nv 3 0 0\nv 3 1 0\nusemtl plain\nf 5//1 6//1 7//1\nusemtl skin\nf 1 2 7\n")
    path = write(tmp_path, "newmtl skin\nmap_Kd tex.png\nnewmtl plain\nKd 0 0 1\n", {"tex.png": PICTURE}, obj)
    mesh, report = load_mesh_with_report(path)
    assert corners(mesh)[0] == list(RED) and color_at(mesh, 2.8, 0.3, 0) == list(BLUE)
    assert any("no texture coordinates" in warning for warning in report.warnings)


PLY = """ply
format ascii 1.0
comment TextureFile Tex.png
element vertex 4
property float x
property float y
property float z
property float s
property float t
property uchar red
property uchar green
property uchar blue
element face 1
property list uchar int vertex_indices
end_header
0 0 0 0 0 0 0 255
1 0 0 1 0 0 0 255
1 1 0 1 1 0 0 255
0 1 0 0 1 0 0 255
4 0 1 2 3
"""


def test_ply_textures(tmp_path):
    (tmp_path / "a.ply").write_text(PLY)
    mesh, report = load_mesh_with_report(tmp_path / "a.ply")
    assert report.color_source == "vertex colors" and color_at(mesh, 0.5, 0.5, 0) == list(BLUE)
    assert any("Tex.png" in warning for warning in report.warnings)
    (tmp_path / "tex.png").write_bytes(PICTURE)
    mesh, report = load_mesh_with_report(tmp_path / "a.ply")
    assert (report.color_source, report.files) == ("texture", ("tex.png",)) and corners(mesh)[0] == list(RED)
    assert companion_files(tmp_path / "a.ply") == [tmp_path / "tex.png"]


def test_gltf_companions_in_another_case_and_a_byte_order_mark(tmp_path):
    builder = GlbBuilder().mesh(QUAD, QUAD_FACES, QUAD_UVS, material=0)
    tree = builder.glb.tree
    tree["images"], tree["textures"] = [{"uri": "Textures\\Skin.PNG"}], [{"source": 0}]
    tree["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    tree["buffers"] = [{"byteLength": len(builder.glb.data), "uri": "A.bin"}]
    (tmp_path / "a.bin").write_bytes(bytes(builder.glb.data))
    (tmp_path / "textures").mkdir()
    (tmp_path / "textures" / "skin.png").write_bytes(PICTURE)
    (tmp_path / "a.gltf").write_bytes(BOM + json.dumps(tree).encode())
    mesh, report = load_mesh_with_report(tmp_path / "a.gltf")
    assert corners(mesh)[0] == list(RED) and report.warnings == ()
    assert companion_files(tmp_path / "a.gltf") == [tmp_path / "a.bin", tmp_path / "textures" / "skin.png"]
    (tmp_path / "textures" / "skin.png").write_bytes(b"no picture")
    mesh, report = load_mesh_with_report(tmp_path / "a.gltf")
    assert report.color_source == "none" and np.allclose(mesh.vertex_colors, 0.7)


def test_git_lfs_pointers_are_called_what_they_are(tmp_path):
    for name in ("a.glb", "a.safetensors"):
        (tmp_path / name).write_bytes(POINTER)
        with pytest.raises(InvalidInput, match="is a Git LFS pointer .* `git lfs pull`"):
            require_file("load", tmp_path / name)
    with pytest.raises(InvalidInput, match="Git LFS"):
        load_mesh_with_report(tmp_path / "a.glb")
