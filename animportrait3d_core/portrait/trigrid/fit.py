"""Fits a trigrid portrait to posed pictures, on the CPU in minutes.

Stochastic gradient descent on rays with the renderer's own quadrature (raw densities averaged before softplus), levels
and decoder together. Samples are taken only where the pictures' silhouettes allow a subject and the field is not yet
empty; elsewhere random points are pushed to emptiness, so that the whole cube is well defined.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...cameras import project
from ...errors import InvalidInput, check_finite, check_shape
from ...progress import Report
from ...render.threads import run_parallel
from ...runs import Run, RunState, carry_out
from ...views import Views
from .data import check_level_names
from .fast_kernels import density_of_points
from .fit_kernels import SLOTS, Gradients, RayBatch, adam_step, learn_empty, learn_rays
from .fit_state import FitState, empty_gradients, initial_state, inner_rows, portrait_of
from .portrait import TrigridPortrait
from .rays import camera_rays
from .settings import FieldSettings

_WHERE = "fit_trigrid"
OCCUPANCY_SIDE = 96
ALMOST_EMPTY = -3.0  # raw density below which a cell (and its neighbours) is no longer sampled
EMPTY_CEILING = -14.0  # raw density that points outside the silhouettes are pushed under
FOG_SHARE = 0.25  # of the iterations, with coarse steps
FRAME_SHARE = 1 / 6  # of the pictures must have a cell in their frame
_DECAYS = (0.9, 0.99)
_EPSILON = 1e-15


@dataclasses.dataclass(frozen=True)
class TrigridFitSettings:
    """How long and how finely a portrait is fitted.

    levels: resolutions of the pyramid.  iterations, rays: length of the fit and rays per step.  rate: step size of the
    grids, a fifth of it for the decoder; both fall to 5 % along a cosine.  step: spacing of samples in world units.
    mask_weight: of coverage in the loss.  solid_weight: of a pull towards opacity where hardly any light arrives, so
    that bodies are solid and surfaces crisp.  empty_points, empty_weight: points per step that are pushed to emptiness.
    refresh: steps between looks at which cells are empty.
    half: store the grids in float16.
    """

    levels: tuple[int, ...] = (8, 16, 32, 64, 128)
    iterations: int = 1500
    rays: int = 3072
    rate: float = 0.1
    step: float = 0.0118
    mask_weight: float = 0.5
    empty_points: int = 2048
    empty_weight: float = 0.02
    solid_weight: float = 3e-5
    refresh: int = 100
    half: bool = True

    def __post_init__(self) -> None:
        check_level_names("TrigridFitSettings", self.levels)
        for name in ("iterations", "rays", "empty_points", "refresh"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"TrigridFitSettings: {name} is {getattr(self, name)}, expected at least 1.")
        if not 1e-3 <= self.step <= 0.2:
            raise InvalidInput(f"TrigridFitSettings: step is {self.step}, expected 0.001 to 0.2 world units.")


@dataclasses.dataclass(frozen=True)
class TrigridFit:
    """A fitted portrait, its loss [iterations of this call] and the seconds it took, those before a resumption too."""

    portrait: TrigridPortrait
    losses: Tensor
    seconds: float


def fit_trigrid(
    views: Views,
    generator: np.random.Generator,
    settings: TrigridFitSettings | None = None,
    prompt: str = "",
    run_folder: Path | None = None,
    report: Report | None = None,
) -> TrigridFit:
    """A portrait whose renders look like the views (images over `views.background`, and masks).

    generator: the only source of randomness; same views, settings and seed give the same portrait, bit by bit, on any
    number of threads.  run_folder: where the state is saved now and then (`runs`); a fit that was stopped there goes on
    and ends as an uninterrupted one would.  report: called after each step with its `loss`; an exception it raises ends
    the fit, whose state stays.

    Raises `InvalidInput` for empty masks or a state of another fit.
    """
    settings = settings or TrigridFitSettings()
    check_finite(_WHERE, "images", views.images)
    check_finite(_WHERE, "masks", views.masks)
    key, begin = {"views, settings or seed": _key(views, settings, generator)}, time.perf_counter()
    run = None if run_folder is None else Run(run_folder, _WHERE, key)
    fitting = _Fitting(views, settings, generator)

    def tell() -> None:
        if report is not None:
            report(fitting.step_index, fitting.steps, {"loss": fitting.losses[-1]})

    carry_out(fitting, run, tell)
    seconds = time.perf_counter() - begin if run is None else run.seconds
    dtype = torch.float16 if settings.half else torch.float32
    portrait = portrait_of(fitting.fit, views.background, prompt, dtype)
    return TrigridFit(portrait, torch.tensor(fitting.losses), seconds)


class _Fitting:
    """A fit in work (`runs.Work`). losses: of the steps of this sitting."""

    def __init__(self, views: Views, settings: TrigridFitSettings, generator: np.random.Generator) -> None:
        field = FieldSettings()
        self.steps = settings.iterations
        self.losses: list[float] = []
        self._settings, self._generator = settings, generator
        self._pixels = _Pixels.of(views, field)
        self._hull = silhouette_hull(views, field)
        self._outside = np.argwhere(~self._hull)
        self.fit = initial_state(settings.levels, self._hull.copy(), generator)
        self._gradients, self._free = empty_gradients(self.fit), inner_rows(settings.levels)

    @property
    def step_index(self) -> int:
        return self.fit.iteration

    def step(self) -> None:
        fit, settings, generator = self.fit, self._settings, self._generator
        batch = self._pixels.batch(settings, fit, generator)
        points = _empty_points(self._outside, settings.empty_points, generator)
        self.losses.append(_learn(fit, settings, batch, points, self._gradients, self._free))
        if fit.iteration % settings.refresh == 0:
            fit.occupied = _still_occupied(fit, self._hull)

    def state(self) -> RunState:
        values = {"iteration": self.fit.iteration, "generator": self._generator.bit_generator.state}
        return RunState(self.fit.to_tensors(), values)

    def restore(self, state: RunState) -> None:
        self.fit = FitState.from_tensors(self._settings.levels, state.tensors, int(state.values["iteration"]))
        self._generator.bit_generator.state = state.values["generator"]


def _key(views: Views, settings: TrigridFitSettings, generator: np.random.Generator) -> str:
    """Hash of all that a fit depends on."""
    digest = hashlib.sha256(repr((settings, generator.bit_generator.state)).encode())
    for tensor in (views.images, views.masks, views.background, views.cameras.world_to_camera, views.cameras.K):
        digest.update(np.ascontiguousarray(tensor.float().numpy()).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class _Pixels:
    """All pixels of the views as rays: colours in front of black [P, 3], masks [P], directions [P, 3], views [P]."""

    colors: np.ndarray
    masks: np.ndarray
    directions: np.ndarray
    view: np.ndarray
    origins: np.ndarray
    near: np.ndarray
    subject: np.ndarray
    length: float

    @classmethod
    def of(cls, views: Views, field: FieldSettings) -> _Pixels:
        origins, directions = camera_rays(views.cameras)
        masks = views.masks.clamp(0, 1).flatten(1)
        # Of the picture over its background, the part that is the subject's own light.
        colors = views.images.flatten(1, 2) - (1 - masks[..., None]) * views.background
        near = (origins.norm(dim=-1) - field.near_offset).clamp(min=1e-3)
        around = functional.max_pool2d(views.masks[:, None], 9, stride=1, padding=4).flatten()
        count, size = masks.shape
        return cls(
            colors.reshape(-1, 3).float().numpy(),
            masks.reshape(-1).float().numpy(),
            (directions / field.half_cube).reshape(-1, 3).numpy(),
            np.repeat(np.arange(count), size),
            (origins / field.half_cube).numpy(),
            near.numpy(),
            np.flatnonzero(around.numpy() > 0.01),
            field.near_offset + field.far_offset,
        )

    def batch(self, settings: TrigridFitSettings, state: FitState, generator: np.random.Generator) -> RayBatch:
        """Random rays, four of five at or near the subject, each over a random colour so that coverage shows."""
        # A fog needs no fine steps: the first part of the fit takes them twice as long.
        step = settings.step * (2 if state.iteration < FOG_SHARE * settings.iterations else 1)
        near_subject = settings.rays * 4 // 5
        chosen = np.concatenate(
            [
                self.subject[generator.integers(0, len(self.subject), near_subject)],
                generator.integers(0, len(self.masks), settings.rays - near_subject),
            ]
        )
        # Slots take consecutive rays: mixing gives them equal work.
        chosen = generator.permutation(chosen)
        behind = generator.random((settings.rays, 3), dtype=np.float32)
        masks = self.masks[chosen]
        targets = np.empty((settings.rays, 4), np.float32)
        targets[:, :3] = 2 * (self.colors[chosen] + (1 - masks[:, None]) * behind) - 1
        targets[:, 3] = masks
        view = self.view[chosen]
        jitter = generator.random(settings.rays, dtype=np.float32) * np.float32(step)
        return RayBatch(
            self.origins[view],
            self.directions[chosen],
            self.near[view] + jitter,
            np.float32(step),
            math.ceil(self.length / step),
            targets,
            2 * behind - 1,
            state.occupied,
            np.float32(settings.mask_weight),
            np.float32(settings.solid_weight / settings.rays),
        )


def _learn(
    state: FitState,
    settings: TrigridFitSettings,
    batch: RayBatch,
    points: np.ndarray,
    gradients: Gradients,
    free: np.ndarray,
) -> float:
    """One step of the optimiser; returns the loss."""
    network = (state.field(), state.parts["output"])
    losses = np.zeros(SLOTS)
    run_parallel(learn_rays, SLOTS, network, batch, gradients, losses)
    weight = np.float32(settings.empty_weight)
    run_parallel(learn_empty, SLOTS, network, points, np.float32(EMPTY_CEILING), weight, gradients)
    state.iteration += 1
    done = state.iteration / settings.iterations
    rate = settings.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))
    corrections = [1 / (1 - decay**state.iteration) for decay in _DECAYS]
    scale = 3 * len(settings.levels)  # texels are stored divided by this, and so are their steps
    for name, values in state.parts.items():
        gradient = getattr(gradients, name).reshape(SLOTS, *values.shape)
        size = rate / scale if name == "texels" else rate / 5
        rates = tuple(np.float32(value) for value in (size, *_DECAYS, *corrections, _EPSILON))
        may_change = free if name == "texels" else np.ones(len(values), bool)
        run_parallel(adam_step, len(values), values, gradient, state.first[name], state.second[name], may_change, rates)
    return float(losses.sum())


def _empty_points(cells: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Random points [count, 3] in cube coordinates, in randomly chosen cells or (a quarter) above and below the cube.

    Rays see some of what lies there, where the field fades to the decoder's answer to zero.
    """
    beyond = count // 4
    chosen = cells[generator.integers(0, len(cells), count)]
    points = (chosen + generator.random((count, 3))) * (2 / OCCUPANCY_SIDE) - 1
    points[:beyond] = generator.uniform(-1, 1, (beyond, 3))
    points[:beyond, 1] = generator.choice([-1.0, 1.0], beyond) * generator.uniform(1, 1.5, beyond)
    return points.astype(np.float32)


