"""A host's model on our terms: sigma space there and back, sessions, and the node where there is no host."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from animportrait3d_core.diffusion import Guidance
from animportrait3d_core.diffusion.codec import DiffusersAutoencoder
from animportrait3d_core.diffusion.guidance import TextEmbedding
from animportrait3d_core.diffusion.hosted import HostedGuidance
from animportrait3d_core.diffusion.sampling import PictureSettings, SamplingSettings, sample_pictures
from animportrait3d_core.errors import InvalidInput, ShapeMismatch


class Host:
    """A host that answers in sigma space with the networks of a guidance, and counts how often it is opened."""

    fingerprint = "a host"

    def __init__(self, guidance, control=True):
        names = ("family", "latent_channels", "latent_scale", "latent_factor", "image_size", "device", "dtype")
        self.__dict__.update({name: getattr(guidance, name) for name in names})
        abar = guidance.alphas_cumprod.double()
        self.inner, self.sigmas = guidance, ((1 - abar) / abar).sqrt()
        self.condition_factor = self.latent_factor if control else None
        self.opened_times = self.open_now = 0

    def texts(self, texts):
        return self.inner.encode_prompt(texts).hidden_states

    @contextlib.contextmanager
    def opened(self):
        self.opened_times, self.open_now = self.opened_times + 1, self.open_now + 1
        try:
            yield Work(self)
        finally:
            self.open_now -= 1


class Work:
    def __init__(self, host):
        self.host, self.autoencoder = host, DiffusersAutoencoder(host.inner.vae)

    def denoised(self, noisy, sigmas, text, condition):
        return self._ask(noisy, sigmas, condition, "predict_noise", TextEmbedding(text))

    def guided(self, noisy, sigmas, text, negative, guidance_scale, condition):
        texts = (TextEmbedding(text), TextEmbedding(negative), guidance_scale)
        return self._ask(noisy, sigmas, condition, "predict_guided_noise", *texts)

    def _ask(self, noisy, sigmas, condition, way, *texts):
        steps = (self.host.sigmas[None] - sigmas[:, None]).abs().argmin(1)
        latents = noisy.double() / (1 + sigmas.double().square()).sqrt().reshape(-1, 1, 1, 1)
        planes = None if condition is None else condition.permute(0, 2, 3, 1)
        return getattr(self.host.inner, way)(latents, steps, *texts, planes).x0


@pytest.fixture()
def pair(toys):
    """A guidance, and the same through a host."""
    return lambda name: (toys[name], HostedGuidance(Host(toys[name]), 7.5))


def asked(count=3):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, 4, 8, 8, generator=draw), torch.rand(count, 32, 32, 4, generator=draw)


@pytest.mark.parametrize("controlled", [False, True])
def test_predictions_are_those_of_the_model(pair, controlled):
    own, hosted = pair("epsilon")
    assert isinstance(hosted, Guidance)
    latents, condition = asked()
    control, steps = condition if controlled else None, torch.tensor([20, 500, 980])
    text, negative = own.encode_prompt(["a young man", "red hair", ""]), own.encode_prompt(["view"])
    for way, texts in (("predict_noise", (text,)), ("predict_guided_noise", (text, negative, 7.5))):
        found, wanted = (
            getattr(one, way)(noisy, steps, *texts, control)
            for one, noisy in ((hosted, latents), (own, latents.double()))
        )
        # The host answers in float32, the toy in float64.
        torch.testing.assert_close(found.eps.double(), wanted.eps, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.x0.double(), wanted.x0, rtol=1e-4, atol=1e-4)
        assert found.eps.dtype == found.x0.dtype == torch.float32
    torch.testing.assert_close(hosted.alphas_cumprod, own.alphas_cumprod, rtol=1e-6, atol=1e-7)


def test_pictures_and_latents_are_those_of_the_model(pair):
    own, hosted = pair("epsilon")
    images = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(2))
    noise, _ = asked(2)
    assert torch.equal(hosted.encode(images, noise), own.encode(images, noise))
    assert torch.equal(hosted.decode(noise), own.decode(noise))


def test_a_session_is_opened_once_and_always_closed(pair):
    _, hosted = pair("epsilon")
    host, (latents, _) = hosted._model, asked()
    text = hosted.encode_prompt(["a young man"])
    with hosted.session(), hosted.session():
        for step in (10, 20):
            hosted.predict_noise(latents, step, text)
        hosted.decode(latents)
        assert (host.opened_times, host.open_now) == (1, 1)
    assert host.open_now == 0
    hosted.predict_noise(latents, 10, text)
    assert (host.opened_times, host.open_now) == (2, 0), "alone it opens its own"
    with pytest.raises(ZeroDivisionError), hosted.session():
        raise ZeroDivisionError
    assert host.open_now == 0 and hosted._work is None


def test_pictures_are_drawn_in_one_session(pair):
    _, hosted = pair("epsilon")
    settings = PictureSettings(SamplingSettings(2, 3.0), count=5, batch=2)
    assert sample_pictures(hosted, settings, "a young man", "view").shape == (5, 32, 32, 3)
    assert (hosted._model.opened_times, hosted._model.open_now) == (1, 0)


def test_what_does_not_fit_is_refused(pair):
    own, hosted = pair("epsilon")
    latents, condition = asked()
    text = hosted.encode_prompt(["a young man"])
    with pytest.raises(ShapeMismatch, match=r"latents are \[3, 3, 8, 8\], expected \[B, 4, h, w\]"):
        hosted.predict_noise(latents[:, :3], 10, text)
    with pytest.raises(ShapeMismatch, match="2 conditions for 3 latents"):
        hosted.predict_noise(latents, 10, text, condition[:2])
    with pytest.raises(InvalidInput, match="timesteps 1000"):
        hosted.predict_noise(latents, 1000, text)
    with pytest.raises(InvalidInput, match="no ControlNet is loaded"):
        HostedGuidance(Host(own, control=False), 7.5).predict_noise(latents, 10, text, condition)
    with pytest.raises(InvalidInput, match="expected a list of at least one string"):
        hosted.encode_prompt("a young man")


def test_without_comfyui_the_node_names_the_other_one(run_node):
    with pytest.raises(InvalidInput, match="needs ComfyUI, .*; use Load Guidance instead"):
        run_node("AP3D_GuidanceFromModel", model=object(), clip=object(), vae=object())


@pytest.fixture()
def native(run_node):
    """Modules of nodes/host/native by name."""
    import sys

    package = run_node.module("AP3D_GuidanceFromModel").host.__name__
    return lambda name: sys.modules[f"{package}.native.{name}"]


def patch(scale, counts=True):
    seen = 0

    def changed(values, extra=(1, 2)):
        nonlocal seen
        seen += counts
        return values * scale

    return changed


def test_functions_count_by_name_and_by_what_they_hold(native):
    plain = native("contents").plain
    one, same, other = patch(2.0), patch(2.0), patch(3.0)
    assert plain(one) == plain(same) != plain(other)
    one(1.0)
    assert plain(one) == plain(same), "what a function notes of its own calls is no setting"
    held = SimpleNamespace(strength=0.5, weights=torch.ones(2))
    held.itself = held
    described = plain({"a": [held, torch.float16], 3: {1, 2}})
    assert described["3"] == ["1", "2"] and described["a"][1] == "torch.float16"
    assert described["a"][0][1]["itself"] == "itself" and described["a"][0][1]["strength"] == 0.5


class Dynamic:
    """What newer hosts hand in: weights in memory of their own."""

    cached_patcher_init = None

    def __init__(self, network):
        self.model, self.delegated = network, False

    def is_dynamic(self):
        return True

    def clone(self, disable_dynamic):
        assert disable_dynamic
        return SimpleNamespace(model=torch.nn.Linear(2, 2))

    def get_non_dynamic_delegate(self):
        return "delegate"


def test_a_vae_in_dynamic_memory_is_cloned_out_of_it(native):
    autoencoder, patcher = native("autoencoder"), Dynamic(torch.nn.Linear(1, 1))
    vae = SimpleNamespace(is_dynamic=lambda: True, patcher=patcher, first_stage_model=patcher.model)
    patcher.cached_patcher_init = "a loader"
    with torch.inference_mode():
        network = autoencoder.copied_network(vae)
    assert network.weight.shape == (2, 2)
    vae.is_dynamic = lambda: False
    with torch.inference_mode():
        vae.first_stage_model = torch.nn.Linear(1, 1).half()
        copied = autoencoder.copied_network(vae)
    assert copied.weight.dtype == torch.float32 and not copied.weight.is_inference() and copied is not vae
    assert not copied.weight.requires_grad


def test_a_model_with_hooks_in_dynamic_memory_gives_its_delegate(native, monkeypatch):
    session, model = native("session"), Dynamic(None)
    helpers = SimpleNamespace(cond_has_hooks=lambda entries: any("hooks" in kept for _, kept in entries))
    monkeypatch.setattr(session, "comfy_module", lambda name: helpers)
    assert session._patcher_for(model, {"positive": [[0, {"hooks": 1}]]}) == "delegate"
    assert session._patcher_for(model, {"positive": [[0, {}]]}) is model
    assert session._patcher_for("plain", {"positive": [[0, {"hooks": 1}]]}) == "plain"
