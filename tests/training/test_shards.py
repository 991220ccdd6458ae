"""The format of data sets: what is written is read again, and damage is refused by the name of the file."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from animportrait3d_core.errors import InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.training import (
    FIELDS,
    Manifest,
    ShardEntry,
    decode_normals,
    encode_normals,
    finished_shards,
    open_dataset,
    read_manifest,
    write_manifest,
    write_shard,
)
from animportrait3d_core.training.shards import TEXTS

SIZE = 8


def random_tensors(count: int, seed: int, condition: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (dtype, shape) in FIELDS.items():
        full = [count, *(SIZE if side == "S" else side for side in shape)]
        if dtype == torch.float32:
            tensors[name] = torch.randn(full, generator=generator)
        else:
            tensors[name] = torch.randint(0, 3 if name == "region" else 256, full, generator=generator).to(dtype)
    tensors["identity"] = torch.arange(count, dtype=torch.int32) // 2 + 1000 * seed
    if not condition:
        del tensors["condition"]
    return tensors


def random_texts(count: int, seed: int) -> dict[str, list[str]]:
    return {name: [f"{name} {seed}.{k}, « é »" for k in range(count)] for name in TEXTS}


@pytest.fixture
def dataset_folder(tmp_path):
    """Two shards of 4 and 3 samples; a third is not finished."""
    manifest = Manifest(SIZE, ("background", "skin"), 3, 10, {"seed": 1})
    for index, count in ((1, 3), (0, 4)):
        entry = write_shard(tmp_path, index, random_tensors(count, index), random_texts(count, index))
        manifest = manifest.with_shard(entry)
        write_manifest(tmp_path, manifest)
    return tmp_path


def test_samples_come_back_as_they_were_written(dataset_folder):
    dataset = open_dataset(dataset_folder, verify=True)
    assert len(dataset) == 7 and not dataset.manifest.complete and dataset.has("condition")
    for index in range(7):
        shard, row = divmod(index, 4)
        tensors, texts = random_tensors(4 - shard, shard), random_texts(4 - shard, shard)
        sample = dataset[index]
        for name in FIELDS:
            assert torch.equal(torch.as_tensor(getattr(sample, name)), tensors[name][row]), name
        assert [getattr(sample, name) for name in TEXTS] == [texts[name][row] for name in TEXTS]
    assert torch.equal(dataset.column("K")[4:], random_tensors(3, 1)["K"])
    assert dataset[-1].prompt == dataset[6].prompt
    with pytest.raises(IndexError):
        dataset[7]


def test_equal_samples_give_equal_bytes(tmp_path):
    entries = {write_shard(tmp_path, 0, random_tensors(3, 2), random_texts(3, 2)).sha256 for _ in range(12)}
    assert len(entries) == 1


def test_manifest_comes_back_as_it_was_written(dataset_folder):
    manifest = read_manifest(dataset_folder)
    assert [entry.index for entry in manifest.shards] == [0, 1]
    write_manifest(dataset_folder, manifest)
    assert read_manifest(dataset_folder) == manifest


def test_a_data_set_without_condition_maps(tmp_path):
    entry = write_shard(tmp_path, 0, random_tensors(2, 3, condition=False), random_texts(2, 3))
    write_manifest(tmp_path, Manifest(SIZE, ("background",), 1, 2, {}).with_shard(entry))
    dataset = open_dataset(tmp_path, verify=True)
    assert dataset.manifest.complete and not dataset.has("condition") and dataset[0].condition is None


def test_split_keeps_people_apart_and_does_not_depend_on_other_people(dataset_folder):
    dataset = open_dataset(dataset_folder)
    training, held_out = dataset.split(0.3)
    assert not set(training.identities) & set(held_out.identities)
    assert set(training.identities) | set(held_out.identities) == set(dataset.identities) == {0, 1, 1000, 1001}
    assert len(training) + len(held_out) == len(dataset) and len(held_out) > 0
    part = dataset.subset(torch.isin(dataset.column("identity"), torch.tensor([0, 1, 1000], dtype=torch.int32)))
    again = part.split(0.3)[1]
    assert set(again.identities) == set(held_out.identities) & {0, 1, 1000}
    with pytest.raises(InvalidInput, match="share 1.5"):
        dataset.split(1.5)


def test_of_region_chooses_by_name(dataset_folder):
    dataset = open_dataset(dataset_folder)
    regions = dataset.column("region")
    faces = dataset.of_region("face")
    assert len(faces) == int((regions == 1).sum()) and all(sample.region == 1 for sample in faces)
    with pytest.raises(InvalidInput, match="nose"):
        dataset.of_region("nose")


def test_missing_shard_is_named(dataset_folder):
    (dataset_folder / "shard-00001.safetensors").unlink()
    with pytest.raises(MissingModelFile, match="shard-00001"):
        open_dataset(dataset_folder)
    assert [entry.index for entry in finished_shards(dataset_folder, read_manifest(dataset_folder)).shards] == [0]


def test_truncated_shard_is_named(dataset_folder):
    path = dataset_folder / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match="shard-00000.*bytes, expected"):
        open_dataset(dataset_folder)


def test_changed_byte_is_found_by_verification(dataset_folder):
    path = dataset_folder / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert len(open_dataset(dataset_folder)) == 7
    with pytest.raises(InvalidInput, match="shard-00001.*SHA-256"):
        open_dataset(dataset_folder, verify=True)
    assert [entry.index for entry in finished_shards(dataset_folder, read_manifest(dataset_folder)).shards] == [0]


def test_a_shard_of_another_data_set_is_named(dataset_folder):
    """Its bytes are what the manifest says, its pictures or their number are not."""
    manifest = read_manifest(dataset_folder)
    smaller = random_tensors(3, 1)
    for name, (_, shape) in FIELDS.items():
        smaller[name] = smaller[name][:, :4, :4] if "S" in shape else smaller[name]
    write_manifest(dataset_folder, manifest.with_shard(write_shard(dataset_folder, 1, smaller, random_texts(3, 1))))
    with pytest.raises(ShapeMismatch, match=r"shard-00001.*`rgb` \[3, 4, 4, 3\].*expected \[3, 8, 8, 3\]"):
        open_dataset(dataset_folder)
    entry = write_shard(dataset_folder, 1, random_tensors(2, 1), random_texts(2, 1))
    write_manifest(dataset_folder, manifest.with_shard(dataclasses.replace(entry, samples=3)))
    with pytest.raises(ShapeMismatch, match=r"shard-00001.*`rgb` \[2, .*expected \[3, "):
        open_dataset(dataset_folder)


def test_all_shards_must_have_condition_maps(dataset_folder):
    entry = write_shard(dataset_folder, 1, random_tensors(3, 1, condition=False), random_texts(3, 1))
    write_manifest(dataset_folder, read_manifest(dataset_folder).with_shard(entry))
    dataset = open_dataset(dataset_folder)
    assert not dataset.has("condition") and dataset.subset(torch.arange(4)).has("condition")


def test_other_versions_and_other_files_are_refused(dataset_folder, tmp_path_factory):
    path = dataset_folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(InvalidInput, match="version 99, expected 1"):
        open_dataset(dataset_folder)
    path.write_text(json.dumps({**content, "format": "something else"}))
    with pytest.raises(InvalidInput, match="not the manifest"):
        open_dataset(dataset_folder)
    path.write_text("{")
    with pytest.raises(InvalidInput, match="not a JSON"):
        open_dataset(dataset_folder)
    path.write_text(json.dumps({name: value for name, value in content.items() if name != "parts"}))
    with pytest.raises(InvalidInput, match="damaged.*parts"):
        open_dataset(dataset_folder)
    with pytest.raises(MissingModelFile, match="manifest.json"):
        open_dataset(tmp_path_factory.mktemp("empty"))


def test_writer_refuses_what_does_not_fit(tmp_path):
    tensors, texts = random_tensors(2, 0), random_texts(2, 0)
    with pytest.raises(InvalidInput, match="missing tensors \\['K'\\]"):
        write_shard(tmp_path, 0, {name: value for name, value in tensors.items() if name != "K"}, texts)
    with pytest.raises(ShapeMismatch, match="`alpha`"):
        write_shard(tmp_path, 0, {**tensors, "alpha": tensors["alpha"][:, :-1]}, texts)
    with pytest.raises(InvalidInput, match="`rgb` has type"):
        write_shard(tmp_path, 0, {**tensors, "rgb": tensors["rgb"].float()}, texts)
    with pytest.raises(ShapeMismatch, match="1 texts `prompt` for 2"):
        write_shard(tmp_path, 0, tensors, {**texts, "prompt": ["one"]})
    assert not list(tmp_path.iterdir())


def test_coded_normals_come_back_within_half_a_degree():
    normals = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    again = decode_normals(encode_normals(normals))
    angle = torch.rad2deg(torch.acos((normals * again).sum(-1).clamp(-1, 1)))
    assert angle.max() < 0.5
    assert torch.allclose(again.norm(dim=-1), torch.ones(2000), atol=1e-6)


def test_entries_are_replaced_and_sorted():
    first, third = ShardEntry(0, "a", 2, 10, "x"), ShardEntry(2, "c", 2, 10, "z")
    manifest = Manifest(SIZE, ("background",), 3, 6, {}).with_shard(third).with_shard(first)
    manifest = manifest.with_shard(dataclasses.replace(first, sha256="y"))
    assert [(shard.index, shard.sha256) for shard in manifest.shards] == [(0, "y"), (2, "z")]
    assert not manifest.complete
