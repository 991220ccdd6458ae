"""Teeth for a body file that has none, on the mannequin without its own: there the right places are known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from animportrait3d_core.body.asset_making import make_body_assets
from animportrait3d_core.body.assets import load_body_assets, save_body_assets
from animportrait3d_core.body.model import BodyModel, load_body_model
from animportrait3d_core.body.mouth_pieces import with_mouth
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.body.surface_parts import border_loops
from animportrait3d_core.cameras import Cameras, intrinsics, look_at
from animportrait3d_core.cli import main
from animportrait3d_core.conditioning.maps import condition_assets, posed_condition_map
from animportrait3d_core.embedded.mannequin import build_mannequin, identity_skin_displacement
from animportrait3d_core.errors import IncompatibleCheckpoint
from animportrait3d_core.regions import LABEL_TEETH

RINGS = {"sack": 7, "fold": 2, "open": 0}  # rings of the mannequin's sack that the file has
RIGID = 456 + 203 + 456 + 203 + 162  # vertices of teeth, gums and tongue


@pytest.fixture(scope="module", params=sorted(RINGS))
def arrays(request, mannequin_arrays, make_toothless):
    return make_toothless(mannequin_arrays, RINGS[request.param])


@pytest.fixture(scope="module")
def assets(arrays):
    return make_body_assets(arrays)


@pytest.fixture(scope="module")
def body(arrays, assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toothless")
    np.savez(folder / "SMPLX_NEUTRAL.npz", **arrays)
    save_body_assets(assets, folder / "assets.safetensors")
    return load_body_model(folder / "SMPLX_NEUTRAL.npz", folder / "assets.safetensors")


def teeth_ids(assets) -> np.ndarray:
    return torch.unique(assets.faces[assets.face_regions["teeth"]]).numpy()


def uncovered(vertices: np.ndarray, skin: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [n, 3] that no triangle of skin [F, 3] lies in front of, looking along -z."""
    near = vertices[skin]
    low, high = points.min(axis=0), points.max(axis=0)
    near = near[(near.min(axis=1)[:, :2] <= high[:2]).all(axis=1) & (near.max(axis=1)[:, :2] >= low[:2]).all(axis=1)]
    a, ab, ac = near[:, 0], near[:, 1] - near[:, 0], near[:, 2] - near[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    area = np.where(np.abs(area) < 1e-15, np.inf, area)
    offset = points[:, None, :2] - a[None, :, :2]
    u = (offset[..., 0] * ac[:, 1] - offset[..., 1] * ac[:, 0]) / area
    v = (offset[..., 1] * ab[:, 0] - offset[..., 0] * ab[:, 1]) / area
    depth = a[:, 2] + u * ab[:, 2] + v * ac[:, 2]
    inside = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9)
    return ~(inside & (depth > points[:, None, 2])).any(axis=1)


def test_the_mannequins_own_teeth_are_made_again(assets, arrays):
    mannequin = build_mannequin()
    assert assets.teeth_origin == "made" and assets.mouth.version == 1
    own = ("upper_teeth", "upper_gum", "lower_teeth", "lower_gum", "tongue")
    wanted = np.concatenate([mannequin.vertices[mannequin.part_vertices[name]] for name in own])
    found = assets.mouth.vertices[:RIGID].numpy()
    assert np.linalg.norm(found - wanted, axis=1).max() < 5e-4, "metres"
    teeth = (mannequin.part_faces["upper_teeth"], mannequin.part_faces["lower_teeth"])
    assert int(assets.face_regions["teeth"].sum()) == sum(part.stop - part.start for part in teeth)
    labels = assets.vertex_labels.numpy() == np.float32(LABEL_TEETH)
    assert np.array_equal(np.flatnonzero(labels), teeth_ids(assets))
    inside = assets.face_regions["mouth_interior"]
    assert bool((inside | ~assets.face_regions["teeth"]).all())
    assert int(assets.vertex_ids.max()) == len(arrays["v_template"]) + len(assets.mouth.vertices) - 1


