"""One GLB of an avatar: the skinned head with morph targets, colours and clips, and the splats it was baked from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput, check_shape
from ..files import atomic_write
from ..mesh_files.glb import GlbWriter
from ..progress import Progress
from .baking import BakeSettings, SurfacePoints, bake_colors, fill_gaps, texel_points, vertex_points
from .glb_clips import add_clip, check_motion
from .glb_mesh import Surface, add_head, add_skeleton
from .glb_rig import FaceShapes, HeadRig, make_head_rig
from .glb_splats import add_splats
from .licences import LICENSED_BODY

if TYPE_CHECKING:
    from ..animation import Motion
    from ..avatar.model import RiggedAvatar

_WHERE = "write_avatar_glb"
BAKED = BakeSettings()


@dataclasses.dataclass(frozen=True)
class GlbSettings:
    """What a GLB holds."""

    mesh: bool = True
    """The skinned head."""
    splats: bool = True
    """The splats, as KHR_gaussian_splatting."""
    expressions: int = 50
    """Morph targets of the body's first, strongest expression coefficients: SMPL-X has up to 100."""
    bake: BakeSettings = BakeSettings()
    """Colours and texture of the head."""
    include_licensed_body: bool = False
    """Write the head of a body whose licence does not let it be passed on, such as SMPL-X."""

    def __post_init__(self) -> None:
        if not (self.mesh or self.splats) or self.expressions < 0:
            raise InvalidInput(
                f"GlbSettings: `mesh` {self.mesh}, `splats` {self.splats}, `expressions` {self.expressions}; expected "
                "one of the first two, and at least 0."
            )


@dataclasses.dataclass(frozen=True)
class GlbReport:
    """What was written. vertices, faces: of the head, 0 without it; vertices on seams count more than once. joints and
    morphs: their names. splats: their number. deviation: the largest distance, in world units, between what a viewer
    shows and the body's own vertices, at rest and in all frames of the clips. notes: what is not in the file, and why.
    """

    path: Path
    vertices: int = 0
    faces: int = 0
    joints: tuple[str, ...] = ()
    morphs: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    splats: int = 0
    deviation: float = 0.0
    notes: tuple[str, ...] = ()


def write_avatar_glb(
    avatar: RiggedAvatar,
    path: str | Path,
    clips: Mapping[str, Motion] | None = None,
    corner_uvs: Tensor | None = None,
    face_shapes: FaceShapes | None = None,
    settings: GlbSettings = GlbSettings(),
    progress: Progress | None = None,
    surface: Surface | None = None,
) -> GlbReport:
    """Write one GLB of the avatar at rest, in one piece; an older file at `path` is replaced.

    clips: motions of this avatar's body by name.  corner_uvs: [F, 3, 2] in 0..1, v up, of the body's faces; without
    them the head has colours of its vertices and no texture.  face_shapes: named shapes, such as ARKit's 52: morph
    targets after expressions and lids.  progress: of the pictures that are baked.  surface: that of `baked_surface`,
    if it was needed before; then nothing is baked.

    Raises InvalidInput or ShapeMismatch for a motion of another body or shape, or where nothing is left to write.
    """
    clips = clips or {}
    mesh, notes = settings.mesh, []
    if mesh and not (avatar.body.redistributable or settings.include_licensed_body):
        mesh = False
        notes.append(LICENSED_BODY.format(body=avatar.body.assets.name, left_out="head mesh, rig and clips"))
        if not settings.splats:
            raise InvalidInput(f"{_WHERE}: nothing is left to write to '{path}'. {notes[0]}")
    for name, motion in clips.items():
        check_motion(_WHERE, avatar, motion, name)
    file = GlbWriter()
    file.tree |= {"nodes": [], "meshes": [], "extensionsUsed": [], "scene": 0}
    file.tree["asset"] |= {"generator": "animportrait3d", "extras": {"prompt": avatar.prompt}}
    report, roots = GlbReport(Path(path), notes=tuple(notes)), list[int]()
    order = [0, 1, 2] if avatar.body.assets.winding_outward else [0, 2, 1]
    if mesh:
        baked = (surface, ()) if surface is not None else baked_surface(avatar, corner_uvs, settings.bake, progress)
        report, roots = _add_mesh(file, avatar, clips, face_shapes, baked, settings, report)
    if settings.splats:
        roots.append(add_splats(file, avatar, roots[-1] if mesh else None, order))
        report = dataclasses.replace(report, splats=len(avatar))
    file.tree["scenes"] = [{"nodes": roots}]
    with atomic_write(path) as temporary:
        temporary.write_bytes(file.tobytes())
    return report


