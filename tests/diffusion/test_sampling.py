"""Sampling is diffusers' DDIM, and SDEdit starts where it should."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.diffusion import NoiseSchedule
from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.diffusion.sampling import (
    Conditioning,
    PictureSettings,
    SamplingSettings,
    StartingPoint,
    sample,
    sample_pictures,
)
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from animportrait3d_core.randomness import generator_at
from tests.diffusion.toys import save_toy


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def guidance(request, tmp_path_factory):
    folder = save_toy(
        tmp_path_factory.mktemp("toy"), prediction_type=request.param, zero_snr=request.param != "epsilon"
    )
    return load_guidance(GuidanceFiles(folder), dtype=torch.float64)


def noise_and_text(guidance):
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise, guidance.encode_prompt(["a young man", "red hair"]), guidance.encode_prompt([""])


def ddim_of_diffusers(guidance, noise, text, negative, scale, steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        trained_betas=None, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type=guidance.prediction_type, timestep_spacing="trailing", set_alpha_to_one=True,
        rescale_betas_zero_snr=guidance.schedule.has_zero_terminal_snr,
    )  # fmt: skip
    scheduler.alphas_cumprod = guidance.alphas_cumprod.double()
    scheduler.set_timesteps(steps)
    latents = noise
    for step in scheduler.timesteps:
        outputs = [
            guidance.unet(latents, step, words.hidden_states.expand(2, -1, -1).double()).sample
            for words in (negative, text)
        ]
        output = outputs[0] + scale * (outputs[1] - outputs[0])
        latents = scheduler.step(output, step, latents).prev_sample
    return latents


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_is_diffusers_ddim(guidance, scale):
    noise, text, negative = noise_and_text(guidance)
    with torch.no_grad():
        wanted = ddim_of_diffusers(guidance, noise, text, negative, scale, 8)
    found = sample(guidance, SamplingSettings(8, scale), Conditioning(text, negative), StartingPoint(noise))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_sdedit_begins_at_its_share_of_the_way(guidance):
    noise, text, negative = noise_and_text(guidance)
    start = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    settings = SamplingSettings(20, 2.0, strength=0.3)
    assert settings.timesteps(guidance.schedule) == [299, 249, 199, 149, 99, 49]
    assert len(SamplingSettings(20, strength=0.9).timesteps(guidance.schedule)) == 18
    one = SamplingSettings(20, 2.0, strength=0.05)
    found = sample(guidance, one, Conditioning(text, negative), StartingPoint(noise, start))
    noisy = guidance.schedule.add_noise(start, noise, 49)
    wanted = guidance.predict_guided_noise(noisy, 49, text, negative, 2.0).x0
    torch.testing.assert_close(found, wanted)


def test_a_start_that_is_missing_and_other_strengths_are_refused(guidance):
    noise, text, negative = noise_and_text(guidance)
    with pytest.raises(InvalidInput, match="without latents to begin from"):
        sample(guidance, SamplingSettings(strength=0.5), Conditioning(text, negative), StartingPoint(noise))
    for strength in (0.0, 1.5, 0.01):
        with pytest.raises(InvalidInput, match="at least one step"):
            SamplingSettings(20, strength=strength).timesteps(NoiseSchedule.stable_diffusion())


@pytest.fixture(scope="module")
def controlled(tmp_path_factory):
    folder = save_toy(tmp_path_factory.mktemp("toy"))
    return load_guidance(GuidanceFiles(folder, controlnet=folder / "controlnet"), dtype=torch.float64)


def condition_of(count, size=32, channels=4):
    return torch.rand(count, size, size, channels, generator=torch.Generator().manual_seed(3))


def test_pictures_are_decoded_samples_of_seeded_noise(guidance):
    settings = PictureSettings(SamplingSettings(3, 2.0), count=3, seed=5, batch=2)
    pictures = sample_pictures(guidance, settings, "a young man", "red hair")
    assert pictures.shape == (3, 32, 32, 3) and pictures.dtype == torch.float32
    text, negative = guidance.encode_prompt(["a young man"]), guidance.encode_prompt(["red hair"])
    for index, picture in enumerate(pictures):
        noise = torch.randn(1, 4, 8, 8, generator=generator_at(5, "picture", index))
        wanted = guidance.decode(
            sample(guidance, settings.sampling, Conditioning(text, negative), StartingPoint(noise))
        )[0]
        torch.testing.assert_close(picture, wanted.float(), rtol=0, atol=1e-6)
    assert float((pictures - sample_pictures(guidance, settings, "a young man")).abs().max()) > 1e-5
    one = dataclasses.replace(settings, count=1)
    torch.testing.assert_close(sample_pictures(guidance, one, "a young man", "red hair")[0], pictures[0])
    assert sample_pictures(guidance, dataclasses.replace(one, size=(16, 24)), "a").shape == (1, 16, 24, 3)


def test_each_picture_has_its_own_condition_or_all_one(controlled):
    settings = PictureSettings(SamplingSettings(2, 2.0), count=3, batch=2)
    conditions = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 32, 32, 4)
    own = sample_pictures(controlled, settings, "a man", condition=conditions)
    for index in range(3):
        same = sample_pictures(controlled, settings, "a man", condition=conditions[index : index + 1])
        torch.testing.assert_close(own[index], same[index], rtol=1e-4, atol=1e-5)
        assert float((own[index - 1] - same[index - 1]).abs().max()) > 1e-4


def test_progress_counts_through_all_batches_and_shows_pictures(guidance):
    seen = []
    settings = PictureSettings(SamplingSettings(10, 1.0), count=3, batch=2)
    sample_pictures(guidance, settings, "a man", progress=lambda *report: seen.append(report))
    assert [(step, total) for step, total, _ in seen] == [(step, 20) for step in range(1, 21)]
    shown = [step for step, _, picture in seen if picture is not None]
    assert shown == list(range(2, 21, 2)) and seen[1][2].shape == (32, 32, 3)

    def stop(step, total, preview):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_pictures(guidance, settings, "a man", progress=stop)


@pytest.mark.parametrize(
    ("condition", "error", "words"),
    [
        (condition_of(1, channels=3), ShapeMismatch, "has 3 channels, expected 4 .* Connect `packed` of Cond"),
        (condition_of(1, 40), ShapeMismatch, r"shape \[1, 40, 40, 4\], expected \[1 or 2, 32, 32, 4\]"),
        (condition_of(3), ShapeMismatch, r"shape \[3, 32, 32, 4\], expected \[1 or 2, 32"),
        (condition_of(1)[0], ShapeMismatch, r"shape \[32, 32, 4\]"),
        (condition_of(1) / 0, InvalidInput, "`condition` holds 4096 non-finite"),
    ],
)
def test_conditions_that_do_not_fit_are_refused_before_anything_runs(controlled, condition, error, words):
    with pytest.raises(error, match=f"^sample_pictures: .*{words}"):
        sample_pictures(controlled, PictureSettings(count=2), "a man", condition=condition)


def test_sizes_and_counts_that_cannot_be_are_refused(guidance):
    with pytest.raises(InvalidInput, match="30 x 32 pixels, expected multiples of 4"):
        sample_pictures(guidance, PictureSettings(size=(30, 32)), "a man")
    with pytest.raises(InvalidInput, match="0 pictures"):
        PictureSettings(count=0)
    with pytest.raises(InvalidInput, match="no ControlNet is loaded; load one, or go without the condition"):
        sample_pictures(guidance, PictureSettings(SamplingSettings(1)), "a man", condition=condition_of(1))


def test_a_guidance_says_what_it_is(guidance, controlled):
    first, control, where = controlled.summary().splitlines()
    assert first == "family sd-32, prediction epsilon, 4 latent channels, pictures of 32 pixels"
    assert control == "ControlNet of 4 condition channels, strength 1" and where == "on cpu, float64"
    assert guidance.prediction_type in guidance.summary() and "no ControlNet" in guidance.summary()


SCHEDULERS = (
    "DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "UniPCMultistepScheduler", "LCMScheduler",
)  # fmt: skip


def as_a_pipeline_does(guidance, name, noise, text, negative, scale, steps, kept, start):
    """The loop of diffusers' pipelines, with the model's own kind of prediction."""
    import diffusers

    scheduler = getattr(diffusers, name).from_config({
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": guidance.prediction_type, "timestep_spacing": "trailing", "clip_sample": False,
        "set_alpha_to_one": True, "original_inference_steps": 1000,
    })  # fmt: skip
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps[len(scheduler.timesteps) - kept :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(len(scheduler.timesteps) - kept)
    latents = noise * scheduler.init_noise_sigma if start is None else scheduler.add_noise(start, noise, times[:1])
    for time in times:
        shown = scheduler.scale_model_input(latents, time)
        both = [
            guidance.unet(shown, time, words.hidden_states.expand(2, -1, -1).double()).sample
            for words in (negative, text)
        ]
        output = both[0] + scale * (both[1] - both[0])
        drawn = {"generator": torch.Generator().manual_seed(5)} if "Ancestral" in name or "LCM" in name else {}
        latents = scheduler.step(output, time, latents, **drawn).prev_sample
    return latents


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_diffusers_do_what_they_do_in_its_pipelines(tmp_path, name, strength):
    guidance = load_guidance(GuidanceFiles(save_toy(tmp_path, prediction_type="epsilon")), dtype=torch.float64)
    noise, text, negative = noise_and_text(guidance)
    start = None if strength == 1 else 0.5 * noise.flip(0)
    settings = SamplingSettings(8, 2.0, strength, scheduler=name)
    with torch.no_grad():
        wanted = as_a_pipeline_does(guidance, name, noise, text, negative, 2.0, 8, settings.calls, start)

    sampler_noise = torch.Generator().manual_seed(5)
    if "Ancestral" in name or "LCM" in name:
        state = sampler_noise.get_state()  # the same noise in every step, as the loop above has it
        sampler = settings.sampler(guidance.schedule, sampler_noise)
        latents = sampler.begin(noise, start)
        for index, step in enumerate(sampler.timesteps):
            sampler_noise.set_state(state)
            shown = sampler.asked(latents, index)
            found = guidance.predict_guided_noise(shown, step, text, negative, 2.0)
            latents = sampler.advance(found, latents, index)
        found = latents
    else:
        found = sample(guidance, settings, Conditioning(text, negative), StartingPoint(noise, start))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_scheduler_goes_without_signal_at_the_end(tmp_path):
    folder = save_toy(tmp_path, prediction_type="v_prediction", zero_snr=True)
    guidance = load_guidance(GuidanceFiles(folder), dtype=torch.float64)
    noise, text, negative = noise_and_text(guidance)
    ours = sample(guidance, SamplingSettings(12, 2.0), Conditioning(text, negative), StartingPoint(noise))
    for name in SCHEDULERS:
        found = sample(
            guidance, SamplingSettings(12, 2.0, scheduler=name), Conditioning(text, negative), StartingPoint(noise)
        )
        assert bool(torch.isfinite(found).all()), name
        if name == "DDIMScheduler":  # its first step has a signal of 2.4e-4, the least that schedulers can divide by
            assert float((found - ours).abs().max()) < 20 * 2.4e-4


def test_a_drawn_way_is_the_same_for_the_same_generator(guidance):
    noise, text, negative = noise_and_text(guidance)
    settings, told = SamplingSettings(4, 1.0, scheduler="LCMScheduler"), Conditioning(text, negative)
    runs = [
        sample(guidance, settings, told, StartingPoint(noise, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Euler", "expected ddim or a scheduler class of diffusers"),
        ("HeunDiscreteScheduler", "asks the model more than once a step"),
        ("FlowMatchEulerDiscreteScheduler", "not for models of noise"),
        ("UNet2DConditionModel", "expected ddim or a scheduler class"),
    ],
)
def test_other_schedulers_are_refused(guidance, name, message):
    noise, text, negative = noise_and_text(guidance)
    with pytest.raises(InvalidInput, match=message):
        sample(guidance, SamplingSettings(4, 1.0, scheduler=name), Conditioning(text, negative), StartingPoint(noise))
