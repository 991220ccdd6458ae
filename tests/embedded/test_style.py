"""The painted style: what painting does, and that its LoRA is one that files of LoRAs are."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animportrait3d_core.diffusion.diffusers_adapter import GuidanceFiles, load_guidance
from animportrait3d_core.embedded.prior.networks import PriorNetworks
from animportrait3d_core.embedded.prior.pipeline import load_weights
from animportrait3d_core.embedded.prior.style import (
    STYLE_FILE,
    STYLE_LOOP,
    StyleLora,
    painted,
    train_style,
)
from animportrait3d_core.embedded.prior.vocabulary import build_tokenizer
from animportrait3d_core.errors import InvalidInput
from tests.embedded.prior_samples import save_untrained_prior, write_drawn


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return save_untrained_prior(tmp_path_factory.mktemp("prior"))


def test_paint_is_flat_keeps_edges_and_spares_the_background() -> None:
    noise = 0.05 * torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    images = torch.full((1, 3, 40, 40), 0.25)
    images[..., 20:] = 0.75
    shown = (images + noise).clamp(0, 1)
    full, none = torch.ones(1, 1, 40, 40), torch.zeros(1, 1, 40, 40)
    assert torch.equal(painted(shown, none), shown)
    found = painted(shown, full)
    left, right = found[..., :20], found[..., 20:]
    assert float(left.std((2, 3)).mean()) < 0.6 * float(shown[..., :20].std((2, 3)).mean())
    exact = painted(images, full)
    assert float((right - exact[..., 20:]).abs().max()) < 0.15  # nothing of the other half ran across the edge
    assert float((exact[..., 0] - exact[..., 39]).abs().min()) > 0.3
    green = torch.zeros(1, 3, 9, 9)
    green[:, 1] = 1.0
    assert painted(green, torch.ones(1, 1, 9, 9))[0, 2, 4, 4] > green[0, 2, 4, 4] + 0.1  # greens turn to blue
    assert 0 <= float(found.min()) and float(found.max()) <= 1


def test_a_style_is_a_lora_file_like_any_other(prior, tmp_path) -> None:
    networks = PriorNetworks(len(build_tokenizer()))
    load_weights(networks, prior)
    torch.manual_seed(0)
    lora = StyleLora(networks, rank=4)
    noisy, steps = torch.randn(2, 8, 8, 8), torch.tensor([300, 700])
    text = ["a young man, red hair", "mouth region, a young man"]
    guidance = load_guidance(GuidanceFiles(prior))
    tokens = guidance.tokenizer(text, padding="max_length", max_length=40, truncation=True, return_tensors="pt")
    with torch.no_grad():
        before = lora(noisy, steps, tokens.input_ids)
        torch.testing.assert_close(before, networks(noisy, steps, tokens.input_ids))
        for up in lora.up.values():
            up.normal_(0, 0.05)
        wanted = lora(noisy, steps, tokens.input_ids)
    assert float((wanted - before).abs().mean()) > 1e-3
    lora.save(tmp_path / "style.safetensors")
    added = load_guidance(GuidanceFiles(prior, loras=((tmp_path / "style.safetensors", 1.0),)))
    halves = load_guidance(GuidanceFiles(prior, loras=((tmp_path / "style.safetensors", 0.5),)))
    states = added.encode_prompt(text).hidden_states
    found, half, none = (model.unet(noisy, steps, states).sample for model in (added, halves, guidance))
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-3)  # the file has half precision
    assert float((half - none).abs().mean()) < float((found - none).abs().mean())


def test_a_style_is_trained_and_goes_on_where_it_stopped(prior, tmp_path) -> None:
    data = write_drawn(tmp_path / "data")
    loop = dataclasses.replace(STYLE_LOOP, steps=3, batch_size=4, precision="float32", save_seconds=0)
    whole = train_style(data, prior, tmp_path / "whole", loop)
    assert whole["step"] == 3 and {"psnr_painted", "psnr_plain"} <= set(whole)
    stopped = train_style(data, prior, tmp_path / "parts", loop, minutes=1e-9)
    assert stopped["step"] < 3
    train_style(data, prior, tmp_path / "parts", loop)
    assert (tmp_path / "whole" / STYLE_FILE).read_bytes() == (tmp_path / "parts" / STYLE_FILE).read_bytes()
    load_guidance(GuidanceFiles(prior, loras=((tmp_path / "whole" / STYLE_FILE, 1.0),)))
    with pytest.raises(InvalidInput, match="rank 0"):
        train_style(data, prior, tmp_path / "none", loop, rank=0)
