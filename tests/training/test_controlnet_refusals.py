"""What the training of a ControlNet refuses, and how it ends when it cannot go on."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import pytest

from animportrait3d_core.diffusion.components import load_unet
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingExtension, MissingModelFile
from animportrait3d_core.files import read_safetensors
from animportrait3d_core.training import read_manifest, write_manifest, write_shard
from animportrait3d_core.training.controlnet import train_controlnet
from animportrait3d_core.training.controlnet_data import Dropout
from animportrait3d_core.training.controlnet_trainer import ControlNetTrainer
from tests.diffusion.toys import save_toy, toy_controlnet
from tests.embedded.prior_samples import write_drawn
from tests.training.controlnet_runs import RUN, WEIGHTS, assert_same_end, changed, stop_after


def test_controlnets_that_do_not_fit_are_refused(base, data, tmp_path):
    unet = load_unet("test", base / "unet")
    for name, changes, message in (
        ("channels", {"channels": 3}, "images of 3 channels, expected 4"),
        ("stride", {"widths": (8, 16)}, "shrinks conditions by 2, the base's autoencoder pictures by 4"),
    ):
        toy_controlnet(unet, **changes).save_pretrained(tmp_path / name)
        with pytest.raises(IncompatibleCheckpoint, match=message):
            train_controlnet(base, data, tmp_path / "out", dataclasses.replace(RUN, start_from=tmp_path / name))
    assert not (tmp_path / "out").exists()


def test_other_families_and_bases_without_a_part_are_refused_by_name(base, data, tmp_path):
    with pytest.raises(MissingModelFile, match="nowhere' does not exist"):
        train_controlnet(tmp_path / "nowhere", data, tmp_path / "out", RUN)
    shutil.copytree(base, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "tokenizer")
    with pytest.raises(MissingModelFile, match="lacks tokenizer: found"):
        train_controlnet(tmp_path / "part", data, tmp_path / "out", RUN)
    (tmp_path / "part" / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(IncompatibleCheckpoint, match="is SDXL, which cannot be used"):
        train_controlnet(tmp_path / "part", data, tmp_path / "out", RUN)
    assert not (tmp_path / "out").exists()


def test_data_sets_that_do_not_serve_are_refused(base, data, tmp_path):
    def refused(folder, error, message, run=RUN):
        with pytest.raises(error, match=message):
            train_controlnet(base, folder, tmp_path / "out", run)
        assert not (tmp_path / "out").exists()

    refused(write_drawn(tmp_path / "plain", condition=False), InvalidInput, "no condition maps; build it with --preset")
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    shard = broken / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    refused(broken, InvalidInput, "shard-00000.*SHA-256", dataclasses.replace(RUN, verify=True))
    shard.write_bytes(content[:-100])
    refused(broken, InvalidInput, "shard-00000.*bytes, expected")
    shard.unlink()
    refused(broken, MissingModelFile, "shard-00000.* does not exist")
    refused(tmp_path / "nothing", MissingModelFile, "manifest.json")


def test_a_damaged_picture_is_named_while_training(base, data, straight, tmp_path):
    """A data set that grew since is another one."""
    grown = tmp_path / "grown"
    shutil.copytree(data, grown)
    tensors, metadata = read_safetensors(grown / "shard-00000.safetensors")
    entry = write_shard(grown, 1, tensors, json.loads(metadata["texts"]))
    manifest = dataclasses.replace(read_manifest(grown), num_shards=2).with_shard(entry)
    write_manifest(grown, manifest)
    with pytest.raises(InvalidInput, match="made with another data: found"):
        train_controlnet(base, grown, straight[0], dataclasses.replace(RUN, resume=True))


def test_another_base_or_other_settings_do_not_go_on(base, data, straight, tmp_path):
    with pytest.raises(InvalidInput, match="holds a training; pass --resume"):
        train_controlnet(base, data, straight[0], RUN)
    with pytest.raises(InvalidInput, match="another settings: found"):
        train_controlnet(base, data, straight[0], dataclasses.replace(changed(steps=9), resume=True))
    with pytest.raises(InvalidInput, match='another settings: found.*"precision": "no".*expected.*"bf16"'):
        train_controlnet(base, data, straight[0], dataclasses.replace(RUN, resume=True, precision="bf16"))
    other = save_toy(tmp_path / "other", "v_prediction")
    with pytest.raises(InvalidInput, match="made with another base: found"):
        train_controlnet(other, data, straight[0], dataclasses.replace(RUN, resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": 3}, "batch of 4 samples cannot be divided into 3 equal pieces"),
        ({"size": 36}, "pictures of 36 pixels, expected a multiple of 8"),
        ({"precision": "fp16"}, "precision 'fp16' on 'cpu', expected no or bf16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(base, data, tmp_path, changes, message):
    with pytest.raises(InvalidInput, match=message):
        train_controlnet(base, data, tmp_path / "out", dataclasses.replace(RUN, **changes))
    assert not (tmp_path / "out").exists()


def test_values_out_of_range_are_refused():
    for wrong in (lambda: Dropout(1.0), lambda: Dropout(prompt=-0.1), lambda: dataclasses.replace(RUN, parts=0),
                  lambda: dataclasses.replace(RUN, precision="int8")):  # fmt: skip
        with pytest.raises(InvalidInput, match="expected"):
            wrong()


def test_without_accelerate_it_says_what_to_install(base, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtension, match="pip install accelerate"):
        train_controlnet(base, data, tmp_path / "out", RUN)


@pytest.mark.parametrize("what", ["the loss is nan", "the gradients' norm is nan"])
def test_a_loss_that_is_not_finite_leaves_the_last_state(base, data, straight, tmp_path, monkeypatch, what):
    class Failing(ControlNetTrainer):
        def _loss(self, batch):
            loss = super()._loss(batch)
            if self.step_index == 3:
                # A root has no finite slope at zero, but a finite value.
                loss = loss * float("nan") if "loss" in what else loss + (0 * loss).sqrt()
            return loss

    with monkeypatch.context() as patch:
        patch.setattr("animportrait3d_core.training.controlnet.ControlNetTrainer", Failing)
        with pytest.raises(InvalidInput, match=f"{what} at step 3, expected a finite number"):
            train_controlnet(base, data, tmp_path, RUN)
    train_controlnet(base, data, tmp_path, dataclasses.replace(RUN, resume=True))
    assert_same_end(straight[0], tmp_path)


def test_a_disk_without_room_is_named_before_the_first_step(base, data, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1_000_000))
    with pytest.raises(InvalidInput, match="has 0.001 GB free, expected 0.0.* GB for the state"):
        train_controlnet(base, data, tmp_path, RUN)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_the_last_state(base, data, straight, tmp_path, small_disk):
    with pytest.raises(KeyboardInterrupt):
        train_controlnet(base, data, tmp_path, RUN, stop_after(1))
    resumed = dataclasses.replace(RUN, resume=True)
    size = (straight[0] / WEIGHTS).stat().st_size
    refused = pytest.raises(InvalidInput, match="cannot write the .* MB of '.*state.safetensors'.*Make room")
    with small_disk(2 * size), refused:  # the ControlNet has room, the state has none
        train_controlnet(base, data, tmp_path, resumed)
    with small_disk(size // 2), pytest.raises(InvalidInput, match="cannot write the .*Make room"):  # nothing has
        train_controlnet(base, data, tmp_path, resumed)
    train_controlnet(base, data, tmp_path, resumed)
    assert_same_end(straight[0], tmp_path)
    assert not list(tmp_path.rglob(".*"))  # no half-written files
