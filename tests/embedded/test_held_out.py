"""The held-out table says what was drawn: figures of pictures whose truth is known, and the command from end to end."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from animportrait3d_core.cli import main
from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.diffusion.sampling import SamplingSettings
from animportrait3d_core.embedded.dataset import build_dataset, dataset_settings
from animportrait3d_core.embedded.prior import evaluate
from animportrait3d_core.embedded.prior.crop_labels import (
    CROP_CLASSES,
    JUDGE_LOOP,
    colors_of,
    find_labels,
    label_channel,
    train_judge,
    true_labels,
)
from animportrait3d_core.embedded.prior.held_out import (
    Drawn,
    HeldOutSettings,
    color_scores,
    distances_to_training,
    draw_held_out,
    nearness,
    obedience,
    unseen,
)
from animportrait3d_core.embedded.prior.quality import QualitySettings
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.regions import IMAGE_REGIONS, LABEL_IRIS, LABEL_SCLERA, LABEL_TEETH
from animportrait3d_core.training import open_dataset
from tests.embedded.prior_samples import save_untrained_prior

SIZE = 64
PAINT = torch.tensor([[1.0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
"""A colour for each of CROP_CLASSES."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(data set of a training, data set of other persons)."""
    folder = tmp_path_factory.mktemp("persons")
    for seed, name in enumerate(("training", "others")):
        build_dataset(folder / name, dataset_settings("prior", 24, size=SIZE, seed=seed), workers=1)
    return folder / "training", folder / "others"


@pytest.fixture(scope="module")
def training(folders):
    return open_dataset(folders[0])


@pytest.fixture(scope="module")
def others(folders):
    return open_dataset(folders[1])


class Reader(nn.Module):
    """A judge that knows the paint."""

    def forward(self, x):
        colors = (x.permute(0, 2, 3, 1) + 1) / 2
        return -(colors[..., None, :] - PAINT).square().sum(-1).permute(0, 3, 1, 2)


def painted(labels):
    """Pictures [n, S, S, 3] of positions in CROP_CLASSES [n, S, S]."""
    return PAINT[labels]


def drawn_of(samples, **pictures):
    truth = colors_of(samples)
    return Drawn(samples, **{"truth": truth, "controlled": truth, "free": truth, "wrong": truth, **pictures})


def by_region(dataset, **pictures):
    rows = {name: dataset.of_region(name) for name in IMAGE_REGIONS}
    return {name: drawn_of([rows[name][k] for k in range(len(rows[name]))], **pictures) for name in rows}


def test_labels_of_a_sample_are_its_parts_with_iris_and_sclera_apart(others):
    item, parts = others[0], ("background", "eyes", "lips", "teeth")
    condition = torch.zeros(1, 6, 4)
    condition[0, :4, 3] = torch.tensor([LABEL_SCLERA, LABEL_IRIS, 0.5, 0.8])
    made = dataclasses.replace(
        item, parts=torch.tensor([[1, 1, 1, 1, 2, 3]]), condition=(condition * 255).round().to(torch.uint8)
    )
    names = [CROP_CLASSES[k] for k in true_labels([made], parts)[0, 0].tolist()]
    assert names == ["sclera", "iris", "iris", "sclera", "lips", "teeth"]


def eye_labels(samples):
    """What a perfect painter of conditions would paint."""
    channel = label_channel(samples)
    labels = torch.zeros(channel.shape, dtype=torch.int64)
    labels[channel > LABEL_IRIS / 2] = CROP_CLASSES.index("iris")
    labels[channel > 0.8] = CROP_CLASSES.index("sclera")
    return labels


