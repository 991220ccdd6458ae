"""Networks that look at the surface beside the picture: what reaches the model, and who does without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, ShapeMismatch
from animportrait3d_core.networks import ImageNetwork, detect_landmarks, load_network, segment_images
from animportrait3d_core.networks.predict import has_one_color, seen_pixels
from tests.networks.tiny_networks import DESCRIPTIONS, TINY, write

SEES = {"inputs": ["colors", "normals"]}


def unit_normals(*shape: int) -> Tensor:
    """Unit vectors [*shape, 3], none in the left third."""
    normals = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=torch.Generator().manual_seed(3)), dim=-1)
    normals[:, :, : shape[2] // 3] = 0
    return normals


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    config = {**TINY, "classes": 7, "in_channels": 28}
    folder = tmp_path_factory.mktemp("parts")
    write(folder, "parts", config, {**DESCRIPTIONS["parts"], "pixel_unshuffle": 2, **SEES})
    return load_network(folder, "parts")


@pytest.fixture
def images():
    return torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(1))


def test_normals_are_seen_and_may_be_absent(network, images):
    assert network.sees_normals and network.input_channels == 7
    normals = unit_normals(2, 64, 64)
    without = segment_images(network, images)
    assert torch.equal(without, segment_images(network, images, normals=torch.zeros_like(normals)))
    assert float((without - segment_images(network, images, normals=normals)).abs().max()) > 1e-3


def test_a_mirrored_subject_has_the_mirrored_answer(network, images):
    normals = unit_normals(2, 64, 64)
    mirrored = normals.flip(2) * torch.tensor([-1.0, 1, 1])
    found = segment_images(network, images, normals=normals)
    torch.testing.assert_close(segment_images(network, images.flip(2), normals=mirrored), found.flip(2))
    unturned = segment_images(network, images.flip(2), normals=normals.flip(2))
    assert float((unturned - found.flip(2)).abs().max()) > 1e-3


def test_networks_that_see_pictures_alone_leave_normals_out(tmp_path, images):
    write(tmp_path, "parts", {**TINY, "classes": 7}, DESCRIPTIONS["parts"])
    network = load_network(tmp_path, "parts")
    assert not network.sees_normals and network.input_channels == 3
    found = segment_images(network, images, normals=unit_normals(2, 64, 64))
    assert torch.equal(segment_images(network, images), found)


def test_normals_that_do_not_fit_are_named(network, images):
    with pytest.raises(ShapeMismatch, match="segment_images.*normals"):
        segment_images(network, images, normals=torch.zeros(2, 32, 32, 3))
    with pytest.raises(InvalidInput, match="normals.*non-finite"):
        segment_images(network, images, normals=torch.full((2, 64, 64, 3), float("nan")))


@pytest.mark.parametrize("inputs", [["normals"], "colors", ["colors", "depth"]])
def test_unknown_inputs_are_named(tmp_path, inputs):
    write(tmp_path, "parts", {**TINY, "classes": 7}, {**DESCRIPTIONS["parts"], "inputs": inputs})
    with pytest.raises(InvalidInput, match=r"`inputs` in network.json .* expected \['colors'\] or"):
        load_network(tmp_path, "parts")


def test_a_network_for_normals_sees_pictures_alone(tmp_path):
    write(tmp_path, "normals", {**TINY, "classes": 3}, {"role": "normals", "size": 64, **SEES})
    with pytest.raises(InvalidInput, match=r"expected \['colors'\] for normals"):
        load_network(tmp_path, "normals")


def test_the_model_must_have_the_channels(tmp_path):
    write(tmp_path, "parts", {**TINY, "classes": 7}, {**DESCRIPTIONS["parts"], **SEES})
    with pytest.raises(IncompatibleCheckpoint, match="`in_channels` 7: 7 x the square"):
        load_network(tmp_path, "parts")


class Recorder(torch.nn.Module):
    """Keeps what it is shown; points are everywhere, the face is certain."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(pixels)
        return pixels.new_zeros(len(pixels), 68, 16, 16), pixels.new_full((len(pixels), 69), 9.0)


def test_every_look_for_landmarks_shows_the_surface():
    model, none, one = Recorder(), torch.zeros(3), torch.ones(3)
    network = ImageNetwork(
        "landmarks", model, (), tuple(range(68)), 64, none, one, torch.device("cpu"), sees_normals=True
    )
    images, normals = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2)), unit_normals(1, 64, 64)
    detect_landmarks(network, images, normals=normals)
    whole, last, mirrored = model.seen[0], model.seen[-2], model.seen[-1]
    torch.testing.assert_close(whole[0, 3:6].permute(1, 2, 0), normals[0])
    assert torch.equal(whole[0, 6] > 0.5, normals[0].norm(dim=-1) > 0.5)
    signs = torch.tensor([1.0, 1, 1, -1, 1, 1, 1])[:, None, None]
    assert torch.equal(mirrored, last.flip(-1) * signs)


def shaded(*albedos: tuple[float, float, float]) -> Tensor:
    """A picture [1, 64, 64, 3] in light and shade, of one colour, or of one in its upper half and one in its lower."""
    light = torch.rand(1, 64, 64, 1, generator=torch.Generator().manual_seed(5))
    rows = torch.tensor(albedos).repeat_interleave(64 // len(albedos), 0)
    return light * rows[None, :, None]


CLAY, SKIN, LIPS = (0.8, 0.75, 0.7), (0.9, 0.6, 0.5), (0.8, 0.35, 0.35)


def test_a_picture_of_one_colour_is_left_to_its_surface(network):
    pictures = torch.cat([shaded(CLAY), shaded(SKIN, LIPS)])
    normals = unit_normals(2, 64, 64)
    seen = seen_pixels("test", network, pictures, normals)
    assert torch.equal(seen[0, ..., :3], network.mean.expand(64, 64, 3))
    assert torch.equal(seen[1, ..., :3], pictures[1])
    assert torch.equal(seen[..., 3:6], normals)
    alone = seen_pixels("test", network, pictures, None)
    assert torch.equal(alone[..., :3], pictures) and not alone[..., 3:].any()
    nowhere = seen_pixels("test", network, pictures, torch.zeros_like(normals))
    assert torch.equal(nowhere[..., :3], pictures)


def test_colours_count_where_the_subject_is_and_not_in_the_dark():
    known = torch.zeros(1, 64, 64, dtype=torch.bool)
    known[:, :32] = True
    assert has_one_color(shaded(SKIN, LIPS), known).tolist() == [True]
    known[:, 32:] = True
    assert has_one_color(shaded(SKIN, LIPS), known).tolist() == [False]
    noise = 0.04 * torch.rand(1, 32, 64, 3, generator=torch.Generator().manual_seed(6))
    assert has_one_color(torch.cat([shaded(CLAY)[:, :32], noise], 1), known).tolist() == [True]
