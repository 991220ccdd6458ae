"""Files of trigrid portraits: round trips, the official layouts, damage, and pickles with code in them."""

from __future__ import annotations

import builtins
import collections
import dataclasses
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch

from animportrait3d_core.cameras import orbit_cameras
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.files import read_safetensors, write_safetensors
from animportrait3d_core.portrait.trigrid import (
    FieldSettings,
    Generator,
    TrigridRenderSettings,
    load_trigrid_portrait,
    read_generator,
    render_trigrid,
    save_generator,
    save_trigrid_portrait,
)
from animportrait3d_core.torch_checkpoints import read_torch_checkpoint
from tests.portrait.trigrid_samples import Attack, checkpoint_of, generator_of, without

from_layouts = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@pytest.fixture
def portrait(make_ellipsoid):
    rendering = TrigridRenderSettings(48, 24, "dense")
    return dataclasses.replace(make_ellipsoid((8, 16, 32)), prompt="an old man", rendering=rendering)


@pytest.fixture
def generator(portrait) -> Generator:
    return generator_of(portrait)


def assert_same_image(first, second, tolerance: float = 0.0) -> None:
    cameras = orbit_cameras([15.0], [0.0], 12)
    torch.testing.assert_close(
        render_trigrid(first, cameras).rgb, render_trigrid(second, cameras).rgb, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 0.02)])
def test_round_trip(portrait, tmp_path, dtype, tolerance: float) -> None:
    path = tmp_path / "portrait.safetensors"
    save_trigrid_portrait(portrait, path, dtype)
    loaded = load_trigrid_portrait(path)
    assert loaded.levels[32].dtype == dtype
    assert (loaded.prompt, loaded.field, loaded.rendering) == (portrait.prompt, portrait.field, portrait.rendering)
    assert_same_image(dataclasses.replace(loaded, rendering=portrait.rendering), portrait, tolerance)


def test_constant_background_takes_no_space(portrait, tmp_path) -> None:
    path = tmp_path / "portrait.safetensors"
    plain = dataclasses.replace(portrait, background_features=torch.full((32, 128, 128), 0.25))
    save_trigrid_portrait(plain, path)
    assert read_safetensors(path)[0]["background_features"].shape == (32, 1, 1)
    assert torch.equal(load_trigrid_portrait(path).background_features, plain.background_features)


def test_large_values_are_not_silently_lost(portrait, tmp_path) -> None:
    levels = {**portrait.levels, 8: portrait.levels[8] + 1e6}
    with pytest.raises(InvalidInput, match=r"trigrids\.8.*float16"):
        save_trigrid_portrait(dataclasses.replace(portrait, levels=levels), tmp_path / "p.safetensors")


@from_layouts
@pytest.mark.parametrize("batched", [True, False])
def test_official_checkpoint(portrait, generator, tmp_path, zipped: bool, batched: bool) -> None:
    path = tmp_path / "000.pth"
    model = checkpoint_of(portrait)
    if not batched:
        model = {name: value[0] if name.startswith("trigrids") else value for name, value in model.items()}
    torch.save({"model": model}, path, _use_new_zipfile_serialization=zipped)
    loaded = load_trigrid_portrait(path, generator, prompt="an old man")
    assert sorted(loaded.levels) == [8, 16, 32]
    assert torch.equal(loaded.levels[16], portrait.levels[16])
    assert_same_image(dataclasses.replace(loaded, rendering=portrait.rendering), portrait)


@from_layouts
def test_checkpoint_reader_reads_what_torch_reads(tmp_path, zipped: bool) -> None:
    """Types, views, strides, shared storages, parameters, empty tensors, ordered dictionaries with metadata."""
    base = torch.arange(24.0).reshape(4, 6)
    layer = torch.nn.Linear(3, 2)
    contents = {
        "view": base[1:3, ::2],
        "transposed": base.T,
        "same": base,
        "half": base.half(),
        "bf16": base.bfloat16(),
        "double": base.double(),
        "long": base.long(),
        "bool": base > 3,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(base),
        "state": layer.state_dict(),
        "others": [1, 2.5, "text", None, True, (1, 2), {"a": b"bytes"}],
    }
    path = tmp_path / "file.pth"
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    found = read_torch_checkpoint(path)
    for name in list(contents)[:11]:
        assert found[name].dtype == contents[name].dtype
        assert torch.equal(found[name], contents[name].detach())
    assert torch.equal(found["state"]["weight"], layer.weight)
    assert found["others"] == contents["others"]


