"""A made-up body of the true sizes of SMPL-X 1.1 goes the whole way: convert, load, pose."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.body.landmarks import outer_eye_distance
from animportrait3d_core.body.model import load_body_model
from animportrait3d_core.body.personal_fit import PersonalTarget, find_offsets
from animportrait3d_core.cli import main
from animportrait3d_core.portrait.head_target import standard_placement
from tests.head_samples import face_rms, seen_eyes, skin_of

ROOT = Path(__file__).parents[2]
FINGERPRINT = (
    "from animportrait3d_core.body.model import load_body_model; print(load_body_model(sys.argv[2]).fingerprint)"
)
RIGID = 1480  # vertices of teeth, gums and tongue


@pytest.fixture(scope="module")
def converted(smplx_file, tmp_path_factory):
    """The report of `convert body-assets` and the body loaded with what it wrote."""
    output = tmp_path_factory.mktemp("assets") / "assets.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", said.append)
        assert main(["convert", "body-assets", str(smplx_file), "--output", str(output), "--json"]) == 0
    return json.loads(said[-1]), load_body_model(smplx_file, output)


def test_the_file_has_the_sizes_of_smplx(smplx_sized):
    assert smplx_sized["v_template"].shape == (10475, 3) and smplx_sized["f"].shape == (20908, 3)
    assert smplx_sized["shapedirs"].shape == (10475, 3, 400)


def test_it_is_converted_and_loaded(converted, smplx_sized):
    report, body = converted
    assert (body.num_betas, body.num_expression) == (300, 100) and not body.redistributable
    assert report["teeth"] == "made" and report["vertices"] == body.num_vertices
    legs = np.flatnonzero(smplx_sized["v_template"][:, 1] < -0.2)
    assert not np.isin(legs, body.assets.vertex_ids.numpy()).any()
    assert int(body.assets.vertex_ids.max()) == 10475 + len(body.assets.mouth.vertices) - 1
    assert len(body.assets.mouth.vertices) == RIGID + 7 * 76, "and a lining of the open mouth"
    for name, count in report["regions"].items():
        assert count > 50, name


def test_an_avatar_knows_it_again_with_any_number_of_threads(smplx_file):
    found = set()
    for threads in (1, 2):
        script = "import sys, torch; torch.set_num_threads(int(sys.argv[1])); " + FINGERPRINT
        run = subprocess.run(
            [sys.executable, "-c", script, str(threads), str(smplx_file)], cwd=ROOT, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


def test_it_poses_as_the_smplx_package_does(converted, smplx_sized):
    """Skin and teeth: the package's own layer of the file knows the skin; teeth turn with head and jaw."""
    from animportrait3d_core.body.model import make_smplx_layer

    _, body = converted
    generator = torch.Generator().manual_seed(1)
    pose = {name: 0.2 * torch.randn(2, 3, generator=generator) for name in ("jaw_pose", "head_pose", "neck_pose")}
    betas, expression = torch.randn(2, 300, generator=generator), torch.randn(2, 100, generator=generator)
    posed = body(dataclasses.replace(body.neutral_parameters(2), betas=betas, expression=expression, **pose))
    whole = torch.zeros(2, 63)
    whole[:, 33:36], whole[:, 42:45] = pose["neck_pose"], pose["head_pose"]
    whole[:, 47], whole[:, 50] = -np.pi / 3, np.pi / 3
    hands = {f"{side}_hand_pose": torch.zeros(2, 45) for side in ("left", "right")}
    eyes = {f"{part}_pose": torch.zeros(2, 3) for part in ("leye", "reye")}
    layer = make_smplx_layer(smplx_sized)
    joined = {"betas": betas, "expression": expression, "body_pose": whole, "jaw_pose": pose["jaw_pose"]}
    joined |= {"global_orient": torch.zeros(2, 3), "transl": torch.zeros(2, 3)}
    wanted = layer(**joined, **hands, **eyes).vertices
    kept = body.assets.vertex_ids[body.assets.vertex_ids < 10475]
    torch.testing.assert_close(posed.vertices[:, : len(kept)], wanted[:, kept], atol=2e-5, rtol=0)
    lips = torch.from_numpy(smplx_sized["shapedirs"][body.assets.mouth.lips.numpy(), :, :300].mean(axis=0))
    rest = body.assets.mouth.vertices[:RIGID] + (betas @ lips.T.float())[:, None]
    rest = torch.cat([rest, torch.ones(2, RIGID, 1)], dim=2)
    for rows, joint in ((slice(0, 659), 15), (slice(659, RIGID), 22)):
        moved = rest[:, rows] @ posed.joint_transforms[:, joint].transpose(1, 2)
        found = posed.vertices[:, len(kept) :][:, rows]
        torch.testing.assert_close(found, moved[..., :3], atol=2e-5, rtol=0)


def test_it_becomes_a_person(converted):
    """Personal offsets of a body that may not be passed on: its face meets a surface, its lids still close."""
    _, body = converted
    parameters = standard_placement(body)
    output = body(parameters)
    here, unit = output.vertices[0], float(outer_eye_distance(output.landmarks[0]))
    waves = [torch.sin(9 * here[:, 1]), torch.cos(8 * here[:, 0]), torch.sin(7 * here[:, 1])]
    there = here + 0.06 * unit * torch.stack(waves, dim=1)
    mesh = skin_of(body, there)
    own = body.personalized(find_offsets(body, parameters, PersonalTarget(mesh)))
    assert face_rms(own, parameters, mesh) < 0.012 < 0.03 < face_rms(body, parameters, mesh)
    assert own.fingerprint != body.fingerprint and own.personal.body == body.fingerprint
    assert seen_eyes(own, parameters, 1.0) < 0.01 * seen_eyes(own, parameters, 0.0)
    assert seen_eyes(own, parameters, 0.0) > 1000
