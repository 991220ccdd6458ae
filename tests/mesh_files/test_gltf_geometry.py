"""Geometry of glTF files that is not simply there: moved by joints, hidden, quantised, compressed."""

from __future__ import annotations

import base64
import importlib
import json

import numpy as np
import pytest
import torch

from animportrait3d_core.errors import InvalidInput, MissingExtension
from animportrait3d_core.mesh_files import load_mesh, load_mesh_with_report
from tests.mesh_files.test_load_mesh import QUAD, QUAD_FACES, QUAD_UVS, TRIANGLE, GlbBuilder

HALF_TURN_Z = [0.0, 0.0, 1.0, 0.0]


def add(builder, values, kind, component, normalized=False):
    """An accessor of stored values of any type."""
    codes = {"<i2": 5122, "<u2": 5123, "<u1": 5121, "<f4": 5126}
    entry = {"bufferView": builder.glb.add_view(np.asarray(values).astype(component).tobytes()), "type": kind}
    entry |= {"componentType": codes[component], "count": len(values), "normalized": normalized}
    builder.glb.tree["accessors"].append(entry)
    return len(builder.glb.tree["accessors"]) - 1


def skinned(positions=QUAD, component="<f4", bind=None, weights=((1, 0), (1, 0), (0.5, 0.5), (0, 1)), node=None):
    """A quad moved by two joints: one shifted by (10, 3, 0) within an armature twice as large, one turned about z."""
    builder = GlbBuilder().mesh(QUAD, QUAD_FACES, colors=np.ones((4, 3)), node=node)
    tree = builder.glb.tree
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    attributes["POSITION"] = add(builder, positions, "VEC3", component)
    attributes["JOINTS_0"] = add(builder, [[0, 1, 0, 0]] * 4, "VEC4", "<u1")
    attributes["WEIGHTS_0"] = add(builder, np.array([[*w, 0, 0] for w in weights]) * 255, "VEC4", "<u1", True)
    bind = np.stack([np.eye(4)] * 2) if bind is None else bind
    matrices = add(builder, np.asarray(bind).transpose(0, 2, 1).reshape(-1, 16), "MAT4", "<f4")
    tree["nodes"][0]["skin"] = 0
    tree["nodes"] += [
        {"scale": [2, 2, 2], "children": [2, 3]},
        {"translation": [10, 3, 0]},
        {"rotation": HALF_TURN_Z},
    ]
    tree["scenes"][0]["nodes"].append(1)
    tree["skins"] = [{"joints": [2, 3], "inverseBindMatrices": matrices}]
    return builder


def expected_positions():
    """Joint 0: 2 p + (20, 6, 0). Joint 1: (-2 x, -2 y, 2 z). The third corner has half of each."""
    first, second = 2 * QUAD + [20, 6, 0], QUAD * [-2, -2, 2]
    return np.stack([first[0], first[1], 0.5 * (first[2] + second[2]), second[3]])


def same_points(mesh, expected, tolerance=1e-4):
    found = {tuple(np.round(v, 3)) for v in mesh.vertices.double().numpy()}
    assert found == {tuple(np.round(v, 3)) for v in np.asarray(expected, dtype=np.float32).astype(float)}


@pytest.mark.parametrize("node", [None, {"translation": [0, 100, 0], "scale": [9, 9, 9]}])
def test_joints_move_a_mesh_and_its_own_node_does_not(tmp_path, node):
    mesh, report = load_mesh_with_report(skinned(node=node).write(tmp_path / "a.glb"))
    same_points(mesh, expected_positions())
    assert report.warnings == () and len(mesh.faces) == 2


def test_inverse_bind_matrices_come_first(tmp_path):
    """Bound where the joints stand, nothing moves: joint transform x inverse bind matrix is 1."""
    joints = np.stack([np.diag([2.0, 2, 2, 1]), np.diag([-2.0, -2, 2, 1])])
    joints[0, :2, 3] = 20, 6
    mesh = load_mesh(skinned(bind=np.linalg.inv(joints)).write(tmp_path / "a.glb"))
    same_points(mesh, QUAD)


def test_quantised_skins_are_scaled_by_their_bind_matrices(tmp_path):
    """As gltfpack stores them: whole numbers, whose scale is in the inverse bind matrices and in the mesh's node."""
    scale = np.diag([1 / 1000, 1 / 1000, 1 / 1000, 1.0])
    builder = skinned(1000 * QUAD, "<u2", bind=[scale, scale], node={"scale": [0.001] * 3, "translation": [0, 0.25, 0]})
    builder.glb.tree["extensionsRequired"] = ["KHR_mesh_quantization"]
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    same_points(mesh, expected_positions())
    assert report.warnings == ()


