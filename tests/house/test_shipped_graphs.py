"""The shipped graphs are those that scripts/make_workflows.py writes, and every one of them would run."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from animportrait3d_core.avatar.io import save_avatar
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export import read_avatar_page
from animportrait3d_core.workflow.graph import read_graph_file
from animportrait3d_core.workflow.prepare import prepare
from animportrait3d_core.workflow.runner import RunSettings, run
from animportrait3d_core.workflow.subgraphs import flatten
from tests.embedded.prior_samples import save_untrained_prior

ROOT = Path(__file__).parents[2]
GRAPHS = sorted((ROOT / "workflows").rglob("*.json"))
PRIOR_IS_THERE = (ROOT / "animportrait3d_core" / "embedded" / "weights" / "prior" / "model_index.json").is_file()
SETTINGS = json.loads((ROOT / "tests" / "shipped_graphs.json").read_text(encoding="utf-8"))


def name_of(file: Path) -> str:
    """As `scripts/make_workflows.py` calls it: "quickstart", "ablation/no_controlnet"."""
    return file.relative_to(ROOT / "workflows").with_suffix("").as_posix()


RUNNABLE = [file for file in GRAPHS if "host_only" not in SETTINGS[name_of(file)]]


def test_every_graph_has_its_test_settings():
    assert {name_of(graph) for graph in GRAPHS} == set(SETTINGS)


@pytest.mark.parametrize("file", [file for file in GRAPHS if file not in RUNNABLE], ids=name_of)
def test_a_graph_for_the_host_alone_is_refused_by_the_node_that_is_lacking(file, node_classes):
    with pytest.raises(InvalidInput, match=f"{SETTINGS[name_of(file)]['lacks']} .* is not a node of this pack"):
        prepare(read_graph_file(file), node_classes)


@pytest.mark.parametrize("file", GRAPHS, ids=name_of)
def test_a_graph_is_what_its_script_writes(file):
    script = runpy.run_path(str(ROOT / "scripts" / "make_workflows.py"))
    assert file.read_text(encoding="utf-8") == script["build"](name_of(file)), "run scripts/make_workflows.py"


@pytest.mark.parametrize("file", RUNNABLE, ids=name_of)
def test_a_graph_and_its_tiny_settings_are_accepted(file, node_classes):
    graph = read_graph_file(file)
    assert graph["version"] == 0.4 and graph["groups"]
    assert any(node["type"] == "MarkdownNote" for node in graph["nodes"])
    plan = prepare(graph, node_classes, SETTINGS[name_of(file)]["tiny"])
    assert plan.order


@pytest.mark.parametrize("file", GRAPHS, ids=name_of)
def test_a_graph_opens_readable(file):
    """Few boxes, and all of them on a screen of 1920 x 1080 with letters that need no zooming."""
    graph = read_graph_file(file)
    shown = [node for node in graph["nodes"] if node["type"] != "MarkdownNote"]
    assert len(shown) <= 12, "fold some of it"
    view = graph["extra"]["ds"]
    assert view["scale"] >= 0.75, "at less the classic canvas leaves out letters, and they are small"
    for node in graph["nodes"]:
        ends = [(start + size + offset) * view["scale"]
                for start, size, offset in zip(node["pos"], node["size"], view["offset"])]  # fmt: skip
        assert ends[0] < 1900 and ends[1] < 1060, node.get("title", node["type"])


MUTE, BYPASS = 2, 4
OPTIONAL_STEPS = {
    MUTE: {
        "AP3D_DetectLandmarks", "Close Views", "At Rest", "AP3D_AnimateAvatar", "AP3D_EvaluateAvatar",
        "AP3D_ExportAvatar", "AP3D_SaveAvatar", "AP3D_ContactSheet",
    },
    BYPASS: {
        "AP3D_DetectLandmarks", "Close Views", "AP3D_MatteViews", "AP3D_RefineMesh", "AP3D_CorrectLabels",
        "AP3D_PretrainEyes", "AP3D_PretrainMouth", "AP3D_ISMOptimize", "AP3D_SDEditRefine",
    },
}  # fmt: skip


def all_nodes(graph):
    """Its nodes, those within subgraphs too."""
    yield from graph["nodes"]
    for inner in graph.get("definitions", {}).get("subgraphs", []):
        yield from inner["nodes"]


@pytest.mark.parametrize("mode", [MUTE, BYPASS], ids=["muted", "bypassed"])
@pytest.mark.parametrize("file", RUNNABLE, ids=name_of)
def test_optional_steps_may_be_left_out(file, mode, node_classes):
    """By their type or title; the help pages say which of them can only be bypassed."""
    count = len(list(all_nodes(read_graph_file(file))))
    for index in range(count):
        graph = read_graph_file(file)
        node = list(all_nodes(graph))[index]
        if {node["type"], node.get("title")} & OPTIONAL_STEPS[mode]:
            node["mode"] = mode
            assert str(node["id"]) not in prepare(graph, node_classes).order


def run_tiny(file, folder, node_classes, *overrides):
    """The graph at its tiny settings; what a node does to its inputs is seen."""
    overrides = (*SETTINGS[name_of(file)]["tiny"], *overrides)
    result = run(file, node_classes, RunSettings(folder, overrides=overrides, device="cpu", verify_values=True))
    flat = flatten(read_graph_file(file))
    carried_out = (key for key, node in flat.nodes.items() if node.mode != BYPASS)
    ours = {key for key in carried_out if flat.nodes[key].class_type.startswith("AP3D_")}
    assert {record.id for record in result.report.nodes} == ours
    assert not list(folder.rglob(".*")), "a temporary file was left behind"
    wanted = SETTINGS[name_of(file)].get("files", ())
    assert [name for name in wanted if not (folder / name).is_file()] == []


@pytest.fixture(scope="session")
def own_files(make_avatar, tmp_path_factory):
    """own_files("second_stage"): overrides for what a graph's user brings."""
    avatar = tmp_path_factory.mktemp("brought") / "avatar.safetensors"
    made = dataclasses.replace(make_avatar(1500, seed=5), prompt="a young man, short brown hair")
    save_avatar(made, avatar)
    return lambda name: [f"{SETTINGS[name]['avatar']}={avatar}"] if "avatar" in SETTINGS[name] else []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", [file for file in RUNNABLE if "files" not in SETTINGS[name_of(file)]], ids=name_of)
