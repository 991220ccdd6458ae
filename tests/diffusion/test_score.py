"""Score rules: the reference's numbers, closed forms, counts of evaluations, gradients through the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.diffusion import NoiseSchedule, TextEmbedding
from animportrait3d_core.diffusion.score import (
    IntervalSchedule,
    Question,
    ScoreSettings,
    ScoreText,
    image_score,
    inversion_path,
    invert,
    ism_gradient,
    latent_box,
    score,
)
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from tests.diffusion.toys import SIZE

ORACLE = Path(__file__).parents[1] / "data" / "ism_oracle.npz"
CASES = ("case00", "case02", "case04", "case06", "case08", "case10", "case12", "case14")
SD = NoiseSchedule.stable_diffusion()


class Counted:
    """A guidance that notes what it is asked: (timestep, with ControlNet, evaluations per picture)."""

    def __init__(self, guidance):
        self._guidance, self.asked = guidance, []

    def __getattr__(self, name):
        return getattr(self._guidance, name)

    def predict_noise(self, latents, timesteps, text, condition=None):
        self.asked.append((int(timesteps), condition is not None, len(latents)))
        return self._guidance.predict_noise(latents, timesteps, text, condition)

    def predict_guided_noise(self, latents, timesteps, text, negative, guidance_scale, condition=None):
        self.asked.append((int(timesteps), condition is not None, 2 * len(latents)))
        return self._guidance.predict_guided_noise(latents, timesteps, text, negative, guidance_scale, condition)


def values_of(numbers, case):
    return {name.partition("/")[2]: value for name, value in numbers.items() if name.startswith(f"{case}/")}


def double(array):
    return torch.from_numpy(array).double()


def text_of(numbers, word):
    return ScoreText(*(TextEmbedding(double(numbers[f"emb_{name}"])) for name in (word, "negative", "empty")))


def near(found, wanted, tolerance):
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


@pytest.mark.parametrize("case", [case for case in CASES])
def test_ism_is_that_of_the_reference(reference, case):
    """The authors' code keeps the ControlNet in inversion; it also evaluates twice where s = s0."""
    guidance, numbers = reference
    values = values_of(numbers, case)
    _, _, _, t, s, s0, _ = values["it_N_tmax_t_s_s0_delta"].tolist()
    condition = None
    if values["control"]:
        condition = double(numbers["control_image_16"]).permute(1, 2, 0)[None] / 255
    counted, text = Counted(guidance), text_of(numbers, str(values["word"]))
    settings = ScoreSettings(guidance_scale=float(values["guidance"]), condition_in_inversion=True)
    schedule = NoiseSchedule(guidance.alphas_cumprod)
    z, noise = double(values["z"]), double(values["noise"])
    gradient = ism_gradient(counted, schedule, z, noise, condition, text, t, s, s0, settings)
    near(gradient, double(values["grad_z"]), 1e-4)
    reference_times = values["unet_times"].tolist()
    assert [asked[0] for asked in counted.asked] == list(dict.fromkeys(reference_times))
    assert sum(asked[2] for asked in counted.asked) == values["unet_batches"].sum() - (s == s0)
    assert all(asked[1] == bool(values["control"]) for asked in counted.asked)
    found = invert(guidance, z, noise, condition, text.empty, inversion_path(s, s0, 50), t)
    near(found.target, double(values["target_eps"]), 1e-5)
    near(found.latents, double(values["x_t"]), 1e-5)


def test_excluded_latents_are_those_of_the_reference(reference):
    guidance, numbers = reference
    values = values_of(numbers, "exclude0")
    z, noise = (double(values[name])[None] / 64 for name in ("z_64ths", "noise_64ths"))
    times = IntervalSchedule(300, 1000).at(int(values["it"]))
    settings = ScoreSettings(guidance_scale=100)
    found = score(guidance, SD, z, noise, None, text_of(numbers, "front"), times, settings)
    rows, columns = latent_box(tuple(values["box"].tolist()), 896, 64)
    assert [columns.start, rows.start, columns.stop, rows.stop] == values["zero_x0y0x1y1"].tolist()
    gradient = found.gradient.clone()
    gradient[..., rows, columns] = 0
    near(gradient, double(values["grad_z"]), 1e-3)


