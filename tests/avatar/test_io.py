"""The avatar file: exact round trips, and one clear error for every kind of wrong file."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from animportrait3d_core.avatar import RiggedAvatar, load_avatar, pose_avatar, save_avatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.body.personal import PersonalOffsets
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingModelFile
from animportrait3d_core.files import read_safetensors


def licensed(body: BodyModel) -> BodyModel:
    """The same body under a licence that forbids passing it on."""
    tensors, metadata = body.to_tensors()
    fields = json.loads(metadata["body_assets"]) | {"redistributable": False}
    return BodyModel.from_tensors(tensors, metadata | {"body_assets": json.dumps(fields)})


@pytest.fixture(scope="module")
def saved(avatar: RiggedAvatar, tmp_path_factory):
    path = tmp_path_factory.mktemp("avatar") / "avatar.safetensors"
    save_avatar(avatar, path)
    return path


def test_round_trip_is_exact(avatar: RiggedAvatar, saved) -> None:
    again = load_avatar(saved)
    for field in dataclasses.fields(avatar.gaussians):
        assert torch.equal(getattr(again.gaussians, field.name), getattr(avatar.gaussians, field.name))
    assert torch.equal(again.binding, avatar.binding)
    assert torch.equal(again.part_id, avatar.part_id)
    for name, value in avatar.parameters.items():
        assert torch.equal(getattr(again.parameters, name), value)
    assert (again.prompt, again.quaternion_order, dict(again.metadata)) == ("a test", "corrected", {"seed": "0"})
    pose = avatar.parameters.replace(jaw_pose=torch.tensor([[0.3, 0.0, 0.0]]))
    # Stored tensors are contiguous, which may change the order of sums in posing.
    torch.testing.assert_close(pose_avatar(again, pose).means, pose_avatar(avatar, pose).means, rtol=0, atol=2e-6)


def test_the_documented_tensors_and_metadata_are_there(saved) -> None:
    tensors, metadata = read_safetensors(saved)
    assert {"means", "quats", "log_scales", "logit_opacities", "sh", "binding", "part_id"} <= set(tensors)
    assert {"body.betas", "body.eyelids", "assets.faces", "assets.template"} <= set(tensors)
    assert {"schema_version", "quaternion_order", "vertex_order", "prompt", "versions", "body_fingerprint"} <= set(
        metadata
    )


def test_a_licensed_body_stays_out_of_the_file(avatar: RiggedAvatar, tmp_path) -> None:
    body = licensed(avatar.body)
    path = tmp_path / "avatar.safetensors"
    save_avatar(dataclasses.replace(avatar, body=body), path)
    tensors, _ = read_safetensors(path)
    assert not [name for name in tensors if name.startswith("assets.")]
    with pytest.raises(MissingModelFile, match="licensed body"):
        load_avatar(path)
    assert torch.equal(load_avatar(path, body=body).gaussians.means, avatar.gaussians.means)
    with pytest.raises(
        IncompatibleCheckpoint, match="pass the body, and the body assets, that the avatar was made with"
    ):
        load_avatar(path, body=avatar.body)


def personal(body: BodyModel) -> BodyModel:
    """The body with small offsets of its own."""
    draw = torch.Generator().manual_seed(4)
    sizes = {"vertices": (body.num_vertices, 3), "joints": (55, 3), "eyelids": (2, body.num_vertices, 3)}
    values = {name: 0.001 * torch.randn(size, generator=draw) for name, size in sizes.items()}
    return body.personalized(PersonalOffsets(**values, body=body.fingerprint))


@pytest.mark.parametrize("make", [lambda body: body, licensed], ids=["stored", "licensed"])
def test_personal_offsets_travel_with_the_avatar(avatar: RiggedAvatar, tmp_path, make) -> None:
    """With the body where it may be passed on, alone where it may not."""
    body, path = make(avatar.body), tmp_path / "avatar.safetensors"
    own = dataclasses.replace(avatar, body=personal(body))
    save_avatar(own, path)
    again = load_avatar(path, body=body)
    assert again.body.fingerprint == own.body.fingerprint != body.fingerprint
    pose = avatar.parameters.replace(eyelids=torch.ones(1, 2), left_eye_pose=torch.tensor([[0.0, 0.3, 0.0]]))
    found, wanted, plain = (pose_avatar(one, pose).means for one in (again, own, avatar))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    assert float((plain - wanted).norm(dim=1).mean()) > 1e-4
    if body.redistributable:
        assert load_avatar(path).body.fingerprint == own.body.fingerprint
        # Loaded by itself and saved again, it is the same file, and still known by the body without offsets.
        save_avatar(load_avatar(path), tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
        assert load_avatar(tmp_path / "again.safetensors", body=body).body.fingerprint == own.body.fingerprint


def test_a_licensed_body_of_somebody_else_is_refused(avatar: RiggedAvatar, tmp_path) -> None:
    body, path = licensed(avatar.body), tmp_path / "avatar.safetensors"
    save_avatar(dataclasses.replace(avatar, body=personal(body)), path)
    with pytest.raises(
        IncompatibleCheckpoint, match="pass the body, and the body assets, that the avatar was made with"
    ):
        load_avatar(path, body=avatar.body)
    with pytest.raises(MissingModelFile, match="licensed body"):
        load_avatar(path)


def rewritten(saved, tmp_path, change):
    """A copy of the saved file after change(tensors, metadata)."""
    tensors, metadata = read_safetensors(saved)
    change(tensors, metadata)
    path = tmp_path / "changed.safetensors"
    save_file(tensors, str(path), metadata=metadata)
    return path


CHANGES = {
    "another format": (lambda t, m: m.pop("format"), IncompatibleCheckpoint, "expected 'animportrait3d.avatar'"),
    "a later version": (lambda t, m: m.update(schema_version="99"), IncompatibleCheckpoint, "schema version 99"),
    "no means": (lambda t, m: t.pop("means"), InvalidInput, r"lacks \['means'\]"),
    "short means": (lambda t, m: t.update(means=t["means"][:7].clone()), InvalidInput, "cannot be used"),
    "nan": (lambda t, m: t["quats"].mul_(float("nan")), InvalidInput, "`quats` holds"),
    "far binding": (lambda t, m: t["binding"].add_(10**7), InvalidInput, "but the body has"),
    "wrong part": (lambda t, m: t["part_id"].fill_(200), InvalidInput, "`part_id` goes up to 200"),
    "other faces": (
        lambda t, m: t["assets.faces"].copy_(t["assets.faces"].flip(0)),
        IncompatibleCheckpoint,
        "rigged to",
    ),
    "no pose": (lambda t, m: t.pop("body.jaw_pose"), InvalidInput, "jaw_pose"),
    "bad order": (lambda t, m: m.update(quaternion_order="xyzw"), InvalidInput, "quaternion order 'xyzw'"),
    "bad json": (lambda t, m: m.update(metadata="{"), InvalidInput, "not JSON"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_is_refused_with_its_reason(saved, tmp_path, name: str) -> None:
    change, error, message = CHANGES[name]
    with pytest.raises(error, match=message) as caught:
        load_avatar(rewritten(saved, tmp_path, change))
    assert str(caught.value).startswith("load_avatar")


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_cut_off_file_is_refused(saved, tmp_path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(InvalidInput, match="load_avatar"):
        load_avatar(path)


def test_a_failed_save_leaves_the_old_file(avatar: RiggedAvatar, tmp_path) -> None:
    path = tmp_path / "avatar.safetensors"
    path.write_bytes(b"precious")
    broken = dataclasses.replace(avatar.gaussians, means=avatar.gaussians.means / 0)
    with pytest.raises(InvalidInput, match="save_avatar"):
        save_avatar(dataclasses.replace(avatar, gaussians=broken), path)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["avatar.safetensors"]
