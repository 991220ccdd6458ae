"""The avatar on its node, in ComfyUI's own frontend: what is chosen there goes to the widgets, and so to the run.

The node runs for real, behind the server that plays ComfyUI's messages, under the content security policy of
ComfyUI's `--offline`. Both renderers of the installed frontend, and of those in COMFYUI_FRONTENDS.
"""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.export.page_data import pose_vectors
from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.registry import load_registry
from tests.host.browser import (
    RENDERERS,
    ROOT,
    browser_environment,
    installed_frontend,
    renderers_of,
    run_script,
    version_of,
)
from tests.host.comfy_protocol import Script
from tests.host.frontend_server import FrontendServer, object_info

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1800)]

NODE, SOURCE = "AP3D_PreviewAvatar", "AP3D_TestAvatar"
FOLDERS = [folder for folder in os.environ.get("COMFYUI_FRONTENDS", "").split(os.pathsep) if folder]
SIZE = (192, 128)
OFFLINE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self' data:; frame-src 'self'; object-src 'self';"
)


class Source:
    """Gives the avatar."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "execute", ("AP3D_AVATAR",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}


def graph_of(classes):
    graph = WorkflowBuilder("preview", classes)
    source = graph.add(SOURCE)
    node = graph.add(NODE, avatar=source["AP3D_AVATAR"], width=SIZE[0], height=SIZE[1], budget=0)
    made = graph.to_json()
    for index, entry in enumerate(made["nodes"]):
        entry["pos"], entry["size"] = [300 * index, 0], [[200, 60], [460, 640]][index]
    return made, node


@pytest.fixture(scope="module", params=["", *FOLDERS])
def seen(request, make_avatar, tmp_path_factory):
    """What was found in the page, per renderer, and what the node gave in each run, in order."""
    browser_environment()
    static = Path(request.param) if request.param else installed_frontend()
    if static is None:
        pytest.skip("comfyui-frontend-package is not installed")
    renderers = renderers_of(version_of(static))
    registry, folder = load_registry(ROOT), tmp_path_factory.mktemp("preview")
    classes = {NODE: registry[NODE], SOURCE: Source}
    avatar, runs = make_avatar(2500), []

    def work(inputs):
        with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
            patch.setattr(f"{registry[NODE].__module__}.host.temp_folder", lambda: folder)
            done = registry[NODE]().execute(**{**inputs, "avatar": avatar})
        runs.append({"inputs": inputs, "image": done["result"][0], "motion": done["result"][1]})
        return done["ui"]

    server = FrontendServer(static, object_info(classes, {}), {NODE: Script(work=work)}, folder, OFFLINE)
    graph, node = graph_of(classes)
    job = {"renderers": list(renderers), "graph": graph, "node": node.node_id, "size": SIZE}
    (folder / "job.json").write_text(json.dumps(job))
    seconds = float(os.environ.get("FRONTEND_SECONDS", 90))
    try:
        run_script("preview_run.js", [server.url, str(folder / "job.json"), str(folder)], seconds=8 * seconds)
    finally:
        server.close()
        if "FRONTEND_SCREENSHOTS" in os.environ:
            target = Path(os.environ["FRONTEND_SCREENSHOTS"]) / f"preview_{str(static).strip('/').replace('/', '_')}"
            shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.html"))
    found = json.loads((folder / "seen.json").read_text())
    return {renderer: found[renderer] | {"runs": runs[3 * k : 3 * k + 3]} for k, renderer in enumerate(renderers)}


@pytest.fixture(params=RENDERERS)
def shown(seen, request):
    if request.param not in seen:
        pytest.skip("Nodes 2.0 of frontend 1.27 is a prototype")
    return seen[request.param]


def decibels(page, image):
    """Of the page's picture against the node's, where one of them is not white."""
    raw = np.frombuffer(base64.b64decode(page["pixels"]), np.uint8).reshape(SIZE[1], SIZE[0], 4)
    found, wanted = raw[..., :3].astype(np.float32) / 255, image[0].numpy()
    covered = (np.minimum(found, wanted) < 0.99).any(axis=-1)
    assert 0.05 < covered.mean() < 0.95
    return -10 * math.log10(((found - wanted)[covered] ** 2).mean())


@pytest.mark.parametrize(("run", "name"), [(0, "first"), (1, "second"), (2, "byHand")])
def test_the_picture_of_the_next_run_is_what_the_node_showed(shown, run, name):
    assert decibels(shown[name], shown["runs"][run]["image"]) > 40
    pose = pose_vectors(shown["runs"][run]["motion"].parameters)[0]
    np.testing.assert_allclose(shown[name]["pose"], pose.numpy(), atol=1e-4)


def test_what_was_chosen_went_to_the_widgets_and_to_the_run(shown):
    first, second, by_hand = (run["inputs"] for run in shown["runs"])
    assert (first["pose"], first["camera"]) == ("{}", "{}")
    assert {name: second[name] for name in ("pose", "camera")} == shown["chosen"]
    pose = json.loads(second["pose"])
    assert set(pose) == {"jaw"} and 10 < pose["jaw"] < 26
    camera = json.loads(second["camera"])
    assert set(camera) == {"yaw"} and camera["yaw"] < -5
    assert by_hand["pose"] == '{"jaw":18,"turn":-30}' and by_hand["camera"] == second["camera"]
    assert float((shown["runs"][0]["image"] - shown["runs"][1]["image"]).abs().mean()) > 0.01


def test_the_page_has_the_shape_of_the_picture(shown):
    width, height = shown["first"]["shape"]
    assert width > 150 and width / height == pytest.approx(SIZE[0] / SIZE[1], rel=0.02)


def test_the_page_stays_while_only_the_pose_changes(shown):
    assert shown["kept"] == "kept"


def test_the_page_rests_out_of_sight(shown):
    assert shown["looks"] <= 1


def test_a_saved_graph_shows_the_avatar_as_it_was_left(shown):
    np.testing.assert_allclose(shown["again"]["pose"], shown["byHand"]["pose"], atol=1e-5)
    assert shown["again"]["pixels"] == shown["byHand"]["pixels"]
    assert shown["again"]["widgets"]["pose"] == '{"jaw":18,"turn":-30}'


def test_no_frame_is_left_of_a_node_that_was_deleted_or_replaced(shown):
    assert (shown["frames"], shown["left"]) == ([1, 2], [0, 1])


def test_the_page_logs_no_error(shown):
    assert json.dumps(shown["errors"], indent=1) == "[]"
