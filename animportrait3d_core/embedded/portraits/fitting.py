"""Fit a portrait to an identity: render it from around, fit the trigrids, measure the result."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...cameras import Cameras, concatenate_cameras, orbit_cameras, view_preset
from ...errors import InvalidInput
from ...files import sha256_of_file
from ...head_frame import BUST_FOV_DEGREES, BUST_TARGET
from ...portrait.trigrid import TrigridPortrait, save_trigrid_portrait
from ...progress import Progress, Stages, stage_of
from ...views import Views
from ..identities import (
    Identity,
    IdentityImage,
    IdentityRenderSettings,
    PreparedIdentity,
    prepare_identity,
    render_identity,
)
from .quality import (
    WHITE,
    PortraitReport,
    heldout_cameras,
    portrait_psnr,
    raw_surface,
    read_report,
    surface_noise,
    write_report,
)

if TYPE_CHECKING:
    from ...portrait.trigrid.fit import TrigridFitSettings

FITTED_PRESETS = ("quickstart", "face")
BUST_VIEWS = 24
"""Of the whole bust: the presets end above its lower rim, which would be left in rags."""
STAGES = ("render views", "fit", "measure")


@dataclasses.dataclass(frozen=True)
class PortraitSettings:
    """How an identity becomes a portrait.

    size: pixels a side of the pictures that are fitted and measured.  texture_size: of the identity, a power of two.
    levels, iterations, rays: of the fit (`TrigridFitSettings`).
    """

    size: int = 256
    texture_size: int = 1024
    levels: tuple[int, ...] = (8, 16, 32, 64, 128)
    iterations: int = 1500
    rays: int = 3072

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 1024:
            raise InvalidInput(f"PortraitSettings: size is {self.size}, expected 16 to 1024 pixels.")

    def fit(self) -> TrigridFitSettings:
        """The fitter's settings."""
        from ...portrait.trigrid.fit import TrigridFitSettings

        return TrigridFitSettings(levels=self.levels, iterations=self.iterations, rays=self.rays)


PORTRAIT_PRESETS: dict[str, PortraitSettings] = {
    "draft": PortraitSettings(iterations=500, rays=2048),
    "standard": PortraitSettings(),
    "fine": PortraitSettings(iterations=4000, rays=6144),
}


def fit_portrait(
    identity: Identity,
    output: str | Path,
    settings: PortraitSettings | None = None,
    stages: Stages | None = None,
) -> PortraitReport:
    """Fit a trigrid portrait to an identity; write it to `output` (.safetensors) and its report beside it (.json).

    Deterministic: an identity and settings give one file, bit by bit.  stages: asked for the progress of each of
    `STAGES`; what that raises ends the fit. The fit's state lies beside the output until it is finished, and
    the next call goes on there.  Raises `InvalidInput` for an output of another kind.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise InvalidInput(f"fit_portrait: the output is '{output}', expected a name that ends in .safetensors.")
    settings = settings or PortraitSettings()
    prepared = prepare_identity(identity, settings.texture_size)
    views = identity_views(prepared, fitting_cameras(settings.size), stage_of(stages, STAGES[0]))
    portrait, seconds = _fitted(views, identity, settings, run_folder(output), stage_of(stages, STAGES[1]))
    save_trigrid_portrait(portrait, output)
    truth_cameras = heldout_cameras(settings.size)
    truth = _rendered(prepared, truth_cameras, stage_of(stages, STAGES[2]))
    report = PortraitReport(
        prompt=identity.prompt,
        seed=identity.seed,
        seconds=round(seconds, 1),
        psnr=portrait_psnr(portrait, truth, truth_cameras),
        noise=surface_noise(raw_surface(portrait), truth, truth_cameras),
        bytes=output.stat().st_size,
        sha256=sha256_of_file(output),
        settings=dataclasses.asdict(settings),
    )
    write_report(report, output.with_suffix(".json"))
    shutil.rmtree(run_folder(output), ignore_errors=True)
    return read_report(output.with_suffix(".json"))  # as every later reader sees it


def fitting_cameras(size: int) -> Cameras:
    """All around, close to the face, and the whole bust."""
    yaws = [360.0 / BUST_VIEWS * index for index in range(BUST_VIEWS)]
    elevations = [(-12.0, 12.0, 36.0)[index % 3] for index in range(BUST_VIEWS)]
    bust = orbit_cameras(yaws, elevations, size, target=BUST_TARGET, fov_degrees=BUST_FOV_DEGREES)
    return concatenate_cameras([*(view_preset(name, size) for name in FITTED_PRESETS), bust])


def run_folder(output: Path) -> Path:
    """Where an unfinished fit of `output` is kept."""
    return output.with_suffix(".run")


def identity_views(prepared: PreparedIdentity, cameras: Cameras, progress: Progress | None = None) -> Views:
    """The identity in its portrait pose, over white."""
    image = _rendered(prepared, cameras, progress)
    return Views(image.rgb, image.alpha, cameras, torch.tensor(WHITE))


def _fitted(
    views: Views,
    identity: Identity,
    settings: PortraitSettings,
    folder: Path,
    progress: Progress | None,
) -> tuple[TrigridPortrait, float]:
    """The fit, seeded by the identity, and its seconds."""
    from ...portrait.trigrid.fit import fit_trigrid

    fit = fit_trigrid(
        views,
        np.random.default_rng(identity.seed),
        settings.fit(),
        identity.prompt,
        folder,
        None if progress is None else lambda step, steps, values: progress(step, steps, None),
    )
    return fit.portrait, fit.seconds


def _rendered(prepared: PreparedIdentity, cameras: Cameras, progress: Progress | None) -> IdentityImage:
    """Pictures of all cameras, one after the other so that progress shows and can stop it."""
    images = []
    for index in range(len(cameras)):
        images.append(render_identity(prepared, None, cameras[index], IdentityRenderSettings(condition=False)))
        if progress is not None:
            progress(index + 1, len(cameras), None)
    stacked: dict[str, Any] = {}
    for field in dataclasses.fields(IdentityImage):
        values = [getattr(image, field.name) for image in images]
        stacked[field.name] = None if values[0] is None else torch.cat(values)
    return IdentityImage(**stacked)
