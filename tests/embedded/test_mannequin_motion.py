"""Lids, lips, teeth and cavity of the mannequin in motion, for the template and for random identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.embedded.mannequin import Mannequin, build_mannequin, identity_skin_displacement
from animportrait3d_core.render import rasterize_mesh

EYEBALL_RADIUS = 0.0132
HEAD, JAW, LEFT_EYE, RIGHT_EYE = 15, 22, 23, 24


@pytest.fixture(scope="module")
def mannequin() -> Mannequin:
    return build_mannequin()


def _rest(mannequin: Mannequin, identity: int | None) -> np.ndarray:
    """Rest vertices of the template (None) or of a random identity inside and outside the shape basis."""
    if identity is None:
        return mannequin.vertices
    betas = np.random.default_rng(identity).normal(size=10).clip(-2, 2)
    return mannequin.vertices + mannequin.shape_directions @ betas + identity_skin_displacement(identity)


def _posed(mannequin: Mannequin, vertices: np.ndarray, jaw: float = 0.0, gaze=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Jaw and eyes rotated about their joints; nothing else moves, so no kinematic chain is needed."""
    joints = mannequin.joint_regressor @ vertices
    result = vertices.copy()
    for joint, vector in ((JAW, (jaw, 0, 0)), (LEFT_EYE, gaze), (RIGHT_EYE, gaze)):
        turned = Rotation.from_rotvec(vector).apply(vertices - joints[joint]) + joints[joint]
        result += mannequin.skinning_weights[:, joint : joint + 1] * (turned - vertices)
    return result


def _image(mannequin: Mannequin, vertices: np.ndarray, yaw: float, elevation: float, size: int = 384):
    """Visible faces [size, size] (-1 = none) and whether each is seen from its back."""
    camera = orbit_cameras([yaw], [elevation], size)
    placed = torch.from_numpy(vertices * 2.78 - [0.0, 0.447, 0.0]).float()
    faces = torch.from_numpy(mannequin.faces)
    image = rasterize_mesh(placed, faces, camera)
    visible = image.face_id[0].numpy()
    a, b, c = (placed[faces[:, k]].numpy() for k in range(3))
    towards = camera.camera_centers[0].numpy() - a
    back = np.einsum("ij,ij->i", np.cross(b - a, c - a), towards) < 0
    return visible, (visible >= 0) & back[visible]


@pytest.mark.parametrize("identity", [None, 1, 2, 3])
def test_closed_lids_and_resting_lips_leave_no_gap(mannequin, identity):
    rest = _rest(mannequin, identity)
    closed = rest + mannequin.eyelid_offsets.sum(axis=0)
    for name, (upper, lower) in mannequin.slits.items():
        gap = np.linalg.norm((closed if "eye" in name else rest)[upper] - closed[lower], axis=1)
        assert gap.max() < (1e-4 if "eye" in name else 2e-4)
    opened = np.linalg.norm(rest[mannequin.slits["left_eye"][0]] - rest[mannequin.slits["left_eye"][1]], axis=1)
    assert 0.008 < opened.max() < 0.014  # a human eye opens about 10 mm


@pytest.mark.parametrize("identity", [None, 1, 2, 3, 4])
def test_lids_stay_outside_the_eyeballs_at_every_blink_and_gaze(mannequin, identity):
    """The eyeball with its cornea lies in one sphere about its joint whatever the gaze; lids must stay outside it."""
    rest = _rest(mannequin, identity)
    joints = mannequin.joint_regressor @ rest
    bulge = 0.0
    for side, joint in (("left", LEFT_EYE), ("right", RIGHT_EYE)):
        ball = rest[mannequin.part_vertices[f"{side}_eye"]]
        radius = np.linalg.norm(ball - joints[joint], axis=1).max()
        bulge = max(bulge, radius / EYEBALL_RADIUS - 1)
        margin = mannequin.part_vertices[f"{side}_eye_rim"].start + len(mannequin.slits[f"{side}_eye"][0]) * 2 - 2
        lids = mannequin.faces[mannequin.face_regions["eye_region"]]
        lids = lids[(lids < margin).all(axis=1)]
        lids = lids[((mannequin.vertex_parts[lids] == 0) | (lids >= margin - 200)).all(axis=1)]
        lids = lids[mannequin.vertices[lids[:, 0], 0] * (1 if side == "left" else -1) > 0]
        assert len(lids) > 500
        for blink in np.linspace(0, 1, 11):
            posed = rest + blink * mannequin.eyelid_offsets.sum(axis=0)
            samples = np.concatenate([posed[lids].reshape(-1, 3), posed[lids].mean(axis=1)])
            assert np.linalg.norm(samples - joints[joint], axis=1).min() > radius
    assert bulge <= 0.0101


def test_closed_lid_line_curves_gently_downward(mannequin):
    line = mannequin.closed_vertices[mannequin.slits["left_eye"][0]]
    share = np.linspace(0, 1, len(line))
    chord = line[0] + share[:, None] * (line[-1] - line[0])
    sag = chord[:, 1] - line[:, 1]
    assert 0.0015 < sag.max() < 0.005
    assert 0.3 < share[sag.argmax()] < 0.7


