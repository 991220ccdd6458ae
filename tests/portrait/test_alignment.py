"""Alignment by landmarks and by hand: closed form, mirror guard, axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.landmarks import LANDMARK_NAMES
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.alignment import (
    AXES,
    HandAlignment,
    HeadAlignment,
    align_by_hand,
    align_by_landmarks,
    fit_similarity,
)
from animportrait3d_core.portrait.head_target import head_target, standard_placement


@pytest.fixture(scope="module")
def target(mannequin_body):
    return head_target(mannequin_body)


def random_similarity(seed: int) -> tuple[torch.Tensor, float, torch.Tensor]:
    rng = np.random.default_rng(seed)
    rotation = torch.from_numpy(Rotation.random(random_state=rng).as_matrix())
    return rotation, float(10 ** rng.uniform(-3, 3)), torch.from_numpy(rng.normal(size=3) * 5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(3, 40))
def test_similarity_is_recovered_exactly(seed, count):
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3)))
    rotation, scale, translation = random_similarity(seed)
    moved = scale * points @ rotation.T + translation
    found_rotation, found_scale, found_translation, error = fit_similarity(points, moved)
    assert torch.allclose(found_rotation, rotation, atol=1e-6)
    assert math.isclose(found_scale, scale, rel_tol=1e-6)
    assert torch.allclose(found_translation, translation, atol=1e-5 * scale + 1e-6)
    assert error < 1e-6 * scale + 1e-9


def test_similarity_minimises_the_error():
    """Against a numerical check: no small change of any parameter makes it better."""
    generator = torch.Generator().manual_seed(4)
    source = torch.randn(20, 3, generator=generator).double()
    target = torch.randn(20, 3, generator=generator).double() * 0.3 + source
    weights = torch.rand(20, generator=generator).double()
    rotation, scale, translation, error = fit_similarity(source, target, weights)

    def cost(turn: np.ndarray, grow: float, shift: torch.Tensor) -> float:
        turned = torch.from_numpy(Rotation.from_rotvec(turn).as_matrix()) @ rotation
        rest = (scale + grow) * source @ turned.T + translation + shift - target
        return float((weights * rest.pow(2).sum(1)).sum() / weights.sum())

    best = cost(np.zeros(3), 0, torch.zeros(3).double())
    assert math.isclose(math.sqrt(best), error, rel_tol=1e-9)
    for axis in range(3):
        for step in (1e-3, -1e-3):
            shift = torch.zeros(3).double()
            shift[axis] = step
            assert cost(step * np.eye(3)[axis], 0, torch.zeros(3).double()) > best
            assert cost(np.zeros(3), 0, shift) > best
            assert cost(np.zeros(3), step, torch.zeros(3).double()) > best


def test_mirrored_points_give_a_rotation_not_a_reflection():
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(30, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.2])
    mirrored = points * torch.tensor([1.0, 1.0, -1.0])
    rotation, _, _, error = fit_similarity(points, mirrored)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)
    assert error > 0.1


def test_points_in_a_line_are_refused():
    line = torch.tensor([[0.0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]])
    with pytest.raises(InvalidInput, match="4 points that do not span a plane"):
        fit_similarity(line, line)
    with pytest.raises(InvalidInput, match="2 points"):
        fit_similarity(line[:2], line[:2])


def test_landmark_names_lie_on_the_right_side(target):
    points = {name: target.landmarks[index] for name, index in LANDMARK_NAMES.items()}
    for name, point in points.items():
        if "left" in name:
            assert point[0] > 0.02, name
        elif "right" in name:
            assert point[0] < -0.02, name
        else:
            assert abs(float(point[0])) < 0.02, name
    assert points["chin"][1] < points["lower_lip"][1] < points["upper_lip"][1] < points["nose_tip"][1]
    assert points["left_eye"][1] == pytest.approx(0.42, abs=0.01)
    assert points["nose_tip"][2] == max(point[2] for point in points.values())


def test_the_standard_placement_puts_the_head_before_the_cameras(mannequin_body, target):
    parameters = standard_placement(mannequin_body)
    assert float(parameters.scale) == pytest.approx(2.78)
    assert 0.05 < target.chin < 0.15 and 0.6 < target.height < 0.72


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_bring_a_mesh_into_the_head_frame(target, seed):
    rotation, scale, translation = random_similarity(seed)
    in_file = scale * target.landmarks.double() @ rotation.T + translation
    by_list = align_by_landmarks(in_file[:68].float(), target)
    chosen = ("left_eye_outer", "right_eye_outer", "nose_tip", "chin", "mouth_left")
    by_name = align_by_landmarks({name: in_file[LANDMARK_NAMES[name]] for name in chosen}, target)
    for alignment in (by_list, by_name):
        assert torch.allclose(alignment.apply(in_file), target.landmarks.double(), atol=2e-4)
        assert alignment.residual < 1e-4 and alignment.method == "landmarks"
        back = alignment.inverse_apply(alignment.apply(in_file))
        assert torch.allclose(back, in_file, atol=1e-9 * scale + 1e-9)


def test_alignment_moves_only_the_vertices(target):
    mesh = Mesh(target.mesh.vertices, target.mesh.faces, vertex_colors=torch.rand(len(target.mesh.vertices), 3))
    alignment = align_by_hand(HandAlignment(scale=2.0, translation=(1.0, 0.0, 0.0)))
    moved = alignment.apply_to_mesh(mesh)
    assert torch.allclose(moved.vertices, 2 * mesh.vertices + torch.tensor([1.0, 0, 0]))
    assert moved.faces is mesh.faces and moved.vertex_colors is mesh.vertex_colors


@pytest.mark.parametrize("up, face", [("+y", "+z"), ("+z", "-y"), ("-x", "+y"), ("+z", "+x")])
def test_axes_by_hand(up, face):
    alignment = align_by_hand(HandAlignment(up=up, face=face))
    assert torch.equal(alignment.apply(torch.tensor([AXES[up]]).float()), torch.tensor([[0.0, 1, 0]]))
    assert torch.equal(alignment.apply(torch.tensor([AXES[face]]).float()), torch.tensor([[0.0, 0, 1]]))
    assert float(torch.linalg.det(alignment.rotation)) == pytest.approx(1)


def test_turns_by_hand_follow_the_right_hand_rule():
    """A positive turn about y brings the nose to the subject's left, a positive nod brings it down."""
    turned = align_by_hand(HandAlignment(turn_degrees=(0, 90, 0))).apply(torch.tensor([[0.0, 0, 1]]))
    assert torch.allclose(turned, torch.tensor([[1.0, 0, 0]]), atol=1e-6)
    nodded = align_by_hand(HandAlignment(turn_degrees=(90, 0, 0))).apply(torch.tensor([[0.0, 0, 1]]))
    assert torch.allclose(nodded, torch.tensor([[0.0, -1, 0]]), atol=1e-6)
    both = align_by_hand(HandAlignment(turn_degrees=(90, 90, 0))).apply(torch.tensor([[0.0, 1, 0]]))
    assert torch.allclose(both, torch.tensor([[1.0, 0, 0]]), atol=1e-6)  # nod first, then turn


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.floats(1e-3, 1e3))
def test_what_was_found_can_be_typed_in(vector, scale):
    """Any placement is nearest axes, turns of at most 60 degrees, a scale and a shift; the words hold all of it."""
    rotation = torch.from_numpy(Rotation.from_rotvec(vector).as_matrix()).float()
    found = HeadAlignment(rotation, scale, torch.tensor([0.5, -1.25, 3.0]), "found")
    typed = HandAlignment.of(found)
    again = align_by_hand(typed)
    torch.testing.assert_close(again.rotation, found.rotation, atol=2e-6, rtol=0)
    assert again.scale == scale and torch.equal(again.translation, found.translation)
    assert max(map(abs, typed.turn_degrees)) < 66
    words = dict(part.split(" ") for part in typed.words().split(", "))
    turns = tuple(float(words[name]) for name in ("nod", "turn", "tilt"))
    moves = tuple(float(words[f"move_{axis}"]) for axis in "xyz")
    read = align_by_hand(HandAlignment(words["up"], words["face"], turns, float(words["scale"]), moves))
    torch.testing.assert_close(read.rotation, found.rotation, atol=2e-4, rtol=0)


