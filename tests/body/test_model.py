from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.body.assets import load_body_assets, save_body_assets
from animportrait3d_core.body.model import BodyModel, load_body_model
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, ShapeMismatch
from animportrait3d_core.rotations import axis_angle_to_matrix


def random_state(body: BodyModel, batch: int, seed: int = 0, eyelids: bool = True) -> BodyParameters:
    generator = torch.Generator().manual_seed(seed)

    def rand(width: int, size: float) -> torch.Tensor:
        return size * torch.randn(batch, width, generator=generator)

    return BodyParameters(
        betas=rand(body.num_betas, 1.0),
        expression=rand(body.num_expression, 1.0),
        global_orient=rand(3, 0.3),
        neck_pose=rand(3, 0.3),
        head_pose=rand(3, 0.3),
        jaw_pose=rand(3, 0.3),
        left_eye_pose=rand(3, 0.3),
        right_eye_pose=rand(3, 0.3),
        eyelids=rand(2, 1.0).abs() * eyelids,
        translation=rand(3, 0.2),
        scale=2.78 + rand(1, 0.1),
    )


def smplx_vertices(path, parameters: BodyParameters, arm_angle_degrees: float, kept: torch.Tensor):
    """The smplx package's own forward pass of the whole file, in float64: vertices of the crop and the 55 joints."""
    import smplx

    batch = len(parameters)
    parameters = parameters.to(dtype=torch.float64)
    model = smplx.SMPLX(
        str(path), ext="npz", use_pca=False, flat_hand_mean=True, num_betas=300, num_expression_coeffs=100,
        batch_size=batch, dtype=torch.float64,
    )  # fmt: skip
    pose = torch.zeros(batch, 21, 3, dtype=torch.float64)
    pose[:, 11], pose[:, 14] = parameters.neck_pose, parameters.head_pose
    pose[:, 15, 2], pose[:, 16, 2] = -np.deg2rad(arm_angle_degrees), np.deg2rad(arm_angle_degrees)
    with torch.no_grad():
        output = model(
            betas=parameters.betas, expression=parameters.expression, global_orient=parameters.global_orient,
            body_pose=pose.flatten(1), jaw_pose=parameters.jaw_pose, leye_pose=parameters.left_eye_pose,
            reye_pose=parameters.right_eye_pose, return_shaped=False,
        )  # fmt: skip
    place = lambda points: points * parameters.scale[:, None] + parameters.translation[:, None]  # noqa: E731
    return place(output.vertices[:, kept]), place(output.joints[:, :55])


def test_agrees_with_the_smplx_package(body, body_files):
    parameters = random_state(body, 3, eyelids=False)
    vertices, joints = smplx_vertices(body_files[0], parameters, 60.0, body.assets.vertex_ids)
    output = body(parameters)
    assert float((output.vertices - vertices).abs().max()) < 1e-6 * 2.78
    assert float((output.joints - joints).abs().max()) < 1e-6 * 2.78


def test_large_flavour_agrees_with_the_smplx_package(tmp_path, make_arrays, make_assets):
    arrays = make_arrays(shape_columns=400, correctives=False)
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    save_body_assets(make_assets(arrays, arm_angle_degrees=0.0), tmp_path / "assets.safetensors")
    body = load_body_model(tmp_path / "SMPLX_NEUTRAL.npz", tmp_path / "assets.safetensors")
    assert (body.num_betas, body.num_expression) == (300, 100)
    parameters = random_state(body, 1, eyelids=False).replace(betas=0.1 * torch.ones(1, 300))
    vertices, joints = smplx_vertices(tmp_path / "SMPLX_NEUTRAL.npz", parameters, 0.0, body.assets.vertex_ids)
    output = body(parameters)
    assert float((output.vertices - vertices).abs().max()) < 1e-6 * 2.78
    assert float((output.joints - joints).abs().max()) < 1e-6 * 2.78


