"""Data sets of the embedded world: the same bytes however they are built, and maps that tell the truth."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.cameras import Cameras, orbit_cameras, project
from animportrait3d_core.conditioning import CROP_REGIONS, neutral_state, sample_state, state_parameters
from animportrait3d_core.embedded.dataset import PRESETS, build_dataset, dataset_settings, dataset_sheet, identity_seeds
from animportrait3d_core.embedded.dataset.framing import View, sample_view, view_camera
from animportrait3d_core.embedded.dataset.samples import SampleSettings, landmark_visibility, render_samples
from animportrait3d_core.embedded.identities import (
    IdentityRenderSettings,
    parse_prompt,
    pose_identity,
    prepare_identity,
    render_posed,
    sample_identity,
    true_parameters,
)
from animportrait3d_core.embedded.identities.export import EXPORTED
from animportrait3d_core.embedded.identities.prompts import describe, describe_abstractly
from animportrait3d_core.embedded.mannequin import build_mannequin
from animportrait3d_core.embedded.traits import TRAITS
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.parts import FIGURE_PARTS
from animportrait3d_core.regions import IMAGE_REGIONS
from animportrait3d_core.training import BODY_WIDTHS, decode_normals, open_dataset
from animportrait3d_core.training.shards import decode_surface

TINY = dataset_settings("prior", 3, images_per_identity=4, size=32, identities_per_shard=1)
SCLERA, TEETH, IRIS = 255, 125, 85


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    report = build_dataset(folder, TINY, workers=1)
    assert (report.samples, report.kept_samples) == (12, 0) and report.images_per_second > 0
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight images of 96 pixels of each of three people, all maps."""
    folder = tmp_path_factory.mktemp("dataset")
    build_dataset(folder, dataset_settings("prior", 3, images_per_identity=8, size=96, seed=5), workers=1)
    return open_dataset(folder, verify=True)


