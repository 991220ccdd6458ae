"""Body assets made from a body file alone: the mannequin's own assets are found again."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from animportrait3d_core.body.asset_making import make_body_assets, with_hanging_arms
from animportrait3d_core.body.assets import load_body_assets
from animportrait3d_core.body.lids import fitted_sphere
from animportrait3d_core.body.model import load_body_model, make_smplx_layer
from animportrait3d_core.body.mouth_pieces import with_mouth
from animportrait3d_core.body.surface_parts import components, edge_graph, enclosed_by, loop_through
from animportrait3d_core.cli import main
from animportrait3d_core.embedded.mannequin import build_mannequin, identity_skin_displacement
from animportrait3d_core.embedded.mannequin.body_files import mannequin_assets
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput

OVERLAP = {"scalp": 0.8, "body": 0.75, "face": 0.9, "lips": 0.7, "eye_region": 0.7, "inner_cheek": 0.4}


@pytest.fixture(scope="module")
def arrays(mannequin_arrays):
    return mannequin_arrays


@pytest.fixture(scope="module")
def truth():
    return mannequin_assets(build_mannequin())


@pytest.fixture(scope="module")
def made(arrays):
    return make_body_assets(arrays)


def overlap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Faces in both over faces in either."""
    return float((found & wanted).sum() / (found | wanted).sum())


def places(assets, vertices):
    corners = vertices[assets.vertex_ids[assets.faces[assets.landmark_faces]].numpy()]
    return (corners * assets.landmark_barycentric.numpy()[..., None]).sum(axis=1)


def test_the_mannequins_landmarks_are_found_again(made, truth, arrays):
    found, wanted = places(made, arrays["v_template"]), places(truth, arrays["v_template"])
    unit = np.linalg.norm(wanted[45] - wanted[36])
    errors = np.linalg.norm(found - wanted, axis=1) / unit
    assert errors.max() < 0.01, errors.round(4)


def test_the_whole_bust_is_kept_and_eyeballs_are_pieces_of_their_own(made, truth):
    assert torch.equal(made.vertex_ids, truth.vertex_ids) and torch.equal(made.faces, truth.faces)
    assert made.winding_outward
    for name in ("left_eyeball", "right_eyeball", "iris", "teeth"):
        assert torch.equal(made.face_regions[name], truth.face_regions[name]), name
    torch.testing.assert_close(made.vertex_labels, truth.vertex_labels)
    assert made.teeth_origin == "file" and made.mouth is None


@pytest.mark.parametrize("name", sorted(OVERLAP))
def test_regions_of_the_skin_overlap_with_the_mannequins_own(made, truth, name):
    assert overlap(made.face_regions[name], truth.face_regions[name]) > OVERLAP[name]


def test_what_lies_behind_the_lips_is_the_mouth(made, truth):
    inside = truth.face_regions["mouth_interior"] | truth.face_regions["teeth"]
    assert overlap(made.face_regions["mouth_interior"], inside) > 0.9
    assert not (made.face_regions["mouth_interior"] & made.face_regions["face"]).any()


