"""A stop does not wait until a network has answered, and a network that nobody stops answers as ever."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from animportrait3d_core.diffusion import stops
from animportrait3d_core.diffusion.stops import stops_between_blocks
from animportrait3d_core.fingerprints import fingerprint
from animportrait3d_core.progress import stopped_by
from tests.diffusion.toys import SIZE, load_toy, save_toy

LATENTS = torch.ones(1, 4, 8, 8)


class Stop(BaseException):
    pass


@pytest.fixture(scope="module", params=[False, True], ids=["kl", "tiny"])
def guidance(request, tmp_path_factory):
    return load_toy(save_toy(tmp_path_factory.mktemp("toy"), tiny=request.param))


def looks_within(work):
    """How often the user is asked."""
    seen = []
    with stopped_by(lambda: seen.append(None)):
        work()
    return len(seen)


def works(guidance):
    text = guidance.encode_prompt(["a young man"])
    condition = torch.rand(1, SIZE, SIZE, 4)
    return {
        "unet": lambda: guidance.predict_noise(LATENTS, 500, text).eps,
        "controlnet": lambda: guidance.predict_noise(LATENTS, 500, text, condition).eps,
        "encoder": lambda: guidance.encode(torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))),
        "decoder": lambda: guidance.decode(LATENTS),
    }


@pytest.mark.parametrize("name", ["unet", "controlnet", "encoder", "decoder"])
def test_in_a_session_each_block_looks_and_answers_are_the_same(guidance, name):
    work = works(guidance)[name]
    before = work()
    assert looks_within(work) == 0
    with guidance.session():
        assert looks_within(work) >= 4
        torch.testing.assert_close(work(), before, rtol=0, atol=0)
    assert looks_within(work) == 0


def test_the_way_back_looks_too(guidance):
    pictures = torch.rand(1, SIZE, SIZE, 3, dtype=torch.float64, requires_grad=True)
    (before,) = torch.autograd.grad(guidance.encode(pictures).square().sum(), pictures)
    with guidance.session():
        loss = guidance.encode(pictures).square().sum()
        found = []
        assert looks_within(lambda: found.extend(torch.autograd.grad(loss, pictures))) >= 4
    assert torch.equal(found[0], before)


def test_a_stop_ends_the_call_and_leaves_the_network_as_it_was(guidance):
    work, seen = works(guidance)["controlnet"], []
    before, known = work(), fingerprint(guidance.unet)

    def user():
        seen.append(None)
        if len(seen) == 3:
            raise Stop

    with pytest.raises(Stop), guidance.session(), stopped_by(user):
        work()
    assert len(seen) == 3 and looks_within(work) == 0
    assert torch.equal(work(), before) and fingerprint(guidance.unet) == known


@given(
    st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2), st.sampled_from([1, 2]),
    st.integers(9, 14), st.integers(1, 2000),
)  # fmt: skip
def test_large_convolutions_are_the_same_in_strips(kernel, stride, padding, dilation, groups, rows, operations):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups).double()
        values = torch.rand(2, 2, rows, 11, dtype=torch.float64, requires_grad=True)
    whole = layer(values)
    (wanted,) = torch.autograd.grad(whole.square().sum(), values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stops, "STRIP_OPERATIONS", operations)
        with stops_between_blocks(torch.device("cpu"), layer):
            found = []
            # Around the layer, and after each strip: none of them takes more than what is allowed, or a single row.
            looks = looks_within(lambda: found.append(layer(values)))
            (gradient,) = torch.autograd.grad(found[0].square().sum(), values)
    row = 2 * len(values) * (values.shape[3] / stride) * layer.weight.numel()
    assert looks == 2 + -(-whole.shape[2] // max(1, int(operations / row))) or row * whole.shape[2] <= operations
    torch.testing.assert_close(found[0], whole)
    torch.testing.assert_close(gradient, wanted)
    assert "_conv_forward" not in vars(layer)


def test_sessions_within_sessions_and_shared_layers_leave_the_network_as_it_was(guidance):
    with guidance.session(), guidance.session():
        pass
    with stops_between_blocks(torch.device("cpu"), guidance.unet, guidance.unet):
        pass
    assert not [layer for layer in guidance.unet.modules() if "_conv_forward" in vars(layer)]
    assert looks_within(works(guidance)["unet"]) == 0


def test_only_the_processor_is_asked(guidance):
    work = works(guidance)["unet"]
    with stops_between_blocks(torch.device("meta"), guidance.unet, None):
        assert looks_within(work) == 0


def test_hashing_of_large_weights_looks_too(guidance):
    assert looks_within(lambda: fingerprint(guidance.unet)) == len(guidance.unet.state_dict())
