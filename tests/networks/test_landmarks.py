"""The detector's passes, with a network that is replaced by a rule whose answer is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.landmarks import LEFT_EYE, MIRRORED_LANDMARKS, MOUTH, RIGHT_EYE
from animportrait3d_core.networks import ImageNetwork, detect_landmarks
from animportrait3d_core.networks.landmarks import PASSES

ORIGIN = torch.tensor([[40.3, 31.7]])
LOOKS = PASSES + 1
SEEN = torch.linspace(-2, 4, 68)
FACE = ORIGIN + 14 * torch.stack([torch.cos(torch.arange(68) * 0.7), torch.sin(torch.arange(68) * 1.3)], -1)


class Painter(torch.nn.Module):
    """Takes a picture whose colour is its own place, (x, y) / 100, and so knows where each of its pixels lies.

    Heatmap n peaks where the colour is that of point n; in a mirrored picture it gives the points the names that they
    seem to have. The logits of a face are those handed in for each look, those of the points `SEEN`.
    """

    def __init__(self, logits=(3.0,) * LOOKS):
        super().__init__()
        self.logits, self.looks = list(logits), []

    def forward(self, images):
        places = images[:, :2] * 100
        self.looks.append(places)
        scale = (places[:, 0, :, 1:] - places[:, 0, :, :-1]).mean()
        names = list(MIRRORED_LANDMARKS[:68]) if scale < 0 else list(range(68))
        distance = (places[:, None] - FACE[names][None, :, :, None, None]).square().sum(2)
        logits = torch.cat([torch.tensor([self.logits[len(self.looks) - 1]]), SEEN[names]])
        return -distance / scale**2 / 2, logits.expand(len(images), 69)


def network_of(model, size=64):
    none, one = torch.zeros(3), torch.ones(3)
    return ImageNetwork("landmarks", model, (), tuple(range(68)), size, none, one, torch.device("cpu"))


def place_image(height, width):
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    places = torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.zeros(height, width)], -1)
    return places[None] / 100


@pytest.mark.parametrize(("height", "width"), [(64, 80), (80, 64), (64, 64), (150, 90)])
def test_points_are_found_to_a_fraction_of_a_pixel(height, width):
    points, confidence, found = detect_landmarks(network_of(Painter()), place_image(height, width))
    assert bool(found)
    torch.testing.assert_close(confidence[0], SEEN.sigmoid())
    torch.testing.assert_close(points[0], FACE, atol=0.03, rtol=0)


def test_heatmaps_may_be_coarser_than_pictures():
    class Coarse(Painter):
        def forward(self, images):
            return super().forward(torch.nn.functional.avg_pool2d(images, 2))

    points, _, _ = detect_landmarks(network_of(Coarse()), place_image(80, 64))
    torch.testing.assert_close(points[0], FACE, atol=0.05, rtol=0)


def test_heatmaps_may_be_answered_in_blocks():
    class Blocks(Painter):
        def forward(self, images):
            heatmaps, logits = super().forward(torch.nn.functional.pixel_shuffle(images, 2))
            return torch.nn.functional.pixel_unshuffle(heatmaps, 2), logits

    network = dataclasses.replace(network_of(Blocks()), pixel_unshuffle=2)
    points, _, _ = detect_landmarks(network, place_image(80, 64))
    torch.testing.assert_close(points[0], FACE, atol=0.03, rtol=0)


def test_each_look_is_closer():
    model = Painter()
    detect_landmarks(network_of(model), place_image(90, 90))
    *widths, mirrored = (float(look[0, 0, 0, -1] - look[0, 0, 0, 0]) for look in model.looks)
    extent = float((FACE.amax(0) - FACE.amin(0)).max())
    assert len(widths) == PASSES and mirrored == pytest.approx(-widths[-1])
    assert widths[0] > 85
    assert widths[1] == pytest.approx(1.6 * extent, rel=0.05) and widths[2] == pytest.approx(1.6 * extent, rel=0.05)


class Nearsighted(Painter):
    """A painter that sees everything four pixels too far to the right, unless it looks at less than a face."""

    def __init__(self):
        super().__init__((3.0,) * (LOOKS + 4))

    def forward(self, images):
        heatmaps, logits = super().forward(images)
        if len(self.looks) > LOOKS:
            return heatmaps, logits
        first, last = self.looks[-1][0, 0, 0, [0, -1]].tolist()
        return torch.roll(heatmaps, 4 if first < last else -4, 3), logits


def parts_found(closely, on_surface=True):
    model = Nearsighted()
    network, images = dataclasses.replace(network_of(model), looks_closely=closely), place_image(90, 90)
    normals = torch.tensor([0.0, 0.0, 1.0]).expand_as(images) if on_surface else None
    points, confidence, _ = detect_landmarks(network, images, normals=normals)
    return points[0] - FACE, confidence[0], model.looks


def test_eyes_and_mouth_are_looked_at_by_themselves():
    far, confidence, looks = parts_found(False)
    near, same, closer = parts_found(True)
    assert len(looks) == LOOKS and float(far[:, 0].min()) > 0.5
    assert torch.equal(confidence, same)
    torch.testing.assert_close(near[36:48], torch.zeros(12, 2), atol=0.03, rtol=0)
    torch.testing.assert_close(near[48:], far[48:] / 2, atol=0.03, rtol=0)
    torch.testing.assert_close(near[:36], far[:36])
    # The right eye as it is, the left in the mirror, the mouth both ways.
    widths = [float(look[0, 0, 0, -1] - look[0, 0, 0, 0]) for look in closer[LOOKS:]]
    extents = [float((FACE[part].amax(0) - FACE[part].amin(0)).max()) for part in (RIGHT_EYE, LEFT_EYE, MOUTH)]
    wanted = [2.2 * extents[0], -2.2 * extents[1], 1.8 * extents[2], -1.8 * extents[2]]
    assert widths == pytest.approx(wanted, rel=0.05)


def test_without_a_surface_nothing_is_looked_at_closely():
    far, _, _ = parts_found(False)
    points, _, looks = parts_found(True, on_surface=False)
    assert len(looks) == LOOKS and torch.equal(points, far)


def test_parts_that_are_hidden_are_not_looked_at_closely(monkeypatch):
    monkeypatch.setitem(globals(), "SEEN", torch.where(torch.arange(68) < 42, -1.0, 1.0))
    far, _, _ = parts_found(False)
    near, _, looks = parts_found(True)
    assert len(looks) == LOOKS + 3
    torch.testing.assert_close(near[:42], far[:42])
    torch.testing.assert_close(near[42:48], torch.zeros(6, 2), atol=0.03, rtol=0)


@pytest.mark.parametrize("logits", [(-3.0, 3, 3, 3), (3.0, -3, 3, 3), (3.0, 3, -3, -2), (3.0, 3, 1, -2)])
def test_a_face_that_one_look_denies_is_not_found(logits):
    points, confidence, found = detect_landmarks(network_of(Painter(logits)), place_image(64, 64))
    assert not bool(found) and float(confidence.max()) == 0 and bool(torch.isfinite(points).all())


def test_guesses_far_outside_do_not_break_the_passes():
    class Lost(torch.nn.Module):
        def forward(self, images):
            heatmaps = torch.zeros(len(images), 68, 32, 32)
            heatmaps[:, :, 0, 0] = 99.0
            return heatmaps, torch.full((len(images), 69), 9.0)

    points, _, found = detect_landmarks(network_of(Lost(), 32), torch.rand(2, 40, 30, 3, generator=torch.Generator()))
    assert bool(torch.isfinite(points).all()) and found.shape == (2,)


def test_progress_counts_pictures():
    seen = []
    model = Painter([3.0] * 2 * LOOKS)
    detect_landmarks(network_of(model), place_image(64, 64).expand(20, 64, 64, 3), lambda *step: seen.append(step))
    assert seen == [(16, 20, None), (20, 20, None)]
