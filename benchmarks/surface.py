"""Mesh refinement on the shipped portraits: time, memory and the error to the identity's true surface.

python benchmarks/surface.py                              # the network's normals, all portraits
python benchmarks/surface.py --normals noisy --noise 10   # true normals with a smooth error of 10 degrees
python benchmarks/surface.py --sheet DIR                  # before, after and truth as pictures
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from animportrait3d_core import previews
from animportrait3d_core.cameras import orbit_cameras, view_preset
from animportrait3d_core.embedded.identities import identity_mesh, render_identity
from animportrait3d_core.embedded.portraits import SHIPPED_PORTRAITS, portrait_identity, shipped_portrait_file
from animportrait3d_core.embedded.weights import embedded_network_folder
from animportrait3d_core.evaluation.surface import surface_error
from animportrait3d_core.meshes import Mesh
from animportrait3d_core.networks import estimate_normals, load_network
from animportrait3d_core.portrait.protocol import MESH_PRESETS
from animportrait3d_core.portrait.trigrid import load_trigrid_portrait
from animportrait3d_core.portrait.views import render_views
from animportrait3d_core.surface import REFINE_PRESETS, RefineSettings, ViewNormals, refine_mesh
from animportrait3d_core.views import Views
from animportrait3d_core.workflow.report import peak_memory_mb

NOISE_GRID = 24  # pixels between the random vectors that the smooth error is interpolated from
KINDS = ("network", "true", "noisy")


def noisy_normals(normals: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Unit normals [B, H, W, 3] turned by a smooth random field of this mean angle; zeros stay."""
    batch, height, width, _ = normals.shape
    coarse = torch.randn(batch, 3, height // NOISE_GRID + 2, width // NOISE_GRID + 2, generator=generator)
    field = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)
    field = field - (field * normals).sum(-1, keepdim=True) * normals
    known = normals.norm(dim=-1) > 0.5
    field = field * (math.radians(degrees) / field.norm(dim=-1)[known].mean())
    turned = torch.nn.functional.normalize(normals + field, dim=-1)
    return torch.where(known[..., None], turned, 0.0)


def mean_angle(found: Tensor, true: Tensor, masks: Tensor) -> float:
    """Mean angle in degrees of two normal maps where both are known."""
    known = (true.norm(dim=-1) > 0.5) & (found.norm(dim=-1) > 0.5) & (masks > 0.5)
    cosine = torch.nn.functional.cosine_similarity(found[known], true[known], dim=-1)
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).mean())


def view_normals(views: Views, true: Tensor, arguments: argparse.Namespace) -> ViewNormals:
    """The normals that the refinement is given."""
    if arguments.normals == "network":
        folder = arguments.network or embedded_network_folder("normals")
        network = load_network(folder, "normals")
        return ViewNormals(estimate_normals(network, views.images, views.masks), views.masks)
    degrees = arguments.noise if arguments.normals == "noisy" else 0.0
    found = noisy_normals(true, degrees, torch.Generator().manual_seed(1)) if degrees else true
    return ViewNormals(found, views.masks * (true.norm(dim=-1) > 0.5))


def sheet(meshes: list[Mesh], size: int = 360) -> Tensor:
    """The meshes under each other, close and whole, from four sides."""
    close = orbit_cameras([0, 40, 90, 180], [5, 5, 0, 15], size, target=(0, 0.36, 0), fov_degrees=16)
    rows = [
        previews.tile(previews.shaded_mesh(mesh.vertices, mesh.faces, cameras), 4)
        for cameras in (close, previews.preview_cameras(size))
        for mesh in meshes
    ]
    return torch.cat(rows)


def measure(name: str, arguments: argparse.Namespace) -> None:
    """Refine one portrait and print what it took and what it gained."""
    identity = portrait_identity(name)
    cameras = view_preset(arguments.views, arguments.size)
    true, truth = render_identity(identity, None, cameras).normals, identity_mesh(identity)
    portrait = load_trigrid_portrait(shipped_portrait_file(name))
    raw, views = portrait.mesh(MESH_PRESETS["standard"]), render_views(portrait, cameras, torch.ones(3))
    normals = view_normals(views, true, arguments)
    wall, cpu = time.perf_counter(), time.process_time()
    refined = refine_mesh(raw, normals, views, RefineSettings.preset(arguments.preset))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    before, after = surface_error(raw, truth), surface_error(refined.mesh, truth)
    print(f"{name}: normals off by {mean_angle(normals.normals, true, normals.masks):.1f} degrees; {refined.summary()}")
    print(
        f"  mean angle {before.mean_angle:.2f} -> {after.mean_angle:.2f} degrees "
        f"({100 * (after.mean_angle / before.mean_angle - 1):+.0f} %), distance {before.mean_distance:.4f} -> "
        f"{after.mean_distance:.4f}, back {before.back_distance:.4f} -> {after.back_distance:.4f}"
    )
    print(f"  {wall:.0f} s, {cpu:.0f} s of CPU time, peak of the process {peak_memory_mb():.0f} MB", flush=True)
    if arguments.sheet:
        arguments.sheet.mkdir(parents=True, exist_ok=True)
        picture = sheet([raw, refined.mesh, truth])
        previews.write_png(picture, arguments.sheet / f"{name}_{arguments.normals}_{arguments.preset}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", nargs="*", default=SHIPPED_PORTRAITS, choices=SHIPPED_PORTRAITS)
    parser.add_argument("--preset", default="draft", choices=REFINE_PRESETS)
    parser.add_argument("--normals", default="network", choices=KINDS)
    parser.add_argument("--noise", type=float, default=10.0, help="mean error of noisy normals, degrees")
    parser.add_argument("--network", type=Path, help="another folder with a normals network")
    parser.add_argument("--views", default="quickstart", help="preset of the cameras: the shipped graphs', or mesh24")
    parser.add_argument("--size", type=int, default=256, help="pixels per side of the views")
    parser.add_argument("--sheet", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    for name in arguments.portraits:
        measure(name, arguments)


if __name__ == "__main__":
    main()
