"""Diffusion models as guidance: from (images, condition, text, timestep) to noise, clean latents or a picture.

Here live the Guidance protocol, the noise schedule, and the adapter to files in diffusers' formats. Nothing here knows
3D types, avatars or the embedded world; nothing here goes to the network.
"""

from .guidance import Guidance, Prediction, TextEmbedding, guided
from .schedule import NoiseSchedule

__all__ = ["Guidance", "NoiseSchedule", "Prediction", "TextEmbedding", "guided"]
