"""Kinds of damage that once ended in a hang, a flood of memory or an unnamed error, through the user's door."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from animportrait3d_core.errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput
from animportrait3d_core.files import read_safetensors, write_safetensors
from animportrait3d_core.torch_checkpoints import Storage, StoredTensor, materialize, read_torch_checkpoint
from animportrait3d_core.workflow.graph import read_graph_file
from tests.fuzz.format import Format, Seed
from tests.fuzz.formats import FORMATS
from tests.fuzz.model_seeds import body_arrays, npz_of
from tests.fuzz.structures import blank_png
from tests.fuzz.worker import outcome_of, peak_mib, reset_peak, write
from tests.mesh_files.test_load_mesh import QUAD, QUAD_FACES, QUAD_UVS, TRIANGLE, GlbBuilder

BY_NAME = {entry.name: entry for entry in FORMATS}
DEEP = "[" * 100_000 + "]" * 100_000


def named(name: str, files: dict[str, bytes], folder: Path) -> str:
    """The message of a named error without any warning, as the fuzzer judges it; fails for everything else."""
    found = outcome_of(BY_NAME[name], write(Seed(files), folder / "damaged"))
    assert found["outcome"] == "named", found
    return found["message"]


def first_seed(name: str) -> dict[str, bytes]:
    return dict(BY_NAME[name].seeds()[0].files)


def changed_tensors(name: str, folder: Path, metadata=None, **tensors) -> dict[str, bytes]:
    """The first whole safetensors file of a format with some tensors or metadata replaced."""
    file = next(iter(first_seed(name)))
    whole = write(Seed(first_seed(name)), folder / "whole")
    stored, words = read_safetensors(whole)
    write_safetensors(folder / "changed.safetensors", stored | tensors, words | (metadata or {}))
    return {file: (folder / "changed.safetensors").read_bytes()}


@pytest.mark.parametrize(
    ("name", "key"),
    [("body-assets", "body_assets"), ("avatar", "metadata"), ("trigrid", "field"), ("color-field", "grid")],
)
def test_metadata_nested_too_deep(tmp_path, name, key):
    assert named(name, changed_tensors(name, tmp_path, {key: DEEP}), tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("landmarks", "l.json"), ("gltf", "a.gltf"), ("network", "network.json"), ("network", "config.json"),
        ("guidance", "unet/config.json"), ("guidance", "tokenizer/tokenizer_config.json"),
    ],
)  # fmt: skip
def test_json_nested_too_deep(tmp_path, name, file):
    assert named(name, first_seed(name) | {file: DEEP.encode()}, tmp_path)
    (tmp_path / "graph.json").write_text(DEEP)
    with pytest.raises(InvalidInput, match="nested too deep"):
        read_graph_file(tmp_path / "graph.json")


def npz_with(name: str, member: bytes) -> bytes:
    """A body file with one array replaced by other bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(npz_of(body_arrays()))) as whole, zipfile.ZipFile(stream, "w") as archive:
        for entry in whole.namelist():
            archive.writestr(entry, member if entry == f"{name}.npy" else whole.read(entry))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': ((24, 3), }", "damaged array"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 3), }", "at most"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (4000000, 3), }", "bytes for an array"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (10L, 3), }", "bytes for an array"),
    ],
)
def test_headers_of_arrays_that_lie(tmp_path, header, message):
    text = header.encode().ljust(117) + b"\n"
    member = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(80)
    reset_peak()
    before = peak_mib()
    assert message in named("body-npz", {"b.npz": npz_with("v_template", member)}, tmp_path)
    assert peak_mib() < before + 60


