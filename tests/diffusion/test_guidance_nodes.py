"""AP3D_LoadGuidance and AP3D_SampleGuidance on small models saved as files, and all that users may connect wrongly."""

from __future__ import annotations

import dataclasses
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from animportrait3d_core.conditioning import Prompts
from animportrait3d_core.embedded import weights
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingModelFile, ShapeMismatch
from animportrait3d_core.workflow.context import Interrupted
from tests.diffusion.original_names import original_checkpoint
from tests.diffusion.test_loading import PLAIN
from tests.diffusion.toys import save_tokenizer, save_toy, toy_controlnet, toy_text_encoder, toy_unet, toy_vae
from tests.embedded.prior_samples import save_untrained_prior

PROMPTS = Prompts("a young man, red hair", "a young man")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return save_untrained_prior(tmp_path_factory.mktemp("weights") / "prior")


@pytest.fixture()
def load(run_node):
    return lambda model, **inputs: run_node("AP3D_LoadGuidance", model=str(model), **inputs)


def index(folder):
    """What the command line makes of a pipeline's folder."""
    return folder / "model_index.json"


def condition(count=1, size=32, channels=4):
    return torch.rand(count, size, size, channels, generator=torch.Generator().manual_seed(1))


# Loading


def test_a_folder_brings_its_controlnet_and_is_described(load, toy):
    done = load(index(toy))
    assert done.description.splitlines() == [
        f"{index(toy)}: family sd-32, prediction epsilon, 4 latent channels, pictures of 32 pixels",
        "ControlNet of 4 condition channels, strength 1",
        "on cpu, float32",
    ]
    assert done.ui == {"text": [done.description]}
    assert done.guidance.controlnet is not None and done.guidance.dtype == torch.float32
    without = load(index(toy), controlnet="(none)")
    assert without.guidance.controlnet is None and "no ControlNet" in without.description
    half = load(index(toy), controlnet_strength=0.5, precision="bfloat16")
    assert half.guidance.conditioning_scale == 0.5 and half.guidance.dtype == torch.bfloat16


def test_the_embedded_prior_is_loaded_where_it_lies(load, prior, monkeypatch):
    monkeypatch.setattr(weights, "__file__", str(prior.parent / "__init__.py"))
    done = load("embedded prior")
    first, control, _ = done.description.splitlines()
    assert first == "embedded prior: family sd-64, prediction v_prediction, 8 latent channels, pictures of 128 pixels"
    assert control.startswith("ControlNet of 4")


