"""Network folders: what is written is read, by us and by segmentation-models-pytorch; what does not fit is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from animportrait3d_core.embedded.weights import embedded_network_folder
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.networks import (
    ImageNetwork,
    detect_landmarks,
    estimate_normals,
    load_network,
    parts_matte,
    save_network,
    segment_images,
)
from animportrait3d_core.networks.predict import predict_maps
from animportrait3d_core.parts import PART_CLASSES
from tests.networks.tiny_networks import CONFIGS, DESCRIPTIONS, TINY, write

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("networks")
    for role in CONFIGS:
        write(root / role, role)
    return root


@pytest.fixture
def images():
    return torch.rand(3, 40, 72, 3, generator=torch.Generator().manual_seed(1))


def test_weights_survive_in_half_precision(folders):
    network = load_network(folders / "parts", "parts")
    for name, value in write(folders / "again", "parts").state_dict().items():
        assert torch.equal(network.model.state_dict()[name], value.half().to(value.dtype)), name


def test_segmentation_models_pytorch_reads_our_folders(folders):
    import segmentation_models_pytorch as smp

    theirs = smp.from_pretrained(folders / "normals").eval()
    ours = load_network(folders / "normals", "normals").model
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images))


def test_a_checkpoint_of_segmentation_models_pytorch_is_read(tmp_path):
    import segmentation_models_pytorch as smp

    torch.manual_seed(1)
    theirs = smp.FPN("resnet18", encoder_weights=None, classes=5).eval()
    theirs.save_pretrained(tmp_path)
    classes = ["hair", "background", "face", "face", "clothes"]
    (tmp_path / "network.json").write_text(json.dumps({"role": "parts", "classes": classes, "size": 96}))
    network = load_network(tmp_path / "model.safetensors", "parts")
    images = torch.rand(1, 96, 96, 3, generator=torch.Generator().manual_seed(3))
    found = segment_images(network, images)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = ((images - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        upright, mirrored = (theirs(pictures).softmax(1)[0] for pictures in (normalized, normalized.flip(-1)))
    wanted = (upright + mirrored.flip(-1)) / 2
    torch.testing.assert_close(found[0, ..., network.classes.index("face")], wanted[2] + wanted[3], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0, ..., network.classes.index("hair")], wanted[0], atol=1e-5, rtol=0)
    assert found[..., network.classes.index("lips")].abs().max() == 0


def test_probabilities_sum_to_one_at_the_pictures_size(folders, images):
    network = load_network(folders / "parts", "parts")
    steps = []
    found = segment_images(network, images, lambda done, total, preview: steps.append((done, total)))
    assert found.shape == (3, 40, 72, 7) and network.classes == PART_CLASSES
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 40, 72))
    assert steps[-1] == (3, 3)
    matte = parts_matte(network, found)
    torch.testing.assert_close(matte, found[..., 1:].sum(-1), atol=1e-6, rtol=0)


def test_mirrored_pictures_have_mirrored_answers(folders):
    """The widths are whole strides, so that padding is on the same side."""
    images = torch.rand(2, 32, 64, 3, generator=torch.Generator().manual_seed(5))
    parts, normals = (load_network(folders / role, role) for role in ("parts", "normals"))
    torch.testing.assert_close(segment_images(parts, images.flip(2)), segment_images(parts, images).flip(2))
    masks = torch.ones(2, 32, 64)
    found, mirrored = (estimate_normals(normals, pictures, masks) for pictures in (images, images.flip(2)))
    torch.testing.assert_close(mirrored, found.flip(2) * torch.tensor([-1.0, 1, 1]))


def test_wide_pictures_are_padded_and_cut_again(folders):
    network = load_network(folders / "parts", "parts")
    images = torch.rand(1, 40, 64, 3, generator=torch.Generator().manual_seed(4))
    padded = torch.cat([images, images[:, -1:].expand(1, 24, 64, 3)], dim=1)
    torch.testing.assert_close(segment_images(network, images), segment_images(network, padded)[:, :40])


class Blocks(torch.nn.Module):
    """Answers the mean of each block of 2 x 2 pixels: a map of half the size."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return images.unflatten(1, (3, 4)).mean(2)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 64), (64, 20)])
def test_blocks_of_pixels_are_channels_and_answers_come_back_at_the_pictures_size(height, width):
    model, none, one = Blocks(), torch.zeros(3), torch.ones(3)
    network = ImageNetwork("normals", model, (), (0, 1, 2), 64, none, one, torch.device("cpu"), 2)
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    ramp = torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.ones(height, width)], -1) / 64
    found = predict_maps(network, ramp[None])[0].permute(1, 2, 0)
    assert found.shape == ramp.shape and model.seen[0].shape == (1, 12, 32, 32)
    # A ramp survives halving and doubling everywhere but in the outermost pixels.
    torch.testing.assert_close(found[1:-1, 1:-1], ramp[1:-1, 1:-1], atol=1e-6, rtol=0)
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    predict_maps(network, image)
    block = image[0, 10:12, 20:22].permute(2, 0, 1).flatten()
    torch.testing.assert_close(model.seen[1][0, :, 5, 10], block)