@from_layouts
def test_code_in_a_checkpoint_does_not_run(generator, portrait, tmp_path, zipped: bool) -> None:
    marker = tmp_path / "it-ran"
    path = tmp_path / "evil.pth"
    model = {**checkpoint_of(portrait), "extra": Attack(marker)}
    torch.save({"model": model}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(IncompatibleCheckpoint, match=r"(posix|nt)\.system.*Nothing of it was run"):
        load_trigrid_portrait(path, generator)
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False, None], ids=["zip", "legacy", "safetensors"])
def test_every_truncation_is_named(portrait, generator, tmp_path, zipped: bool | None) -> None:
    whole = tmp_path / ("whole.safetensors" if zipped is None else "whole.pth")
    if zipped is None:
        save_trigrid_portrait(portrait, whole)
    else:
        torch.save({"model": checkpoint_of(portrait)}, whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    for part in (0, 1, 3, 40, 200, 1000, len(data) // 2, len(data) - 1):
        cut = whole.with_name("cut" + whole.suffix)
        cut.write_bytes(data[:part])
        with pytest.raises((InvalidInput, IncompatibleCheckpoint), match="cut"):
            load_trigrid_portrait(cut, generator)


def test_wrong_levels_are_named(portrait, generator, tmp_path) -> None:
    path = tmp_path / "000.pth"
    good = checkpoint_of(portrait)
    bare = {name: value for name, value in good.items() if not name.startswith("trigrids")}
    cases = [
        (bare, IncompatibleCheckpoint, "no trigrids"),
        ({**good, "trigrids_24": torch.zeros(1, 3, 36, 24, 24)}, InvalidInput, "unknown level 'trigrids_24'"),
        ({**good, "trigrids_1024": torch.zeros(1)}, InvalidInput, "unknown level 'trigrids_1024'"),
        ({**good, "trigrids_16": torch.zeros(1, 3, 36, 8, 8)}, ShapeMismatch, "trigrids_16.*8, 8"),
        ({**good, "trigrids_16": torch.zeros(1, 3, 37, 16, 16)}, ShapeMismatch, "trigrids_16.*37"),
        ({**good, "trigrids_16": torch.zeros(1, 3, 48, 16, 16)}, ShapeMismatch, "trigrids_16.*16 channels"),
        ({**good, "trigrids_16": torch.zeros(1, 2, 36, 16, 16)}, ShapeMismatch, "trigrids_16"),
        ({**good, "trigrids_16": torch.full((1, 3, 36, 16, 16), float("nan"))}, InvalidInput, "27648 non-finite"),
        ({**good, "ws": torch.zeros(1, 12, 512)}, ShapeMismatch, "ws"),
        (without(good, "ws"), InvalidInput, "no `ws`"),
        (without(good, "background_features"), IncompatibleCheckpoint, "background"),
        (without(good, "trigrids_16"), InvalidInput, r"levels \[8, 32\], expected \[8, 16, 32\]: trigrids_16 missing"),
        (without(good, "trigrids_8"), InvalidInput, "trigrids_8 missing"),
    ]
    for model, error, words in cases:
        torch.save({"model": model}, path)
        with pytest.raises(error, match=words):
            load_trigrid_portrait(path, generator)


def test_the_generator_tells_how_many_levels_there_are(portrait, generator, tmp_path) -> None:
    """Of the finest level nothing but the model's resolution can tell that it is missing."""
    path = tmp_path / "000.pth"
    torch.save({"model": checkpoint_of(portrait)}, path)
    whole = load_trigrid_portrait(path, dataclasses.replace(generator, finest=32))
    assert sorted(whole.levels) == [8, 16, 32]
    with pytest.raises(InvalidInput, match=r"expected \[8, 16, 32, 64, 128\]: trigrids_64, trigrids_128 missing"):
        load_trigrid_portrait(path, dataclasses.replace(generator, finest=128))
    with pytest.raises(InvalidInput, match=r"expected \[8, 16\]: trigrids_32 too many"):
        load_trigrid_portrait(path, dataclasses.replace(generator, finest=16))


def test_the_prompt_stands_beside_the_file_or_in_it(portrait, generator, tmp_path) -> None:
    path, beside, ours = tmp_path / "7.pth", tmp_path / "7.txt", tmp_path / "7.safetensors"
    torch.save({"model": checkpoint_of(portrait)}, path)
    save_trigrid_portrait(portrait, ours)
    assert load_trigrid_portrait(path, generator).prompt == ""
    beside.write_text("a pirate \n", encoding="utf-8")
    assert load_trigrid_portrait(path, generator).prompt == "a pirate \n"  # verbatim, as upstream reads it
    assert load_trigrid_portrait(path, generator, prompt="a queen").prompt == "a queen"
    assert load_trigrid_portrait(ours).prompt == "an old man"  # its own metadata come first
    assert load_trigrid_portrait(ours, prompt="a queen").prompt == "a queen"
    beside.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"7\.txt' cannot be read as UTF-8"):
        load_trigrid_portrait(path, generator)


def test_decoders_of_other_widths_are_refused(portrait, generator, tmp_path) -> None:
    path = tmp_path / "000.pth"
    torch.save({"model": checkpoint_of(portrait)}, path)
    wide = Generator({**generator.tensors, "decoder.net.0.weight": torch.zeros(32, 16)})
    with pytest.raises(IncompatibleCheckpoint, match="takes 16 channels, the trigrids have 12"):
        load_trigrid_portrait(path, wide)
    deep = Generator({**generator.tensors, "decoder.net.0.weight": torch.zeros(64, 12)})
    with pytest.raises(IncompatibleCheckpoint, match="hidden_weight"):
        load_trigrid_portrait(path, deep)
    with pytest.raises(IncompatibleCheckpoint, match="give the generator too"):
        load_trigrid_portrait(path)
    with pytest.raises(MissingModelFile, match="Portrait3D result"):
        load_trigrid_portrait(tmp_path / "absent.pth", generator)


def test_damaged_safetensors_are_named(portrait, tmp_path) -> None:
    path = tmp_path / "portrait.safetensors"
    save_trigrid_portrait(portrait, path)
    tensors, metadata = read_safetensors(path)
    cases = [
        (without(tensors, "trigrids.16"), metadata, InvalidInput, r"levels \[8, 32\].*\[8, 16, 32\]"),
        ({**tensors, "trigrids.12": torch.zeros(1)}, metadata, InvalidInput, "trigrids.12"),
        (without(tensors, "ws"), metadata, InvalidInput, "lacks ws"),
        (tensors, {**metadata, "schema_version": "9"}, IncompatibleCheckpoint, "schema version 9"),
        (tensors, {**metadata, "field": "{"}, InvalidInput, "'field'"),
        (tensors, {**metadata, "field": '{"box": 1}'}, InvalidInput, "box = 1"),
        (tensors, {**metadata, "rendering": '{"backend": 3}'}, InvalidInput, "backend = 3"),
        (tensors, {**metadata, "format": "avatar"}, IncompatibleCheckpoint, "is a 'avatar' safetensors file"),
    ]
    for changed, changed_metadata, error, words in cases:
        write_safetensors(path, changed, changed_metadata)
        with pytest.raises(error, match=words):
            load_trigrid_portrait(path)


# The official generator: a plain pickle of persistent classes, each carrying source code for its loader to execute.


def reconstruct(meta):
    """Stands for upstream's function of this name, which executes meta['module_src']."""
    raise AssertionError("the restricted reader must not call this")


class EasyDict(dict):
    """Stands for dnnlib.util.EasyDict."""


class PersistentModule:
    """Pickles as upstream's persistent classes do: reconstruct(dict(type, version, module_src, class_name, state))."""

    source = ""

    def __init__(self, **state) -> None:
        self.state = state

    def __reduce__(self):
        meta = dict(type="class", version=6, module_src=self.source, class_name="Network", state=self.state)
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def module(children=None, parameters=None, buffers=None, **attributes) -> PersistentModule:
    named = {name: torch.nn.Parameter(value) for name, value in (parameters or {}).items()}
    return PersistentModule(
        _parameters=collections.OrderedDict(named),
        _buffers=collections.OrderedDict(buffers or {}),
        _modules=collections.OrderedDict(children or {}),
        training=False,
        **attributes,
    )


def linear(weight: torch.Tensor, bias: torch.Tensor) -> PersistentModule:
    return module(parameters={"weight": weight, "bias": bias}, activation="linear")


@pytest.fixture
def generator_pickle(generator, tmp_path, monkeypatch) -> Path:
    """A synthetic `model_512.pkl`."""
    modules = {"torch_utils.persistence": "_reconstruct_persistent_obj", "dnnlib.util": "EasyDict"}
    for name in modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "dnnlib", types.ModuleType("dnnlib"))
    function = types.FunctionType(reconstruct.__code__, {}, "_reconstruct_persistent_obj")
    function.__module__, function.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
    sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj = function
    monkeypatch.setattr(EasyDict, "__module__", "dnnlib.util")
    sys.modules["dnnlib.util"].EasyDict = EasyDict
    marker = tmp_path / "source-ran"
    monkeypatch.setattr(PersistentModule, "source", f"open({str(marker)!r}, 'w')")

    tensors = generator.tensors
    net = module(
        {
            "0": linear(tensors["decoder.net.0.weight"], tensors["decoder.net.0.bias"]),
            "1": torch.nn.Softplus(),
            "2": linear(tensors["decoder.net.2.weight"], tensors["decoder.net.2.bias"]),
        }
    )
    to_rgb = module(
        {"affine": linear(tensors["torgb.affine.weight"], tensors["torgb.affine.bias"])},
        {"weight": tensors["torgb.weight"], "bias": tensors["torgb.bias"]},
    )
    background = module({"b4": module(parameters={"const": torch.ones(2, 4, 4)}, buffers={"resample": torch.ones(4)})})
    rendering = EasyDict(decoder_activation="none", triplane_depth=3, box_warp=0.7, image_resolution=512)
    unknown = types.SimpleNamespace(mesh=[1, 2], where=Path("somewhere"))
    network = module(
        {"decoder": module({"net": net}), "torgb": to_rgb, "bcg_synthesis": background, "backbone": module()},
        rendering_kwargs=rendering,
        helper=unknown,
    )
    path = tmp_path / "model_512.pkl"
    snapshot = {"G": module(), "D": module(), "G_ema": network, "training_set_kwargs": EasyDict(path="data")}
    path.write_bytes(pickle.dumps(snapshot))
    return path


