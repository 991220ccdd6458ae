"""The tests run in a clone of any name: most are called ComfyUI-AnimPortrait3D, which is no module name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("ComfyUI-AnimPortrait3D", []), ("ComfyUI-AnimPortrait3D", ["tests/house"]), ("animportrait3d", ["tests"])],
)
def test_pytest_does_not_take_the_clone_for_a_test_package(tmp_path, name, arguments):
    clone = tmp_path / name
    (clone / "tests" / "house").mkdir(parents=True)
    (clone / "__init__.py").write_text("raise RuntimeError('pytest imported the pack')\n")
    (clone / "tests" / "house" / "test_one.py").write_text("def test_one():\n    pass\n")
    shutil.copy(ROOT / "pyproject.toml", clone)
    shutil.copy(ROOT / "tests" / "conftest.py", clone / "tests")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