def test_an_embedded_prior_that_is_absent_is_said_once_and_clearly(load, run_node, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(MissingModelFile, match="not in this copy of the pack.*scripts/train_prior.sh.* your own"):
        load("embedded prior")
    changed = run_node.classes["AP3D_LoadGuidance"].IS_CHANGED(
        "embedded prior", controlnet="(none)", vae="(of the model)", lora="(none)", tokenizer="(found by itself)"
    )
    assert "not in this copy of the pack" in changed


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    vae = toy_vae(block_out_channels=(32, 32, 64), norm_num_groups=32, layers_per_block=2)
    save_file(original_checkpoint(toy_unet(**PLAIN), vae, toy_text_encoder(64, heads=1)), folder / "model.safetensors")
    save_tokenizer(folder / "tokenizer")
    return folder


def test_a_single_file_is_loaded_with_a_tokenizer(load, single, run_node, monkeypatch):
    words = str(single / "tokenizer" / "tokenizer_config.json")
    done = load(single / "model.safetensors", tokenizer=words)
    assert "family sd-64, prediction epsilon" in done.description and "no ControlNet" in done.description
    # Inside ComfyUI its own tokenizer is found.
    host = run_node.module("AP3D_LoadGuidance").host
    monkeypatch.setattr(host, "clip_tokenizer_folder", lambda: single / "tokenizer")
    assert load(single / "model.safetensors").description == done.description


def test_names_of_the_model_folders_are_choices(load, toy, single, tmp_path, run_node):
    models = tmp_path / "models"
    shutil.copytree(toy, models / "diffusers" / "sub" / "toy")
    for key, file in (("checkpoints", "a.safetensors"), ("controlnet", "c.safetensors"), ("vae", "v.pt")):
        (models / key).mkdir()
        (models / key / file).write_bytes(b"x")
    shutil.copy(toy / "controlnet" / "diffusion_pytorch_model.safetensors", models / "controlnet" / "c.safetensors")
    shutil.copy(toy / "vae" / "diffusion_pytorch_model.safetensors", models / "vae" / "diffusion.safetensors")
    shutil.copy(toy / "vae" / "config.json", models / "vae")
    inputs = run_node.classes["AP3D_LoadGuidance"].INPUT_TYPES()["required"]
    assert inputs["model"][0] == ["embedded prior", "sub/toy/model_index.json", "a.safetensors"]
    assert inputs["controlnet"][0] == ["(of the model)", "(none)", "c.safetensors"]
    assert inputs["tokenizer"][0] == ["(found by itself)", "sub/toy/tokenizer/tokenizer_config.json"]
    done = load("sub/toy/model_index.json", controlnet="c.safetensors", vae="diffusion.safetensors")
    assert done.guidance.controlnet is not None
    told = load("sub/toy/model_index.json", tokenizer="sub/toy/tokenizer/tokenizer_config.json").description
    assert "tokenizer_config.json' was not read: the model's folder has its own" in told


def test_a_lora_and_another_vae_change_what_they_should(load, toy, tmp_path):
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(0)).unbind()
    lora = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up.T.contiguous()}
    save_file(lora, tmp_path / "lora.safetensors")
    shutil.copytree(toy / "vae", tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({key: 2 * value for key, value in load_file(file).items()}, file)
    before = load(index(toy)).guidance
    changes = {"lora": str(tmp_path / "lora.safetensors"), "lora_strength": 0.5, "vae": str(file)}
    after = load(index(toy), **changes).guidance
    key = f"{name.removeprefix('unet.')}.weight"
    change = after.unet.state_dict()[key] - before.unet.state_dict()[key]
    torch.testing.assert_close(change, 0.5 * up.T @ down, rtol=1e-4, atol=1e-5)
    assert torch.equal(next(after.vae.parameters()), 2 * next(before.vae.parameters()))


def test_changed_files_are_read_again(run_node, toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "copy")
    choices = {"vae": "(of the model)", "lora": "(none)", "tokenizer": "(found by itself)"}
    choices |= {"model": str(index(folder)), "controlnet": "(of the model)"}
    stamp = run_node.classes["AP3D_LoadGuidance"].IS_CHANGED
    first = stamp(**choices)
    assert first == stamp(**choices) and len(first.splitlines()) > 10
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert stamp(**choices) != first


def test_missing_and_wrong_files_are_named(load, toy, single, tmp_path):
    with pytest.raises(MissingModelFile, match="AP3D_LoadGuidance: no file 'x/model_index.json' .*key 'diffusers'"):
        load("x/model_index.json")
    with pytest.raises(MissingModelFile, match="AP3D_LoadGuidance: no file 'x.safetensors' .*key 'checkpoints'"):
        load("x.safetensors")
    for name, key in (("controlnet", "controlnet"), ("vae", "vae"), ("lora", "loras")):
        with pytest.raises(MissingModelFile, match=f"AP3D_LoadGuidance: no file 'x.pt' .*key '{key}'"):
            load(index(toy), **{name: "x.pt"})
    with pytest.raises(IncompatibleCheckpoint, match="no complete Stable Diffusion checkpoint"):
        load(toy / "vae" / "diffusion_pytorch_model.safetensors")
    toy_controlnet(toy_unet(), channels=3).save_pretrained(tmp_path / "three")
    with pytest.raises(IncompatibleCheckpoint, match="condition images of 3 channels, expected 4"):
        load(index(toy), controlnet=str(tmp_path / "three" / "diffusion_pytorch_model.safetensors"))


# Sampling


@pytest.fixture()
def guidance(load, toy):
    return load(index(toy)).guidance


@pytest.fixture()
def sample(run_node, guidance):
    usual = {"guidance": guidance, "prompts": PROMPTS, "steps": 2, "guidance_scale": 2.0}
    return lambda **inputs: run_node("AP3D_SampleGuidance", **{**usual, **inputs})


def test_pictures_with_and_without_the_controlnet(sample):
    shown = condition(size=16)
    controlled = sample(condition=shown, count=3, seed=4)
    free = sample(condition=shown, count=3, seed=4, controlnet=False)
    assert controlled.images.shape == free.images.shape == (3, 16, 16, 3)
    assert controlled.images.dtype == torch.float32 and len(controlled.ui["images"]) == 3
    assert not torch.allclose(controlled.images, free.images, atol=1e-4)
    assert controlled.ui["text"][0].endswith("with ControlNet") and free.ui["text"][0].endswith("ControlNet: it is off")
    assert torch.equal(sample(condition=shown, count=3, seed=4).images, controlled.images)
    assert not torch.allclose(sample(condition=shown, count=3, seed=5).images, controlled.images, atol=1e-3)
    alone = sample()
    assert alone.images.shape == (1, 32, 32, 3)
    assert alone.ui["text"][0].splitlines()[1:] == [
        "negative: (none)", "without ControlNet: no condition is connected",
    ]  # fmt: skip


def test_the_model_is_told_the_text_of_the_region_from_its_side(sample, guidance):
    asked = []

    class Listener:
        def __getattr__(self, name):
            return getattr(guidance, name)

        def encode_prompt(self, texts):
            asked.extend(texts)
            return guidance.encode_prompt(texts)

    prompts = dataclasses.replace(PROMPTS, negative_prompt="view")
    done = sample(guidance=Listener(), prompts=prompts, region="mouth", yaw=50.0)
    assert asked == ["side view mouth region, a young man", "view"]
    assert done.ui["text"][0].splitlines()[:2] == ["side view mouth region, a young man", "negative: view"]


def test_stop_is_obeyed_and_progress_shows_pictures(sample, run_context):
    seen = []
    run_context.listener = SimpleNamespace(node_progress=lambda node, *report: seen.append(report))
    sample(steps=4, count=2)
    assert [entry[:2] for entry in seen] == [(step, 4) for step in range(1, 5)]
    assert seen[-1][2].shape == (32, 32, 3)
    run_context.cancelled.set()
    with pytest.raises(Interrupted):
        sample()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            {"condition": condition(channels=3)},
            ShapeMismatch,
            "has 3 channels, expected 4 .*`packed` of Condition Maps",
        ),
        ({"condition": condition(3), "count": 2}, ShapeMismatch, r"shape \[3, 32, 32, 4\], expected \[1 or 2"),
        ({"condition": condition(size=30)}, InvalidInput, "30 x 30 pixels, expected multiples of 4"),
        ({"condition": condition() / 0}, InvalidInput, "non-finite"),
        ({"steps": 1001}, InvalidInput, "1001 steps .*, expected 1 to 1000"),
    ],
)
def test_what_does_not_fit_is_refused(sample, given, error, words):
    with pytest.raises(error, match=words):
        sample(**given)


def test_a_condition_without_a_controlnet_is_refused(sample, load, toy):
    alone = load(index(toy), controlnet="(none)").guidance
    with pytest.raises(InvalidInput, match="no ControlNet is loaded; load one, or go without the condition"):
        sample(guidance=alone, condition=condition())
    assert sample(guidance=alone, condition=condition(), controlnet=False).images.shape == (1, 32, 32, 3)
