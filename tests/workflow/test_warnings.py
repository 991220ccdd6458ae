"""What nodes say reaches whoever runs a graph: on the terminal, in report.json, also of results that are bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from animportrait3d_core.meshes import Mesh
from animportrait3d_core.parts import AvatarPart, MeshParts
from animportrait3d_core.rigging.points import PosedBody

ROOT = Path(__file__).parents[2]

TOWER = "\n".join(
    [f"v {x} {y} {z}" for y in (0, 1.2) for x, z in ((-0.3, -0.3), (0.3, -0.3), (0.3, 0.3), (-0.3, 0.3))]
    + ["f 1 2 6 5", "f 2 3 7 6", "f 3 4 8 7", "f 4 1 5 8", ""]
)
"""Four walls up to y = 1.2, where no standard view reaches, without colours."""

BODY = {"body": "embedded mannequin", "assets": "(of the body)", "eyelid_mode": "fixed"}
GRAPH = {
    "body": {"class_type": "AP3D_LoadSMPLX", "inputs": BODY},
    "mesh": {
        "class_type": "AP3D_PortraitFromMesh",
        "inputs": {
            "file": "", "body": ["body", 0], "prompt": "", "alignment": "none", "shading": "unlit", "up": "+y",
            "face": "+z", "scale": 1.0, **dict.fromkeys(("nod", "turn", "tilt", "move_x", "move_y", "move_z"), 0.0),
        },
    },
    "show": {"class_type": "PreviewAny", "inputs": {"source": ["mesh", 0]}},
}  # fmt: skip


@pytest.fixture()
def command(tmp_path):
    """Function (options) -> the finished process of a run whose head is a tower without colours."""
    (tmp_path / "tower.obj").write_text(TOWER)
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))

    def run(*options):
        line = [sys.executable, "-m", "animportrait3d_core", "run", "graph.json", "--pack", str(ROOT), "--device"]
        line += ["cpu", "--set", "mesh.file=tower.obj", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


GREY = "AP3D_PortraitFromMesh: the mesh has neither a texture nor colours and is shown grey"


def test_the_terminal_shows_what_nodes_say_and_warn_of(command, tmp_path):
    done = command()
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert f"warning: {GREY}" in lines
    assert [line for line in lines if "the mesh reaches up to y = 1.20" in line and "of 12 standard views" in line]
    assert [line for line in lines if line.startswith("    tower.obj: OBJ, 1 geometries, 8 vertices, 8 faces")]
    assert sum("shown grey" in line for line in lines) == 1
    assert sum("has one colour" in line and "soft light" in line for line in lines) == 1  # asked for: unlit
    assert "4 warnings" in done.stdout
    node = json.loads((tmp_path / "output" / "report.json").read_text())["nodes"][1]
    assert node["type"] == "AP3D_PortraitFromMesh" and node["warnings"][0] == GREY and len(node["warnings"]) == 4
    assert len(node["messages"]) == 1 and node["messages"][0].startswith("tower.obj: OBJ")


def test_machines_read_the_same_in_the_report_alone(command):
    done = command("--json")
    assert done.returncode == 0 and done.stderr == ""
    assert GREY in json.loads(done.stdout)["nodes"][1]["warnings"]


def test_a_part_of_the_mesh_that_vanishes_is_told(run_node, mannequin_body, caplog):
    """A plate above the head: as hair it is sampled; as skin, for which the body stands, nothing of it is left."""
    parameters = mannequin_body.neutral_parameters().replace(
        scale=torch.tensor([[2.78]]), translation=torch.tensor([[0.0, -0.32, 0.0]])
    )
    body = PosedBody.of(mannequin_body, parameters)
    plate = torch.tensor([[-0.3, 0.95, -0.3], [0.3, 0.95, -0.3], [0.3, 0.95, 0.3], [-0.3, 0.95, 0.3]])
    start = len(body.vertices)
    faces = torch.cat([body.faces, torch.tensor([[0, 1, 2], [0, 2, 3]]) + start])
    mesh = Mesh(torch.cat([body.vertices, plate]), faces)
    fit = SimpleNamespace(body=mannequin_body, parameters=parameters)
    for part, told in ((AvatarPart.HAIR, 0), (AvatarPart.SKIN, 1)):
        parts = torch.full((len(faces),), AvatarPart.SKIN, dtype=torch.uint8)
        parts[-2:] = part
        caplog.clear()
        shown = run_node("AP3D_RigPoints", parts=MeshParts(mesh, parts), fit=fit, count=4000)
        assert len(caplog.messages) == told == len(shown.ui["text"])
    assert "(y 0.95 to 0.95; eyes are at 0.42) vanishes" in caplog.text and "100 % was voted skin" in caplog.text


def test_an_avatar_that_is_bad_by_its_own_numbers_is_told(run_node, avatar, caplog):
    from animportrait3d_core.animation.clips import rest_motion
    from animportrait3d_core.portrait.mesh import MeshPortrait

    corners = torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.8, 0.0]])
    portrait = MeshPortrait(Mesh(corners, torch.tensor([[0, 1, 2]]), vertex_colors=torch.zeros(3, 3)))
    motion = rest_motion(avatar.parameters, 1)
    run_node("AP3D_EvaluateAvatar", avatar=avatar, portrait=portrait, motion=motion, size=64)
    assert "AP3D_EvaluateAvatar: psnr_portrait is " in caplog.text and "expected at least 20" in caplog.text
