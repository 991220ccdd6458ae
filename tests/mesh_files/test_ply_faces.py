"""PLY files with strips of triangles, or with triangles beside quads, as scanners' tools and Blender write them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.mesh_files import load_mesh

ORDERS = {"<": "binary_little_endian", ">": "binary_big_endian"}
CORNERS = [(x, y, z) for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)]
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4)]
TRIANGLES = [(1, 5, 7), (1, 7, 3)]


def ply(elements: str, faces: bytes, order: str) -> bytes:
    """A box's corners in colours, with the given element of faces."""
    header = (
        f"ply\nformat {ORDERS[order]} 1.0\ncomment made by hand\nelement vertex 8\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"{elements}end_header\n"
    )
    corners = [struct.pack(order + "3f3B", *corner, *(int(255 * value) for value in corner)) for corner in CORNERS]
    return header.encode() + b"".join(corners) + faces


def mixed(order: str, beside: str = "") -> bytes:
    """Quads and triangles in one element; beside: a type of a number that follows the indices of each."""
    kind = {"": "", "uchar": "B"}[beside]
    rows = [
        struct.pack(f"{order}B{len(face)}i{kind}", len(face), *face, *([7] if beside else []))
        for face in (*QUADS, *TRIANGLES)
    ]
    text = "element face 7\nproperty list uchar int vertex_indices\n" + (f"property {beside} flags\n" if beside else "")
    return ply(text, b"".join(rows), order)


def strips(order: str) -> bytes:
    """The box as three strips in one row, one of them with a repeated corner in its middle."""
    indices = [0, 1, 2, 3, 6, 7, 4, 5, -1, 2, 6, 0, 4, -1, 5, 5, 1, 7, 3]
    text = "element tristrips 1\nproperty list int int vertex_indices\n"
    return ply(text, struct.pack(f"{order}{len(indices) + 1}i", len(indices), *indices), order)


def signed_volume(mesh) -> float:
    first, second, third = mesh.vertices[mesh.faces].unbind(1)
    return float((first * torch.linalg.cross(second, third)).sum() / 6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("beside", ["", "uchar"])
def test_triangles_beside_quads_are_a_closed_box(tmp_path, order, beside):
    (tmp_path / "box.ply").write_bytes(mixed(order, beside))
    mesh = load_mesh(tmp_path / "box.ply")
    assert len(mesh.faces) == 12
    assert abs(abs(signed_volume(mesh)) - 1) < 1e-6
    torch.testing.assert_close(mesh.vertex_colors, mesh.vertices, atol=1 / 255, rtol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_a_strip_turns_every_other_triangle(tmp_path, order):
    (tmp_path / "strip.ply").write_bytes(strips(order))
    mesh = load_mesh(tmp_path / "strip.ply")
    assert len(mesh.faces) == 10
    assert len({tuple(edge) for edge in mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).tolist()}) == 30


def test_a_cut_file_is_told(tmp_path):
    (tmp_path / "cut.ply").write_bytes(mixed("<")[:-9])
    with pytest.raises(InvalidInput, match="cut.ply"):
        load_mesh(tmp_path / "cut.ply")


@pytest.mark.parametrize("line", ["property list uchar", "property list uchar whole vertex_indices", "property list"])
def test_a_damaged_line_of_the_header_is_told(tmp_path, line):
    data = mixed("<").replace(b"property list uchar int vertex_indices", line.encode())
    (tmp_path / "line.ply").write_bytes(data)
    with pytest.raises(InvalidInput, match="line.ply"):
        load_mesh(tmp_path / "line.ply")


def test_indices_beyond_31_bits_are_told(tmp_path):
    rows = struct.pack("<B3I", 3, 0, 1, 4_000_000_000) + struct.pack("<B4I", 4, 0, 1, 3, 2)
    data = ply("element face 2\nproperty list uchar uint vertex_indices\n", rows, "<")
    (tmp_path / "far.ply").write_bytes(data)
    with pytest.raises(InvalidInput, match="far.ply"):
        load_mesh(tmp_path / "far.ply")


def test_strips_as_text_are_named(tmp_path):
    text = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    text += "element tristrips 1\nproperty list int int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    (tmp_path / "text.ply").write_text(text)
    with pytest.raises(InvalidInput, match="strips of triangles as text"):
        load_mesh(tmp_path / "text.ply")


def test_a_large_file_of_triangles_alone_is_not_rewritten():
    from animportrait3d_core.mesh_files.ply_faces import with_plain_triangles

    rows = np.zeros(1000, [("n", "u1"), ("i", "<i4", 3)])
    rows["n"], rows["i"] = 3, [0, 1, 2]
    data = ply("element face 1000\nproperty list uchar int vertex_indices\n", rows.tobytes(), "<")
    assert with_plain_triangles(data) is data