@pytest.mark.parametrize("yaw,elevation", [(0, 0), (35, 0), (0, -30), (-60, 10), (0, 35)])
def test_nothing_inside_the_mouth_shows_at_rest(mannequin, yaw, elevation):
    visible, _ = _image(mannequin, mannequin.vertices, yaw, elevation)
    inside = np.flatnonzero(mannequin.face_regions["mouth_interior"])
    assert np.isin(visible, inside).sum() == 0


def test_opening_the_jaw_shows_teeth_and_moves_the_chin_down(mannequin):
    opened = _posed(mannequin, mannequin.vertices, jaw=0.4)
    visible, _ = _image(mannequin, opened, 0, 0)
    assert np.isin(visible, np.flatnonzero(mannequin.face_regions["teeth"])).sum() > 40
    upper, lower = mannequin.slits["mouth"]
    middle = len(upper) // 2
    assert opened[upper[middle], 1] - opened[lower[middle], 1] > 0.025
    np.testing.assert_allclose(opened[upper[middle]], mannequin.vertices[upper[middle]], atol=1e-3)


@pytest.mark.parametrize("jaw,blink,expression", [(0.0, 0.0, None), (0.2, 0.5, 0), (0.45, 1.0, None), (0.3, 0.0, 3)])
def test_no_hole_shows_the_inside_of_the_head(mannequin, jaw, blink, expression):
    """Every surface turns its outside to the camera; a visible back face is a hole or a fold."""
    vertices = mannequin.vertices + blink * mannequin.eyelid_offsets.sum(axis=0)
    if expression is not None:
        vertices = vertices + mannequin.expression_directions[:, :, expression]
    vertices = _posed(mannequin, vertices, jaw, (0.1, 0.3, 0.0))
    for yaw, elevation in ((0, 0), (40, 0), (-75, 0), (0, -25), (20, 30), (150, 0)):
        visible, back = _image(mannequin, vertices, yaw, elevation)
        seen = visible >= 0
        assert seen.sum() > 10_000
        assert back.sum() <= 1e-4 * seen.sum(), f"{back.sum()} back-facing pixels at yaw {yaw}, elevation {elevation}"


def test_directions_are_finite_bounded_and_all_do_something(mannequin):
    face = np.unique(mannequin.faces[mannequin.face_regions["face"]])
    for directions, largest in ((mannequin.shape_directions, 0.02), (mannequin.expression_directions, 0.012)):
        assert np.isfinite(directions).all()
        length = np.linalg.norm(directions, axis=1)
        assert length.max() < largest
        assert (length[face].max(axis=0) > 1e-3).all() or (length.max(axis=0) > 5e-3).all()
        unit = directions.reshape(-1, 10) / np.linalg.norm(directions.reshape(-1, 10), axis=0)
        assert np.linalg.cond(unit) < 30  # no direction repeats the others


def test_expressions_do_what_their_names_say(mannequin):
    upper, lower = mannequin.slits["mouth"]
    middle, left = upper[len(upper) // 2], upper[-1]
    direction = dict(zip(mannequin.expression_names, np.moveaxis(mannequin.expression_directions, -1, 0), strict=True))
    assert direction["smile"][left, 1] > 0.004 and direction["smile"][left, 0] > 0.003
    assert direction["frown"][left, 1] < -0.004
    assert direction["pucker"][left, 0] < -0.005 and direction["pucker"][middle, 2] > 0.004
    assert direction["upper_lip_raise"][middle, 1] > 0.004
    assert direction["lower_lip_drop"][lower[len(lower) // 2], 1] < -0.004
    assert direction["mouth_left"][middle, 0] > 0.005
    landmarks = mannequin.faces[mannequin.landmark_faces]
    brows = landmarks[17:27]
    assert direction["brow_raise"][brows, 1].mean() > 0.002
    assert direction["brow_furrow"][landmarks[21], 1].mean() < -0.001  # inner ends of the brows
    assert direction["sneer"][landmarks[31], 1].mean() > 0.001  # wings of the nose
    assert direction["cheek_puff"][:, 0].max() > 0.005
    rigid = np.isin(mannequin.vertex_parts, [mannequin.part_names.index(n) for n in ("teeth", "eyeball", "ear")])
    assert np.abs(mannequin.expression_directions[rigid]).max() == 0


@pytest.mark.parametrize("seed", [0, 7, 11])
def test_identity_detail_lies_outside_the_basis_and_keeps_eyes_round(mannequin, seed):
    detail = identity_skin_displacement(seed)
    shape = mannequin.shape_directions.reshape(-1, 10)
    shape = shape / np.linalg.norm(shape, axis=0)
    assert np.abs(shape.T @ detail.ravel()).max() < 1e-9
    face = np.unique(mannequin.faces[mannequin.face_regions["face"]])
    between = np.linalg.norm(mannequin.joints[LEFT_EYE] - mannequin.joints[RIGHT_EYE])
    assert np.sqrt((detail[face] ** 2).sum(axis=1).mean()) >= 0.02 * between
    assert np.linalg.norm(detail, axis=1).max() < 0.025
    for side in ("left", "right"):
        moved = detail[mannequin.part_vertices[f"{side}_eye"]]
        assert np.ptp(moved, axis=0).max() < 1e-9  # rigid translation
    assert not np.array_equal(detail, identity_skin_displacement(seed + 1))
    np.testing.assert_array_equal(detail, identity_skin_displacement(seed))