def _add_mesh(
    file: GlbWriter,
    avatar: RiggedAvatar,
    clips: Mapping[str, Motion],
    face_shapes: FaceShapes | None,
    baked: tuple[Surface, tuple[str, ...]],
    settings: GlbSettings,
    report: GlbReport,
) -> tuple[GlbReport, list[int]]:
    """Add skeleton, head and clips; returns what the report says of them, and their two root nodes, the mesh last."""
    surface, notes = baked
    rig = make_head_rig(avatar, settings.expressions, face_shapes)
    with torch.no_grad():
        posed = avatar.body.to(dtype=torch.float64)(avatar.parameters.to(dtype=torch.float64))
    worlds, weights = rig.joint_worlds(posed), rig.morph_weights(avatar.parameters)
    joints = add_skeleton(file, rig, worlds[0])
    node = add_head(file, rig, surface, joints, weights[0])
    shown = rig.vertices(worlds, weights)
    deviation = float(np.linalg.norm(shown - posed.vertices.numpy(), axis=-1).max())
    for name, motion in clips.items():
        deviation = max(deviation, add_clip(file, name, motion, avatar, rig, (joints, node)))
    positions = file.tree["meshes"][-1]["primitives"][0]["attributes"]["POSITION"]
    report = dataclasses.replace(
        report,
        vertices=file.tree["accessors"][positions]["count"],
        faces=len(surface.faces),
        joints=tuple(file.tree["nodes"][joint]["name"] for joint in joints),
        morphs=rig.morph_names,
        clips=tuple(clips),
        deviation=deviation,
        notes=(*report.notes, *notes, *_unsaid(avatar, rig)),
    )
    return report, [joints[0], node]


def baked_surface(
    avatar: RiggedAvatar,
    corner_uvs: Tensor | None = None,
    settings: BakeSettings = BAKED,
    progress: Progress | None = None,
) -> tuple[Surface, tuple[str, ...]]:
    """Faces, colours and texture of the body, and what there is to tell of them.

    corner_uvs: as of `write_avatar_glb`. Colours of vertices and of texels are baked from the same pictures.
    """
    body, size = avatar.body, settings.texture_size
    points = vertex_points(body.faces, body.num_vertices)
    if corner_uvs is None or size == 0:
        colors = bake_colors(avatar, points, settings, progress)
        lacking = f"the body '{body.assets.name}' has no texture coordinates. The head has colours of its vertices."
        return Surface(body.faces_outward, colors), (f"No texture: {lacking}",) if size else ()
    check_shape(_WHERE, "corner_uvs", corner_uvs, [len(body.faces), 3, 2])
    in_texture, texels = texel_points(corner_uvs, size)
    both = SurfacePoints(
        torch.cat([points.face, in_texture.face]), torch.cat([points.barycentric, in_texture.barycentric])
    )
    colors = bake_colors(avatar, both, settings, progress)
    texture = fill_gaps(colors[body.num_vertices :], texels, size)
    outward = corner_uvs if body.assets.winding_outward else corner_uvs[:, [0, 2, 1]]
    return Surface(body.faces_outward, colors[: body.num_vertices], outward, texture), ()


def _unsaid(avatar: RiggedAvatar, rig: HeadRig) -> list[str]:
    """What the body does and glTF's skinning does not, in words."""
    notes = []
    if bool(avatar.body.to_tensors()[0]["pose_directions"].any()):
        notes.append(
            "The body's pose correctives are those of the rest pose: glTF bends a skin by its joints alone. See the "
            "deviation."
        )
    if rig.dropped_weight > 1e-4:
        notes.append(
            f"Vertices follow their four strongest joints; up to {rig.dropped_weight:.1%} of a vertex's weight was "
            "shared among these."
        )
    if rig.expressions < avatar.body.num_expression:
        notes.append(f"Of {avatar.body.num_expression} expression coefficients the first {rig.expressions} are there.")
    if avatar.body.eyelid_mode == "paper":
        notes.append("The lids turn with the head; in the mode 'paper' they move along the world's axes.")
    return notes
