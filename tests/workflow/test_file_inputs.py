"""Files on the command line: any path for every input that names a file; what is none is refused in a sentence."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from animportrait3d_core.errors import InvalidInput, MissingModelFile
from animportrait3d_core.workflow.definitions import define_node
from animportrait3d_core.workflow.prepare import prepare

ROOT = Path(__file__).parents[2]
MODEL_KEYS = ("smplx", "portrait3d", "ap3d_segmentation", "ap3d_normals", "ap3d_landmarks")
MODEL_KEYS += ("diffusers", "checkpoints", "controlnet", "vae", "loras")

# What is typed for every file input of every node, from a working directory that holds these files. Both kinds of path.
TYPED = {
    "AP3D_LoadSMPLX.body": "body.npz",
    "AP3D_LoadSMPLX.assets": "{here}/assets.safetensors",
    "AP3D_PortraitFromMesh.file": "{here}/heads/head.glb",
    "AP3D_LoadLandmarks.file": "heads/head.glb",
    "AP3D_LandmarksFromHost.file": "heads/points.json",
    "AP3D_PortraitFromSplats.file": "heads/head.ply",
    "AP3D_LoadPortrait3D.file": "./portrait.pth",
    "AP3D_LoadPortrait3D.generator": "heads/../generator.safetensors",
    "AP3D_MatteViews.network": "{here}/parts/network.json",
    "AP3D_SegmentViews.network": "parts",
    "AP3D_SegmentViews.hair_network": "{here}/parts",
    "AP3D_EstimateNormals.network": "normals/network.json",
    "AP3D_DetectLandmarks.network": "landmarks",
    "AP3D_LoadAvatar.file": "avatar.safetensors",
    "AP3D_LoadMotionFile.file": "motion/exp.npy",
    "AP3D_LoadGuidance.model": "toy",
    "AP3D_LoadGuidance.controlnet": "{here}/toy/controlnet",
    "AP3D_LoadGuidance.vae": "toy/vae/diffusion_pytorch_model.safetensors",
    "AP3D_LoadGuidance.lora": "lora.safetensors",
    "AP3D_LoadGuidance.tokenizer": "toy/tokenizer",
}


def file_inputs(node_classes):
    """("AP3D_X.input", its definition) of every input that says that it names a file."""
    for node_id, node_class in node_classes.items():
        for entry in define_node(node_id, node_class).inputs:
            if entry.file_input:
                yield f"{node_id}.{entry.name}", entry


def test_every_file_input_is_typed_here(node_classes):
    assert sorted(name for name, _ in file_inputs(node_classes)) == sorted(TYPED)


@pytest.fixture()
def probes(tmp_path, run_context):
    """A run whose folders hold one file of each usual suffix, named after the folder."""
    suffixes = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".npz", ".pkl", ".zip", ".pth", ".pt", ".safetensors")
    suffixes += (".ckpt", ".bin", ".npy", ".csv")
    for folder in ("input", *(f"models/{key}" for key in MODEL_KEYS)):
        (tmp_path / folder / "probe").mkdir(parents=True)
        for suffix in (*suffixes, ".json", ".txt", ".png"):
            (tmp_path / folder / "probe" / f"{folder.replace('/', '-')}{suffix}").write_bytes(b"x")
        for name in ("network.json", "model_index.json", "tokenizer_config.json"):
            (tmp_path / folder / "probe" / name).write_bytes(b"x")
    return tmp_path


def test_an_input_that_offers_files_says_where_they_lie_and_which(probes, node_classes):
    for node_id, node_class in node_classes.items():
        for entry in define_node(node_id, node_class).inputs:
            offered = {name for name in entry.choices or () if isinstance(name, str) and name.startswith("probe/")}
            assert not offered or entry.file_input, f"{node_id}: '{entry.name}' offers files without saying so"
            if offered:
                folders = [probes / folder for folder in entry.file_input["folders"]]
                for name in offered:
                    assert any((folder / name).is_file() for folder in folders), f"{node_id}: '{entry.name}'"
                assert {Path(name).suffix for name in offered} == set(entry.file_input["suffixes"])


NETWORKS = ("matte", "labels", "normals", "landmarks")


GUIDANCE_FILES = ("model", "controlnet", "vae", "lora", "tokenizer")
GUIDANCE = {"controlnet_strength": 1.0, "lora_strength": 0.5, "precision": "auto"}


MOTION = {"fps": 0.0, "expressions": "never", "whole_folder": False, "head": True, "follow": False}


def graph_of_files(networks):
    """API graph in which the nodes with a file input run, those of networks or the others; core nodes show it all."""
    views = {"subject": ["mesh", 0], "preset": "heldout", "size": 64, "background": "white"}
    by_hand = {"up": "+y", "face": "+z", "scale": 1.0}
    by_hand |= {name: 0.0 for name in ("nod", "turn", "tilt", "move_x", "move_y", "move_z")}
    mesh = {"file": "", "body": ["body", 0], "prompt": "", "alignment": "none", "shading": "unlit", **by_hand}
    nodes = {
        "body": ("AP3D_LoadSMPLX", {"body": "", "assets": "", "eyelid_mode": "fixed"}),
        "mesh": ("AP3D_PortraitFromMesh", mesh),
        "truth": ("AP3D_LoadLandmarks", {"file": ""}),
        "views": ("AP3D_RenderViews", views),
        "trigrid": ("AP3D_LoadPortrait3D", {"file": "", "generator": "", "sampling": "draft", "prompt": ""}),
        "matte": ("AP3D_MatteViews", {"views": ["views", 0], "method": "network", "network": ""}),
        "labels": (
            "AP3D_SegmentViews",
            {"views": ["views", 0], "network": "", "label_set": "class colours", "hair_network": ""},
        ),
        "normals": ("AP3D_EstimateNormals", {"views": ["views", 0], "network": "", "coding": "OpenGL"}),
        "landmarks": ("AP3D_DetectLandmarks", {"views": ["views", 0], "network": "", "most_yaw": 30.0}),
        "avatar": ("AP3D_LoadAvatar", {"file": ""}),
        "motion": ("AP3D_LoadMotionFile", {"avatar": ["avatar", 0], "file": "", **MOTION}),
        "guidance": ("AP3D_LoadGuidance", {**dict.fromkeys(GUIDANCE_FILES, ""), **GUIDANCE}),
    }
    chosen = ("body", "mesh", "views", *NETWORKS) if networks else set(nodes) - {"views", *NETWORKS}
    graph = {name: {"class_type": nodes[name][0], "inputs": nodes[name][1]} for name in chosen}
    shows = {f"show {name}": {"class_type": "PreviewAny", "inputs": {"source": [name, 0]}} for name in chosen}
    return {**graph, **shows}


@pytest.fixture()
def files(tmp_path, make_avatar):
    """The working directory of `TYPED`, without any input or models folder."""
    import numpy as np
    import torch
    import trimesh
    from safetensors.torch import save_file

    from animportrait3d_core.avatar.io import save_avatar
    from animportrait3d_core.embedded.mannequin import mannequin_body_files
    from animportrait3d_core.embedded.weights import embedded_network_folder
    from animportrait3d_core.portrait.trigrid import save_generator
    from tests.diffusion.toys import save_toy
    from tests.portrait.trigrid_samples import checkpoint_of, ellipsoid_portrait, generator_of

    (tmp_path / "heads").mkdir()
    trimesh.creation.icosphere(radius=0.3).export(tmp_path / "heads" / "head.glb")
    (tmp_path / "heads" / "head.json").write_text(json.dumps({"landmarks": [[0.1, 0.2, 0.01 * i] for i in range(68)]}))
    for name in ("points.json", "head.ply"):  # looked at, but not read here
        (tmp_path / "heads" / name).write_bytes(b"x")
    for file, name in zip(mannequin_body_files(), ("body.npz", "assets.safetensors")):
        shutil.copy(file, tmp_path / name)
    for role in ("parts", "normals", "landmarks"):
        shutil.copytree(embedded_network_folder(role), tmp_path / role)
    portrait = ellipsoid_portrait((8, 16, 32))
    torch.save({"model": checkpoint_of(portrait)}, tmp_path / "portrait.pth")
    save_generator(generator_of(portrait), tmp_path / "generator.safetensors")
    save_avatar(make_avatar(50), tmp_path / "avatar.safetensors")
    (tmp_path / "motion").mkdir()
    np.save(tmp_path / "motion" / "exp.npy", np.zeros((2, 100), dtype=np.float32))
    np.save(tmp_path / "motion" / "pose.npy", np.zeros((2, 15), dtype=np.float32))
    save_toy(tmp_path / "toy")
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    lora = {f"{name}.lora_A.weight": torch.ones(2, 32), f"{name}.lora_B.weight": torch.ones(32, 2)}
    save_file(lora, tmp_path / "lora.safetensors")
    return tmp_path


def test_a_node_notices_that_any_file_it_reads_has_changed(files, node_classes, run_context):
    """ComfyUI keeps results for as long as IS_CHANGED stays the same: also companions of the named file count."""
    (files / "heads" / "head.obj").write_text("mtllib a.mtl\nv 0 0 0\nusemtl a\nf 1 1 1\n")
    (files / "heads" / "a.mtl").write_text("newmtl a\nmap_Kd Skin.png\n")
    (files / "heads" / "head.gltf").write_text(json.dumps({"asset": {}, "buffers": [{"uri": "Head.bin"}]}))
    for name in ("skin.png", "head.bin"):
        (files / "heads" / name).write_bytes(b"x")
    depends = {
        "AP3D_PortraitFromMesh.file": ["heads/head.obj", "heads/a.mtl", "heads/skin.png"],
        "AP3D_PortraitFromMesh.file ": ["heads/head.gltf", "heads/head.bin"],
        "AP3D_LoadLandmarks.file": ["heads/head.glb", "heads/head.json"],
        "AP3D_LoadMotionFile.file": ["motion/exp.npy", "motion/pose.npy"],
    }
    inner = {name: str(entry.file_input.get("inner")) for name, entry in file_inputs(node_classes)}
    for name, text in TYPED.items():
        path = text.format(here=files)
        named = Path(files / path / inner[name] if (files / path).is_dir() else files / path)
        weights = [named.with_name("model.safetensors")] if named.name == "network.json" else []
        depends.setdefault(name, [named, *weights])
    clock = itertools.count(1)
    for name, paths in depends.items():
        node_id, _, input_name = name.strip().partition(".")
        entries = define_node(node_id, node_classes[node_id]).widgets
        values = {entry.name: entry.default for entry in entries if entry.required}
        if node_id == "AP3D_LoadGuidance":  # the embedded prior may not be there
            values["model"] = str(files / "toy" / "model_index.json")
        values[input_name] = str((files / paths[0]).resolve())
        for path in paths[1:] if node_id == "AP3D_LoadLandmarks" else paths:
            before = node_classes[node_id].IS_CHANGED(**values)
            assert node_classes[node_id].IS_CHANGED(**values) == before
            os.utime(files / path, ns=(0, next(clock)))
            assert node_classes[node_id].IS_CHANGED(**values) != before, f"{name} does not look at {path}"


def run(folder, graph, *overrides):
    (folder / "graph.json").write_text(json.dumps(graph))
    command = [sys.executable, "-m", "animportrait3d_core", "run", "graph.json", "--pack", str(ROOT), "--device", "cpu"]
    command += ["--quiet", *(part for override in overrides for part in ("--set", override))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("networks", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_paths_work_for_every_file_input(files, networks):
    if networks:  # which need to see a face
        from animportrait3d_core.embedded.identities import PORTRAIT_NAMES, embedded_portrait_files

        shutil.copy(embedded_portrait_files(PORTRAIT_NAMES[0])[0], files / "heads" / "head.glb")
    graph = graph_of_files(networks)
    types = {node["class_type"] for node in graph.values()}
    typed = {name: text.format(here=files) for name, text in TYPED.items() if name.partition(".")[0] in types}
    done = run(files, graph, *(f"{name}={text}" for name, text in typed.items()))
    assert done.returncode == 0, done.stderr
    ran = {node["type"] for node in json.loads((files / "output" / "report.json").read_text())["nodes"]}
    assert ran == types - {"PreviewAny"}


def test_the_graphs_of_files_hold_every_node_that_takes_one():
    types = {node["class_type"] for networks in (True, False) for node in graph_of_files(networks).values()}
    # Those two have tests of their own, with files that hold something.
    elsewhere = {"AP3D_PortraitFromSplats", "AP3D_LandmarksFromHost"}
    assert {name.partition(".")[0] for name in TYPED} - elsewhere <= types


class Reader:
    """Names a file three ways."""

    RETURN_TYPES = ()
    FUNCTION = "read"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        mesh = {"file_input": {"folders": ["input"], "suffixes": [".glb", ".obj", ".ply"]}}
        network = {"file_input": {"folders": ["models/nets"], "suffixes": [".json"], "inner": "network.json"}}
        return {
            "required": {
                "mesh": (["embedded: anna", "sub/b.glb"], mesh),
                "network": (["embedded"], network),
                "text": ("STRING", {"default": "", **mesh}),
            }
        }


@pytest.fixture()
def prepared(tmp_path, monkeypatch):
    """Function (overrides) -> the inputs of a Reader in a working directory with a few files."""
    for name in ("input/b.glb", "here.GLB", "sub/c.obj", "net/network.json", "picture.png", "empty/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    constants = {"mesh": "embedded: anna", "network": "embedded", "text": ""}

    def inputs(*overrides, **changes):
        graph = {"1": {"class_type": "AP3D_Reader", "inputs": {**constants, **changes}}}
        return prepare(graph, {"AP3D_Reader": Reader}, overrides).prompt["1"].inputs

    return inputs


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("mesh=embedded: anna", "embedded: anna"),
        ("mesh=sub/b.glb", "sub/b.glb"),  # offered, although no such file lies in the working directory
        ("mesh=here.GLB", "{here}/here.GLB"),
        ("mesh=sub/../sub/c.obj", "{here}/sub/c.obj"),
        ("mesh={here}/sub/c.obj", "{here}/sub/c.obj"),
        ("mesh=~/here.GLB", "{here}/here.GLB"),
        ("network=net", "{here}/net/network.json"),
        ("network=net/network.json", "{here}/net/network.json"),
        ("text=", ""),
        ("text=b.glb", "b.glb"),  # in the input folder: left to the node
        ("text=sub/c.obj", "{here}/sub/c.obj"),
    ],
)
def test_what_is_typed_becomes_a_choice_or_an_absolute_path(prepared, tmp_path, monkeypatch, typed, found):
    monkeypatch.setenv("HOME", str(tmp_path))
    typed = typed.format(here=tmp_path)
    name = typed.partition("=")[0]
    assert prepared(f"1.{typed}")[name] == found.format(here=tmp_path)


def test_a_graph_may_hold_an_absolute_path(prepared, tmp_path):
    path = str(tmp_path / "sub" / "c.obj")
    assert prepared(mesh=path)["mesh"] == path


@pytest.mark.parametrize("name", ["mesh", "text"])
@pytest.mark.parametrize(
    ("typed", "error", "words"),
    [
        ("picture.png", InvalidInput, r"picture.png', which has the suffix '\.png'; expected a \.glb, \.obj or \.ply"),
        ("./gone.glb", MissingModelFile, r"gone.glb', where no file lies; give the path of a \.glb, \.obj or \.ply"),
        ("/gone.obj", MissingModelFile, "'/gone.obj', where no file lies"),
        ("ana.glb", InvalidInput, r"'ana.glb', an unknown name: .* A path to a \.glb, \.obj or \.ply file works"),
        ("emb\0dded", InvalidInput, "an unknown name"),
        ("ana.glb", InvalidInput, r"no such file lies in '.*input' or '.*'\. A path to"),
        ("empty", InvalidInput, r"which is a folder; expected a \.glb, \.obj or \.ply file"),
        ("https://x.org/b.glb", InvalidInput, "an address; download the file"),
    ],
)
def test_what_names_no_file_is_refused(prepared, name, typed, error, words):
    with pytest.raises(error, match=rf"^AP3D_Reader \(#1\): '{name}' is .*{words}"):
        prepared(f"1.{name}={typed}")


@pytest.mark.parametrize(
    ("value", "words"), [("sub/c.obj", "choices are 'embedded: anna', 'sub/b.glb'"), (7, "is 7, an unknown name")]
)
def test_a_graph_is_held_to_the_choices(prepared, value, words):
    # A relative path is one of the command line, whose working directory the user knows.
    with pytest.raises(InvalidInput, match=words):
        prepared(mesh=value)


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        ("head.fbx", 2, "suffix '.fbx'; expected a .glb, .gltf, .obj, .ply, .stl or .off file"),
        ("./hed.glb", 3, "where no file lies; give the path of a .glb, .gltf"),
        ("anna", 2, "an unknown name: its choices are 'embedded: "),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_file(tmp_path, typed, code, words):
    (tmp_path / "head.fbx").write_bytes(b"x")
    done = run(tmp_path, graph_of_files(networks=False), f"AP3D_PortraitFromMesh.file={typed}")
    assert done.returncode == code
    assert "AP3D_PortraitFromMesh (#mesh): 'file' is " in done.stderr and words in done.stderr