def test_bad_settings_are_refused(target):
    with pytest.raises(InvalidInput, match="axis 'up'"):
        align_by_hand(HandAlignment(up="up"))
    with pytest.raises(InvalidInput, match="lie on one axis"):
        align_by_hand(HandAlignment(up="+y", face="-y"))
    with pytest.raises(InvalidInput, match="scale 0"):
        align_by_hand(HandAlignment(scale=0))
    with pytest.raises(InvalidInput, match="landmark 'nose' is unknown"):
        align_by_landmarks({"nose": torch.zeros(3)}, target)
    with pytest.raises(InvalidInput, match=r"\[67, 3\], expected \[68, 3\]"):
        align_by_landmarks(torch.zeros(67, 3), target)
    with pytest.raises(InvalidInput, match="non-finite"):
        align_by_landmarks(torch.full((68, 3), float("nan")), target)
    with pytest.raises(InvalidInput, match="proper rotation"):
        HeadAlignment(torch.diag(torch.tensor([1.0, 1, -1])), 1.0, torch.zeros(3), "by hand")


def test_alignment_survives_json() -> None:
    alignment = align_by_hand(HandAlignment("+z", "-x", (5.0, -20.0, 3.0), 0.01, (0.1, 0.2, 0.3)))
    again = HeadAlignment.from_json(alignment.to_json())
    points = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) * 100
    torch.testing.assert_close(again.apply(points), alignment.apply(points))
    assert again.method == "by hand"
