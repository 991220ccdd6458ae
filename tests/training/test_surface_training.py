"""Training with the surface beside the picture: what is shown, where it starts, and figures by trait."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from animportrait3d_core.cli import main
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.networks import load_network, segment_images
from animportrait3d_core.networks.predict import with_known
from animportrait3d_core.training import Manifest, encode_normals, open_dataset, write_manifest, write_shard
from animportrait3d_core.training.augment import AugmentSettings, blurred, cut_images, flip, random_crops
from animportrait3d_core.training.images import load_images, network_of
from animportrait3d_core.training.inputs import degrade_surface, looks_of, shown_as, shown_by_chance
from animportrait3d_core.training.recipes import recipe_of
from animportrait3d_core.training.shards import decode_surface
from animportrait3d_core.training.train_network import TrainingRun, train_network
from animportrait3d_core.training.trait_table import PLAIN
from tests.training.test_augment import ball
from tests.training.test_tasks import PARTS, PERSONS, SIZE, drawn_sample

TRAITS = ("grey", "hat", "never")
RUN = TrainingRun(steps=1, batch_size=2, held_out_limit=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The drawn figures with their surface and traits (every second picture grey, every fourth with a hat as well), and
    without."""
    root = tmp_path_factory.mktemp("surfaces")
    samples = [drawn_sample(person) for person in range(2 * PERSONS)]
    texts = {name: ["x"] * len(samples) for name in ("prompt", "full_prompt", "abstract_prompt", "view_word")}
    for name in ("plain", "rich"):
        if name == "rich":
            for index, sample in enumerate(samples):
                sample["surface"] = torch.where(
                    sample["alpha"][..., None] > 0, sample["normals"], encode_normals(torch.zeros(3))
                )
                sample["traits"] = torch.tensor((index % 2 == 0) + 2 * (index % 4 == 0), dtype=torch.int32)
        entry = write_shard(root / name, 0, {key: torch.stack([s[key] for s in samples]) for key in samples[0]}, texts)
        traits = TRAITS if name == "rich" else ()
        write_manifest(root / name, Manifest(SIZE, PARTS, 1, len(samples), {}, (entry,), traits=traits))
    return root


@pytest.fixture
def images(folders):
    return load_images(open_dataset(folders / "rich"), torch.arange(20), ("surface",))


@pytest.fixture
def network():
    return network_of(torch.nn.Identity(), recipe_of("parts", SIZE, surface=True))


def test_no_surface_is_coded_and_decoded_as_none():
    coded = encode_normals(torch.tensor([[0.0, 0, 0], [0.6, 0, -0.8]]))
    torch.testing.assert_close(decode_surface(coded), torch.tensor([[0.0, 0, 0], [0.6, 0, -0.8]]), atol=5e-3, rtol=0)
    assert not decode_surface(coded)[0].any()


def test_the_surface_turns_and_mirrors_as_normals_do():
    sphere = ball()
    sphere = dataclasses.replace(sphere, surface=with_known(sphere.normals, 1))
    for done in (
        flip(sphere, torch.tensor([True])),
        cut_images(sphere, random_crops(sphere, AugmentSettings(turn_degrees=90.0), generator(2)), 96),
    ):
        inside = done.surface[0, 3] > 0.99
        assert 500 < inside.sum() < 90**2
        torch.testing.assert_close(done.surface[0, :3, inside], done.normals[0, :, inside], atol=0.06, rtol=0)


def test_a_rough_surface_stays_where_it_was(images):
    none = AugmentSettings(surface_blur_share=0.0, surface_ripple_share=0.0, surface_noise_share=0.0)
    assert torch.equal(degrade_surface(images.surface, none, generator()), images.surface)
    known = images.surface[:, 3:] > 0
    for share in ("surface_blur_share", "surface_ripple_share", "surface_noise_share"):
        rough = degrade_surface(images.surface, dataclasses.replace(none, **{share: 1.0}), generator())
        assert torch.equal(rough[:, 3:] > 0, known) and not rough[~known.expand_as(rough)].any()
        assert float((rough - images.surface).abs()[known.expand_as(rough)].mean()) > 0.003, share


def test_ripples_are_coarser_than_grain(images):
    """A blur of 3 pixels takes grain away; what trigrids do to a surface stays."""
    left = {}
    for share in ("surface_ripple_share", "surface_noise_share"):
        none = AugmentSettings(surface_blur_share=0.0, surface_ripple_share=0.0, surface_noise_share=0.0)
        rough = degrade_surface(images.surface, dataclasses.replace(none, **{share: 1.0}), generator())
        change = (rough - images.surface)[:, :3]
        left[share] = float(torch.cat([blurred(one[None], 3.0) for one in change]).norm() / change.norm())
    assert left["surface_noise_share"] < 0.3 < left["surface_ripple_share"]


