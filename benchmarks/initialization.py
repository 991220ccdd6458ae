"""What initialization of colours and geometry is good for: likeness over the steps of training, with and without.

    python benchmarks/initialization.py                           # amara, a trigrid portrait of the embedded world
    python benchmarks/initialization.py --portrait FILE.safetensors --output DIR      # another trigrid portrait
    python benchmarks/initialization.py --mesh amara              # a mesh portrait of the embedded world
    python benchmarks/initialization.py --paper                   # the authors' training instead of ours
    python benchmarks/initialization.py --field                   # only the colour field: time and likeness

Writes DIR/initialization.json and DIR/initialization.png (per run: at the start, and at the end) and prints tables in
Markdown. All runs see the same views, seeds and held-out cameras.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from animportrait3d_core import previews  # noqa: E402
from animportrait3d_core.avatar import (  # noqa: E402
    InitializeSettings,
    initialize_avatar,
    pose_avatar,
    render_avatar_views,
)
from animportrait3d_core.body.model import load_body_model  # noqa: E402
from animportrait3d_core.cameras import view_preset  # noqa: E402
from animportrait3d_core.embedded.identities import embedded_portrait_files  # noqa: E402
from animportrait3d_core.embedded.mannequin import mannequin_body_files  # noqa: E402
from animportrait3d_core.embedded.portraits import shipped_portrait_file  # noqa: E402
from animportrait3d_core.embedded.weights import embedded_network_folder  # noqa: E402
from animportrait3d_core.files import write_json  # noqa: E402
from animportrait3d_core.initialization import (  # noqa: E402
    InitializationSettings,
    Networks,
    Subject,
    find_subject,
)
from animportrait3d_core.mesh_files import load_mesh  # noqa: E402
from animportrait3d_core.meshes import Mesh  # noqa: E402
from animportrait3d_core.optimization import FitViewsSettings, views_optimizer  # noqa: E402
from animportrait3d_core.parts import AvatarPart  # noqa: E402
from animportrait3d_core.portrait.head_search import find_head  # noqa: E402
from animportrait3d_core.portrait.head_target import head_target  # noqa: E402
from animportrait3d_core.portrait.mesh import portrait_from_mesh, render_colored_mesh  # noqa: E402
from animportrait3d_core.portrait.protocol import Portrait  # noqa: E402
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait  # noqa: E402
from animportrait3d_core.portrait.views import render_views  # noqa: E402
from animportrait3d_core.rigging.points import (  # noqa: E402
    PointSettings,
    PosedBody,
    RiggedPoints,
    color_points,
    sample_points,
    split_parts,
    uncolored_points,
)
from animportrait3d_core.similarity import psnr  # noqa: E402
from animportrait3d_core.surface.color_field import ColorField, render_field  # noqa: E402
from animportrait3d_core.surface.color_training import ColorFieldSettings, train_color_field  # noqa: E402
from animportrait3d_core.views import Views  # noqa: E402

SHOWN = (0, 2, 4, 6)
"""Held-out cameras in the picture."""


class Case(NamedTuple):
    """One portrait with everything that the runs share."""

    subject: Subject
    views: Views
    heldout: Views

    @property
    def mesh(self) -> Mesh:
        """The surface that the parts divide."""
        return self.subject.parts.mesh


class Run(NamedTuple):
    """One curve: steps, decibels at the held-out cameras, seconds of training so far, pictures at start and end."""

    name: str
    steps: list[int]
    psnr: list[float]
    seconds: list[float]
    gaussians: list[int]
    pictures: Tensor


def seeded() -> torch.Generator:
    """The seed of everything."""
    return torch.Generator().manual_seed(0)


def load_case(options: argparse.Namespace) -> Case:
    """The portrait as the shipped graphs look at it, and its held-out views."""
    body = load_body_model(*mannequin_body_files())
    networks = Networks.load(*(embedded_network_folder(role) for role in ("parts", "normals", "landmarks")))
    settings = InitializationSettings(view_size=options.size)
    portrait: Portrait
    if options.mesh is not None:
        mesh = load_mesh(embedded_portrait_files(options.mesh)[0])
        portrait = portrait_from_mesh(mesh, find_head(mesh, head_target(body)))
        settings = dataclasses.replace(settings, refine=None)
    else:
        portrait = load_trigrid_portrait(options.portrait or shipped_portrait_file("amara"))
    subject = find_subject(portrait, body, networks, settings)
    return Case(subject, subject.all_views, render_views(portrait, view_preset("heldout", options.size)))


def measure_field(case: Case, settings: ColorFieldSettings) -> tuple[ColorField, dict[str, float]]:
    """The trained field, its cost, and the likeness of the mesh in its colours at the held-out cameras."""
    wall, cpu = time.perf_counter(), time.process_time()
    field = train_color_field(case.mesh, case.views, settings)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    heldout = case.heldout
    inside = (heldout.masks > 0.99).float()
    rendered = render_field(case.mesh, field, heldout.cameras, heldout.background)
    return field, {
        "seconds": wall,
        "cpu_seconds": cpu,
        "cpu_ms_per_step": 1000 * cpu / settings.iterations,
        "psnr_inside": psnr(rendered, heldout.images, inside),
    }


def own_colors_likeness(case: Case) -> float:
    """The same for the mesh's own texture or vertex colours."""
    heldout = case.heldout
    picture = render_colored_mesh(case.mesh, heldout.cameras, heldout.background)
    return psnr(picture.images, heldout.images, (heldout.masks > 0.99).float())


