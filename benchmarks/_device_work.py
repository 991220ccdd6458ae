"""The work that `device_check.py` does on the GPU and on the CPU: each compares the results and times both.

Every function takes a `Place` and returns numbers by name and a sentence; a result that differs raises AssertionError.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from animportrait3d_core.avatar import (
    AvatarRig,
    InitializeSettings,
    RiggedAvatar,
    initialize_avatar,
    pose_avatar,
    render_avatar_views,
)
from animportrait3d_core.body.model import BodyModel, load_body_model
from animportrait3d_core.cameras import concatenate_cameras, orbit_cameras, view_preset
from animportrait3d_core.conditioning import CROP_REGIONS, condition_assets, crop_cameras, posed_condition_map
from animportrait3d_core.optimization import FitViewsSettings, fit_to_views
from animportrait3d_core.render import available_backends, gaussian_device, rasterize_gaussians, rasterize_mesh
from animportrait3d_core.render.benchmark import bumpy_sphere, front_camera, gaussian_case
from animportrait3d_core.similarity import psnr
from animportrait3d_core.views import Views

Result = tuple[dict[str, float], str]


class Skipped(Exception):
    """A check that has nothing to do here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Place:
    """device: "cuda", or "cpu" for a rehearsal.  small: little work.  deadline: on the monotonic clock."""

    device: str
    small: bool
    deadline: float

    def seconds_left(self) -> float:
        """Until no further check may begin."""
        return self.deadline - time.monotonic()

    def amount(self, small: int, full: int) -> int:
        """How much to do."""
        return small if self.small else full


def milliseconds(work: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """Median time of a job after one run to warm up, the GPU's own work included."""
    times = []
    for _ in range(repeats + 1):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def wait_for(device: str) -> None:
    """Until the GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def embedded_body() -> BodyModel:
    """The mannequin."""
    from animportrait3d_core.embedded.mannequin import mannequin_body_files

    return load_body_model(*mannequin_body_files())


def gaussians(place: Place) -> Result:
    """One training step's rendering, forward and backward, by gsplat on the GPU and by Numba on the CPU."""
    if place.device == "cuda" and gaussian_device("cuda").type != "cuda":
        raise Skipped("gsplat does not run here: see extensions")
    case = gaussian_case(place.amount(500, 50_000), place.amount(32, 512), 1, 0)
    numbers, images, gradients = {}, {}, {}
    for device in ("cpu", place.device):
        leaves = {name: leaf.detach().to(device).requires_grad_() for name, leaf in case.leaves.items()}

        def step(leaves: dict[str, torch.Tensor] = leaves, device: str = device) -> torch.Tensor:
            image = rasterize_gaussians(**leaves, cameras=case.cameras).color
            gradients[device] = torch.autograd.grad(image.square().sum(), list(leaves.values()))
            return image.detach().cpu()

        images[device] = step()
        numbers[f"{device}_ms"] = milliseconds(step, device)
    numbers["psnr"] = psnr(images[place.device], images["cpu"])
    numbers["gradient_difference"] = max(
        float((one.cpu() - other).norm() / other.norm())
        for one, other in zip(gradients[place.device], gradients["cpu"])
    )
    assert numbers["psnr"] > 50 and numbers["gradient_difference"] < 0.02, numbers
    if place.device == "cuda":
        numbers["waits"] = _waits(lambda: render_case(case, "cuda"))
    return numbers, "rendering with gradients of all inputs"


def render_case(case: Any, device: str) -> None:
    """One rendering of a benchmark's case."""
    rasterize_gaussians(**{name: leaf.detach().to(device) for name, leaf in case.leaves.items()}, cameras=case.cameras)


def _waits(work: Callable[[], None]) -> int:
    """How often the processor waited for the GPU, in torch's own count."""
    work()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in found)


def mesh(place: Place) -> Result:
    """A mesh drawn by nvdiffrast where it runs, else by the CPU from tensors on the GPU."""
    usable = {backend.name: backend.usable for backend in available_backends()}
    backend = "nvdiffrast" if place.device == "cuda" and usable["mesh/nvdiffrast"] else "auto"
    vertices, faces = bumpy_sphere(place.amount(500, 100_000))
    cameras = front_camera(place.amount(32, 512))
    there = vertices.to(place.device), faces.to(place.device)
    here = rasterize_mesh(vertices, faces, cameras)
    found = rasterize_mesh(*there, cameras, backend=backend)
    agreeing = float((found.mask.cpu() == here.mask).float().mean())
    depth = float((found.depth.cpu() - here.depth)[found.mask.cpu() & here.mask].abs().median())
    assert agreeing > 0.995 and depth < 1e-3, (agreeing, depth)
    return {
        "cpu_ms": milliseconds(lambda: rasterize_mesh(vertices, faces, cameras), "cpu"),
        f"{place.device}_ms": milliseconds(lambda: rasterize_mesh(*there, cameras, backend=backend), place.device),
        "agreeing": agreeing,
    }, f"back-end {backend}"


def conditions(place: Place) -> Result:
    """Condition maps of face, eyes and mouth of the mannequin."""
    body = embedded_body()
    parameters = body.neutral_parameters().replace(scale=torch.tensor([[2.78]]), jaw_pose=torch.tensor([[0.2, 0, 0]]))
    landmarks = body(parameters).landmarks[0]
    orbit = orbit_cameras([10.0], [5.0], 896, target=landmarks.mean(0).tolist())
    size = place.amount(32, 512)
    names = ("face", "left eye", "right eye", "mouth")
    crops = concatenate_cameras([crop_cameras(CROP_REGIONS[name], orbit, landmarks, size) for name in names])
    maps, numbers = {}, {}
    for device in ("cpu", place.device):
        assets, posed = condition_assets(body.assets).to(device), body.to(device)(parameters.to(device))

        def draw(assets: Any = assets, posed: Any = posed) -> torch.Tensor:
            return posed_condition_map(assets, posed, crops)

        maps[device] = draw().cpu()
        numbers[f"{device}_ms"] = milliseconds(draw, device)
    different = (maps[place.device] - maps["cpu"]).abs().amax(-1) > 2e-3
    numbers["different_pixels"] = float(different.float().mean())
    assert numbers["different_pixels"] < 1e-3 and float(maps["cpu"][..., 3].max()) == 1.0, numbers
    return numbers, f"{len(names)} crops of {size} pixels"


