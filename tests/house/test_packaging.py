"""An installed wheel holds the nodes, the graphs and the web files, and the command line finds them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "output", "build", "*.egg-info", "__pycache__", ".*_cache", "tests")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with an unpacked wheel, as site-packages would be."""
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: setuptools leaves build folders in the source.
    source = shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    if not (source / "README.md").exists():
        (source / "README.md").write_text("")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("animportrait3d-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


@pytest.mark.slow
def test_the_wheel_holds_what_a_clone_holds(installed):
    for folder, inside in (("nodes", "animportrait3d_pack/nodes"), ("animportrait3d_core", "animportrait3d_core")):
        for file in (ROOT / folder).rglob("*.py"):
            assert (installed / inside / file.relative_to(ROOT / folder)).is_file(), file
    for file in [*(ROOT / "workflows").rglob("*.*"), *(ROOT / "web").rglob("*.*")]:
        assert (installed / "animportrait3d_pack" / file.relative_to(ROOT)).is_file(), file
    kinds = ("safetensors", "npz", "js", "html")
    for file in [file for kind in kinds for file in (ROOT / "animportrait3d_core").rglob(f"*.{kind}")]:
        assert (installed / file.relative_to(ROOT)).is_file(), file


@pytest.mark.slow
def test_the_installed_command_finds_the_nodes(installed, tmp_path):
    graph = installed / "animportrait3d_pack" / "workflows" / "health_check.json"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "animportrait3d_core", "run", str(graph), "--json"]
    command += ["--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert [node["type"] for node in json.loads(done.stdout)["nodes"]] == ["AP3D_Doctor"]