def zipped(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def test_damaged_and_crafted_archives(tmp_path):
    deflated = bytearray(zipped("SMPLX_NEUTRAL.npz", npz_of(body_arrays()), zipfile.ZIP_DEFLATED))
    deflated[200:230] = b"\xff" * 30
    assert "damaged archive" in named("body-zip", {"b.zip": bytes(deflated)}, tmp_path)
    lzma = zipped("SMPLX_NEUTRAL.npz", npz_of(body_arrays()), zipfile.ZIP_LZMA)
    assert "packing 14" in named("body-zip", {"b.zip": lzma}, tmp_path)
    inner = b"x"
    for _ in range(50):
        inner = zipped("SMPLX_NEUTRAL.npz", inner)
    assert "archive without arrays in an archive" in named("body-zip", {"b.zip": inner}, tmp_path)
    huge = bytearray(zipped("a.npy", bytes(100)))
    central = huge.find(b"PK\1\2")
    huge[central + 24 : central + 28] = struct.pack("<I", 2**31)
    assert "when unpacked: refused" in named("body-zip", {"b.zip": bytes(huge)}, tmp_path)


@pytest.mark.parametrize(("field", "value"), [(6, b"\xff\xff"), (42, b"\0\0\0\x70"), (46, b"\xff\xff")])
def test_an_archive_of_torch_whose_list_lies(tmp_path, field, value):
    """The version, the place, and a byte of the name of its first member."""
    data = bytearray(first_seed("trigrid-pth")["p.pth"])
    place = data.find(b"PK\1\2") + field
    data[place : place + len(value)] = value
    assert "archive" in named("trigrid-pth", {"p.pth": bytes(data)}, tmp_path)


def test_a_tensor_that_repeats_one_number_without_end(tmp_path):
    """A few bytes that would become two gigabytes."""
    torch.save({"ws": torch.zeros(1, dtype=torch.float64).expand(1 << 28)}, tmp_path / "a.pth")
    with pytest.raises(InvalidInput, match="is made of 1 numbers"):
        read_torch_checkpoint(tmp_path / "a.pth")


def test_a_sparse_matrix_that_would_fill_the_memory(tmp_path):
    data = pickle.dumps(dict(body_arrays(), J_regressor=scipy.sparse.csr_matrix((55, 1 << 21))))
    assert "sparse matrix of 55 x 2097152 is refused" in named("body-pkl", {"b.pkl": data}, tmp_path)


def test_a_text_with_a_wrong_escape_in_a_pickle_warns_nobody(tmp_path):
    assert named("body-pkl", {"b.pkl": b"\x80\x02}S'a\\q'\nK\x01s."}, tmp_path)


def test_a_splat_table_that_promises_more_rows_than_the_file_has(tmp_path):
    data = first_seed("avatar-ply")["a.ply"].replace(b"element vertex 40", b"element vertex 99999999999999")
    assert "is cut off" in named("avatar-ply", {"a.ply": data}, tmp_path)
    long = first_seed("avatar-ply")["a.ply"].replace(b"property float x", b"property float x" + b" 1" * 5000)
    assert len(named("avatar-ply", {"a.ply": long}, tmp_path)) < 400


def test_landmarks_larger_than_any_float(tmp_path):
    text = json.dumps({"landmarks": [[10**400] * 3] * 68})
    assert "does not hold numbers" in named("landmarks", {"l.json": text.encode()}, tmp_path)


@pytest.mark.parametrize("change", [{"extra": 1}, {"arm_angle_degrees": []}, {"name": 1}, {"redistributable": "yes"}])
def test_fields_of_body_assets_that_do_not_belong(tmp_path, change):
    fields = {"schema_version": 1, "name": "a", "redistributable": True, "winding_outward": True}
    words = {"body_assets": json.dumps({**fields, "arm_angle_degrees": 0.0, **change})}
    assert next(iter(change)) in named("body-assets", changed_tensors("body-assets", tmp_path, words), tmp_path)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("body-assets", "vertex_ids", torch.arange(24).to(torch.uint16)),
        ("body-assets", "vertex_ids", torch.arange(24).float()),
        ("body-assets", "vertex_labels", torch.zeros(24, dtype=torch.int32)),
        ("avatar", "assets.template", torch.zeros([1] * 70 + [72])),
        ("avatar", "assets.template", torch.tensor(1.0)),
        ("avatar", "assets.joint_template", torch.full((55, 3), torch.nan)),
        ("avatar", "assets.parents", torch.full((55,), 54)),
        ("avatar", "assets.skinning_joints", torch.full((55,), 99)),
        ("avatar", "assets.skinning_weights", torch.zeros(24, 3)),
        ("avatar", "means", torch.zeros(40, 3).to(torch.float8_e4m3fn)),
        ("color-field", "low", torch.zeros(3, dtype=torch.int32)),
        ("color-field", "weights.0", torch.full((32, 24), torch.nan)),
        ("color-field", "weights.0", torch.full((32, 24), 1e30)),
        ("color-field", "high", torch.full((3,), 1e-40)),
        ("trigrid", "ws", torch.zeros([1] * 5000)),
    ],
)
def test_tensors_of_another_type_shape_or_meaning(tmp_path, name, key, value):
    if value.ndim > 64:  # more than torch itself writes: only the header is changed
        data = next(iter(changed_tensors(name, tmp_path, **{key: torch.zeros(value.numel())}).values()))
        size = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8 : 8 + size])
        header[key]["shape"] = list(value.shape)
        text = json.dumps(header).encode()
        files = {"a.safetensors": struct.pack("<Q", len(text)) + text + data[8 + size :]}
    else:
        files = changed_tensors(name, tmp_path, **{key: value})
    assert len(named(name, {next(iter(first_seed(name))): next(iter(files.values()))}, tmp_path)) < 400


