"""Stage 1 in one function: a static portrait becomes an avatar that can be posed (paper, section 3.1).

The nodes do the same step by step; this is for scripts, benchmarks and tests.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from .avatar import InitializeSettings, RiggedAvatar, initialize_avatar
from .body.fit import BodyFit, BodyFitSettings
from .body.landmarks import landmarks_of_views
from .body.model import BodyModel
from .cameras import view_preset
from .meshes import Mesh
from .networks import ImageNetwork, detect_landmarks, estimate_normals, load_network, segment_images
from .optimization import FitViewsSettings, fit_to_views
from .parts import AvatarPart, MeshParts
from .portrait.body_fit import fit_to_portrait
from .portrait.protocol import MESH_PRESETS, MeshSettings, Portrait
from .portrait.views import render_views
from .progress import Stages, stage_of
from .render import gaussian_device
from .rigging.points import PointSettings, PosedBody, color_points, sample_points
from .segmentation import RevoteSettings, labels_from_probabilities, revote_faces
from .surface import RefineSettings, ViewNormals, refine_mesh
from .surface.color_training import ColorFieldSettings, train_color_field
from .views import Views, concatenate_views


@dataclasses.dataclass(frozen=True)
class Networks:
    """The 2D networks of the initialization, by their roles."""

    parts: ImageNetwork
    normals: ImageNetwork
    landmarks: ImageNetwork

    @classmethod
    def load(cls, parts: Path, normals: Path, landmarks: Path, device: torch.device | str = "cpu") -> Networks:
        """From network folders; raises what `load_network` raises."""
        return cls(
            load_network(parts, "parts", device),
            load_network(normals, "normals", device),
            load_network(landmarks, "landmarks", device),
        )


@dataclasses.dataclass(frozen=True)
class InitializationSettings:
    """Settings of every step; the defaults are those of the shipped graphs.

    view_size: pixels a side of the views.  refine: None keeps the portrait's own surface, which is right for meshes.
    """

    view_size: int = 256
    mesh: MeshSettings = MESH_PRESETS["standard"]
    refine: RefineSettings | None = RefineSettings()
    revote: RevoteSettings = RevoteSettings()
    fit: BodyFitSettings = BodyFitSettings()
    points: PointSettings = PointSettings()
    colors: ColorFieldSettings = ColorFieldSettings()
    start: InitializeSettings = InitializeSettings()
    training: FitViewsSettings = FitViewsSettings()
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Subject:
    """What the avatar is made from.

    views: all around.  close_views: of the face.  parts: the surface, divided into skin, hair and clothes.  fit: the
    body under it.
    """

    views: Views
    close_views: Views
    parts: MeshParts
    fit: BodyFit

    @property
    def all_views(self) -> Views:
        """What colours and Gaussians are learned from."""
        return concatenate_views([self.views, self.close_views])


def initialize(
    portrait: Portrait,
    body: BodyModel,
    networks: Networks,
    settings: InitializationSettings = InitializationSettings(),
    stages: Stages | None = None,
    runs: Path | None = None,
    device: torch.device | str = "cpu",
) -> RiggedAvatar:
    """The avatar of a static portrait, rigged to `body`; the avatar is on the CPU.

    stages: called with the name of each step as it begins, gives its progress.  runs: folder of unfinished runs
    (`runs.automatic_run`): refinement, colour field and training that were stopped there go on where they were.
    device: where colour field and Gaussians are trained, the latter on the CPU where gsplat cannot be used.
    Raises `InvalidInput` where a step cannot go on: no face found, a body that does not fit, empty views.
    """
    subject = find_subject(portrait, body, networks, settings, stages, runs)
    posed, mesh, seed = PosedBody.of(subject.fit.body, subject.fit.parameters), subject.parts.mesh, settings.seed
    generator = torch.Generator().manual_seed(seed)
    points = sample_points(mesh, subject.parts.part_of_face, posed, settings.points, generator)
    progress = stage_of(stages, "colour field")
    field = train_color_field(mesh, subject.all_views, settings.colors, seed, progress, device, runs)
    points = color_points(points, mesh, posed, field)
    avatar = initialize_avatar(points, subject.fit.body, subject.fit.parameters, settings.start, prompt=portrait.prompt)
    progress = stage_of(stages, "train the avatar")
    return fit_to_views(avatar, subject.all_views, settings.training, seed, progress, gaussian_device(device), runs)


def find_subject(
    portrait: Portrait,
    body: BodyModel,
    networks: Networks,
    settings: InitializationSettings = InitializationSettings(),
    stages: Stages | None = None,
    runs: Path | None = None,
) -> Subject:
    """Views, parts and body of a portrait: the first half of `initialize`."""
    views, close = (
        render_views(portrait, view_preset(preset, settings.view_size), progress=stage_of(stages, name))
        for preset, name in (("quickstart", "views"), ("face", "close views"))
    )
    mesh = portrait.mesh(settings.mesh, stage_of(stages, "surface"))
    if settings.refine is not None:
        mesh = _refined(mesh, views, networks, settings, stages, runs)
    probabilities = segment_images(networks.parts, views.images, stage_of(stages, "labels"), views.normals)
    labels = labels_from_probabilities(probabilities, networks.parts.classes)
    parts = revote_faces(mesh, labels, views.cameras, settings.revote, stage_of(stages, "vote")).parts
    landmarks = landmarks_of_views(
        close,
        lambda seen: detect_landmarks(networks.landmarks, seen.images, stage_of(stages, "landmarks"), seen.normals),
    )
    covering = parts.part_of_face != AvatarPart.SKIN
    fit = fit_to_portrait(views, body, mesh, landmarks, settings.fit, stage_of(stages, "fit the body"), covering)
    return Subject(views, close, parts, fit)


def _refined(
    mesh: Mesh,
    views: Views,
    networks: Networks,
    settings: InitializationSettings,
    stages: Stages | None,
    runs: Path | None,
) -> Mesh:
    """The surface, refined by the normals that a network sees in the views."""
    found = estimate_normals(networks.normals, views.images, views.masks, stage_of(stages, "normals"))
    progress = stage_of(stages, "refine the surface")
    normals = ViewNormals(found, views.masks)
    return refine_mesh(mesh, normals, views, settings.refine, settings.seed, progress, runs).mesh
