"""The prior's words, losses, files and training, on a small data set of drawn heads."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from animportrait3d_core.cli import main
from animportrait3d_core.conditioning import CROP_REGIONS, region_prompt
from animportrait3d_core.diffusion import NoiseSchedule
from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.diffusion.sampling import SamplingSettings
from animportrait3d_core.embedded.identities import sample_attributes
from animportrait3d_core.embedded.identities.prompts import describe, describe_abstractly
from animportrait3d_core.embedded.prior.codec import RAW_STD
from animportrait3d_core.embedded.prior.codec_training import CodecSettings, CodecTask
from animportrait3d_core.embedded.prior.networks import SCHEDULER_CONFIG, PriorNetworks, prior_schedule
from animportrait3d_core.embedded.prior.pipeline import load_codec, load_weights, save_codec, save_pipeline
from animportrait3d_core.embedded.prior.prior_training import PriorSettings, PriorTask, tokens_of
from animportrait3d_core.embedded.prior.quality import QualitySettings, sample_images
from animportrait3d_core.embedded.prior.train import PriorRun, train_prior
from animportrait3d_core.embedded.prior.vocabulary import (
    MAX_TOKENS,
    UNKNOWN,
    TextVariation,
    build_tokenizer,
    save_tokenizer,
    varied_text,
)
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.files import read_safetensors
from animportrait3d_core.training import open_dataset
from animportrait3d_core.training.guided_samples import spread_over_regions
from animportrait3d_core.training.loop import LoopSettings, Trainer, train
from animportrait3d_core.training.workers import Workers
from tests.embedded.prior_samples import PERSONS, SIZE, write_drawn

QUALITY = QualitySettings(per_region=1, sampling=SamplingSettings(3, 2.0))
RUN = PriorRun(
    steps=3, batch_size=6, codec=CodecSettings(crop=SIZE, held_out_limit=8),
    prior=PriorSettings(loss_limit=8, quality=QUALITY),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_drawn(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def codec(data, tmp_path_factory):
    """The folder of a codec with an untrained decoder."""
    folder = tmp_path_factory.mktemp("codec")
    save_codec(CodecTask(open_dataset(data), RUN.codec).model, folder)
    return folder


def networks(seed=0):
    torch.manual_seed(seed)
    model = PriorNetworks(len(build_tokenizer()))
    # A ControlNet begins with zero convolutions, which would hide whether it is heard.
    for layer in (*model.controlnet.controlnet_down_blocks, model.controlnet.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.2)
    return model


# Words


def test_every_prompt_of_the_embedded_world_is_known():
    tokenizer, draw = build_tokenizer(), np.random.default_rng(0)
    longest = 0
    for _ in range(300):
        person = sample_attributes(draw)
        full, abstract = describe(person), describe_abstractly(person)
        for text in ("", *(region_prompt(region, full, abstract) for region in CROP_REGIONS.values())):
            tokens = tokenizer([f"side view {text}"]).input_ids[0]
            assert tokenizer.unk_token_id not in tokens, text
            longest = max(longest, len(tokens))
    assert longest <= MAX_TOKENS


def test_words_are_words(tmp_path):
    tokenizer = build_tokenizer()
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(["A middle-aged man,red hair , a monocle"]).input_ids[0])
    assert tokens == ["<s>", "a", "middle-aged", "man", ",", "red", "hair", ",", "a", UNKNOWN, "</s>"]
    (row,) = tokens_of(tokenizer, ["a man"]).tolist()
    assert len(row) == MAX_TOKENS and set(row[3:]) == {tokenizer.eos_token_id}
    assert tokens_of(tokenizer, ["a " * 99]).shape == (1, MAX_TOKENS)
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    save_tokenizer(tokenizer, tmp_path)
    for kind in (PreTrainedTokenizerFast, AutoTokenizer):
        again = kind.from_pretrained(tmp_path, local_files_only=True)
        assert again(["A middle-aged man, x"]).input_ids == tokenizer(["A middle-aged man, x"]).input_ids


def varied(count=400, prompt="mouth region, a young man, fair skin, blue sweater", **settings):
    draw = torch.Generator().manual_seed(0)
    plain = {"drop": 0.0, "view": 0.0, "shorten": 0.0, "forget": 0.0}
    variation = TextVariation(**{**plain, **settings})
    return [varied_text(prompt, "side view", variation, draw) for _ in range(count)]


def test_texts_vary_as_often_as_they_should():
    prompt = "mouth region, a young man, fair skin, blue sweater"
    assert set(varied(3)) == {prompt}
    assert set(varied(3, drop=1.0)) == {""}
    assert set(varied(3, view=1.0)) == {f"side view {prompt}"}
    assert set(varied(1, forget=1.0)) == {f"{UNKNOWN} {UNKNOWN}, {UNKNOWN} {UNKNOWN} {UNKNOWN}, " + " ".join(
        [UNKNOWN, f"{UNKNOWN},", UNKNOWN, UNKNOWN]
    )}  # fmt: skip
    shortened = varied(shorten=1.0)
    kept = "mouth region, a young man"
    assert set(shortened) == {kept, f"{kept}, fair skin", f"{kept}, blue sweater", prompt}
    assert all(60 < shortened.count(text) < 140 for text in set(shortened))
    assert 30 < varied(drop=0.1).count("") < 55


# Codec


def test_only_the_decoder_learns_and_it_does(data, tmp_path):
    task = CodecTask(open_dataset(data), RUN.codec)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    with torch.no_grad():
        start = task.evaluate(task.model.eval())
    settings = LoopSettings(steps=25, batch_size=4, lr=3e-3, warmup_steps=5, weight_decay=0.0)
    result = train(task, settings, tmp_path)
    assert result.metrics["psnr_figure"] > start["psnr_figure"] + 3
    assert result.metrics["psnr_linear"] == pytest.approx(start["psnr_linear"], abs=1e-4)
    changed = {name for name, value in result.weights.items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)


def test_the_basis_knows_no_held_out_person(data, tmp_path):
    """Whatever the held-out persons look like, the basis stays."""
    task = CodecTask(open_dataset(data), RUN.codec)
    held_out, trained = task.split.held_out.identities, task.split.training.identities
    assert held_out and not set(held_out) & set(trained)
    spoiled = CodecTask(open_dataset(write_drawn(tmp_path / "held out", spoiled=held_out)), RUN.codec)
    assert torch.equal(spoiled.basis.projection, task.basis.projection)
    spoiled = CodecTask(open_dataset(write_drawn(tmp_path / "trained", spoiled=trained[:3])), RUN.codec)
    assert not torch.allclose(spoiled.basis.projection, task.basis.projection)


def test_crops_have_the_latents_of_what_they_show(data):
    task = CodecTask(open_dataset(data), CodecSettings(crop=16, noise=0.0))
    batch = task.batch(torch.arange(12), torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch["latents"], task.basis.encode(batch["images"]), rtol=0, atol=1e-5)
    noisy = CodecTask(open_dataset(data), CodecSettings(crop=16, noise=0.5))
    again = noisy.batch(torch.arange(12), torch.Generator().manual_seed(0))
    change = (again["latents"] - batch["latents"]).square().mean((1, 2, 3)).sqrt()
    assert 2 <= int((change == 0).sum()) <= 10 and float(change.max()) < 0.55


def test_a_stored_codec_is_the_codec(data, codec):
    task = CodecTask(open_dataset(data), RUN.codec)
    loaded = load_codec(codec)
    pictures = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(loaded.encode(pictures).latents, codec_latents(task, pictures))
    assert loaded.config.scaling_factor == 1 / RAW_STD


def codec_latents(task, pictures):
    with torch.no_grad():
        return task.model.encode(pictures).latents


# Losses


@pytest.fixture(scope="module")
def task(data, codec):
    return PriorTask(networks(), open_dataset(data), codec, RUN.prior)


def with_free_share(task, share):
    task.losses = dataclasses.replace(task.losses, settings=dataclasses.replace(task.settings, free_share=share))
    return task


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_loss_is_the_weighted_error_of_v(task, share):
    draw = torch.Generator().manual_seed(0)
    batch = task.batch(torch.arange(5), draw)
    with torch.no_grad():
        (loss,) = with_free_share(task, share).losses(task.model, batch, draw).values()
        total = 0.0
        for k in range(5):
            step = int(batch["timesteps"][k])
            abar = float(task.schedule.alphas_cumprod[step])
            z, n = batch["latents"][k : k + 1], batch["noise"][k : k + 1]
            noisy = abar**0.5 * z + (1 - abar) ** 0.5 * n
            condition = None if share else batch["condition"][k : k + 1]
            v = task.model(noisy, torch.tensor([step]), batch["tokens"][k : k + 1], condition)
            error = float((v - (abar**0.5 * n - (1 - abar) ** 0.5 * z)).square().mean())
            snr = abar / (1 - abar)
            total += error * min(snr + 1, 5.0) / (snr + 1) / 5
    assert float(loss) == pytest.approx(total, rel=1e-4)


def test_without_signal_the_loss_counts_in_full(task):
    """Where the prompt alone decides the colours: min(SNR, 5) / (SNR + 1) would forget it."""
    weights = task.losses.weights(torch.tensor([999, 900, 10, 0]))
    assert weights[0] == 1 and weights[1] == 1 and weights[2] < 0.2 and weights[3] < weights[2]


def test_free_batches_leave_the_controlnet_alone(task):
    draw = torch.Generator().manual_seed(1)
    batch = task.batch(torch.arange(4), draw)
    for share, name in ((1.0, "v_free"), (0.0, "v_controlled")):
        task.model.zero_grad(set_to_none=True)
        losses = with_free_share(task, share).losses(task.model, batch, draw)
        assert list(losses) == [name]
        losses[name].backward()
        heard = [value.grad is not None for value in task.model.controlnet.parameters()]
        assert any(heard) != bool(share)
        text = task.model.text_encoder.named_parameters()
        assert all(value.grad is not None for name, value in text if "embedding" in name)
    counts = [list(with_free_share(task, 0.4).losses(task.model, batch, draw)) for _ in range(30)]
    assert 4 <= counts.count(["v_free"]) <= 20


def test_a_batch_spreads_its_timesteps(task):
    batch = task.batch(torch.arange(20), torch.Generator().manual_seed(2))
    # T u^0.6: undone, there is one in each twentieth, up to the rounding to whole timesteps.
    even = ((batch["timesteps"] + 0.5) / 1000).double() ** (1 / task.settings.noise_power) * 20
    torch.testing.assert_close(even.sort().values, torch.arange(20) + 0.5, atol=0.52, rtol=0, check_dtype=False)
    assert batch["timesteps"].float().mean() > 600
    assert batch["timesteps"].tolist() != sorted(batch["timesteps"].tolist())
    assert batch["condition"].shape == (20, 4, SIZE, SIZE) and float(batch["condition"].max()) == 1.0
    sample = task.split.training[3]
    torch.testing.assert_close(batch["condition"][3], sample.condition.permute(2, 0, 1).float() / 255)
    picture = sample.rgb.permute(2, 0, 1)[None].float() / 127.5 - 1
    wanted = task.codec.encode(picture).latents[0] / RAW_STD
    torch.testing.assert_close(batch["latents"][3], wanted, rtol=1e-3, atol=2e-3)


# Files


@pytest.fixture(scope="module")
def pipeline(codec, tmp_path_factory):
    model = networks(3)
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(model, codec, build_tokenizer(), folder)
    return folder, model


def test_the_folder_is_a_guidance_of_the_same_networks(pipeline):
    folder, model = pipeline
    guidance = load_guidance(GuidanceFiles(folder, controlnet=folder / "controlnet"))
    assert guidance.prediction_type == "v_prediction" and guidance.schedule.has_zero_terminal_snr
    assert (guidance.latent_channels, guidance.latent_scale, guidance.image_size) == (8, 2.0, 128)
    rounded = networks(4)
    load_weights(rounded, folder)
    for name, value in rounded.state_dict().items():
        own = model.state_dict()[name]
        assert torch.equal(value, own if name.startswith("text_encoder.") else own.half().float()), name
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 8, 8, 8, generator=draw)
    condition = torch.rand(2, SIZE, SIZE, 4, generator=draw)
    texts = ["mouth region, a young man", ""]
    tokens = tokens_of(build_tokenizer(), texts)
    for control in (None, condition):
        found = guidance.predict_noise(latents, 400, guidance.encode_prompt(texts), control)
        with torch.no_grad():
            maps = None if control is None else control.permute(0, 3, 1, 2)
            v = rounded(latents, torch.full((2,), 400), tokens, maps)
        torch.testing.assert_close(prior_schedule().velocity(found.x0, found.eps, 400), v, rtol=1e-4, atol=1e-4)


def test_diffusers_opens_the_folder_as_its_own(pipeline):
    from diffusers import StableDiffusionControlNetPipeline

    folder, _ = pipeline
    pipe = StableDiffusionControlNetPipeline.from_pretrained(str(folder), local_files_only=True)
    latents = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures = pipe(
        "a young man", image=torch.rand(1, 4, SIZE, SIZE), latents=latents, num_inference_steps=2, guidance_scale=2.0,
        height=SIZE, width=SIZE, output_type="pt",
    ).images  # fmt: skip
    assert pictures.shape == (1, 3, SIZE, SIZE) and bool(torch.isfinite(pictures).all())


def test_the_scheduler_file_is_the_schedule_of_the_training(pipeline):
    from diffusers import DDIMScheduler

    known = DDIMScheduler.from_pretrained(str(pipeline[0] / "scheduler"))
    torch.testing.assert_close(known.alphas_cumprod, prior_schedule().alphas_cumprod, rtol=1e-4, atol=1e-7)
    assert known.config.timestep_spacing == "trailing" and not known.config.clip_sample
    assert known.config.prediction_type == SCHEDULER_CONFIG["prediction_type"] == "v_prediction"


def test_samples_of_a_picture_do_not_depend_on_the_others(pipeline, data):
    guidance = load_guidance(GuidanceFiles(pipeline[0], controlnet=pipeline[0] / "controlnet"))
    dataset = open_dataset(data)
    chosen = spread_over_regions(dataset, 2)
    assert dataset.column("region")[chosen].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    samples = [dataset[index] for index in chosen.tolist()]
    many = sample_images(guidance, samples, QUALITY, controlled=True)
    few = sample_images(guidance, samples[:1], QUALITY, controlled=True)
    torch.testing.assert_close(many[:1], few, rtol=1e-4, atol=1e-4)
    free = sample_images(guidance, samples, QUALITY, controlled=False)
    assert float((many - free).abs().max()) > 1e-3


# Training


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, train_prior(data, folder, RUN)


def steps_done(folder):
    return json.loads(read_safetensors(folder / "state.safetensors")[1]["run"])["step"]


def test_a_training_leaves_a_pipeline_with_its_measures(straight, data):
    folder, result = straight
    assert result["finished"] and {"psnr_controlled", "psnr_free", "psnr_codec"} <= result.keys()
    files = {
        "README.md",
        "model_index.json",
        "guidance.json",
        "unet",
        "vae",
        "controlnet",
        "text_encoder",
        "tokenizer",
        "scheduler",
    }
    assert {entry.name for entry in (folder / "pipeline").iterdir()} == files
    assert (folder / "samples.png").is_file()
    settings = json.loads((folder / "pipeline" / "guidance.json").read_text())
    assert settings["regions"] == ["bust", "face", "left eye", "right eye", "both eyes", "mouth"]
    card = (folder / "pipeline" / "README.md").read_text()
    held_out = len(open_dataset(data).split(0.05)[1].identities)
    assert f"of {PERSONS - held_out} persons for training, {4 * held_out} of {held_out} others" in card
    assert all(f"| {stage} | 3 |" in card for stage in ("codec", "part1", "part2"))


@pytest.mark.parametrize("stopped", [("codec", 2), ("part1", 1), ("part2", 2)])
def test_a_stopped_training_ends_bit_identical(straight, data, tmp_path, stopped):
    def stop(stage):
        def progress(step, total, preview):
            if (stage, step) == stopped:
                raise KeyboardInterrupt

        return progress

    for stage in ("codec", "part1", "part2"):
        if stage != stopped[0] and (straight[0] / stage).is_dir():
            shutil.copytree(straight[0] / stage, tmp_path / stage)
            if stage > stopped[0]:
                shutil.rmtree(tmp_path / stage)
    with pytest.raises(KeyboardInterrupt):
        train_prior(data, tmp_path, RUN, stop)
    assert steps_done(tmp_path / stopped[0]) == stopped[1]
    assert train_prior(data, tmp_path, RUN)["finished"]
    for stage in ("codec", "part1", "part2"):
        one, two = (read_safetensors(folder / stage / "state.safetensors")[0] for folder in (straight[0], tmp_path))
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert torch.equal(value, two[name]), (stage, name)


TERMS = {"codec": {"l1", "gradient", "ssim"}, "prior": {"v_free", "v_controlled"}}


def task_of(kind, data, codec):
    samples = open_dataset(data)
    if kind == "codec":
        torch.manual_seed(0)
        return CodecTask(samples, RUN.codec)
    return PriorTask(networks(), samples, codec, RUN.prior)


def steps_of(task, count, device="cpu", processes=1):
    """(the terms of the loss of each step, the weights after the last one)."""
    trainer = Trainer(task, LoopSettings(steps=count, batch_size=6, lr=1e-3, warmup_steps=0), device)
    with contextlib.ExitStack() as stack:
        if processes > 1:
            trainer.workers = stack.enter_context(Workers(task.losses, trainer.model, processes))
        terms = []
        for _ in range(count):
            trainer.step()
            terms.append(trainer.losses)
    return terms, {name: value.cpu() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("kind", ["codec", "prior"])
def test_two_processes_learn_what_one_does(data, codec, kind):
    one, weights = steps_of(task_of(kind, data, codec), 4)
    two, others = steps_of(task_of(kind, data, codec), 4, processes=2)
    assert {name for terms in one for name in terms} == TERMS[kind]
    assert [terms == pytest.approx(other, rel=2e-6) for terms, other in zip(one, two)] == [True] * 4
    moved = [float((others[name] - value).abs().mean()) for name, value in weights.items()]
    # Where a gradient is about zero, rounding decides the direction of Adam's steps; they are 1e-3 long.
    assert sum(moved) / len(moved) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("kind", ["codec", "prior"])
def test_a_gpu_learns_what_a_cpu_does(data, codec, tmp_path, kind):
    one, _ = steps_of(task_of(kind, data, codec), 3)
    two, _ = steps_of(task_of(kind, data, codec), 3, "cuda")
    assert [terms == pytest.approx(other, rel=2e-2) for terms, other in zip(one, two)] == [True] * 3
    # Begun on the one, gone on with on the other, in 16 bits; evaluated there.
    settings = LoopSettings(steps=3, batch_size=6, precision="mixed", save_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        train(task_of(kind, data, codec), settings, tmp_path, report=interrupt)
    result = train(task_of(kind, data, codec), settings, tmp_path, resume=True, device="cuda")
    assert result.finished and all(math.isfinite(value) for value in result.metrics.values())
    assert {value.device.type for value in result.weights.values()} == {"cpu"}


def interrupt(step, steps, values):
    raise KeyboardInterrupt


def test_no_minutes_are_no_steps(data, tmp_path):
    result = train_prior(data, tmp_path, dataclasses.replace(RUN, minutes=0.0))
    assert result == {"finished": False}
    assert steps_done(tmp_path / "codec") == 0


def test_what_is_finished_is_left_alone(straight, data):
    folder, _ = straight
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("state.safetensors")}
    assert train_prior(data, folder, RUN)["finished"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("state.safetensors")} == before


def test_a_training_may_begin_with_known_weights(straight, data, tmp_path):
    known = straight[0] / "pipeline"
    run = dataclasses.replace(RUN, stages=("codec", "part2"), steps=1, start_from=known, seed=1)
    train_prior(data, tmp_path, run)
    assert not (tmp_path / "codec").exists()
    for name in ("vae/diffusion_pytorch_model.safetensors", "vae/config.json"):
        assert (tmp_path / "pipeline" / name).read_bytes() == (known / name).read_bytes()
    one, two = (
        read_safetensors(folder / "unet" / "diffusion_pytorch_model.safetensors")[0]
        for folder in (known, tmp_path / "pipeline")
    )
    # One step of warm-up moves each weight by a hundredth of the rate at most.
    assert 0 < max(float((one[name].float() - two[name].float()).abs().max()) for name in one) < 2e-3


def test_other_data_and_other_stages_are_refused(data, tmp_path):
    with pytest.raises(InvalidInput, match="no condition maps"):
        train_prior(write_drawn(tmp_path / "plain", condition=False), tmp_path / "out", RUN)
    for stages in (("part4",), (), ("part2", "part1")):
        with pytest.raises(InvalidInput, match="expected some of codec, part1, part2, part3 in order"):
            PriorRun(stages=stages)


def test_the_command_trains_and_says_what_came_of_it(straight, data, tmp_path, capsys):
    arguments = ["embedded", "train-prior", "--dataset", str(data), "--output", str(tmp_path), "--json", "--steps", "1"]
    arguments += ["--batch-size", "2", "--stages", "part2", "--start-from", str(straight[0] / "pipeline")]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["finished"] and "psnr_controlled" in result and (tmp_path / "pipeline" / "model_index.json").is_file()
    refusals = {
        ("--stages", "nothing"): "expected some of codec",
        ("--steps", "2", "--processes", "3"): "3 processes for batches of 2",
        ("--steps", "2", "--device", "toaster"): "device 'toaster' does not work here",
        ("--processes", "2", "--threads", "2"): "2 processes have one thread each",
    }
    for more, message in refusals.items():
        assert main([*arguments, *more]) == 2
        assert message in json.loads(capsys.readouterr().out)["error"]["message"]


def test_the_schedule_ends_without_signal():
    schedule = prior_schedule()
    assert isinstance(schedule, NoiseSchedule) and schedule.has_zero_terminal_snr and len(schedule) == 1000
