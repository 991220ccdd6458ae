"""A host that runs short of memory weighs what our sockets hold. Skipped unless COMFYUI_DIR points to a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Runs in the host's interpreter: the result of a node as the executor merges it, and a machine without free memory.
SCRIPT = """
import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

sys.path[:0] = [sys.argv[1], sys.argv[2]]
sys.argv[1:] = ["--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
from comfy_execution import caching
if not hasattr(caching, "RAMPressureCache"):
    print("no such cache")
    sys.exit()
import execution
import folder_paths
root = sys.path[1]
sys.modules["tests"] = ModuleType("tests")  # the host has a package of this name too, which would be found first
sys.modules["tests"].__path__ = [f"{root}/tests"]
from animportrait3d_core.workflow.registry import load_pack
from animportrait3d_core.body.model import load_body_model
from animportrait3d_core.embedded.mannequin import mannequin_body_files
from tests.avatar_samples import fitted_parameters, random_avatar

host = sys.modules[load_pack(root).__name__ + ".nodes.host"]
body = load_body_model(*mannequin_body_files())
avatar = random_avatar(body, fitted_parameters(body), 50000)
returned = host.node_result(avatar, "words")
node = SimpleNamespace(RETURN_TYPES=("AP3D_AVATAR", "STRING"))
outputs, *_ = execution.get_output_from_returns([returned], node)
assert outputs[0] == [avatar] and outputs[1] == ["words"]

cache = caching.RAMPressureCache(caching.CacheKeySetID)
cache.cache["entry"] = SimpleNamespace(outputs=outputs)
cache.used_generation["entry"] = cache.generation - 1
cache.timestamps["entry"] = 0
memory = SimpleNamespace(available=0)
with patch("psutil.virtual_memory", lambda: memory):
    freed = cache.ram_release(1)
held = sum(tensor.numel() * tensor.element_size() for tensor in avatar._comfy_cache_tensors())
print("weighed", int(freed), "of", held)
"""


def test_the_cache_of_the_host_weighs_an_avatar(tmp_path):
    if not os.environ.get("COMFYUI_DIR"):
        pytest.skip("COMFYUI_DIR does not point to a ComfyUI checkout")
    host, python = os.environ["COMFYUI_DIR"], os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "-c", SCRIPT, host, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.strip().splitlines()[-1]
    if last == "no such cache":
        pytest.skip("this ComfyUI has no cache that goes by memory")
    _, freed, _, held = last.split()
    assert int(held) > 3_000_000 and int(freed) == int(held), last