def test_timesteps_are_those_of_the_reference():
    with np.load(ORACLE) as file:
        full, mouth, delta = (
            file[name] for name in ("all_t_full_300_15_1000", "all_t_mouth_750_15_500", "delta_of_it_0_999")
        )
    stages = IntervalSchedule(300, 1000), IntervalSchedule(750, 500)
    assert [stages[0].at(k)[0] for k in range(1000)] == full.tolist()
    assert [stages[1].at(k)[0] for k in range(500)] == mouth.tolist()
    for step in range(1000):
        t, s, s0 = stages[0].at(step)
        assert (s, s0) == (max(t - delta[step], 0), max(t - delta[step] - 150, 0))
    calls = [len(inversion_path(*stages[0].at(step)[1:], 50)) for step in range(1000)]
    assert sum(calls) == 3221 - 127  # the reference's, but for its repeated evaluations


@pytest.fixture(params=["epsilon", "v", "prior"])
def toy(request, toys):
    return toys[request.param]


def drawn(guidance, count=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (count, guidance.latent_channels, 8, 8)
    latents, noise = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    condition = torch.rand(count, SIZE, SIZE, 4, generator=draw, dtype=torch.float64)
    texts = [guidance.encode_prompt(words) for words in (["red hair", "a man"][:count], ["a woman"], [""])]
    return latents, noise, condition, ScoreText(*texts)


def weight(schedule, t):
    abar = float(schedule.alphas_cumprod[t])
    return ((1 - abar) / abar) ** 0.5


def test_a_batch_is_its_single_pictures(toy):
    latents, noise, condition, text = drawn(toy)
    for rule in ("ism", "fast", "csd", "sds"):
        settings = ScoreSettings(rule, 3.0)
        both = score(toy, SD, latents, noise, condition, text, (300, 200, 50), settings)
        for k in range(2):
            own = ScoreText(text.prompt[k], text.negative, text.empty)
            rows = slice(k, k + 1)
            one = score(toy, SD, latents[rows], noise[rows], condition[rows], own, (300, 200, 50), settings)
            torch.testing.assert_close(both.gradient[rows], one.gradient, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(both.wanted[rows], one.wanted, rtol=1e-8, atol=1e-8)


def test_the_rules_are_their_formulas(toy):
    latents, noise, condition, text = drawn(toy)
    own = NoiseSchedule(toy.alphas_cumprod)
    t, s = 400, 330
    noisy = own.add_noise(latents, noise, t)
    with_text = toy.predict_noise(noisy, t, text.prompt, condition)
    without = toy.predict_noise(noisy, t, text.negative, condition)

    def found(rule, **settings):
        return score(toy, own, latents, noise, condition, text, (t, s, 100), ScoreSettings(rule, 3.0, **settings))

    difference = with_text.eps - without.eps
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(found("csd").gradient, weight(own, t) * 3 * difference, **close)
    torch.testing.assert_close(found("csd").wanted, with_text.x0, **close)
    sds = found("sds")
    torch.testing.assert_close(sds.gradient, weight(own, t) * (without.eps + 3 * difference - noise), **close)
    torch.testing.assert_close(sds.wanted, without.x0 + 3 * (with_text.x0 - without.x0), **close)
    at_s = toy.predict_noise(own.add_noise(latents, noise, s), s, text.empty, None)
    at_t = own.ddim_step(at_s.eps, at_s.x0, t)
    answer = toy.predict_guided_noise(at_t, t, text.prompt, text.negative, 3.0, condition)
    fast = found("fast")
    torch.testing.assert_close(fast.gradient, weight(own, t) * (answer.eps - at_s.eps), **close)
    same = score(toy, own, latents, noise, condition, text, (t, s, s), ScoreSettings("ism", 3.0))
    assert torch.equal(fast.gradient, same.gradient)
    assert not torch.allclose(fast.gradient, found("ism").gradient, rtol=1e-3)


@pytest.mark.parametrize(("rule", "evaluations"), [("ism", 6), ("fast", 3), ("csd", 2), ("sds", 2)])
def test_evaluations_and_where_the_controlnet_is_on(toys, rule, evaluations):
    guidance = Counted(toys["epsilon"])
    latents, noise, condition, text = drawn(guidance)
    for inside in (False, True):
        guidance.asked.clear()
        settings = ScoreSettings(rule, 3.0, condition_in_inversion=inside)
        score(guidance, SD, latents, noise, condition, text, (300, 200, 50), settings)
        assert sum(count for _, _, count in guidance.asked) == evaluations * len(latents)
        *inversion, last = guidance.asked
        assert last[1] and all(on == inside for _, on, _ in inversion)


def test_another_schedule_is_asked_where_its_noise_is_the_same(toys):
    guidance = Counted(toys["v"])
    latents, noise, condition, text = drawn(guidance)
    own = NoiseSchedule(guidance.alphas_cumprod)
    path = inversion_path(200, 50, 50)
    score(guidance, SD, latents, noise, condition, text, (300, 200, 50), ScoreSettings())
    asked = [step for step, _, _ in guidance.asked]
    assert len(asked) == len(path) + 1 and asked != [*path, 300]
    ratios = torch.log(own.snr(torch.tensor(asked)) / SD.snr(torch.tensor([*path, 300])))
    assert float(ratios.abs().max()) < 0.05


def test_the_gradient_at_pictures_goes_through_the_encoder(toy):
    draw = torch.Generator().manual_seed(3)
    images, way = (torch.rand(2, SIZE, SIZE, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    _, noise, condition, text = drawn(toy)
    side = SIZE // toy.latent_factor
    noise = torch.randn(2, toy.latent_channels, side, side, generator=draw, dtype=torch.float64)
    posterior = torch.randn(noise.shape, generator=draw, dtype=torch.float64)
    excluded = torch.zeros(1, 1, side, side, dtype=torch.bool)
    excluded[..., : side // 2] = True
    times, settings = (300, 200, 50), ScoreSettings(guidance_scale=3.0)
    with torch.inference_mode():
        asked = Question(text, condition, noise, posterior, excluded)
        found = image_score(toy, SD, images, asked, times, settings)
    latents = toy.encode(images, posterior)
    at_latents = score(toy, SD, latents, noise, condition, text, times, settings)
    torch.testing.assert_close(found.wanted, at_latents.wanted)
    kept = at_latents.gradient.masked_fill(excluded, 0)
    step = 1e-5
    ahead, behind = (toy.encode(images + sign * step * way, posterior) for sign in (1, -1))
    wanted = float(((ahead - behind) * kept).sum()) / (2 * step)
    assert float((found.gradient * way).sum()) == pytest.approx(wanted, rel=1e-5)


def test_what_cannot_be_asked_is_refused(toys):
    guidance = toys["v"]
    latents, noise, condition, text = drawn(guidance)

    def refused(match, error=InvalidInput, times=(300, 200, 50), schedule=SD, noise=noise):
        with pytest.raises(error, match=match):
            score(guidance, schedule, latents, noise, condition, text, times)

    refused("t 100, s 200", times=(100, 200, 50))
    refused("s0 -1", times=(300, 200, -1))
    refused("t 1000", times=(1000, 200, 50))
    refused("no signal at timestep 999", times=(999, 900, 800), schedule=NoiseSchedule(guidance.alphas_cumprod))
    refused("noise", ShapeMismatch, noise=noise[:1])
    with pytest.raises(InvalidInput, match="rule 'dds'"):
        ScoreSettings("dds")
    with pytest.raises(InvalidInput, match="strides of 0"):
        ScoreSettings(stride=0)
    for wrong in ({"t_max": 10}, {"t_min": 0}, {"iterations": 0}):
        with pytest.raises(InvalidInput, match="IntervalSchedule"):
            IntervalSchedule(**{"t_max": 300, "iterations": 10, **wrong})
