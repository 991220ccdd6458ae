"""Folders that cannot be written, users without a home, full disks, damaged caches, too little memory."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from animportrait3d_core import files
from animportrait3d_core.avatar.io import load_avatar, save_avatar
from animportrait3d_core.body.model import load_body_model
from animportrait3d_core.cli import main
from animportrait3d_core.embedded.identities.export import embedded_portrait_files
from animportrait3d_core.embedded.mannequin import mannequin_body_files
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.kernel_cache import kernel_trouble
from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.runner import RunSettings, run
from tests.conftest import ROOT

USE_A_KERNEL = (
    "import torch; from animportrait3d_core.render import rasterize_mesh; from animportrait3d_core.cameras import "
    "orbit_cameras; from animportrait3d_core.conditioning.numba_maps import pack_view; "
    "print(rasterize_mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), orbit_cameras([0.0], [0.0], 16)).depth.shape)"
)


def without_powers() -> list[str]:
    """What a command begins with, so that root too is refused by folders that cannot be written."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root is refused by nothing here: setpriv (util-linux) is not installed")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.fixture
def clone(tmp_path):
    """A copy of the pack without compiled kernels."""
    folder = tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("animportrait3d_core", "nodes"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("__init__.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def bare(tmp_path):
    """run(*arguments, prefix=[]) in an environment with an empty home and a place of its own for temporary files."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()

    def run(folder, *arguments, prefix=(), **changes):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANIM", "NUMBA", "PYTHON"))}
        variables = {**kept, "HOME": str(home), "TMPDIR": str(temporary), **changes}
        command = [*prefix, sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)

    run.home, run.temporary = home, temporary
    return run


def read_only(*folders):
    for top in folders:
        for folder, _, _ in os.walk(top):
            os.chmod(folder, 0o555)


def writable(*folders):
    for top in folders:
        for folder, _, _ in os.walk(top):
            os.chmod(folder, 0o755)


def test_a_read_only_clone_with_a_read_only_home_works(clone, bare) -> None:
    prefix = without_powers()
    read_only(clone, bare.home)
    try:
        output = str(bare.temporary / "output")
        doctor = bare(clone, "-m", "animportrait3d_core", "doctor", "--output", output, prefix=prefix)
        kernel = bare(clone, "-c", USE_A_KERNEL, prefix=prefix)
    finally:
        writable(clone, bare.home)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "set ANIMPORTRAIT3D_CACHE to a folder that stays" in doctor.stderr and "This is a bug" not in doctor.stderr
    assert kernel.returncode == 0, kernel.stderr
    kept = list((bare.temporary / f"ap3d-cache-{os.getuid()}" / "kernels").glob("*/*.nbi"))
    assert kept and not list(clone.rglob("*.nbi"))


def test_kernels_that_a_full_disk_emptied_are_compiled_again(clone, bare) -> None:
    first = bare(clone, "-c", USE_A_KERNEL)
    assert first.returncode == 0, first.stderr
    indices, data = (sorted(clone.rglob(pattern)) for pattern in ("*.nbi", "*.nbc"))
    assert indices and data
    indices[0].write_bytes(b"")
    for file in data:
        file.write_bytes(file.read_bytes()[:-7])
    for file in indices[1:]:
        file.write_bytes(file.read_bytes()[:20])
    again = bare(clone, "-c", USE_A_KERNEL)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert all(file.stat().st_size > 20 for file in clone.rglob("*.nb?"))


SMALL_KERNEL = "from .kernels import numba\n\n\n@numba.njit(cache=True)\ndef twice(value):\n    return 2 * value\n"
USE_THE_SMALL_KERNEL = (
    "from animportrait3d_core.kernel_cache import kernel_trouble\ntry:\n"
    "    from animportrait3d_core.small_kernel import twice\n    print(twice(3))\n"
    "except Exception as error:\n    print(kernel_trouble(error))"
)


@pytest.fixture
def small_kernel(clone, bare):
    """run() -> the finished process that compiles one kernel, or finds it, and prints 6; and that kernel's data."""
    (clone / "animportrait3d_core" / "small_kernel.py").write_text(SMALL_KERNEL)

    def run(**changes):
        return bare(clone, "-c", USE_THE_SMALL_KERNEL, **changes)

    first = run()
    assert first.stdout == "6\n" and len(list(clone.rglob("*.nbc"))) == 1, first.stderr
    return run, next(clone.rglob("*.nbc"))


def test_kernels_that_are_damaged_inside_are_compiled_again(small_kernel) -> None:
    """Also zeros in the machine code, which would run as they are."""
    run, file = small_kernel
    for share in (0.0, 0.5):
        data = file.read_bytes()
        start = 2 + int(share * len(data))
        file.write_bytes(data[:start] + bytes(200) + data[start + 200 :])
        again = run()
        assert (again.stdout, again.stderr, again.returncode) == ("6\n", "", 0)
        assert len(file.read_bytes()) > 1000 and bytes(200) != file.read_bytes()[start : start + 200]


def test_kernels_damaged_before_anybody_noted_them_are_removed(small_kernel) -> None:
    """Another file in the place of the noted one may be newer, so that reading it is what finds the damage."""
    run, file = small_kernel
    data = file.read_bytes()
    file.rename(file.with_suffix(".old"))
    file.write_bytes(data[:2] + bytes(400) + data[402:])
    damaged = run()
    assert "a compiled kernel on the disk is damaged" in damaged.stdout and not list(file.parent.glob("*.nb?"))
    assert run().stdout == "6\n"
    assert kernel_trouble(ValueError("another one")) is None


def test_sums_of_kernels_may_be_lost_or_damaged(small_kernel) -> None:
    run, file = small_kernel
    sums = file.parents[1] / "__pycache__" / "kernel_sums.json"
    assert sorted(json.loads(sums.read_text())) == sorted(
        f"__pycache__/{one.name}" for one in file.parent.glob("*.nb?")
    )
    stamp = file.stat().st_mtime_ns
    for text in ("[1]", '{"a": [1, 2, 3, 4]}'):
        sums.write_text(text)
        assert run().stdout == "6\n" and file.name in sums.read_text()
    assert file.stat().st_mtime_ns == stamp  # nothing was compiled again


NO_TEMPORARY = "import sys, tempfile\ndef gone():\n    raise FileNotFoundError(2, 'none')\ntempfile.gettempdir = gone\n"


def test_a_machine_on_which_nothing_can_be_written(clone, bare) -> None:
    """As a container without any volume: whoever speaks says so, and what needs no folder works."""
    start = f"{NO_TEMPORARY}from animportrait3d_core.cli import main\nsys.exit(main(sys.argv[1:]))"
    prefix, output = without_powers(), str(bare.temporary / "output")
    (clone / "graph.json").write_text(json.dumps({"1": {"class_type": "AP3D_Doctor", "inputs": {}}}))
    read_only(clone, bare.home)
    try:
        doctor = bare(clone, "-c", start, "doctor", "--output", output, prefix=prefix)
        run = bare(clone, "-c", start, "run", "graph.json", "--output", output, prefix=prefix)
        version = bare(clone, "-c", start, "--version", prefix=prefix)
    finally:
        writable(clone, bare.home)
    assert version.returncode == 0 and version.stdout.startswith("animportrait3d "), version.stderr
    assert doctor.returncode == 3, doctor.stdout + doctor.stderr
    assert "compiled kernels can be kept nowhere" in doctor.stdout and "set TMPDIR to one that can" in doctor.stdout
    assert "Set ANIMPORTRAIT3D_CACHE and TMPDIR to folders that can" in doctor.stdout
    assert run.returncode == 2 and "set TMPDIR to one that can" in run.stderr, run.stderr
    assert "This is a bug" not in doctor.stderr + run.stderr and "Traceback" not in doctor.stderr + run.stderr


@pytest.mark.parametrize("package", ["numpy", "numba", "torch"])
def test_packages_that_are_not_installed_are_named(bare, package) -> None:
    start = f"import sys\nsys.modules[{package!r}] = None\nfrom animportrait3d_core.cli import main\n"
    start += "sys.exit(main(sys.argv[1:]))"
    output = str(bare.temporary / "output")
    doctor = bare(ROOT, "-c", start, "doctor", "--output", output)
    run = bare(ROOT, "-c", start, "run", "workflows/quickstart.json", "--output", output)
    told = f"the package '{package}' is not installed in this Python: pip install -r requirements.txt"
    assert doctor.returncode == 3 and told in doctor.stdout, doctor.stdout + doctor.stderr
    assert run.returncode == 3 and told in run.stderr, run.stderr


@pytest.mark.parametrize("gigabytes", [0.4, 1.0, 3.0, 3.6])
def test_an_address_space_that_torch_does_not_fit_into_is_refused_at_once(bare, gigabytes) -> None:
    done = _narrow(bare, gigabytes, "run", "workflows/quickstart.json", "--output", str(bare.temporary / "output"))
    assert done.returncode == 2, done.stderr
    told = f"the address space of this process is limited to {gigabytes:.1f} GB"
    assert told in done.stderr and "This is a bug" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_narrow_address_space_is_told_before_anything_else(bare) -> None:
    done = _narrow(bare, 5.5, "doctor", "--output", str(bare.temporary / "output"))
    assert done.stderr.startswith("warning: the address space of this process is limited to 5.5 GB")


def _narrow(bare, gigabytes: float, *arguments: str):
    start = f"import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, ({int(gigabytes * 1e9)},) * 2)\n"
    start += "from animportrait3d_core.cli import main\nsys.exit(main(sys.argv[1:]))"
    return bare(ROOT, "-c", start, *arguments)


def test_a_folder_with_the_name_of_a_result_is_told(tmp_path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(InvalidInput, match=r"cannot write .*report\.json.*choose another name"):
        files.write_json(tmp_path / "report.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_user_without_a_home(monkeypatch, tmp_path, caplog) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("ANIMPORTRAIT3D_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files, "_TOLD", set())
    caplog.set_level(logging.WARNING)
    found = [files.cache_directory() for _ in range(3)]
    assert set(found) == {tmp_path / f"ap3d-cache-{os.getuid()}"} and found[0].stat().st_mode & 0o777 == 0o700
    assert caplog.text.count("this user has no home folder") == 1


def test_a_cache_that_was_asked_for_and_cannot_be_written_is_refused(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANIMPORTRAIT3D_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InvalidInput, match="set ANIMPORTRAIT3D_CACHE to a folder that can be written"):
        files.cache_directory()


def test_a_temporary_cache_of_somebody_else_is_not_used(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    (tmp_path / "ap3d-cache-4711").mkdir()
    with pytest.raises(InvalidInput, match="it belongs to another user"):
        files._temporary_cache("no home")


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed", "removed", "sums"])
def test_a_damaged_mannequin_is_made_again(tmp_path, damage) -> None:
    model, assets = mannequin_body_files(tmp_path)
    before = assets.read_bytes()
    if damage == "removed":
        assets.unlink()
    elif damage == "sums":
        next(model.parent.glob(".*.sums.json")).write_text("{")
        files._SEEN.clear()
    else:
        kept = {"cut": before[: len(before) // 2], "emptied": b"", "changed": before[:-40] + bytes(40)}[damage]
        assets.write_bytes(kept)
    again = mannequin_body_files(tmp_path)
    assert again == (model, assets) and assets.read_bytes() == before
    load_body_model(model, assets)


def test_whole_files_are_not_made_again(tmp_path) -> None:
    mesh, landmarks = embedded_portrait_files("viktor", tmp_path)
    stamp = mesh.stat().st_mtime_ns
    files._SEEN.clear()  # another process
    assert embedded_portrait_files("viktor", tmp_path) == (mesh, landmarks) and mesh.stat().st_mtime_ns == stamp
    mesh.write_bytes(mesh.read_bytes()[:1000])
    embedded_portrait_files("viktor", tmp_path)
    assert mesh.stat().st_size > 1000


def test_a_full_disk_is_a_sentence_and_leaves_what_was_there(tmp_path, small_disk) -> None:
    file = tmp_path / "report.json"
    files.write_json(file, {"before": 1})
    with small_disk(1000), pytest.raises(InvalidInput, match=r"cannot write .*report.json.*Make room on the disk"):
        files.write_json(file, {"after": "x" * 100_000})
    assert json.loads(file.read_text()) == {"before": 1} and [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_report_that_finds_no_room_is_not_blamed_on_a_node(tmp_path, capsys) -> None:
    (tmp_path / "out" / "report.json").mkdir(parents=True)
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps({"1": {"class_type": "AP3D_Doctor", "inputs": {"only_findings": True}}}))
    assert main(["run", str(graph), "--pack", str(ROOT), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("animportrait3d: error: atomic_write: cannot write") and "report.json" in told


def test_a_last_file_that_cannot_be_written_costs_no_training(tmp_path, node_classes, make_avatar, caplog) -> None:
    """The avatar is trained, then its file finds no place; the same graph with another place trains nothing."""
    (tmp_path / "input").mkdir()
    save_avatar(make_avatar(1500, seed=5), tmp_path / "input" / "start.safetensors")
    graph = WorkflowBuilder("fit", node_classes)
    loaded = graph.add("AP3D_LoadAvatar", file="start.safetensors")
    views = graph.add("AP3D_RenderViews", subject=loaded["avatar"], preset="face", size=64)
    seed = uuid.uuid4().int % 2**32  # a run that nobody has begun before
    fitted = graph.add("AP3D_FitToViews", avatar=loaded["avatar"], views=views["views"], iterations=4, seed=seed)
    graph.add("AP3D_SaveAvatar", avatar=fitted["avatar"])
    place = RunSettings(tmp_path / "out", input_directory=tmp_path / "input", device="cpu")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "taken").write_text("a file where a folder should be")
    caplog.set_level(logging.INFO)
    with pytest.raises(InvalidInput, match="taken"):
        run(graph.to_json(), node_classes, dataclasses.replace(place, overrides=("AP3D_SaveAvatar.filename=taken/it",)))
    assert "finished stages are kept in" in caplog.text and "goes on at step" not in caplog.text
    run(graph.to_json(), node_classes, place)
    assert "fit_to_views: goes on at step 4 of 4" in caplog.text
    assert load_avatar(tmp_path / "out" / "avatar.safetensors").gaussians.means.shape == (1500, 3)
    caplog.clear()
    run(graph.to_json(), node_classes, place)
    assert "goes on at step" not in caplog.text  # nothing is kept once it is done


def test_too_little_memory_is_a_sentence_and_not_a_bug(tmp_path, node_classes) -> None:
    def usual(node):
        inputs = node_classes[node].INPUT_TYPES()["required"]
        return {name: entry[1]["default"] for name, entry in inputs.items() if "default" in entry[1]}

    maps = {**usual("AP3D_ConditionMaps"), "subject": ["1", 0], "size": 2048}
    graph = {
        "1": {"class_type": "AP3D_LoadSMPLX", "inputs": usual("AP3D_LoadSMPLX")},
        "2": {"class_type": "AP3D_ConditionMaps", "inputs": maps},
    }
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(graph))
    limited = (
        "import resource, sys, torch; from animportrait3d_core import cli; "
        "from animportrait3d_core.conditioning import numba_maps; torch.set_num_threads(1); torch.ones(9).sum()\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)\n"
        f"sys.exit(cli.main(['run', {str(file)!r}, '--output', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", limited], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "has no more memory" in done.stderr and "This is a bug" not in done.stderr


def test_a_home_that_nobody_has_is_refused(tmp_path) -> None:
    command = [sys.executable, "-m", "animportrait3d_core", "run", "x.json", "--output", "~nobody-of-that-name/x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "no such home folder" in done.stderr
    assert not (Path(ROOT) / "~nobody-of-that-name").exists()