def test_a_colour_weight_of_another_shape(tmp_path):
    file = write(Seed(dict(BY_NAME["generator"].seeds()[1].files)), tmp_path / "whole")
    tensors, words = read_safetensors(file)
    write_safetensors(file, tensors | {"torgb.weight": torch.zeros(3, 32, 0, 1)}, words)
    assert "torgb" in named("generator", {"g.safetensors": file.read_bytes()}, tmp_path)


def glb(builder: GlbBuilder) -> dict[str, bytes]:
    return {"a.glb": builder.glb.tobytes()}


def with_attribute(values) -> GlbBuilder:
    return GlbBuilder().mesh(QUAD, QUAD_FACES, QUAD_UVS, colors=values)


def test_numbers_in_meshes_that_are_not_finite(tmp_path):
    bad = np.ones((4, 3))
    bad[1, 1] = np.nan
    assert "colours that are not finite" in named("glb", glb(with_attribute(bad)), tmp_path)
    obj = b"".join(b"v %d %d 0 %s 0 0\n" % (x, y, c) for x, y, c in ((0, 0, b"nan"), (1, 0, b"1"), (0, 1, b"1")))
    assert "colours that are not finite" in named("obj", {"a.obj": obj + b"f 1 2 3\n"}, tmp_path)
    nodes = [{"scale": [1e300, 1, 1], "children": [1]}, {"mesh": 0, "scale": [1e300, 1, 1]}]
    builder = GlbBuilder().mesh(TRIANGLE)
    builder.glb.tree.update(nodes=nodes, scenes=[{"nodes": [0]}])
    assert "not finite" in named("glb", glb(builder), tmp_path)
    lost = np.frombuffer(struct.pack("<I", 0x7FA00000) * 9, "<f4").reshape(3, 3)  # the kind of NaN that complains
    assert "NaN or infinite" in named("glb", glb(GlbBuilder().mesh(lost)), tmp_path)


@pytest.mark.parametrize("number", ["1e400", "nan", "1e300", "9999999"])
def test_texture_coordinates_beyond_measure(tmp_path, number):
    files = dict(BY_NAME["obj"].seeds()[1].files)
    files["a.obj"] = files["a.obj"].replace(b"vt 0.500 0.500", f"vt {number} 0.5".encode())
    assert "texture coordinates" in named("obj", files, tmp_path)


def test_indices_that_are_no_whole_numbers(tmp_path):
    builder = GlbBuilder().mesh(TRIANGLE, [0, 1, 2])
    accessor = builder.glb.tree["accessors"][builder.glb.tree["meshes"][0]["primitives"][0]["indices"]]
    accessor["componentType"] = 5126
    assert "indices that are no whole numbers" in named("glb", glb(builder), tmp_path)


