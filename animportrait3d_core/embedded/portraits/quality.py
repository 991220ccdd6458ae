"""What a fitted portrait is worth: its likeness and the noise of its raw surface, measured against the identity."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cameras import OPENGL_AXES, Cameras, normals_to_opengl, view_preset
from ...errors import InvalidInput
from ...files import require_file, write_json
from ...meshes import Mesh, vertex_normals
from ...portrait.protocol import MESH_PRESETS
from ...portrait.trigrid import TrigridPortrait, trigrid_mesh
from ...render import interpolate, rasterize_mesh
from ...surface.marching_cubes import smooth_mesh
from ..identities import IdentityImage

GRID_PASSES = 2  # of smoothing, which take the steps of a marching-cubes surface away
SAME_SURFACE = 0.05  # world units of depth within which a pixel shows the same surface in both
WHITE = (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class SurfaceNoise:
    """Of a mesh against the true surface, over the pixels that show both.

    normal_angle, normal_angle_90: mean and 90th percentile in degrees between the normals.  distance: mean distance
    to the true surface's tangent planes, world units.  share: of the true figure's pixels that were compared.
    """

    normal_angle: float
    normal_angle_90: float
    distance: float
    share: float


@dataclasses.dataclass(frozen=True)
class PortraitReport:
    """A fitted portrait in numbers.

    prompt, seed: of the identity.  seconds: of the fit, without the rendering of its pictures.  psnr: decibels at
    held-out cameras, against the identity.  noise: of `raw_surface`.
    bytes, sha256: of the file.  settings: as used.
    """

    prompt: str
    seed: int
    seconds: float
    psnr: float
    noise: SurfaceNoise
    bytes: int
    sha256: str
    settings: dict[str, Any]

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.seconds:.0f} s, {self.psnr:.2f} dB at held-out cameras, raw surface {self.noise.normal_angle:.1f} "
            f"degrees off (90 %: {self.noise.normal_angle_90:.1f}) at a distance of {self.noise.distance:.4f}, "
            f"{self.bytes / 1e6:.1f} MB"
        )


def write_report(report: PortraitReport, path: Path) -> None:
    """Write the report as JSON."""
    write_json(path, dataclasses.asdict(report))


def read_report(path: Path) -> PortraitReport:
    """A report from its JSON file; `InvalidInput` if it is not one."""
    try:
        values = json.loads(require_file("read_report", path).read_text(encoding="utf-8"))
        return PortraitReport(**{**values, "noise": SurfaceNoise(**values["noise"])})
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"read_report: '{path}' is not a portrait's report ({error}).") from error


def heldout_cameras(size: int) -> Cameras:
    """The twelve cameras that no fit sees."""
    return view_preset("heldout", size)


def portrait_psnr(portrait: TrigridPortrait, truth: IdentityImage, cameras: Cameras) -> float:
    """Peak signal-to-noise ratio in decibels of the portrait over white against the identity's pictures over white."""
    images = portrait.render(cameras, torch.tensor(WHITE)).images
    return float(-10 * torch.log10((images - truth.rgb).square().mean()))


def raw_surface(portrait: TrigridPortrait) -> Mesh:
    """The portrait's surface at its standard resolution, without the steps of the grid, which are not its own noise."""
    return smooth_mesh(trigrid_mesh(portrait, MESH_PRESETS["standard"]), GRID_PASSES)


def surface_noise(mesh: Mesh, truth: IdentityImage, cameras: Cameras) -> SurfaceNoise:
    """Compare a mesh with an identity's true normals and depths at the cameras of `truth`, pixel by pixel.

    Pixels that show different surfaces (depths more than 0.05 apart) or are partly background are left out.
    """
    image = rasterize_mesh(mesh.vertices, mesh.faces, cameras)
    world = interpolate(image, mesh.faces, vertex_normals(mesh.vertices, mesh.faces))
    normals = torch.nn.functional.normalize(normals_to_opengl(cameras, world), dim=-1)
    offset = image.depth - truth.depth
    full = truth.alpha > 0.99
    compared = (image.face_id >= 0) & full & (offset.abs() < SAME_SURFACE)
    if not bool(compared.any()):
        raise InvalidInput("surface_noise: no pixel shows both the mesh and the identity; check the cameras.")
    angles = torch.rad2deg(torch.acos((normals * truth.normals).sum(dim=-1).clamp(-1, 1)))[compared]
    # Between the two depths the ray travels offset * ray; the part along the normal is the distance to the plane.
    distances = (offset[..., None] * _unit_depth_rays(cameras) * truth.normals).sum(dim=-1)[compared].abs()
    return SurfaceNoise(
        float(angles.mean()),
        float(angles.kthvalue(max(1, round(0.9 * len(angles)))).values),
        float(distances.mean()),
        float(compared.sum() / full.sum()),
    )


def _unit_depth_rays(cameras: Cameras) -> Tensor:
    """Directions [B, H, W, 3] through the pixels in camera-space OpenGL axes, of depth 1."""
    rows, columns = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(rows)], dim=-1)
    rays = torch.einsum("brc,hwc->bhwr", torch.linalg.inv(cameras.K), pixels)
    return rays * torch.tensor(OPENGL_AXES)