def test_a_graph_runs_at_tiny_size_and_no_node_changes_its_inputs(file, tmp_path, node_classes, own_files):
    if "prior" in SETTINGS[name_of(file)] and not PRIOR_IS_THERE:
        pytest.skip("the embedded prior's weights are not in this copy (scripts/train_prior.sh)")
    run_tiny(file, tmp_path, node_classes, *own_files(name_of(file)))


OF_ANY_PRIOR = [name for name, entry in SETTINGS.items() if "prior" in entry and "/" not in name]
OF_ANY_PRIOR.remove("two_styles")  # its LoRA fits the shipped prior alone


@pytest.mark.parametrize("name", OF_ANY_PRIOR)
def test_a_graph_of_the_prior_runs_with_any_folder_of_its_kind(name, tmp_path, node_classes, own_files):
    prior = f"{SETTINGS[name]['prior']}={save_untrained_prior(tmp_path / 'prior')}"
    run_tiny(ROOT / "workflows" / f"{name}.json", tmp_path / "out", node_classes, prior, *own_files(name))
    assert set(SETTINGS[name]["pictures"]) <= {file.name for file in (tmp_path / "out").glob("*.png")}


SAVED = [name for name, entry in SETTINGS.items() if "files" in entry]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SAVED)
def test_a_graph_of_a_saved_avatar_runs_at_tiny_size(name, tmp_path, node_classes, own_files):
    run_tiny(ROOT / "workflows" / f"{name}.json", tmp_path, node_classes, *own_files(name))


def test_a_recording_is_joined_once_its_bypass_is_taken_off(tmp_path, node_classes, own_files):
    """The graph's film is longer by its frames, less those of the fade, and so is the clip on Preview Avatar."""
    recording = tmp_path / "recording"
    recording.mkdir()
    np.save(recording / "exp.npy", np.zeros((7, 100), np.float32))
    np.save(recording / "pose.npy", np.zeros((7, 15), np.float32))
    graph = read_graph_file(ROOT / "workflows" / "animate.json")
    (node,) = (node for node in graph["nodes"] if node["type"] == "AP3D_LoadMotionFile")
    frames = []
    for mode in (node["mode"], 0):
        node["mode"] = mode
        file = tmp_path / f"{mode}.json"
        file.write_text(json.dumps(graph), encoding="utf-8")
        tiny = [f"{node['type']}.file={recording / 'exp.npy'}"] if mode == 0 else []
        tiny += ["With Alpha.format=png", "AP3D_ExportPage.budget=200", *SETTINGS["animate"]["tiny"]]
        out, overrides = tmp_path / f"out_{mode}", (*tiny, *own_files("animate"))
        run(file, node_classes, RunSettings(out, overrides=overrides, device="cpu", keep_previews=True))
        frames.append(len(list((out / "motion_alpha_frames").glob("*.png"))))
        (page,) = (out / "previews").glob("ap3d_page_*.html")
        assert [clip["frames"] for clip in read_avatar_page(page)[0]["clips"]] == frames[-1:]
    assert frames == [4 + 3 + 3, 4 + 3 + 3 + 7 - 1]