def test_pictures_and_surfaces_are_left_out_as_often_as_asked(images, network):
    many = dataclasses.replace(
        images, colors=images.colors.repeat(20, 1, 1, 1), surface=images.surface.repeat(20, 1, 1, 1)
    )
    settings = AugmentSettings(picture_alone_share=0.4, surface_alone_share=0.25)
    pixels = shown_by_chance(network, many, settings, generator())
    blank = (pixels[:, :3] == 0.5).flatten(1).all(1)
    bare = (pixels[:, 3:] == 0).flatten(1).all(1)
    assert float(bare.float().mean()) == pytest.approx(0.4, abs=0.07)
    assert float(blank.float().mean()) == pytest.approx(0.25, abs=0.07)
    assert not bool((blank & bare).any())


def test_looks_show_what_their_names_say(images, network):
    assert looks_of(network) == ("picture", "surface", "both")
    assert looks_of(dataclasses.replace(network, sees_normals=False)) == ("picture",)
    (picture, none), (blank, normals), (both, same) = (shown_as(look, network, images) for look in looks_of(network))
    assert none is None and torch.equal(picture, both) and torch.equal(normals, same)
    assert bool((blank == 0.5).all()) and torch.equal(normals.permute(0, 3, 1, 2), images.surface[:, :3])


@pytest.mark.parametrize("role", ["parts", "landmarks"])
def test_a_network_that_saw_pictures_goes_on_as_it_was(folders, tmp_path, role):
    """Widened by weights of 0: whatever the surface says, the first answer is the old network's."""
    train_network(role, folders / "plain", tmp_path / "old", RUN)
    start = tmp_path / "old" / "network"
    run = dataclasses.replace(RUN, start_from=start, minutes=0.0)
    train_network(role, folders / "rich", tmp_path / "new", run)
    old, new = load_network(start, role), load_network(tmp_path / "new" / "network", role)
    assert new.sees_normals and not old.sees_normals
    pixels = torch.rand(2, 3, 64, 64, generator=generator(1)), torch.randn(2, 4, 64, 64, generator=generator(2))
    blocks = [torch.nn.functional.pixel_unshuffle(part, 2) for part in pixels]
    with torch.no_grad():
        before, after = old.model(blocks[0]), new.model(torch.cat(blocks, 1))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_figures_stand_by_trait_and_by_look(folders, tmp_path, capsys):
    train_network("parts", folders / "rich", tmp_path, RUN)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    held_out = open_dataset(folders / "rich").split(0.05)[1]
    table = metrics["traits"]
    assert list(table["rows"]) == [
        name for name in (PLAIN, *TRAITS) if len(held_out.of_trait(None if name == PLAIN else name))
    ]
    assert all(set(row) == {"picture", "surface", "both"} for row in table["rows"].values())
    assert table["rows"][PLAIN]["picture"] == pytest.approx(metrics["metrics"]["mean_iou"])
    card = (tmp_path / "network" / "README.md").read_text()
    assert "| trait | samples | picture | surface | both |" in card and "| none | " in card
    command = ["evaluate-network", "parts", "--network", str(tmp_path / "network"), "--json", "--everybody"]
    assert main([*command, "--dataset", str(folders / "rich"), "--limit", "4"]) == 0
    everybody = json.loads(capsys.readouterr().out)
    assert everybody["samples"] == {PLAIN: 4, "grey": 4, "hat": 4} and everybody["metric"] == "mean_iou"
    assert main([*command, "--dataset", str(folders / "plain")]) == 2
    assert "looks at surfaces" in capsys.readouterr().out


def test_samples_of_a_trait(folders):
    rich, plain = (open_dataset(folders / name) for name in ("rich", "plain"))
    assert [len(rich.of_trait(name)) for name in (None, "grey", "hat", "never")] == [10, 10, 5, 0]
    assert len(plain.of_trait(None)) == 20 and plain[0].traits is None and rich[0].traits == 3
    with pytest.raises(InvalidInput, match="'scarf'.*grey, hat, never"):
        rich.of_trait("scarf")


def test_networks_for_normals_see_pictures_alone(folders, tmp_path):
    train_network("normals", folders / "rich", tmp_path, RUN)
    assert not load_network(tmp_path / "network", "normals").sees_normals
    network = load_network(tmp_path / "network", "normals")
    with pytest.raises(InvalidInput, match="for 'normals'"):
        segment_images(network, torch.zeros(1, 32, 32, 3))