def test_obedience_is_one_for_who_paints_the_condition_and_falls_with_what_is_missed(others):
    eyes, mouths = (
        [other for other in map(others.of_region(name).__getitem__, range(20))] for name in ("eyes", "mouth")
    )
    labels = eye_labels(eyes)
    left = labels.clone()
    left[:, :, : SIZE // 2] = 0
    share = float((left > 0).sum() / (labels > 0).sum())
    teeth = torch.where(label_channel(mouths) > LABEL_TEETH / 2, CROP_CLASSES.index("teeth"), 0)
    blank = painted(torch.zeros_like(labels))
    sclera = torch.zeros_like(labels)
    sclera[:5, :2] = CROP_CLASSES.index("sclera")  # 2 of 64 rows: 3 %
    drawn = {
        "eyes": drawn_of(
            eyes, truth=painted(labels), controlled=painted(left), free=blank, wrong=painted(4 * (labels > 0))
        ),
        "mouth": drawn_of(mouths, truth=painted(teeth), controlled=painted(teeth), free=blank, wrong=blank),
        "closed": drawn_of(eyes, truth=blank, controlled=painted(sclera), free=blank, wrong=blank),
    }
    found = obedience(Reader(), drawn)
    assert (labels > 0).any() and (teeth > 0).any()
    assert found["iou_eyes_truth"] == found["iou_mouth_truth"] == found["iou_mouth_controlled"] == 1
    assert found["iou_eyes_controlled"] == pytest.approx(share)
    assert found["iou_eyes_free"] == found["iou_eyes_wrong"] == found["iou_mouth_free"] == 0  # lips are no eyeballs
    assert found["closed_truth"] == 1 and found["closed_controlled"] == pytest.approx(15 / 20)


def test_colors_are_found_in_renders_and_not_in_repainted_ones(training, others):
    found = color_scores(training, by_region(others))
    for name in ("hair_color", "garment_color", "skin_tone"):
        truth, sampled, chance = (found[f"{name}_{whose}"] for whose in ("truth", "controlled", "chance"))
        assert found[f"{name}_count"] >= 30
        assert sampled == truth > 0.5 and truth > chance
        assert found[f"{name}_lit"] == 1
    drawn = by_region(others).items()
    turned = {name: dataclasses.replace(own, controlled=own.truth.roll(1, -1)) for name, own in drawn}
    repainted = color_scores(training, turned)
    assert repainted["garment_color_truth"] == found["garment_color_truth"]
    assert repainted["garment_color_controlled"] < 0.5 * found["garment_color_truth"]
    assert repainted["garment_color_lit"] < 0.5


def test_a_colour_is_named_in_the_light_of_its_picture(training, others):
    drawn = by_region(others).items()
    # All pictures in the same evening light: only who asks for the light still finds the words.
    evening = torch.tensor([0.9, 0.6, 0.4])
    dimmed = {
        name: dataclasses.replace(own, truth=own.truth * evening, controlled=own.controlled * evening)
        for name, own in drawn
    }
    found = color_scores(training, dimmed)
    assert found["garment_color_lit"] == 1 > found["garment_color_controlled"]


def test_pictures_of_the_training_are_found_out(training, others):
    known = distances_to_training(training, by_region(training))
    new = distances_to_training(training, by_region(others))
    for region in IMAGE_REGIONS:
        # Distances are found by matrix products in float32: equal pictures are some 1e-4 apart.
        assert known[f"nearest_truth_{region}"] > 60 > 40 > new[f"nearest_truth_{region}"] > 5


def test_persons_of_the_training_are_left_out(training, others):
    assert set(unseen(others, training).identities) == set(others.identities) - set(training.identities)
    with pytest.raises(InvalidInput, match="another seed"):
        unseen(training, training)


def test_a_judge_learns_and_goes_on(training, others, tmp_path):
    settings = dataclasses.replace(JUDGE_LOOP, steps=200, batch_size=8, warmup_steps=5, precision="float32")
    model, metrics = train_judge(training, tmp_path, settings)
    assert metrics["iou_other"] > 0.9 and metrics["iou_iris"] > 0.25 and metrics["iou_lips"] > 0.25
    again, same = train_judge(training, tmp_path, settings)
    picture = colors_of([others.of_region("eyes")[0]])
    assert same == metrics and torch.equal(find_labels(model, picture), find_labels(again, picture))


def test_wrong_conditions_are_those_of_other_samples_and_closed_lids_see_open_eyes(others, monkeypatch):
    asked = []

    def note(guidance, samples, settings, controlled, texts=None):
        asked.append((samples, controlled))
        return colors_of(samples)

    monkeypatch.setattr("animportrait3d_core.embedded.prior.held_out.sample_images", note)
    drawn = draw_held_out(None, others, HeldOutSettings(count=3))
    assert [controlled for _, controlled in asked] == [True, False, True] * len(drawn)
    for number, (kind, own) in enumerate(drawn.items()):
        swapped = asked[3 * number + 2][0]
        assert len(own.samples) <= 3
        for item, other in zip(own.samples, swapped):
            assert other.prompt == item.prompt and not torch.equal(other.condition, item.condition)
        if kind == "closed":
            assert (label_channel(own.samples) == 0).all() and (label_channel(swapped) > 0).flatten(1).any(1).all()


def test_a_world_without_busts_is_measured_by_what_it_has(training, others, tmp_path):
    prior = save_untrained_prior(tmp_path)
    guidance = load_guidance(GuidanceFiles(prior, controlnet=prior / "controlnet"))
    quick = HeldOutSettings(count=2, quality=QualitySettings(sampling=SamplingSettings(1, 1.0)))
    kinds = draw_held_out(guidance, others.of_region("face", "eyes", "mouth"), quick)
    assert set(kinds) == {"face", "eyes", "mouth", "closed"}
    found = nearness(guidance, kinds)
    regions = ("face", "eyes", "mouth")
    assert found["psnr_free"] == pytest.approx(sum(found[f"psnr_free_{name}"] for name in regions) / 3)
    assert "psnr_free_bust" not in found and "nearest_truth_bust" not in distances_to_training(training, kinds)
    with pytest.raises(InvalidInput, match=r"no samples of \['mouth'\]"):
        draw_held_out(guidance, others.of_region("face", "eyes"), quick)


def test_the_command(folders, tmp_path, capsys, monkeypatch):
    prior = save_untrained_prior(tmp_path / "prior")
    (prior / "README.md").write_text("# A card\n", encoding="utf-8")
    short = dataclasses.replace(JUDGE_LOOP, steps=2, batch_size=4, precision="float32")
    monkeypatch.setattr(evaluate, "JUDGE_LOOP", short)
    quick = HeldOutSettings(count=2, quality=QualitySettings(sampling=SamplingSettings(2, 2.0)))
    monkeypatch.setattr("animportrait3d_core.embedded.prior.held_out.HeldOutSettings", lambda count: quick)
    command = ["embedded", "evaluate-prior", str(prior), "--dataset", str(folders[1]), "--training", str(folders[0])]
    assert main([*command, "--output", str(tmp_path / "out"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert 3 < figures["psnr_controlled"] < 20 and 0 <= figures["iou_eyes_controlled"] <= 1  # nothing is trained
    names = sorted(file.name for file in (tmp_path / "out").glob("*.png"))
    assert names == ["bust.png", "closed.png", "eyes.png", "face.png", "mouth.png"]
    card = (prior / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A card\n") and card.count("| psnr_codec |") == 1
    assert main([*command, "--output", str(tmp_path / "out"), "--json"]) == 0
    assert (prior / "README.md").read_text(encoding="utf-8") == card
    capsys.readouterr()
    assert main([*command[:5], "--training", str(folders[1]), "--output", str(tmp_path / "x"), "--json"]) == 2
    assert "another seed" in json.loads(capsys.readouterr().out)["error"]["message"]
