"""PLY: the authors' 65 columns there and back, plain splats, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animportrait3d_core.avatar import RiggedAvatar, pose_avatar
from animportrait3d_core.body.model import BodyModel
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import InvalidInput, MissingModelFile
from animportrait3d_core.export import RIGGED_COLUMNS, read_rigged_ply, splat_columns, write_rigged_ply, write_splat_ply
from animportrait3d_core.export.ply_files import read_table, write_table
from animportrait3d_core.gaussians import Gaussians
from animportrait3d_core.parts import AVATAR_PARTS, AvatarPart, part_of_faces
from animportrait3d_core.render import render_gaussians
from animportrait3d_core.similarity import psnr


@pytest.fixture(scope="module")
def avatar(mannequin_body: BodyModel) -> RiggedAvatar:
    generator = torch.Generator().manual_seed(0)
    binding = torch.randint(len(mannequin_body.faces), (700,), generator=generator)
    part_id = part_of_faces(mannequin_body.assets.face_regions)[binding]
    part_id[mannequin_body.assets.face_regions["scalp"][binding]] = AvatarPart.HAIR

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    gaussians = Gaussians(normal(700, 3), normal(700, 4), normal(700, 3) + 0.5, normal(700), 0.3 * normal(700, 16, 3))
    rest = mannequin_body.neutral_parameters().replace(
        scale=torch.tensor([[2.78]]), translation=torch.tensor([[0.0, -0.32, 0.0]])
    )
    return RiggedAvatar(gaussians, binding, part_id, mannequin_body, rest)


def test_the_65_columns_are_the_authors(avatar: RiggedAvatar, tmp_path) -> None:
    rest = [f"f_rest_{index}" for index in range(45)]
    expected = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", "scale_0", "scale_1", "scale_2"]
    expected += ["rot_0", "rot_1", "rot_2", "rot_3", "binding_0", "hair_points_mask", "clothes_points_mask"]
    expected += ["smplx_points_mask", "teeth_points_mask", "eye_region_points_mask"]
    assert list(RIGGED_COLUMNS) == expected
    assert len(RIGGED_COLUMNS) == 65
    write_rigged_ply(avatar, tmp_path / "a.ply", "legacy")
    columns, _ = read_table(tmp_path / "a.ply", "test")
    assert list(columns) == expected
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].decode()
    assert header.startswith("ply\nformat binary_little_endian 1.0\n")
    assert f"element vertex {len(avatar)}\n" in header
    assert header.count("property float ") == 65
    # Channel-major: the first 15 are red's coefficients 1..15, then green's.
    assert np.array_equal(columns["f_rest_2"], avatar.gaussians.sh[:, 3, 0].numpy())
    assert np.array_equal(columns["f_rest_15"], avatar.gaussians.sh[:, 1, 1].numpy())
    assert np.array_equal(columns["opacity"], avatar.gaussians.logit_opacities.numpy())


@pytest.mark.parametrize("order", ["corrected", "legacy"])
def test_rigged_round_trip(avatar: RiggedAvatar, tmp_path, order) -> None:
    path = tmp_path / "avatar.ply"
    write_rigged_ply(avatar, path, order)
    again = read_rigged_ply(path, avatar.body, avatar.parameters)
    assert again.quaternion_order == order
    same_order = avatar.with_quaternion_order(order)
    for field in dataclasses.fields(Gaussians):
        assert torch.equal(getattr(again.gaussians, field.name), getattr(same_order.gaussians, field.name)), field.name
    assert torch.equal(again.binding, avatar.binding)
    assert torch.equal(again.part_id, avatar.part_id)
    cameras = orbit_cameras([20.0], [0.0], 96)
    images = [render_gaussians(pose_avatar(one, avatar.parameters), cameras).color for one in (again, avatar)]
    assert psnr(*images) > 60


def test_the_lowest_degree_that_holds_the_colours_comes_back(avatar: RiggedAvatar, tmp_path) -> None:
    for count in (1, 4, 9):
        flat = dataclasses.replace(avatar.gaussians, sh=avatar.gaussians.sh[:, :count].contiguous())
        write_rigged_ply(dataclasses.replace(avatar, gaussians=flat), tmp_path / "a.ply")
        again = read_rigged_ply(tmp_path / "a.ply", avatar.body, avatar.parameters)
        assert torch.equal(again.gaussians.sh, flat.sh)


def authors_file(avatar: RiggedAvatar, path, drop: tuple[str, ...] = ()) -> None:
    """A file as the authors' code writes it: legacy order, no comment, perhaps without masks."""
    write_rigged_ply(avatar, path, "legacy")
    columns, _ = read_table(path, "test")
    kept = [name for name in columns if name not in drop]
    write_table(path, kept, np.stack([columns[name] for name in kept], axis=1))