def hash_grid(place: Place) -> Result:
    """Encoding of points and its gradient, by tiny-cuda-nn where it runs."""
    from animportrait3d_core.surface.hash_grid import hash_encode, initial_table
    from animportrait3d_core.surface.hash_grid_settings import HashGridSettings

    settings, generator = HashGridSettings(), torch.Generator().manual_seed(0)
    table = 1e3 * initial_table(settings, generator)
    points = torch.rand(place.amount(500, 200_000), 3, generator=generator)
    encoded, gradients, numbers = {}, {}, {}
    for device in ("cpu", place.device):
        inputs = points.to(device), table.to(device).requires_grad_()

        def step(inputs: Any = inputs, device: str = device) -> None:
            code = hash_encode(*inputs, settings)
            encoded[device] = code.detach().cpu()
            gradients[device] = torch.autograd.grad(code.square().sum(), inputs[1])[0].cpu()

        numbers[f"{device}_ms"] = milliseconds(step, device, 3)
    numbers["difference"] = float((encoded[place.device] - encoded["cpu"]).abs().max())
    apart = (gradients[place.device] - gradients["cpu"]).norm() / gradients["cpu"].norm()
    numbers["gradient_difference"] = float(apart)
    # tiny-cuda-nn interpolates in half precision.
    assert numbers["difference"] < 5e-3 and numbers["gradient_difference"] < 1e-2, numbers
    return numbers, f"{len(points)} points"


def _start(place: Place) -> tuple[RiggedAvatar, Views]:
    """What Initialize Avatar trains: a person of the embedded world as an untrained avatar, and true views."""
    from animportrait3d_core.embedded.identities import exported_identity, identity_mesh, true_parameters
    from animportrait3d_core.portrait.mesh import render_colored_mesh
    from animportrait3d_core.rigging.points import PointSettings, rig_points

    identity = exported_identity("amara")
    portrait, body, parameters = identity_mesh(identity, texture_size=512), embedded_body(), true_parameters(identity)
    points = rig_points(portrait, body, parameters, PointSettings(count=place.amount(1500, 30_000)))
    avatar = initialize_avatar(points, body, parameters, InitializeSettings(sh_degree=1))
    cameras, white = view_preset("quickstart", place.amount(32, 256))[: place.amount(4, 60)], torch.ones(3)
    picture = render_colored_mesh(portrait, cameras, white)
    return avatar, Views(picture.images, picture.masks, cameras, white)


def posing(place: Place) -> Result:
    """An avatar posed frame by frame."""
    avatar, _ = _start(dataclasses.replace(place, small=True))
    avatar = avatar[torch.arange(place.amount(1000, 50_000)) % len(avatar)]
    parameters = avatar.parameters.replace(jaw_pose=torch.tensor([[0.2, 0.0, 0.0]]))
    numbers, means = {}, {}
    for device in ("cpu", place.device):
        rig, pose = AvatarRig(avatar.to(device)), parameters.to(device)
        with torch.no_grad():
            means[device] = rig.pose(pose).means.cpu()
            numbers[f"{device}_ms"] = milliseconds(lambda rig=rig, pose=pose: rig.pose(pose), device)
    numbers["difference"] = float((means[place.device] - means["cpu"]).abs().max())
    assert numbers["difference"] < 1e-3, numbers
    return numbers, f"{len(avatar)} Gaussians"


def training(place: Place) -> Result:
    """Initialize Avatar on a person of the embedded world: the same training on both, and how alike the ends are."""
    if place.device == "cuda" and gaussian_device("cuda").type != "cuda":
        raise Skipped("gsplat does not run here: see extensions")
    avatar, views = _start(place)
    steps = place.amount(3, 150)
    settings = FitViewsSettings().with_stage(iterations=steps)
    pictures, numbers = {}, {}
    for device in ("cpu", place.device):
        # One step first: kernels are compiled and loaded outside of the clock.
        fit_to_views(avatar, views, settings.with_stage(iterations=1), device=device)
        start = time.perf_counter()
        trained = fit_to_views(avatar, views, settings, device=device)
        wait_for(device)
        numbers[f"{device}_ms_per_step"] = 1e3 * (time.perf_counter() - start) / steps
        posed = pose_avatar(trained, trained.parameters)
        pictures[device] = render_avatar_views(posed, views.cameras[:4], torch.ones(3)).images
    numbers["psnr_of_both"] = psnr(pictures[place.device], pictures["cpu"])
    numbers["psnr_cpu"] = psnr(pictures["cpu"], views.images[:4])
    numbers[f"psnr_{place.device}"] = psnr(pictures[place.device], views.images[:4])
    # The same order of views and splits; rounding decides single Gaussians at thresholds.
    assert numbers["psnr_of_both"] > 35, numbers
    return numbers, f"{steps} steps, {len(avatar)} Gaussians, {len(views)} views"


WORK = {
    "gaussians": gaussians, "mesh": mesh, "conditions": conditions, "hash_grid": hash_grid, "posing": posing,
    "training": training,
}  # fmt: skip
