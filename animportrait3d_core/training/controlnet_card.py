"""The model card of a trained ControlNet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..regions import LABEL_IRIS, LABEL_SCLERA, LABEL_TEETH
from .shards import ShardDataset

_CARD = """# ControlNet for AnimPortrait3D

Steers a diffusion model of family {family} by the normals and the label map of a parametric head (AnimPortrait3D,
appendix A1.5). Made by `animportrait3d train-controlnet`. Its weights began as {begin}; the licences of the base
and of the training pictures apply to it.

- base: `{base}` (hash of its networks {base_hash})
- condition: an image of 4 channels in 0..1: camera-space OpenGL normals of the face (n / 2 + 1 / 2, background white),
  and labels (sclera {sclera:.3g}, teeth {teeth:.3g}, iris {iris:.3g}, elsewhere 0); pictures of {size} pixels
- prompts: the full prompt for faces and busts; region and abstract prompt for crops ("left eye region, a young man")
- data: {training} pictures of {persons} persons for training, {held_out} of {held_out_persons} others held out
  `{data}`
- training: {steps} steps of {settings}{state}; {minutes:.0f} minutes
- on pictures held out: PSNR {psnr} dB of samples in {sampling_steps} steps at guidance scale {guidance_scale:g}

```python
from diffusers import ControlNetModel

controlnet = ControlNetModel.from_pretrained("this folder")
```

ComfyUI: put the folder's `diffusion_pytorch_model.safetensors` under another name into `models/controlnet`{comfyui}.
"""


def controlnet_card(facts: Mapping[str, Any], training: ShardDataset, held_out: ShardDataset) -> str:
    """The card in Markdown. facts: the names of the card that are not of the data set."""
    return _CARD.format(
        **facts,
        sclera=LABEL_SCLERA,
        teeth=LABEL_TEETH,
        iris=LABEL_IRIS,
        training=f"{len(training):,}",
        persons=f"{len(training.identities):,}",
        held_out=f"{len(held_out):,}",
        held_out_persons=f"{len(held_out.identities):,}",
        data=json.dumps(dict(training.manifest.settings), sort_keys=True),
        comfyui="" if facts["family"] == "sd15" else " (only ControlNets of known families are loaded there)",
    )
