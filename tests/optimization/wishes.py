"""A guidance that knows what it wants: one colour, whatever it is shown; and the regions it is asked about."""

from __future__ import annotations

import contextlib

import torch

from animportrait3d_core.conditioning import CROP_REGIONS, Prompts
from animportrait3d_core.diffusion import NoiseSchedule, Prediction, TextEmbedding
from animportrait3d_core.optimization.region_scenes import RegionUse

SIZE = 32
PROMPTS = Prompts("a young man, red hair", "a young man", "blur")
USES = (
    RegionUse(CROP_REGIONS["bust"], controlled=False, excluded=CROP_REGIONS["face"]),
    *(RegionUse(CROP_REGIONS[name]) for name in ("face", "left eye", "right eye", "mouth")),
)
RED = (0.8, 0.1, 0.1)


class Wishes:
    """A guidance without networks: latents are the pictures; with a text it sees one colour, without it grey.

    It notes its calls: (timestep, with ControlNet, pictures), and the texts.
    """

    family, latent_channels, latent_scale, latent_factor, image_size = "wishes", 3, 1.0, 1, SIZE
    guidance_scale, fingerprint, regions = 7.5, "wishes", None
    device, dtype = torch.device("cpu"), torch.float32
    alphas_cumprod = NoiseSchedule.stable_diffusion().alphas_cumprod

    def __init__(self, color=RED):
        self.color, self.calls, self.texts, self._known = torch.tensor(color), [], [], [""]

    def session(self):
        return contextlib.nullcontext()

    def encode_prompt(self, texts):
        self._known += [text for text in texts if text not in self._known]
        numbers = torch.tensor([float(self._known.index(text)) for text in texts])
        return TextEmbedding(numbers[:, None, None])

    def encode(self, images, noise=None):
        return images.permute(0, 3, 1, 2)

    def decode(self, latents):
        return latents.permute(0, 2, 3, 1).clamp(0, 1)

    def predict_noise(self, latents, timesteps, text, condition=None):
        self.calls.append((int(timesteps), condition is not None, len(latents)))
        return self._seeing(latents, timesteps, torch.full((3,), 0.5))

    def predict_guided_noise(self, latents, timesteps, text, negative, guidance_scale, condition=None):
        self.calls.append((int(timesteps), condition is not None, len(latents)))
        self.texts += [self._known[int(number)] for number in text.batch(len(latents))[:, 0, 0]]
        return self._seeing(latents, timesteps, self.color)

    def _seeing(self, latents, timesteps, color):
        abar = self.alphas_cumprod[timesteps]
        x0 = color[:, None, None].expand_as(latents)
        return Prediction((latents - abar.sqrt() * x0) / (1 - abar).sqrt(), x0)
