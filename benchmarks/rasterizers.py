"""Times the rasterisers, alone or against another implementation that lies in a folder of its own.

    python benchmarks/rasterizers.py                       # this machine's numbers
    python benchmarks/rasterizers.py --prototype DIR       # both in turn, with ratios (or AP3D_PROTOTYPE=DIR)
    python benchmarks/rasterizers.py --cpu-time            # seconds of one thread's work, for busy machines
    python benchmarks/rasterizers.py --compile             # seconds that Numba needs with an empty cache

DIR holds `scene.py`, `gaussians_numba.py`, `mesh_zbuffer.py`, `mesh_antialias.py` and `mesh_scene.py` with the
interface that the adapters below use; its Gaussian part needs gsplat's torch functions.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core.render import benchmark  # noqa: E402
from animportrait3d_core.render.antialias import antialias, mesh_edges  # noqa: E402
from animportrait3d_core.render.mesh import rasterize_mesh  # noqa: E402


def prototype_gaussian_stages(case: benchmark.GaussianCase, clock: benchmark.Clock) -> benchmark.Stages:
    """Forward and backward of the prototype on the same scene: gsplat's torch projection and its own raster."""
    scene, raster = importlib.import_module("scene"), importlib.import_module("gaussians_numba").raster
    size, leaves = case.cameras.width, case.leaves
    inputs = {
        "means": leaves["means"],
        "quats": leaves["quats"],
        "scales": leaves["scales"],
        "sh": leaves["colors_or_sh"],
        "view": case.cameras.world_to_camera[0],
        "K": case.cameras.K[0],
        "W": size,
        "H": size,
        "deg": int(leaves["colors_or_sh"].shape[1] ** 0.5) - 1,
    }
    weight = torch.rand(size, size, 3, generator=torch.Generator().manual_seed(1))

    def run() -> list[float]:
        for leaf in leaves.values():
            leaf.grad = None
        start = clock()
        radii, means2d, depths, conics, colors = scene.project(inputs)
        image, _ = raster(means2d, conics, colors, leaves["opacities"], depths, radii, size, size)
        loss = (image * weight).sum()
        middle = clock()
        loss.backward()
        return [middle - start, clock() - middle]

    return run


def mesh_jobs(count: int, size: int, prototype: bool, clock: benchmark.Clock) -> dict[str, benchmark.Stages]:
    """Rasterising and antialiasing alone: the two mesh stages that the prototype has as well."""
    vertices, faces = benchmark.bumpy_sphere(count)
    cameras, edges = benchmark.front_camera(size), mesh_edges(faces)
    color = torch.rand(1, size, size, 6, generator=torch.Generator().manual_seed(1))

    def own() -> list[float]:
        start = clock()
        image = rasterize_mesh(vertices, faces, cameras)
        middle = clock()
        antialias(color, image, vertices, faces, cameras, edges)
        return [middle - start, clock() - middle]

    if not prototype:
        return {"own": own}
    draw, smooth = importlib.import_module("mesh_zbuffer").zbuf, importlib.import_module("mesh_antialias")
    narrow = faces.int().numpy()
    table = smooth.edge_table(narrow)
    focal, center = cameras.K[0, 0, 0], size / 2

    def other() -> list[float]:
        start = clock()
        z = vertices[:, 2] + 3.4
        pixels = torch.stack([vertices[:, 0] / z * focal + center, vertices[:, 1] / z * focal + center, z], -1)
        face_id, _, depth = draw(pixels.numpy(), narrow, size, size, 16)
        face_id, depth = torch.from_numpy(face_id).long(), torch.from_numpy(depth)
        middle = clock()
        smooth.antialias(color[0], pixels, table, face_id, depth)
        return [middle - start, clock() - middle]

    return {"own": own, "prototype": other}


