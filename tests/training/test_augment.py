"""Augmentations keep pictures and maps together."""

from __future__ import annotations

import math

import pytest
import torch

from animportrait3d_core.landmarks import MIRRORED_LANDMARKS
from animportrait3d_core.networks.crops import Crops, cut_out, points_from_crop, points_to_crop, whole_images
from animportrait3d_core.training.augment import (
    AugmentSettings,
    TrainingImages,
    change_light,
    composite,
    cut_images,
    degrade,
    flip,
    random_backgrounds,
    random_crops,
    turn_normals,
)

SIZE = 96


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ball(size=SIZE, center=(0.5, 0.5), radius=0.3):
    """A white ball with its true normals, and its centre as a point: nothing about it knows which way is up."""
    steps = (torch.arange(size) + 0.5) / size
    x, y = (steps[None] - center[0]) / radius, -(steps[:, None] - center[1]) / radius
    square = x**2 + y**2
    z = (1 - square).clamp_min(0).sqrt()
    inside = square < 1
    normals = torch.stack([x.expand(size, size), y.expand(size, size), z]) * inside
    point = torch.tensor(center) * size
    alpha = inside.float()[None, None]
    return TrainingImages(
        alpha.repeat(1, 3, 1, 1) * 0.8, alpha, inside.to(torch.uint8)[None], normals[None],
        point.expand(1, 68, 2).clone(), torch.ones(1, 68),
    )  # fmt: skip


def random_images(count=3):
    draw = generator(1)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, SIZE, SIZE, generator=draw), dim=1)
    return TrainingImages(
        torch.rand(count, 3, SIZE, SIZE, generator=draw), torch.ones(count, 1, SIZE, SIZE),
        torch.randint(0, 7, (count, SIZE, SIZE), generator=draw).to(torch.uint8), normals,
        torch.rand(count, 68, 2, generator=draw) * SIZE, torch.rand(count, 68, generator=draw),
    )  # fmt: skip


def test_two_flips_change_nothing():
    images = random_images()
    chosen = torch.tensor([True, False, True])
    twice = flip(flip(images, chosen), chosen)
    for name in ("colors", "alpha", "labels", "normals", "visible"):
        assert torch.equal(getattr(twice, name), getattr(images, name)), name
    torch.testing.assert_close(twice.points, images.points)


def test_only_the_chosen_are_flipped():
    images = random_images()
    once = flip(images, torch.tensor([True, False, True]))
    assert torch.equal(once.colors[1], images.colors[1]) and torch.equal(once.points[1], images.points[1])
    assert torch.equal(once.colors[0], images.colors[0].flip(-1))
    assert torch.equal(once.labels[2], images.labels[2].flip(-1))


def test_flipped_points_change_sides_and_names():
    images = random_images()
    flipped = flip(images, torch.ones(3, dtype=torch.bool))
    for number in (0, 8, 17, 36, 48, 60):
        other = MIRRORED_LANDMARKS[number]
        torch.testing.assert_close(flipped.points[:, number, 0], SIZE - images.points[:, other, 0])
        torch.testing.assert_close(flipped.points[:, number, 1], images.points[:, other, 1])
        torch.testing.assert_close(flipped.visible[:, number], images.visible[:, other])


def test_mirrored_names_are_those_of_ibug(mannequin_body):
    """On the neutral mannequin, which is symmetric, each point's mirror image is the point of that name."""
    points = mannequin_body(mannequin_body.neutral_parameters()).landmarks[0, :68]
    mirrored = points * torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(mirrored, points[list(MIRRORED_LANDMARKS)[:68]], atol=0.004, rtol=0)
    assert [MIRRORED_LANDMARKS[index] for index in MIRRORED_LANDMARKS] == list(range(70))


