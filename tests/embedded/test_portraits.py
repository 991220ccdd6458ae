"""Portraits of identities: those that are shipped, those made of prompts, and what is measured on them."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from animportrait3d_core import cli
from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.embedded import portraits
from animportrait3d_core.embedded.identities import (
    IdentityImage,
    IdentityRenderSettings,
    identity_from_prompt,
    prepare_identity,
    render_identity,
)
from animportrait3d_core.embedded.portraits import (
    SHIPPED_PORTRAITS,
    PortraitSettings,
    fit_portrait,
    portrait_from_prompt,
    portrait_identity,
    shipped_portrait_file,
    shipped_portrait_report,
    surface_noise,
)
from animportrait3d_core.embedded.portraits.fitting import run_folder
from animportrait3d_core.embedded.portraits.quality import heldout_cameras, raw_surface
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.files import sha256_of_file
from animportrait3d_core.fingerprints import imported_files
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.trigrid import SAMPLING_PRESETS, load_trigrid_portrait, render_trigrid
from animportrait3d_core.progress import Progress
from animportrait3d_core.runs import STATE_FILE

DATASET_SEEDS = range(900_000)
TINY = PortraitSettings(48, 128, (8, 16, 32), iterations=220, rays=768)
PROMPT, SEED = "an old man with a monocle", 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def prompted(cache):
    """One tiny portrait, fitted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANIMPORTRAIT3D_CACHE", str(cache))
        return portrait_from_prompt(PROMPT, SEED, TINY)


@pytest.mark.parametrize("name", SHIPPED_PORTRAITS)
def test_shipped_files_are_as_reported(name: str) -> None:
    path, report = shipped_portrait_file(name), shipped_portrait_report(name)
    portrait = load_trigrid_portrait(path)
    assert sorted(portrait.levels) == [8, 16, 32, 64, 128]
    assert all(grid.dtype == torch.float16 for grid in portrait.levels.values())
    assert portrait.prompt == report.prompt == portrait_identity(name).prompt
    assert (path.stat().st_size, sha256_of_file(path)) == (report.bytes, report.sha256)
    assert report.bytes < 6_000_000
    assert report.psnr >= 26


@pytest.mark.parametrize("name", SHIPPED_PORTRAITS)
@pytest.mark.parametrize("sampling", ["standard", "paper"])
def test_the_fast_renderer_shows_shipped_portraits_as_the_dense_one(name: str, sampling: str) -> None:
    portrait = load_trigrid_portrait(shipped_portrait_file(name))
    fast = dataclasses.replace(portrait, rendering=SAMPLING_PRESETS[sampling])
    dense = dataclasses.replace(portrait, rendering=dataclasses.replace(fast.rendering, backend="dense"))
    cameras = orbit_cameras([20.0, -130.0], [10.0, -5.0], 32)
    ours, reference = render_trigrid(fast, cameras), render_trigrid(dense, cameras)
    assert (ours.rgb - reference.rgb).abs().max() < 1 / 255
    assert (ours.coverage - reference.coverage).abs().max() < 1 / 255


@pytest.mark.parametrize("name", SHIPPED_PORTRAITS)
def test_shipped_portraits_look_like_their_identity(name: str) -> None:
    """Three held-out views of 128 pixels, and the raw surface, against the identity's truth."""
    portrait, report = load_trigrid_portrait(shipped_portrait_file(name)), shipped_portrait_report(name)
    cameras = heldout_cameras(128)[[0, 4, 8]]
    prepared = prepare_identity(portrait_identity(name), 512, sky_directions=12)
    truth = render_identity(prepared, None, cameras, IdentityRenderSettings(texture_size=512, condition=False))
    error = (portrait.render(cameras, torch.ones(3)).images - truth.rgb).square().mean()
    assert -10 * math.log10(float(error)) > 26
    noise = surface_noise(raw_surface(portrait), truth, cameras)
    assert noise.normal_angle < 1.25 * report.noise.normal_angle + 1
    assert noise.distance < 0.012
    assert noise.share > 0.9


def test_shipped_portraits_differ_and_are_in_no_data_set() -> None:
    people = [portrait_identity(name) for name in SHIPPED_PORTRAITS]
    assert {person.seed for person in people}.isdisjoint(DATASET_SEEDS)
    for attribute in ("age", "hair_style", "hair_color", "skin_tone", "garment_color"):
        assert len({getattr(person.attributes, attribute) for person in people}) == len(people), attribute
    assert {person.attributes.sex for person in people} == {"man", "woman"}


