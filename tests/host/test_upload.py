"""web/upload.js, run by Node with stand-ins for the frontend: which files go where, and what is chosen then."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from animportrait3d_core.files import write_safetensors
from animportrait3d_core.workflow.definitions import define_node

ROOT = Path(__file__).parents[2]

# A frontend that records: what is posted, said, and set. The server answers with the names it would give.
STAND_INS = {
    "scripts/app.js": """
        export const seen = { posts: [], said: [], refreshed: 0, extension: null };
        export const app = {
          registerExtension: (extension) => (seen.extension = extension),
          refreshComboInNodes: async () => { seen.refreshed += 1; },
          extensionManager: { toast: { add: (toast) => seen.said.push(toast.detail) } },
        };
    """,
    "scripts/api.js": """
        import { seen } from "./app.js";
        export const api = {
          fetchApi: async (path, { body }) => {
            const post = Object.fromEntries(["type", "subfolder"].map((name) => [name, body.get(name)]));
            const name = body.get("image").name;
            seen.posts.push({ path, name, ...post });
            if (name.startsWith("huge")) return { status: 413 };
            return { status: 200, json: async () => ({ name, subfolder: post.subfolder }) };
          },
        };
    """,
    "run.mjs": """
        import { readFileSync } from "node:fs";
        import { seen } from "./scripts/app.js";
        const { input, values, files } = JSON.parse(readFileSync(0, "utf8"));
        let chooser = null;
        globalThis.document = { createElement: () => (chooser = { click() { this.clicked = true; } }) };
        await import("./extensions/pack/upload.js");
        class Node {
          comfyClass = "AP3D_Test";
          widgets = Object.keys(input.required).map((name) => ({ name, value: "before", options: { values } }));
          addWidget(type, name, value, callback, options) {
            const widget = { type, name, value, callback, options };
            this.widgets.push(widget);
            return widget;
          }
        }
        Node.nodeData = { input };
        const node = new Node();
        seen.extension.nodeCreated(node);
        const event = { dataTransfer: { items: files.map(() => ({ kind: "file" })),
                                        files: files.map((name) => new File(["x"], name)) } };
        const over = node.onDragOver?.(event) ?? null;
        const taken = (await node.onDragDrop?.(event)) ?? null;
        const chosen = Object.fromEntries(node.widgets.map(({ name, value }) => [name, value]));
        const last = node.widgets.at(-1);
        const button = { name: last.name, type: last.type, serialize: last.serialize, options: last.options };
        console.log(JSON.stringify({ over, taken, chosen, button, accept: chooser?.accept, ...seen }));
    """,
}


@pytest.fixture()
def drop(tmp_path, node_classes, run_context):
    """drop("AP3D_X", ["head.obj", ...], values=[...]): what happens when these files are dropped on the node."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    for name, text in STAND_INS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "extensions" / "pack").mkdir(parents=True)
    shutil.copy(ROOT / "web" / "upload.js", tmp_path / "extensions" / "pack")

    def run(node_id, files, values=()):
        declared = node_classes[node_id].INPUT_TYPES()
        given = json.dumps({"input": {"required": declared["required"]}, "values": list(values), "files": files})
        done = subprocess.run(
            ["node", "run.mjs"], cwd=tmp_path, input=given, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def posted(seen):
    assert all(post["path"] == "/upload/image" and post["type"] == "input" for post in seen["posts"])
    return [f"{post['subfolder']}/{post['name']}" for post in seen["posts"]]


def test_a_mesh_comes_with_its_companions(drop):
    seen = drop("AP3D_PortraitFromMesh", ["skin.PNG", "Head.OBJ", "head.mtl"])
    assert posted(seen) == ["3d/Head/skin.PNG", "3d/Head/head.mtl", "3d/Head/Head.OBJ"]  # the mesh last
    assert seen["chosen"]["file"] == "3d/Head/Head.OBJ" and seen["chosen"]["up"] == "before"
    assert seen["over"] and seen["taken"] and seen["refreshed"] == 1 and seen["said"] == []


def test_no_set_is_laid_over_another(drop):
    there = ["3d/head/head.obj", "3d/head_2/other.obj"]
    assert posted(drop("AP3D_LoadLandmarks", ["head.obj", "head.json"], there))[1] == "3d/head_3/head.obj"


def test_a_mesh_alone_lies_where_load_3d_looks(drop):
    seen = drop("AP3D_PortraitFromMesh", ["head.glb", "other.glb"])
    assert posted(seen) == ["3d/head.glb"] and seen["chosen"]["file"] == "3d/head.glb"
    assert seen["said"] == ["Not uploaded: other.glb. Choose one file at a time, with what belongs to it."]


def test_what_fits_nothing_goes_on_to_the_canvas(drop):
    seen = drop("AP3D_PortraitFromMesh", ["graph.png"])
    assert seen["taken"] is False and seen["posts"] == [] and seen["chosen"]["file"] == "before"


def test_the_button_is_the_last_widget_and_is_not_stored(drop):
    seen = drop("AP3D_PortraitFromMesh", [])
    button = {"name": "upload mesh", "type": "button", "serialize": False, "options": {"serialize": False}}
    assert seen["button"] == button and seen["taken"] is False
    assert {".glb", ".obj", ".mtl", ".png"} <= set(seen["accept"].split(","))


def test_a_portrait_and_its_generator(drop):
    seen = drop("AP3D_LoadPortrait3D", ["model_512.pkl", "anna.pth", "anna.txt"])
    assert posted(seen) == ["portrait3d/anna/anna.txt", "portrait3d/anna/anna.pth", "portrait3d/model_512.pkl"]
    assert seen["chosen"]["file"] == "input: portrait3d/anna/anna.pth"
    assert seen["chosen"]["generator"] == "input: portrait3d/model_512.pkl"
    one = drop("AP3D_LoadPortrait3D", ["anna.safetensors"])
    assert (one["chosen"]["file"], one["chosen"]["generator"]) == ("input: portrait3d/anna.safetensors", "before")


def test_a_file_that_the_server_refuses_is_told(drop):
    seen = drop("AP3D_PortraitFromMesh", ["huge.glb"])
    assert seen["chosen"]["file"] == "before" and "huge.glb is larger than" in seen["said"][0]


def test_nodes_without_files_are_left_alone(drop):
    seen = drop("AP3D_Doctor", ["head.glb"])
    assert seen["over"] is None and seen["taken"] is None


def test_what_is_uploaded_is_offered(node_classes, run_context):
    """Each folder that uploads go to is one that the node looks into, under the name that the script sets."""
    for node_id, node_class in node_classes.items():
        for entry in define_node(node_id, node_class).inputs:
            upload = (entry.file_input or {}).get("upload")
            if not upload:
                continue
            file = run_context.input_directory / upload["folder"] / f"probe{entry.file_input['suffixes'][0]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_safetensors(file, {"x": torch.ones(1)}, {"format": "animportrait3d.avatar"})
            choices = {item.name: item.choices for item in define_node(node_id, node_class).inputs}[entry.name]
            assert f"{upload['prefix']}{upload['folder']}/{file.name}" in choices, f"{node_id}: '{entry.name}'"
