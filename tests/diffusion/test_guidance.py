"""The adapter on toy models: batches, guidance, gradients, kinds of prediction, and the reference's own networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animportrait3d_core.diffusion import Guidance, NoiseSchedule, TextEmbedding
from animportrait3d_core.diffusion.components import Components
from animportrait3d_core.diffusion.diffusers_adapter import DiffusersGuidance
from animportrait3d_core.errors import InvalidInput, ShapeMismatch
from tests.diffusion.toys import SIZE, WIDTH, load_toy, save_toy

DATA = Path(__file__).parents[1] / "data"


def inputs(guidance, count=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, guidance.latent_channels, 8, 8, generator=draw, dtype=torch.float64)
    condition = torch.rand(count, SIZE, SIZE, 4, generator=draw, dtype=torch.float64)
    texts = ["a young man", "red hair", ""][:count]
    return latents, condition, guidance.encode_prompt(texts)


@pytest.mark.parametrize("name", ["epsilon", "v", "prior"])
def test_it_is_a_guidance(toys, name):
    guidance = toys[name]
    assert isinstance(guidance, Guidance)
    assert guidance.family == f"sd-{WIDTH}" and guidance.image_size == SIZE and guidance.latent_factor == 4
    assert (guidance.latent_channels, guidance.latent_scale) == ((8, 2.0) if name == "prior" else (4, 0.18215))
    models = (guidance.unet, guidance.vae, guidance.text_encoder, guidance.controlnet)
    assert not any(parameter.requires_grad for model in models for parameter in model.parameters())
    assert not any(model.training for model in models)
    told = {id(tensor) for tensor in guidance._comfy_cache_tensors()}
    assert {id(parameter) for model in models for parameter in model.parameters()} < told


@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize("name", ["epsilon", "v", "prior"])
def test_a_batch_is_its_single_calls(toys, name, controlled):
    guidance = toys[name]
    latents, condition, text = inputs(guidance)
    steps = torch.tensor([10, 500, 900])
    both = guidance.predict_noise(latents, steps, text, condition if controlled else None)
    for index in range(3):
        chosen = slice(index, index + 1)
        control = condition[chosen] if controlled else None
        single = guidance.predict_noise(latents[chosen], int(steps[index]), text[index], control)
        torch.testing.assert_close(both.eps[chosen], single.eps, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(both.x0[chosen], single.x0, rtol=1e-9, atol=1e-9)


def test_text_condition_and_timestep_are_heard(toys):
    for guidance in toys.values():
        latents, condition, text = inputs(guidance, 1)
        first = guidance.predict_noise(latents, 400, text, condition).eps
        others = [
            guidance.predict_noise(latents, 400, guidance.encode_prompt(["red hair"]), condition),
            guidance.predict_noise(latents, 400, text, 1 - condition),
            guidance.predict_noise(latents, 400, text),
            guidance.predict_noise(latents, 401, text, condition),
        ]
        assert all(float((other.eps - first).abs().max()) > 1e-6 for other in others)


def test_one_prompt_and_one_condition_serve_a_batch(toys):
    guidance = toys["prior"]
    latents, condition, text = inputs(guidance)
    shared = guidance.predict_noise(latents, 300, text[0], condition[:1])
    repeated = TextEmbedding(text[0].hidden_states.repeat(3, 1, 1))
    wanted = guidance.predict_noise(latents, 300, repeated, condition[:1].repeat(3, 1, 1, 1))
    torch.testing.assert_close(shared.eps, wanted.eps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize("name", ["epsilon", "v", "prior"])
def test_guidance_is_the_formula(toys, name, controlled):
    guidance = toys[name]
    latents, condition, text = inputs(guidance, 2)
    control = condition if controlled else None
    negative = guidance.encode_prompt([""])
    found = guidance.predict_guided_noise(latents, 600, text, negative, 7.5, control)
    first, second = (guidance.predict_noise(latents, 600, words, control) for words in (negative, text))
    for values, minus, plus in zip(found, first, second):
        torch.testing.assert_close(values, minus + 7.5 * (plus - minus), rtol=1e-8, atol=1e-8)


def test_eps_and_v_of_the_same_network_agree(toys):
    """What the network says of x is v in one reading and eps in the other; both must satisfy x = a x0 + s eps."""
    guidance = toys["v"]
    latents, _, text = inputs(guidance)
    steps = torch.tensor([10, 500, 998])
    found = guidance.predict_noise(latents, steps, text)
    torch.testing.assert_close(guidance.schedule.add_noise(found.x0, found.eps, steps), latents)
    output = guidance.unet(latents, steps, text.hidden_states).sample
    torch.testing.assert_close(guidance.schedule.velocity(found.x0, found.eps, steps), output)
    parts = Components(
        guidance.unet, guidance.vae, guidance.text_encoder, guidance.tokenizer, NoiseSchedule.stable_diffusion(),
        "epsilon",
    )  # fmt: skip
    reread = DiffusersGuidance(parts, dtype=torch.float64).predict_noise(latents, steps, text)
    torch.testing.assert_close(reread.eps, output)


def test_at_the_end_without_signal_clean_latents_are_minus_v(toys):
    guidance = toys["prior"]
    latents, condition, text = inputs(guidance)
    eps, x0 = guidance.predict_noise(latents, 999, text)
    output = guidance.unet(latents, torch.full((3,), 999), text.hidden_states).sample
    assert torch.equal(eps, latents) and torch.equal(x0, -output)


@pytest.mark.parametrize("name", ["epsilon", "prior"])
def test_the_gradient_through_encode_is_right(toys, name):
    guidance = toys[name]
    draw = torch.Generator().manual_seed(3)
    images = torch.rand(1, SIZE, SIZE, 3, generator=draw, dtype=torch.float64).requires_grad_(True)
    noise = torch.randn(1, guidance.latent_channels, 8, 8, generator=draw, dtype=torch.float64)
    weights = torch.randn(noise.shape, generator=draw, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((guidance.encode(images, noise) * weights).sum(), images)
    for _ in range(5):
        direction = torch.randn(images.shape, generator=draw, dtype=torch.float64)
        step = 1e-5
        high, low = ((guidance.encode(images + s * direction, noise) * weights).sum() for s in (step, -step))
        slope = (high - low) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-7)


def test_encode_gives_the_mean_or_a_sample_of_the_posterior(toys):
    guidance = toys["epsilon"]
    draw = torch.Generator().manual_seed(4)
    images = torch.rand(2, SIZE, SIZE, 3, generator=draw, dtype=torch.float64)
    noise = torch.randn(2, 4, 8, 8, generator=draw, dtype=torch.float64)
    posterior = guidance.vae.encode((2 * images - 1).permute(0, 3, 1, 2)).latent_dist
    torch.testing.assert_close(guidance.encode(images), 0.18215 * posterior.mean)
    torch.testing.assert_close(guidance.encode(images, noise), 0.18215 * (posterior.mean + posterior.std * noise))
    tiny = toys["prior"]
    raw = tiny.vae.encode((2 * images - 1).permute(0, 3, 1, 2)).latents
    torch.testing.assert_close(tiny.encode(images), 2 * raw)


def test_decode_undoes_the_scale_and_stays_in_range(toys):
    for guidance in toys.values():
        latents = inputs(guidance, 2)[0]
        images = guidance.decode(latents)
        plain = guidance.vae.decode(latents / guidance.latent_scale).sample.permute(0, 2, 3, 1)
        assert images.shape == (2, SIZE, SIZE, 3) and 0 <= float(images.min()) and float(images.max()) <= 1
        torch.testing.assert_close(images, (plain / 2 + 0.5).clamp(0, 1))


def test_prompts_are_padded_cut_and_independent(toys):
    guidance = toys["epsilon"]
    together = guidance.encode_prompt(["red hair", "a young man", " ".join(["hair"] * 40)])
    assert together.hidden_states.shape == (3, 8, WIDTH)
    alone = guidance.encode_prompt(["a young man"])
    torch.testing.assert_close(together[1].hidden_states, alone.hidden_states)
    assert len(together[-1]) == 1 and torch.equal(together[-1].hidden_states, together[2].hidden_states)


def test_it_works_in_inference_mode(toys):
    guidance = toys["prior"]
    latents, condition, text = inputs(guidance, 1)
    with torch.inference_mode():
        inside = guidance.predict_noise(latents.clone(), 300, guidance.encode_prompt(["a young man"]), condition)
    torch.testing.assert_close(inside.eps, guidance.predict_noise(latents, 300, text, condition).eps)


def test_it_draws_nothing_from_the_global_generator(toys):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    guidance = toys["epsilon"]
    latents, condition, text = inputs(guidance, 1)
    guidance.predict_guided_noise(latents, 5, text, guidance.encode_prompt([""]), 3.0, condition)
    guidance.decode(guidance.encode(torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0)).double()))
    assert torch.equal(torch.random.get_rng_state(), before)


CASES = ("case00", "case04", "case06", "case10", "case14")


@pytest.mark.parametrize("case", CASES)
def test_predictions_are_those_of_the_reference(reference, case):
    """Upstream's own inversion and guided call, in float64: noise at x_s without text, and the CFG batch at x_t."""
    guidance, numbers = reference
    values = {name.partition("/")[2]: value for name, value in numbers.items() if name.startswith(case)}

    def latents(name):
        return torch.from_numpy(values[name]).double()

    def text(name):
        return TextEmbedding(torch.from_numpy(numbers[f"emb_{name}"]).double())

    condition = None
    if values["control"]:
        condition = torch.from_numpy(numbers["control_image_16"]).double().permute(1, 2, 0)[None] / 255
    _, _, _, t, s, _, _ = values["it_N_tmax_t_s_s0_delta"].tolist()
    target = guidance.predict_noise(latents("x_s"), s, text("empty"), condition).eps
    assert float((target - latents("target_eps")).abs().max()) < 1e-5 * float(target.abs().max())
    scale = float(values["guidance"])
    word = text(str(values["word"]))
    found = guidance.predict_guided_noise(latents("x_t"), t, word, text("negative"), scale, condition).eps
    assert float((found - latents("eps_guided")).abs().max()) < 1e-4 * float(found.abs().max())


