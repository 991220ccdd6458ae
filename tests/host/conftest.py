"""A real ComfyUI server, where COMFYUI_DIR points to a checkout (COMFYUI_PYTHON: its interpreter, else this one)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACK_NAME = "ComfyUI-AnimPortrait3D"


class ComfyUI:
    """A running server with this pack and folders of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        for folder in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (base / folder).mkdir()
        (base / "custom_nodes" / PACK_NAME).symlink_to(ROOT, target_is_directory=True)
        shutil.copytree(Path(__file__).parent / "probe_pack", base / "custom_nodes" / "ap3d_probe")
        self.log_file = base / "server.log"
        command = [
            self.python,
            "main.py",
            "--cpu",
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--disable-api-nodes",
        ]
        command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:"]
        # Runs of its own: neither what another server keeps nor what it works on.
        own = {"ANIMPORTRAIT3D_CACHE": str(base / "cache")}
        environment = {**os.environ, **own, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=os.environ["COMFYUI_DIR"], stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def python(self) -> str:
        return os.environ.get("COMFYUI_PYTHON", sys.executable)

    def frontend_version(self) -> str:
        """Version of the package whose page it serves."""
        asked = "import importlib.metadata as data; print(data.version('comfyui-frontend-package'))"
        return subprocess.run([self.python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()

    def wait(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        self.stop()
        raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def get_json(self, path: str):
        return json.loads(self.get(path))

    def post(self, path: str, body) -> tuple[int, dict]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait_for_running(self, prompt_id: str, seconds: float = 30) -> None:
        """Until the prompt has left the queue and its first node had time to begin."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(entry[1] == prompt_id for entry in self.get_json("/queue")["queue_running"]):
                time.sleep(0.5)
                return
            time.sleep(0.05)
        raise TimeoutError(f"prompt did not begin within {seconds:.0f} s")

    def history(self, prompt_id: str, seconds: float) -> dict:
        """The history entry of a prompt, when it is there: the websocket is told of errors before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            history = self.get_json(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            assert self.process.poll() is None, self.log()[-3000:]
            time.sleep(0.2)
        raise TimeoutError(f"prompt still running after {seconds:.0f} s:\n{self.log()[-2000:]}")


@pytest.fixture(scope="session")
def comfyui_server(tmp_path_factory):
    if not os.environ.get("COMFYUI_DIR"):
        pytest.skip("COMFYUI_DIR does not point to a ComfyUI checkout")
    server = ComfyUI(tmp_path_factory.mktemp("comfyui"))
    server.wait()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """A folder of random model files that the host's loaders take for Stable Diffusion 1.5 and its ControlNets."""
    from tests.host.tiny_checkpoint import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
