"""Sampling is diffusers' DDIM, and SDEdit starts where it should."""

from __future__ import annotations

import pytest
import torch

from animportrait3d_core.diffusion import NoiseSchedule
from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.diffusion.sampling import SamplingSettings, sample
from animportrait3d_core.errors import InvalidInput
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
    found = sample(guidance, SamplingSettings(8, scale), text, negative, noise)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_sdedit_begins_at_its_share_of_the_way(guidance):
    noise, text, negative = noise_and_text(guidance)
    start = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    settings = SamplingSettings(20, 2.0, strength=0.3)
    assert settings.timesteps(guidance.schedule) == [299, 249, 199, 149, 99, 49]
    assert len(SamplingSettings(20, strength=0.9).timesteps(guidance.schedule)) == 18
    one = SamplingSettings(20, 2.0, strength=0.05)
    found = sample(guidance, one, text, negative, noise, start=start)
    noisy = guidance.schedule.add_noise(start, noise, 49)
    wanted = guidance.predict_guided_noise(noisy, 49, text, negative, 2.0).x0
    torch.testing.assert_close(found, wanted)


def test_a_start_that_is_missing_and_other_strengths_are_refused(guidance):
    noise, text, negative = noise_and_text(guidance)
    with pytest.raises(InvalidInput, match="without latents to begin from"):
        sample(guidance, SamplingSettings(strength=0.5), text, negative, noise)
    for strength in (0.0, 1.5, 0.01):
        with pytest.raises(InvalidInput, match="at least one step"):
            SamplingSettings(20, strength=strength).timesteps(NoiseSchedule.stable_diffusion())
