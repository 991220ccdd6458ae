"""Ground truth: an identity seen by any cameras in any expression and pose, with all the maps that training needs."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...body.parameters import BodyParameters
from ...cameras import Cameras, project
from ...conditioning import ConditionAssets, condition_assets, condition_map
from ...errors import InvalidInput, ShapeMismatch
from ...parts import FigurePart
from ...render import MeshImage, rasterize_mesh
from ...render.threads import run_parallel
from ..mannequin import build_mannequin, mannequin_assets
from .figure import Figure, build_figure, figure_normals, posed_vertices
from .geometry import nearer_samples, smoothed_over_mesh
from .identity import Identity, true_parameters
from .occlusion import SKY_DIRECTIONS, bake_occlusion
from .pose import joint_transforms
from .shading import Lighting, Scene, default_lighting, packed_lighting, shade_image, texel_density, vertex_attributes
from .textures import mip_levels, paint_atlas

WHITE = (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class IdentityRenderSettings:
    """background: rgb 0..1.  supersampling: samples per pixel and axis.  texture_size: texels a side, a power of two.
    lighting: None for `default_lighting`.  condition: also draw the condition map, which costs a second pass.
    merge: samples of a pixel that lie at most so many samples apart on the surface are shaded as one, which saves half
    of the time; 0 shades each."""

    background: tuple[float, float, float] = WHITE
    supersampling: int = 2
    texture_size: int = 1024
    lighting: Lighting | None = None
    condition: bool = True
    merge: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.supersampling <= 4:
            raise InvalidInput(f"IdentityRenderSettings: supersampling is {self.supersampling}, expected 1 to 4.")
        if self.texture_size not in (128, 256, 512, 1024, 2048, 4096):
            raise InvalidInput(
                f"IdentityRenderSettings: texture_size is {self.texture_size}, expected 128, 256, ... 4096."
            )


@dataclasses.dataclass(frozen=True)
class IdentityImage:
    """B views of one identity.

    rgb: [B, H, W, 3] 0..1 over the background.  alpha: [B, H, W].  normals: [B, H, W, 3] unit, camera-space OpenGL (x
    right, y up, z towards the camera), 0 on the background.  condition: [B, H, W, 4] condition map (as
    docs/conventions.md says), or None.  parts: [B, H, W] uint8, `FigurePart`.  depth: [B, H, W] along the view axis,
    0 on the background.  landmarks: [B, 70, 2] pixels, landmarks_3d: [B, 70, 3] world (68 iBUG, left and right pupil),
    all points whether visible or not.
    """

    rgb: Tensor
    alpha: Tensor
    normals: Tensor
    condition: Tensor | None
    parts: Tensor
    depth: Tensor
    landmarks: Tensor
    landmarks_3d: Tensor


@dataclasses.dataclass(frozen=True)
class PreparedIdentity:
    """What does not change with pose and camera: figure, texture levels, baked shadow, texel density."""

    identity: Identity
    figure: Figure
    texels: np.ndarray
    starts: np.ndarray
    size: int
    open_sky: np.ndarray
    key_light: np.ndarray
    density: np.ndarray
    atlas: np.ndarray


def prepare_identity(
    identity: Identity,
    texture_size: int = 1024,
    lighting: Lighting | None = None,
    sky_directions: int = SKY_DIRECTIONS,
) -> PreparedIdentity:
    """Build figure and texture and bake the shadow of the resting figure; do it once and render many views.

    Datasets of small images do with a texture of 512 texels and 12 `sky_directions`.
    """
    figure = build_figure(identity)
    atlas = paint_atlas(identity, figure, texture_size)
    return prepare_figure(identity, figure, atlas, lighting or default_lighting(), sky_directions)


def prepare_figure(
    identity: Identity, figure: Figure, atlas: np.ndarray, lights: Lighting, sky_directions: int = SKY_DIRECTIONS
) -> PreparedIdentity:
    """The same for a figure and an atlas [S, S, 5] that are there already."""
    texels, starts = mip_levels(atlas)
    texture_size = len(atlas)
    vertices = pose_figure(figure, true_parameters(identity))
    normals = figure_normals(figure, vertices)
    inside = _mouth_vertices(len(vertices))
    sky, key = bake_occlusion(vertices, normals, ~inside, lights.directions[0], sky_directions)
    sky, key = _soften(figure, inside, np.stack([sky, key], axis=1))
    density = np.empty(len(figure.faces))
    texel_density(vertices, figure.faces, figure.corner_uvs, texture_size, density)
    for part in (FigurePart.HAIR, FigurePart.CLOTHES):
        # One level of detail for the whole piece: steps of sharpness between rows of triangles would show as bands.
        faces = figure.face_parts == part
        if faces.any():
            density[faces] = np.median(density[faces])
    return PreparedIdentity(identity, figure, texels, starts, texture_size, sky, key, density, atlas)


def scene_of(prepared: PreparedIdentity, vertices: np.ndarray, normals: np.ndarray, scale: float) -> Scene:
    """A posed figure as the shading kernels want it; `scale`: world units per metre of the template."""
    figure = prepared.figure
    return Scene(
        vertex_attributes(vertices, normals, prepared.open_sky, prepared.key_light, figure.flow), figure.faces,
        figure.corner_uvs, figure.face_parts, prepared.texels, prepared.starts, prepared.size, prepared.density,
        1e-3 * scale,
    )  # fmt: skip


def _mouth_vertices(count: int) -> np.ndarray:
    """Which of a figure's vertices [count] lie inside the mouth."""
    body = build_mannequin()
    inside = np.zeros(count, dtype=bool)
    for name in ("teeth", "gum", "tongue", "mouth_bag"):
        inside[: len(body.vertices)] |= body.vertex_parts == body.part_names.index(name)
    return inside


