"""Losses, metrics and the training of the three roles on a small data set made of drawn figures."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from animportrait3d_core.cli import main
from animportrait3d_core.errors import InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.evaluation import landmark_error, mean_normal_angle
from animportrait3d_core.files import read_safetensors
from animportrait3d_core.networks import build_model, load_network, save_network, segment_images
from animportrait3d_core.networks.crops import points_to_crop
from animportrait3d_core.networks.landmarks import expected_points, face_crops, log_shares
from animportrait3d_core.parts import PART_CLASSES
from animportrait3d_core.training import (
    Manifest,
    encode_colors,
    encode_normals,
    open_dataset,
    write_manifest,
    write_shard,
)
from animportrait3d_core.training.dense import class_shares, dice_loss
from animportrait3d_core.training.images import class_table, load_images
from animportrait3d_core.training.landmarks import (
    SPREAD,
    LandmarksTask,
    face_is_shown,
    facing,
    landmark_looks,
    spot_loss,
)
from animportrait3d_core.training.metrics import ConfusionCounts, angles_between, normalized_landmark_errors
from animportrait3d_core.training.recipes import recipe_of
from animportrait3d_core.training.shards import BODY_WIDTH
from animportrait3d_core.training.train_network import TrainingRun, network_description, train_network

SIZE, PERSONS, PARTS = 64, 10, ("background", "skin", "hair", "clothes", "eyes", "teeth", "lips")
TINY_ALIEN = {
    "_model_class": "Linknet", "encoder_name": "mobilenet_v2", "encoder_weights": None, "in_channels": 12,
}  # fmt: skip
HAIR_COLORS = torch.tensor([[0.8, 0.2, 0.1], [0.1, 0.1, 0.1], [0.9, 0.8, 0.3]])


def drawn_sample(person):
    """A head of skin under hair over clothes, in discs and stripes of clear colours, with the normals of a ball."""
    draw = torch.Generator().manual_seed(person)
    steps = torch.arange(SIZE) + 0.5
    x, y = steps[None].expand(SIZE, SIZE), steps[:, None].expand(SIZE, SIZE)
    center = 32 + 4 * (torch.rand(2, generator=draw) - 0.5)
    radius = 17 + 4 * float(torch.rand((), generator=draw))
    dx, dy = (x - center[0]) / radius, (y - center[1]) / radius
    head = dx**2 + dy**2 < 1
    parts = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    parts[(y > 50) & ((x - 32).abs() < 26)] = 3
    parts[head] = 1
    parts[head & (dy < -0.3)] = 2
    for side in (-0.4, 0.4):
        parts[((dx - side) ** 2 + (dy + 0.05) ** 2) < 0.02] = 4
    parts[(dx.abs() < 0.3) & ((dy - 0.5).abs() < 0.12)] = 6
    colors = torch.tensor(
        [[1, 1, 1], [0.9, 0.7, 0.6], [0, 0, 0], [0.1, 0.3, 0.8], [0.2, 0.7, 0.3], [1, 1, 1], [0.7, 0.1, 0.2]]
    )
    colors[2] = HAIR_COLORS[person % 3]
    normals = torch.stack([dx, -dy, (1 - dx**2 - dy**2).clamp_min(0.04).sqrt()], -1)
    angle = torch.linspace(0, 2 * math.pi, 71)[:70]
    points = center + radius * torch.stack([-0.7 * torch.cos(angle), 0.7 * torch.sin(angle)], -1)
    points[36], points[45] = center + radius * torch.tensor([-0.4, -0.05]), center + radius * torch.tensor([0.4, -0.05])
    return {
        "rgb": encode_colors(colors[parts.long()]), "alpha": (parts > 0).to(torch.uint8) * 255, "parts": parts,
        "normals": encode_normals(torch.nn.functional.normalize(normals, dim=-1)), "landmarks": points,
        "visible": torch.ones(70, dtype=torch.uint8), "region": torch.tensor(person % 2, dtype=torch.uint8),
        "identity": torch.tensor(person // 2, dtype=torch.int32), "world_to_camera": torch.eye(4), "K": torch.eye(3),
        "body": torch.zeros(BODY_WIDTH),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    samples = [drawn_sample(person) for person in range(2 * PERSONS)]
    texts = {name: ["x"] * len(samples) for name in ("prompt", "full_prompt", "abstract_prompt", "view_word")}
    entry = write_shard(folder, 0, {name: torch.stack([s[name] for s in samples]) for name in samples[0]}, texts)
    write_manifest(folder, Manifest(SIZE, PARTS, 1, len(samples), {}, (entry,)))
    return folder


def test_pictures_are_what_was_stored(folder):
    images = load_images(open_dataset(folder), torch.tensor([3, 0]))
    sample = drawn_sample(3)
    wanted = sample["rgb"].permute(2, 0, 1) / 255 * (sample["alpha"] / 255)
    torch.testing.assert_close(images.colors[0], wanted)
    assert PART_CLASSES[int(images.labels[0, 32, 32])] == "face"
    names = {PART_CLASSES[value] for value in images.labels[0].unique().tolist()}
    assert names == {"background", "face", "hair", "clothes", "eyes", "lips"}
    assert images.points.shape == (2, 68, 2) and images.visible.min() == 1


def test_parts_map_to_classes_by_name():
    table = class_table(("lips", "teeth", "mouth_interior", "ears", "lashes", "skin"))
    assert [PART_CLASSES[value] for value in table] == ["lips", "mouth", "mouth", "face", "eyes", "face"]
    with pytest.raises(InvalidInput, match=r"unknown parts \['beak'\]"):
        class_table(("skin", "beak"))


def test_every_part_of_the_identities_has_a_class():
    from animportrait3d_core.parts import FIGURE_PARTS as IDENTITY_PARTS

    assert set(class_table(IDENTITY_PARTS).tolist()) == set(range(len(PART_CLASSES)))


def test_confusion_counts_against_sets():
    draw = torch.Generator().manual_seed(0)
    found, truth = (torch.randint(0, 4, (2, 9, 9), generator=draw) for _ in range(2))
    counts = ConfusionCounts(5)
    counts.add(found[0], truth[0])
    counts.add(found[1], truth[1])
    for number in range(4):
        a, b = found == number, truth == number
        assert float(counts.iou()[number]) == pytest.approx(int((a & b).sum()) / int((a | b).sum()))
    assert math.isnan(float(counts.iou()[4]))
    assert counts.mean_iou() == pytest.approx(float(counts.iou()[:4].mean()))
    with pytest.raises(ShapeMismatch):
        counts.add(found, truth[0])


def test_perfect_labels_have_an_iou_of_one():
    counts = ConfusionCounts(3)
    counts.add(torch.tensor([0, 2, 2]), torch.tensor([0, 2, 2]))
    assert counts.mean_iou() == 1.0


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 12.0, 90.0, 180.0])
def test_angles_between_known_vectors(degrees):
    angle = math.radians(degrees)
    first = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64)
    second = torch.tensor([[math.sin(angle), 0.0, math.cos(angle)]], dtype=torch.float64)
    assert float(angles_between(first, second)) == pytest.approx(degrees, abs=1e-9)
    everywhere = torch.ones(1, dtype=torch.bool)
    assert float(angles_between(first, second)) == pytest.approx(mean_normal_angle(first, second, everywhere))


def test_landmark_errors_agree_with_the_evaluation():
    draw = torch.Generator().manual_seed(0)
    truth, points = (torch.rand(3, 68, 2, generator=draw) * 100 for _ in range(2))
    errors = normalized_landmark_errors(points, truth, torch.ones(3, 68))
    assert float(errors.mean()) == pytest.approx(landmark_error(points, truth), rel=1e-5)
    counted = torch.zeros(3, 68)
    counted[:, 5] = 1
    one = normalized_landmark_errors(points, truth, counted)[0]
    wanted = (points - truth)[0, 5].norm() / (truth[0, 45] - truth[0, 36]).norm()
    assert float(one) == pytest.approx(float(wanted), rel=1e-6)


def test_dice_is_zero_for_the_truth_and_falls_towards_it():
    labels = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    truth = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    even = torch.full_like(truth, 1 / 3)
    assert float(dice_loss(truth, truth)) == pytest.approx(0, abs=1e-6)
    values = [float(dice_loss(truth * share + even * (1 - share), truth)) for share in (0.0, 0.5, 1.0)]
    assert values[0] > values[1] > values[2]


def test_class_shares_are_the_mean_of_one_hot_labels():
    labels = torch.tensor([[0, 1, 2, 2], [1, 1, 2, 2], [0, 0, 0, 1], [0, 0, 0, 0]])[None]
    shares = class_shares(labels, 3, 2)
    assert shares[0, 0].tolist() == [[0.25, 0], [1, 0.75]] and shares[0, 1].tolist() == [[0.75, 0], [0, 0.25]]
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 2, 2))


def test_an_absent_class_costs_nothing():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    truth = torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    assert float(dice_loss(truth, truth)) == pytest.approx(0, abs=1e-6)


def test_a_peak_is_found_where_it_is():
    heatmaps = torch.zeros(1, 2, 20, 30)
    heatmaps[0, 0, 7, 21] = 60.0
    points = expected_points(log_shares(heatmaps))
    torch.testing.assert_close(points[0, 0], torch.tensor([21.5, 7.5]))
    torch.testing.assert_close(points[0, 1], torch.tensor([15.0, 10.0]))


def test_spots_cost_nothing_where_they_belong():
    steps = torch.arange(32) + 0.5
    point = torch.tensor([12.3, 20.1])
    square = (steps[None] - point[0]) ** 2 + (steps[:, None] - point[1]) ** 2
    logs = log_shares((-square / (2 * SPREAD**2))[None, None])
    right = spot_loss(logs, point[None, None], torch.ones(1, 1))
    wrong = spot_loss(logs, point[None, None] + 3, torch.ones(1, 1))
    assert float(right) == pytest.approx(0, abs=1e-4)
    # Divergence of two Gaussians of one width: squared distance over twice the variance.
    assert float(wrong) == pytest.approx(18 / (2 * SPREAD**2), rel=0.02)
    assert float(spot_loss(logs, point[None, None] + 3, torch.zeros(1, 1))) == 0


def test_the_loss_of_heatmaps_that_peak_at_the_points_is_small(folder):
    """Heatmaps of half the size, as the shipped recipe has them."""
    recipe = recipe_of("landmarks", SIZE)
    assert recipe.pixel_unshuffle == 2
    task = LandmarksTask(torch.nn.Identity(), open_dataset(folder), recipe, 4)
    batch = {**task.batch(torch.arange(4), torch.Generator().manual_seed(0)), "shown": torch.ones(4)}
    steps = torch.arange(recipe.size // 2) + 0.5
    centers = batch["points"] / 2
    square = (steps - centers[..., :1]).square()[:, :, None] + (steps - centers[..., 1:]).square()[..., None]
    logits = torch.full((4, 69), 20.0)
    losses = task.losses(lambda _: (-square / (2 * SPREAD**2), logits), batch, torch.Generator())
    assert float(losses["distance"]) < 0.3 and float(losses["spots"]) < 0.05


def test_a_face_is_shown_when_its_inner_points_are_seen():
    points, visible = torch.full((3, 68, 2), 30.0), torch.zeros(3, 68)
    visible[0] = 1
    visible[1, :17] = 1
    visible[2] = 1
    points[2, 20:] = -1
    assert face_is_shown(points, visible, 64).tolist() == [True, False, False]


def test_cutouts_hold_the_face_or_the_picture_or_a_part(folder):
    images = load_images(open_dataset(folder), torch.arange(20))
    images = dataclasses.replace(images, visible=torch.ones(20, 68))
    looks = [landmark_looks(images, torch.Generator().manual_seed(seed)) for seed in range(20)]
    close = face_crops(images.points)
    low, high = images.points.amin(1), images.points.amax(1)
    torch.testing.assert_close(close.sides, (high - low).amax(1) * 1.6)
    whole = [look.crops.sides[~look.of_part] / close.sides[~look.of_part] for look in looks]
    large = torch.cat([look.crops.sides[~look.of_part] > 0.79 * SIZE for look in looks])
    ratio = torch.cat(whole)
    assert bool(((ratio > 0.79) & (ratio < 1.31) | large).all())
    # What is asked for closely is the right eye or the mouth, and lies in the cut-out.
    asked = {tuple(row.nonzero()[:, 0].tolist()) for look in looks for row in look.asked[look.of_part]}
    assert asked == {tuple(range(36, 42)), tuple(range(48, 68))}
    places = torch.cat([points_to_crop(images.points, look.crops, 1)[look.of_part] for look in looks])
    asked_points = torch.cat([look.asked[look.of_part] for look in looks]) > 0
    assert float(((places > 0) & (places < 1)).all(-1)[asked_points].float().mean()) > 0.99
    for look in looks:
        alone = look.of_part
        assert bool((look.enlarged[~alone] == 1).all())
        torch.testing.assert_close(look.enlarged[alone], (close.sides / look.crops.sides)[alone].clamp_min(1))
    share = torch.cat([look.of_part for look in looks]).float().mean()
    assert 0.2 < float(share) < 0.5


def test_hidden_parts_are_not_looked_at_closely(folder):
    images = load_images(open_dataset(folder), torch.arange(20))
    hidden = dataclasses.replace(images, visible=torch.zeros(20, 68))
    for seed in range(10):
        assert not bool(landmark_looks(hidden, torch.Generator().manual_seed(seed)).of_part.any())


def test_a_part_alone_counts_as_much_as_a_face(folder):
    recipe = recipe_of("landmarks", SIZE)
    task = LandmarksTask(torch.nn.Identity(), open_dataset(folder), recipe, 4)
    side = recipe.size // 2
    asked = torch.ones(2, 68)
    asked[1] = 0
    asked[1, 36:42] = 1
    places = torch.full((2, 68, 2), side / 2)
    batch = {"points": 2 * places, "visible": torch.ones(2, 68), "shown": torch.ones(2), "asked": asked, "pixels": None}

    def loss(off, others=0.0):
        found = places.clone()
        found[0, :, 0] += off[0]
        found[1, 36:42, 0] += off[1]
        found[1, 48:, 0] += others
        steps = torch.arange(side) + 0.5
        square = (steps - found[..., :1]).square()[:, :, None] + (steps - found[..., 1:]).square()[..., None]
        logits = torch.zeros(2, 69)
        losses = task.losses(lambda _: (-square / (2 * SPREAD**2), logits), batch, torch.Generator())
        return [float(losses[name]) for name in ("distance", "spots", "visible", "face")]

    torch.testing.assert_close(loss((3, 0)), loss((0, 3)), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(loss((0, 0)), loss((0, 0), others=5.0), rtol=0, atol=0)
    assert loss((3, 0))[0] > loss((0, 0))[0] + 1


def test_a_turned_head_is_narrow():
    points = torch.zeros(2, 68, 2)
    points[:, 8, 1] = 100
    points[:, 45, 0] = torch.tensor([77.0, 30.0])
    wanted = [77 / math.hypot(38.5, 100), 30 / math.hypot(15, 100)]
    assert facing(points).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(("role", "metric", "better"), [("parts", "mean_iou", 1), ("normals", "mean_angle", -1)])
def test_a_role_is_learned_in_a_few_steps(folder, tmp_path, role, metric, better):
    run = TrainingRun(steps=24, batch_size=6, held_out_limit=4)
    result = train_network(role, folder, tmp_path, run)
    network = load_network(tmp_path / "network", role)
    assert network.size == SIZE
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["metrics"][metric] == pytest.approx(result.metrics[metric]) and figures["finished"]
    card = (tmp_path / "network" / "README.md").read_text()
    assert f"| {metric} | {result.metrics[metric]:.4g} |" in card and "24 steps of 6 pictures" in card
    weights = sum(value.numel() for value in network.model.parameters())
    assert f"{weights:,} weights" in card and "18 pictures of 9 persons" in card
    untrained = train_network(role, folder, tmp_path / "untrained", dataclasses.replace(run, minutes=0.0)).metrics
    assert better * result.metrics[metric] > better * untrained[metric]


def test_landmarks_train_and_are_found_in_the_whole_picture(folder, tmp_path):
    result = train_network("landmarks", folder, tmp_path, TrainingRun(steps=3, batch_size=4, held_out_limit=4))
    assert set(result.metrics) >= {"landmark_error", "landmark_error_pixels", "found_right"}
    assert load_network(tmp_path / "network", "landmarks").size == SIZE


@pytest.mark.parametrize("role", ["normals", "landmarks"])
def test_a_real_network_resumes_bit_identical(folder, tmp_path, role):
    """With 16-bit convolutions, normalisation statistics and augmentation."""
    run = TrainingRun(steps=3, batch_size=3, held_out_limit=2)
    train_network(role, folder, tmp_path / "straight", run)

    def stop(step, steps, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(role, folder, tmp_path / "stopped", run, stop)
    train_network(role, folder, tmp_path / "stopped", dataclasses.replace(run, resume=True, minutes=1e-9))
    train_network(role, folder, tmp_path / "stopped", dataclasses.replace(run, minutes=0.001 / 60, resume=True))
    train_network(role, folder, tmp_path / "stopped", dataclasses.replace(run, resume=True))
    first, second = (read_safetensors(tmp_path / name / "state.safetensors")[0] for name in ("straight", "stopped"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_goes_on_from_a_network(folder, tmp_path):
    train_network("parts", folder, tmp_path / "first", TrainingRun(steps=2, batch_size=2, held_out_limit=2))
    start = tmp_path / "first" / "network"
    run = TrainingRun(steps=1, batch_size=2, held_out_limit=2, start_from=start, minutes=0.0)
    train_network("parts", folder, tmp_path / "second", run)
    images = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    first, second = (
        segment_images(load_network(tmp_path / name / "network", "parts"), images) for name in ("first", "second")
    )
    torch.testing.assert_close(first, second)
    cards = ((tmp_path / name / "network" / "README.md").read_text() for name in ("first", "second"))
    assert ["began with the weights of another training" in card for card in cards] == [False, True]
    with pytest.raises(InvalidInput, match="another task"):
        train_network("parts", folder, tmp_path / "second", dataclasses.replace(run, start_from=None, resume=True))


def test_weights_that_do_not_fit_stay_as_they_were_and_are_named(folder, tmp_path, caplog):
    recipe = recipe_of("normals", SIZE)
    config = {**recipe.config, "classes": 3}  # one answer per block, where the recipe has four
    torch.manual_seed(5)
    known = build_model(config).state_dict()
    save_network(tmp_path / "blocks", config, known, network_description(recipe))
    run = TrainingRun(steps=1, batch_size=2, held_out_limit=2, start_from=tmp_path / "blocks", minutes=0.0)
    with caplog.at_level("WARNING", logger="animportrait3d"):
        result = train_network("normals", folder, tmp_path / "run", run)
    assert "2 of" in caplog.text and "segmentation_head.0.bias, segmentation_head.0.weight" in caplog.text
    for name, value in known.items():
        if not name.startswith("segmentation_head"):
            torch.testing.assert_close(result.weights[name], value.half().to(value.dtype))
    alien = {**TINY_ALIEN, "classes": 12}
    save_network(tmp_path / "alien", alien, build_model(alien).state_dict(), network_description(recipe))
    with pytest.raises(InvalidInput, match="1 of the 188 weights of the recipe for normals, expected"):
        train_network("normals", folder, tmp_path / "other", dataclasses.replace(run, start_from=tmp_path / "alien"))


def test_the_command_line_trains_and_goes_on(folder, tmp_path, capsys):
    command = ["train-network", "parts", "--dataset", str(folder), "--output", str(tmp_path), "--steps", "2", "--json"]
    command += ["--batch-size", "2"]
    assert main([*command, "--minutes", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is False
    assert main([*command, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 2
    assert main(command) == 2
    assert "pass --resume" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_wrong_dataset_is_refused(folder, tmp_path):
    with pytest.raises(MissingModelFile, match="manifest.json"):
        train_network("parts", tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(InvalidInput, match="role 'faces' is unknown"):
        train_network("faces", folder, tmp_path / "out")
    samples = [drawn_sample(0)]
    texts = {name: ["x"] for name in ("prompt", "full_prompt", "abstract_prompt", "view_word")}
    entry = write_shard(tmp_path, 0, {name: torch.stack([s[name] for s in samples]) for name in samples[0]}, texts)
    write_manifest(tmp_path, Manifest(SIZE, PARTS, 1, 1, {}, (entry,)))
    with pytest.raises(InvalidInput, match="1 identities, expected at least 2"):
        train_network("parts", tmp_path, tmp_path / "out")