def test_answers_in_blocks_are_spread_out():
    none, one = torch.zeros(3), torch.ones(3)
    network = ImageNetwork("normals", torch.nn.Identity(), (), (0, 1, 2), 64, none, one, torch.device("cpu"), 2)
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predict_maps(network, images), images.permute(0, 3, 1, 2))


def test_a_model_that_answers_in_blocks_is_read(tmp_path):
    config, description = {**TINY, "in_channels": 12, "classes": 12}, {**DESCRIPTIONS["normals"], "pixel_unshuffle": 2}
    write(tmp_path, "normals", config, description)
    images = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    normals = estimate_normals(load_network(tmp_path, "normals"), images, torch.ones(1, 64, 64))
    # Single pixels have answers of their own: no two of a block are alike, as enlarged ones nearly would be.
    assert float((normals[:, ::2] - normals[:, 1::2]).abs().amin(-1).mean()) > 1e-3


def test_the_size_of_blocks_is_read(tmp_path):
    write(tmp_path, "parts", {**CONFIGS["parts"], "in_channels": 12}, {**DESCRIPTIONS["parts"], "pixel_unshuffle": 2})
    network = load_network(tmp_path, "parts")
    assert network.pixel_unshuffle == 2
    for height, width in ((40, 72), (64, 20)):
        images = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(5))
        assert segment_images(network, images).shape == (1, height, width, 7)


def test_one_picture_does_not_change_another(folders, images):
    network = load_network(folders / "parts", "parts")
    together = segment_images(network, images)
    for index in range(len(images)):
        torch.testing.assert_close(
            segment_images(network, images[index : index + 1])[0], together[index], atol=1e-5, rtol=0
        )


def test_no_pictures_give_no_answers(folders):
    empty = torch.zeros(0, 32, 32, 3)
    assert segment_images(load_network(folders / "parts", "parts"), empty).shape == (0, 32, 32, 7)
    assert estimate_normals(load_network(folders / "normals", "normals"), empty, empty[..., 0]).shape == empty.shape
    assert detect_landmarks(load_network(folders / "landmarks", "landmarks"), empty)[0].shape == (0, 68, 2)


def test_normals_are_unit_inside_the_mask_and_zero_outside(folders, images):
    masks = torch.zeros(3, 40, 72)
    masks[:, 5:30, 10:50] = 0.3
    normals = estimate_normals(load_network(folders / "normals", "normals"), images, masks)
    torch.testing.assert_close(normals.norm(dim=-1)[masks > 0], torch.ones(3 * 25 * 40))
    assert normals[masks == 0].abs().max() == 0


def test_normals_of_a_network_without_opinion_face_the_camera(folders, images):
    network = load_network(folders / "normals", "normals")
    for value in network.model.segmentation_head.parameters():
        value.zero_()
    normals = estimate_normals(network, images, torch.ones(3, 40, 72))
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, 1]).expand_as(normals))


def test_works_in_inference_mode(folders, images):
    with torch.inference_mode():
        points, confidence, found = detect_landmarks(load_network(folders / "landmarks", "landmarks"), images)
    assert points.shape == (3, 68, 2) and bool(torch.isfinite(points).all())
    assert float(confidence.min()) >= 0 and float(confidence.max()) <= 1
    assert found.dtype == torch.bool


@pytest.mark.parametrize("missing", ["network.json", "config.json", "model.safetensors"])
def test_missing_files_are_named(tmp_path, missing):
    write(tmp_path, "normals")
    (tmp_path / missing).unlink()
    with pytest.raises(MissingModelFile, match=rf"{missing}' does not exist.*docs/networks.md"):
        load_network(tmp_path, "normals")


def test_another_role_is_named(folders):
    with pytest.raises(IncompatibleCheckpoint, match="for 'normals', expected one for 'parts'"):
        load_network(folders / "normals", "parts")
    with pytest.raises(InvalidInput, match="role 'depth' is unknown, expected one of parts, normals, landmarks"):
        load_network(folders / "normals", "depth")
    with pytest.raises(InvalidInput, match="segment_images: the network is for 'normals', expected one for 'parts'"):
        segment_images(load_network(folders / "normals", "normals"), torch.zeros(1, 32, 32, 3))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["background", "face", "hair", "eyes", "lips", "mouth", "mouth"], "lacks the class clothes"),
        (["background", "face", "hair", "clothes", "eyes", "nose", "mouth"], "names unknown classes nose"),
        (["background", "face", "hair", "clothes"], "answers 7 channels, but .* names 4"),
    ],
)
def test_wrong_class_lists_are_named(tmp_path, classes, message):
    write(tmp_path, "parts", description={"role": "parts", "classes": classes})
    with pytest.raises(IncompatibleCheckpoint, match=message):
        load_network(tmp_path, "parts")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": "face"}, InvalidInput, "`classes` .* expected a list"),
        ({"size": 3}, InvalidInput, "`size` .* is 3, expected 64 to 2048"),
        ({"std": [0.5, 0.5, 0.0]}, InvalidInput, "`std` .* expected three numbers"),
        ({"mean": [0.5]}, InvalidInput, "`mean` .* expected three numbers"),
        ({"pixel_unshuffle": 0}, InvalidInput, "`pixel_unshuffle` .* is 0, expected 1 to 8"),
        ({"pixel_unshuffle": 2}, IncompatibleCheckpoint, "expected `in_channels` 12: 3 x the square of"),
    ],
)
def test_wrong_descriptions_are_named(tmp_path, change, error, message):
    write(tmp_path, "parts", description={**DESCRIPTIONS["parts"], **change})
    with pytest.raises(error, match=message):
        load_network(tmp_path, "parts")