def test_a_flipped_ball_is_a_ball():
    there, here = ball(center=(0.4, 0.6)), ball(center=(0.6, 0.6))
    flipped = flip(there, torch.tensor([True]))
    torch.testing.assert_close(flipped.normals, here.normals, atol=1e-5, rtol=0)
    torch.testing.assert_close(flipped.points, here.points)
    assert torch.equal(flipped.labels, here.labels)


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.7, math.pi / 2])
def test_a_turned_and_scaled_ball_is_a_ball(angle):
    """The cut-out of a ball is again a ball with its own normals, whatever the angle: both kinds of turn must agree."""
    crops = Crops(torch.tensor([[52.0, 44.0]]), torch.tensor([80.0]), torch.tensor([angle]))
    cut = cut_images(ball(), crops, 128)
    center = (cut.points[0, 0] / 128).tolist()
    wanted = ball(128, center, 0.3 * SIZE / 80)
    inside = (wanted.normals[0, 2] > 0.3) & (cut.normals[0, 2] > 0.3)
    cosine = (cut.normals[0] * wanted.normals[0]).sum(0)[inside]
    assert float(torch.rad2deg(torch.arccos(cosine.clamp(max=1))).mean()) < 0.5
    assert float(inside.float().mean()) > 0.3
    assert float((cut.labels == wanted.labels).float().mean()) > 0.99


def test_a_quarter_turn_is_exact():
    images = random_images(1)
    crops = Crops(torch.tensor([[SIZE / 2, SIZE / 2]]), torch.tensor([float(SIZE)]), torch.tensor([math.pi / 2]))
    cut = cut_images(images, crops, SIZE)
    # The square's x axis points down the picture, so that what was at the bottom comes to the right.
    torch.testing.assert_close(cut.colors, images.colors.rot90(1, (2, 3)), atol=2e-5, rtol=0)
    assert torch.equal(cut.labels, images.labels.rot90(1, (1, 2)))
    x, y, z = images.normals.rot90(1, (2, 3)).unbind(1)
    torch.testing.assert_close(cut.normals, torch.stack([-y, x, z], 1), atol=1e-4, rtol=0)


def test_turning_normals_keeps_their_length_and_depth():
    normals = random_images().normals
    turned = turn_normals(normals, torch.tensor([0.1, 2.0, -1.0]))
    torch.testing.assert_close(turned.norm(dim=1), normals.norm(dim=1))
    assert torch.equal(turned[:, 2], normals[:, 2])


def test_points_go_where_the_pixels_go():
    """A bright dot is found in the cut-out where its point says."""
    image = torch.zeros(1, 3, SIZE, SIZE)
    image[0, :, 30, 61] = 1.0
    point = torch.tensor([[[61.5, 30.5]]])
    crops = Crops(torch.tensor([[50.0, 40.0]]), torch.tensor([60.0]), torch.tensor([0.4]))
    cut = cut_out(image, crops, 240)[0, 0]
    steps = torch.arange(240) + 0.5
    share = cut / cut.sum()
    found = torch.stack([(share.sum(0) * steps).sum(), (share.sum(1) * steps).sum()])
    torch.testing.assert_close(found, points_to_crop(point, crops, 240)[0, 0], atol=0.05, rtol=0)


def test_points_come_back():
    draw = generator(3)
    crops = Crops(
        torch.rand(4, 2, generator=draw) * 50, torch.rand(4, generator=draw) * 90 + 5, torch.randn(4, generator=draw)
    )
    points = torch.rand(4, 11, 2, generator=draw) * 100
    back = points_from_crop(points_to_crop(points, crops, 128), crops, 128)
    torch.testing.assert_close(back, points, atol=1e-3, rtol=0)


def test_the_whole_picture_at_its_size_is_the_picture():
    images = random_images().colors
    same = cut_out(images, whole_images(3, SIZE, SIZE), SIZE)
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


def test_the_whole_picture_lies_in_the_middle_of_its_square():
    crops = whole_images(2, 40, 60)
    assert crops.centers.tolist() == [[30.0, 20.0]] * 2 and crops.sides.tolist() == [60.0] * 2


