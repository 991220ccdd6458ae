"""AP3D_LoadPortrait3D, AP3D_TextToPortrait and AP3D_ExtractMesh, headless: files good and bad, prompts, surfaces."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import (
    AnimPortraitError,
    IncompatibleCheckpoint,
    InvalidInput,
    MissingModelFile,
    ShapeMismatch,
)
from animportrait3d_core.files import write_safetensors
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.portrait.alignment import HeadAlignment
from animportrait3d_core.portrait.mesh import MeshPortrait
from animportrait3d_core.portrait.protocol import Portrait
from animportrait3d_core.portrait.trigrid import SAMPLING_PRESETS, Generator, save_generator, save_trigrid_portrait
from animportrait3d_core.workflow.context import Interrupted
from tests.portrait.trigrid_samples import Attack, checkpoint_of, generator_of, without

ROOT = Path(__file__).parents[2]
INSIDE = "(inside the file)"


@pytest.fixture
def portrait(make_ellipsoid):
    return dataclasses.replace(make_ellipsoid((8, 16, 32)), prompt="an old man")


@pytest.fixture
def models(run_context) -> Path:
    """The folder models/portrait3d of the run."""
    folder = run_context.models_directory / "portrait3d"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def nodes(run_node, monkeypatch):
    """Runs a node; its previews are tiny."""
    monkeypatch.setattr(run_node.module("AP3D_LoadPortrait3D"), "PREVIEW_SIZE", 24)
    return run_node


def load(nodes, file: str, generator: str = INSIDE, prompt: str = "", sampling: str = "draft"):
    return nodes("AP3D_LoadPortrait3D", file=file, generator=generator, sampling=sampling, prompt=prompt)


def test_what_stands_behind_the_portrait(nodes, models, portrait) -> None:
    # The authors style their background.png by another row of the code than their renders.
    one_style = dataclasses.replace(portrait, ws=portrait.ws[11:12].expand_as(portrait.ws).clone())
    still = one_style.background_features.mean((1, 2), keepdim=True).expand_as(one_style.background_features).clone()
    one_style = dataclasses.replace(one_style, background_features=still)
    save_trigrid_portrait(one_style, models / "one.safetensors")
    made = load(nodes, "one.safetensors")
    assert made.background.shape == (1, 512, 512, 3) and 0 <= float(made.background.min())
    # A camera that looks past the head sees nothing else.
    away = orbit_cameras([0.0], [0.0], 16, target=[0.0, 40.0, 0.0])
    seen = made.portrait.render(away).images[0, 8, 8]
    torch.testing.assert_close(made.background[0, 256, 256], seen, atol=0.02, rtol=0)


def test_files_of_the_folder_are_offered(nodes, models, portrait) -> None:
    for name in ("one.pth", "sub/two.safetensors", "three.pt", "model_512.pkl", "one.txt", "picture.png"):
        (models / name).parent.mkdir(exist_ok=True)
        (models / name).write_bytes(b"x")
    inputs = nodes.classes["AP3D_LoadPortrait3D"].INPUT_TYPES()["required"]
    files, generators = inputs["file"][0], inputs["generator"][0]
    assert [name for name in files if not name.startswith("embedded: ")] == [
        "one.pth",
        "sub/two.safetensors",
        "three.pt",
    ]
    assert len(files) >= 6 and files[0].startswith("embedded: ")
    assert generators == [INSIDE, "model_512.pkl", "sub/two.safetensors"]


def test_a_safetensors_portrait_brings_its_words_and_decoder(nodes, models, portrait) -> None:
    save_trigrid_portrait(portrait, models / "ours.safetensors")
    done = load(nodes, "ours.safetensors", sampling="standard")
    assert isinstance(done.portrait, Portrait) and done.portrait.kind == "trigrid"
    assert done.portrait.rendering == SAMPLING_PRESETS["standard"]
    assert done.prompt == done.portrait.prompt == "an old man"
    assert load(nodes, "ours.safetensors", prompt="a queen").prompt == "a queen"
    # Four different sides of a patterned body over white.
    assert done.image.shape == (4, 24, 24, 3)
    assert float((done.image[0] - done.image[3]).abs().mean()) > 0.005
    assert torch.equal(done.image[:, 0, 0], torch.ones(4, 3))
    assert len(done.ui["images"]) == 4 and "8, 16, 32" in done.ui["text"][0]


def test_an_official_file_with_its_generator_and_text(nodes, models, portrait) -> None:
    torch.save({"model": checkpoint_of(portrait)}, models / "000.pth")
    (models / "000.txt").write_text("a pirate")
    save_generator(generator_of(portrait), models / "generator.safetensors")
    done = load(nodes, "000.pth", "generator.safetensors")
    assert done.prompt == "a pirate"
    save_trigrid_portrait(portrait, models / "ours.safetensors", torch.float32)
    ours = load(nodes, "ours.safetensors", "generator.safetensors")
    torch.testing.assert_close(done.image, ours.image, rtol=0, atol=1e-5)
    assert "not read" in ours.ui["text"][0]  # the generator chosen for a file that has its own decoder


def test_it_runs_again_when_a_file_changes(nodes, models, portrait) -> None:
    changed = nodes.classes["AP3D_LoadPortrait3D"].IS_CHANGED
    chosen = {"file": "a.pth", "generator": "g.pkl", "sampling": "draft", "prompt": ""}
    stamps = [changed(**chosen)]
    for name in ("a.pth", "g.pkl", "a.txt"):
        (models / name).write_bytes(b"x")
        stamps.append(changed(**chosen))
    assert changed(**chosen) == stamps[-1]
    os.utime(models / "a.pth", (1, 1))
    assert len({*stamps, changed(**chosen)}) == 5


def bad_files(portrait):
    """Name -> (content of the .pth, type of the error, words and numbers of it)."""
    good = checkpoint_of(portrait)
    nan = good["trigrids_16"].clone()
    nan[0, 1, 2, 3, 4] = float("nan")
    grids = {name: value for name, value in good.items() if name.startswith("trigrids")}
    return {
        "missing level": (without(good, "trigrids_16"), InvalidInput, r"\[8, 32\], expected \[8, 16, 32\]"),
        "missing finest level": (without(good, "trigrids_32"), InvalidInput, "trigrids_32 missing"),
        "extra level": ({**good, "trigrids_64": torch.zeros(1, 3, 36, 64, 64)}, InvalidInput, "trigrids_64 too many"),
        "unknown level": ({**good, "trigrids_24": torch.zeros(1, 3, 36, 24, 24)}, InvalidInput, "'trigrids_24'"),
        "other channels": (
            {name: torch.cat([value, value[:, :, :12]], 2) if name in grids else value for name, value in good.items()},
            IncompatibleCheckpoint,
            "takes 12 channels, the trigrids have 16",
        ),
        "one level of other channels": (
            {**good, "trigrids_16": torch.zeros(1, 3, 48, 16, 16)},
            ShapeMismatch,
            "`trigrids_16` has 16 channels",
        ),
        "odd channels": (
            {**good, "trigrids_16": torch.zeros(1, 3, 37, 16, 16)},
            ShapeMismatch,
            r"\[1, 3, 37, 16, 16\]",
        ),
        "not a number": ({**good, "trigrids_16": nan}, InvalidInput, "`trigrids_16` holds 1 non-finite value of 27648"),
        "no code": (without(good, "ws"), InvalidInput, "no `ws`"),
        "short code": ({**good, "ws": torch.zeros(1, 12, 512)}, ShapeMismatch, r"`ws` has shape \[1, 12, 512\]"),
        "another model's state": (
            {"conv.weight": torch.ones(3, 3)}, IncompatibleCheckpoint,
            r"is no portrait: it holds no trigrids among its 1 tensors \(conv.weight\)",
        ),
    }  # fmt: skip


BAD = [
    "missing level", "missing finest level", "extra level", "unknown level", "other channels",
    "one level of other channels", "odd channels", "not a number", "no code", "short code", "another model's state",
]  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(nodes, models, run_context, portrait, case: str) -> None:
    model, error, words = bad_files(portrait)[case]
    torch.save({"model": model}, models / "bad.pth")
    save_generator(dataclasses.replace(generator_of(portrait), finest=32), models / "generator.safetensors")
    with pytest.raises(error, match=words) as caught:
        load(nodes, "bad.pth", "generator.safetensors")
    assert str(caught.value).startswith("load_trigrid_portrait: ") and "bad.pth" in str(caught.value)
    assert not run_context.temp_directory.exists()  # nothing was rendered


def test_every_bad_case_is_run(portrait) -> None:
    assert list(bad_files(portrait)) == BAD


@pytest.mark.parametrize(("tensor", "kind"), [
    ("model.diffusion_model.out.0.weight", "a Stable Diffusion checkpoint .models/checkpoints, node Load Guidance."),
    ("lora_unet_mid_block.alpha", "a LoRA"),
    ("binding", "an avatar .node Load Avatar."),
    ("decoder.net.0.weight", "a generator without a portrait"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_foreign_file_is_called_what_it_is(nodes, models, tensor: str, kind: str, suffix: str) -> None:
    contents = {tensor: torch.ones(3), "other": torch.zeros(1)}
    if suffix == ".pth":
        torch.save(contents, models / "foreign.pth")
    else:
        write_safetensors(models / "foreign.safetensors", contents, {})
    with pytest.raises(IncompatibleCheckpoint, match=f"is {kind}.*, not a portrait: it holds no trigrids") as caught:
        load(nodes, f"foreign{suffix}")
    # Nobody is sent for a generator that would not help.
    assert "model_512" not in str(caught.value) and "licence" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_pth_is_not_run(nodes, models, portrait, tmp_path, zipped: bool) -> None:
    canary = tmp_path / "canary"
    model = {**checkpoint_of(portrait), "extra": Attack(canary)}
    torch.save({"model": model}, models / "evil.pth", _use_new_zipfile_serialization=zipped)
    save_generator(generator_of(portrait), models / "generator.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=r"evil\.pth.*(posix|nt)\.system.*Nothing of it was run"):
        load(nodes, "evil.pth", "generator.safetensors")
    assert not canary.exists()
    os.system(Attack(canary).__reduce__()[1][0])
    assert canary.exists()  # had it run, it would have been seen


def test_generators_that_do_not_fit(nodes, models, portrait) -> None:
    torch.save({"model": checkpoint_of(portrait)}, models / "000.pth")
    tensors = generator_of(portrait).tensors
    wide = {**tensors, "decoder.net.0.weight": torch.zeros(32, 16)}
    deep = {**tensors, "decoder.net.0.weight": torch.zeros(64, 12), "decoder.net.0.bias": torch.zeros(64)}
    headless = without(tensors, "decoder.net.2.weight")
    cases = [
        (wide, "takes 16 channels, the trigrids have 12"),
        (deep, r"`hidden_weight` has shape \[64, 12\], expected \[32, C\]"),
        (headless, "'decoder.net.2.weight' is missing among 7 tensors.*model_512.pkl"),
    ]
    for changed, words in cases:
        save_generator(Generator(changed), models / "generator.safetensors")
        with pytest.raises(IncompatibleCheckpoint, match=words):
            load(nodes, "000.pth", "generator.safetensors")
    save_trigrid_portrait(portrait, models / "ours.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match="read_generator.*is a animportrait3d-trigrid file.*licence"):
        load(nodes, "000.pth", "ours.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match="no decoder in it.*model_512.pkl.*embedded portraits work"):
        load(nodes, "000.pth")
    (models / "broken.pkl").write_bytes(b"\x80\x04 no pickle")
    with pytest.raises(AnimPortraitError, match=r"broken\.pkl"):
        load(nodes, "000.pth", "broken.pkl")


def test_files_that_are_no_portraits(nodes, models, portrait) -> None:
    torch.save({"model": checkpoint_of(portrait)}, models / "whole.pth")
    data = (models / "whole.pth").read_bytes()
    (models / "cut.pth").write_bytes(data[: len(data) // 2])
    (models / "empty.pth").write_bytes(b"")
    (models / "letter.pth").write_bytes(b"Dear reader, this is no portrait at all." * 20)
    save_generator(generator_of(portrait), models / "generator.safetensors")
    for name in ("cut.pth", "empty.pth", "letter.pth", "generator.safetensors"):
        with pytest.raises((InvalidInput, IncompatibleCheckpoint), match=name.replace(".", r"\.")):
            load(nodes, name, "generator.safetensors")
    with pytest.raises(MissingModelFile, match=r"^AP3D_LoadPortrait3D: no file 'gone\.pth'.*searched"):
        load(nodes, "gone.pth")
    with pytest.raises(InvalidInput, match=r"^AP3D_LoadPortrait3D: '\.\./secret\.pth'"):
        load(nodes, "../secret.pth")
    with pytest.raises(InvalidInput, match="no portrait 'nobody'"):
        load(nodes, "embedded: nobody")


def test_the_surface_of_a_trigrid(nodes, portrait) -> None:
    inputs = {"portrait": portrait, "preset": "draft", "density": 15.0, "smoothing": 0, "smallest_piece": 0.05}
    done = nodes("AP3D_ExtractMesh", **inputs)
    assert done.image.shape == (8, 24, 24, 3)  # clay, then colours
    assert float((done.image[:4] - done.image[4:]).abs().mean()) > 0.01
    assert done.mesh.vertex_colors.shape == done.mesh.vertices.shape
    assert torch.equal(done.mesh_3d.vertices[0], done.mesh.vertices) and done.mesh_3d.vertex_colors.max() > 0
    assert done.ui["text"] == [f"{len(done.mesh.vertices):,} vertices, {len(done.mesh.faces):,} faces"]
    inner = nodes("AP3D_ExtractMesh", **{**inputs, "density": 60.0})
    assert inner.mesh.vertices.abs().max() < done.mesh.vertices.abs().max() - 0.02
    smooth = nodes("AP3D_ExtractMesh", **{**inputs, "smoothing": 200})
    assert smooth.mesh.vertices.abs().max() < done.mesh.vertices.abs().max() - 0.02
    with pytest.raises(InvalidInput, match=r"mesh_from_density: the density runs from .* no surface at level 1000"):
        nodes("AP3D_ExtractMesh", **{**inputs, "density": 1000.0})


def test_the_surface_of_a_mesh_is_the_mesh(nodes) -> None:
    corners = torch.tensor([[0.0, 0.3, 0.2], [0.3, 0, 0], [-0.3, 0, 0], [0, 0.6, 0]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    portrait = MeshPortrait(Mesh(corners, faces, torch.rand(4, 3, generator=torch.Generator().manual_seed(0))))
    done = nodes("AP3D_ExtractMesh", portrait=portrait, preset="paper", density=1.0, smoothing=9, smallest_piece=0.0)
    assert done.mesh is portrait.surface
    assert done.image.shape == (8, 24, 24, 3)


@pytest.fixture
def fits(monkeypatch, tmp_path, portrait):
    """What was fitted: (prompt, iterations) each. An ellipsoid stands for the fit, an empty folder for the cache."""
    from animportrait3d_core.embedded.portraits import PortraitReport, SurfaceNoise, portrait_from_prompt, quality

    done = []

    def fit_portrait(identity, output, settings, stages):
        for step in (1, 2, 3):
            stages("fit")(step, 3, None)
        done.append((identity.prompt, settings.iterations))
        save_trigrid_portrait(dataclasses.replace(portrait, prompt=identity.prompt), output)
        report = PortraitReport(identity.prompt, identity.seed, 61.0, 30.5, SurfaceNoise(9, 20, 0.01, 1), 1, "", {})
        quality.write_report(report, output.with_suffix(".json"))
        return report

    module = sys.modules[portrait_from_prompt.__module__]
    monkeypatch.setattr(module, "fit_portrait", fit_portrait)
    monkeypatch.setattr(module, "cache_directory", lambda: tmp_path / "cache")
    return done


def from_words(nodes, prompt: str, seed: int = 3, preset: str = "draft"):
    return nodes("AP3D_TextToPortrait", prompt=prompt, seed=seed, preset=preset, sampling="draft")


def test_words_become_a_portrait_once(nodes, fits) -> None:
    from animportrait3d_core.embedded.portraits import PORTRAIT_PRESETS

    words = "an old man, grey beard, zebra socks"
    first = from_words(nodes, words)
    assert isinstance(first.portrait, Portrait) and first.portrait.prompt == first.prompt
    assert first.portrait.rendering == SAMPLING_PRESETS["draft"]
    assert "old man" in first.prompt and first.image.shape == (4, 24, 24, 3)
    made, unknown, numbers = first.ui["text"][0].splitlines()
    assert first.prompt in made and unknown.startswith("Not understood: ") and "zebra" in unknown
    assert numbers.startswith("30.5 dB") and "61 s" in numbers
    assert torch.equal(from_words(nodes, words).image, first.image)
    assert fits == [(first.prompt, PORTRAIT_PRESETS["draft"].iterations)]
    from_words(nodes, words, seed=4)
    from_words(nodes, words, preset="standard")
    assert [iterations for _, iterations in fits[1:]] == [
        PORTRAIT_PRESETS[name].iterations for name in ("draft", "standard")
    ]


def test_words_that_are_all_understood_leave_no_complaint(nodes, fits) -> None:
    assert "Not understood" not in from_words(nodes, "an old woman, white hair").ui["text"][0]


def test_the_users_stop_ends_a_fit_and_leaves_no_portrait(nodes, run_context, fits) -> None:
    class Listener:
        def node_progress(self, node_id, step, total, preview):
            if (step, total) == (2, 3):
                run_context.cancelled.set()

    run_context.listener = Listener()
    with pytest.raises(Interrupted):
        from_words(nodes, "a young woman, red hair")
    assert fits == []
    run_context.cancelled.clear()
    run_context.listener = None
    assert isinstance(from_words(nodes, "a young woman, red hair").portrait, Portrait)
    assert len(fits) == 1


@pytest.mark.parametrize(("prompt", "words"), [("  ", "prompt is empty"), ("qwertz zebra", "nothing was recognised")])
def test_words_that_say_nothing_are_refused(nodes, fits, prompt: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        from_words(nodes, prompt)


def test_the_shipped_portraits_load(nodes) -> None:
    from animportrait3d_core.embedded.portraits import SHIPPED_PORTRAITS, portrait_identity

    images = []
    for name in SHIPPED_PORTRAITS:
        done = load(nodes, f"embedded: {name}")
        assert done.prompt == portrait_identity(name).prompt
        images.append(done.image)
        assert 0.1 < float((done.image < 0.95).any(-1).float().mean()) < 0.8  # a bust before white
    assert float((images[0] - images[1]).abs().mean()) > 0.02


def test_landmarks_of_a_mesh_come_into_the_frame_of_its_portrait(nodes, run_context, portrait) -> None:
    folder = run_context.input_directory
    folder.mkdir()
    (folder / "head.glb").write_bytes(b"not read")
    rows = torch.rand(68, 3, generator=torch.Generator().manual_seed(2))
    (folder / "head.json").write_text(json.dumps({"landmarks": rows.tolist()}))
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), vertex_colors=torch.ones(3, 3))
    placed = HeadAlignment(torch.eye(3), 2.0, torch.tensor([0.0, 1.0, 0.0]), "by hand")
    for owner, wanted in (
        (None, rows),
        (MeshPortrait(triangle), rows),
        (MeshPortrait(triangle, alignment=placed), placed.apply(rows)),
    ):
        found = nodes("AP3D_LoadLandmarks", file="head.glb", portrait=owner).landmarks
        torch.testing.assert_close(found.points_3d, wanted)
    with pytest.raises(InvalidInput, match="AP3D_LoadLandmarks: the portrait is of kind 'trigrid'"):
        nodes("AP3D_LoadLandmarks", file="head.glb", portrait=portrait)
