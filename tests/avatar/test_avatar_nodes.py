"""Save Avatar and Load Avatar: what lies where, which is offered and chosen, and the graph inside of the files."""

from __future__ import annotations

import json
import os

import pytest
import torch
from PIL import Image

from animportrait3d_core.avatar.io import is_avatar_file, load_avatar, save_avatar
from animportrait3d_core.errors import InvalidInput, MissingModelFile
from animportrait3d_core.files import write_safetensors
from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.definitions import define_node
from animportrait3d_core.workflow.runner import RunSettings, run


def choices(node_classes):
    return define_node("AP3D_LoadAvatar", node_classes["AP3D_LoadAvatar"]).inputs[0].choices


@pytest.fixture()
def saved(run_context, make_avatar):
    """Three avatars of different ages, and what is none."""
    folders = {"output": run_context.output_directory, "input": run_context.input_directory}
    for age, (folder, name, count) in enumerate([("output", "b", 10), ("input", "sub/c", 20), ("output", "run/a", 30)]):
        path = folders[folder] / f"{name}.safetensors"
        save_avatar(make_avatar(count), path)
        os.utime(path, (1e9 - 100 * age, 1e9 - 100 * age))
    write_safetensors(folders["input"] / "lora.safetensors", {"x": torch.ones(1)}, {})
    (folders["output"] / "broken.safetensors").write_bytes(b"\xff" * 20)
    (folders["output"] / "short.safetensors").write_bytes(b"\x01")
    return folders


def test_all_avatars_are_offered_the_newest_first(saved, node_classes):
    offered = ("(newest)", "b.safetensors [output]", "sub/c.safetensors", "run/a.safetensors [output]")
    assert choices(node_classes) == offered


@pytest.mark.parametrize(("file", "count"), [
    ("(newest)", 10), ("b.safetensors [output]", 10), ("sub/c.safetensors", 20), ("run/a.safetensors [output]", 30)
])  # fmt: skip
def test_each_is_loaded_by_its_name(saved, run_node, file, count):
    done = run_node("AP3D_LoadAvatar", file=file)
    assert len(done.avatar) == count and done.ui["text"][0].endswith(".safetensors")


def test_the_newest_is_looked_for_anew(saved, run_node, node_classes, make_avatar):
    before = node_classes["AP3D_LoadAvatar"].IS_CHANGED(file="(newest)")
    assert before == node_classes["AP3D_LoadAvatar"].IS_CHANGED(file="b.safetensors [output]")
    save_avatar(make_avatar(40), saved["input"] / "later.safetensors")
    assert node_classes["AP3D_LoadAvatar"].IS_CHANGED(file="(newest)") != before
    assert len(run_node("AP3D_LoadAvatar", file="(newest)").avatar) == 40


def test_what_is_not_there_is_told(run_node, run_context, node_classes):
    assert choices(node_classes) == ("(newest)",)
    with pytest.raises(MissingModelFile, match="AP3D_LoadAvatar: no avatar lies in .*output.*input"):
        run_node("AP3D_LoadAvatar", file="(newest)")
    valid = node_classes["AP3D_LoadAvatar"].VALIDATE_INPUTS
    assert valid("(newest)") is True and "no avatar 'gone.safetensors'" in valid("gone.safetensors")
    with pytest.raises(InvalidInput, match="does not name a file inside"):
        run_node("AP3D_LoadAvatar", file="../secret.safetensors [output]")


def graph_of(node_classes):
    graph = WorkflowBuilder("kept", node_classes)
    loaded = graph.add("AP3D_LoadAvatar")
    views = graph.add("AP3D_RenderViews", subject=loaded["avatar"], preset="heldout", size=32)
    graph.add("AP3D_SaveAvatar", avatar=loaded["avatar"], filename="again")
    graph.add("AP3D_ContactSheet", row_1=views["images"], tile_size=32, filename="sheet")
    return graph.to_json()


def test_the_graph_is_in_the_files(tmp_path, node_classes, make_avatar):
    """As the frontend reads it: the metadata of a safetensors header, and the texts of a PNG."""
    (tmp_path / "input").mkdir()
    save_avatar(make_avatar(50), tmp_path / "input" / "start.safetensors")
    graph = graph_of(node_classes)
    run(graph, node_classes, RunSettings(tmp_path / "out", input_directory=tmp_path / "input", device="cpu"))
    data = (tmp_path / "out" / "again.safetensors").read_bytes()
    size = int.from_bytes(data[:4], "little")  # the frontend reads so many bytes of it
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    assert json.loads(metadata["workflow"]) == graph and size < 4 << 20
    assert metadata["prompt"] == "a test"  # the avatar's own words stay
    assert len(load_avatar(tmp_path / "out" / "again.safetensors")) == 50
    assert is_avatar_file(tmp_path / "out" / "again.safetensors")
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert json.loads(sheet.text["workflow"]) == graph
        assert "AP3D_ContactSheet" in {node["class_type"] for node in json.loads(sheet.text["prompt"]).values()}


def test_files_without_a_graph_hold_none(run_node, avatar, tmp_path):
    path = run_node("AP3D_SaveAvatar", avatar=avatar)
    assert b'"workflow"' not in open(path.path, "rb").read(20000)
    assert path.ui["ap3d_files"] == [{"filename": "avatar.safetensors", "subfolder": "", "type": "output"}]


def test_a_row_that_is_left_out_takes_its_caption_along(run_node):
    white, black = torch.ones(1, 32, 32, 3), torch.zeros(1, 32, 32, 3)
    both = run_node("AP3D_ContactSheet", row_1=black, row_3=white, captions="one\ntwo\nthree", tile_size=32).sheet
    alone = run_node("AP3D_ContactSheet", row_1=white, captions="three", tile_size=32).sheet
    other = run_node("AP3D_ContactSheet", row_1=white, captions="two", tile_size=32).sheet
    rows = alone.shape[1]
    assert torch.equal(both[:, -rows:], alone) and not torch.equal(alone, other)
    with pytest.raises(InvalidInput, match="AP3D_ContactSheet: no pictures are connected"):
        run_node("AP3D_ContactSheet")
