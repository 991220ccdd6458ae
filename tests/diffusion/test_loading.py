"""Files of every layout give the models they hold; files of other families and broken ones are named."""

from __future__ import annotations

import builtins
import json
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.errors import IncompatibleCheckpoint, InvalidInput, MissingExtension, MissingModelFile
from tests.diffusion.original_names import original_checkpoint, original_controlnet, vae_entry
from tests.diffusion.toys import (
    save_scheduler,
    save_tokenizer,
    save_toy,
    toy_controlnet,
    toy_text_encoder,
    toy_unet,
    toy_vae,
)

# What single files cannot say, as in Stable Diffusion 1.5: eight heads, groups of 32 channels, heads of 64 numbers.
PLAIN = {
    "block_out_channels": (32, 64), "layers_per_block": 2, "attention_head_dim": 8, "norm_num_groups": 32,
    "cross_attention_dim": 64, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
FOUR_WIDTHS = (8, 8, 16, 16)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def broken(folder, tmp_path):
    """A copy to break."""
    return shutil.copytree(folder, tmp_path / "toy")


@pytest.fixture(scope="module")
def plain():
    """The models of a single file."""
    vae = toy_vae(block_out_channels=(32, 32, 64), norm_num_groups=32, layers_per_block=2)
    return toy_unet(**PLAIN), vae, toy_text_encoder(64, heads=1)


@pytest.fixture(scope="module")
def single(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    save_file(original_checkpoint(*plain), folder / "model.safetensors")
    save_tokenizer(folder / "tokenizer")
    return folder


def assert_same(found, wanted):
    found, wanted = found.state_dict(), wanted.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def test_a_folder_is_what_diffusers_loads(folder):
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextModel

    guidance = load_guidance(GuidanceFiles(folder, controlnet=folder / "controlnet"))
    assert_same(guidance.unet, UNet2DConditionModel.from_pretrained(folder / "unet"))
    assert_same(guidance.vae, AutoencoderKL.from_pretrained(folder / "vae"))
    assert_same(guidance.text_encoder, CLIPTextModel.from_pretrained(folder / "text_encoder"))
    assert_same(guidance.controlnet, ControlNetModel.from_pretrained(folder / "controlnet"))
    tokens = guidance.tokenizer(["a red hat"]).input_ids
    assert tokens == [[1, 4, 7, 3, 2]]


def test_half_precision_files_and_pickles(folder, broken):
    unet = load_file(broken / "unet" / "diffusion_pytorch_model.safetensors")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    halves = {name: value.half() for name, value in unet.items()}
    save_file(halves, broken / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    vae = load_file(broken / "vae" / "diffusion_pytorch_model.safetensors")
    (broken / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    # Files older than diffusers 0.15, as sd-vae-ft-ema's: other names in the attention, and a pickle.
    pairs = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))
    old = {}
    for name, value in vae.items():
        for new, former in pairs:
            name = name.replace(new, former)
        old[name] = value
    assert old.keys() != vae.keys()
    torch.save(old, broken / "vae" / "diffusion_pytorch_model.bin")
    text = load_file(broken / "text_encoder" / "model.safetensors")
    prefixed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in text.items()}
    save_file(
        {**prefixed, "text_model.embeddings.position_ids": torch.arange(8)[None]},
        broken / "text_encoder" / "model.safetensors",
    )
    found, wanted = (load_guidance(GuidanceFiles(path)) for path in (broken, folder))
    assert_same(found.vae, wanted.vae)
    assert_same(found.text_encoder, wanted.text_encoder)
    for name, value in found.unet.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, halves[name].float()), name


def test_a_single_file_is_its_models(plain, single):
    guidance = load_guidance(GuidanceFiles(single / "model.safetensors", tokenizer=single / "tokenizer"))
    for found, wanted in zip((guidance.unet, guidance.vae, guidance.text_encoder), plain):
        assert_same(found, wanted)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = guidance.encode_prompt(["a young man"])
    torch.testing.assert_close(
        guidance.predict_noise(latents, 77, text).eps,
        plain[0](latents, 77, plain[2](torch.tensor([[1, 4, 5, 6, 2, 2, 2, 2]]))[0].expand(2, -1, -1)).sample,
    )
    assert guidance.prediction_type == "epsilon" and guidance.family == "sd-64"