def _soften(figure: Figure, inside: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blur baked light [V, 2] over the mesh, and keep shadow off what the rest pose hides but others show: the inside
    of the mouth, lid margins and the folded skin of the lids."""
    body = build_mannequin()
    light = smoothed_over_mesh(light, figure.faces, figure.weld, 5)
    travel = np.linalg.norm(figure.lids, axis=-1).max(axis=0)
    folded = np.clip((travel - 0.001) / 0.004, 0, 1)[:, None]
    folded[: len(body.vertices)][body.vertex_parts == body.part_names.index("lid_rim")] = 1.0
    light = light + folded * np.clip([0.68, 0.75] - light, 0, None)
    light = np.where(inside[:, None], [0.85, 0.6], light)
    return 0.12 + 0.88 * np.clip(light[:, 0], 0, 1) ** 0.85, 0.12 + 0.88 * light[:, 1]


@lru_cache(maxsize=1)
def _joint_expressions() -> np.ndarray:
    """How each expression moves the joints [55, 3, 10], metres."""
    body = build_mannequin()
    return np.einsum("jv,vce->jce", body.joint_regressor, body.expression_directions)


def pose_figure(figure: Figure, parameters: BodyParameters, state: int = 0) -> np.ndarray:
    """World vertices [V, 3] float64 of a figure in one state of the parameters; `betas` are the identity's own."""
    expression = parameters.expression[state].double().numpy()
    # As in SMPL-X, joints are regressed from the face with its expression.
    transforms = joint_transforms(figure.joints + _joint_expressions() @ expression, parameters, state)
    lids = parameters.eyelids[state].double().numpy()
    return posed_vertices(figure, transforms, expression, lids)


@dataclasses.dataclass(frozen=True)
class PosedIdentity:
    """A prepared identity in one state. vertices, normals: [V, 3] float64 in the world.  scale: units per metre."""

    prepared: PreparedIdentity
    vertices: np.ndarray
    normals: np.ndarray
    scale: float

    @property
    def landmarks(self) -> Tensor:
        """World landmarks [70, 3]: 68 iBUG, left and right pupil."""
        body = build_mannequin()
        corners = self.vertices[body.faces[body.landmark_faces]]
        return torch.from_numpy(np.einsum("nk,nkc->nc", body.landmark_barycentric, corners)).float()


def pose_identity(prepared: PreparedIdentity, parameters: BodyParameters, state: int = 0) -> PosedIdentity:
    """Pose an identity once, to be seen by any number of cameras."""
    vertices = pose_figure(prepared.figure, parameters, state)
    normals = figure_normals(prepared.figure, vertices)
    return PosedIdentity(prepared, vertices, normals, float(parameters.scale[state, 0]))


def render_identity(
    identity: Identity | PreparedIdentity,
    parameters: BodyParameters | None,
    cameras: Cameras,
    settings: IdentityRenderSettings | None = None,
) -> IdentityImage:
    """Render an identity from B cameras.

    parameters: one state for all cameras or one per camera; None is the identity's portrait pose (`true_parameters`).
    Their `betas` are not used: an identity has its own shape. Pass a `PreparedIdentity` when rendering more than once.
    Raises `ShapeMismatch` if the numbers of states and cameras do not fit.
    """
    settings = settings or IdentityRenderSettings()
    prepared = identity
    if not isinstance(prepared, PreparedIdentity):
        prepared = prepare_identity(prepared, settings.texture_size, settings.lighting)
    parameters = true_parameters(prepared.identity) if parameters is None else parameters
    if len(parameters) not in (1, len(cameras)):
        raise ShapeMismatch(
            f"render_identity: {len(parameters)} states for {len(cameras)} cameras, expected 1 or as many."
        )
    views, posed = [], pose_identity(prepared, parameters)
    for view in range(len(cameras)):
        if view > 0 and len(parameters) > 1:
            posed = pose_identity(prepared, parameters, view)
        views.append(render_posed(posed, cameras[view], settings))
    return IdentityImage(**{field.name: _stacked(views, field.name) for field in dataclasses.fields(IdentityImage)})


def _stacked(views: list[IdentityImage], name: str) -> Any:
    """One field of all views in a batch; None stays None."""
    values = [getattr(view, name) for view in views]
    return None if values[0] is None else torch.cat(values)


@lru_cache(maxsize=1)
def bust_condition_assets() -> ConditionAssets:
    """What condition maps need of the bare bust."""
    return condition_assets(mannequin_assets(build_mannequin()))


def _arrays(image: MeshImage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """face_id, barycentric and depth of a batch of one."""
    return image.face_id[0].numpy(), image.barycentric[0].numpy(), image.depth[0].numpy()


def render_posed(posed: PosedIdentity, camera: Cameras, settings: IdentityRenderSettings) -> IdentityImage:
    """One view [1] of a posed identity. camera: a batch of one."""
    figure = posed.prepared.figure
    grain, width, height = settings.supersampling, camera.width, camera.height
    fine = camera.resized(width * grain, height * grain)
    world, faces = torch.from_numpy(posed.vertices).float(), torch.from_numpy(figure.faces)
    # The bare bust is drawn by itself, because the condition map wants it without hair and clothes.
    bust = rasterize_mesh(world, faces[: figure.num_body_faces], fine)
    dressing = rasterize_mesh(world, faces[figure.num_body_faces :], fine)
    samples = nearer_samples(_arrays(bust), _arrays(dressing), figure.num_body_faces)
    scene = scene_of(posed.prepared, posed.vertices, posed.normals, posed.scale)
    rgb, alpha = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    view_normals, parts = np.empty((height, width, 3), np.float32), np.empty((height, width), np.uint8)
    depth = np.empty((height, width), np.float32)
    center = camera.camera_centers[0].double().numpy()
    rotation = camera.world_to_camera[0, :3, :3].double().numpy()
    lights = packed_lighting(settings.lighting or default_lighting())
    focal = float(fine.K[0, 0, 0])
    run_parallel(
        shade_image, height, scene, lights, samples, (center, rotation, focal), np.array(settings.background),
        settings.merge, (rgb, alpha, view_normals, parts, depth),
    )  # fmt: skip
    condition = None
    if settings.condition:
        body, normals = (torch.from_numpy(values[: figure.num_body]) for values in (posed.vertices, posed.normals))
        condition = condition_map(bust_condition_assets(), body, normals, camera, grain, bust)
    landmarks = posed.landmarks[None]
    return IdentityImage(
        torch.from_numpy(rgb)[None], torch.from_numpy(alpha)[None], torch.from_numpy(view_normals)[None], condition,
        torch.from_numpy(parts)[None], torch.from_numpy(depth)[None],
        project(camera, landmarks)[0], landmarks,
    )  # fmt: skip
