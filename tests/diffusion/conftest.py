"""Guidances that several files test: toy models of each kind, and the networks of the reference numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from animportrait3d_core.diffusion import NoiseSchedule
from animportrait3d_core.diffusion.components import Components, load_controlnet, load_unet
from animportrait3d_core.diffusion.diffusers_adapter import DiffusersGuidance
from tests.diffusion.toys import load_toy, save_toy, toy_text_encoder, toy_vae

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """Guidances of each kind, by name."""
    kinds = {
        "epsilon": {},
        "v": {"prediction_type": "v_prediction", "zero_snr": True},
        "prior": {
            "prediction_type": "v_prediction", "zero_snr": True, "channels": 8, "tiny": True,
            "addition_embed_type": "text", "addition_embed_type_num_heads": 4,
        },
    }  # fmt: skip
    return {name: load_toy(save_toy(tmp_path_factory.mktemp(name), **kind)) for name, kind in kinds.items()}


@pytest.fixture(scope="session")
def reference():
    """The networks of the reference numbers; their text embeddings come with the numbers."""
    folder = DATA / "ism_models"
    unet = load_unet("test", folder / "unet")
    control = load_controlnet("test", folder / "controlnet", unet)
    text = toy_text_encoder(unet.config.cross_attention_dim)
    with np.load(DATA / "ism_oracle.npz") as file:
        numbers = {name: file[name] for name in file.files}
        schedule = NoiseSchedule(torch.from_numpy(file["alphas_cumprod"]))
    parts = Components(unet, toy_vae(), text, range(4), schedule, "epsilon")
    return DiffusersGuidance(parts, control, dtype=torch.float64), numbers