def test_a_single_file_may_say_that_it_predicts_v(single, tmp_path):
    marks = {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}
    torch.save({"state_dict": {**load_file(single / "model.safetensors"), **marks}}, tmp_path / "v.ckpt")
    guidance = load_guidance(GuidanceFiles(tmp_path / "v.ckpt", tokenizer=single / "tokenizer"))
    assert guidance.prediction_type == "v_prediction" and guidance.schedule.has_zero_terminal_snr


def test_a_vae_of_ones_own(plain, single, folder, tmp_path):
    other = toy_vae()
    other.decoder.conv_out.bias.data += 1
    other.save_pretrained(tmp_path / "vae")
    assert_same(load_guidance(GuidanceFiles(folder, vae=tmp_path / "vae")).vae, other)
    beside = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    assert_same(load_guidance(GuidanceFiles(folder, vae=beside)).vae, other)
    blocks = len(plain[1].config.block_out_channels)
    tensors = dict(vae_entry(name, value, blocks) for name, value in plain[1].state_dict().items())
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "alone.safetensors")
    assert_same(load_guidance(GuidanceFiles(folder, vae=tmp_path / "alone.safetensors")).vae, plain[1])
    # The file that is named, not another one of the folder; a configuration beside an original file is another's.
    save_file({name: 2 * value for name, value in other.state_dict().items()}, tmp_path / "vae" / "twice.safetensors")
    twice = load_guidance(GuidanceFiles(folder, vae=tmp_path / "vae" / "twice.safetensors")).vae
    assert torch.equal(next(twice.parameters()), 2 * next(other.parameters()))
    shutil.copy(tmp_path / "alone.safetensors", tmp_path / "vae")
    assert_same(load_guidance(GuidanceFiles(folder, vae=tmp_path / "vae" / "alone.safetensors")).vae, plain[1])


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_controlnet_from_a_file_alone(plain, single, tmp_path, layout):
    control = toy_controlnet(plain[0], widths=FOUR_WIDTHS)
    tensors = original_controlnet(control) if layout == "original" else control.state_dict()
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "control.safetensors")
    files = GuidanceFiles(single / "model.safetensors", controlnet=tmp_path / "control.safetensors")
    guidance = load_guidance(
        GuidanceFiles(files.checkpoint, controlnet=files.controlnet, tokenizer=single / "tokenizer")
    )
    assert_same(guidance.controlnet, control)


def lora_pairs(rank=2):
    """(diffusers' name, kohya's name, down [r, in], up [out, r]) for some layers of each model."""
    draw = torch.Generator().manual_seed(7)
    unet = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    text = "text_model.encoder.layers.0.self_attn"
    layers = [("unet", "lora_unet", unet)]
    layers += [("text_encoder", "lora_te", f"{text}.{name}") for name in ("q_proj", "out_proj")]
    for prefix, kohya, name in layers:
        down, up = torch.randn(2, rank, 32, generator=draw).unbind()
        yield f"{prefix}.{name}", f"{kohya}_{name.replace('.', '_')}", down, up.T.contiguous()


