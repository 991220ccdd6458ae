"""Training of the ControlNet: what it sees and learns, exact resumption, several processes, results, bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from animportrait3d_core.cli import main
from animportrait3d_core.diffusion.components import controlnet_from_unet, load_controlnet, load_unet
from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.embedded.dataset import build_dataset, dataset_settings
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.files import read_safetensors
from animportrait3d_core.regions import IMAGE_REGIONS
from animportrait3d_core.training import open_dataset
from animportrait3d_core.training.controlnet import train_controlnet
from animportrait3d_core.training.controlnet_data import ControlNetData, Dropout, balanced_rows, condition_images
from animportrait3d_core.training.controlnet_trainer import ControlNetTrainer
from tests.diffusion.toys import save_toy
from tests.embedded.prior_samples import SIZE
from tests.training.controlnet_runs import (
    LOOP,
    NO_DROPOUT,
    ROOT,
    RUN,
    WEIGHTS,
    assert_close_end,
    assert_same_end,
    changed,
    data_of,
    log_of,
    pieces_of,
    state_of,
    stop_after,
    weights_of,
)

# What it sees


def test_a_batch_is_the_same_however_it_is_divided(data):
    samples = data_of(data, dropout=Dropout(0.3, 0.3))
    whole = samples.batch(7, 6, range(6))
    parts = [samples.batch(7, 6, range(start, start + 2)) for start in (0, 2, 4)]
    for field in dataclasses.fields(whole):
        values = [getattr(part, field.name) for part in parts]
        expected = getattr(whole, field.name)
        if field.name == "prompts":
            assert sum(values, []) == expected
        else:
            assert torch.equal(torch.cat(values), expected), field.name
    others = samples.batch(8, 6, range(6)), data_of(data, dropout=Dropout(0.3, 0.3), seed=1).batch(7, 6, range(6))
    assert not any(torch.equal(other.noise, whole.noise) for other in others)
    assert len({float(noise) for noise in whole.noise[:, 0, 0, 0]}) == 6


def test_condition_and_words_are_dropped_as_often_as_asked(data):
    samples = data_of(data, dropout=Dropout(0.25, 0.5))
    batches = [samples.batch(step, 8, range(8)) for step in range(60)]
    conditions = torch.cat([batch.condition for batch in batches])
    black = (conditions == 0).flatten(1).all(1)
    empty = torch.tensor([prompt == "" for batch in batches for prompt in batch.prompts])
    # 480 draws: three standard deviations are 0.059 and 0.068
    assert abs(float(black.float().mean()) - 0.25) < 0.06 and abs(float(empty.float().mean()) - 0.5) < 0.07
    assert abs(float((black & empty).float().mean()) - 0.125) < 0.046
    kept = data_of(data).batch(0, 8, range(8))
    assert not bool((kept.condition == 0).flatten(1).all(1).any()) and "" not in kept.prompts
    steps = torch.cat([batch.timesteps for batch in batches]).float()
    assert steps.min() < 30 and steps.max() > 970 and abs(float(steps.mean()) - 499.5) < 40


def test_rare_regions_are_repeated():
    regions = torch.tensor([1] * 7 + [2] * 3 + [0])
    rows = balanced_rows(regions)
    assert regions[rows].bincount().tolist() == [7, 7, 7]
    counts = rows.bincount(minlength=11)
    assert counts[:7].tolist() == [1] * 7 and sorted(counts[7:10].tolist()) == [2, 2, 3] and counts[10] == 7


@pytest.mark.slow
def test_a_data_set_of_the_embedded_world_is_what_the_paper_trains_on(tmp_path):
    """Regions are equally frequent, crops are told region and abstract prompt, and their place and size are random."""
    build_dataset(tmp_path, dataset_settings("prior", 2, images_per_identity=8, size=32, seed=2), workers=1)
    samples = data_of(tmp_path, 32)
    assert torch.equal(samples.rows.sort().values, torch.arange(16))  # nothing to repeat
    assert samples.dataset.column("region").bincount().tolist() == [4] * len(IMAGE_REGIONS)
    batch = samples.batch(0, 16, range(16))
    order = sorted(batch.prompts)
    assert order == sorted(samples.dataset[index].prompt for index in range(16))
    words = {"eyes": ("left eye region, ", "right eye region, ", "eyes region, "), "mouth": ("mouth region, ",)}
    for index in range(16):
        sample = samples.dataset[index]
        region = IMAGE_REGIONS[sample.region]
        if region in words:
            assert sample.prompt.startswith(words[region]) and sample.prompt.endswith(f", {sample.abstract_prompt}")
        else:
            assert sample.prompt == sample.full_prompt
    for number, region in enumerate(IMAGE_REGIONS):
        of_region = samples.dataset.column("region") == number
        focal, centers = (samples.dataset.column("K")[of_region][:, row] for row in (0, 1))
        assert len(set(focal[:, 0].tolist())) == 4 and len(set(centers[:, 2].tolist())) == 4, region


def test_pictures_are_resized_to_the_base_and_labels_are_not_mixed(data):
    dataset = open_dataset(data)
    sample = dataset[0]
    sample.condition[..., 3] = torch.randint(4, (SIZE, SIZE)).to(torch.uint8) * 85
    same = condition_images([sample], SIZE)
    assert torch.equal(same[0], sample.condition.float() / 255)
    for size in (SIZE // 2, SIZE * 2, SIZE * 3):
        condition = condition_images([sample], size)[0]
        assert condition.shape == (size, size, 4)
        assert set((condition[..., 3] * 255).round().unique().tolist()) == {0, 85, 170, 255}
        assert float((condition * 255 - (condition * 255).round())[..., 3].abs().max()) < 1e-4
        assert abs(float(condition[..., :3].mean() - same[..., :3].mean())) < 0.01
    large = data_of(data, 64).batch(0, 2, range(2))
    assert large.images.shape == (2, 64, 64, 3) and large.condition.shape == (2, 4, 64, 64)


# What it learns


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_first_loss_is_that_of_the_base_alone(data, tmp_path, prediction_type):
    """A new ControlNet adds nothing: its last layers are zero. The loss then follows from the base's own answers."""
    base = save_toy(tmp_path / "base", prediction_type)
    run = dataclasses.replace(changed(steps=1, batch_size=6, log_interval=1), dropout=NO_DROPOUT)
    train_controlnet(base, data, tmp_path / "run", run)
    guidance = load_guidance(GuidanceFiles(base))
    training = open_dataset(data).split(0.2)[0]
    batch = ControlNetData(training, SIZE, (4, 8, 8), 1000, NO_DROPOUT, LOOP.seed).batch(0, 6, range(6))
    with torch.no_grad():
        latents = guidance.encode(batch.images, batch.codec_noise)
    noisy = guidance.schedule.add_noise(latents, batch.noise, batch.timesteps)
    found = guidance.predict_noise(noisy, batch.timesteps, guidance.encode_prompt(batch.prompts))
    answer, target = found.eps, batch.noise
    if prediction_type == "v_prediction":
        answer = guidance.schedule.velocity(found.x0, found.eps, batch.timesteps)
        target = guidance.schedule.velocity(latents, batch.noise, batch.timesteps)
    expected = float((answer - target).square().mean())
    assert log_of(tmp_path / "run")[0]["loss"] == pytest.approx(expected, rel=2e-5)