@pytest.fixture(scope="module")
def prepared():
    return prepare_identity(sample_identity(5, hair_style="short hair", beard="none"), 128, sky_directions=4)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two images of 64 pixels of each of ten people of the preset for networks."""
    folder = tmp_path_factory.mktemp("networks")
    build_dataset(folder, dataset_settings("networks", 10, images_per_identity=2, size=64), workers=1)
    return open_dataset(folder, verify=True)


def body_value(sample, name: str) -> torch.Tensor:
    start = 0
    for field, width in BODY_WIDTHS.items():
        if field == name:
            return sample.body[start : start + width]
        start += width
    raise KeyError(name)


def posed(prepared, **changes):
    parameters = true_parameters(prepared.identity)
    return pose_identity(prepared, parameters.replace(**{name: torch.tensor([row]) for name, row in changes.items()}))


def test_a_second_build_keeps_what_is_there_and_repairs_what_is_not(tiny):
    before = contents(tiny)
    assert build_dataset(tiny, TINY, workers=1).kept_samples == 12
    (tiny / "shard-00001.safetensors").write_bytes(b"damaged")
    (tiny / ".shard-00002-abc.safetensors").write_bytes(b"left by a killed build")
    done = []
    report = build_dataset(tiny, TINY, 1, lambda *progress: done.append(progress[:2]))
    assert report.samples == 4 and done == [(12, 12)]
    assert contents(tiny) == before
    other = dataset_settings("prior", 3, images_per_identity=4, size=32, identities_per_shard=1, seed=9)
    with pytest.raises(InvalidInput, match="other settings.*seed.*\\(0, 9\\)"):
        build_dataset(tiny, other, workers=1)


def test_shards_made_in_another_order_are_the_same(tiny, tmp_path):
    """The sample of a person depends on seed, person and image alone."""
    details = SampleSettings(PRESETS["prior"], 32, 4, 0)
    last, _ = render_samples(details, 2, int(identity_seeds(0, 3)[2]))
    dataset = open_dataset(tiny)
    for image in range(4):
        assert torch.equal(dataset[8 + image].rgb, last[image]["rgb"])
        assert torch.equal(dataset[8 + image].body, last[image]["body"])
    assert not torch.equal(dataset[8].rgb, dataset[4].rgb)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_build_with_two_processes_ends_in_the_same_bytes(tiny, tmp_path):
    command = (
        "from animportrait3d_core.embedded.dataset import *\n"
        "if __name__ == '__main__':\n"
        "    settings = dataset_settings('prior', 3, images_per_identity=4, size=32, identities_per_shard=1)\n"
        f"    build_dataset({str(tmp_path)!r}, settings, workers=2)\n"
    )
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(command)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, str(script)], cwd=root, env=environment)
    deadline = time.monotonic() + 400
    while not list(tmp_path.glob("shard-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.glob("shard-*"))) > 0
    time.sleep(2.0)  # its processes end themselves
    subprocess.run([sys.executable, str(script)], cwd=root, env=environment, check=True, timeout=600)
    assert contents(tmp_path) == contents(tiny)


def test_regions_are_balanced(dataset):
    regions = dataset.column("region").long()
    assert torch.bincount(regions, minlength=len(IMAGE_REGIONS)).tolist() == [6, 6, 6, 6]


def test_a_smaller_world_shows_fewer_regions_and_the_same_people(dataset, tmp_path):
    smaller = ("face", "eyes", "mouth")
    settings = dataset_settings("prior", 1, images_per_identity=6, size=32, seed=5, regions=smaller)
    build_dataset(tmp_path, settings, workers=1)
    build_dataset(tmp_path, settings, workers=1)  # read back, it is the same
    found = open_dataset(tmp_path)
    regions = [IMAGE_REGIONS[number] for number in found.column("region").tolist()]
    assert regions == [*smaller, *smaller] and found.column("identity")[0] == dataset.column("identity")[0]
    with pytest.raises(InvalidInput, match=r"other settings .*regions"):
        build_dataset(tmp_path, dataclasses.replace(settings, regions=()), workers=1)


def test_no_seed_belongs_to_a_shipped_or_exported_person():
    seeds = identity_seeds(3, 50_000)
    assert len(np.unique(seeds)) == 50_000 and seeds.min() >= 0 and seeds.max() < 900_000
    assert all(seed >= 900_000 for _, seed, _ in EXPORTED.values())
    assert np.array_equal(identity_seeds(3, 100), seeds[:100])
    assert not np.array_equal(identity_seeds(4, 100), seeds[:100])


def test_prompts_follow_the_region(dataset):
    for index in range(len(dataset)):
        sample = dataset[index]
        attributes = sample_identity(sample.identity).attributes
        assert sample.full_prompt == describe(attributes) and sample.abstract_prompt == describe_abstractly(attributes)
        known = parse_prompt(sample.full_prompt).known
        assert all(getattr(attributes, name) == value for name, value in known.items())
        region = IMAGE_REGIONS[sample.region]
        if region in ("bust", "face"):
            assert sample.prompt == sample.full_prompt
        else:
            prefixes = {"eyes": ("left eye", "right eye", "eyes"), "mouth": ("mouth",)}[region]
            assert sample.prompt in [f"{prefix} region, {sample.abstract_prompt}" for prefix in prefixes]
        assert sample.view_word in ("front view", "side view", "back view")


def test_landmarks_of_the_region_lie_inside_its_crop(dataset):
    wanted = {"eyes": {"left eye": (36, 42), "right eye": (42, 48), "eyes": (36, 48)}, "mouth": {"mouth": (48, 68)}}
    for index in range(len(dataset)):
        sample = dataset[index]
        region = IMAGE_REGIONS[sample.region]
        if region not in wanted:
            continue
        first, last = wanted[region][sample.prompt.partition(" region")[0]]
        points = sample.landmarks[first:last]
        assert bool(((points > 0) & (points < len(sample.rgb))).all()), (index, sample.prompt, points)
        middle = points.mean(0) / len(sample.rgb)
        assert bool(((middle - 0.5).abs() < 0.25).all()), (index, middle)


def test_stored_camera_and_body_give_the_stored_landmarks(dataset):
    body = build_mannequin()
    for index in (0, 9, 18):
        sample = dataset[index]
        prepared = prepare_identity(sample_identity(sample.identity), 128, sky_directions=1)
        changes = {name: body_value(sample, name)[None] for name in BODY_WIDTHS}
        state = pose_identity(prepared, true_parameters(prepared.identity).replace(**changes))
        camera = Cameras(sample.world_to_camera[None], sample.K[None], len(sample.rgb), len(sample.rgb))
        corners = torch.from_numpy(state.vertices[body.faces[body.landmark_faces]])
        points = (corners * torch.from_numpy(body.landmark_barycentric)[..., None]).sum(1).float()
        assert torch.allclose(project(camera, points)[0][0], sample.landmarks, atol=0.02)


def test_maps_agree_with_each_other(dataset):
    eyes, teeth = FIGURE_PARTS.index("eyes"), FIGURE_PARTS.index("teeth")
    counted, openings = 0, []
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.parts.max() < len(FIGURE_PARTS)
        covered = sample.alpha == 255
        assert bool((sample.parts[covered] > 0).all()) and bool((sample.rgb[sample.alpha == 0] == 255).all())
        coded = sample.normals[covered].float() / 127.5 - 1
        assert float((coded.norm(dim=-1) - 1).abs().max()) < 0.012
        facing = decode_normals(sample.normals[covered])[:, 2]
        assert float((facing > -0.15).float().mean()) > 0.985
        label, normal = sample.condition[..., 3], sample.condition[..., :3]
        white = (normal == 255).all(-1)
        if sample.view_word != "back view" and sample.region == IMAGE_REGIONS.index("eyes"):
            # Labels come from the bare head, parts from the dressed one: lashes and hair may lie in front.
            for value, part in ((SCLERA, eyes), (IRIS, eyes), (TEETH, teeth)):
                there = (label == value) & covered
                lashes = (sample.parts == FIGURE_PARTS.index("lashes")) | (sample.parts == FIGURE_PARTS.index("hair"))
                agree = ((sample.parts == part) | lashes)[there]
                counted += int(there.sum())
                assert agree.numel() == 0 or float(agree.float().mean()) > 0.97, (index, value)
            opening = (label == SCLERA) & (sample.parts == eyes)
            assert float((label == 0).float().mean()) > 0.5 and not bool((white & (label == 0)).all())
            openings.append(white[opening])
    assert counted > 500 and float(torch.cat(openings).float().mean()) > 0.9


def test_closed_lids_hide_the_eyes_from_the_labels(prepared):
    settings = IdentityRenderSettings(texture_size=128)
    view = View(orbit_cameras([0.0], [0.0], 896), 0.0, CROP_REGIONS["both eyes"], 1.0, np.zeros(2))
    counts = {}
    for closure in (0.0, 1.0):
        state = posed(prepared, eyelids=[closure, closure])
        image = render_posed(state, view_camera(view, state.landmarks, 128), settings)
        assert image.condition is not None
        counts[closure] = int((image.condition[..., 3] > 0.2).sum())
        camera = view_camera(view, state.landmarks, 128)
        pupils = landmark_visibility(image, camera)[68:].tolist()
        assert pupils == ([1, 1] if closure == 0.0 else [0, 0])
    assert counts[0.0] > 150 and counts[1.0] == 0


def test_visibility_from_the_front_the_side_and_behind(prepared):
    settings = IdentityRenderSettings(texture_size=128, condition=False)
    state = posed(prepared)
    share = {}
    for yaw in (0.0, 80.0, 180.0):
        camera = orbit_cameras([yaw], [0.0], 192)
        share[yaw] = landmark_visibility(render_posed(state, camera, settings), camera)
    assert int(share[180.0].sum()) == 0
    assert int(share[0.0].sum()) >= 60
    # At 80 degrees from the subject's left, the right half of jaw, brow and eye is behind the face.
    far, near = [0, 1, 2, 3, 4, 17, 18, 36, 69], [13, 14, 25, 26, 45, 46]
    assert int(share[80.0][far].sum()) == 0 and int(share[80.0][near].sum()) == len(near)
    outside = Cameras(camera.world_to_camera, camera.K - torch.tensor([[0, 0, 9e4], [0, 0, 0], [0, 0, 0]]), 192, 192)
    assert int(landmark_visibility(render_posed(state, outside, settings), outside).sum()) == 0


def test_a_crop_is_a_part_of_the_picture(prepared):
    """Rendering a crop at its own pixels equals cutting it out of the large picture."""
    settings = IdentityRenderSettings(texture_size=128, condition=False)
    state = posed(prepared)
    view = View(orbit_cameras([20.0], [5.0], 896), 20.0, CROP_REGIONS["mouth"], 1.0, np.zeros(2))
    crop = view_camera(view, state.landmarks, 200)
    assert crop.K[0, 0, 0] == pytest.approx(float(view.camera.K[0, 0, 0]))
    left, top = (float(view.camera.K[0, k, 2] - crop.K[0, k, 2]) for k in (0, 1))
    corners = project(view.camera, state.landmarks[[48, 54]])[0][0].mean(0)
    assert left == pytest.approx(float(corners[0]) - 100, abs=0.01)
    assert top == pytest.approx(float(corners[1]) - 100, abs=0.01)
    column, row = round(left), round(top)
    K = view.camera.K.clone()
    K[0, 0, 2] -= column
    K[0, 1, 2] -= row
    part = render_posed(state, Cameras(view.camera.world_to_camera, K, 200, 200), settings)
    whole = render_posed(state, view.camera, settings)
    cut = whole.rgb[:, row : row + 200, column : column + 200]
    assert float((cut - part.rgb).abs().mean()) < 1e-4


def test_states_and_views_cover_their_ranges():
    generator = np.random.default_rng(0)
    eyes = [sample_state("eyes", generator) for _ in range(800)]
    lids = np.array([state.eyelids[0] for state in eyes])
    assert (lids == 1).mean() > 0.1 and (lids == 0).mean() > 0.05 and lids.min() < -0.15 and lids.max() == 1
    between = lids[(lids > 0) & (lids < 1)]
    assert np.histogram(between, bins=4, range=(0, 1))[0].min() > 0.15 * len(between)
    gaze = np.array([state.gaze for state in eyes])
    assert np.all(np.abs(gaze[:, :2]).max(0) > [0.28, 0.38]) and np.all(np.abs(gaze).max(0) <= [0.3, 0.4, 0])
    jaws = np.array([sample_state("mouth", generator).jaw[0] for _ in range(400)])
    assert (jaws == 0).mean() > 0.1 and jaws.max() > 0.38
    boxes = [sample_view("eyes", PRESETS["prior"].framings["eyes"], generator) for _ in range(300)]
    assert {view.region.name for view in boxes} == {"left eye", "right eye", "both eyes"} < set(CROP_REGIONS)
    # The far eye is never shown alone: on the picture's left is the subject's right eye.
    assert all(view.yaw < 30 for view in boxes if view.region.name == "left eye")
    assert all(view.yaw > -30 for view in boxes if view.region.name == "right eye")
    yaws = np.array([sample_view("bust", PRESETS["networks"].framings["bust"], generator).yaw for _ in range(800)])
    assert np.histogram(yaws, bins=8, range=(-180, 180))[0].min() > 60


def test_neutral_state_is_the_portrait(prepared):
    portrait = true_parameters(prepared.identity)
    for name, value in state_parameters(portrait, neutral_state()).items():
        assert torch.equal(value, getattr(portrait, name)), name


def test_sheet_shows_every_sample(dataset, tmp_path):
    from PIL import Image

    dataset_sheet(dataset, tmp_path / "sheet.png", count=6, columns=2, start=20)
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size[1] == 2 * (96 + 26) and sheet.size[0] == 2 * (6 * 96 + 8)
    with pytest.raises(InvalidInput, match="from 99 on"):
        dataset_sheet(dataset, tmp_path / "none.png", start=99)


def test_unusable_settings_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no preset 'nose'"):
        dataset_settings("nose", 3)
    with pytest.raises(InvalidInput, match=r"regions \['nose'\], expected some of bust, face, eyes, mouth"):
        dataset_settings("prior", 3, regions=("face", "nose"))
    with pytest.raises(InvalidInput, match="size is 4, expected 16"):
        dataset_settings("prior", 3, size=4)
    with pytest.raises(InvalidInput, match="0 workers"):
        build_dataset(tmp_path, TINY, workers=0)


def test_the_networks_data_set_has_traits_and_surfaces(networks):
    assert networks.manifest.traits == TRAITS and networks.has("surface") and networks.has("traits")
    plain = networks.of_trait(None)
    assert 0 < len(plain) < len(networks)
    for sample in (networks[index] for index in range(len(networks))):
        known = decode_surface(sample.surface).norm(dim=-1) > 0.5
        inside = sample.alpha > 128
        assert not bool((known & ~inside).any()) and float((known & inside).sum()) > 0.97 * float(inside.sum())
        squarely = known & (decode_surface(sample.surface)[..., 2] > 0.6) & (sample.alpha == 255)
        cosines = (decode_surface(sample.surface) * decode_normals(sample.normals)).sum(-1)[squarely]
        assert float(cosines.median()) > 0.95


def test_plain_people_are_as_they_are_without_traits(networks):
    """The same bytes as from a preset in which nobody has any."""
    bits = networks.column("traits")
    index = int((bits == 0).nonzero()[0]) // 2
    preset = dataclasses.replace(PRESETS["networks"], traits_share=0.0)
    seeds = identity_seeds(0, 10)
    tensors, _ = render_samples(SampleSettings(preset, 64, 2, 0), index, int(seeds[index]))
    for image, wanted in enumerate(tensors):
        sample = networks[2 * index + image]
        for name in ("rgb", "alpha", "parts", "normals", "landmarks", "visible"):
            assert torch.equal(getattr(sample, name), wanted[name]), name
        assert "surface" not in wanted and "traits" not in wanted


def test_the_prior_knows_no_traits(tiny):
    dataset = open_dataset(tiny)
    assert dataset.manifest.traits == () and dataset[0].surface is None and dataset[0].traits is None