@pytest.mark.parametrize("names", ["diffusers", "kohya"])
def test_a_lora_adds_its_product(folder, tmp_path, names):
    tensors, alpha = {}, 1.0
    for ours, kohya, down, up in lora_pairs():
        if names == "kohya":
            tensors |= {
                f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up, f"{kohya}.alpha": torch.tensor(alpha),
            }  # fmt: skip
        else:
            tensors |= {f"{ours}.lora_A.weight": down, f"{ours}.lora_B.weight": up}
    save_file(tensors, tmp_path / "lora.safetensors")
    before = load_guidance(GuidanceFiles(folder))
    after = load_guidance(GuidanceFiles(folder, loras=((tmp_path / "lora.safetensors", 0.5),)))
    scale = 0.5 * (alpha / 2 if names == "kohya" else 1.0)
    wanted = {ours.replace("text_model.", ""): scale * up @ down for ours, _, down, up in lora_pairs()}
    found = {}
    for model in ("unet", "text_encoder", "vae"):
        old, new = (getattr(guidance, model).state_dict() for guidance in (before, after))
        assert old.keys() == new.keys()
        changes = {name: new[name] - old[name] for name in new if not torch.equal(new[name], old[name])}
        found |= {
            f"{model}.{name}".removesuffix(".weight").replace("text_model.", ""): c for name, c in changes.items()
        }
    assert found.keys() == wanted.keys()
    for name, change in wanted.items():
        torch.testing.assert_close(found[name], change, rtol=1e-4, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in after.unet.parameters())


def test_two_loras_add_up(folder, tmp_path):
    name, _, down, up = next(lora_pairs())
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "one.safetensors")
    file = tmp_path / "one.safetensors"
    twice = load_guidance(GuidanceFiles(folder, loras=((file, 0.25), (file, 0.5))))
    once = load_guidance(GuidanceFiles(folder, loras=((file, 0.75),)))
    for key, value in once.unet.state_dict().items():
        torch.testing.assert_close(twice.unet.state_dict()[key], value)


def test_loras_of_other_models_are_refused(folder, tmp_path):
    file = tmp_path / "lora.safetensors"
    cases = {
        "fits none|neither the U-Net": {"transformer.blocks.0.lora_A.weight": torch.zeros(2, 4)},
        "does not fit the unet": {
            f"unet.{next(lora_pairs())[0].removeprefix('unet.')}.lora_A.weight": torch.zeros(2, 99),
            f"unet.{next(lora_pairs())[0].removeprefix('unet.')}.lora_B.weight": torch.zeros(32, 2),
        },
    }
    for words, tensors in cases.items():
        save_file(tensors, file)
        with pytest.raises(IncompatibleCheckpoint, match=words):
            load_guidance(GuidanceFiles(folder, loras=((file, 1.0),)))
    with pytest.raises(MissingModelFile, match="does not exist"):
        load_guidance(GuidanceFiles(folder, loras=((tmp_path / "none.safetensors", 1.0),)))
    with pytest.raises(InvalidInput, match="strength 20"):
        load_guidance(GuidanceFiles(folder, loras=((file, 20.0),)))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(broken, part):
    shutil.rmtree(broken / part)
    with pytest.raises(MissingModelFile, match=f"lacks {part}: found"):
        load_guidance(GuidanceFiles(broken))


@pytest.mark.parametrize(
    "file, words",
    [
        ("unet/config.json", "unet/config.json' does not exist"),
        ("vae/diffusion_pytorch_model.safetensors", "vae' has no weights: found"),
        ("tokenizer/tokenizer.json", "tokenizer' lacks tokenizer.json"),
        ("scheduler/scheduler_config.json", "scheduler_config.json' does not exist"),
    ],
)
def test_a_missing_file_is_named(broken, file, words):
    (broken / file).unlink()
    with pytest.raises(MissingModelFile, match=words):
        load_guidance(GuidanceFiles(broken))


def test_damaged_files_are_named(broken):
    (broken / "vae" / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match="vae/config.json' is not readable JSON"):
        load_guidance(GuidanceFiles(broken))
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"12345678")
    with pytest.raises(InvalidInput, match="not a whole safetensors file"):
        load_guidance(GuidanceFiles(broken))


def change_weights(folder, name, change):
    file = folder / name / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_weights_that_do_not_fit_are_named(broken):
    change_weights(broken, "unet", lambda tensors: tensors.pop("conv_in.weight"))
    with pytest.raises(IncompatibleCheckpoint, match=r"1 tensors are missing, 0 unknown, .*conv_in.weight missing"):
        load_guidance(GuidanceFiles(broken))
    change_weights(broken, "unet", lambda tensors: tensors.update({"conv_in.weight": torch.zeros(1)}))
    with pytest.raises(IncompatibleCheckpoint, match=r"conv_in.weight \[1\] for \[16, 4, 3, 3\]"):
        load_guidance(GuidanceFiles(broken))
    infinite = torch.full((16, 4, 3, 3), float("inf"))
    change_weights(broken, "unet", lambda tensors: tensors.update({"conv_in.weight": infinite}))
    with pytest.raises(InvalidInput, match=r"non-finite values \('conv_in.weight'\)"):
        load_guidance(GuidanceFiles(broken))