def test_a_prompt_is_fitted_once(prompted, cache, monkeypatch) -> None:
    monkeypatch.setenv("ANIMPORTRAIT3D_CACHE", str(cache))
    before = prompted.path.read_bytes()

    def fail(*arguments):
        raise AssertionError("fitted again")

    monkeypatch.setattr(portraits.prompted, "fit_portrait", fail)
    again = portrait_from_prompt(PROMPT, SEED, TINY)
    assert again == prompted
    assert again.path.read_bytes() == before
    assert prompted.unknown == ("monocle",)
    assert prompted.prompt.startswith("an old man, ")
    for other in (("an old woman", SEED, TINY), (PROMPT, 4, TINY), (PROMPT, SEED, dataclasses.replace(TINY, size=49))):
        with pytest.raises(AssertionError, match="fitted again"):
            portrait_from_prompt(*other)


def test_other_code_makes_another_portrait(prompted, cache, monkeypatch) -> None:
    monkeypatch.setenv("ANIMPORTRAIT3D_CACHE", str(cache))
    monkeypatch.setattr(portraits.prompted, "source_fingerprint", lambda *modules: "of another version")

    def fail(*arguments):
        raise AssertionError("fitted again")

    monkeypatch.setattr(portraits.prompted, "fit_portrait", fail)
    with pytest.raises(AssertionError, match="fitted again"):
        portrait_from_prompt(PROMPT, SEED, TINY)


def test_the_key_of_a_portrait_covers_every_module_that_the_fit_loads(monkeypatch) -> None:
    """All that Python has loaded after a fit, if a very short one, against what the key hashes."""
    hashed = []
    monkeypatch.setattr(portraits.prompted, "source_fingerprint", lambda *modules: hashed.extend(modules))
    portraits.prompted._key(PROMPT, SEED, TINY)
    code = """
import sys, numpy, torch
from animportrait3d_core.embedded.identities import identity_from_prompt, prepare_identity, render_identity
from animportrait3d_core.embedded.portraits import PortraitSettings, fitting
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.trigrid import density_grid, fit, surface_colors
identity, _ = identity_from_prompt("an old man", 1)
views = fitting.identity_views(prepare_identity(identity, 64), fitting.fitting_cameras(16)[::6])
settings = PortraitSettings(16, 64, (8,), iterations=2, rays=16).fit()
portrait = fit.fit_trigrid(views, numpy.random.default_rng(1), settings).portrait
density_grid(portrait, 8), surface_colors(portrait, Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])))
portrait.render(views.cameras[0])
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith("animportrait3d_core.")))
"""
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    loaded = {Path(name).relative_to(root).as_posix() for name in ran.stdout.split()}
    covered = {path.relative_to(root).as_posix() for path in imported_files(*hashed)}
    known = {"march", "fast_kernels", "data", "settings", "rays", "fit", "fit_state", "surface", "density"}
    assert {f"animportrait3d_core/portrait/trigrid/{name}.py" for name in known} <= loaded
    assert sorted(loaded - covered) == []


def test_an_interrupted_fit_ends_as_an_uninterrupted_one(prompted, tmp_path) -> None:
    class Stop(Exception):
        pass

    seen = []

    def stop_at_130(stage: str) -> Progress:
        def told(step: int, total: int, preview: torch.Tensor | None) -> None:
            seen.append(stage)
            if stage == "fit" and step == 130:
                raise Stop

        return told

    identity, output = identity_from_prompt(PROMPT, SEED)[0], tmp_path / "man.safetensors"
    with pytest.raises(Stop):
        fit_portrait(identity, output, TINY, stop_at_130)
    assert (run_folder(output) / STATE_FILE).is_file() and not output.exists()
    steps = []
    fit_portrait(identity, output, TINY, lambda stage: lambda step, total, preview: steps.append((stage, step)))
    assert output.read_bytes() == prompted.path.read_bytes()
    assert ("fit", 131) in steps and ("fit", 130) not in steps
    assert [stage for index, stage in enumerate(seen) if stage not in seen[:index]] == ["render views", "fit"]
    assert not run_folder(output).exists()


