"""The mannequin as an SMPL-X file: the smplx package, joints, landmarks, regions, assets and the cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from animportrait3d_core.body.assets import load_body_assets
from animportrait3d_core.embedded.mannequin import (
    Mannequin,
    build_mannequin,
    code_version,
    mannequin_body_files,
)
from animportrait3d_core.regions import BODY_REGIONS


@pytest.fixture(scope="module")
def mannequin() -> Mannequin:
    return build_mannequin()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return mannequin_body_files(tmp_path_factory.mktemp("bodies"))


@pytest.fixture(scope="module")
def smplx_model(files):
    import smplx

    return smplx.create(
        str(files[0]), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True,
        num_betas=10, num_expression_coeffs=10,
    )  # fmt: skip


def _skinned(mannequin: Mannequin, vertices: np.ndarray, rotations: dict[int, np.ndarray]) -> np.ndarray:
    """Linear blend skinning in float64 along the kinematic tree."""
    joints = mannequin.joint_regressor @ vertices
    world = np.zeros((55, 4, 4))
    for joint, parent in enumerate(mannequin.parents):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(rotations.get(joint, np.zeros(3))).as_matrix()
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world[joint] = local if parent < 0 else world[parent] @ local
    world[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], joints)
    blended = np.einsum("vj,jab->vab", mannequin.skinning_weights, world)
    return np.einsum("vab,vb->va", blended[:, :3, :3], vertices) + blended[:, :3, 3]


def test_smplx_package_agrees_with_skinning_in_float64(mannequin, smplx_model):
    generator = np.random.default_rng(4)
    betas, expression = generator.normal(size=10), generator.normal(size=10)
    turns = {j: 0.3 * generator.normal(size=3) for j in (0, 9, 12, 15, 22, 23, 24)}
    body_pose = np.zeros((21, 3))
    for joint in (9, 12, 15):
        body_pose[joint - 1] = turns[joint]

    def tensor(value) -> torch.Tensor:
        return torch.tensor(np.asarray(value), dtype=torch.float32).reshape(1, -1)

    output = smplx_model(
        betas=tensor(betas), expression=tensor(expression), global_orient=tensor(turns[0]), body_pose=tensor(body_pose),
        jaw_pose=tensor(turns[22]), leye_pose=tensor(turns[23]), reye_pose=tensor(turns[24]),
    )  # fmt: skip
    shaped = mannequin.vertices + mannequin.shape_directions @ betas + mannequin.expression_directions @ expression
    expected = _skinned(mannequin, shaped, turns)
    np.testing.assert_allclose(output.vertices[0].detach().numpy(), expected, atol=1e-5)
    assert np.linalg.norm(expected - shaped, axis=1).max() > 0.05  # the pose moved something


def test_positive_jaw_rotation_opens_the_mouth(mannequin):
    opened = _skinned(mannequin, mannequin.vertices, {22: np.array([0.3, 0, 0])})
    chin = mannequin.faces[mannequin.landmark_faces[8]]
    assert (mannequin.vertices[chin, 1] - opened[chin, 1]).min() > 0.015


def test_weights_are_a_partition_of_unity(mannequin):
    weights = mannequin.skinning_weights
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    for name, joint in (("upper_teeth", 15), ("lower_teeth", 22), ("left_eye", 23), ("right_eye", 24), ("tongue", 22)):
        np.testing.assert_array_equal(weights[mannequin.part_vertices[name], joint], 1.0)


def test_joint_regressor_is_convex_exact_and_follows_the_eyes(mannequin):
    regressor = mannequin.joint_regressor
    assert regressor.min() >= 0
    np.testing.assert_allclose(regressor.sum(axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose(regressor @ mannequin.vertices, mannequin.joints, atol=1e-6)
    for joint in (13, 14, 16, 17, 18, 19, 20, 21):
        assert abs(mannequin.joints[joint, 0]) < np.abs(mannequin.vertices[:, 0]).max() - 0.02
        assert mannequin.vertices[:, 1].min() < mannequin.joints[joint, 1] < mannequin.joints[12, 1]
    ball = mannequin.part_vertices["left_eye"]
    for k in range(10):
        shift = mannequin.shape_directions[ball, :, k].mean(axis=0)
        np.testing.assert_allclose(regressor[23] @ mannequin.shape_directions[:, :, k], shift, atol=1e-9)


def test_landmarks_lie_on_the_surface_where_smplx_has_them(mannequin):
    weights = mannequin.landmark_barycentric
    assert weights.shape == (70, 3) and weights.min() >= -1e-9
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-9)
    points = np.einsum("nk,nkc->nc", weights, mannequin.vertices[mannequin.faces[mannequin.landmark_faces]])
    low, high = points[:68].min(axis=0), points[:68].max(axis=0)
    np.testing.assert_allclose([low[1], high[1]], [0.195, 0.337], atol=0.006)
    np.testing.assert_allclose([low[2], high[2]], [0.004, 0.114], atol=0.012)
    np.testing.assert_allclose([low[0], high[0]], [-0.073, 0.073], atol=0.003)


def test_landmarks_are_mirror_pairs_in_ibug_order(mannequin):
    faces = mannequin.faces[mannequin.landmark_faces]
    points = np.einsum("nk,nkc->nc", mannequin.landmark_barycentric, mannequin.vertices[faces])
    pairs = [(k, 16 - k) for k in range(9)] + [(17 + k, 26 - k) for k in range(5)] + [(31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65), (69, 68)]
    for right, left in pairs:
        assert points[right, 0] < 0 < points[left, 0] or right == left
        np.testing.assert_allclose(points[right] * [-1, 1, 1], points[left], atol=1e-3)
    for middle in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66):
        assert abs(points[middle, 0]) < 1e-3
    assert points[30, 2] > points[33, 2] > points[27, 2]  # tip, base and root of the nose
    heights = points[[19, 37, 41, 30, 33, 51, 62, 57, 8], 1]
    assert (np.diff(heights) < 0).all()  # brow, upper lid, lower lid, nose, lips, chin
    left_pupil = mannequin.part_vertices["left_eye"].start
    np.testing.assert_allclose(points[68], mannequin.vertices[left_pupil], atol=1e-9)


def test_regions_are_consistent(mannequin):
    regions = mannequin.face_regions
    assert set(regions) == set(BODY_REGIONS)
    assert all(mask.any() and mask.dtype == bool for mask in regions.values())
    eyeballs = regions["left_eyeball"] | regions["right_eyeball"]
    assert not (regions["iris"] & ~eyeballs).any()
    assert not (eyeballs & ~regions["eye_region"]).any()
    assert not (regions["left_eyeball"] & regions["right_eyeball"]).any()
    assert not (regions["teeth"] & ~regions["mouth_interior"]).any()
    disjoint = [("scalp", "face"), ("body", "face"), ("lips", "mouth_interior"), ("scalp", "body")]
    disjoint += [("inner_cheek", "lips"), ("condition_face", "mouth_interior"), ("condition_face", "iris")]
    for first, second in disjoint:
        assert not (regions[first] & regions[second]).any(), (first, second)
    centre = mannequin.vertices[mannequin.faces].mean(axis=1)
    assert (centre[regions["left_eyeball"], 0] > 0).all() and (centre[regions["right_eyeball"], 0] < 0).all()
    left, right = centre[:, 0] > 1e-6, centre[:, 0] < -1e-6
    mirrored = {int((mask & left).sum() - (mask & right).sum()) for name, mask in regions.items() if "ball" not in name}
    assert mirrored == {0}


def test_condition_labels(mannequin):
    assert set(np.unique(mannequin.vertex_labels)) == {0.0, 85 / 255, 125 / 255, 1.0}
    iris = np.unique(mannequin.faces[mannequin.face_regions["iris"]])
    np.testing.assert_array_equal(mannequin.vertex_labels[iris], 85 / 255)
    seen_from_front = np.abs(mannequin.vertices[iris, :2]) - np.abs(mannequin.joints[23, :2])
    distance = np.linalg.norm(seen_from_front, axis=1)
    assert 0.0058 < distance.max() < 0.0060  # 5.9 mm, the radius of a human iris


def test_assets_file_holds_the_same_values(mannequin, files):
    assets = load_body_assets(files[1])
    assert assets.winding_outward and assets.redistributable
    np.testing.assert_array_equal(assets.vertex_ids.numpy(), np.arange(len(mannequin.vertices)))
    np.testing.assert_array_equal(assets.faces.numpy(), mannequin.faces)
    np.testing.assert_allclose(assets.eyelid_offsets.numpy(), mannequin.eyelid_offsets, atol=1e-8)
    for name in BODY_REGIONS:
        np.testing.assert_array_equal(assets.face_regions[name].numpy(), mannequin.face_regions[name])


def test_files_are_cached_by_the_version_of_the_code(files):
    model, assets = files
    before = (model.stat().st_mtime_ns, assets.stat().st_mtime_ns)
    again = mannequin_body_files(model.parents[2])
    assert again == files
    assert before == (model.stat().st_mtime_ns, assets.stat().st_mtime_ns)
    assert model.parent.name.startswith(code_version()) and len(code_version()) == 16