def set_config(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def break_folder(folder, kind):
    if kind == "SDXL by its pipeline":
        set_config(folder / "model_index.json", _class_name="StableDiffusionXLPipeline")
    elif kind == "SDXL by its U-Net":
        set_config(folder / "unet" / "config.json", addition_embed_type="text_time")
    elif kind == "two text encoders":
        (folder / "text_encoder_2").mkdir()
    elif kind == "SD3":
        set_config(folder / "model_index.json", _class_name="StableDiffusion3Pipeline")
    elif kind == "Flux":
        set_config(folder / "model_index.json", _class_name="FluxPipeline")
    elif kind == "transformer":
        (folder / "transformer").mkdir()
        (folder / "transformer" / "config.json").write_text('{"_class_name": "SomeTransformer2DModel"}')
    elif kind == "inpainting":
        set_config(folder / "unet" / "config.json", in_channels=9)
    elif kind == "flow":
        save_scheduler(folder / "scheduler", name="FlowMatchEulerDiscreteScheduler")
    elif kind == "epsilon without signal":
        save_scheduler(folder / "scheduler", zero_snr=True)
    elif kind == "VAE of other channels":
        toy_vae(8).save_pretrained(folder / "vae")
    elif kind == "VAE of another class":
        set_config(folder / "vae" / "config.json", _class_name="AutoencoderDC")
    elif kind == "wider text":
        toy_text_encoder(64).save_pretrained(folder / "text_encoder")
    elif kind == "T5":
        set_config(folder / "text_encoder" / "config.json", model_type="t5")


REFUSALS = {
    "SDXL by its pipeline": "is SDXL", "SDXL by its U-Net": "is SDXL", "two text encoders": "two text encoders",
    "SD3": "is Stable Diffusion 3", "Flux": "is Flux", "transformer": "SomeTransformer2DModel",
    "inpainting": "an inpainting model", "flow": "a flow model", "epsilon without signal": "ends without signal",
    "VAE of other channels": "VAE has 8 latent channels, the U-Net 4", "VAE of another class": "is a AutoencoderDC",
    "wider text": "embedding has 64 numbers, the U-Net expects 32", "T5": "text encoder of type 't5'",
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_other_families_are_refused_by_name(broken, kind):
    break_folder(broken, kind)
    with pytest.raises(IncompatibleCheckpoint, match=REFUSALS[kind]):
        load_guidance(GuidanceFiles(broken))


@pytest.mark.parametrize(
    "keys, words",
    [
        (["model.diffusion_model.label_emb.0.0.weight"], "is SDXL"),
        (["model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.weight"], "is Stable Diffusion 3"),
        (["double_blocks.0.img_attn.norm.key_norm.scale"], "is Flux"),
        (["lora_unet_x.lora_down.weight"], "no complete Stable Diffusion checkpoint"),
        (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.model.ln_final.weight"],
         "Stable Diffusion 2 as a single file"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "without its CLIP text encoder"),
    ],
)  # fmt: skip
def test_single_files_of_other_families_are_refused_by_name(tmp_path, keys, words):
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=words):
        load_guidance(GuidanceFiles(tmp_path / "model.safetensors"))


def test_a_single_file_for_inpainting_is_refused(plain, tmp_path):
    models = (toy_unet(inputs=9, **PLAIN), *plain[1:])
    save_file(original_checkpoint(*models), tmp_path / "model.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match=r"an inpainting model \(9 input and 4 output channels\)"):
        load_guidance(GuidanceFiles(tmp_path / "model.safetensors"))


def test_a_single_file_without_a_tokenizer_takes_clips_or_says_where_to_get_it(single, monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MissingModelFile, match="vocab.json and merges.txt"):
        load_guidance(GuidanceFiles(single / "model.safetensors"))
    cached = tmp_path / "hub" / "models--openai--clip-vit-large-patch14"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("1a")
    names = ("<|startoftext|>", "<|endoftext|>", "a", "m", "n", "a</w>", "n</w>", "an</w>", "man</w>")
    words = {name: number for number, name in enumerate(names)}
    files = {
        "vocab.json": json.dumps(words), "merges.txt": "#version: 0.2\na n</w>\nm an</w>\n",
        "tokenizer_config.json": json.dumps({"tokenizer_class": "CLIPTokenizer"}),
    }  # fmt: skip
    (cached / "snapshots" / "1a").mkdir(parents=True)
    for name, text in files.items():
        (cached / "snapshots" / "1a" / name).write_text(text)
    guidance = load_guidance(GuidanceFiles(single / "model.safetensors"))
    assert guidance.tokenizer(["a man"]).input_ids == [[0, 5, 8, 1]]


def test_controlnets_of_other_families_are_refused_by_name(folder, plain, tmp_path):
    cases = {
        "wide": (toy_controlnet(toy_unet(cross_attention_dim=768)), r"family sd15 \(text of 768.*family sd-32 \(32\)"),
        "blocks": (toy_controlnet(toy_unet(block_out_channels=(16, 64))), "`block_out_channels`"),
        "latents": (toy_controlnet(toy_unet(8)), "`in_channels` 8, the checkpoint 4"),
        "normals": (toy_controlnet(toy_unet(), channels=3), "3 channels, expected 4"),
    }
    for name, (model, words) in cases.items():
        model.save_pretrained(tmp_path / name)
        with pytest.raises(IncompatibleCheckpoint, match=words):
            load_guidance(GuidanceFiles(folder, controlnet=tmp_path / name))
        # The same from the weights alone, whose shapes say it.
        shutil.move(tmp_path / name / "diffusion_pytorch_model.safetensors", tmp_path / "alone.safetensors")
        with pytest.raises(IncompatibleCheckpoint, match="do not fit" if name == "blocks" else words):
            load_guidance(GuidanceFiles(folder, controlnet=tmp_path / "alone.safetensors"))
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "none.safetensors")
    with pytest.raises(IncompatibleCheckpoint, match="is no ControlNet"):
        load_guidance(GuidanceFiles(folder, controlnet=tmp_path / "none.safetensors"))
    with pytest.raises(MissingModelFile, match="ControlNet '.*' does not exist"):
        load_guidance(GuidanceFiles(folder, controlnet=tmp_path / "nothing"))


def test_what_does_not_exist_is_said(tmp_path):
    with pytest.raises(MissingModelFile, match="checkpoint '.*' does not exist"):
        load_guidance(GuidanceFiles(tmp_path / "nothing"))


@pytest.mark.parametrize("package", ["diffusers", "transformers", "peft"])
def test_missing_packages_are_named(folder, tmp_path, monkeypatch, package):
    name, _, down, up = next(lora_pairs())
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == package:
            raise ImportError(f"No module named '{package}'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtension, match=f"pip install {package}"):
        load_guidance(GuidanceFiles(folder, loras=((tmp_path / "lora.safetensors", 1.0),)))


def test_the_maker_s_settings_of_a_folder(folder, broken):
    assert load_guidance(GuidanceFiles(folder)).regions is None
    settings = broken / "guidance.json"
    settings.write_text('{"guidance_scale": 3, "regions": ["face", "mouth"]}', encoding="utf-8")
    known = load_guidance(GuidanceFiles(broken))
    assert (known.guidance_scale, known.regions) == (3.0, ("face", "mouth"))
    settings.write_text('{"guidance_scale": 3, "regions": "face"}', encoding="utf-8")
    with pytest.raises(InvalidInput, match="has regions 'face', expected a list of names"):
        load_guidance(GuidanceFiles(broken))