def compare(name: str, stages: tuple[str, ...], jobs: dict[str, benchmark.Stages], repeats: int) -> None:
    """Prints the medians of all jobs and, of two, the median of the ratios within each round."""
    times = benchmark.time_alternately(jobs, repeats)
    for job, runs in times.items():
        row = benchmark.summarize(name, stages, runs)
        parts = "  ".join(f"{stage} {value:7.1f}" for stage, value in row.stages.items())
        print(f"{name:38s} {job:10s} {parts}  total {row.total:7.1f} ms", flush=True)
    if len(times) == 2:
        own, other = times.values()
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(own, other)) for i in range(len(stages))]
        total = statistics.median(sum(a) / sum(b) for a, b in zip(own, other))
        parts = "  ".join(f"{stage} {value:7.2f}" for stage, value in zip(stages, ratios))
        print(f"{'':38s} {'ratio':10s} {parts}  total {total:7.2f}", flush=True)


def report_compilation() -> None:
    """Compiles every kernel in a fresh process with an empty cache, then once more with the cache it left."""
    code = (
        "import time, torch; from animportrait3d_core.render import benchmark as b; t = time.perf_counter();"
        "s = b.BenchmarkSettings(gaussians=(50,), gaussian_sizes=(16,), sh_degree=1, faces=(50,), mesh_sizes=(16,),"
        "repeats=1); b.benchmark_rasterizers(s); "
        "print(f'{time.perf_counter() - t:.1f} s, {time.process_time():.1f} s of CPU time with imports')"
    )
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        for label in ("empty cache", "cached"):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=environment,
                cwd=Path(__file__).resolve().parents[1],
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"compile and run everything once, {label}: {done.stdout.strip()}")


def run(arguments: argparse.Namespace, settings: benchmark.BenchmarkSettings) -> None:
    """All rows."""
    prototype = arguments.prototype is not None
    for degree in arguments.sh_degrees:
        for count in settings.gaussians:
            for size in settings.gaussian_sizes:
                case = benchmark.gaussian_case(count, size, degree, settings.seed)
                jobs = {"own": benchmark.gaussian_stages(case, "auto", settings.clock)}
                if prototype:
                    jobs["prototype"] = prototype_gaussian_stages(case, settings.clock)
                name = f"{count} Gaussians, SH {degree}, {size} x {size}"
                compare(name, ("forward", "backward"), jobs, settings.repeats)
    for count in settings.faces:
        for size in settings.mesh_sizes:
            jobs = mesh_jobs(count, size, prototype, settings.clock)
            compare(f"{count} faces, {size} x {size}", ("raster", "antialias"), jobs, settings.repeats)
            vertices, faces = benchmark.bumpy_sphere(count)
            stages = ("raster", "interpolate", "antialias", "backward")
            job = benchmark.mesh_stages(vertices, faces, size, "auto", settings.clock)
            compare(f"{count} faces, all, {size} x {size}", stages, {"own": job}, settings.repeats)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prototype", type=Path, default=os.environ.get("AP3D_PROTOTYPE"), metavar="DIR")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--gaussians", type=int, nargs="*", default=[10_000, 40_000])
    parser.add_argument("--gaussian-sizes", type=int, nargs="*", default=[128, 256, 512])
    parser.add_argument("--sh-degrees", type=int, nargs="*", default=[0])
    parser.add_argument("--faces", type=int, nargs="*", default=[20_000, 200_000])
    parser.add_argument("--mesh-sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--cpu-time", action="store_true", help="one thread, CPU time instead of wall time")
    parser.add_argument("--compile", action="store_true", help="report compilation times only")
    arguments = parser.parse_args()
    if arguments.compile:
        report_compilation()
        return
    if arguments.cpu_time:
        torch.set_num_threads(1)
        importlib.import_module("numba").set_num_threads(1)
    if arguments.prototype is not None:
        sys.path.insert(0, str(arguments.prototype))
    run(
        arguments,
        benchmark.BenchmarkSettings(
            gaussians=tuple(arguments.gaussians),
            gaussian_sizes=tuple(arguments.gaussian_sizes),
            faces=tuple(arguments.faces),
            mesh_sizes=tuple(arguments.mesh_sizes),
            repeats=arguments.repeats,
            clock=time.process_time if arguments.cpu_time else time.perf_counter,
        ),
    )


if __name__ == "__main__":
    main()
