"""The formats of an avatar by name, and one function that writes any of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..avatar.rig import pose_avatar
from ..errors import InvalidInput
from ..progress import Progress
from .animated_ply import write_animated_ply, write_frame_plys
from .baking import BakeSettings
from .glb import GlbSettings, write_avatar_glb
from .glb_rig import FaceShapes
from .ply import write_rigged_ply, write_splat_ply

if TYPE_CHECKING:
    from ..animation import Motion
    from ..avatar.model import RiggedAvatar
    from ..rigging import QuaternionOrder


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """tag: what is added to the name that the user gives.  suffix: of the file; none for a folder.  has_head: whether
    it holds the body's head, with its texture and its named shapes."""

    tag: str
    suffix: str
    words: str
    needs_motion: bool = False
    has_head: bool = False


FORMATS = {
    "splat": ExportFormat("", ".ply", "plain splats at rest, for splat viewers"),
    "rigged": ExportFormat("_rigged", ".ply", "the authors' columns, relative to the triangles"),
    "frames": ExportFormat("_frames", "", "a folder with plain splats for every frame of a motion", True),
    "animated": ExportFormat("_animated", ".ply", "one PLY with a motion, for CAP4D's viewer", True),
    "glb": ExportFormat("", ".glb", "skinned head with morph targets, texture and clip, and the splats", has_head=True),
    "glb_mesh": ExportFormat("_mesh", ".glb", "the skinned head alone, for engines and editors", has_head=True),
    "glb_splats": ExportFormat("_splats", ".glb", "the splats alone"),
}


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What the formats leave to choose."""

    quaternion_order: QuaternionOrder = "corrected"
    """Of `rigged`: `legacy` for the authors' viewer."""
    texture_size: int = BakeSettings().texture_size
    """Of `glb`, `glb_mesh`: texels per side; 0 for colours of vertices alone."""
    expressions: int = GlbSettings().expressions
    """Of `glb`, `glb_mesh`: how many expression coefficients become morph targets."""
    include_licensed_body: bool = False
    """Of `animated`, `glb`, `glb_mesh`: write a body whose licence does not let it be passed on."""


@dataclasses.dataclass(frozen=True)
class ExportSources:
    """What is exported beside the avatar: a motion; texture coordinates [F, 3, 2] of the body; named face shapes."""

    motion: Motion | None = None
    corner_uvs: Tensor | None = None
    face_shapes: FaceShapes | None = None


def export_name(name: str, kind: str) -> str:
    """The name, without suffix, of a file of this format: `avatar` becomes `avatar_rigged`, and stays so.

    >>> export_name("avatar", "rigged"), export_name("avatar_rigged", "rigged"), export_name("avatar", "glb")
    ('avatar_rigged', 'avatar_rigged', 'avatar')
    """
    tag = export_format(kind).tag
    return name if name.endswith(tag) else name + tag


def export_format(kind: str) -> ExportFormat:
    """The format of that name; raises `InvalidInput` where there is none."""
    if kind not in FORMATS:
        raise InvalidInput(f"export_avatar: no format '{kind}', expected one of {', '.join(FORMATS)}.")
    return FORMATS[kind]


def export_avatar(
    avatar: RiggedAvatar,
    path: str | Path,
    kind: str,
    sources: ExportSources = ExportSources(),
    settings: ExportSettings = ExportSettings(),
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write the avatar in the format `kind` to `path`, in one piece; returns what is not in the file, and why.

    What was there is replaced, if it is a file or a folder of frames. Raises InvalidInput where a motion is needed.
    """
    if export_format(kind).needs_motion and sources.motion is None:
        raise InvalidInput(
            f"export_avatar: the format '{kind}' holds a motion, but none was given; connect one, or name one with "
            "--motion."
        )
    if kind == "splat":
        write_splat_ply(pose_avatar(avatar, avatar.parameters), path)
    elif kind == "rigged":
        write_rigged_ply(avatar, path, settings.quaternion_order)
    elif kind == "frames":
        write_frame_plys(avatar, sources.motion, path, overwrite=True, progress=progress)  # type: ignore[arg-type]
    elif kind == "animated":
        error = write_animated_ply(
            avatar,
            sources.motion,  # type: ignore[arg-type]  # checked above
            path,
            include_licensed_body=settings.include_licensed_body,
            progress=progress,
        )
        return _far_notes(error, " The layout stores each frame in steps of 1/255 of its largest movement.")
    else:
        return _export_glb(avatar, path, kind, sources, settings, progress)
    return ()


def _export_glb(
    avatar: RiggedAvatar,
    path: str | Path,
    kind: str,
    sources: ExportSources,
    settings: ExportSettings,
    progress: Progress | None,
) -> tuple[str, ...]:
    glb = GlbSettings(
        mesh=export_format(kind).has_head,
        splats=kind != "glb_mesh",
        expressions=settings.expressions,
        bake=BakeSettings(texture_size=settings.texture_size),
        include_licensed_body=settings.include_licensed_body,
    )
    clips = {"motion": sources.motion} if sources.motion is not None and glb.mesh else {}
    report = write_avatar_glb(avatar, path, clips, sources.corner_uvs, sources.face_shapes, glb, progress)
    still = sources.motion is not None and not glb.mesh
    notes = ("Splats alone do not move: the motion is not in the file.",) if still else ()
    return (*report.notes, *_far_notes(report.deviation), *notes)


def _far_notes(distance: float, why: str = "") -> tuple[str, ...]:
    """What is told of a file whose vertices are so far, in world units, from the body's own."""
    if distance <= 1e-4:
        return ()
    return (f"Vertices of the file are at most {distance:.2g} units from the body's own.{why}",)