def test_the_authors_files_are_legacy_and_may_lack_masks(avatar: RiggedAvatar, tmp_path) -> None:
    path = tmp_path / "authors.ply"
    authors_file(avatar, path)
    assert read_rigged_ply(path, avatar.body, avatar.parameters).quaternion_order == "legacy"
    authors_file(avatar, path, drop=tuple(name for name in RIGGED_COLUMNS if name.endswith("_mask")))
    bare = read_rigged_ply(path, avatar.body, avatar.parameters)
    assert torch.equal(bare.part_id, part_of_faces(avatar.body.assets.face_regions)[avatar.binding])
    assert set(avatar.part_id.tolist()) <= set(range(len(AVATAR_PARTS)))


@pytest.mark.parametrize("y_down", [True, False])
def test_plain_splats_look_the_same_to_a_camera_that_is_turned_with_them(avatar, tmp_path, y_down: bool) -> None:
    world = pose_avatar(avatar, avatar.parameters)
    path = tmp_path / "splat.ply"
    write_splat_ply(world, path, y_down=y_down)
    columns, _ = read_table(path, "test")
    assert tuple(columns) == splat_columns()

    def stacked(*names: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([columns[name] for name in names], axis=1))

    rest = stacked(*[f"f_rest_{index}" for index in range(45)]).reshape(-1, 3, 15).transpose(1, 2)
    quats = stacked("rot_0", "rot_1", "rot_2", "rot_3")
    torch.testing.assert_close(quats.norm(dim=1), torch.ones(len(quats)))
    read = Gaussians(
        stacked("x", "y", "z"), quats, stacked("scale_0", "scale_1", "scale_2"), torch.from_numpy(columns["opacity"]),
        torch.cat([stacked("f_dc_0", "f_dc_1", "f_dc_2")[:, None], rest], dim=1),
    )  # fmt: skip
    cameras = orbit_cameras([25.0], [10.0], 96)
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) if y_down else torch.eye(4)
    turned = dataclasses.replace(cameras, world_to_camera=cameras.world_to_camera @ turn)
    assert psnr(render_gaussians(read, turned).color, render_gaussians(world, cameras).color) > 60


def damaged(avatar: RiggedAvatar, path, name: str):
    write_rigged_ply(avatar, path)
    data = path.read_bytes()
    changes = {
        "cut off": data[:-40],
        "another file": b"solid cube\n" + data,
        "ascii": data.replace(b"binary_little_endian", b"ascii", 1),
        "list": data.replace(b"property float x\n", b"property list uchar int x\n", 1),
        "no header end": data.split(b"end_header")[0],
        "no vertices first": data.replace(b"element vertex", b"element face", 1),
    }
    path.write_bytes(changes[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut off", "is cut off"),
        ("another file", "is no PLY file"),
        ("ascii", "expected binary_little_endian"),
        ("list", "expected plain numbers"),
        ("no header end", "is no PLY file"),
        ("no vertices first", "expected 'vertex COUNT'"),
    ],
)
def test_damaged_files_are_refused(avatar: RiggedAvatar, tmp_path, name: str, message: str) -> None:
    path = tmp_path / "damaged.ply"
    damaged(avatar, path, name)
    with pytest.raises(InvalidInput, match=message):
        read_rigged_ply(path, avatar.body, avatar.parameters)


def test_files_of_another_kind_or_body_are_refused(avatar: RiggedAvatar, tmp_path) -> None:
    path = tmp_path / "other.ply"
    write_splat_ply(pose_avatar(avatar, avatar.parameters), path)
    with pytest.raises(InvalidInput, match="lacks 1 of 60 columns"):
        read_rigged_ply(path, avatar.body, avatar.parameters)
    write_rigged_ply(avatar, path)
    columns, _ = read_table(path, "test")
    for value, message in ((1e6, "pass the body"), (0.5, "no whole number"), (np.nan, "no whole number")):
        columns["binding_0"] = np.full(len(avatar), value, dtype=np.float32)
        write_table(path, list(columns), np.stack(list(columns.values()), axis=1))
        with pytest.raises(InvalidInput, match=message):
            read_rigged_ply(path, avatar.body, avatar.parameters)
    with pytest.raises(MissingModelFile):
        read_rigged_ply(tmp_path / "absent.ply", avatar.body, avatar.parameters)


def test_the_node_writes_what_viewers_show_and_says_when_it_does_not(run_node, avatar, tmp_path) -> None:
    """By itself `avatar.ply` with the world positions of the splats; the rigged layout goes by another name."""
    exported = run_node("AP3D_ExportAvatar", avatar=avatar)
    path = exported.path
    columns, _ = read_table(path, "test")
    np.testing.assert_array_equal(exported.splat.positions[0, :, 1].numpy(), columns["y"])
    assert path == str(tmp_path / "output" / "avatar.ply") and tuple(columns) == splat_columns()
    world = pose_avatar(avatar, avatar.parameters).means
    np.testing.assert_allclose(columns["y"], -world[:, 1].numpy(), atol=1e-6)
    path = run_node("AP3D_ExportAvatar", avatar=avatar, layout="rigged").path
    columns, _ = read_table(path, "test")
    assert path == str(tmp_path / "output" / "avatar_rigged.ply") and tuple(columns) == RIGGED_COLUMNS
    again = run_node("AP3D_ExportAvatar", avatar=avatar, layout="rigged", filename="avatar_rigged").path
    assert again == path
