"""Stage 1 in one function makes the avatar of the shipped graph; the README's script runs; a kill costs little."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from animportrait3d_core.avatar import RiggedAvatar, load_avatar
from animportrait3d_core.embedded.weights import embedded_network_folder
from animportrait3d_core.initialization import InitializationSettings, Networks, initialize
from animportrait3d_core.optimization import FitViewsSettings
from animportrait3d_core.portrait.protocol import MESH_PRESETS
from animportrait3d_core.rigging.points import PointSettings
from animportrait3d_core.runs import STATE_FILE
from animportrait3d_core.surface import RefineSettings
from animportrait3d_core.surface.color_training import ColorFieldSettings
from animportrait3d_core.workflow.runner import RunSettings, run

ROOT = Path(__file__).parents[1]
TINY = InitializationSettings(
    view_size=96,
    mesh=MESH_PRESETS["draft"],
    refine=RefineSettings(iterations=20),
    points=PointSettings(count=2000),
    colors=ColorFieldSettings(iterations=20),
    training=FitViewsSettings().with_stage(iterations=20),
)
TINY_GRAPH = (
    "AP3D_LoadPortrait3D.sampling=draft", "AP3D_ExtractMesh.preset=draft", "AP3D_RefineMesh.iterations=20",
    "Views.size=96", "Close Views.size=96", "AP3D_RigPoints.count=2000", "AP3D_ColorPoints.iterations=20",
    "AP3D_InitializeAvatar.iterations=20", "Hold Still.frames=2", "Stress Clip.motion=rest", "Stress Clip.frames=2",
    "Turntable.size=64", "Animate.size=64", "Before.size=64", "After.size=64", "AP3D_PretrainEyes.length=0.01",
    "AP3D_PretrainMouth.length=0.01", "AP3D_ISMOptimize.length=0.01", "AP3D_SDEditRefine.length=0.01",
)  # fmt: skip


def assert_same_avatar(first: RiggedAvatar, second: RiggedAvatar) -> None:
    for field in dataclasses.fields(first.gaussians):
        assert torch.equal(getattr(first.gaussians, field.name), getattr(second.gaussians, field.name)), field.name
    assert torch.equal(first.binding, second.binding) and torch.equal(first.part_id, second.part_id)
    for name, value in first.parameters.to_tensors().items():
        assert torch.equal(value, second.parameters.to_tensors()[name]), name


@pytest.fixture(scope="module")
def from_graph(node_classes, tmp_path_factory) -> RiggedAvatar:
    folder = tmp_path_factory.mktemp("quickstart")
    run(ROOT / "workflows" / "quickstart.json", node_classes, RunSettings(folder, overrides=TINY_GRAPH, device="cpu"))
    return load_avatar(folder / "avatar_initial.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_function_makes_the_avatar_of_the_graph(from_graph, run_node, mannequin_body) -> None:
    portrait = run_node("AP3D_LoadPortrait3D", sampling="draft").portrait
    networks = Networks.load(*(embedded_network_folder(role) for role in ("parts", "normals", "landmarks")))
    begun: list[str] = []

    def stages(name: str):
        begun.append(name)
        return lambda step, total, preview: None

    avatar = initialize(portrait, mannequin_body, networks, TINY, stages)
    assert_same_avatar(avatar, from_graph)
    assert begun[0] == "views" and begun[-1] == "train the avatar" and len(begun) == len(set(begun)) >= 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_of_the_readme_runs(tmp_path, monkeypatch) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    line = "settings = InitializationSettings(seed=0)"
    assert line in script
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("animportrait3d_core.initialization.InitializationSettings", lambda seed: TINY)
    exec(compile(script, "README.md", "exec"), {})
    # Points of mesh, body and cheeks are counted apart, each sum rounded down or up.
    assert abs(len(load_avatar(tmp_path / "avatar.safetensors")) - 2000) <= 2


LONG_ENOUGH = (
    "AP3D_RefineMesh.iterations=60", "AP3D_ColorPoints.iterations=300", "AP3D_InitializeAvatar.iterations=300",
    "AP3D_PretrainMouth.length=0.1",
)  # fmt: skip
"""To have a state when they are killed; the other nodes stay short."""


def command(output: Path, cache: Path) -> subprocess.Popen[str]:
    """The quickstart in a process of its own, with a cache of its own."""
    words = [sys.executable, "-m", "animportrait3d_core", "run", "workflows/quickstart.json", "--device", "cpu"]
    words += ["--output", str(output), *(word for value in (*TINY_GRAPH, *LONG_ENOUGH) for word in ("--set", value))]
    environment = {**os.environ, "ANIMPORTRAIT3D_CACHE": str(cache)}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> RiggedAvatar:
    folder = tmp_path_factory.mktemp("unbroken")
    process = command(folder, folder / "cache")
    _, log = process.communicate(timeout=600)
    assert process.returncode == 0 and "goes on" not in log, log
    return load_avatar(folder / "avatar.safetensors")


@pytest.mark.fuzz
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["refine_mesh", "color_field", "initialize_avatar", "pretrain_mouth"])
def test_a_killed_command_goes_on_and_makes_the_same_avatar(unbroken, stage, tmp_path) -> None:
    """SIGKILL in the middle of a long step, then the same command again."""
    cache = tmp_path / "cache"
    process = command(tmp_path, cache)
    deadline = time.monotonic() + 400
    while not list(cache.glob(f"runs/{stage}-*/{STATE_FILE}")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "avatar.safetensors").exists()
    again = command(tmp_path, cache)
    _, log = again.communicate(timeout=600)
    assert again.returncode == 0, log
    assert re.search(rf"{stage}: goes on at step \d+ of \d+", log)
    assert_same_avatar(load_avatar(tmp_path / "avatar.safetensors"), unbroken)
    assert list((cache / "runs").iterdir()) == []
