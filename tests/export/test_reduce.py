"""Level of detail: what is left out, what the re-fit wins back in poses it did not see, through node and command."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from animportrait3d_core.avatar.io import load_avatar, save_avatar
from animportrait3d_core.cli import main
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.export.budget import within_budget
from animportrait3d_core.export.reduce import ReduceSettings, fitted_views, held_views, reduce_avatar
from animportrait3d_core.optimization import Stage
from animportrait3d_core.similarity import psnr

SIZE = 64


@pytest.fixture(scope="module")
def half_hidden(make_avatar):
    """600 Gaussians, of which every other one is too faint to be drawn."""
    avatar = make_avatar(600)
    faint = avatar.gaussians.logit_opacities.clone()
    faint[::2] = -9.0
    return dataclasses.replace(avatar, gaussians=dataclasses.replace(avatar.gaussians, logit_opacities=faint))


def test_what_nobody_sees_is_no_loss(half_hidden) -> None:
    done = reduce_avatar(half_hidden, ReduceSettings(300, steps=5, size=SIZE))
    assert torch.equal(done.avatar.gaussians.means, half_hidden.gaussians.means[1::2])
    assert (done.psnr_pruned, done.psnr, done.refitted) == (math.inf, math.inf, False)
    assert done.words() == "300 of 600 Gaussians: no difference to the whole avatar in poses held out."


def test_an_avatar_within_the_budget_is_handed_on(half_hidden) -> None:
    done = reduce_avatar(half_hidden, ReduceSettings(600, steps=5, size=SIZE))
    assert done.avatar is half_hidden and "nothing was left out" in done.words()


@pytest.mark.parametrize("degree", [0, 3])
def test_the_refit_wins_back_poses_that_it_did_not_see(make_avatar, degree: int) -> None:
    avatar, settings = make_avatar(600, sh_degree=degree), ReduceSettings(200, steps=40, size=SIZE)
    first, second = (reduce_avatar(avatar, settings, seed=3) for _ in range(2))
    assert first.refitted and first.psnr > first.psnr_pruned + 0.2
    held = held_views(avatar, SIZE)
    pruned = within_budget(avatar, 200)
    for one, wanted in ((pruned, first.psnr_pruned), (first.avatar, first.psnr)):
        # What is reported is what anybody measures who renders the two avatars.
        assert psnr(held_views(one, SIZE).images, held.images) == pytest.approx(wanted, abs=1e-9)
    assert len(first.avatar) == 200 and torch.equal(first.avatar.binding, pruned.binding)
    for field in dataclasses.fields(first.avatar.gaussians):
        values = [getattr(one.avatar.gaussians, field.name) for one in (first, second)]
        assert values[0].numpy().tobytes() == values[1].numpy().tobytes()


def test_held_poses_and_cameras_are_in_no_fitted_view(avatar) -> None:
    fitted, held = fitted_views(avatar, 32, seed=0), held_views(avatar, 32)
    rows = [torch.cat(list(views.body.values()), dim=1) for views in (fitted, held)]
    assert float(torch.cdist(*rows).min()) > 0.05
    centers = [views.cameras.camera_centers for views in (fitted, held)]
    assert float(torch.cdist(*centers).min()) > 0.01
    other = fitted_views(avatar, 32, seed=1)
    assert not torch.equal(other.images, fitted.images)


def test_a_refit_that_harms_is_dropped(make_avatar) -> None:
    """Steps as long as a head lose everything; the pruned avatar is better."""
    avatar = make_avatar(600)
    rates = dataclasses.replace(ReduceSettings(1).lrs, means=50.0, log_scales=3.0)
    done = reduce_avatar(avatar, ReduceSettings(300, steps=2, size=SIZE, lrs=rates))
    assert not done.refitted and done.psnr == done.psnr_pruned and "made that worse" in done.words()
    assert torch.equal(done.avatar.gaussians.means, within_budget(avatar, 300).gaussians.means)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget": 0}, "a budget of 0 Gaussians, expected at least 1"),
        ({"budget": 5, "steps": -1}, "-1 steps at 256 pixels"),
        ({"budget": 5, "steps": 10**9}, "expected 0 to 100000 steps"),
        ({"budget": 5, "size": 4}, "at 4 pixels"),
    ],
)
def test_bad_settings_are_refused(values, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ReduceSettings(**values)


def test_a_stage_begins_at_a_degree_there_is() -> None:
    with pytest.raises(InvalidInput, match="`first_sh_degree` is -1"):
        Stage("x", 1, first_sh_degree=-1)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", ["held views", "views", "fit"])
def test_every_part_of_the_work_is_seen_and_can_be_stopped(make_avatar, name: str) -> None:
    seen = []

    def stages(stage: str):
        def progress(step: int, total: int, preview) -> None:
            seen.append(stage)
            if stage == name and step == 2:
                raise Stopped

        return progress

    with pytest.raises(Stopped):
        reduce_avatar(make_avatar(60), ReduceSettings(30, steps=4, size=32), stages=stages)
    assert seen.count(name) == 2


def test_the_node_gives_avatar_picture_and_words(half_hidden, run_node) -> None:
    done = run_node("AP3D_ReduceAvatar", avatar=half_hidden, budget=150, steps=10)
    assert len(done.avatar) == 150 and done.image.ndim == 4 and done.ui["text"] == [done.text]
    assert done.text.startswith("150 of 600 Gaussians: ") and "steps of re-fit" in done.text


def test_the_command_reduces_any_format(half_hidden, tmp_path, capsys) -> None:
    file = tmp_path / "anna.safetensors"
    save_avatar(half_hidden, file)
    command = ["export", str(file), "--format", "splat", "--json"]
    assert main([*command, "--budget", "150", "--refit", "10"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["notes"][0].startswith("150 of 600 Gaussians: ") and "10 steps of re-fit" in answer["notes"][0]
    assert b"element vertex 150\n" in (tmp_path / "anna.ply").read_bytes()[:300]
    assert len(load_avatar(file)) == 600
    wrongs = {
        "add --budget": ["--refit", "10"],
        "a budget of 0": ["--budget", "0"],
        "-1 steps": ["--budget", "5", "--refit", "-1"],
    }
    for words, wrong in wrongs.items():
        assert main([*command, "--overwrite", *wrong]) == 2
        assert words in capsys.readouterr().out
