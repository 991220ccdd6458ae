"""A portrait made of 3D Gaussians, as scans by splatting are: its pictures, its surface, its way to the head frame.

The surface is that of the depths seen from all around, fused into a signed distance (Curless and Levoy, "A volumetric
method for building complex models from range images", 1996).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..avatar.spherical_harmonics import rotate_spherical_harmonics
from ..cameras import Cameras, orbit_cameras, project
from ..errors import InvalidInput
from ..gaussians import Gaussians, sh0_to_rgb
from ..head_frame import VIEW_BOTTOM, VIEW_RADIUS
from ..meshes import Mesh
from ..progress import Progress
from ..render import rasterize_gaussians
from ..rotations import matrix_to_quaternion, quaternion_multiply
from ..socket_values import SocketValue
from ..surface import mesh_from_density
from .alignment import HeadAlignment
from .protocol import SCHEMA_VERSION, MeshSettings, PortraitImage

VIEW_TOP = 1.4
LEAST_OPACITY = 0.3  # of splats that lend their colour to the surface
COVERED = 0.5
ELEVATIONS = (-50.0, -20.0, 10.0, 40.0, 75.0)
YAWS = 8
DEPTH_SIZE = 192
BAND = 4.0  # voxels: how far from a depth the distance counts
SHRUNK, FIELD_OF_VIEW = 0.8, 45.0  # radius of what the depths show, seen from the standard orbit


@dataclasses.dataclass(frozen=True, eq=False)
class SplatPortrait(SocketValue):
    """A static portrait of Gaussians in the head frame. alignment: how they were brought there, if they were."""

    gaussians: Gaussians
    prompt: str = ""
    alignment: HeadAlignment | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def kind(self) -> str:
        """'splats'."""
        return "splats"

    def at_full_quality(self) -> SplatPortrait:
        """Itself: splats are always drawn the same way."""
        return self

    def render(self, cameras: Cameras, background: Tensor | None = None) -> PortraitImage:
        """Pictures over a background colour [3] in 0..1, white if not given."""
        behind = torch.ones(3) if background is None else background
        drawn = rasterize_gaussians(*_drawn(self.gaussians), cameras, background=behind)
        masks = drawn.alpha.clamp(0, 1)
        return PortraitImage(drawn.color.clamp(0, 1), masks, torch.where(masks > 0, drawn.depth, 0.0))

    def mesh(self, settings: MeshSettings | None = None, progress: Progress | None = None) -> Mesh:
        """The surface with the colours of the splats near it. Of the settings the level and border have no meaning."""
        return splat_surface(self.gaussians, settings, progress)


def portrait_from_splats(gaussians: Gaussians, alignment: HeadAlignment, prompt: str = "") -> SplatPortrait:
    """The Gaussians moved into the head frame, without those that the standard cameras do not see (a room, a torso)."""
    moved = moved_gaussians(gaussians, alignment)
    x, y, z = moved.means.unbind(1)
    keep = (y > VIEW_BOTTOM) & (y < VIEW_TOP) & (x.square() + z.square() < VIEW_RADIUS**2)
    if not bool(keep.any()):
        raise InvalidInput(
            f"portrait_from_splats: none of the {len(moved)} splats is in view after the placement; align them first."
        )
    return SplatPortrait(moved[keep], prompt, alignment)


def moved_gaussians(gaussians: Gaussians, alignment: HeadAlignment) -> Gaussians:
    """The Gaussians under a similarity, view-dependent colours included."""
    turn = matrix_to_quaternion(alignment.rotation[None]).to(gaussians.quats)
    rotation = alignment.rotation.to(gaussians.sh).expand(len(gaussians), 3, 3)
    return Gaussians(
        means=alignment.apply(gaussians.means),
        quats=quaternion_multiply(turn.expand_as(gaussians.quats), gaussians.quats),
        log_scales=gaussians.log_scales + float(np.log(alignment.scale)),
        logit_opacities=gaussians.logit_opacities,
        sh=rotate_spherical_harmonics(gaussians.sh, rotation),
    )


def splat_surface(gaussians: Gaussians, settings: MeshSettings | None = None, progress: Progress | None = None) -> Mesh:
    """The surface of Gaussians in any frame, with vertex colours; see the module.

    progress: called after each view and at the end. Raises `InvalidInput` if nothing opaque is seen.
    """
    settings = settings or MeshSettings(128)
    middle, radius = _bounds(gaussians)
    shrink = HeadAlignment(torch.eye(3), SHRUNK / radius, -middle * (SHRUNK / radius), "by hand")
    small = moved_gaussians(dataclasses.replace(gaussians, sh=gaussians.sh[:, :1]), shrink)
    cameras = orbit_cameras(
        [360 / YAWS * (step + 0.5 * (row % 2)) for row in range(len(ELEVATIONS)) for step in range(YAWS)],
        [elevation for elevation in ELEVATIONS for _ in range(YAWS)],
        DEPTH_SIZE,
        target=[0.0, 0.0, 0.0],
        fov_degrees=FIELD_OF_VIEW,
    )
    count, half = settings.resolution, 1.05 * SHRUNK
    spacing = 2 * half / (count - 1)
    axis = torch.linspace(-half, half, count)
    points = torch.cartesian_prod(axis, axis, axis)
    total, weight = torch.zeros(len(points)), torch.zeros(len(points))
    for index in range(len(cameras)):
        _add_view(small, cameras[index], points, BAND * spacing, total, weight)
        if progress is not None:
            progress(index + 1, len(cameras) + 1, None)
    inside = torch.where(weight > 0, -total / weight.clamp(min=1), torch.ones(()))  # what nobody sees is solid
    surface = dataclasses.replace(settings.surface, level=0.0, border=1 / count)
    mesh = mesh_from_density(inside.reshape(count, count, count), (-half, -half, -half), spacing, surface)
    if progress is not None:
        progress(len(cameras) + 1, len(cameras) + 1, None)
    return dataclasses.replace(
        mesh, vertices=shrink.inverse_apply(mesh.vertices), vertex_colors=_colors(small, mesh.vertices)
    )


def _add_view(
    gaussians: Gaussians, camera: Cameras, points: Tensor, band: float, total: Tensor, weight: Tensor
) -> None:
    """Adds one camera's truncated distances at points [P, 3]: in shares of `band`, positive in front of the surface."""
    drawn = rasterize_gaussians(*_drawn(gaussians), camera)
    pixels, depth = project(camera, points)
    pixels, depth = pixels[0].floor().long(), depth[0]
    seen = ((pixels >= 0) & (pixels < DEPTH_SIZE)).all(1) & (depth > 0)
    place = pixels.clamp(0, DEPTH_SIZE - 1)
    alpha, surface = (values[0, place[:, 1], place[:, 0]] for values in (drawn.alpha, drawn.depth))
    distance = torch.where(alpha > COVERED, (surface - depth) / band, torch.ones(()))
    counts = seen & (distance > -1)
    total += torch.where(counts, distance.clamp(max=1), torch.zeros(()))
    weight += counts


