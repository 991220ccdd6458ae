"""Triangle frames against the reference numbers (`tests/data/rig_oracle.npz`), and as a map that can be inverted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.rigging import (
    Placement,
    convert_quaternion_order,
    covariances,
    points_to_local,
    to_local,
    to_world,
    triangle_frames,
)

THIN_TRIANGLE = 1
STATES = {"rest": "verts", "rigid": "verts_rigid", "deformed": "verts_deformed"}


@pytest.fixture(scope="module")
def oracle() -> dict[str, torch.Tensor]:
    with np.load(Path(__file__).parents[1] / "data" / "rig_oracle.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def local_placement(oracle: dict[str, torch.Tensor], dtype: torch.dtype) -> Placement:
    names = ("local_xyz", "local_quat_wxyz", "local_log_scale")
    return Placement(*(oracle[name].to(dtype) for name in names))


def assert_same_rotation(quats: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    quats = torch.nn.functional.normalize(quats.double(), dim=-1)
    expected = torch.nn.functional.normalize(expected.double(), dim=-1)
    assert ((quats * expected).sum(-1).abs() - 1).abs().max() < tolerance


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_frames_match_oracle(oracle, state: str, dtype: torch.dtype, tolerance: float) -> None:
    frames = triangle_frames(oracle[STATES[state]].to(dtype), oracle["faces"])
    torch.testing.assert_close(
        frames.rotation.double(), oracle[f"{state}/face_orientation"], rtol=0, atol=10 * tolerance
    )
    torch.testing.assert_close(frames.scale.double(), oracle[f"{state}/face_scale"], rtol=0, atol=tolerance)
    torch.testing.assert_close(frames.center.double(), oracle[f"{state}/face_center"], rtol=0, atol=tolerance)
    assert_same_rotation(frames.quats, oracle[f"{state}/face_quat_wxyz"], tolerance)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("order", "suffix", "short"),
    [("corrected", "corrected_face_x_local", "corrected"), ("legacy", "upstream_local_x_face", "upstream")],
)
def test_world_placement_matches_oracle(oracle, state: str, order, suffix: str, short: str) -> None:
    frames = triangle_frames(oracle[STATES[state]], oracle["faces"])[oracle["binding"]]
    world = to_world(frames, local_placement(oracle, torch.float64), order)
    torch.testing.assert_close(world.means, oracle[f"{state}/world_xyz"], rtol=0, atol=1e-10)
    torch.testing.assert_close(world.log_scales.exp(), oracle[f"{state}/world_scale"], rtol=0, atol=1e-10)
    assert_same_rotation(world.quats, oracle[f"{state}/world_quat_wxyz_{suffix}"], 1e-10)
    torch.testing.assert_close(covariances(world), oracle[f"{state}/world_cov_{short}"], rtol=0, atol=1e-10)


def test_inverse_matches_oracle(oracle) -> None:
    for state, vertices in STATES.items():
        frames = triangle_frames(oracle[vertices].float(), oracle["faces"])[oracle["binding"]]
        local = points_to_local(frames, oracle[f"{state}/inverse_world_points"].float()).double()
        expected = oracle[f"{state}/inverse_local"]
        error = (local - expected).norm(dim=-1) / expected.norm(dim=-1)
        thin = oracle["binding"] == THIN_TRIANGLE
        assert error[~thin].max() < 1e-4
        assert error[thin].max() < 1e-2


def test_only_the_corrected_order_follows_a_rigid_motion(oracle) -> None:
    local = local_placement(oracle, torch.float64)
    rotation = oracle["rigid_R"]

    def turn_error(order) -> float:
        rest, moved = (
            covariances(to_world(triangle_frames(oracle[name], oracle["faces"])[oracle["binding"]], local, order))
            for name in ("verts", "verts_rigid")
        )
        return float((rotation @ rest @ rotation.T - moved).abs().max() / rest.abs().max())

    assert turn_error("corrected") < 1e-12
    assert turn_error("legacy") > 0.1


def test_order_conversion_keeps_the_world_rotation_at_the_pose(oracle) -> None:
    frames = triangle_frames(oracle["verts"], oracle["faces"])[oracle["binding"]]
    local = local_placement(oracle, torch.float64)
    corrected = convert_quaternion_order(frames, local.quats, to="corrected")
    legacy_world = to_world(frames, local, "legacy").quats
    assert_same_rotation(to_world(frames, local._replace(quats=corrected), "corrected").quats, legacy_world, 1e-12)
    assert_same_rotation(convert_quaternion_order(frames, corrected, to="legacy"), local.quats, 1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.sampled_from(["corrected", "legacy"]), batch=st.integers(1, 3))
def test_round_trip_through_the_world(seed: int, order, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    vertices, faces = normal(batch, 12, 3), torch.arange(12).reshape(4, 3)
    binding = torch.randint(4, (20,), generator=generator)
    local = Placement(normal(20, 3), normal(20, 4), normal(20, 3))
    frames = triangle_frames(vertices, faces)[binding]
    again = to_local(frames, to_world(frames, local, order), order)
    torch.testing.assert_close(again.means, local.means.expand(batch, 20, 3), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(again.log_scales, local.log_scales.expand(batch, 20, 3), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(again.quats, local.quats.expand(batch, 20, 4), rtol=1e-8, atol=1e-8)


def test_degenerate_triangles_get_finite_proper_frames_and_gradients() -> None:
    point, line = [[0.0, 0, 0]] * 3, [[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]
    zero_base = [[0.0, 0, 0], [0, 0, 0], [0, 1, 0]]
    vertices = torch.tensor(point + line + zero_base, requires_grad=True)
    frames = triangle_frames(vertices, torch.arange(9).reshape(3, 3))
    identity = torch.eye(3).expand(3, 3, 3)
    torch.testing.assert_close(frames.rotation.mT @ frames.rotation, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.linalg.det(frames.rotation), torch.ones(3), rtol=0, atol=1e-6)
    assert (frames.scale > 0).all()
    (frames.rotation.sum() + frames.scale.log().sum() + frames.quats.sum()).backward()
    assert torch.isfinite(vertices.grad).all()


def test_frames_pass_central_differences() -> None:
    vertices = torch.randn(6, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert torch.autograd.gradcheck(
        lambda v: tuple(getattr(triangle_frames(v, faces), name) for name in ("rotation", "quats", "scale", "center")),
        (vertices,),
    )


def test_bad_input_is_named() -> None:
    frames = triangle_frames(torch.eye(3), torch.tensor([[0, 1, 2]]))
    local = Placement(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 3))
    with pytest.raises(InvalidInput, match="quaternion order 'upstream' is unknown"):
        to_world(frames, local, "upstream")
    with pytest.raises(ShapeMismatch, match="`faces` has shape"):
        triangle_frames(torch.eye(3), torch.tensor([0, 1, 2]))