def cell_centers() -> Tensor:
    """Centres [M^3, 3] of the occupancy cells, in cube coordinates."""
    line = (torch.arange(OCCUPANCY_SIDE) + 0.5) * (2 / OCCUPANCY_SIDE) - 1
    return torch.cartesian_prod(line, line, line)


def silhouette_hull(views: Views, field: FieldSettings) -> np.ndarray:
    """Cells [M, M, M], over x, y, z, that none of the pictures shows to be empty, inside what rendering crops.

    A sixth of the pictures must have the cell in their frame: what lies below the frames is not the subject's.
    """
    centers = cell_centers() * field.half_cube
    cell = 2 * field.half_cube / OCCUPANCY_SIDE
    kept = torch.ones(len(centers), dtype=torch.bool)
    frames = torch.zeros(len(centers))
    for index in range(len(views)):
        camera = views.cameras[index]
        places = torch.nonzero(kept)[:, 0]
        pixels, depths = project(camera, centers[places])
        # The mask, widened by half a cell's diagonal as seen at the near side of the cube.
        nearest = max(float(camera.camera_centers.norm()) - field.half_cube, 0.5)
        radius = math.ceil(0.87 * cell * float(camera.K[0, 0, 0]) / nearest) + 1
        wide = functional.max_pool2d(views.masks[index][None, None], 2 * radius + 1, stride=1, padding=radius)[0, 0]
        column, row = pixels[0].floor().long().unbind(-1)
        height, width = wide.shape
        seen = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (depths[0] > 0)
        empty = torch.zeros(len(places), dtype=torch.bool)
        empty[seen] = wide[row[seen], column[seen]] < 0.02
        kept[places[empty]] = False
        frames[places[seen]] += 1
    limit = (1 - 2 * field.crop) * field.half_cube
    kept &= (frames >= FRAME_SHARE * len(views)) & (centers[:, [0, 2]].abs() <= limit).all(dim=1)
    if not bool(kept.any()):
        raise InvalidInput(
            f"{_WHERE}: the masks of the {len(views)} views leave no common region inside the cube; check that masks "
            "are white on the subject and that cameras belong to the pictures."
        )
    return kept.reshape(OCCUPANCY_SIDE, OCCUPANCY_SIDE, OCCUPANCY_SIDE).numpy()


def _still_occupied(state: FitState, hull: np.ndarray) -> np.ndarray:
    """Cells of the hull that are not almost empty, or next to one that is not."""
    centers = np.ascontiguousarray(cell_centers().float().numpy()[hull.ravel()])
    densities = np.empty(len(centers), np.float32)
    run_parallel(density_of_points, len(centers), state.field(), centers, densities)
    dense = torch.zeros(hull.size)
    dense[torch.from_numpy(hull.ravel())] = torch.from_numpy(densities > ALMOST_EMPTY).float()
    near = functional.max_pool3d(dense.reshape(1, 1, *hull.shape), 3, stride=1, padding=1)[0, 0]
    return (near > 0).numpy() & hull


def view_psnr(portrait: TrigridPortrait, views: Views) -> float:
    """Peak signal-to-noise ratio in decibels of the portrait's renders of the views' cameras, over their background."""
    check_shape("view_psnr", "background", views.background, [3])
    images = portrait.render(views.cameras, views.background).images
    return float(-10 * torch.log10((images - views.images).square().mean()))
