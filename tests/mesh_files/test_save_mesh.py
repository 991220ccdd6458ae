"""Round trips through the written formats."""

from __future__ import annotations

import json
import struct

import pytest
import torch

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.mesh_files import load_mesh, load_mesh_with_report, save_mesh, texture_to_vertex_colors
from animportrait3d_core.meshes import Mesh


def bumpy_grid(size: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
    """Vertices and faces of a grid with random heights; no two vertices share a place."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    heights = torch.rand(size * size, 1, generator=generator)
    vertices = torch.cat([x.reshape(-1, 1), y.reshape(-1, 1), heights], dim=1).float()
    corner = (y[:-1, :-1] * size + x[:-1, :-1]).reshape(-1)
    lower = torch.stack([corner, corner + 1, corner + size + 1], dim=1)
    upper = torch.stack([corner, corner + size + 1, corner + size], dim=1)
    return vertices, torch.cat([lower, upper]), generator


def colored() -> Mesh:
    vertices, faces, generator = bumpy_grid()
    return Mesh(vertices, faces, vertex_colors=torch.rand(len(vertices), 3, generator=generator))


def textured() -> Mesh:
    """Every corner has texture coordinates of its own, also outside of 0..1."""
    vertices, faces, generator = bumpy_grid()
    uvs = torch.rand(len(faces), 3, 2, generator=generator) * 3 - 1
    texture = torch.randint(0, 256, (12, 20, 3), generator=generator) / 255
    return Mesh(vertices, faces, corner_uvs=uvs, texture=texture)


def corners(mesh: Mesh) -> torch.Tensor:
    return mesh.vertices[mesh.faces]


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_vertex_colors_survive(tmp_path, suffix):
    mesh = colored()
    again = load_mesh(save_mesh(mesh, tmp_path / f"a.{suffix}"))
    assert torch.allclose(corners(again), corners(mesh), atol=1e-6)
    assert (again.vertex_colors[again.faces] - mesh.vertex_colors[mesh.faces]).abs().max() <= 1 / 255
    assert again.texture is None


def test_dark_vertex_colors_survive_glb(tmp_path):
    """8 bits of linear light would leave four steps below display value 0.05."""
    vertices, faces, _ = bumpy_grid()
    ramp = torch.linspace(0, 0.05, len(vertices))[:, None].expand(-1, 3)
    again = load_mesh(save_mesh(Mesh(vertices, faces, vertex_colors=ramp), tmp_path / "a.glb"))
    assert (again.vertex_colors[again.faces] - ramp[faces]).abs().max() <= 0.51 / 255


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_texture_survives_exactly(tmp_path, suffix):
    mesh = textured()
    again, report = load_mesh_with_report(save_mesh(mesh, tmp_path / f"a.{suffix}"))
    assert torch.equal(again.texture, mesh.texture)
    assert torch.allclose(corners(again), corners(mesh), atol=1e-6)
    assert torch.allclose(again.corner_uvs, mesh.corner_uvs, atol=1e-6)
    assert len(again.vertices) == len(mesh.vertices)  # split for the file, joined again
    assert report.warnings == ()


def test_glb_says_what_viewers_need(tmp_path):
    """Double-sided matt material, 16-bit linear colours, our generator (so that they are not taken for sRGB)."""
    data = save_mesh(colored(), tmp_path / "a.glb").read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[20 : 20 + size])
    primitive = header["meshes"][0]["primitives"][0]
    color = header["accessors"][primitive["attributes"]["COLOR_0"]]
    material = header["materials"][primitive["material"]]
    assert header["asset"]["generator"] == "animportrait3d"
    assert (color["componentType"], color["normalized"]) == (5123, True)
    assert material["doubleSided"] and material["pbrMetallicRoughness"]["metallicFactor"] == 0.0


def test_texture_becomes_vertex_colors():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    texture = torch.tensor([[[1.0, 0, 0]], [[0, 0, 1.0]]]).repeat_interleave(8, 0)
    uvs = (vertices[faces][..., :2] * 0.8 + 0.1).contiguous()
    converted = texture_to_vertex_colors(Mesh(vertices, faces, corner_uvs=uvs, texture=texture))
    expected = torch.tensor([[0, 0, 1.0], [0, 0, 1.0], [1.0, 0, 0], [1.0, 0, 0]])
    assert torch.allclose(converted.vertex_colors, expected, atol=1e-6) and converted.texture is None


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="PLY cannot hold the texture"):
        save_mesh(textured(), tmp_path / "a.ply")
    with pytest.raises(InvalidInput, match="ends in '.fbx'"):
        save_mesh(colored(), tmp_path / "a.fbx")
    with pytest.raises(InvalidInput, match="0 faces"):
        save_mesh(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)), tmp_path / "a.glb")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InvalidInput, match="cannot write"):
        save_mesh(colored(), tmp_path / "out" / "a.glb")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