def test_a_mouth_that_is_open_behind_the_lips_is_lined(assets, arrays):
    """Sewn to the file's border without a hole, each edge run through once in each direction, as on the skin."""
    faces, count = assets.faces.numpy(), len(assets.vertex_ids)
    added = len(assets.mouth.vertices) - RIGID
    assert (added > 0) == (len(arrays["v_template"]) < 11459)
    open_mouth = np.ones(count, dtype=bool)
    open_mouth[count - added - RIGID : count - added] = False  # gums and rows of teeth are open strips
    left = border_loops(faces[open_mouth[faces].all(axis=1)])
    vertices = with_mouth(arrays, assets.mouth)["v_template"][assets.vertex_ids.numpy()]
    heights = [vertices[loop, 1].mean() for loop in left]
    assert not any(0.1 < height < 0.27 for height in heights), "open are the sockets of the eyes and the bust, below"
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)


def test_a_file_wound_inward_gets_teeth_wound_inward(arrays, assets):
    names = ("f", "lmk_bary_coords", "dynamic_lmk_bary_coords")
    turned = make_body_assets(arrays | {name: arrays[name][..., [0, 2, 1]] for name in names})
    assert not turned.winding_outward and assets.winding_outward
    assert torch.equal(turned.faces, assets.faces[:, [0, 2, 1]])
    torch.testing.assert_close(turned.mouth.vertices, assets.mouth.vertices)


def skin_faces(assets) -> np.ndarray:
    inner = assets.face_regions["mouth_interior"] | assets.face_regions["teeth"]
    return assets.faces[~inner].numpy()


def test_no_tooth_is_before_the_lips_whoever_it_is(body):
    """Neutral and 20 random shapes within two deviations: skin lies in front of every vertex of a tooth."""
    betas = 2 * torch.rand(21, body.num_betas, generator=torch.Generator().manual_seed(0)).mul(2).sub(1)
    betas[0] = 0
    shapes = body.shape(betas).vertices.double().numpy()
    skin, teeth = skin_faces(body.assets), teeth_ids(body.assets)
    bare = [int(uncovered(vertices, skin, vertices[teeth]).sum()) for vertices in shapes]
    assert bare == [0] * 21


def test_teeth_go_along_with_a_taller_body(arrays, assets):
    """SMPL-X's first shape direction is mostly stature: the whole head rises."""
    taller = arrays["shapedirs"].copy()
    taller[..., 0] += [0.0, 0.05, 0.02]
    grown = with_mouth(arrays | {"shapedirs": taller}, assets.mouth)
    vertices = (grown["v_template"] + 2 * grown["shapedirs"][..., 0])[assets.vertex_ids.numpy()]
    assert not uncovered(vertices, skin_faces(assets), vertices[teeth_ids(assets)]).any()


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_teeth_of_other_people_lie_behind_their_lips(mannequin_arrays, make_toothless, seed):
    template = mannequin_arrays["v_template"] + identity_skin_displacement(seed)
    other = make_toothless(mannequin_arrays | {"v_template": template}, RINGS["fold"])
    assets = make_body_assets(other)
    vertices = with_mouth(other, assets.mouth)["v_template"][assets.vertex_ids.numpy()]
    assert not uncovered(vertices, skin_faces(assets), vertices[teeth_ids(assets)]).any()


def test_front_teeth_stand_in_the_opening(assets, arrays):
    vertices = with_mouth(arrays, assets.mouth)["v_template"][assets.vertex_ids.numpy()]
    lips = (vertices[assets.faces[assets.landmark_faces].numpy()] * assets.landmark_barycentric.numpy()[..., None]).sum(
        1
    )
    low, high = lips[48:60].min(axis=0), lips[48:60].max(axis=0)
    for rows, jaw in ((slice(0, 456), 0.0), (slice(659, 1115), 1.0)):
        teeth = assets.mouth.vertices[rows].numpy()
        assert bool((assets.mouth.jaw[rows] == jaw).all())
        front = teeth[teeth[:, 2] > teeth[:, 2].max() - 0.01]  # incisors and canines
        assert (front[:, 0] > low[0]).all() and (front[:, 0] < high[0]).all()
        assert (front[:, 1] > low[1] - 0.004).all() and (front[:, 1] < high[1] + 0.002).all()
        assert teeth[:, 2].max() < lips[60:68, 2].max() - 0.005


