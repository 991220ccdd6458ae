"""The command line: exit codes, messages, JSON for machines, interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from animportrait3d_core import doctor
from animportrait3d_core.cli import main

ROOT = Path(__file__).parents[2]

PACK = """
import time


class Slow:
    RETURN_TYPES = ()
    FUNCTION = "work"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {"default": 30.0}), "fail": ("STRING", {"default": ""})}}

    def work(self, seconds, fail):
        from animportrait3d_core import errors
        from animportrait3d_core.workflow.context import active_context

        if fail:
            raise getattr(errors, fail, RuntimeError)(f"Slow: {fail}")
        active_context().add_metrics("initial", {"psnr": 30.5})
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            active_context().progress(1, 2)
            time.sleep(0.01)
        return {}


NODE_CLASS_MAPPINGS = {"AP3D_Slow": Slow}
"""


@pytest.fixture()
def pack(tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACK)
    graph = {"1": {"class_type": "AP3D_Slow", "inputs": {"seconds": 0.0, "fail": ""}}}
    (folder / "graph.json").write_text(json.dumps(graph))
    return folder


@pytest.fixture()
def call(pack, tmp_path):
    def run(*arguments):
        output = ["--output", str(tmp_path / "out"), "--device", "cpu"]
        return main(["run", str(pack / "graph.json"), "--pack", str(pack), *output, *arguments])

    return run


def test_a_run_reports_and_returns_0(call, capsys, tmp_path):
    assert call() == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("1 nodes in")
    assert "[1/1] AP3D_Slow (#1)" in captured.err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["metrics"] == {"initial": {"psnr": 30.5}}


def test_json_prints_the_report_and_nothing_else(call, capsys):
    assert call("--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["nodes"][0]["type"] == "AP3D_Slow"
    assert captured.err == ""


def test_quiet_prints_nothing(call, capsys):
    assert call("--quiet") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("InvalidInput", 2),
        ("ShapeMismatch", 2),
        ("IncompatibleCheckpoint", 2),
        ("MissingModelFile", 3),
        ("MissingExtension", 3),
        ("Surprise", 1),
    ],
)
def test_exit_codes_and_one_clear_message(call, capsys, error, code):
    assert call("--set", f"1.fail={error}") == code
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("animportrait3d: error in AP3D_Slow (#1): ") and f"Slow: {error}" in message
    assert call("--set", f"1.fail={error}", "--json") == code
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == code


def test_debug_lets_the_traceback_through(call):
    with pytest.raises(RuntimeError, match="Slow: Surprise"):
        call("--set", "1.fail=Surprise", "--debug")


def test_wrong_input_is_2(call, capsys, tmp_path):
    assert call("--set", "nobody.x=1") == 2
    assert "the graph has no node 'nobody'" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "missing.json")]) == 3
    assert main(["run", str(tmp_path / "missing.json"), "--pack", str(tmp_path)]) == 2
    with pytest.raises(SystemExit) as usage:
        main(["run"])
    assert usage.value.code == 2


@pytest.fixture()
def slow_process(pack, tmp_path):
    """A run that has begun its node and will take a minute."""
    command = [sys.executable, "-m", "animportrait3d_core", "run", str(pack / "graph.json"), "--pack", str(pack)]
    command += ["--output", str(tmp_path / "out"), "--set", "1.seconds=60"]

    def heed_ctrl_c() -> None:
        # Shells start background jobs with SIGINT ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    assert "AP3D_Slow (#1)" in process.stderr.readline()
    time.sleep(0.5)
    yield process
    process.kill()
    process.wait()


def test_a_killed_run_leaves_nothing_and_the_next_one_works(slow_process, call, tmp_path):
    slow_process.kill()
    slow_process.wait()
    assert list((tmp_path / "out").iterdir()) == []
    assert call() == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.json"]


def test_temporary_folders_of_killed_runs_are_swept(slow_process, call):
    temporary = Path(tempfile.gettempdir())
    ours = f"animportrait3d-*-{slow_process.pid}-*"
    assert call() == 0 and len(list(temporary.glob(ours))) == 1  # of a run that is at work
    slow_process.kill()
    slow_process.wait()
    assert call() == 0 and not list(temporary.glob(ours))


def test_a_tilde_is_the_home_folder(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert call("--output=~/results") == 0
    assert (tmp_path / "home" / "results" / "report.json").is_file() and not (tmp_path / "~").exists()


@pytest.mark.parametrize("code", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_workflow_may_begin_with_a_byte_order_mark(call, pack, code):
    """Windows saves text as UTF-8 with a mark, or as UTF-16."""
    graph = pack / "graph.json"
    graph.write_bytes(graph.read_text().encode(code))
    assert call() == 0


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('{"name": "pack", "version": "1.0"}', "'name', 'version'"),
        ('{"asset": {"version": "2.0"}, "nodes": [{"mesh": 0}]}', "'asset', 'nodes'"),
        ('{"nodes": [{"id": "ab", "type": "n8n.start"}], "connections": {}}', "'nodes', 'connections'"),
        ('{"prompt": "a cat", "steps": 20}', "'prompt', 'steps'"),
        ("{}", "none"),
    ],
)
def test_the_json_of_another_program_is_called_so(call, pack, capsys, text, keys):
    (pack / "graph.json").write_text(text)
    assert call() == 2
    assert f"is the JSON of another program (its keys: {keys})" in capsys.readouterr().err


def test_ctrl_c_stops_the_run_with_130_and_leaves_nothing_half_written(slow_process, tmp_path):
    process = slow_process
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=50)[1]
    assert process.returncode == 130
    assert "interrupted" in rest and "Traceback" not in rest
    assert time.monotonic() - started < 30  # the node would take 60
    assert list((tmp_path / "out").iterdir()) == []


def test_doctor_speaks_to_people_and_machines(capsys, tmp_path):
    models = tmp_path / "models"
    (models / "smplx").mkdir(parents=True)
    (models / "smplx" / "SMPLX_NEUTRAL.npz").write_bytes(b"x")
    arguments = ["doctor", "--models", str(models), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "Healthy" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    findings = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["smplx"]["status"] in ("ok",) and "SMPLX_NEUTRAL.npz" in findings["smplx"]["detail"]
    assert findings["portrait3d"]["status"] == "missing" and "licence" in findings["portrait3d"]["detail"]
    assert findings["mesh/nvdiffrast"]["status"] in ("missing", "unverified")


def test_the_doctors_notes_begin_with_the_verdict():
    rows = [("torch", doctor.OK, "2.1"), ("av", doctor.PROBLEM, "pip install av"), ("cuda", doctor.MISSING, "no GPU")]
    findings = [doctor.Finding("packages", *row) for row in rows]
    lines = doctor.to_notes(findings).splitlines()
    assert lines[:2] == ["Needs attention: av.", "av: problem: pip install av"]
    assert lines[2:] == ["", "Not here, and not needed (1):", "- cuda: no GPU", "", "Works (1): torch"]
    assert doctor.to_notes(findings[:1]).splitlines()[0] == "Healthy: the embedded world runs here."


def test_doctor_reports_an_output_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert main(["doctor", "--output", str(tmp_path / "file" / "out")]) == 3
    assert "Needs attention: output" in capsys.readouterr().out


def test_bench_lists_and_runs_scripts(capsys, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    script = '"""Counts arguments.\n\nMore."""\nimport sys\nprint(len(sys.argv) - 1, "arguments")\n'
    (tmp_path / "benchmarks" / "count.py").write_text(script)
    assert main(["bench", "--pack", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split(maxsplit=1) == ["count", "Counts arguments.\n"]
    assert main(["--pack", str(tmp_path), "bench", "count", "a", "--size", "3"]) == 0
    assert "3 arguments" in capsys.readouterr().out
    assert main(["--pack", str(tmp_path), "bench", "weigh"]) == 2


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")))
def test_every_benchmark_starts_by_its_command(name):
    """In a process of its own: a benchmark may set paths and threads."""
    command = [sys.executable, "-m", "animportrait3d_core", "bench", name, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


def test_evaluate_reads_the_generator_of_a_portrait(tmp_path, monkeypatch, make_avatar, capsys):
    import torch

    from animportrait3d_core.avatar.io import save_avatar
    from animportrait3d_core.evaluation import complete
    from animportrait3d_core.portrait.trigrid import save_generator
    from tests.portrait.trigrid_samples import checkpoint_of, ellipsoid_portrait, generator_of

    portrait = ellipsoid_portrait((8, 16))
    torch.save({"model": checkpoint_of(portrait)}, tmp_path / "000.pth")
    save_generator(generator_of(portrait), tmp_path / "generator.safetensors")
    save_avatar(make_avatar(20), tmp_path / "avatar.safetensors")
    seen = []

    def evaluate_avatar(avatar, portrait, *rest):
        seen.append(portrait)
        return {"gaussians": float(len(avatar))}

    monkeypatch.setattr(complete, "evaluate_avatar", evaluate_avatar)
    files = [str(tmp_path / name) for name in ("avatar.safetensors", "000.pth", "generator.safetensors")]
    assert main(["evaluate", files[0], "--portrait", files[1], "--generator", files[2], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"gaussians": 20.0}
    assert torch.equal(seen[0].decoder.hidden_weight, portrait.decoder.hidden_weight)