@pytest.mark.parametrize("mode", ["fixed", "paper"])
def test_gradients_equal_central_differences(body, body_files, mode):
    exact = load_body_model(*body_files, eyelid_mode=mode).to(dtype=torch.float64)
    state = random_state(body, 1, seed=4).to(dtype=torch.float64)
    weights = torch.randn(body.num_vertices, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def energy(parameters: BodyParameters) -> torch.Tensor:
        output = exact(parameters)
        return (output.vertices[0] * weights).sum() + output.landmarks.square().sum() + output.joints[0, 23].sum()

    leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
    gradients = torch.autograd.grad(energy(BodyParameters(**leaves)), list(leaves.values()))
    for (name, value), gradient in zip(state.items(), gradients):
        for column in range(value.shape[1]):
            step = torch.zeros_like(value)
            step[0, column] = 1e-5
            ahead, behind = (energy(state.replace(**{name: value + s})) for s in (step, -step))
            numeric = float(ahead - behind) / 2e-5
            assert float(gradient[0, column]) == pytest.approx(numeric, rel=2e-6, abs=2e-6), (name, column)


def test_gradient_is_finite_at_the_neutral_pose(body):
    leaves = {name: value.clone().requires_grad_() for name, value in body.neutral_parameters().items()}
    gradients = torch.autograd.grad(body(BodyParameters(**leaves)).vertices.square().sum(), list(leaves.values()))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_batch_equals_single_states(body):
    parameters = random_state(body, 4, seed=6)
    together = body(parameters)
    for index in range(4):
        alone = body(parameters[index])
        assert torch.allclose(together.vertices[index], alone.vertices[0], atol=2e-7)
        assert torch.allclose(together.landmarks[index], alone.landmarks[0], atol=2e-7)


def test_shared_shape_equals_full_evaluation(body):
    parameters = random_state(body, 3, seed=7)
    parameters = parameters.replace(betas=parameters.betas[:1].expand(3, -1))
    shared = body(parameters, body.shape(parameters.betas[:1]))
    assert torch.allclose(shared.vertices, body(parameters).vertices, atol=2e-7)


def test_scale_and_translation_come_last(body):
    posed = random_state(body, 1, seed=8)
    unplaced = body(posed.replace(scale=torch.ones(1, 1), translation=torch.zeros(1, 3)))
    placed = body(posed)
    for name in ("vertices", "landmarks", "joints"):
        expected = getattr(unplaced, name) * posed.scale[:, None] + posed.translation[:, None]
        assert torch.allclose(getattr(placed, name), expected, atol=1e-6), name


def test_joint_transforms_move_points_that_follow_one_joint(body_arrays, tmp_path, make_assets):
    arrays = dict(body_arrays, posedirs=np.zeros_like(body_arrays["posedirs"]))
    arrays["weights"] = np.eye(55)[np.full(len(arrays["v_template"]), 22)]
    np.savez(tmp_path / "body.npz", **arrays)
    save_body_assets(make_assets(arrays), tmp_path / "assets.safetensors")
    body = load_body_model(tmp_path / "body.npz", tmp_path / "assets.safetensors")
    posed = random_state(body, 2, seed=9, eyelids=False).replace(expression=torch.zeros(2, 10))
    output = body(posed)
    rest = body.shape(posed.betas).vertices
    jaw = output.joint_transforms[:, 22]
    expected = rest @ jaw[:, :3, :3].transpose(1, 2) + jaw[:, None, :3, 3]
    assert torch.allclose(output.vertices, expected, atol=2e-6)


def test_lids_turn_with_the_head_only_in_fixed_mode(body_arrays, tmp_path, make_assets):
    arrays = dict(body_arrays, posedirs=np.zeros_like(body_arrays["posedirs"]))
    arrays["weights"] = np.eye(55)[np.full(len(arrays["v_template"]), 15)]
    np.savez(tmp_path / "body.npz", **arrays)
    assets = make_assets(arrays)
    save_body_assets(assets, tmp_path / "assets.safetensors")
    files = tmp_path / "body.npz", tmp_path / "assets.safetensors"
    turn = torch.tensor([[0.0, 1.2, 0.0]])
    offsets = {}
    for mode in ("fixed", "paper"):
        body = load_body_model(*files, eyelid_mode=mode)
        open_eyes = body.neutral_parameters().replace(head_pose=turn)
        closed = open_eyes.replace(eyelids=torch.tensor([[0.0, 1.0]]))
        offsets[mode] = (body(closed).vertices - body(open_eyes).vertices)[0]
    assert torch.allclose(offsets["paper"], assets.eyelid_offsets[1], atol=1e-6)
    rotated = assets.eyelid_offsets[1] @ axis_angle_to_matrix(turn[0]).T
    assert torch.allclose(offsets["fixed"], rotated, atol=1e-6)


def test_landmarks_are_barycentric_points_of_the_posed_faces(body):
    output = body(random_state(body, 2, seed=10))
    for landmark in (0, 33, 69):
        corners = body.faces[body.assets.landmark_faces[landmark]]
        weights = body.assets.landmark_barycentric[landmark]
        expected = (output.vertices[:, corners] * weights[:, None]).sum(1)
        assert torch.allclose(output.landmarks[:, landmark], expected, atol=1e-6)


def test_outward_faces_and_regions(body, body_arrays, make_assets):
    assert torch.equal(body.faces_outward, body.faces)
    inward = BodyModel.from_tensors(*body.to_tensors())
    inward = BodyModel(inward._tensors, dataclasses.replace(body.assets, winding_outward=False))
    assert torch.equal(inward.faces_outward, body.faces.flip(1).roll(1, 1))
    lips = body.region_faces("lips")
    assert torch.equal(body.assets.face_regions["lips"], torch.isin(torch.arange(len(body.faces)), lips))
    assert set(body.region_vertices("lips").tolist()) == set(body.faces[lips].flatten().tolist())
    with pytest.raises(InvalidInput, match="tail"):
        body.region_faces("tail")


def test_round_trip_through_tensors_is_exact(body):
    again = BodyModel.from_tensors(*body.to_tensors())
    parameters = random_state(body, 2, seed=11)
    assert torch.equal(again(parameters).vertices, body(parameters).vertices)
    assert again.fingerprint == body.fingerprint
    assert again.assets.arm_angle_degrees == 60.0
    assert not again.redistributable


def test_fingerprint_sees_a_changed_lid(body):
    moved = dataclasses.replace(body.assets, eyelid_offsets=body.assets.eyelid_offsets + 1e-6)
    assert BodyModel(body._tensors, moved).fingerprint != body.fingerprint


def test_works_in_inference_mode_and_trains_afterwards(body_files):
    with torch.inference_mode():
        body = load_body_model(*body_files)
        posed = body(body.neutral_parameters()).vertices
        tensors, metadata = body.to_tensors()
        read = {name: tensor.clone() for name, tensor in tensors.items()}  # as a file read here gives them
        again = BodyModel.from_tensors(read, metadata)
    assert read["template"].is_inference()
    assert posed.is_inference()
    for model in (body, again):
        jaw = torch.zeros(1, 3, requires_grad=True)
        model(model.neutral_parameters().replace(jaw_pose=jaw)).vertices.sum().backward()
        assert float(jaw.grad.abs().max()) > 0


def test_arm_angle_moves_what_hangs_on_the_shoulders(body_files):
    straight = load_body_model(*body_files, arm_angle_degrees=0.0)
    bent = load_body_model(*body_files)
    assert straight.assets.arm_angle_degrees == 0.0
    moved = (bent(bent.neutral_parameters()).vertices - straight(straight.neutral_parameters()).vertices).abs()
    assert float(moved.max()) > 1e-3


def test_parameters_of_another_body_are_refused(body):
    with pytest.raises(ShapeMismatch, match="300 betas"):
        body(BodyParameters.neutral(1, 300, 100))


def test_without_an_assets_file_they_are_made_from_the_body_and_its_landmarks_must_fit(body_files):
    with pytest.raises(InvalidInput, match="make_body_assets: the file's landmarks are not in iBUG order"):
        load_body_model(body_files[0])


def test_assets_of_another_body_are_refused(body_files, tmp_path):
    assets = load_body_assets(body_files[1])
    ids = assets.vertex_ids.clone()
    ids[0] = 13460
    save_body_assets(dataclasses.replace(assets, vertex_ids=ids), tmp_path / "other.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match="13460.*9984"):
        load_body_model(body_files[0], tmp_path / "other.safetensors")


def test_unknown_eyelid_mode_is_refused(body):
    with pytest.raises(InvalidInput, match="sleepy"):
        BodyModel(body._tensors, body.assets, "sleepy")