@pytest.mark.parametrize("size", [(12_000, 12_000), (20_000, 20_000)])
def test_a_picture_that_would_fill_the_memory_is_left_out_and_told(tmp_path, size):
    files = dict(BY_NAME["obj"].seeds()[1].files) | {"skin.png": blank_png(*size, 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from animportrait3d_core.mesh_files import load_mesh_with_report

        report = load_mesh_with_report(write(Seed(files), tmp_path))[1]
    assert any("has more than 89,478,485 texels, shrink it" in warning for warning in report.warnings)


def test_headers_that_name_no_list_and_no_file(tmp_path):
    builder = GlbBuilder().mesh(TRIANGLE)
    builder.glb.tree["images"] = 5
    found = outcome_of(BY_NAME["glb"], write(Seed(glb(builder)), tmp_path / "images"))
    assert found["outcome"] in ("result", "named")
    ply = dict(BY_NAME["ply-ascii"].seeds()[1].files)
    ply["a.ply"] = ply["a.ply"].replace(b"skin.png", b"skin.png" * 100)
    found = outcome_of(BY_NAME["ply-ascii"], write(Seed(ply), tmp_path / "long"))
    assert found["outcome"] == "result"


def test_what_a_file_holds_is_not_quoted_at_length(tmp_path):
    message = named("network", folder_with("network", "network.json", role=[[]] * 5000), tmp_path)
    assert message.startswith("load_network: ")
    with pytest.raises(InvalidInput) as told:
        raise InvalidInput("load: '" + "x" * 10_000 + "' is too long; shorten it.")
    text = str(told.value)
    assert len(text) < 1500 and text.startswith("load: 'xx") and text.endswith("xx' is too long; shorten it.")


def folder_with(name: str, file: str, **changes) -> dict[str, bytes]:
    files = first_seed(name)
    return files | {file: json.dumps({**json.loads(files[file]), **changes}).encode()}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "file", "changes"),
    [
        ("guidance", "unet/config.json", {"layers_per_block": 10**7}),
        ("guidance", "unet/config.json", {"block_out_channels": [2**40, 32]}),
        ("guidance", "unet/config.json", {"in_channels": []}),
        ("guidance", "text_encoder/config.json", {"num_hidden_layers": 10**7}),
        ("guidance", "text_encoder/config.json", {"vocab_size": 2**40}),
        ("guidance", "text_encoder/config.json", {"hidden_size": "wide"}),
        ("guidance", "scheduler/scheduler_config.json", {"num_train_timesteps": 2**40}),
        ("guidance", "tokenizer/tokenizer.json", {"model": {}}),
        ("network", "config.json", {"layers": [10**7, 1, 1, 1]}),
        ("network", "config.json", {"channels": [2**33, 8, 8, 8]}),
        ("network", "config.json", {"encoder_depth": 10**6}),
        ("network", "config.json", {"decoder_channels": [0] * 5}),
    ],
)
def test_configurations_that_ask_for_anything(tmp_path, name, file, changes):
    reset_peak()
    before = peak_mib()
    assert named(name, folder_with(name, file, **changes), tmp_path)
    assert peak_mib() < before + 300


@pytest.mark.parametrize("name", ["guidance", "network"])
def test_weights_of_another_type(tmp_path, name):
    files = first_seed(name)
    file = next(name for name in files if name.endswith(".safetensors"))
    (tmp_path / "w.safetensors").write_bytes(files[file])
    tensors, words = read_safetensors(tmp_path / "w.safetensors")
    key = next(key for key in tensors if key.endswith("bias"))
    write_safetensors(tmp_path / "w.safetensors", tensors | {key: tensors[key].int()}, words)
    files[file] = (tmp_path / "w.safetensors").read_bytes()
    assert key in named(name, files, tmp_path)


