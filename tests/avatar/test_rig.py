"""A rig that keeps what no pose changes gives the numbers of posing each time from nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.avatar import AvatarRig, RiggedAvatar, body_frames, pose_avatar, pose_gaussians
from animportrait3d_core.body.parameters import BodyParameters
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.rotations import quaternion_to_matrix

MOVES = (
    {},
    {"jaw_pose": [0.25, 0.0, 0.0], "eyelids": [0.3, 1.0]},
    {"head_pose": [0.1, 0.6, -0.2], "expression": [0.5, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4]},
    {"betas": [1.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]},
)


def poses(avatar: RiggedAvatar) -> list[BodyParameters]:
    rows = [{name: torch.tensor([row]) for name, row in move.items()} for move in MOVES]
    return [avatar.parameters.replace(**row) for row in rows]


def posed_from_nothing(avatar: RiggedAvatar, parameters: BodyParameters) -> Gaussians:
    frames, rest = (body_frames(avatar.body, pose)[avatar.binding] for pose in (parameters, avatar.parameters))
    return pose_gaussians(avatar.gaussians, frames, rest, avatar.quaternion_order)


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_a_rig_gives_the_numbers_of_posing_from_nothing(make_avatar, sh_degree: int) -> None:
    """Bit for bit; from degree 2 on the library that multiplies many small matrices rounds the last bit by their place
    among the others, and a rig has fewer of them."""
    avatar = make_avatar(4000, sh_degree)
    rig = AvatarRig(avatar)
    for parameters in [*poses(avatar), avatar.parameters]:
        found, wanted = rig.pose(parameters), posed_from_nothing(avatar, parameters)
        for field in dataclasses.fields(wanted):
            first, second = getattr(found, field.name), getattr(wanted, field.name)
            if field.name == "sh" and sh_degree > 1:
                torch.testing.assert_close(first, second, rtol=0, atol=2e-6)
            else:
                assert torch.equal(first, second), field.name
        assert torch.equal(rig.pose(parameters, rig.body(parameters)).means, found.means)
        assert torch.equal(pose_avatar(avatar, parameters).sh, found.sh)


def test_shape_and_rest_are_computed_once(make_avatar, monkeypatch) -> None:
    avatar = make_avatar(500, 1)
    calls = []
    shape = type(avatar.body).shape
    monkeypatch.setattr(type(avatar.body), "shape", lambda body, betas: calls.append(1) or shape(body, betas))
    rig = AvatarRig(avatar)
    for parameters in poses(avatar)[:3] * 3:
        rig.pose(parameters.replace(betas=parameters.betas.clone()))
    assert len(calls) == 1
    rig.pose(poses(avatar)[3])
    assert len(calls) == 2


def test_gradients_pass_through_a_rig(make_avatar) -> None:
    """As from nothing, to Gaussians, pose and betas; also when the rig was made in inference mode."""
    avatar = make_avatar(300, 1)
    with torch.inference_mode():
        rig = AvatarRig(avatar)
        rig.pose(avatar.parameters)
    gradients = []
    for pose in (rig.pose, lambda parameters: posed_from_nothing(rig.avatar, parameters)):
        leaves = {name: getattr(avatar.parameters, name).clone().requires_grad_() for name in ("betas", "jaw_pose")}
        means, sh = (getattr(avatar.gaussians, name).clone().requires_grad_() for name in ("means", "sh"))
        rig.avatar = dataclasses.replace(avatar, gaussians=dataclasses.replace(avatar.gaussians, means=means, sh=sh))
        result = pose(avatar.parameters.replace(**leaves))
        loss = (result.means**2).sum() + (result.sh**3).sum() + result.quats.sum()
        gradients.append(torch.autograd.grad(loss, [*leaves.values(), means, sh]))
    for found, wanted in zip(*gradients):
        assert float(wanted.abs().max()) > 0
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_one_pose_at_a_time(make_avatar) -> None:
    avatar = make_avatar(20, 0)
    with pytest.raises(InvalidInput, match="AvatarRig.pose: 2 poses, expected one"):
        AvatarRig(avatar).pose(avatar.parameters.expand(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
def test_a_rig_poses_alike_on_a_gpu(make_avatar) -> None:
    avatar = make_avatar(2000, 3)
    there = AvatarRig(avatar.to("cuda"))
    for parameters in poses(avatar):
        found, wanted = there.pose(parameters.to("cuda")), AvatarRig(avatar).pose(parameters)
        assert found.means.device.type == "cuda"
        for name in ("means", "log_scales", "sh"):
            first, second = getattr(found, name).cpu(), getattr(wanted, name)
            torch.testing.assert_close(first, second, rtol=1e-3, atol=2e-4)
        # A rotation has two quaternions, and rounding may take the other.
        torch.testing.assert_close(
            quaternion_to_matrix(found.quats).cpu(), quaternion_to_matrix(wanted.quats), rtol=0, atol=2e-4
        )
