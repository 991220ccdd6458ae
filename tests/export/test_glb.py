"""GLB: what a viewer shows is the body, the splats and their rig come back, and what is left out is told."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import Motion, stress_clip
from animportrait3d_core.animation.arkit import arkit_map
from animportrait3d_core.animation.clips import StressClipSettings, open_jaw, turn_eyes
from animportrait3d_core.avatar import RiggedAvatar, pose_avatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.body.parameters import BodyParameters, stack_parameters
from animportrait3d_core.errors import InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.export import GlbSettings, read_avatar_glb, write_avatar_glb
from animportrait3d_core.export.baking import BakeSettings
from animportrait3d_core.export.glb_splats import EXTENSION
from animportrait3d_core.mesh_files import load_mesh
from animportrait3d_core.mesh_files.gltf_source import GltfSource
from animportrait3d_core.mesh_files.parts import Notes
from animportrait3d_core.mesh_files.report import LoadSettings
from animportrait3d_core.rigging import Placement, to_world, triangle_frames
from tests.avatar_samples import sleeping_person
from tests.host.browser import browser_environment, node_modules

ROOT = Path(__file__).parents[2]
TINY = BakeSettings(texture_size=32, view_size=16)
SETTINGS = GlbSettings(bake=TINY)


class TwoShapes:
    """Two shapes that turn joints, as jawOpen and a gaze do."""

    names = ("jawOpen", "eyeLookOutLeft")

    def poses(self, rest: BodyParameters) -> BodyParameters:
        rest = rest.to(dtype=torch.float32)
        return stack_parameters([open_jaw(rest, 20.0), turn_eyes(rest, 25.0, 0.0)])


def front_uvs(body: BodyModel) -> torch.Tensor:
    """Coordinates [F, 3, 2] seen from the front; with a seam, where the faces behind the ears are moved."""
    with torch.no_grad():
        corners = body(body.neutral_parameters()).vertices[0][body.faces]
    low, high = corners.amin(dim=(0, 1)), corners.amax(dim=(0, 1))
    uvs = 0.5 * ((corners - low) / (high - low))[..., :2]
    return torch.where((corners[..., 2].mean(dim=1) < 0)[:, None, None], uvs + 0.5, uvs)


@pytest.fixture(scope="module")
def avatar(mannequin_body: BodyModel) -> RiggedAvatar:
    return sleeping_person(mannequin_body, 900, sh_degree=1)


@pytest.fixture(scope="module")
def clip(avatar: RiggedAvatar) -> Motion:
    return stress_clip(avatar.body, avatar.parameters, settings=StressClipSettings(frames_per_move=3))


@pytest.fixture(scope="module")
def written(avatar: RiggedAvatar, clip: Motion, tmp_path_factory):
    path = tmp_path_factory.mktemp("glb") / "avatar.glb"
    return write_avatar_glb(avatar, path, {"stress": clip}, front_uvs(avatar.body), TwoShapes(), SETTINGS)


@pytest.fixture(scope="module")
def head(written):
    return read_avatar_glb(written.path).head


def distance(shown: np.ndarray, faces: np.ndarray, avatar: RiggedAvatar, parameters: BodyParameters) -> float:
    """Largest distance of the corners of shown faces from those of the body, in world units."""
    with torch.no_grad():
        body = avatar.body(parameters).vertices[0][avatar.body.faces_outward].numpy()
    return float(np.abs(shown[faces] - body).max())


def test_a_viewer_shows_the_body_at_rest_and_in_every_frame(head, written, avatar, clip):
    assert distance(head.vertices(), head.faces, avatar, avatar.parameters) < 1e-5
    for frame in range(len(clip)):
        found = distance(head.vertices("stress", frame), head.faces, avatar, clip.parameters[frame])
        assert found < 1e-5, clip.names[frame]
    np.testing.assert_allclose(head.times["stress"], np.arange(len(clip)) / clip.fps, atol=1e-6)
    assert written.deviation < 1e-6 and written.notes == ()


def test_weights_are_four_and_sum_to_one(head, written):
    assert head.weights.shape[1] == 4 and head.weights.min() >= 0
    np.testing.assert_allclose(head.weights.sum(axis=1), 1, atol=1e-7)
    assert {"neck", "head", "jaw", "left_eye", "right_eye"} <= set(written.joints)


def test_other_readers_find_head_colours_and_texture(head, written, avatar):
    """trimesh knows no skins and shows the bind pose; our own reader of meshes poses the skin."""
    import trimesh

    scene = trimesh.load(written.path, process=False)
    mesh = next(geometry for geometry in scene.geometry.values() if len(getattr(geometry, "faces", [])))
    np.testing.assert_allclose(mesh.vertices, head.positions, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, head.faces)
    np.testing.assert_allclose(mesh.visual.uv[mesh.faces], front_uvs(avatar.body).numpy(), atol=1e-6)  # trimesh: v up
    assert mesh.visual.material.baseColorTexture.size == (32, 32)
    assert (mesh.face_normals * mesh.vertex_normals[mesh.faces[:, 0]]).sum(axis=1).mean() > 0.8
    ours = load_mesh(written.path)
    assert ours.texture is not None and len(ours.faces) == len(avatar.body.faces)
    assert distance(ours.vertices.numpy(), ours.faces.numpy(), avatar, avatar.parameters) < 1e-5


def test_morph_targets_are_the_bodys_own_shapes(head, written, avatar):
    """Joints that move with an expression are in clips, not in a target: at rest that is less than 1e-4."""
    rest = avatar.parameters.awake()
    expressions = avatar.body.num_expression
    assert head.morph_names == written.morphs
    assert head.morph_names[expressions:] == ("left_eyelid", "right_eyelid", "jawOpen", "eyeLookOutLeft")
    poses = {}
    for index in range(expressions):
        changed = rest.expression.clone()
        changed[0, index] += 1
        poses[f"expression_{index:02}"] = rest.replace(expression=changed)
    poses["left_eyelid"] = rest.replace(eyelids=torch.tensor([[1.0, 0.0]]))
    poses["right_eyelid"] = rest.replace(eyelids=torch.tensor([[0.0, 1.0]]))
    shapes = TwoShapes().poses(rest)
    poses |= {name: shapes[index] for index, name in enumerate(TwoShapes.names)}
    for name, pose in poses.items():
        weights = np.array([float(name == other) for other in head.morph_names])
        limit = 1e-4 if name.startswith("expression") else 1e-5
        assert distance(head.vertices(weights=weights), head.faces, avatar, pose) < limit, name


@pytest.mark.parametrize("outward", [True, False])
def test_splats_and_rig_come_back(avatar, clip, tmp_path, outward: bool):
    """The rig as documented: frames of the stored faces, corners in the stored order, carry the splats."""
    if not outward:
        assets = dataclasses.replace(avatar.body.assets, winding_outward=False)
        avatar = dataclasses.replace(avatar, body=with_body(avatar.body, assets=assets), quaternion_order="legacy")
    report = write_avatar_glb(avatar, tmp_path / "a.glb", {"stress": clip}, None, None, SETTINGS)
    read = read_avatar_glb(report.path)
    world = pose_avatar(avatar, avatar.parameters)
    unit = dataclasses.replace(world, quats=torch.nn.functional.normalize(world.quats, dim=-1))
    for name in ("means", "quats", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(read.splats.world, name), getattr(unit, name), rtol=0, atol=1e-6)
    again = read.splats.on_body(avatar.body, avatar.parameters)
    expected = avatar.with_quaternion_order("corrected")
    torch.testing.assert_close(again.gaussians.means, expected.gaussians.means, rtol=0, atol=1e-6)
    assert torch.equal(again.binding, avatar.binding) and torch.equal(again.part_id, avatar.part_id)
    mesh = read.head.source.items("meshes")[-1]
    rig = mesh["extras"]["animportrait3d_rig"]
    assert read.head.source.items("nodes")[rig["node"]]["name"] == "head_mesh"
    faces = torch.from_numpy(read.head.faces)[:, rig["cornerOrder"]]
    shown = torch.from_numpy(read.head.vertices("stress", 4)).float()
    frames = triangle_frames(shown, faces)[again.binding]
    local = again.gaussians
    carried = to_world(frames, Placement(local.means, local.quats, local.log_scales))
    posed = pose_avatar(expected, clip.parameters[4])
    torch.testing.assert_close(carried.means, posed.means, rtol=0, atol=1e-5)
    agree = (carried.quats * posed.quats).sum(-1).abs() / (carried.quats.norm(dim=-1) * posed.quats.norm(dim=-1))
    assert float(agree.min()) > 1 - 1e-5


def test_the_extension_is_as_khronos_published_it(avatar, written):
    source = GltfSource(written.path, LoadSettings(), Notes())
    mesh = source.items("meshes")[-1]
    primitive = mesh["primitives"][0]
    assert len(mesh["primitives"]) == 1 and primitive["mode"] == 0
    told = primitive["extensions"][EXTENSION]
    assert told["kernel"] == "ellipse" and told["colorSpace"] == "srgb_rec709_display"
    assert EXTENSION in source.items("extensionsUsed") and not source.items("extensionsRequired")
    values = {name: source.accessor(index) for name, index in primitive["attributes"].items()}
    world = pose_avatar(avatar, avatar.parameters)
    quats = torch.nn.functional.normalize(world.quats, dim=-1).numpy()
    np.testing.assert_allclose(values[f"{EXTENSION}:ROTATION"][:, [3, 0, 1, 2]], quats, atol=1e-6)
    np.testing.assert_allclose(values[f"{EXTENSION}:SCALE"], world.log_scales.exp().numpy(), rtol=1e-6)
    np.testing.assert_allclose(values[f"{EXTENSION}:OPACITY"][:, 0], world.logit_opacities.sigmoid().numpy(), atol=1e-7)
    np.testing.assert_allclose(values[f"{EXTENSION}:SH_DEGREE_1_COEF_2"], world.sh[:, 3].numpy(), atol=1e-7)
    assert values["COLOR_0"].shape == (len(world), 4)
    shown = (0.5 + 0.28209479177387814 * world.sh[:, 0].double().numpy()).clip(0, 1)
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(values["COLOR_0"][:, :3], linear, atol=1e-6)


def with_body(body: BodyModel, assets=None, **tensors: torch.Tensor) -> BodyModel:
    """The body with other assets or tensors."""
    stored, metadata = body.to_tensors()
    changed = BodyModel.from_tensors({**stored, **tensors}, metadata)
    return changed if assets is None else BodyModel(changed._tensors, assets, body.eyelid_mode)


def test_pose_correctives_are_told_and_measured(avatar, clip, tmp_path):
    """They are no part of glTF: at rest they are there, in a clip the report tells how far they would move the skin."""
    generator = torch.Generator().manual_seed(0)
    directions = 1e-3 * torch.randn(45, 3 * avatar.body.num_vertices, generator=generator)
    moved = dataclasses.replace(avatar, body=with_body(avatar.body, pose_directions=directions))
    report = write_avatar_glb(moved, tmp_path / "a.glb", {"stress": clip}, None, None, SETTINGS)
    assert any("pose correctives" in note for note in report.notes)
    read = read_avatar_glb(report.path).head
    assert distance(read.vertices(), read.faces, moved, moved.parameters) < 1e-5
    worst = max(distance(read.vertices("stress", k), read.faces, moved, clip.parameters[k]) for k in range(len(clip)))
    assert 1e-3 < worst <= report.deviation < 0.1


def test_weights_beyond_four_are_told(avatar, tmp_path):
    weights = avatar.body.to_tensors()[0]["skinning_weights"] + 0.01
    body = with_body(avatar.body, skinning_weights=weights / weights.sum(dim=1, keepdim=True))
    shared = dataclasses.replace(avatar, body=body)
    report = write_avatar_glb(shared, tmp_path / "a.glb", None, None, None, SETTINGS)
    assert any("four strongest joints; up to 1.9%" in note for note in report.notes)
    read = read_avatar_glb(report.path).head
    np.testing.assert_allclose(read.weights.sum(axis=1), 1, atol=1e-7)
    assert distance(read.vertices(), read.faces, shared, shared.parameters) < 1e-5


def licensed(avatar: RiggedAvatar) -> RiggedAvatar:
    assets = dataclasses.replace(avatar.body.assets, redistributable=False, name="smplx")
    return dataclasses.replace(avatar, body=with_body(avatar.body, assets=assets))


def test_a_licensed_body_stays_at_home_unless_asked_for(avatar, clip, tmp_path):
    own, path = licensed(avatar), tmp_path / "a.glb"
    report = write_avatar_glb(own, path, {"stress": clip}, settings=SETTINGS)
    read = read_avatar_glb(path)
    assert read.head is None and len(read.splats.world) == len(avatar) == report.splats
    names = read_names(path)
    assert not any(name.startswith("_") for name in names), "local places tell where the triangles are"
    assert any("include_licensed_body" in note and "smplx" in note for note in report.notes)
    with pytest.raises(InvalidInput, match="without a rig"):
        read.splats.on_body(own.body, own.parameters)
    only_mesh = dataclasses.replace(SETTINGS, splats=False)
    with pytest.raises(InvalidInput, match="nothing is left to write"):
        write_avatar_glb(own, tmp_path / "b.glb", settings=only_mesh)
    assert not (tmp_path / "b.glb").exists()
    asked = dataclasses.replace(SETTINGS, include_licensed_body=True)
    assert write_avatar_glb(own, path, settings=asked).faces == len(avatar.body.faces)
    assert read_avatar_glb(path).head is not None


def read_names(path: Path) -> set[str]:
    """Names of all attributes in a file."""
    source = GltfSource(path, LoadSettings(), Notes())
    return {name for mesh in source.items("meshes") for part in mesh["primitives"] for name in part["attributes"]}


def test_without_texture_coordinates_the_vertices_have_the_colours(avatar, tmp_path):
    report = write_avatar_glb(avatar, tmp_path / "a.glb", settings=dataclasses.replace(SETTINGS, splats=False))
    assert any("no texture coordinates" in note for note in report.notes)
    assert {"COLOR_0"} < read_names(report.path) and "TEXCOORD_0" not in read_names(report.path)
    assert report.vertices == avatar.body.num_vertices
    assert load_mesh(report.path).vertex_colors is not None


def test_beside_a_texture_no_vertex_colour_darkens_it(written):
    source = GltfSource(written.path, LoadSettings(), Notes())
    names = source.items("meshes")[0]["primitives"][0]["attributes"]
    assert "COLOR_0" not in names and "_VERTEX_COLOR" in names


def test_motions_of_others_are_refused_before_anything_is_written(avatar, clip, tmp_path):
    path = tmp_path / "a.glb"
    other = Motion(clip.parameters.replace(betas=clip.parameters.betas + 0.1), 25.0)
    with pytest.raises(InvalidInput, match="of another shape"):
        write_avatar_glb(avatar, path, {"other": other}, settings=SETTINGS)
    wide = Motion(BodyParameters.neutral(2, 10, 50), 25.0)
    with pytest.raises(ShapeMismatch, match="'wide' has .10, 50."):
        write_avatar_glb(avatar, path, {"wide": wide}, settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_older_file(avatar, tmp_path, small_disk):
    path = tmp_path / "a.glb"
    path.write_bytes(b"older")
    with small_disk(4096), pytest.raises(InvalidInput, match="Make room"):
        write_avatar_glb(avatar, path, settings=GlbSettings(mesh=False))
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


def test_damaged_files_are_refused(written, tmp_path):
    with pytest.raises(MissingModelFile):
        read_avatar_glb(tmp_path / "absent.glb")
    data = written.path.read_bytes()
    for name, changed in {
        "cut": data[: len(data) // 2],
        "names": data.replace(b'"targetNames": ["expression_00", ', b'"targetNames": [                 ', 1),
        "attribute": data.replace(b"KHR_gaussian_splatting:SCALE", b"KHR_gaussian_splatting:SCALX", 1),
    }.items():
        path = tmp_path / f"{name}.glb"
        path.write_bytes(changed)
        with pytest.raises(InvalidInput):
            read_avatar_glb(path)


def validator_messages(path: Path, folder: Path) -> list[dict]:
    """What Khronos's validator says of a file."""
    script = Path(__file__).parent / "validate.js"
    environment = {"PATH": str(Path(shutil.which("node") or "node").parent), "NODE_PATH": str(folder)}
    command = ["node", str(script), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.browser
@pytest.mark.slow
def test_khronos_validator_finds_no_fault(written, avatar, clip, tmp_path):
    """But the attributes of the splats, whose extension it does not know yet."""
    folder = node_modules()
    if shutil.which("node") is None or not (folder / "gltf-validator").is_dir():
        pytest.skip("no node, or no gltf-validator (scripts/test.sh --all installs it)")
    found = validator_messages(written.path, folder)
    errors = [entry for entry in found if entry["severity"] == 0]
    assert errors and {entry["code"] for entry in errors} == {"MESH_PRIMITIVE_INVALID_ATTRIBUTE"}
    assert all(f"/{EXTENSION}:" in entry["pointer"] for entry in errors)
    assert {entry["code"] for entry in found if entry["severity"] == 1} <= {"UNSUPPORTED_EXTENSION"}
    bare = dataclasses.replace(SETTINGS, splats=False)
    shapes = arkit_map(avatar.body)  # some move so many vertices that they are not stored sparsely
    report = write_avatar_glb(avatar, tmp_path / "a.glb", {"stress": clip}, front_uvs(avatar.body), shapes, bare)
    assert validator_messages(report.path, folder) == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("viewer", ["three", "babylon"])
def test_other_viewers_show_the_body_in_every_frame(opened_elsewhere, viewer, head, avatar, clip):
    """three.js and Babylon.js skin and morph the file themselves; what they show is the body."""
    answer, folder = opened_elsewhere
    found = answer[viewer]
    assert tuple(found["morphs"]) == head.morph_names and found["clips"] == ["stress"]
    assert {"neck", "head", "jaw", "left_eye", "right_eye"} <= set(found["bones"])
    for frame in range(len(clip)):
        shown = np.fromfile(folder / f"{viewer}{frame}.f32", np.float32).reshape(-1, 3)
        assert distance(shown, head.faces, avatar, clip.parameters[frame]) < 1e-4, clip.names[frame]


@pytest.fixture(scope="module")
def opened_elsewhere(written, clip, tmp_path_factory):
    """(what both viewers say of the file, folder of the vertices that they show)."""
    environment, folder = browser_environment(), tmp_path_factory.mktemp("viewers")
    lacking = [name for name in ("three", "babylonjs", "babylonjs-loaders") if not (node_modules() / name).is_dir()]
    if lacking:
        pytest.skip(f"{', '.join(lacking)}: not there (scripts/test.sh --all installs them)")
    times = [frame / clip.fps for frame in range(len(clip))]
    (folder / "jobs.json").write_text(json.dumps({"clip": "stress", "times": times}))
    script = Path(__file__).parent / "open_glb.js"
    command = ["node", str(script), str(written.path), str(folder / "jobs.json"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    answer = json.loads((folder / "answer.json").read_text())
    assert not [line for line in answer["said"] if EXTENSION not in line], answer["said"]
    return answer, folder