def test_an_encoder_that_needs_numbers_while_it_is_built_is_still_read(tmp_path):
    from animportrait3d_core.networks import build_model, load_network, save_network
    from tests.networks.test_networks import DESCRIPTIONS

    config = {"_model_class": "Unet", "encoder_name": "mit_b0", "in_channels": 3, "classes": 3}
    with pytest.raises(IncompatibleCheckpoint, match="meta tensor"), torch.device("meta"):
        build_model(config)
    save_network(tmp_path, config, build_model(config).state_dict(), DESCRIPTIONS["normals"])
    assert load_network(tmp_path, "normals").role == "normals"


def test_the_judge_knows_a_fault_from_a_named_error(tmp_path):
    path = write(Seed({"a": b"x"}), tmp_path)

    def refuse(path: Path) -> None:
        raise AnimPortraitError("no")

    assert outcome_of(Format("a", list, refuse), path)["outcome"] == "named"
    assert outcome_of(Format("a", list, lambda path: 1 / 0), path)["outcome"] == "other"


MATRICES = [[[1, "0"], [0, 1]], [[1, 0], [0]], [1, [0]], "abc", [["a"] * 4] * 4, {"a": 1}, [10**400] * 16]


@pytest.mark.parametrize("matrix", MATRICES, ids=range(len(MATRICES)))
def test_a_face_whose_matrix_is_no_table_of_numbers(tmp_path, matrix):
    frames = [{"blendshapes": {"jawOpen": 0.5}, "transformation_matrix": matrix}]
    assert "a transformation matrix" in named("motion-json", {"m.json": json.dumps(frames).encode()}, tmp_path)


def test_numbers_of_a_motion_beyond_float32(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.full((2, 15), 1e300))
    assert "not finite in 2 of 2 frames" in named("motion-npy", {"pose.npy": stream.getvalue()}, tmp_path)


def test_time_codes_beyond_all_numbers_are_none(tmp_path):
    rows = ["Timecode,jawOpen", *(f"{'9' * 400}:00:00:0{frame},0.{frame}" for frame in (1, 2, 4))]
    path = write(Seed({"m.csv": "\n".join(rows).encode()}), tmp_path)
    assert outcome_of(BY_NAME["motion-csv"], path) == {"outcome": "result"}


@pytest.mark.parametrize("name", ["global_orient", "eyelids", "translation"])
def test_a_motion_that_throws_the_head_out_of_all_numbers(tmp_path, name):
    far = torch.full((4, 2 if name == "eyelids" else 3), 1e30)
    message = named("motion", changed_tensors("motion", tmp_path, **{name: far}), tmp_path)
    assert f"`{name}` goes up to 1.0e+30" in message


def test_options_of_a_map_beyond_all_numbers(tmp_path):
    files = {
        "a.obj": b"mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nusemtl a\nf 1/1 2/2 3/3\n",
        "a.mtl": b"newmtl a\nmap_Kd -s 1e999 1 1 t.png\n",
        "t.png": blank_png(4, 4, 8),
    }
    assert "texture coordinates that are not finite" in named("obj", files, tmp_path)


def test_nodes_so_far_away_that_their_determinant_overflows(tmp_path):
    builder = GlbBuilder().mesh(TRIANGLE)
    builder.glb.tree["nodes"][0]["scale"] = [1e150] * 3
    path = builder.write(tmp_path / "a.glb")
    assert "beyond 1e+60" in named("glb", {"a.glb": path.read_bytes()}, tmp_path)


def test_steps_of_a_tensor_that_need_more_than_64_bits(tmp_path):
    storage = Storage(torch.float32, 3, lambda: bytes(12))
    tensor = StoredTensor(storage, 0, (3, 1), (1, 10**30))
    with pytest.raises(InvalidInput, match="has steps beyond"):
        materialize({"a": tensor}, "file.pth")


def test_a_body_whose_names_are_no_texts(tmp_path):
    data = pickle.dumps({None: np.zeros(3), "f": np.zeros(3)})
    assert "is no body model: found ['None', 'f']" in named("body-pkl", {"b.pkl": data}, tmp_path)
