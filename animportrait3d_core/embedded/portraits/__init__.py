"""Static portraits of the embedded world: trigrid fields fitted to renders of an identity.

Here live the fitter's settings for identities, the measurement of a portrait against its identity, the portraits that
are shipped and those made from a prompt. The field itself, its files and the optimiser live in `portrait/trigrid`, the
people in `identities`. Nothing of the method may import this package.
"""

from .fitting import PORTRAIT_PRESETS, PortraitSettings, fit_portrait
from .prompted import PromptPortrait, portrait_from_prompt
from .quality import PortraitReport, SurfaceNoise, surface_noise
from .shipped import SHIPPED_PORTRAITS, portrait_identity, shipped_portrait_file, shipped_portrait_report

__all__ = [
    "PORTRAIT_PRESETS",
    "SHIPPED_PORTRAITS",
    "PortraitReport",
    "PortraitSettings",
    "PromptPortrait",
    "SurfaceNoise",
    "fit_portrait",
    "portrait_from_prompt",
    "portrait_identity",
    "shipped_portrait_file",
    "shipped_portrait_report",
    "surface_noise",
]