def colored(points: RiggedPoints, case: Case, posed: PosedBody, method: str, field: ColorField) -> RiggedPoints:
    """The points by one of the methods of AP3D_ColorPoints."""
    if method == "none":
        return uncolored_points(points)
    return color_points(points, case.mesh, posed, field if method == "hash grid" else None)


def train(name: str, points: RiggedPoints, case: Case, options: argparse.Namespace) -> Run:
    """One run of 3DGS training, measured on the way."""
    start = InitializeSettings.paper() if options.paper else InitializeSettings()
    settings = FitViewsSettings.paper() if options.paper else FitViewsSettings()
    settings = settings.with_stage(iterations=options.iterations)
    fit = case.subject.fit
    avatar = initialize_avatar(points, fit.body, fit.parameters, start)
    trainer = views_optimizer(avatar, case.views, settings)
    run, seconds = Run(name, [], [], [], [], torch.zeros(0)), 0.0
    pictures = []
    for step in sorted({0, *(step for step in options.steps if step < options.iterations), options.iterations}):
        begin = time.process_time()
        while trainer.step_index < step:
            trainer.step()
        seconds += time.process_time() - begin
        avatar = trainer.avatar()
        posed = pose_avatar(avatar, avatar.parameters)
        images = render_avatar_views(posed, case.heldout.cameras, case.heldout.background).images
        run.steps.append(step)
        run.psnr.append(psnr(images, case.heldout.images))
        run.seconds.append(seconds)
        run.gaussians.append(len(avatar))
        pictures.append(images[list(SHOWN)])
        print(f"{name}: step {step}, {run.psnr[-1]:.2f} dB, {len(avatar)} Gaussians, {seconds:.0f} s", flush=True)
    return run._replace(pictures=torch.cat([pictures[0], pictures[-1]]))


def all_runs(case: Case, options: argparse.Namespace, field: ColorField) -> list[Run]:
    """With both initializations, without each of them, and with the nearest surface's colours."""
    posed = PosedBody.of(case.subject.fit.body, case.subject.fit.parameters)
    point_settings = PointSettings(count=options.count)
    runs = []
    voted = case.subject.parts.part_of_face
    by_distance = split_parts(case.mesh, posed)
    # Without geometry the body's own points stand for everything: no hair, no clothes.
    body_only = torch.full_like(voted, AvatarPart.SKIN)
    for name, method, parts in (
        ("hash grid", "hash grid", voted),
        ("nearest surface", "nearest surface", voted),
        ("no colours", "none", voted),
        ("parts by distance", "hash grid", by_distance),
        ("no geometry", "hash grid", body_only),
    ):
        if options.runs and name not in options.runs:
            continue
        points = sample_points(case.mesh, parts, posed, point_settings, seeded())
        runs.append(train(name, colored(points, case, posed, method, field), case, options))
    return runs


def table(runs: list[Run]) -> str:
    """Decibels by step in Markdown."""
    lines = ["| step | " + " | ".join(run.name for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    lines += [
        f"| {step} | " + " | ".join(f"{run.psnr[index]:.1f}" for run in runs) + " |"
        for index, step in enumerate(runs[0].steps)
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portrait", type=Path, help="another trigrid portrait")
    parser.add_argument("--mesh", help="a mesh portrait of the embedded world instead")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=30_000, help="points")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[25, 50, 100, 200, 300, 500, 750, 1000, 1500, 2000, 2500]
    )
    parser.add_argument("--runs", nargs="*", help="only these")
    parser.add_argument(
        "--paper", action="store_true", help="start, learning rates, losses, densification of the paper"
    )
    parser.add_argument("--field", action="store_true", help="only the colour field")
    parser.add_argument("--output", type=Path, default=Path("output/initialization"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    case = load_case(options)
    field, quality = measure_field(case, ColorFieldSettings())
    report = {"size": options.size, "views": len(case.views), "field": {"fixed": quality}}
    report["own colours"] = {"psnr_inside": own_colors_likeness(case)}
    if options.field:
        report["field"]["paper"] = measure_field(case, ColorFieldSettings.paper())[1]
    else:
        runs = all_runs(case, options, field)
        report["count"], report["paper"] = options.count, options.paper
        report["runs"] = {run.name: {**run._asdict(), "pictures": None} for run in runs}
        truth = case.heldout.images[list(SHOWN)]
        rows = [previews.tile(torch.cat([truth, truth]), 2 * len(SHOWN))]
        rows += [previews.tile(run.pictures, 2 * len(SHOWN)) for run in runs]
        options.output.mkdir(parents=True, exist_ok=True)
        previews.write_png(previews.stack_rows(rows), options.output / "initialization.png")
        print(table(runs))
    write_json(options.output / "initialization.json", report)
    print(report["field"], report["own colours"])


if __name__ == "__main__":
    main()