def test_weights_of_bytes_count_as_if_they_summed_to_one(tmp_path):
    builder = skinned(weights=[(0.2, 0.0)] * 4)
    same_points(load_mesh(builder.write(tmp_path / "a.glb")), 2 * QUAD + [20, 6, 0])


def test_vertices_without_weights_belong_to_their_first_joint(tmp_path):
    builder = skinned(weights=[(1, 0), (1, 0), (0, 0), (0, 0)])
    same_points(load_mesh(builder.write(tmp_path / "a.glb")), 2 * QUAD + [20, 6, 0])


@pytest.mark.parametrize("skin", [False, True])
@pytest.mark.parametrize("where", ["meshes", "nodes"])
def test_morph_targets_stand_at_the_weights_of_the_file(tmp_path, where, skin):
    builder = skinned(weights=[(1, 0)] * 4) if skin else GlbBuilder().mesh(QUAD, QUAD_FACES, colors=np.ones((4, 3)))
    targets = [{"POSITION": add(builder, [[0, 0, z]] * 4, "VEC3", "<f4")} for z in (4, 100)]
    builder.glb.tree["meshes"][0]["primitives"][0]["targets"] = targets
    builder.glb.tree["meshes"][0]["weights"] = [0, 1]
    builder.glb.tree[where][0]["weights"] = [0.5, 0]
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    same_points(mesh, 2 * QUAD + [20, 6, 4] if skin else QUAD + [0, 0, 2])
    assert report.warnings == ()


def test_a_mirroring_skin_turns_the_winding(tmp_path):
    mirror = np.diag([-0.5, 0.5, 0.5, 1])
    mesh = load_mesh(skinned(bind=[mirror, mirror], weights=[(1, 0)] * 4).write(tmp_path / "a.glb"))
    a, b, c = mesh.vertices[mesh.faces[0]]
    assert float(torch.linalg.cross(b - a, c - a)[2]) > 0


def test_joints_that_do_not_exist_are_refused(tmp_path):
    builder = skinned()
    builder.glb.tree["skins"][0]["joints"] = [2]
    with pytest.raises(InvalidInput, match="a skin of 1 joints"):
        load_mesh(builder.write(tmp_path / "a.glb"))


@pytest.mark.parametrize("hidden", [0, 2])
def test_hidden_nodes_are_left_out_with_all_below_them(tmp_path, hidden):
    builder = GlbBuilder().mesh(TRIANGLE + [5, 0, 0], colors=np.ones((3, 3)))
    builder.mesh(TRIANGLE, colors=np.ones((3, 3)))
    tree = builder.glb.tree
    tree["nodes"].append({"children": [0]})
    tree["scenes"][0]["nodes"] = [1, 2]
    tree["nodes"][hidden]["extensions"] = {"KHR_node_visibility": {"visible": False}}
    tree["extensionsUsed"] = ["KHR_node_visibility"]
    mesh, report = load_mesh_with_report(builder.write(tmp_path / "a.glb"))
    same_points(mesh, TRIANGLE)
    assert any("KHR_node_visibility" in warning for warning in report.warnings)


def test_a_file_that_hides_everything_says_so(tmp_path):
    builder = GlbBuilder().mesh(TRIANGLE)
    builder.glb.tree["nodes"][0]["extensions"] = {"KHR_node_visibility": {"visible": False}}
    with pytest.raises(InvalidInput, match="0 visible faces .*the file hides some of its meshes"):
        load_mesh(builder.write(tmp_path / "a.glb"))


