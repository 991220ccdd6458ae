"""What a person does in the page of the real server: looks for a graph in Browse Templates, brings files into nodes.

Skipped unless COMFYUI_DIR points to a checkout, and by name where a browser is absent.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from animportrait3d_core.workflow.builder import WorkflowBuilder
from animportrait3d_core.workflow.registry import load_registry
from tests.host.browser import ROOT, patience, renderers_of, run_script

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(20 * patience())]

PACK_NAME = "ComfyUI-AnimPortrait3D"
SHOWN = sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))
PORTRAIT = next((ROOT / "animportrait3d_core" / "embedded" / "portraits").rglob("amara.safetensors"), None)
CORNERS = ((-0.3, 0, 0, 0), (0.3, 0, 1, 0), (0.3, 0.5, 1, 1), (-0.3, 0.5, 0, 1))
QUAD = "mtllib head.mtl\nusemtl skin\n" + "".join(f"v {x} {y} 0\nvt {u} {v}\n" for x, y, u, v in CORNERS)


def test_templates_are_offered_with_their_names_and_pictures(comfyui_server, tmp_path):
    run_script("frontend_templates.js", [comfyui_server.url, PACK_NAME, str(tmp_path)], seconds=10 * patience())
    found = json.loads((tmp_path / "templates.json").read_text())
    assert found["failed"] == []
    assert sorted(one["name"] for one in found["shown"]) == SHOWN
    for one in found["shown"]:
        assert one["pictures"] and all(width > 100 for width in one["pictures"]), one["name"]
        assert one["name"] in one["text"]


@pytest.fixture()
def own_files(tmp_path):
    """A mesh with what belongs to it, and a portrait, somewhere on the user's disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "head.obj").write_text(QUAD + "f 1/1 2/2 3/3 4/4\n")
    (folder / "head.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    Image.new("RGB", (8, 8), (200, 30, 30)).save(folder / "skin.png")
    shutil.copy(PORTRAIT, folder / "mine.safetensors")
    return {"mesh": [str(folder / name) for name in ("skin.png", "head.mtl", "head.obj")],
            "portrait": [str(folder / "mine.safetensors")]}  # fmt: skip


def upload_graph():
    graph = WorkflowBuilder("upload", load_registry(ROOT))
    body = graph.add("AP3D_LoadSMPLX")
    graph.add("AP3D_PortraitFromMesh", body=body["body"], alignment="none", shows_picture=True)
    graph.add("AP3D_LoadPortrait3D", sampling="draft", shows_picture=True)
    graph = graph.to_json()
    for index, node in enumerate(graph["nodes"]):
        node["pos"] = [360 * index, 0]
    return graph


def test_files_arrive_by_drop_and_by_the_button(comfyui_server, own_files, tmp_path):
    mesh = {"node": 2, "widget": "file", "button": "upload mesh", "files": own_files["mesh"]}
    portrait = {"node": 3, "widget": "file", "button": "upload portrait", "files": own_files["portrait"]}
    uploads = [one | {"how": how} for how in ("drop", "button") for one in (mesh, portrait)]
    job = tmp_path / "job.json"
    renderers = renderers_of(comfyui_server.frontend_version())
    job.write_text(json.dumps({"renderers": renderers, "graph": upload_graph(), "uploads": uploads}))
    run_script("frontend_upload.js", [comfyui_server.url, str(job), str(tmp_path)], seconds=15 * patience())
    found = json.loads((tmp_path / "chosen.json").read_text())
    inputs, number = comfyui_server.base / "input", 0
    for renderer in renderers:
        assert found[renderer]["errors"] == []
        chosen = found[renderer]["chosen"]
        # Each set of a mesh gets a folder of its own; a portrait that is there already is taken as it is.
        folders = ["3d/head" if number + k == 0 else f"3d/head_{number + k + 1}" for k in range(2)]
        assert chosen[0::2] == [f"{folder}/head.obj" for folder in folders], renderer
        assert [Path(name).suffix for name in chosen[1::2]] == [".safetensors"] * 2
        assert all(name.startswith("input: portrait3d/mine") for name in chosen[1::2]), renderer
        for folder in folders:
            assert {file.name for file in (inputs / folder).iterdir()} == {"head.obj", "head.mtl", "skin.png"}
        number += 2
    assert (inputs / "portrait3d" / "mine.safetensors").read_bytes() == Path(own_files["portrait"][0]).read_bytes()


def test_what_was_uploaded_is_what_runs(comfyui_server, own_files):
    """Names as the page sets them: the mesh finds its material and picture in its folder."""
    folder = comfyui_server.base / "input" / "3d" / "head_by_hand"
    folder.mkdir(parents=True)
    for file in own_files["mesh"]:
        shutil.copy(file, folder)
    inputs = {
        "file": "3d/head_by_hand/head.obj",
        "prompt": "",
        "alignment": "none",
        "shading": "unlit",
        "body": ["1", 0],
    }
    body = {"body": "embedded mannequin", "assets": "(of the body)", "eyelid_mode": "fixed"}
    prompt = {
        "1": {"class_type": "AP3D_LoadSMPLX", "inputs": body},
        "2": {"class_type": "AP3D_PortraitFromMesh", "inputs": inputs},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 3]}},
    }
    listed = comfyui_server.get_json("/object_info/AP3D_PortraitFromMesh")["AP3D_PortraitFromMesh"]["input"]["required"]
    prompt["2"]["inputs"] |= {name: spec[1]["default"] for name, spec in listed.items() if name not in inputs}
    status, answer = comfyui_server.post("/prompt", {"prompt": prompt})
    assert status == 200 and not answer["node_errors"], answer
    entry = comfyui_server.history(answer["prompt_id"], 20 * patience())
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    assert "skin.png" in " ".join(entry["outputs"]["2"]["text"]) or "texture" in " ".join(entry["outputs"]["2"]["text"])