def _bounds(gaussians: Gaussians) -> tuple[Tensor, float]:
    """Middle [3] and radius of the opaque splats; a hundredth on each side may be stray."""
    means = gaussians.means[gaussians.opacities > LEAST_OPACITY]
    if len(means) < 10:
        raise InvalidInput(
            f"splat_surface: {len(means)} of {len(gaussians)} splats are opaque (over {LEAST_OPACITY}): no head."
        )
    ordered = means.sort(0).values
    low, high = ordered[len(means) // 100], ordered[-1 - len(means) // 100]
    return (low + high) / 2, float((high - low).norm()) / 2 * 1.1


def _colors(gaussians: Gaussians, vertices: Tensor) -> Tensor:
    from scipy.spatial import cKDTree

    opaque = gaussians[gaussians.opacities > LEAST_OPACITY]
    distance, index = cKDTree(opaque.means.numpy()).query(vertices.numpy(), k=min(4, len(opaque)))
    weights = torch.from_numpy(1 / (distance + 1e-6)).float().reshape(len(vertices), -1, 1)
    colors = sh0_to_rgb(opaque.sh[:, 0])[torch.from_numpy(index).reshape(len(vertices), -1)]
    return ((colors * weights).sum(1) / weights.sum(1)).clamp(0, 1)


def _drawn(gaussians: Gaussians) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh
