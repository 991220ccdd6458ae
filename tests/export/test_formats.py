"""Every format by the two doors that users take: the node and the command."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch

from animportrait3d_core.animation import Motion
from animportrait3d_core.animation.arkit import ARKIT_NAMES
from animportrait3d_core.animation.files import save_motion
from animportrait3d_core.avatar import RiggedAvatar, pose_avatar
from animportrait3d_core.avatar.io import save_avatar
from animportrait3d_core.cli import main
from animportrait3d_core.commands import export
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export import read_animated_ply, read_avatar_glb, read_avatar_page, read_splat_ply
from animportrait3d_core.export.formats import FORMATS
from tests.export.test_glb import licensed


@pytest.fixture(scope="module")
def avatar(make_avatar) -> RiggedAvatar:
    return make_avatar(500)


@pytest.fixture(scope="module")
def motion(avatar: RiggedAvatar) -> Motion:
    jaw = torch.tensor([[0.0, 0, 0], [0.3, 0, 0]])
    return Motion(avatar.parameters.replace(jaw_pose=jaw), 25.0)


def test_the_node_offers_what_core_writes(node_classes):
    node = node_classes["AP3D_ExportAvatar"].INPUT_TYPES()
    assert node["required"]["layout"][0] == list(FORMATS)


def test_the_node_writes_a_motion_as_frames_as_one_file_and_as_a_clip(run_node, avatar, motion, tmp_path):
    out = tmp_path / "output"
    for _ in range(2):  # the output folder belongs to one workflow, which may run again
        path = run_node("AP3D_ExportAvatar", avatar=avatar, layout="frames", motion=motion).path
    assert path == str(out / "avatar_frames")
    frame = read_splat_ply(out / "avatar_frames" / "00001.ply")
    torch.testing.assert_close(frame.means, pose_avatar(avatar, motion.parameters[1]).means, rtol=0, atol=1e-6)
    path = run_node("AP3D_ExportAvatar", avatar=avatar, layout="animated", motion=motion).path
    assert path == str(out / "avatar_animated.ply") and len(read_animated_ply(path).vertices) == 2
    done = run_node("AP3D_ExportAvatar", avatar=avatar, layout="glb", motion=motion, texture_size=0)
    read = read_avatar_glb(done.path)
    assert done.path == str(out / "avatar.glb") and list(read.head.clips) == ["motion"]
    assert not any("exture" in line for line in done.ui["text"]), "none was asked for"
    assert not list(out.glob(".*"))


def test_a_part_of_the_glb_alone(run_node, avatar, motion, tmp_path):
    path = run_node("AP3D_ExportAvatar", avatar=avatar, layout="glb_mesh", texture_size=0, expressions=3).path
    read = read_avatar_glb(path)
    assert read.splats is None and read.head.morph_names[5:] == ARKIT_NAMES  # after expressions and lids
    assert read.head.morph_names[:3] == ("expression_00", "expression_01", "expression_02")
    done = run_node("AP3D_ExportAvatar", avatar=avatar, layout="glb_splats", motion=motion)
    read = read_avatar_glb(done.path)
    assert read.head is None and len(read.splats.world) == len(avatar)
    assert any("the motion is not in the file" in line for line in done.ui["text"])


def test_a_licensed_body_is_told_at_the_node(run_node, avatar):
    done = run_node("AP3D_ExportAvatar", avatar=licensed(avatar), layout="glb")
    assert read_avatar_glb(done.path).head is None
    assert any("include_licensed_body" in line for line in done.ui["text"])


@pytest.mark.parametrize("layout", ["frames", "animated"])
def test_a_motion_that_lacks_is_asked_for(run_node, avatar, layout, tmp_path):
    with pytest.raises(InvalidInput, match="connect one"):
        run_node("AP3D_ExportAvatar", avatar=avatar, layout=layout)
    assert not [path for path in (tmp_path / "output").rglob("*") if path.is_file()]


def test_a_folder_with_other_things_is_not_replaced(run_node, avatar, motion, tmp_path):
    folder = tmp_path / "output" / "avatar_frames"
    folder.mkdir(parents=True)
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="diary.txt"):
        run_node("AP3D_ExportAvatar", avatar=avatar, layout="frames", motion=motion)
    assert (folder / "diary.txt").read_text() == "mine" and len(list(folder.parent.iterdir())) == 1


def test_the_command_writes_beside_the_avatar_and_never_over_it(avatar, tmp_path, capsys):
    file = tmp_path / "anna.safetensors"
    save_avatar(avatar, file)
    command = ["export", str(file), "--format", "glb_mesh", "--texture-size", "0", "--motion", "none"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(tmp_path / "anna_mesh.glb") and not any("exture" in note for note in told["notes"])
    before = (tmp_path / "anna_mesh.glb").read_bytes()
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--quiet"]) == 0
    assert (tmp_path / "anna_mesh.glb").read_bytes() == before
    assert main(["export", str(file), "--format", "rigged", "--output", str(tmp_path / "a.glb")]) == 2
    capsys.readouterr()
    assert main(["export", str(file), "--format", "splat", "--output", str(file / "a.ply")]) == 2
    assert "cannot write into" in (told := capsys.readouterr().err) and "choose another folder" in told
    assert main(["export", str(file), "--format", "fbx"]) == 2
    assert main(["export", str(file), "--format", "animated", "--motion", "dance"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anna.safetensors", "anna_mesh.glb"]


def test_the_command_writes_a_page_with_a_recording(avatar, motion, tmp_path, capsys):
    file, moves = tmp_path / "anna.safetensors", tmp_path / "moves.safetensors"
    save_avatar(avatar, file)
    save_motion(motion, avatar.body, moves)
    command = ["export", str(file), "--format", "html", "--budget", "50", "--motion", str(moves)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"50 of {len(avatar)} Gaussians: " in told and "50 Gaussians, 0." in told
    header, _ = read_avatar_page(tmp_path / "anna.html")
    (clip,) = header["clips"]
    assert (clip["frames"], clip["fps"]) == (len(motion), motion.fps)
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", str(file), "--format", "glb", "--motion", str(file)]) == 2


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("splat", ["--motion", "stress clip"], "--motion is of frames, animated, glb, glb_mesh, html"),
        ("glb_splats", ["--fps", "30"], "--fps is of frames"),
        ("html", ["--texture-size", "0"], "--texture-size is of glb, glb_mesh; the format 'html'"),
        ("rigged", ["--expressions", "3"], "--expressions is of glb, glb_mesh"),
        ("splat", ["--include-licensed-body"], "--include-licensed-body is of animated"),
        ("glb", ["--quaternion-order", "legacy"], "--quaternion-order is of rigged"),
        ("glb", ["--motion", "none", "--fps", "30"], "--fps is of a motion"),
        ("glb", ["--motion-expressions", "always"], "--motion-expressions is of a file"),
        ("splat", ["--motion-expressions", "never"], "--motion-expressions is of frames"),
        ("splat", ["--assets", "here.safetensors"], "--assets belong to the file of --body"),
    ],
)  # fmt: skip
def test_an_option_that_a_format_does_not_have_is_refused(avatar, tmp_path, capsys, kind, given, words):
    file = tmp_path / "anna.safetensors"
    save_avatar(avatar, file)
    assert main(["export", str(file), "--format", kind, *given]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_expressions_of_another_basis_are_taken_where_that_is_asked_for(avatar, tmp_path, capsys):
    """And a file whose vertices have a byte for each coordinate says how far that puts them."""
    file, output = tmp_path / "anna.safetensors", tmp_path / "a.ply"
    save_avatar(avatar, file)
    np.save(tmp_path / "exp.npy", np.full((3, 10), 0.5, np.float32))
    np.save(tmp_path / "pose.npy", np.full((3, 15), 0.1, np.float32) * np.arange(3, dtype=np.float32)[:, None])
    command = ["export", str(file), "--format", "animated", "--motion", str(tmp_path / "exp.npy"), "--overwrite"]
    command += ["--output", str(output), "--json"]
    read = {}
    for taken in ("matching", "always", "bodies"):
        done = main([*command, "--motion-expressions", taken])
        said = capsys.readouterr()
        if taken == "bodies":
            assert done == 2 and "expressions 'bodies'; expected" in said.out
            continue
        assert done == 0
        notes, read[taken] = json.loads(said.out)["notes"], read_animated_ply(output).vertices[0]
        assert ("were left out" in notes[0]) == (taken == "matching")
        assert "units from the body's own. The layout stores" in notes[-1]
    assert float((read["always"] - read["matching"]).norm(dim=1).max()) > 0.01


def test_every_option_of_the_command_belongs_to_formats_or_to_all(avatar, tmp_path):
    """An option that is added must say whose it is."""
    options = argparse.ArgumentParser()
    export.add_export(options.add_subparsers(), argparse.ArgumentParser(add_help=False))
    given = vars(options.parse_args(["export", "a", "--format", "glb"]))
    of_all = {"avatar", "format", "output", "overwrite", "body", "assets", "budget", "refit", "seed", "command"}
    assert set(given) - set(export.ONLY_OF) == of_all
    assert all(given[name] is None for name in export.ONLY_OF)
    assert {kind for kinds in export.ONLY_OF.values() for kind in kinds} <= {*FORMATS, export.PAGE}
    assert {kind for kind, entry in FORMATS.items() if entry.has_head} == set(export.HEADS)
    assert {kind for kind, entry in FORMATS.items() if entry.has_head or entry.needs_motion} == {*export.MOVING} - {
        export.PAGE
    }
