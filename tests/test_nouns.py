"""Rotations, meshes, Gaussians and files: closed forms and round trips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core import files, meshes, rotations
from animportrait3d_core.errors import InvalidInput, MissingModelFile, ShapeMismatch, check_finite
from animportrait3d_core.gaussians import Gaussians, rgb_to_sh0, sh0_to_rgb

unit = st.floats(-1, 1, allow_nan=False)


def random_quaternions(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return rotations.normalize_quaternion(torch.randn(count, 4, generator=generator, dtype=torch.float64))


def test_quaternion_product_is_matrix_product() -> None:
    a, b = random_quaternions(100, 0), random_quaternions(100, 1)
    product = rotations.quaternion_to_matrix(rotations.quaternion_multiply(a, b))
    torch.testing.assert_close(product, rotations.quaternion_to_matrix(a) @ rotations.quaternion_to_matrix(b))


def test_quaternion_matrix_round_trip_near_half_turns() -> None:
    quats = torch.cat([random_quaternions(200, 2), torch.eye(4, dtype=torch.float64)])
    quats[:50, 0] *= 1e-9
    quats = rotations.normalize_quaternion(quats)
    back = rotations.matrix_to_quaternion(rotations.quaternion_to_matrix(quats))
    assert float((1 - (back * quats).sum(-1).abs()).max()) < 1e-12


@settings(max_examples=60, deadline=None)
@given(st.tuples(unit, unit, unit), st.floats(0, 3.1))
def test_axis_angle_is_the_matrix_exponential(axis: tuple[float, float, float], angle: float) -> None:
    direction = torch.tensor(axis, dtype=torch.float64)
    if float(direction.norm()) < 1e-3:
        return
    vector = direction / direction.norm() * angle
    matrix = rotations.axis_angle_to_matrix(vector)
    torch.testing.assert_close(matrix, torch.matrix_exp(rotations.skew(vector)), atol=1e-9, rtol=0)
    torch.testing.assert_close(rotations.matrix_to_axis_angle(matrix), vector, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-4, 1.0, 3.0])
def test_axis_angle_gradient(size: float) -> None:
    vector = torch.tensor([0.6, -0.8, 0.3], dtype=torch.float64) * size
    vector.requires_grad_(True)
    assert torch.autograd.gradcheck(rotations.axis_angle_to_matrix, (vector,), eps=1e-6, atol=1e-6)


def octahedron() -> meshes.Mesh:
    vertices = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float32)
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    return meshes.Mesh(vertices, faces)


def test_octahedron_normals_area_volume() -> None:
    mesh = octahedron()
    torch.testing.assert_close(meshes.vertex_normals(mesh.vertices, mesh.faces), mesh.vertices)
    assert float(meshes.face_areas(mesh.vertices, mesh.faces).sum()) == pytest.approx(4 * 3**0.5, rel=1e-6)
    assert float(meshes.signed_volume(mesh.vertices, mesh.faces)) == pytest.approx(4 / 3, rel=1e-6)
    assert float(meshes.signed_volume(mesh.vertices, mesh.faces.flip(1))) == pytest.approx(-4 / 3, rel=1e-6)


def test_compact_keeps_the_chosen_faces() -> None:
    mesh = octahedron()
    keep = torch.tensor([True] * 4 + [False] * 4)
    part = meshes.compact(mesh, keep)
    assert len(part.vertices) == 5
    torch.testing.assert_close(part.vertices[part.faces], mesh.vertices[mesh.faces[:4]])


def test_texture_rows_and_wrap() -> None:
    texture = torch.arange(12, dtype=torch.float32).reshape(2, 2, 3)
    top_left = meshes.sample_texture(texture, torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(top_left, texture[0, 0])
    torch.testing.assert_close(meshes.sample_texture(texture, torch.tensor([1.25, -1.25])), texture[0, 0])
    middle = meshes.sample_texture(texture, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(middle, texture.mean(dim=(0, 1)))


def test_mesh_refuses_dangling_faces() -> None:
    with pytest.raises(InvalidInput, match="0 to 3, but there are 3"):
        meshes.Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 3]]))
    with pytest.raises(InvalidInput, match=r"torch\.int64"):
        meshes.Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]], dtype=torch.int32))


def test_gaussians_activate_and_refuse() -> None:
    count = 4
    fields = dict(
        means=torch.zeros(count, 3), quats=torch.ones(count, 4), log_scales=torch.full((count, 3), -1.0),
        logit_opacities=torch.zeros(count), sh=torch.zeros(count, 4, 3),
    )  # fmt: skip
    gaussians = Gaussians(**fields)
    torch.testing.assert_close(gaussians.scales, torch.full((count, 3), 2.718281828459045**-1))
    torch.testing.assert_close(gaussians.opacities, torch.full((count,), 0.5))
    with pytest.raises(ShapeMismatch, match="5 coefficients"):
        Gaussians(**{**fields, "sh": torch.zeros(count, 5, 3)})
    with pytest.raises(ShapeMismatch, match="quats"):
        Gaussians(**{**fields, "quats": torch.ones(count, 3)})
    with pytest.raises(InvalidInput, match="`means` holds 12 non-finite"):
        Gaussians(**{**fields, "means": torch.full((count, 3), float("inf"))}).check_finite("test")


def test_check_finite_accepts_large_finite_numbers() -> None:
    check_finite("test", "huge", torch.full((10,), 3e38))
    with pytest.raises(InvalidInput, match="1 non-finite value of 3"):
        check_finite("test", "x", torch.tensor([1.0, float("-inf"), 2.0]))


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1))
def test_sh0_round_trip(value: float) -> None:
    assert float(sh0_to_rgb(rgb_to_sh0(torch.tensor(value, dtype=torch.float64)))) == pytest.approx(value, abs=1e-12)


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with files.atomic_write(target) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "a_file"
    blocker.write_text("x")
    with pytest.raises(InvalidInput, match="cannot write"), files.atomic_write(blocker / "below.txt"):
        pass


def test_equal_content_gives_equal_safetensors(tmp_path: Path) -> None:
    # Hostile strings: the header is written anew, and must keep its length.
    metadata = {f"key {k}": f'ä\n\t"\\ \x01\x7f {k} \U0001f600' for k in range(12)}
    tensors = {"b": torch.arange(4.0), "a": torch.zeros(2, 3, dtype=torch.uint8)}
    contents = set()
    for name, keys in (("one", list(metadata)), ("two", list(reversed(metadata)))):
        path = tmp_path / f"{name}.safetensors"
        files.write_safetensors(path, tensors, {key: metadata[key] for key in keys})
        contents.add(path.read_bytes())
        found, words = files.read_safetensors(path)
        assert words == metadata
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert len(contents) == 1


def test_safetensors_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "values.safetensors"
    files.write_safetensors(path, {"a": torch.arange(6.0).reshape(2, 3).T}, {"kind": "test"})
    tensors, metadata = files.read_safetensors(path)
    torch.testing.assert_close(tensors["a"], torch.arange(6.0).reshape(2, 3).T)
    assert metadata == {"kind": "test"}
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InvalidInput, match="not a whole safetensors file"):
        files.read_safetensors(path)
    path.write_bytes(b"")
    with pytest.raises(InvalidInput, match="0 bytes"):
        files.read_safetensors(path)
    with pytest.raises(MissingModelFile, match="does not exist"):
        files.read_safetensors(tmp_path / "none.safetensors")
