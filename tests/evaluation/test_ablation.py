"""The ablation table: its rows, its controls, its cells that are made once, and what it says of bad input."""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest
import torch

from animportrait3d_core.cli import main
from animportrait3d_core.conditioning import Prompts
from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.embedded.identities import true_parameters
from animportrait3d_core.embedded.portraits import portrait_identity, shipped_portrait_file
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.evaluation import ablation as module
from animportrait3d_core.evaluation.ablation import (
    ROWS,
    Ablation,
    AblationSettings,
    Person,
    ablation_sheet,
    run_ablation,
)
from animportrait3d_core.evaluation.ablation_controls import (
    OtherPoses,
    TrueEdits,
    forget_everything,
    in_the_same_state,
    towards_truth,
)
from animportrait3d_core.evaluation.ablation_report import ablation_report, fills, medians, people_table, shares
from animportrait3d_core.evaluation.heldout import held_out_frames
from animportrait3d_core.initialization import Networks
from animportrait3d_core.optimization.dynamic import Variant, optimize_regions
from animportrait3d_core.optimization.presets import dynamic_stage
from animportrait3d_core.optimization.region_scenes import DrawnStates, RegionScenes
from tests.embedded.prior_samples import save_untrained_prior
from tests.networks.tiny_networks import CONFIGS, write
from tests.optimization.wishes import USES, Wishes


@pytest.fixture(scope="module")
def start(make_avatar):
    return make_avatar(2000, seed=5)