def test_a_step_goes_down_the_gradient_of_every_weight(base, data, tmp_path):
    """From a ControlNet without zero layers, so that gradients reach all of it: central differences of the loss."""
    captured = {}

    class Keep(ControlNetTrainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            captured["trainer"] = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("animportrait3d_core.training.controlnet.ControlNetTrainer", Keep)
        run = dataclasses.replace(changed(steps=1), start_from=base / "controlnet", parts=2, dropout=NO_DROPOUT)
        train_controlnet(base, data, tmp_path, run)
    trainer, first = captured["trainer"], read_safetensors(base / "controlnet/diffusion_pytorch_model.safetensors")[0]
    trainer.controlnet.load_state_dict(first)
    trainer.step_index = 0
    norm = log_of(tmp_path)[0]["grad_norm"]
    scale = 0.1 * min(1.0, LOOP.clip_norm / norm)  # Adam's first moment is a tenth of the clipped gradient
    moments = {name: value / scale for name, value in trainer.adam.tensors().items() if name.startswith("first/")}
    assert all(float(value.abs().max()) > 0 for value in moments.values())

    def loss_at(shift, directions):
        trainer.controlnet.load_state_dict({n: first[n] + shift * directions[n] for n in first})
        with torch.no_grad():
            return float(sum(trainer._loss(trainer._batch(part)).double() for part in range(2)) / 2)

    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        draws = {name: torch.randn(value.shape, generator=generator) for name, value in first.items()}
        directions = {name: draws[name] * value.std() for name, value in first.items()}
        slope = sum(float((moments[f"first/{name}"] * directions[name]).sum()) for name in first)
        difference = (loss_at(2e-3, directions) - loss_at(-2e-3, directions)) / 4e-3
        assert difference == pytest.approx(slope, rel=0.03, abs=2e-3 * norm)


def test_the_average_is_what_is_kept_and_may_be_left_out(base, data, straight, tmp_path):
    state, weights = state_of(straight[0]), weights_of(straight[0])
    assert all(torch.equal(value, state[f"ema/{name}"]) for name, value in weights.items())
    assert any(not torch.equal(value, state[f"model/{name}"]) for name, value in weights.items())
    train_controlnet(base, data, tmp_path, changed(ema_decay=0.0))
    plain = state_of(tmp_path)
    assert not any(name.startswith("ema/") for name in plain)
    for name, value in weights_of(tmp_path).items():
        assert torch.equal(value, plain[f"model/{name}"]) and torch.equal(value, state[f"model/{name}"]), name


# Stopping and going on


@pytest.mark.parametrize("stop", [1, 3])
def test_a_cancelled_training_ends_bit_identical(base, data, straight, tmp_path, stop):
    with pytest.raises(KeyboardInterrupt):
        train_controlnet(base, data, tmp_path, RUN, stop_after(stop))
    torch.manual_seed(stop)  # whatever others did with the global generator meanwhile
    before = torch.random.get_rng_state()
    result = train_controlnet(base, data, tmp_path, dataclasses.replace(RUN, resume=True))
    assert result.finished and torch.equal(torch.random.get_rng_state(), before)
    assert_same_end(straight[0], tmp_path)


def test_short_sittings_end_bit_identical_and_leave_a_controlnet(base, data, straight, tmp_path):
    sitting = dataclasses.replace(RUN, minutes=1e-9, resume=True)
    assert not train_controlnet(base, data, tmp_path, sitting).finished and (tmp_path / WEIGHTS).is_file()
    train_controlnet(base, data, tmp_path, dataclasses.replace(sitting, minutes=0.1 / 60))
    train_controlnet(base, data, tmp_path, dataclasses.replace(sitting, minutes=None))
    assert_same_end(straight[0], tmp_path)
    again = train_controlnet(base, data, tmp_path, dataclasses.replace(sitting, minutes=None))
    assert again.finished and again.metrics == straight[1].metrics


def test_bfloat16_goes_on_exactly_too(base, data, tmp_path):
    run = dataclasses.replace(changed(steps=3), precision="bf16")
    train_controlnet(base, data, tmp_path / "straight", run)
    with pytest.raises(KeyboardInterrupt):
        train_controlnet(base, data, tmp_path / "stopped", run, stop_after(2))
    train_controlnet(base, data, tmp_path / "stopped", dataclasses.replace(run, resume=True))
    assert_same_end(tmp_path / "straight", tmp_path / "stopped")
    assert all(value.dtype == torch.float32 for value in state_of(tmp_path / "stopped").values())


def test_the_scale_of_float16_belongs_to_the_state(base, data, tmp_path, monkeypatch):
    """accelerate scales on GPUs only: here its scaler is put where it would be."""
    from animportrait3d_core.training import controlnet

    def scaled(precision, plain=controlnet._accelerator):
        accelerator = plain(None)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
        return accelerator

    monkeypatch.setattr(controlnet, "_accelerator", scaled)
    run = changed(steps=3)
    train_controlnet(base, data, tmp_path / "straight", run)
    with pytest.raises(KeyboardInterrupt):
        train_controlnet(base, data, tmp_path / "stopped", run, stop_after(2))
    train_controlnet(base, data, tmp_path / "stopped", dataclasses.replace(run, resume=True))
    assert_same_end(tmp_path / "straight", tmp_path / "stopped")
    for folder in (tmp_path / "straight", tmp_path / "stopped"):
        header = json.loads(read_safetensors(folder / "state.safetensors")[1]["run"])
        assert header["values"]["scaler"]["scale"] == 8.0 * 2**3


def test_parts_of_a_batch_are_a_batch(base, data, straight, tmp_path):
    train_controlnet(base, data, tmp_path, dataclasses.replace(RUN, parts=4))
    assert_close_end(straight[0], tmp_path, rtol=1e-3)


@pytest.mark.slow
def test_a_killed_training_ends_bit_identical(base, data, straight, tmp_path):
    code = (
        "import importlib.util, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from tests.training.test_controlnet import RUN, train_controlnet\n"
        "train_controlnet(*sys.argv[2:5], RUN, lambda *_: time.sleep(0.5))"
    )
    arguments = [sys.executable, "-c", code, str(ROOT), str(base), str(data), str(tmp_path)]
    process = subprocess.Popen(arguments)
    deadline = time.monotonic() + 200
    while not (tmp_path / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "validation" / "00000004.png").exists()
    train_controlnet(base, data, tmp_path, dataclasses.replace(RUN, resume=True))
    assert_same_end(straight[0], tmp_path)


def launch(processes, base, data, output, *more):
    """`accelerate launch` with some processes on the CPU; what it prints.

    With --cpu it would start one process, unless there is MPI: several are started as those of GPUs are.
    """
    several = ["--multi_gpu"] if processes > 1 else ["--cpu"]
    command = [
        sys.executable, "-m", "accelerate.commands.launch", *several, "--num_processes", str(processes),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        "--num_cpu_threads_per_process", "1", "-m", "animportrait3d_core", "train-controlnet", "--base", str(base),
        "--dataset", str(data), "--output", str(output), "--batch-size", "4", "--lr", "0.001", "--validate-every", "0",
        "--seed", "3", "--json", *more,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, cwd=output.parent)
    return done


@pytest.mark.slow
def test_two_processes_are_one_with_the_whole_batch(base, data, tmp_path):
    """The same samples and noise; the gradients are added up in another order."""
    one, two, stopped = (tmp_path / name for name in ("one", "two", "stopped"))
    done = launch(2, base, data, two, "--steps", "4")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["finished"] and len(log_of(two)) == 1 and pieces_of(two) == 2
    assert launch(1, base, data, one, "--steps", "4").returncode == 0 and pieces_of(one) == 1
    assert_close_end(one, two, rtol=1e-3)
    # What was stopped goes on exactly with as many processes as before. Minutes are the first one's.
    assert launch(2, base, data, stopped, "--steps", "4", "--minutes", "0.0001").returncode == 0
    assert 0 < float(state_of(stopped)["adam_steps"][0]) < 4
    assert launch(2, base, data, stopped, "--steps", "4", "--resume").returncode == 0
    assert_same_end(two, stopped)


# What comes out


def test_the_result_is_a_plain_folder_that_the_guidance_loads(base, straight):
    from diffusers import ControlNetModel

    folder = straight[0] / "controlnet"
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "config.json", "diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    theirs = ControlNetModel.from_pretrained(str(folder))
    assert theirs.config.conditioning_channels == 4
    assert all(torch.equal(value, weights_of(straight[0])[name]) for name, value in theirs.state_dict().items())
    guidance = load_guidance(GuidanceFiles(base, controlnet=folder))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text, condition = guidance.encode_prompt(["a young man"]), torch.rand(1, SIZE, SIZE, 4)
    with_it, without = (guidance.predict_noise(noise, 500, text, c).eps for c in (condition, None))
    assert float((with_it - without).abs().max()) > 0
    card = (folder / "README.md").read_text()
    assert "4 steps of 4 pictures" in card and "76 pictures of 19 persons" in card and str(base) not in card


def test_validation_shows_condition_truth_and_sample(data, straight):
    files = sorted((straight[0] / "validation").iterdir())
    assert [file.name for file in files] == ["00000002.png", "00000004.png"]
    picture = torch.from_numpy(np.array(Image.open(files[-1])))
    assert picture.shape == (4 * SIZE, 4 * SIZE, 3)  # a row for each region
    held_out = open_dataset(data).split(0.2)[1].of_region("bust")
    first, columns = held_out[0], picture[:SIZE].split(SIZE, 1)
    assert torch.equal(columns[0], first.condition[..., :3])
    assert torch.equal(columns[1], first.condition[..., 3:].expand(-1, -1, 3))
    assert torch.equal(columns[2], first.rgb)
    assert "psnr" in log_of(straight[0])[-1] and straight[1].metrics["psnr"] > 0


def test_a_controlnet_begins_with_the_weights_of_the_base(tmp_path):
    """Also where text is in the time embedding, whose number of heads diffusers forgets."""
    base = save_toy(tmp_path, addition_embed_type="text", addition_embed_type_num_heads=4)
    unet = load_unet("test", base / "unet")
    states, noisy = torch.randn(2, 8, 32), torch.randn(2, 4, 8, 8)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    controlnet = controlnet_from_unet("test", unet, 4, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        assert torch.equal(controlnet.add_embedding(states), unet.add_embedding(states))
        assert torch.equal(controlnet.conv_in(noisy), unet.conv_in(noisy))
        down, middle = controlnet(noisy, 3, states, torch.rand(2, 4, 32, 32), return_dict=False)
    assert all(float(value.abs().max()) == 0 for value in (*down, middle))
    assert controlnet.config.addition_embed_type_num_heads == 4
    first, again, other = (
        model.controlnet_cond_embedding.conv_in.weight
        for model in (controlnet, *(controlnet_from_unet("test", unet, 4, seed) for seed in (5, 6)))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert controlnet_from_unet("test", unet, 8, 0).config.conditioning_embedding_out_channels == (16, 32, 96, 256)


def test_a_controlnet_goes_on_from_another(base, data, straight, tmp_path):
    run = dataclasses.replace(changed(steps=1, lr=0.0), start_from=straight[0] / "controlnet")
    train_controlnet(base, data, tmp_path, run)
    for name, value in weights_of(straight[0]).items():
        assert torch.equal(value, weights_of(tmp_path)[name]), name
    with pytest.raises(InvalidInput, match="made with another start: found"):
        train_controlnet(base, data, tmp_path, dataclasses.replace(run, start_from=None, resume=True))


def test_the_command(base, data, tmp_path, capsys):
    command = [
        "train-controlnet", "--base", str(base), "--dataset", str(data), "--output", str(tmp_path / "out"),
        "--steps", "2", "--accumulate", "2", "--guidance-scale", "2", "--lr", "1e-3", "--json",
    ]  # fmt: skip
    assert main(command) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["finished"] and done["step"] == 2 and done["metrics"]["psnr"] > 0
    assert load_controlnet("test", tmp_path / "out" / "controlnet", load_unet("test", base / "unet")) is not None
    assert main(command) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "InvalidInput" and "--resume" in error["message"]
    assert main([*command, "--resume", "--steps", "3"]) == 2
    command[command.index(str(base))] = str(tmp_path / "nowhere")
    command[command.index(str(tmp_path / "out"))] = str(tmp_path / "other")
    assert main(command) == 3
