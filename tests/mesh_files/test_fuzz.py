"""Damaged files: whatever the damage, a mesh or one of our own errors, never anything else."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import AnimPortraitError
from animportrait3d_core.mesh_files import load_mesh, save_mesh
from animportrait3d_core.meshes import Mesh

TETRAHEDRON = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
FACES = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
EXAMPLES = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    colored = Mesh(TETRAHEDRON, FACES, vertex_colors=TETRAHEDRON)
    textured = Mesh(
        TETRAHEDRON, FACES, corner_uvs=TETRAHEDRON[FACES][..., :2].contiguous(), texture=torch.rand(4, 4, 3)
    )
    whole = {}
    for name, mesh in (("a.glb", textured), ("b.glb", colored), ("a.ply", colored), ("a.obj", colored)):
        whole[name] = save_mesh(mesh, folder / name).read_bytes()
    whole["ascii.ply"] = (
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    )
    whole["a.off"] = b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    whole["a.stl"] = bytes(80) + b"\1\0\0\0" + bytes(12) + TETRAHEDRON[:3].numpy().tobytes() + bytes(2)
    return whole


NAMES = ["a.glb", "b.glb", "a.ply", "a.obj", "ascii.ply", "a.off", "a.stl"]


def check_read(path, data: bytes) -> bool:
    """True if the damaged file still gave a mesh, false if it was refused; anything else escapes."""
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mesh = load_mesh(path)
        except AnimPortraitError as error:
            assert str(error).startswith("load_mesh: ")
            return False
    assert torch.isfinite(mesh.vertices).all() and len(mesh.faces) > 0
    return True


def test_the_whole_files_are_read(files, tmp_path):
    assert all(check_read(tmp_path / name, data) for name, data in files.items())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_truncated_files(files, tmp_path, name, cut):
    data = files[name]
    check_read(tmp_path / name, data[: int(cut * len(data))])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes(files, tmp_path, name, flips):
    data = bytearray(files[name])
    for place, value in flips:
        data[int(place * len(data))] = value
    check_read(tmp_path / name, bytes(data))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True),
    digits=st.sampled_from([b"9", b"-1", b"99999999999", b"null", b"[]", b"1e9"]),
)
def test_changed_numbers_in_the_glb_header(files, tmp_path, place, digits):
    """Numbers of the JSON header replaced: counts, offsets and indices that lie."""
    import re
    import struct

    data = files["a.glb"]
    size = struct.unpack_from("<I", data, 12)[0]
    header = data[20 : 20 + size]
    numbers = list(re.finditer(rb"(?<=[:,\[])-?\d+(\.\d+)?", header))
    chosen = numbers[int(place * len(numbers))]
    changed = header[: chosen.start()] + digits + header[chosen.end() :]
    changed += b" " * (-len(changed) % 4)
    rest = data[20 + size :]
    total = 20 + len(changed) + len(rest)
    check_read(tmp_path / "a.glb", struct.pack("<4sIII4s", b"glTF", 2, total, len(changed), b"JSON") + changed + rest)