def test_channel_counts_are_checked(tmp_path):
    write(tmp_path / "normals", "normals", config={**TINY, "classes": 4})
    with pytest.raises(IncompatibleCheckpoint, match="answers 4 channels, but normals need 3"):
        load_network(tmp_path / "normals", "normals")
    write(tmp_path / "landmarks", "landmarks", config={**TINY, "classes": 68})
    with pytest.raises(IncompatibleCheckpoint, match="answers no logits .* expected 69"):
        load_network(tmp_path / "landmarks", "landmarks")
    write(tmp_path / "rgba", "normals", config={**TINY, "classes": 3, "in_channels": 4})
    with pytest.raises(IncompatibleCheckpoint, match="expected `in_channels` 3"):
        load_network(tmp_path / "rgba", "normals")


def test_weights_of_another_model_are_named(tmp_path):
    write(tmp_path, "normals")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS["normals"], "decoder_channels": [8, 8, 8, 8, 4]}))
    with pytest.raises(IncompatibleCheckpoint, match="0 tensors are missing, 0 unknown, 11 of another shape"):
        load_network(tmp_path, "normals")


def test_configs_that_cannot_be_built_are_named(tmp_path):
    write(tmp_path, "normals")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS["normals"], "_model_class": "NoNet"}))
    with pytest.raises(IncompatibleCheckpoint, match="`_model_class` is 'NoNet', expected one of Unet"):
        load_network(tmp_path, "normals")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIGS["normals"], "encoder_name": "no_such_encoder"}))
    with pytest.raises(IncompatibleCheckpoint, match="cannot build this Unet"):
        load_network(tmp_path, "normals")
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(InvalidInput, match="not readable JSON"):
        load_network(tmp_path, "normals")


def test_damaged_weights_are_refused(tmp_path):
    model = write(tmp_path, "normals")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match="not a whole safetensors file"):
        load_network(tmp_path, "normals")
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["segmentation_head.0.bias"][0] = float("nan")
    save_network(tmp_path, CONFIGS["normals"], weights, DESCRIPTIONS["normals"])
    with pytest.raises(InvalidInput, match="non-finite"):
        load_network(tmp_path, "normals")


def test_wrong_pictures_are_refused(folders):
    network = load_network(folders / "normals", "normals")
    with pytest.raises(ShapeMismatch, match="`images` has shape"):
        estimate_normals(network, torch.zeros(1, 32, 32, 4), torch.zeros(1, 32, 32))
    with pytest.raises(ShapeMismatch, match="`masks` has shape"):
        estimate_normals(network, torch.zeros(1, 32, 32, 3), torch.zeros(1, 16, 32))
    with pytest.raises(InvalidInput, match="non-finite"):
        estimate_normals(network, torch.full((1, 32, 32, 3), torch.inf), torch.zeros(1, 32, 32))


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, animportrait3d_core.networks; print({'segmentation_models_pytorch', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("on_surfaces", [False, True])
@pytest.mark.parametrize("role", sorted(CONFIGS))
def test_embedded_weights_load_or_say_how_to_make_them(role, on_surfaces):
    try:
        folder = embedded_network_folder(role, on_surfaces)
    except MissingModelFile as error:
        assert "train_networks.sh" in str(error) and f"train-network {role}" in str(error)
        return
    network = load_network(folder, role)
    assert network.role == role
    assert network.sees_normals or not on_surfaces or role == "normals"
    assert (folder / "README.md").is_file()
    assert (folder / "model.safetensors").stat().st_size < 3.5e6


@pytest.mark.parametrize(("role", "value"), [("landmarks", "yes"), ("landmarks", 1), ("parts", True)])
def test_close_looks_are_true_or_false_and_for_landmarks_alone(tmp_path, role, value):
    write(tmp_path, role, description={**DESCRIPTIONS[role], "close_looks": value})
    expected = "true or false" if role == "landmarks" else "none for parts"
    with pytest.raises(InvalidInput, match=rf"`close_looks` in network.json is .* expected {expected}"):
        load_network(tmp_path, role)


def test_a_network_says_whether_it_looks_closely(tmp_path):
    for value in (True, False):
        write(tmp_path, "landmarks", description={**DESCRIPTIONS["landmarks"], "close_looks": value})
        assert load_network(tmp_path, "landmarks").looks_closely == value
    write(tmp_path, "landmarks")
    assert not load_network(tmp_path, "landmarks").looks_closely