def plane(tilt_degrees: float, shift: float) -> Mesh:
    """A square of side 8 about the origin that faces +z, turned about y and moved along z."""
    angle = math.radians(tilt_degrees)
    across = torch.tensor([math.cos(angle), 0.0, math.sin(angle)])
    up = torch.tensor([0.0, 1.0, 0.0])
    corners = [4 * (x * across + y * up) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    vertices = torch.stack(corners) + torch.tensor([0.0, 0.0, shift])
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_surface_noise_of_planes_is_as_computed() -> None:
    cameras = orbit_cameras([0.0, 30.0], [0.0, 20.0], 40)
    rotation, center = cameras.world_to_camera[:, :3, :3], cameras.camera_centers
    columns = torch.arange(40) + 0.5
    pixels = torch.stack([columns.expand(40, 40), columns[:, None].expand(40, 40), torch.ones(40, 40)], dim=-1)
    rays = torch.einsum("bij,hwj->bhwi", rotation.transpose(1, 2) @ torch.linalg.inv(cameras.K), pixels)
    depth = -center[:, None, None, 2] / rays[..., 2]  # of camera z 1, until z = 0
    normals = (rotation @ torch.tensor([0.0, 0.0, 1.0])) * torch.tensor([1.0, -1.0, -1.0])
    ones = torch.ones(2, 40, 40)
    truth = IdentityImage(
        rgb=ones[..., None].expand(2, 40, 40, 3),
        alpha=ones,
        normals=normals[:, None, None].expand(2, 40, 40, 3),
        condition=None,
        parts=ones.to(torch.uint8),
        depth=depth,
        landmarks=torch.zeros(2, 70, 2),
        landmarks_3d=torch.zeros(2, 70, 3),
    )
    moved = surface_noise(plane(0, -0.02), truth, cameras)
    assert moved.normal_angle < 0.05 and moved.share == 1
    assert moved.distance == pytest.approx(0.02, rel=1e-3)
    tilted = surface_noise(plane(10, 0), truth, cameras)
    assert tilted.normal_angle == pytest.approx(10, abs=0.01)
    assert tilted.normal_angle_90 == pytest.approx(10, abs=0.01)
    assert 0.1 < tilted.share < 0.9  # where the planes are far apart nothing is compared
    with pytest.raises(InvalidInput, match="no pixel"):
        surface_noise(plane(0, -1.0), truth, cameras)


def test_bad_input_is_named(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="portrait_from_prompt: the prompt is empty"):
        portrait_from_prompt("  ", 0)
    with pytest.raises(InvalidInput, match="nothing was recognised in 'quark'"):
        portrait_from_prompt("quark", 0)
    with pytest.raises(InvalidInput, match="seed is -1"):
        portrait_from_prompt(PROMPT, -1)
    with pytest.raises(InvalidInput, match="'zoe', expected one of amara, viktor, rosa"):
        shipped_portrait_file("zoe")
    with pytest.raises(InvalidInput, match="ends in .safetensors"):
        fit_portrait(portrait_identity("rosa"), tmp_path / "rosa.ply")
    with pytest.raises(InvalidInput, match="size is 8"):
        PortraitSettings(size=8)


def test_the_command_fits_and_reports(prompted, tmp_path, monkeypatch, capsys) -> None:
    calls = []

    def fit(identity, output, settings, stages):
        calls.append((identity.prompt, identity.seed, output, settings))
        stages("fit")(1, 2, None)
        return prompted.report

    monkeypatch.setattr(portraits, "fit_portrait", fit)
    output = tmp_path / "x.safetensors"
    command = ["embedded", "fit-portrait", "--output", str(output)]
    assert cli.main([*command, "--prompt", PROMPT, "--seed", "3", "--preset", "draft", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["unknown"] == ["monocle"]
    assert shown["psnr"] == prompted.report.psnr and shown["file"] == str(output)
    assert calls.pop() == (prompted.prompt, SEED, output, portraits.PORTRAIT_PRESETS["draft"])
    assert cli.main([*command, "viktor"]) == 0
    assert prompted.report.summary() in capsys.readouterr().out
    assert calls.pop()[1] == portrait_identity("viktor").seed
    for wrong in ([], ["viktor", "--prompt", "a man"], ["zoe"], ["viktor", "--preset", "best"], ["--prompt", "quark"]):
        assert cli.main([*command, *wrong]) == 2
    assert not calls
