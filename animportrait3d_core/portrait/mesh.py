"""A portrait made of a textured or vertex-coloured mesh."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput, check_shape
from ..mesh_files import MeshReport
from ..mesh_queries import colors_at
from ..meshes import Mesh, vertex_normals
from ..render import MeshImage, rasterize_mesh
from .alignment import HeadAlignment, crop_to_view
from .protocol import SCHEMA_VERSION, PortraitImage

SHADINGS = ("unlit", "soft")
MAX_SUPERSAMPLING = 4
# Key light of the "soft" shading: from above, in front, a little from the subject's left; fixed in the world, so that
# all views show one and the same lit object.
LIGHT_DIRECTION = (0.35, 0.6, 0.72)
AMBIENT, KEY = 0.62, 0.38


@dataclasses.dataclass(frozen=True)
class MeshRenderSettings:
    """How a mesh portrait is drawn.

    shading: 'unlit' shows the colours as they are (light baked into the texture stays, nothing is added); 'soft' adds a
    gentle light from above and in front, which an unlit texture needs to show its shape.  supersampling: samples per
    pixel side, 1 to 4; 2 gives masks with five levels of coverage.
    """

    shading: str = "unlit"
    supersampling: int = 2

    def __post_init__(self) -> None:
        if self.shading not in SHADINGS:
            raise InvalidInput(f"MeshRenderSettings: shading '{self.shading}', expected one of {', '.join(SHADINGS)}.")
        if not 1 <= self.supersampling <= MAX_SUPERSAMPLING:
            raise InvalidInput(
                f"MeshRenderSettings: supersampling {self.supersampling}, expected 1 to {MAX_SUPERSAMPLING}."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class MeshPortrait:
    """A static portrait as a mesh in the head frame.

    surface: the aligned mesh, with a texture or vertex colours.  report: what its file held, if it came from one.
    alignment: how it was brought into the head frame, if it was.
    """

    surface: Mesh
    prompt: str = ""
    rendering: MeshRenderSettings = MeshRenderSettings()
    report: MeshReport | None = None
    alignment: HeadAlignment | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if len(self.surface.faces) == 0:
            raise InvalidInput("MeshPortrait: the mesh has 0 faces, expected at least 1.")
        if self.surface.texture is None and self.surface.vertex_colors is None:
            raise InvalidInput(
                "MeshPortrait: the mesh has neither a texture nor vertex colours, expected one of them; load it with "
                "load_mesh, which makes such meshes grey, or give it `vertex_colors`."
            )

    @property
    def kind(self) -> str:
        """'mesh'."""
        return "mesh"

    def mesh(self) -> Mesh:
        """The surface in the head frame."""
        return self.surface

    def render(self, cameras: Cameras, background: Tensor | None = None) -> PortraitImage:
        """Pictures over a background colour [3] in 0..1, white if not given; both sides of every face are visible."""
        return render_colored_mesh(self.surface, cameras, background, self.rendering)


def portrait_from_mesh(
    mesh: Mesh,
    alignment: HeadAlignment | None = None,
    prompt: str = "",
    rendering: MeshRenderSettings | None = None,
    report: MeshReport | None = None,
) -> MeshPortrait:
    """A portrait of a mesh, moved by `alignment` into the head frame (None: it is there already) and cropped to view."""
    aligned = mesh if alignment is None else alignment.apply_to_mesh(mesh)
    return MeshPortrait(crop_to_view(aligned), prompt, rendering or MeshRenderSettings(), report, alignment)


def render_colored_mesh(
    mesh: Mesh, cameras: Cameras, background: Tensor | None = None, settings: MeshRenderSettings | None = None
) -> PortraitImage:
    """Antialiased pictures of a mesh with its own colours, over `background` [3] (white if None); no gradients.

    The mask is the covered share of the samples of a pixel, the depth that of its nearest sample.
    """
    settings = settings or MeshRenderSettings()
    background = torch.ones(3) if background is None else background.float().cpu()
    check_shape("render_colored_mesh", "background", background, [3])
    with torch.no_grad():
        normals = vertex_normals(mesh.vertices, mesh.faces) if settings.shading == "soft" else None
        # One camera at a time: at 512 pixels and 2 x 2 samples a camera's tables take about 100 MB.
        pictures = [_render_one(mesh, normals, cameras[index], background, settings) for index in range(len(cameras))]
    if not pictures:
        shape = (0, cameras.height, cameras.width)
        return PortraitImage(torch.zeros(*shape, 3), torch.zeros(shape), torch.zeros(shape))
    images, masks, depth = (torch.stack(parts) for parts in zip(*pictures))
    return PortraitImage(images, masks, depth)


def _render_one(
    mesh: Mesh, normals: Tensor | None, camera: Cameras, background: Tensor, settings: MeshRenderSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Image [H, W, 3], mask [H, W] and depth [H, W] of one camera."""
    samples = settings.supersampling
    fine = camera.resized(camera.width * samples, camera.height * samples)
    raster = rasterize_mesh(mesh.vertices, mesh.faces, fine)
    covered = raster.mask[0]
    hit = torch.nonzero(covered.reshape(-1)).squeeze(1)
    colors = _sample_colors(mesh, normals, raster, hit, camera)
    full = torch.zeros(covered.numel(), 3).index_copy(0, hit, colors)
    blocks = (camera.height, samples, camera.width, samples)
    color = full.view(*blocks, 3).mean(dim=(1, 3))
    mask = covered.view(blocks).float().mean(dim=(1, 3))
    nearest = raster.depth[0].where(covered, torch.tensor(torch.inf)).view(blocks).amin(dim=(1, 3))
    depth = nearest.where(torch.isfinite(nearest), torch.tensor(0.0))
    return (color + (1 - mask)[..., None] * background).clamp(0, 1), mask, depth


def _sample_colors(
    mesh: Mesh, normals: Tensor | None, raster: MeshImage, hit: Tensor, camera: Cameras
) -> Tensor:
    """Colours [P, 3] of the covered samples `hit` [P] of one raster image."""
    faces, weights = raster.face_id.reshape(-1)[hit], raster.barycentric.reshape(-1, 3)[hit]
    colors = colors_at(mesh, faces, weights)
    if normals is None:
        return colors
    corners = mesh.faces[faces]
    normal = torch.nn.functional.normalize((normals[corners] * weights[..., None]).sum(1), dim=-1)
    point = (mesh.vertices[corners] * weights[..., None]).sum(1)
    to_camera = camera.camera_centers[0] - point
    # Meshes are two-sided: the side that is seen is the one that is lit.
    normal = torch.where((normal * to_camera).sum(-1, keepdim=True) < 0, -normal, normal)
    light = torch.nn.functional.normalize(torch.tensor(LIGHT_DIRECTION), dim=0)
    return colors * (AMBIENT + KEY * (normal @ light).clamp(min=-0.3))[:, None]
