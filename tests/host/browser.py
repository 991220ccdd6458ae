"""Where the browser tests find what they need: node, playwright-core, Chromium and ComfyUI's frontend."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent
RENDERERS = ("classic", "nodes2")


def installed_frontend() -> Path | None:
    """The folder of comfyui-frontend-package's page."""
    package = importlib.util.find_spec("comfyui_frontend_package")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(next(iter(package.submodule_search_locations))) / "static"


def version_of(static: Path) -> str:
    """Version of the frontend that a folder of pages belongs to, by its package; empty where there is none."""
    packages = static.resolve().parents[1].glob("comfyui_frontend_package-*.dist-info")
    return next((path.stem.split("-")[1] for path in packages), "")


def renderers_of(version: str) -> tuple[str, ...]:
    """Those of a frontend.

    Nodes 2.0 of 1.27 is a prototype, off unless somebody looks for it: it draws neither DOM widgets nor films of any
    pack, and of pictures one at a time, not always; files that are dropped on a node do not arrive.
    """
    return RENDERERS[:1] if version.startswith("1.27.") else RENDERERS


def node_modules() -> Path:
    """The folder of the packages that the scripts need."""
    return Path(os.environ.get("NODE_PATH") or ROOT / ".venv" / "browser" / "node_modules")


def browser_environment() -> dict[str, str]:
    """Environment of the scripts, or a skip that names what is absent."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if chromium is None:
        pytest.skip("Chromium is not installed (set CHROMIUM to its path)")
    if not (node_modules() / "playwright-core").is_dir():
        pytest.skip("playwright-core is not installed (scripts/test.sh --all installs it)")
    return {**os.environ, "NODE_PATH": str(node_modules()), "CHROMIUM": chromium}


def patience() -> float:
    """Seconds that a script waits for the page; FRONTEND_SECONDS on a slow machine."""
    return float(os.environ.get("FRONTEND_SECONDS", 90))


def run_script(name: str, arguments: Sequence[str], seconds: float = 240) -> None:
    """A script of this folder, in node; what it complains of is the failure."""
    command = ["node", str(SCRIPTS / name), *arguments]
    done = subprocess.run(command, env=browser_environment(), capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr


def run_graphs(url: str, folder: Path, renderers: Sequence[str], graphs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{renderer: {name: {before, runs, errors}}}, as frontend_run.js writes it; its screenshots lie in `folder`."""
    (folder / "job.json").write_text(json.dumps({"renderers": list(renderers), "graphs": list(graphs)}))
    run_script("frontend_run.js", [url, str(folder / "job.json"), str(folder)], seconds=6 * patience())
    return json.loads((folder / "shown.json").read_text())
