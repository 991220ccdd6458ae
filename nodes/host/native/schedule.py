"""Noise schedules of the host's models: which are known, and that the loaded one is its own."""

from __future__ import annotations

from typing import Any

from animportrait3d_core.errors import InvalidInput

from ..environment import comfy_module


def expected_sampling(model: Any) -> Any:
    """The noise schedule that a MODEL should have: that of its own patch, or of its family.

    Not the one that it has: hosts with dynamic VRAM may leave another model's there.
    """
    if "model_sampling" in model.object_patches:
        return model.object_patches["model_sampling"]
    base: Any = comfy_module("comfy.model_base")
    return base.model_sampling(model.model.model_config, model.model.model_type)


def parameterization(sampling: Any) -> str | None:
    """What the networks predict; None for what has no noise schedule of T steps (flow models and others)."""
    known: Any = comfy_module("comfy.model_sampling")
    if not isinstance(sampling, known.ModelSamplingDiscrete) or not isinstance(sampling, known.EPS):
        return None
    if isinstance(sampling, (known.EDM, known.IMG_TO_IMG)):
        return None
    if isinstance(sampling, known.V_PREDICTION):
        return "prediction v_prediction"
    return "prediction sample" if isinstance(sampling, known.X0) else "prediction epsilon"


def check_schedule(where: str, found: Any, model: Any) -> None:
    """Raise `InvalidInput` if the loaded model has another noise schedule, or predicts something else, than it should.

    An open fault of hosts with dynamic VRAM (ComfyUI #16490): the schedule of a patched model stays for the next one.
    """
    import torch

    wanted = expected_sampling(model)
    kinds = [parameterization(sampling) for sampling in (found, wanted)]
    tables = [sampling.sigmas.detach().float().cpu() for sampling in (found, wanted)]
    if kinds[0] != kinds[1] or not torch.equal(*tables):
        raise InvalidInput(
            f"{where}: ComfyUI has loaded the MODEL with a noise schedule up to {float(tables[0][-1]):.4g} "
            f"({kinds[0]}), expected {float(tables[1][-1]):.4g} ({kinds[1]}): that of another MODEL of the same "
            "checkpoint was left behind (ComfyUI issue 16490). Unload models (Edit menu), and run again."
        )
