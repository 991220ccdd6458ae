"""Timings of the rasterisers on standard scenes: what `animportrait3d bench` and benchmarks/rasterizers.py print."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..cameras import Cameras
from .antialias import antialias, mesh_edges
from .gaussians import rasterize_gaussians
from .mesh import interpolate, rasterize_mesh

Clock = Callable[[], float]
Stages = Callable[[], list[float]]
"""Does a job once and returns the seconds that each of its stages took."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """What to time: numbers of Gaussians and faces, square image sizes, SH degree, repetitions, back-end, clock."""

    gaussians: tuple[int, ...] = (10_000, 40_000)
    gaussian_sizes: tuple[int, ...] = (128, 256, 512)
    sh_degree: int = 0
    faces: tuple[int, ...] = (20_000, 200_000)
    mesh_sizes: tuple[int, ...] = (256, 512)
    repeats: int = 9
    backend: str = "auto"
    seed: int = 0
    clock: Clock = time.perf_counter


@dataclass(frozen=True)
class BenchmarkRow:
    """One line: what was timed, the medians of its stages by name and of their sum, in milliseconds."""

    name: str
    stages: dict[str, float]
    total: float


@dataclass(frozen=True)
class GaussianCase:
    """Leaf tensors by the names of `rasterize_gaussians`, and the camera of one Gaussian benchmark."""

    leaves: dict[str, torch.Tensor]
    cameras: Cameras


def gaussian_case(count: int, size: int, sh_degree: int, seed: int) -> GaussianCase:
    """A head-like shell of Gaussians that fills a square image (field of view 40 degrees)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    directions = torch.nn.functional.normalize(normal(count, 3), dim=-1)
    bumps = 1.0 + 0.05 * torch.sin(6 * directions[:, :1]) * torch.cos(5 * directions[:, 1:2]) + 0.02 * normal(count, 1)
    means = directions * bumps * torch.tensor([0.75, 1.0, 0.85])
    sh = 0.15 * normal(count, (sh_degree + 1) ** 2, 3)
    sh[:, 0] += 0.4 * torch.sin(3 * means)
    leaves = {
        "means": means,
        "quats": normal(count, 4),
        "scales": 0.7 * math.sqrt(4 * math.pi * 0.75 / count) * torch.exp(0.4 * normal(count, 3)),
        "opacities": torch.sigmoid(1.5 * normal(count) + 0.5),
        "colors_or_sh": sh,
    }
    return GaussianCase({name: leaf.requires_grad_() for name, leaf in leaves.items()}, front_camera(size))


def front_camera(size: int) -> Cameras:
    """A camera 3.4 in front of the origin with a field of view of 40 degrees."""
    view = torch.eye(4)
    view[2, 3] = 3.4
    focal = 0.5 * size / math.tan(math.radians(20.0))
    K = torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])
    return Cameras(view[None], K[None], size, size)


def bumpy_sphere(faces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices [V, 3] and about `faces` faces [F, 3] of a bumpy ellipsoid, open at its poles."""
    n = int(math.sqrt(faces / 2))
    polar = torch.linspace(0.02, math.pi - 0.02, n + 1)[:, None]
    around = torch.linspace(0.0, 2.0 * math.pi, n + 1)[None, :n]
    radius = 1.0 + 0.06 * torch.sin(7 * around) * torch.sin(5 * polar)
    radius = radius + 0.02 * torch.sin(31 * around) * torch.sin(29 * polar)
    shape = [0.75 * torch.sin(polar) * torch.cos(around), torch.cos(polar), 0.85 * torch.sin(polar) * torch.sin(around)]
    vertices = torch.stack([radius * axis for axis in shape], dim=-1).reshape(-1, 3)
    row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    a, b = row * n + column, row * n + (column + 1) % n
    c, d = a + n, b + n
    triangles = [torch.stack(corners, dim=-1).reshape(-1, 3) for corners in ((a, b, c), (b, d, c))]
    return vertices, torch.cat(triangles)


def gaussian_stages(case: GaussianCase, backend: str, clock: Clock = time.perf_counter) -> Stages:
    """Stages "forward" and "backward" of one rendering, gradients of all inputs, as in one training step."""
    size, leaves = case.cameras.width, case.leaves
    weight = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(1))

    def run() -> list[float]:
        for leaf in leaves.values():
            leaf.grad = None
        start = clock()
        image = rasterize_gaussians(
            leaves["means"],
            leaves["quats"],
            leaves["scales"],
            leaves["opacities"],
            leaves["colors_or_sh"],
            case.cameras,
            backend=backend,
        )
        loss = (image.color * weight).sum()
        middle = clock()
        loss.backward()
        return [middle - start, clock() - middle]

    return run


def mesh_stages(
    vertices: torch.Tensor, faces: torch.Tensor, size: int, backend: str, clock: Clock = time.perf_counter
) -> Stages:
    """Stages "raster", "interpolate", "antialias", "backward" of a mesh [V, 3], [F, 3] with six channels."""
    cameras, edges = front_camera(size), mesh_edges(faces)
    vertices = vertices.clone().requires_grad_()
    attributes = torch.rand(len(vertices), 6, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def run() -> list[float]:
        vertices.grad = attributes.grad = None
        times = [clock()]
        image = rasterize_mesh(vertices, faces, cameras, backend=backend)
        times.append(clock())
        color = interpolate(image, faces, attributes, vertices, cameras)
        times.append(clock())
        color = antialias(color, image, vertices, faces, cameras, edges)
        times.append(clock())
        color.square().sum().backward()
        times.append(clock())
        return [end - start for start, end in zip(times[:-1], times[1:])]

    return run


def time_alternately(jobs: dict[str, Stages], repeats: int) -> dict[str, list[list[float]]]:
    """Runs all jobs in turn, `repeats` times after one run to warm up, so that a busy machine slows them all alike.

    Returns milliseconds [repeats][stage] by job.
    """
    for job in jobs.values():
        job()
    times: dict[str, list[list[float]]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            times[name].append([1e3 * seconds for seconds in job()])
    return times


def summarize(name: str, stage_names: tuple[str, ...], times: list[list[float]]) -> BenchmarkRow:
    """Medians of the stages and of the sums of one job's `time_alternately` result."""
    stages = {stage: statistics.median(column) for stage, column in zip(stage_names, zip(*times))}
    return BenchmarkRow(name, stages, statistics.median(sum(run) for run in times))


def benchmark_rasterizers(
    settings: BenchmarkSettings = BenchmarkSettings(), report: Callable[[BenchmarkRow], Any] | None = None
) -> list[BenchmarkRow]:
    """Times both rasterisers on this machine; `report` is called with each row as soon as it is there."""
    rows: list[BenchmarkRow] = []

    def add(name: str, stage_names: tuple[str, ...], job: Stages) -> None:
        rows.append(summarize(name, stage_names, time_alternately({"own": job}, settings.repeats)["own"]))
        if report is not None:
            report(rows[-1])

    for count in settings.gaussians:
        for size in settings.gaussian_sizes:
            case = gaussian_case(count, size, settings.sh_degree, settings.seed)
            name = f"{count} Gaussians, SH {settings.sh_degree}, {size} x {size}"
            add(name, ("forward", "backward"), gaussian_stages(case, settings.backend, settings.clock))
    for count in settings.faces:
        vertices, faces = bumpy_sphere(count)
        for size in settings.mesh_sizes:
            stage_names = ("raster", "interpolate", "antialias", "backward")
            job = mesh_stages(vertices, faces, size, settings.backend, settings.clock)
            add(f"{len(faces)} faces, 6 channels, {size} x {size}", stage_names, job)
    return rows
