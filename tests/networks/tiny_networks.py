"""Network folders of tiny untrained models."""

from __future__ import annotations

import torch

from animportrait3d_core.networks import build_model, save_network
from animportrait3d_core.parts import PART_CLASSES

TINY = {
    "_model_class": "Unet", "encoder_name": "tu-resnet18", "encoder_depth": 5, "encoder_weights": None,
    "decoder_channels": [8, 8, 8, 8, 8], "in_channels": 3, "channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1],
}  # fmt: skip
AUX = {"aux_params": {"classes": 69, "pooling": "avg"}}
CONFIGS = {
    "parts": {**TINY, "classes": 7},
    "normals": {**TINY, "classes": 3},
    "landmarks": {**TINY, "classes": 68, **AUX},
}
DESCRIPTIONS = {
    "parts": {"role": "parts", "classes": list(PART_CLASSES), "size": 64},
    "normals": {"role": "normals", "size": 64},
    "landmarks": {"role": "landmarks", "size": 64},
}


def write(folder, role, config=None, description=None):
    torch.manual_seed(0)
    config = config or CONFIGS[role]
    model = build_model(config)
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(7)
    save_network(folder, config, model.state_dict(), description or DESCRIPTIONS[role])
    return model