def test_shrinking_averages():
    images = torch.rand(1, 2, SIZE, SIZE, generator=generator())
    small = cut_out(images, whole_images(1, SIZE, SIZE), SIZE // 4)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(images, 4), atol=1e-5, rtol=0)


def test_a_cutout_does_not_depend_on_the_others():
    images = random_images().colors
    crops = Crops(torch.full((3, 2), 40.0), torch.tensor([30.0, 96.0, 200.0]), torch.tensor([0.1, 0.2, 0.3]))
    together = cut_out(images, crops, 48)
    for index in range(3):
        alone = Crops(crops.centers[[index]], crops.sides[[index]], crops.angles[[index]])
        assert torch.equal(cut_out(images[[index]], alone, 48)[0], together[index])


def test_compositing_lays_the_background_behind_once():
    red, half = torch.tensor([1.0, 0, 0])[:, None, None], torch.full((1, 1, 4, 4), 0.25)
    images = TrainingImages((red * half).expand(1, 3, 4, 4), half)
    colors = composite(images, torch.tensor([0.2, 0.4, 0.6])[None, :, None, None]).colors
    wanted = torch.tensor([0.25 + 0.75 * 0.2, 0.75 * 0.4, 0.75 * 0.6])
    torch.testing.assert_close(colors[0, :, 2, 1], wanted)


def test_backgrounds_are_white_as_often_as_asked():
    backgrounds = random_backgrounds(400, 8, AugmentSettings(white_share=0.7), generator())
    white = (backgrounds.amin(dim=(1, 2, 3)) == 1).float().mean()
    flat = (backgrounds.amax(dim=(2, 3)) == backgrounds.amin(dim=(2, 3))).all(1).float().mean()
    assert float(white) == pytest.approx(0.7, abs=0.06)
    assert float(flat) == pytest.approx(0.85, abs=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_pictures_stay_pictures(seed):
    images, settings = random_images(), AugmentSettings()
    colors = degrade(change_light(images.colors, 0.25, generator(seed)), settings, generator(seed))
    assert colors.shape == images.colors.shape
    assert float(colors.min()) >= 0 and float(colors.max()) <= 1
    again = degrade(change_light(images.colors, 0.25, generator(seed)), settings, generator(seed))
    assert torch.equal(colors, again)


def test_degradations_happen_as_often_as_asked():
    colors = torch.full((60, 3, 16, 16), 0.5)
    never = AugmentSettings(blur_share=0, resample_share=0, noise_share=0)
    torch.testing.assert_close(degrade(colors, never, generator()), colors)
    noisy = degrade(colors, AugmentSettings(blur_share=0, resample_share=0, noise_share=0.5), generator())
    share = ((noisy - colors).abs().amax(dim=(1, 2, 3)) > 0).float().mean()
    assert float(share) == pytest.approx(0.5, abs=0.2)
    assert float((noisy - colors).std()) < 0.08


def test_blur_keeps_the_mean_and_takes_the_contrast():
    colors = (torch.rand(8, 3, 64, 64, generator=generator()) > 0.5).float()
    blurred = degrade(colors, AugmentSettings(blur_share=1, resample_share=0, noise_share=0), generator())
    torch.testing.assert_close(blurred.mean(dim=(2, 3)), colors.mean(dim=(2, 3)), atol=0.02, rtol=0)
    assert bool((blurred.std(dim=(1, 2, 3)) < colors.std(dim=(1, 2, 3))).all())


@pytest.mark.parametrize("kind", ["blur_share", "resample_share"])
def test_pictures_that_are_enlarged_are_as_much_softer(kind):
    """What was blurred and then enlarged four times, is the enlarged picture blurred four times as wide."""
    shares = {"blur_share": 0, "resample_share": 0, "noise_share": 0} | {kind: 1}
    settings, colors = AugmentSettings(**shares), torch.rand(3, 3, 24, 24, generator=generator(3))

    def large(images):
        return torch.nn.functional.interpolate(images, scale_factor=4, mode="bilinear")

    once = large(degrade(colors, settings, generator()))
    softer = degrade(large(colors), settings, generator(), torch.full((3,), 4.0))
    unscaled = degrade(large(colors), settings, generator())
    middle = (..., slice(24, -24), slice(24, -24))
    near, far = ((image[middle] - once[middle]).square().mean().sqrt() for image in (softer, unscaled))
    assert float(near) < 0.4 * float(far)


def test_crops_stay_within_the_settings():
    settings = AugmentSettings(smallest=0.5, largest=1.5, shift=0.1, turn_degrees=10)
    crops = random_crops(
        TrainingImages(torch.zeros(500, 3, 64, 64), torch.zeros(500, 1, 64, 64)), settings, generator()
    )
    assert 32 <= float(crops.sides.min()) < 34 and 94 < float(crops.sides.max()) <= 96
    assert float((crops.centers - 32).abs().max()) <= 6.4
    assert float(crops.angles.abs().max()) <= math.radians(10)
