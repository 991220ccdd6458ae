"""A portrait made of a textured or vertex-coloured mesh."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ..cameras import Cameras
from ..errors import InvalidInput, check_shape
from ..mesh_files import MeshReport
from ..meshes import Mesh, vertex_normals
from ..progress import Progress
from ..render import rasterize_mesh
from ..render.threads import run_parallel
from ..socket_values import SocketValue
from .alignment import HeadAlignment, crop_to_view
from .numba_shading import (
    NO_COLORS,
    NO_NORMALS,
    NO_TEXTURE,
    NO_UVS,
    Canvas,
    Lighting,
    Raster,
    Surface,
    shade_rows,
)
from .protocol import SCHEMA_VERSION, MeshSettings, PortraitImage

SHADINGS = ("unlit", "soft")
MAX_SUPERSAMPLING = 4
# Key light of the "soft" shading: from above, in front, a little from the subject's left; fixed in the world, so that
# all views show one and the same lit object.
LIGHT_DIRECTION = (0.35, 0.6, 0.72)
AMBIENT, KEY = 0.62, 0.38
ONE_COLOR = 0.04
"""Range of a channel under which a difference is hardly seen, and compression makes as much."""


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
class MeshPortrait(SocketValue):
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

    def at_full_quality(self) -> MeshPortrait:
        """Itself: a mesh is always drawn the same way."""
        return self

    def mesh(self, settings: MeshSettings | None = None, progress: Progress | None = None) -> Mesh:
        """The surface in the head frame, as it is: nothing of it is sampled anew."""
        if progress is not None:
            progress(1, 1, None)
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
    """A portrait of a mesh, moved by `alignment` into the head frame (None: it is there already) and cropped.

    A mesh of one colour gets soft light whatever `rendering` says: without any it would be a flat shape.
    """
    aligned = mesh if alignment is None else alignment.apply_to_mesh(mesh)
    rendering = rendering or MeshRenderSettings()
    if has_one_color(mesh):
        rendering = dataclasses.replace(rendering, shading="soft")
    return MeshPortrait(crop_to_view(aligned), prompt, rendering, report, alignment)


def has_one_color(mesh: Mesh) -> bool:
    """Whether all of a mesh has the same colour, to the eye; also if it has none."""
    if mesh.texture is not None:
        colors = mesh.texture[..., :3].reshape(-1, 3)
    elif mesh.vertex_colors is not None:
        colors = mesh.vertex_colors[mesh.faces.unique()]
    else:
        return True
    return float((colors.amax(0) - colors.amin(0)).max()) < ONE_COLOR


def render_colored_mesh(
    mesh: Mesh, cameras: Cameras, background: Tensor | None = None, settings: MeshRenderSettings | None = None
) -> PortraitImage:
    """Antialiased pictures of a mesh with its own colours, over `background` [3] (white if None); no gradients.

    The mask is the covered share of the samples of a pixel, the depth that of its nearest sample.
    """
    settings = settings or MeshRenderSettings()
    background = torch.ones(3) if background is None else background.float().cpu()
    check_shape("render_colored_mesh", "background", background, [3])
    images = torch.zeros(len(cameras), cameras.height, cameras.width, 3)
    masks, depth = torch.zeros(images.shape[:3]), torch.zeros(images.shape[:3])
    surface, normals = _surface_arrays(mesh), NO_NORMALS
    if settings.shading == "soft":
        normals = vertex_normals(mesh.vertices, mesh.faces).numpy()
    for index in range(len(cameras)):
        canvas = Canvas(images[index].numpy(), masks[index].numpy(), depth[index].numpy())
        _render_one(surface, normals, cameras[index], background.numpy(), settings.supersampling, canvas)
    return PortraitImage(images, masks, depth)


def _surface_arrays(mesh: Mesh) -> Surface:
    """The mesh as the kernel wants it."""
    colors, uvs, texture = NO_COLORS, NO_UVS, NO_TEXTURE
    if mesh.texture is not None and mesh.corner_uvs is not None:
        uvs, texture = mesh.corner_uvs.contiguous().numpy(), mesh.texture.contiguous().numpy()
    elif mesh.vertex_colors is not None:
        colors = mesh.vertex_colors[mesh.faces].contiguous().numpy()
    else:
        raise InvalidInput(
            "render_colored_mesh: the mesh has neither a texture nor vertex colours, expected one of them; give it "
            "`vertex_colors`."
        )
    return Surface(mesh.faces.contiguous().numpy(), mesh.vertices.contiguous().numpy(), colors, uvs, texture)


def _render_one(
    surface: Surface,
    normals: np.ndarray,
    camera: Cameras,
    background: np.ndarray,
    samples: int,
    canvas: Canvas,
) -> None:
    """Draw one camera over the background [3], with `samples` per pixel side."""
    fine = camera.resized(camera.width * samples, camera.height * samples)
    drawn = rasterize_mesh(torch.from_numpy(surface.vertices), torch.from_numpy(surface.faces), fine)
    raster = Raster(*(values[0].contiguous().numpy() for values in (drawn.face_id, drawn.barycentric, drawn.depth)))
    direction = np.array(LIGHT_DIRECTION) / np.linalg.norm(LIGHT_DIRECTION)
    light = np.array([*direction, AMBIENT, KEY], dtype=np.float32)
    eye = camera.camera_centers[0].numpy()
    lighting = Lighting(normals, eye, light)
    run_parallel(shade_rows, camera.height, raster, surface, lighting, background, samples, canvas)