def bad_inputs():
    latents, condition = torch.zeros(2, 4, 8, 8), torch.zeros(2, SIZE, SIZE, 4)
    return {
        "channels": ({"latents": torch.zeros(2, 8, 8, 8)}, ShapeMismatch, r"expected \[B, 4, h, w\]"),
        "flat": ({"latents": torch.zeros(4, 8, 8)}, ShapeMismatch, "latents are"),
        "late": ({"timesteps": 1000}, InvalidInput, r"expected 0..999"),
        "float": ({"timesteps": torch.tensor([0.5])}, InvalidInput, "expected integers"),
        "small condition": ({"condition": condition[:, ::2, ::2]}, ShapeMismatch, r"\[B, 32, 32, 4\]"),
        "three channels": ({"condition": condition[..., :3]}, ShapeMismatch, "condition"),
        "three conditions": ({"condition": condition[[0, 0, 0]]}, ShapeMismatch, "3 conditions for 2 latents"),
        "three prompts": ({"text": TextEmbedding(torch.zeros(3, 8, WIDTH))}, ShapeMismatch, "3 prompts for 2 latents"),
        "fine": ({"latents": latents, "condition": condition}, None, ""),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_is_named(toys, name):
    guidance, (changes, error, words) = toys["epsilon"], bad_inputs()[name]
    known = {
        "latents": torch.zeros(2, 4, 8, 8), "timesteps": 5, "text": guidance.encode_prompt([""]), "condition": None,
    }  # fmt: skip
    if error is None:
        assert guidance.predict_noise(**{**known, **changes}).eps.shape == (2, 4, 8, 8)
        return
    with pytest.raises(error, match=words):
        guidance.predict_noise(**{**known, **changes})
    with pytest.raises(error, match=words):
        guidance.predict_guided_noise(**{**known, **changes}, negative=guidance.encode_prompt([""]), guidance_scale=2.0)


def test_bad_images_and_texts_are_named(toys):
    guidance = toys["epsilon"]
    with pytest.raises(ShapeMismatch, match="images"):
        guidance.encode(torch.zeros(1, 3, SIZE, SIZE))
    with pytest.raises(InvalidInput, match="30 x 32 pixels, expected multiples of 4"):
        guidance.encode(torch.zeros(1, 30, SIZE, 3))
    with pytest.raises(ShapeMismatch, match="noise"):
        guidance.encode(torch.zeros(1, SIZE, SIZE, 3), torch.zeros(1, 4, 4, 4))
    with pytest.raises(ShapeMismatch, match="decode: latents"):
        guidance.decode(torch.zeros(1, 5, 8, 8))
    for texts in ("a text", [], [None]):
        with pytest.raises(InvalidInput, match="expected a list"):
            guidance.encode_prompt(texts)


def test_a_condition_needs_a_controlnet(tmp_path):
    guidance = load_toy(save_toy(tmp_path), dtype=torch.float32, control=False)
    with pytest.raises(InvalidInput, match="no ControlNet is loaded"):
        guidance.predict_noise(torch.zeros(1, 4, 8, 8), 5, guidance.encode_prompt([""]), torch.zeros(1, SIZE, SIZE, 4))