def covered(vertices: np.ndarray, faces: np.ndarray, center: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether a ray from `center` through each end [n, 3] meets a face beyond it (Moeller and Trumbore)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    result = []
    for ray in ends - center:
        normal = np.cross(ray, c - a)
        scale = (normal * (b - a)).sum(1)
        scale = np.where(np.abs(scale) < 1e-15, np.inf, scale)
        u = (normal * (center - a)).sum(1) / scale
        second = np.cross(center - a, b - a)
        v, t = second @ ray / scale, (second * (c - a)).sum(1) / scale
        result.append(bool(((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1.0)).any()))
    return np.array(result)


def bare_places(assets, vertices: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the eyeball's vertices within 50 degrees of the pupil no skin covers: lids open, and this one closed."""
    faces = assets.faces.numpy()
    vertices = vertices[assets.vertex_ids.numpy()]
    ball = np.unique(faces[assets.face_regions[("left_eyeball", "right_eyeball")[side]].numpy()])
    center, radius = fitted_sphere(vertices[ball])
    front = vertices[ball[(vertices[ball] - center)[:, 2] > 0.64 * radius]]
    no_ball = ~(assets.face_regions["left_eyeball"] | assets.face_regions["right_eyeball"]).numpy()
    skin = faces[no_ball & (np.linalg.norm(vertices[faces].mean(axis=1) - center, axis=1) < 6 * radius)]
    closed, other = (vertices + assets.eyelid_offsets[k].numpy() for k in (side, 1 - side))
    opened = covered(vertices, skin, center, front)
    assert np.array_equal(opened, covered(other, skin, center, front))
    assert np.abs(assets.eyelid_offsets[:, ball].numpy()).max() == 0
    return ~opened, ~covered(closed, skin, center, front)


@pytest.mark.parametrize("side", [0, 1])
def test_lids_close_over_the_eyeball(made, truth, arrays, side):
    opened, closed = bare_places(made, arrays["v_template"], side)
    assert opened.mean() > 0.5
    assert not closed.any(), f"{closed.sum()} of {len(closed)} places of the eyeball stay bare"
    reach, wanted = (float(assets.eyelid_offsets[side].norm(dim=1).max()) for assets in (made, truth))
    assert 0.7 * wanted < reach < 1.3 * wanted
    before = places(made, arrays["v_template"])
    moved = places(made, arrays["v_template"] + made.eyelid_offsets[side].numpy()) - before
    unit = np.linalg.norm(before[45] - before[36])
    assert np.linalg.norm(moved[17:36], axis=1).max() < 0.01 * unit, "brows and nose stay"


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_lids_of_other_people_close_too(arrays, seed):
    """Templates of another shape: eyes of other sizes and places."""
    vertices = arrays["v_template"] + identity_skin_displacement(seed)
    found = make_body_assets(arrays | {"v_template": vertices})
    for side in (0, 1):
        opened, closed = bare_places(found, vertices, side)
        assert opened.any() and not closed.any(), f"{closed.sum()} of {len(closed)} places stay bare"


@pytest.mark.parametrize("seed", [None, 1, 4, 9])
def test_half_closed_lids_stay_outside_the_eyeball_and_close_steadily(arrays, made, seed):
    """Lids move on straight ways: skin that rests outside the eyeball stays there at 1/4, 1/2 and 3/4."""
    vertices = arrays["v_template"] + (0 if seed is None else identity_skin_displacement(seed))
    found = made if seed is None else make_body_assets(arrays | {"v_template": vertices})
    faces, kept = found.faces.numpy(), vertices[found.vertex_ids.numpy()]
    for side, (name, eye) in enumerate((("left_eyeball", slice(42, 48)), ("right_eyeball", slice(36, 42)))):
        center, radius = fitted_sphere(kept[np.unique(faces[found.face_regions[name].numpy()])])
        offsets = found.eyelid_offsets[side].numpy()
        outside = np.linalg.norm(kept - center, axis=1) > radius
        lid = (np.linalg.norm(offsets, axis=1) > 1e-6) & outside
        assert lid.sum() > 200
        gaps = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            moved = kept + share * offsets
            assert np.linalg.norm(moved[lid] - center, axis=1).min() > radius, (side, share)
            upper, lower = places(found, vertices + share * offsets)[eye][[1, 2]], [5, 4]
            gaps.append(float((upper - places(found, vertices + share * offsets)[eye][lower])[:, 1].mean()))
        assert all(after < 0.85 * before for before, after in zip(gaps, gaps[1:])), gaps
        assert gaps[2] == pytest.approx(0.5 * gaps[0], rel=0.1), "half-closed is half the height"


def test_a_file_without_its_landmarks_is_refused(arrays):
    with pytest.raises(IncompatibleCheckpoint, match=r"lmk_faces_idx` \[50\] .* expected \[51\]"):
        make_body_assets(arrays | {"lmk_faces_idx": arrays["lmk_faces_idx"][:50]})


def test_landmarks_of_another_order_are_refused(arrays):
    turned = {name: arrays[name][::-1] for name in ("lmk_faces_idx", "lmk_bary_coords")}
    with pytest.raises(InvalidInput, match="not in iBUG order"):
        make_body_assets(arrays | turned)


def test_a_body_without_eyeballs_is_refused(arrays):
    weights = arrays["weights"].copy()
    weights[:, 15] += weights[:, 23]
    weights[:, 23] = 0
    with pytest.raises(IncompatibleCheckpoint, match="no piece of the template follows joint 23"):
        make_body_assets(arrays | {"weights": weights})


def test_a_loop_cuts_a_tube_in_two():
    """A closed tube of 8 rings of 6, its ring 3 as the loop: 3 rings on one side, 4 on the other."""
    turn = np.arange(6) * np.pi / 3
    rings = [np.stack([np.cos(turn), np.sin(turn), np.full(6, 0.5 * k)], axis=1) for k in range(8)]
    vertices = np.concatenate(rings)
    ids = np.arange(48).reshape(8, 6)
    a, b, c, d = ids[:-1], np.roll(ids, -1, 1)[:-1], ids[1:], np.roll(ids, -1, 1)[1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    graph = edge_graph(vertices, faces)
    assert len(np.unique(components(graph))) == 1
    loop = np.concatenate(loop_through(graph, [18, 20, 22]))
    assert loop.tolist() == ids[3].tolist()
    assert np.flatnonzero(enclosed_by(graph, loop, 47)).tolist() == list(range(18))
    with pytest.raises(InvalidInput, match="no way along the surface"):
        loop_through(edge_graph(np.concatenate([vertices, vertices]), np.concatenate([faces, faces + 48])), [0, 50])


def test_a_sphere_is_fitted_to_a_part_of_it():
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(200, 3))
    rays = rays[rays[:, 2] > 0.2]
    points = np.array([0.03, 0.31, 0.05]) + 0.012 * rays / np.linalg.norm(rays, axis=1, keepdims=True)
    center, radius = fitted_sphere(points)
    np.testing.assert_allclose(center, [0.03, 0.31, 0.05], atol=1e-9)
    assert radius == pytest.approx(0.012, abs=1e-9)


def test_the_loaded_body_blinks_and_takes_part_in_posing(arrays, tmp_path):
    """Through the door users take: a body file alone, no assets file beside it."""
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    body = load_body_model(tmp_path / "SMPLX_NEUTRAL.npz")
    neutral = body.neutral_parameters()
    shut = body(dataclasses.replace(neutral, eyelids=torch.ones(1, 2))).landmarks[0]
    opened = body(neutral).landmarks[0]
    for eye in (slice(36, 42), slice(42, 48)):
        gap = (opened[eye][[1, 2]] - opened[eye][[5, 4]]).norm(dim=1).max()
        assert float(gap) > 0.008
        assert float((shut[eye][[1, 2]] - shut[eye][[5, 4]]).norm(dim=1).max()) < 0.05 * float(gap)
    bare = load_body_model(tmp_path / "SMPLX_NEUTRAL.npz", eyelid_mode="paper")
    assert bare.fingerprint != body.fingerprint and not body.redistributable


def test_the_command_writes_what_the_loader_reads(arrays, made, tmp_path, capsys):
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    assert main(["convert", "body-assets", str(tmp_path / "SMPLX_NEUTRAL.npz"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["file"] == str(tmp_path / "SMPLX_NEUTRAL.safetensors") and report["vertices"] == len(made.vertex_ids)
    read = load_body_assets(report["file"])
    assert torch.equal(read.eyelid_offsets, made.eyelid_offsets) and torch.equal(read.faces, made.faces)
    assert report["regions"] == {name: int(mask.sum()) for name, mask in read.face_regions.items()}


def test_the_order_of_vertices_and_faces_means_nothing(arrays, made):
    """The same body with its vertices and faces shuffled: the same landmarks, lids and regions at their places."""
    rng = np.random.default_rng(5)
    order, turn = rng.permutation(len(arrays["v_template"])), rng.permutation(len(arrays["f"]))
    new_place, new_face = np.argsort(order), np.argsort(turn)
    shuffled = arrays | {name: arrays[name][order] for name in ("v_template", "weights", "shapedirs", "posedirs")}
    shuffled |= {"J_regressor": arrays["J_regressor"][:, order], "f": new_place[arrays["f"]][turn].astype(np.uint32)}
    shuffled |= {name: new_face[arrays[name]] for name in ("lmk_faces_idx", "dynamic_lmk_faces_idx")}
    again = make_body_assets(shuffled)
    np.testing.assert_allclose(places(again, shuffled["v_template"]), places(made, arrays["v_template"]), atol=1e-9)
    torch.testing.assert_close(again.eyelid_offsets[:, new_place], made.eyelid_offsets, atol=1e-7, rtol=0)
    for name, mask in made.face_regions.items():
        assert torch.equal(again.face_regions[name][new_face], mask), name


def real_layout(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mannequin nearer to SMPL-X: nothing loose in the mouth, eye sockets closed behind the eyeballs, arms in the
    T-pose that follow the shoulders, and legs; the eyeballs come last."""
    mannequin = build_mannequin()
    names = mannequin.part_vertices
    loose = [name for name in names if name.endswith(("teeth", "gum", "gums")) or name == "tongue"]
    balls = ["left_eye", "right_eye"]
    order = np.concatenate([np.arange(len(mannequin.vertices))[names[n]] for n in [*names] if n not in loose + balls])
    order = np.concatenate([order, *(np.arange(len(mannequin.vertices))[names[n]] for n in balls)])
    position = np.full(len(mannequin.vertices), -1)
    position[order] = np.arange(len(order))
    faces = position[arrays["f"].astype(np.int64)]
    whole = (faces >= 0).all(axis=1)
    number = np.cumsum(whole) - 1
    vertices, weights, added = arrays["v_template"][order], arrays["weights"][order], []
    for name, joint in (("left", 23), ("right", 24)):
        rim = position[np.arange(len(mannequin.vertices))[names[f"{name}_eye_rim"]]]
        ring = rim[2 * len(rim) // 3 :]
        vertices = np.concatenate([vertices, [mannequin.joints[joint] - [0, 0, 0.02]]])
        weights = np.concatenate([weights, np.eye(55)[[15]]])
        added += [(len(vertices) - 1, ring[k], ring[(k + 1) % len(ring)]) for k in range(len(ring))]
    start = len(vertices)
    limbs = np.array(
        [[s * 0.4, 0.05, z] for s in (1, -1) for z in (0.0, 0.01, 0.02)] + [[0, -1, 0.01 * k] for k in range(3)]
    )
    joints = [18, 18, 18, 19, 19, 19, 1, 1, 1]
    added += [(start + 3 * k, start + 3 * k + 1, start + 3 * k + 2) for k in range(3)]
    count = len(vertices) + len(limbs)
    grown = {name: np.zeros((count, *arrays[name].shape[1:])) for name in ("shapedirs", "posedirs")}
    grown["shapedirs"][: len(order)] = arrays["shapedirs"][order]
    regressor = np.zeros((55, count))
    regressor[:, : len(order)] = arrays["J_regressor"][:, order]
    return (
        arrays
        | grown
        | {
            "v_template": np.concatenate([vertices, limbs]),
            "weights": np.concatenate([weights, np.eye(55)[joints]]),
            "f": np.concatenate([faces[whole], np.array(added)]).astype(np.uint32),
            "J_regressor": regressor,
            "lmk_faces_idx": number[arrays["lmk_faces_idx"]],
            "dynamic_lmk_faces_idx": number[arrays["dynamic_lmk_faces_idx"]],
        }
    )


@pytest.fixture(scope="module")
def nearer(arrays):
    return real_layout(arrays)


def test_a_closed_eye_socket_and_an_empty_mouth_change_nothing_else(nearer, arrays, made, tmp_path):
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **nearer)
    found = load_body_model(tmp_path / "SMPLX_NEUTRAL.npz").assets
    np.testing.assert_allclose(places(found, nearer["v_template"]), places(made, arrays["v_template"]), atol=1e-6)
    for name, mask in made.face_regions.items():
        if name not in ("mouth_interior", "eye_region"):  # the teeth that are added have the mannequin's faces
            assert int(found.face_regions[name].sum()) == int(mask.sum()), name
    sockets = int(found.face_regions["eye_region"].sum()) - int(made.face_regions["eye_region"].sum())
    assert sockets == 2 * 34  # the fans that close them
    for side in (0, 1):
        bare, closed = bare_places(found, with_mouth(nearer, found.mouth)["v_template"], side)
        assert bare.mean() > 0.5 and not closed.any()


def test_arms_that_hang_low_are_cut_off_and_arms_held_out_are_kept(nearer):
    hands = np.flatnonzero(np.abs(nearer["v_template"][:, 0]) > 0.3)
    legs = np.flatnonzero(nearer["v_template"][:, 1] < -0.5)
    hanging = make_body_assets(nearer, arm_angle_degrees=60.0)
    held = make_body_assets(nearer, arm_angle_degrees=0.0)
    assert len(hands) == 6 and np.isin(hands, held.vertex_ids.numpy()).all()
    assert not np.isin(hands, hanging.vertex_ids.numpy()).any()
    assert not np.isin(legs, held.vertex_ids.numpy()).any()
    assert (hanging.arm_angle_degrees, held.arm_angle_degrees) == (60.0, 0.0)
    assert len(held.vertex_ids) - len(hanging.vertex_ids) == 6


def test_landmarks_under_the_crop_are_refused(arrays):
    with pytest.raises(InvalidInput, match=r"landmarks \[.*\] lie under the crop at y = -0.1 m"):
        make_body_assets(arrays | {"v_template": arrays["v_template"] - [0, 0.5, 0]})


def test_hanging_arms_are_those_of_the_smplx_package(make_arrays):
    """Random weights and joints; without pose correctives, which move no vertex across the crop."""
    arrays = make_arrays(correctives=False)
    arrays["posedirs"][0, 0, 0] = 1e-20  # a file without any correctives has no room for them in the layer
    pose = torch.zeros(1, 63)
    pose[0, 3 * 15 + 2], pose[0, 3 * 16 + 2] = -np.pi / 3, np.pi / 3  # body_pose begins with joint 1
    hands = {f"{side}_hand_pose": torch.zeros(1, 45) for side in ("left", "right")}
    wanted = make_smplx_layer(arrays)(body_pose=pose, **hands).vertices[0].detach().numpy()
    assert np.abs(wanted - arrays["v_template"]).max() > 0.02
    np.testing.assert_allclose(with_hanging_arms(arrays, np.pi / 3), wanted, atol=2e-6)


def test_the_node_makes_assets_of_a_body_file_that_has_none(arrays, made, run_context, run_node):
    folder = run_context.models_directory / "smplx"
    folder.mkdir(parents=True)
    np.savez(folder / "SMPLX_NEUTRAL.npz", **arrays)
    chosen = run_node("AP3D_LoadSMPLX", body="SMPLX_NEUTRAL.npz", assets="(of the body)")
    assert torch.equal(chosen.body.assets.eyelid_offsets, made.eyelid_offsets)
    assert float(chosen.image.std()) > 0.05
    (said,) = chosen.ui["text"]
    assert "made from 'SMPLX_NEUTRAL.npz'" in said and "teeth are those of the body file" in said