@pytest.fixture(scope="module")
def person():
    return Person("amara", portrait_identity("amara"), shipped_portrait_file("amara"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return save_untrained_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture
def table(tmp_path, prior, mannequin_body, start, monkeypatch):
    """make(rows) -> Ablation whose first stage is done already, with a short second one, measured in three frames."""
    few = functools.partial(module.evaluate_against_identity, frames=held_out_frames()[:3], size=64)
    monkeypatch.setattr(module, "evaluate_against_identity", few)
    monkeypatch.setattr(Ablation, "_start", lambda self, person, kind, runs: start)

    def make(rows, length=0.01, networks=None):
        settings = AblationSettings(tuple(rows), "draft", length)
        return Ablation(tmp_path / "cells", prior, mannequin_body, networks, settings)

    return make


def test_rows_begin_with_rows_before_them_and_cover_the_papers() -> None:
    seen = {"initial", "no appearance", "no geometry"}
    for row in ROWS:
        assert row.after in seen, row.name
        seen.add(row.name)
    whole, stages = "whole method", []
    while whole != "initial":
        row = next(row for row in ROWS if row.name == whole)
        stages, whole = [*row.stages, *stages], row.after
    assert stages == ["eyes", "mouth", "full", "refine"]


def test_cells_are_made_once_and_the_table_counts_differences(table, person) -> None:
    rows = ["initial avatar", "pre-trained", "no ControlNet", "untrained networks"]
    told = []
    cells = run_ablation(table(rows), [person], rows, lambda *cell: told.append(cell))
    assert list(cells) == rows and told == [(row, "amara") for row in rows]
    first = {row: cells[row]["amara"]["seconds"] for row in rows}
    again = run_ablation(table(rows), [person], rows, lambda *cell: None)
    assert {row: again[row]["amara"]["seconds"] for row in rows} == first  # read, not made
    longer = run_ablation(table(rows, 0.02), [person], ["pre-trained"], lambda *cell: None)
    assert longer["pre-trained"]["amara"]["seconds"] != first["pre-trained"]  # other settings, another cell
    lines = people_table(cells).splitlines()
    assert len(lines) == 2 + len(rows) and lines[2].startswith("| initial avatar | amara | ")
    psnr = [cells[row]["amara"]["psnr_image"] for row in rows]
    assert f"| {psnr[1] - psnr[0]:+.3g} |" in lines[3]
    sheet = ablation_sheet({row: table(rows).avatar(person, row) for row in rows[:2]}, person, size=32)
    assert sheet.shape[0] == 3 * (32 + 22) and 0 <= float(sheet.min()) and float(sheet.max()) <= 1


def test_the_ceiling_follows_the_truth(start, person) -> None:
    (one,) = dynamic_stage("full", "draft", 2.0)
    passes = (towards_truth(one.longer(20 / one.stage.iterations)),)
    truth = Variant(edit_maker=functools.partial(TrueEdits, identity=person.identity))
    after = optimize_regions(start, Wishes(), Prompts.of(person.identity.prompt), passes, variant=truth)
    frames = held_out_frames()[:4]
    before, found = (
        module.evaluate_against_identity(avatar, person.identity, frames=frames, size=64)["psnr_image"]
        for avatar in (start, after)
    )
    assert found > before + 1


def test_states_are_carried_over_relative_to_the_rest(start, person) -> None:
    rest, true_rest = start.parameters, true_parameters(person.identity)
    drawn = DrawnStates(rest, "face").draw(1, np.random.default_rng(3))
    found = in_the_same_state(drawn, rest, true_rest)
    for name in ("expression", "jaw_pose", "left_eye_pose", "eyelids"):
        assert torch.equal(getattr(found, name), getattr(drawn, name))
    torch.testing.assert_close(found.head_pose - true_rest.head_pose, drawn.head_pose - rest.head_pose)
    assert torch.equal(found.betas, true_rest.betas)


def test_conditions_of_another_pose_are_of_the_same_regions(start) -> None:
    plain = RegionScenes(start, DrawnStates(start.parameters, "face"), USES, 32, poses=2)
    for step in range(4):
        scene, other = plain.at(step, 1), OtherPoses(plain).at(step, 1)
        assert torch.equal(scene.rows, other.rows) and torch.equal(scene.cameras.K, other.cameras.K)
        assert torch.equal(scene.parameters.jaw_pose, other.parameters.jaw_pose)
        changed = (scene.conditions != other.conditions).flatten(1).any(1)
        assert bool(changed[scene.rows > 0].all())
        assert torch.equal(other.conditions, OtherPoses(plain).at(step, 1).conditions)


def test_networks_that_forgot_everything_are_others_and_the_codec_stays(prior) -> None:
    guidance = load_guidance(GuidanceFiles(prior, controlnet=prior / "controlnet"))
    before, pictures = guidance.fingerprint, torch.rand(1, 32, 32, 3)
    empty = forget_everything(guidance)
    assert empty.fingerprint != before and guidance.fingerprint == before
    assert torch.equal(empty.encode(pictures), guidance.encode(pictures))
    assert forget_everything(guidance).fingerprint == empty.fingerprint


def test_what_nobody_knows_is_refused(tmp_path, capsys) -> None:
    with pytest.raises(InvalidInput, match=r"rows \['best'\], expected some of initial avatar"):
        AblationSettings(("best",))
    assert main(["evaluate"]) == 2 and "give an avatar.safetensors, or --ablation FOLDER" in capsys.readouterr().err
    assert main(["evaluate", "--ablation", str(tmp_path), "--rows", "best"]) == 2
    assert "whole method" in capsys.readouterr().err
    assert main(["evaluate", "--ablation", str(tmp_path), "--length", "0"]) == 2
    assert "expected more than 0" in capsys.readouterr().err


def test_a_cell_is_an_avatar_and_its_numbers(table, person, tmp_path) -> None:
    run_ablation(table(["initial avatar"]), [person], ["initial avatar"], lambda *cell: None)
    folder = tmp_path / "cells" / "amara" / "initial_avatar"
    assert {file.name for file in folder.iterdir()} == {"avatar.safetensors", "metrics.json"}
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["metrics"]["psnr_image"] > 0 and stored["key"]


def test_an_avatar_that_is_gone_is_made_again_and_its_metrics_are_kept(table, person, tmp_path) -> None:
    first = table(["initial avatar"])
    metrics = first.cell(person, "initial avatar")
    assert first.has_avatar(person, "initial avatar")
    (tmp_path / "cells" / "amara" / "initial_avatar" / "avatar.safetensors").unlink()
    second = table(["initial avatar"])
    assert second.cell(person, "initial avatar") == metrics and not second.has_avatar(person, "initial avatar")
    assert len(second.avatar(person, "initial avatar").gaussians) > 0
    assert second.has_avatar(person, "initial avatar")


def test_another_prior_makes_other_cells_and_the_same_starts(table, person, prior, tmp_path, mannequin_body) -> None:
    rows = ["initial avatar", "refinement only"]
    known = run_ablation(table(rows), [person], rows, lambda *cell: None)
    other = tmp_path / "other"
    shutil.copytree(prior, other)
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    contents = bytearray(weights.read_bytes())
    contents[-1] ^= 1  # as many bytes as before
    weights.write_bytes(bytes(contents))
    again = Ablation(tmp_path / "cells", other, mannequin_body, None, AblationSettings(tuple(rows), "draft", 0.01))
    found = run_ablation(again, [person], rows, lambda *cell: None)
    assert found[rows[0]] == known[rows[0]] and found[rows[1]] != known[rows[1]]


def test_other_networks_make_other_cells(table, person, tmp_path, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(module, "save_avatar", lambda *_: made.append(1))
    folders = {role: tmp_path / role for role in CONFIGS}
    for role, folder in folders.items():
        write(folder, role)

    def cells_made(networks):
        made.clear()
        table(["initial avatar"], networks=networks).cell(person, "initial avatar")
        return len(made)

    assert [cells_made(Networks.load(**folders)) for _ in range(2)] == [1, 0]
    other = Networks.load(**folders)
    next(other.landmarks.model.parameters()).data[0] += 1e-3
    assert cells_made(other) == 1


def _metrics(level: float) -> dict[str, float]:
    names = ("image", "face", "eyes", "eyes_closed", "mouth", "flat_eyes_closed", "flat_mouth")
    return {f"psnr_{name}": level for name in names} | {"label_iou": level / 100}


def test_tables_pair_people_and_share_the_ceiling() -> None:
    cells = {
        "initial avatar": {"a": _metrics(20), "b": _metrics(30)},
        "whole method": {"a": _metrics(21), "b": _metrics(33)},
        "ceiling: true renders": {"a": _metrics(24), "b": _metrics(36)},
    }
    initial, whole, ceiling = medians(cells).splitlines()[2:]
    assert initial.startswith("| initial avatar | 25 |") and initial.endswith(
        "|  | 0.25 |  | 2 |"
    )  # no landmarks there
    assert whole.startswith("| **whole method** | +2 |") and ceiling.startswith("| ceiling: true renders | +5 |")
    assert "| whole method | b | +3 |" in people_table(cells)
    assert shares(cells).splitlines()[2:] == ["| whole method | 0.38 | 0.38 | 0.38 |"]  # median of 1/4 and 3/6
    assert fills(cells).splitlines()[2] == "| a | 21.0 | 20.0 | 21.0 | 21.0 | 20.0 | 21.0 |"
    assert ablation_report(cells).count("| row |") == 3
    alone = {"whole method": {"a": _metrics(21)}}
    assert shares(alone) == fills(alone) == "" and "| **whole method** |  |" in medians(alone)