def draco_file(path, blob, ids, fallback=False):
    """A quad whose accessors have no data beside the Draco blob, unless `fallback`."""
    builder = GlbBuilder().mesh(QUAD, QUAD_FACES, QUAD_UVS, material=0)
    tree = builder.glb.tree
    tree["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}}]
    primitive = tree["meshes"][0]["primitives"][0]
    extension = {"bufferView": builder.glb.add_view(blob), "attributes": ids}
    primitive["extensions"] = {"KHR_draco_mesh_compression": extension}
    tree["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    if not fallback:
        tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
        for accessor in tree["accessors"]:
            accessor.pop("bufferView")
    return builder.write(path)


def without(monkeypatch, package):
    load = importlib.import_module

    def absent(name, *rest):
        if name == package:
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)


def test_draco_without_its_package_is_told_and_its_fallback_used(tmp_path, monkeypatch):
    without(monkeypatch, "DracoPy")
    words = "KHR_draco_mesh_compression.* pip install DracoPy.* npx @gltf-transform/cli copy a.glb plain.glb"
    with pytest.raises(MissingExtension, match=words):
        load_mesh(draco_file(tmp_path / "a.glb", b"DRACO", {"POSITION": 0}))
    mesh = load_mesh(draco_file(tmp_path / "b.glb", b"DRACO", {"POSITION": 0}, fallback=True))
    same_points(mesh, QUAD)


def test_draco_is_decoded(tmp_path):
    draco = pytest.importorskip("DracoPy")
    faces = QUAD_FACES.reshape(-1, 3).astype(np.uint32)
    blob = draco.encode(QUAD.astype(np.float32), faces, quantization_bits=14, tex_coord=QUAD_UVS)
    of_type = {entry["attribute_type"]: entry["unique_id"] for entry in draco.decode(blob).attributes}
    ids = {"POSITION": of_type[0], "TEXCOORD_0": of_type[3]}
    mesh, report = load_mesh_with_report(draco_file(tmp_path / "a.glb", blob, ids))
    assert report.color_source == "material colors" and report.warnings == () and len(mesh.faces) == 2
    corners = mesh.vertices[mesh.vertices[:, 0].argsort()]
    assert (corners.round() - corners).abs().max() < 1e-3 and set(map(tuple, corners.round().tolist())) == {
        tuple(v) for v in QUAD.tolist()
    }
    with pytest.raises(InvalidInput, match="could not be read as GLB"):
        load_mesh(draco_file(tmp_path / "b.glb", blob[:30], ids))


def meshopt_file(path, positions, indices, fallback=False, **mode):
    """A triangle in compressed buffer views; their plain data, unless `fallback`, is in a buffer that is not there."""
    builder = GlbBuilder().mesh(TRIANGLE, [0, 1, 2], colors=np.ones((3, 3)))
    tree = builder.glb.tree
    for accessor, blob, stride, kind in ((0, positions, 12, mode), (2, indices, 4, {"mode": "TRIANGLES"})):
        view = tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]
        start = tree["bufferViews"][builder.glb.add_view(blob)]["byteOffset"]
        packed = {"buffer": 0, "byteOffset": start, "byteLength": len(blob), "byteStride": stride, "count": 3}
        view["extensions"] = {"EXT_meshopt_compression": {**packed, "mode": "ATTRIBUTES", **kind}}
        if not fallback:
            view.update(buffer=1, byteOffset=0)
    tree["extensionsUsed"] = tree["extensionsRequired"] = ["EXT_meshopt_compression"]
    data = bytes(builder.glb.data)
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    tree["buffers"] = [{"byteLength": len(data), "uri": uri}]
    if not fallback:
        extension = {"EXT_meshopt_compression": {"fallback": True}}
        tree["buffers"].append({"byteLength": 1000, "extensions": extension})
    path.write_text(json.dumps(tree))
    return path


def test_meshopt_without_its_package_is_told_and_its_fallback_used(tmp_path, monkeypatch):
    without(monkeypatch, "meshoptimizer")
    with pytest.raises(MissingExtension, match="EXT_meshopt_compression.* pip install meshoptimizer"):
        load_mesh(meshopt_file(tmp_path / "a.gltf", b"x" * 40, b"y" * 40))
    same_points(load_mesh(meshopt_file(tmp_path / "b.gltf", b"x" * 40, b"y" * 40, fallback=True)), TRIANGLE)


@pytest.mark.parametrize("exponential", [False, True])
def test_meshopt_is_decoded(tmp_path, exponential):
    meshopt = pytest.importorskip("meshoptimizer")
    values, mode = TRIANGLE.astype("<f4"), {}
    if exponential:  # mantissa of 24 bits and exponent of 8: 2 x 2^-1
        values, mode = (TRIANGLE * 2).astype("<u4") | np.uint32(0xFF << 24), {"filter": "EXPONENTIAL"}
    positions = bytes(meshopt.encode_vertex_buffer(values, 3, 12))
    indices = bytes(meshopt.encode_index_buffer(np.array([0, 1, 2], dtype=np.uint32), 3, 3))
    same_points(load_mesh(meshopt_file(tmp_path / "a.gltf", positions, indices, **mode)), TRIANGLE)
