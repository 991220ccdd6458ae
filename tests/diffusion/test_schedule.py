"""The noise schedule against its definitions, diffusers' DDIM, and the numbers of upstream's own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.diffusion import NoiseSchedule, guided
from animportrait3d_core.errors import InvalidInput, ShapeMismatch

ORACLE = Path(__file__).parents[1] / "data" / "ism_oracle.npz"
CASES = ("case00", "case02", "case04", "case06", "case08", "case10", "case12", "case14")


@pytest.fixture(scope="module")
def oracle():
    with np.load(ORACLE) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind in "fiub"}


def schedules():
    linear = torch.linspace(1e-4, 0.02, 1000)
    return {
        "sd": NoiseSchedule.stable_diffusion(),
        "linear": NoiseSchedule.from_betas(linear),
        "zero": NoiseSchedule.from_betas(linear, zero_terminal_snr=True),
    }


def close(found, wanted, tolerance=1e-5):
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def test_stable_diffusions_schedule_is_the_references(oracle):
    torch.testing.assert_close(
        NoiseSchedule.stable_diffusion().alphas_cumprod, oracle["alphas_cumprod"], rtol=2e-6, atol=0
    )


@pytest.mark.parametrize("case", CASES)
def test_noise_and_inversion_as_in_the_reference(oracle, case):
    """x_s0 of clean latents, x_t of x_s and the noise found there, and the guided noise of its two halves."""
    schedule = NoiseSchedule(oracle["alphas_cumprod"])
    values = {name.partition("/")[2]: value for name, value in oracle.items() if name.startswith(case)}
    _, _, _, t, s, s0, _ = values["it_N_tmax_t_s_s0_delta"].tolist()
    close(schedule.add_noise(values["z"], values["noise"], s0), values["x_s0"])
    eps, x0 = schedule.eps_and_x0(values["target_eps"], values["x_s"], s, "epsilon")
    close(schedule.ddim_step(eps, x0, t), values["x_t"])
    if "eps_guided" in values:
        with np.load(ORACLE) as file:
            scale = float(file[f"{case}/guidance"])
        close(guided(values["eps_negative"], values["eps_positive"], scale), values["eps_guided"], 1e-4)
    weight = (1 / schedule.snr(t)).sqrt()
    close(weight * (values["eps_guided"] - values["target_eps"]), values["grad_z"], 1e-4)


@pytest.mark.parametrize("name", ["sd", "linear", "zero"])
def test_conversions_go_round(name):
    schedule = schedules()[name]
    draw = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 4, 5, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    steps = torch.tensor([0, 500, 998])
    noisy = schedule.add_noise(x0, noise, steps)
    for kind, output in (("epsilon", noise), ("sample", x0), ("v_prediction", schedule.velocity(x0, noise, steps))):
        eps, clean = schedule.eps_and_x0(output, noisy, steps, kind)
        torch.testing.assert_close(eps, noise, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(clean, x0, rtol=1e-6, atol=1e-5)


def test_each_latent_may_have_its_own_timestep():
    schedule = NoiseSchedule.stable_diffusion()
    x0, noise = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(1)).unbind()
    both = schedule.add_noise(x0, noise, torch.tensor([10, 400, 900]))
    for index, step in enumerate((10, 400, 900)):
        assert torch.equal(both[index : index + 1], schedule.add_noise(x0[index : index + 1], noise[index, None], step))


def test_without_signal_v_knows_what_eps_does_not():
    schedule = schedules()["zero"]
    assert schedule.has_zero_terminal_snr and not schedules()["linear"].has_zero_terminal_snr
    x0, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(2)).unbind()
    assert torch.equal(schedule.add_noise(x0, noise, 999), noise)
    eps, clean = schedule.eps_and_x0(schedule.velocity(x0, noise, 999), noise, 999, "v_prediction")
    assert torch.equal(clean, x0) and torch.equal(eps, noise)
    with pytest.raises(InvalidInput, match="leaves the clean latents open"):
        schedule.eps_and_x0(noise, noise, 999, "epsilon")
    assert float(schedule.snr(999)) == 0.0


def test_zero_terminal_snr_is_diffusers():
    from diffusers import DDIMScheduler

    known = DDIMScheduler(beta_start=1e-4, beta_end=0.02, rescale_betas_zero_snr=True).alphas_cumprod
    torch.testing.assert_close(schedules()["zero"].alphas_cumprod, known, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing, offset", [("trailing", 0), ("leading", 1)])
def test_steps_are_those_of_diffusers_ddim(prediction_type, spacing, offset):
    from diffusers import DDIMScheduler

    known = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=offset,
        prediction_type=prediction_type, timestep_spacing=spacing, set_alpha_to_one=False,
    )  # fmt: skip
    known.set_timesteps(20)
    schedule = NoiseSchedule(known.alphas_cumprod)
    steps = schedule.sampling_timesteps(20, spacing)
    assert steps == known.timesteps.tolist()
    latents, output = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(3)).unbind()
    for step in steps[:-1]:
        following = step - 1000 // 20
        wanted = known.step(output, step, latents).prev_sample
        found = schedule.ddim_step(*schedule.eps_and_x0(output, latents, step, prediction_type), following)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_sampling_and_inversion_undo_each_other():
    """With a noise that depends on nothing, a step there and back is no step."""
    schedule = schedules()["zero"]
    latents, eps = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64).unbind()
    for first, second in ((100, 700), (900, 20)):
        there = schedule.ddim_step(*schedule.eps_and_x0(eps, latents, first, "epsilon"), second)
        back = schedule.ddim_step(*schedule.eps_and_x0(eps, there, second, "epsilon"), first)
        torch.testing.assert_close(back, latents, rtol=1e-9, atol=1e-9)
        assert float((there - latents).abs().max()) > 0.1


def test_timesteps_map_by_signal_to_noise():
    known = schedules()
    for schedule in known.values():
        assert torch.equal(schedule.map_timesteps(None, schedule), torch.arange(1000))
    steps = torch.tensor([15, 100, 300, 750])
    mapped = known["sd"].map_timesteps(steps, known["linear"])
    found, wanted = known["linear"].snr(mapped).log(), known["sd"].snr(steps).log()
    spacing = (known["linear"].snr(mapped + 1).log() - found).abs()
    assert bool(((found - wanted).abs() <= 0.75 * spacing).all())
    assert mapped.tolist() != steps.tolist()
    # What has less signal than the other ever has becomes its last step, what has none too.
    assert known["linear"].map_timesteps(999, known["sd"]).tolist() == [999]
    assert known["zero"].map_timesteps(torch.tensor([999, 998]), known["sd"]).tolist() == [999, 999]
    assert int(known["sd"].map_timesteps(999, known["zero"])) < 999


def test_half_precision_is_computed_in_float32():
    schedule = NoiseSchedule.stable_diffusion()
    x0, noise = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(5)).half().unbind()
    assert schedule.add_noise(x0, noise, 5).dtype == torch.float32
    torch.testing.assert_close(schedule.add_noise(x0, noise, 5), schedule.add_noise(x0.float(), noise.float(), 5))
    assert schedule.add_noise(x0.double(), noise.double(), 5).dtype == torch.float64


@pytest.mark.parametrize(
    "alphas, error, words",
    [
        (torch.tensor([0.9, 0.95, 0.5]), InvalidInput, "not falling everywhere"),
        (torch.tensor([1.2, 0.5]), InvalidInput, "within 0..1"),
        (torch.tensor([0.9, -0.1]), InvalidInput, "within 0..1"),
        (torch.tensor([0.9, float("nan")]), InvalidInput, "not falling"),
        (torch.ones(2, 2), ShapeMismatch, "expected"),
        (torch.tensor([2, 1]), ShapeMismatch, "int64"),
    ],
)
def test_other_schedules_are_refused(alphas, error, words):
    with pytest.raises(error, match=words):
        NoiseSchedule(alphas)


@pytest.mark.parametrize(
    "steps, error",
    [(-1, InvalidInput), (1000, InvalidInput), (torch.tensor([1.0, 2.0]), InvalidInput), (True, InvalidInput),
     (torch.tensor([1, 2, 3]), ShapeMismatch), (torch.zeros(2, 1, dtype=torch.int64), ShapeMismatch)],
)  # fmt: skip
def test_wrong_timesteps_are_refused(steps, error):
    with pytest.raises(error, match="timesteps"):
        NoiseSchedule.stable_diffusion().add_noise(torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3), steps)


def test_wrong_kinds_are_refused():
    schedule = NoiseSchedule.stable_diffusion()
    with pytest.raises(InvalidInput, match="prediction type 'flow'"):
        schedule.eps_and_x0(torch.zeros(1, 1), torch.zeros(1, 1), 1, "flow")
    for arguments in ((0,), (1001,), (10, "karras")):
        with pytest.raises(InvalidInput, match="expected 1 to 1000, trailing or leading"):
            schedule.sampling_timesteps(*arguments)
