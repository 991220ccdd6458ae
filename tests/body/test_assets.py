from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.body.assets import assets_from_tensors, assets_to_tensors, load_body_assets, save_body_assets
from animportrait3d_core.errors import AnimPortraitError, IncompatibleCheckpoint, InvalidInput
from animportrait3d_core.files import write_safetensors
from animportrait3d_core.regions import BODY_REGIONS


@pytest.fixture(scope="module")
def assets(body_arrays, make_assets):
    return make_assets(body_arrays, name="demo", redistributable=True, winding_outward=False)


def test_round_trip_through_a_file_is_exact(assets, tmp_path):
    save_body_assets(assets, tmp_path / "a.safetensors")
    back = load_body_assets(tmp_path / "a.safetensors")
    for field in dataclasses.fields(assets):
        value, again = getattr(assets, field.name), getattr(back, field.name)
        if field.name == "face_regions":
            assert all(torch.equal(value[name], again[name]) for name in BODY_REGIONS)
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, again)
        else:
            assert value == again
    assert (back.name, back.redistributable, back.winding_outward) == ("demo", True, False)


def _changed(value: torch.Tensor, entry: float | int) -> torch.Tensor:
    value = value.clone()
    value.view(-1)[0] = entry
    return value


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vertex_ids", lambda v: _changed(v, int(v[1])), "repeats"),
        ("vertex_ids", lambda v: _changed(v, -1), "negative"),
        ("faces", lambda v: _changed(v, 10**6), "1000000"),
        ("faces", lambda v: v.int(), "int32"),
        ("faces", lambda v: v[:, :2], r"\[F, 3\]"),
        ("eyelid_offsets", lambda v: v[:1], r"\[2, "),
        ("eyelid_offsets", lambda v: _changed(v, float("nan")), "non-finite"),
        ("landmark_faces", lambda v: v[:68], r"\[68\], expected \[70\]"),
        ("landmark_barycentric", lambda v: 2 * v, "expected 1"),
        ("vertex_labels", lambda v: v + 1, r"expected 0\.\.1"),
        ("face_regions", lambda v: {k: m for k, m in v.items() if k != "lips"}, r"missing \['lips'\]"),
        ("face_regions", lambda v: v | {"tail": v["lips"]}, r"unknown \['tail'\]"),
        ("face_regions", lambda v: v | {"lips": v["lips"].float()}, "float32"),
    ],
)
def test_bad_assets_are_refused(assets, name, change, message):
    with pytest.raises(InvalidInput, match=message):
        dataclasses.replace(assets, **{name: change(getattr(assets, name))})


def test_foreign_and_damaged_files(assets, tmp_path):
    write_safetensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(IncompatibleCheckpoint, match="no body assets file"):
        load_body_assets(tmp_path / "other.safetensors")
    save_body_assets(assets, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    for length in (0, 5, 200, len(data) - 1):
        (tmp_path / "cut.safetensors").write_bytes(data[:length])
        with pytest.raises(AnimPortraitError):
            load_body_assets(tmp_path / "cut.safetensors")
    tensors, metadata = assets_to_tensors(assets)
    with pytest.raises(IncompatibleCheckpoint, match="version 9"):
        assets_from_tensors(tensors, {"body_assets": metadata["body_assets"].replace('version": 1', 'version": 9')})
    del tensors["face_regions.lips"]
    with pytest.raises(IncompatibleCheckpoint, match=r"face_regions\.lips"):
        assets_from_tensors(tensors, metadata)
