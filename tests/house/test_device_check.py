"""scripts/device_check.sh: says by name that there is no GPU; its work, rehearsed on the CPU; failures are told."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def device_check(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(folder)}
    command = ["bash", str(ROOT / "scripts" / "device_check.sh"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_ends_with_3(tmp_path):
    run = device_check(tmp_path)
    assert run.returncode == 3
    assert "sees no CUDA GPU" in run.stderr and torch.__version__ in run.stderr
    assert not (tmp_path / "device_check.json").exists()


def test_a_rehearsal_fills_table_and_report(tmp_path):
    run = device_check(tmp_path, "--device", "cpu", "--size", "small", "--only", "extensions", "gaussians", "mesh")
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads((tmp_path / "device_check.json").read_text())
    assert [check["name"] for check in report["checks"]] == ["extensions", "gaussians", "mesh"]
    assert {check["status"] for check in report["checks"]} == {"passed"}
    assert report["machine"]["torch"] == torch.__version__
    assert report["checks"][1]["numbers"]["cpu_ms"] > 0 and report["checks"][1]["numbers"]["gradient_difference"] == 0
    assert "failed: none, skipped: none" in run.stdout and "gaussians    passed" in run.stdout


def test_the_stages_are_measured_at_a_small_size(tmp_path):
    """Time of the networks and outside of them, each pass of the four stages."""
    run = device_check(tmp_path, "--device", "cpu", "--size", "small", "--only", "paper_stages")
    assert run.returncode == 0, run.stdout + run.stderr
    numbers = json.loads((tmp_path / "device_check.json").read_text())["checks"][0]["numbers"]
    passes = {name.split("_", 1)[1] for name in numbers if name.endswith("_s") and "evaluations" not in name}
    edited = {f"{name}_edit_s" for name in ("pretrain_eyes", "refine_mouth", "refine")}
    stepped = {f"{name}_step_s" for name in ("pretrain_eyes", "pretrain_mouth", "refine_mouth", "optimize", "refine")}
    assert passes == edited | stepped
    assert 0 < numbers["2k_outside_share"] < 1 and numbers["2k_evaluations_per_s"] > 0


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("device_check", ROOT / "benchmarks" / "device_check.py")
    loaded = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up.
    monkeypatch.setitem(sys.modules, "device_check", loaded)
    spec.loader.exec_module(loaded)
    return loaded


def test_failures_and_missing_packages_are_results(module, tmp_path, monkeypatch, capsys):
    def broken(place):
        assert place.device == "cuda", "the pictures differ"

    def lacking(place):
        raise ModuleNotFoundError("No module named 'smplx'")

    monkeypatch.setattr(
        module, "CHECKS", {"broken": broken, "lacking": lacking, "fine": lambda place: ({"ms": 1.0}, "")}
    )
    monkeypatch.setattr(sys, "argv", ["device_check", "--device", "cpu", "--output", str(tmp_path)])
    assert module.main() == 1
    report = json.loads((tmp_path / "device_check.json").read_text())
    assert [check["status"] for check in report["checks"]] == ["failed", "skipped", "passed"]
    assert "the pictures differ" in report["checks"][0]["detail"] and "smplx" in report["checks"][1]["detail"]
    assert "failed: ['broken'], skipped: ['lacking']" in capsys.readouterr().out


def test_no_check_begins_when_the_time_is_up(module):
    place = module.Place("cpu", True, time.monotonic() - 1.0)
    check = module.carry_out("gaussians", place)
    assert (check.status, check.detail) == ("skipped", "no time was left (--budget)")