def test_generator_is_read_without_executing_its_source(generator_pickle, generator, monkeypatch, tmp_path) -> None:
    def forbidden(*arguments, **keywords):
        raise AssertionError("source code of the pickle was executed")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "exec", forbidden)
        found = read_generator(generator_pickle)
    assert not (tmp_path / "source-ran").exists()
    assert set(found.tensors) == {*generator.tensors, "bcg_synthesis.b4.const", "bcg_synthesis.b4.resample"}
    for name, tensor in generator.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
    assert (found.depth, found.field, found.finest) == (3, FieldSettings(), 512)
    assert set(found.background_weights) == {"b4.const", "b4.resample"}


def test_generator_copy(generator_pickle, tmp_path) -> None:
    original = read_generator(generator_pickle)
    copy = tmp_path / "generator.safetensors"
    save_generator(original, copy)
    again = read_generator(copy)
    assert (again.field, again.depth, again.finest) == (original.field, original.depth, original.finest)
    assert all(torch.equal(again.tensors[name], value) for name, value in original.tensors.items())


def test_other_generators_are_refused(generator_pickle, tmp_path) -> None:
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps({"G": 1}))
    with pytest.raises(IncompatibleCheckpoint, match="expected a network 'G_ema'"):
        read_generator(other)
    other.write_bytes(pickle.dumps({"G_ema": module(rendering_kwargs={})}))
    with pytest.raises(IncompatibleCheckpoint, match="has 0 tensors"):
        read_generator(other)
    kept = module({"decoder": linear(torch.ones(2), torch.ones(2))}, rendering_kwargs={"decoder_activation": "sigmoid"})
    other.write_bytes(pickle.dumps({"G_ema": kept}))
    with pytest.raises(IncompatibleCheckpoint, match="decoder_activation = 'sigmoid'"):
        read_generator(other)
    huge = module({"decoder": linear(torch.ones(2), torch.ones(2))}, rendering_kwargs={"image_resolution": 1000})
    other.write_bytes(pickle.dumps({"G_ema": huge}))
    with pytest.raises(IncompatibleCheckpoint, match="pictures of 1000 pixels"):
        read_generator(other)
    data = generator_pickle.read_bytes()
    other.write_bytes(data[: len(data) - 40])
    with pytest.raises(InvalidInput, match=r"other\.pkl"):
        read_generator(other)
