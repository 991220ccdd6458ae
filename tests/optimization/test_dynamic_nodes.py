"""The four nodes of dynamic optimization, on a guidance that knows what it wants."""

from __future__ import annotations

import logging
import types

import pytest
import torch

from animportrait3d_core.animation import Motion
from animportrait3d_core.body.parameters import stack_parameters
from animportrait3d_core.errors import InvalidInput
from animportrait3d_core.optimization.presets import dynamic_stage
from tests.optimization.wishes import PROMPTS, Wishes

NODES = ("AP3D_PretrainEyes", "AP3D_PretrainMouth", "AP3D_ISMOptimize", "AP3D_SDEditRefine")
COMMON = {"preset": "draft", "length": 0.1, "guidance_scale": 0.0, "seed": 4}


@pytest.fixture(scope="module")
def start(make_avatar):
    return make_avatar(2000, seed=5)


def own(node):
    return {"strength": 0.0, "steps": 0, "scheduler": "ddim"} if node in (NODES[0], NODES[3]) else {"score_rule": "sds"}


def run(run_node, node, avatar, guidance, **changes):
    inputs = {"avatar": avatar, "guidance": guidance, "prompts": PROMPTS, **COMMON, **own(node), **changes}
    return run_node(node, **inputs)


@pytest.mark.parametrize("node", NODES)
def test_a_stage_in_the_graph(start, run_node, run_context, node, caplog) -> None:
    shown = []
    run_context.listener = types.SimpleNamespace(node_progress=lambda *event: shown.append(event))
    caplog.set_level(logging.INFO)
    done = run(run_node, node, start, Wishes())
    changed = (done.avatar.gaussians.sh != start.gaussians.sh).flatten(1).any(1)
    assert bool(changed.any()) and not torch.equal(start.gaussians.sh, done.avatar.gaussians.sh)
    assert done.image.shape[3] == 3 and done.image.shape[2] > 6 * 192
    assert any(preview is not None for *_, preview in shown)
    assert f"{node}: about" in caplog.text and "evaluations of the model" in caplog.text


def test_the_scale_is_the_guidance_s_own_where_none_is_chosen(start, run_node) -> None:
    class Scaled(Wishes):
        guidance_scale, asked = 3.0, ()

        def predict_guided_noise(self, latents, timesteps, text, negative, guidance_scale, condition=None):
            self.asked = (*self.asked, guidance_scale)
            return super().predict_guided_noise(latents, timesteps, text, negative, guidance_scale, condition)

    for given, expected in ((0.0, 3.0), (5.0, 5.0)):
        guidance = Scaled()
        run(run_node, "AP3D_PretrainMouth", start, guidance, guidance_scale=given)
        assert set(guidance.asked) == {expected}
    (paper,) = dynamic_stage("full", "paper", 3.0)
    assert paper.asks.score.guidance_scale == pytest.approx(40.0)


def test_the_own_inputs_reach_the_rule(start, run_node) -> None:
    def calls(node, **changes):
        guidance = Wishes()
        run(run_node, node, start, guidance, **changes)
        return len(guidance.calls)

    assert calls("AP3D_PretrainMouth", score_rule="ism") > calls("AP3D_PretrainMouth", score_rule="fast")
    (usual,) = dynamic_stage("refine", "draft", 1.0)
    carried_out = round(usual.asks.sampling.num_inference_steps * usual.asks.sampling.strength)
    assert calls("AP3D_SDEditRefine", strength=1.0) > 1.5 * calls("AP3D_SDEditRefine")
    lightning = calls("AP3D_SDEditRefine", strength=1.0, steps=3, scheduler="LCMScheduler")
    assert lightning * carried_out == 3 * calls("AP3D_SDEditRefine") and carried_out != 3


def test_a_motion_is_where_poses_come_from(start, run_node) -> None:
    closed = stack_parameters([start.parameters, start.parameters])
    with pytest.raises(InvalidInput, match="jaws open by at most"):
        run(run_node, "AP3D_PretrainMouth", start, Wishes(), motion=Motion(closed, 25.0))