def opened(body, degrees: float, **others) -> BodyParameters:
    pose = torch.tensor([[np.deg2rad(degrees), 0.0, 0.0]], dtype=torch.float32)
    return dataclasses.replace(body.neutral_parameters(), jaw_pose=pose, **others)


def test_upper_teeth_follow_the_head_and_lower_ones_the_jaw(body):
    first = body.num_vertices - len(body.assets.mouth.vertices)
    expression = torch.full((1, body.num_expression), 1.5)
    turned = opened(body, 20.0, expression=expression, head_pose=torch.tensor([[0.1, 0.4, 0.2]]))
    rest = torch.cat([body.assets.mouth.vertices[:RIGID], torch.ones(RIGID, 1)], dim=1)
    posed = body(turned)
    for rows, joint in ((slice(0, 659), 15), (slice(659, RIGID), 22)):
        wanted = rest[rows] @ posed.joint_transforms[0, joint].T
        torch.testing.assert_close(posed.vertices[0, first:][rows], wanted[:, :3], atol=1e-6, rtol=0)


def test_teeth_take_the_mean_shape_of_the_lips_and_the_lining_that_of_the_border(body, arrays):
    assets = body.assets
    grown = with_mouth(arrays, assets.mouth)
    added = grown["shapedirs"][len(arrays["v_template"]) :]
    lips = arrays["shapedirs"][assets.mouth.lips.numpy()]
    np.testing.assert_allclose(
        added[:RIGID, :, :10], np.broadcast_to(lips[..., :10].mean(0), (RIGID, 3, 10)), atol=1e-9
    )
    assert not added[:RIGID, :, 10:].any() and not grown["J_regressor"][:, len(arrays["v_template"]) :].any()
    if len(added) > RIGID:
        border = assets.mouth.anchors.numpy()[RIGID:][: (len(added) - RIGID) // 7]
        following = arrays["shapedirs"][border, :, 10:]
        assert np.abs(added[RIGID : RIGID + len(border), :, 10:] - following).max() < 0.05 * np.abs(following).max()


def test_a_wide_tongue_is_no_row_of_teeth(mannequin_arrays):
    mannequin = build_mannequin()
    template = mannequin_arrays["v_template"].copy()
    template[mannequin.part_vertices["tongue"], 0] *= 1.4
    assets = make_body_assets(mannequin_arrays | {"v_template": template})
    assert np.array_equal(assets.face_regions["teeth"].numpy(), mannequin.face_regions["teeth"])


def test_lips_that_are_one_piece_get_no_teeth(mannequin_arrays, make_toothless):
    """Without an opening nobody would see them; said in the report, no error."""
    arrays = make_toothless(mannequin_arrays, RINGS["open"])
    upper, lower = build_mannequin().slits["mouth"]
    sewn = np.arange(len(arrays["v_template"]))
    sewn[lower] = upper
    assets = make_body_assets(arrays | {"f": sewn[arrays["f"].astype(np.int64)].astype(np.uint32)})
    assert assets.teeth_origin == "none" and assets.mouth is None
    assert not assets.face_regions["teeth"].any()


def test_the_command_says_that_teeth_were_added(arrays, tmp_path, capsys):
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    assert main(["convert", "body-assets", str(tmp_path / "SMPLX_NEUTRAL.npz"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["teeth"] == "made" and report["regions"]["teeth"] > 1000
    assert main(["convert", "body-assets", str(tmp_path / "SMPLX_NEUTRAL.npz")]) == 0
    assert "teeth, gums and tongue of our own were added" in capsys.readouterr().out


def test_assets_made_before_teeth_were_added_give_the_body_they_gave(arrays, assets, body, tmp_path):
    """Such a file has no word of added vertices; the same body without them."""
    count, faces = len(arrays["v_template"]), int((assets.faces < len(arrays["v_template"])).all(dim=1).sum())
    old = dataclasses.replace(
        assets,
        vertex_ids=assets.vertex_ids[:count],
        faces=assets.faces[:faces],
        eyelid_offsets=assets.eyelid_offsets[:, :count],
        face_regions={name: mask[:faces] for name, mask in assets.face_regions.items()},
        vertex_labels=assets.vertex_labels[:count],
        mouth=None,
    )
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    save_body_assets(old, tmp_path / "old.safetensors")
    read = load_body_model(tmp_path / "SMPLX_NEUTRAL.npz", tmp_path / "old.safetensors")
    assert read.assets.teeth_origin == "none" and read.fingerprint != body.fingerprint
    moved = opened(body, 12.0)
    torch.testing.assert_close(read(moved).vertices, body(moved).vertices[:, :count], atol=1e-6, rtol=0)


def test_the_node_says_where_the_teeth_are_from(arrays, assets, run_context, run_node):
    folder = run_context.models_directory / "smplx"
    folder.mkdir(parents=True)
    np.savez(folder / "SMPLX_NEUTRAL.npz", **arrays)
    save_body_assets(assets, folder / "assets.safetensors")
    for chosen, words in (
        ("(of the body)", "Body assets were made"),
        ("assets.safetensors", "Body assets from"),
    ):
        (said,) = run_node("AP3D_LoadSMPLX", body="SMPLX_NEUTRAL.npz", assets=chosen).ui["text"]
        assert said.startswith(words) and "teeth, gums and tongue of our own were added" in said


def test_a_body_of_another_size_is_refused(arrays, assets):
    less = {name: arrays[name][:-1] for name in ("v_template", "weights", "shapedirs", "posedirs")}
    with pytest.raises(IncompatibleCheckpoint, match="belong to a body of"):
        with_mouth(arrays | less, assets.mouth)


@pytest.fixture(scope="module")
def front():
    """A camera before the mannequin's mouth."""
    place = look_at(torch.tensor([[0.0, 0.235, 0.8]]), torch.tensor([0.0, 0.235, 0.0]))
    return Cameras(place, intrinsics(10.0, 256, 256)[None], 256, 256)


def labels_of(body, parameters, camera) -> np.ndarray:
    found = posed_condition_map(condition_assets(body.assets), body(parameters), camera, grain=1)
    return np.round(255 * found[0, ..., 3].numpy()).astype(int)


def test_teeth_are_seen_when_the_jaw_opens_and_only_then(body, front):
    shut, wide = labels_of(body, opened(body, 0.0), front), labels_of(body, opened(body, 20.0), front)
    assert (shut == 125).sum() == 0
    assert (wide == 125).sum() > 300, (wide == 125).sum()
    rows, columns = np.nonzero(wide == 125)
    around = wide[rows.min() - 4 : rows.max() + 4, columns.min() - 4 : columns.max() + 4]
    assert set(np.unique(around)) == {0, 125}, "no eye is seen through the mouth"


def test_a_body_with_teeth_survives_its_files(body, arrays, assets, tmp_path):
    back = BodyModel.from_tensors(*body.to_tensors())
    assert back.fingerprint == body.fingerprint and back.assets.teeth_origin == "made"
    moved = opened(body, 12.0)
    assert torch.equal(back(moved).vertices, body(moved).vertices)
    save_body_assets(assets, tmp_path / "assets.safetensors")
    read = load_body_assets(tmp_path / "assets.safetensors")
    assert torch.equal(read.mouth.vertices, assets.mouth.vertices) and read.mouth.file_vertices == len(
        arrays["v_template"]
    )
    assert body.to(dtype=torch.float64).assets.mouth.vertices.dtype == torch.float64
