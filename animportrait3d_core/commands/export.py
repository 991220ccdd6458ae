"""`animportrait3d export`: an avatar in another program's format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from .common import EXIT_DONE, to_path

if TYPE_CHECKING:
    from ..animation import Motion
    from ..avatar import RiggedAvatar
    from ..body.model import BodyModel
    from ..export.formats import ExportSettings

MOTIONS = ("stress clip", "none")
PAGE = "html"
"""Beside the formats of `export.formats`: a page has settings of its own."""


def add_export(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    export = commands.add_parser(
        "export", parents=[common], help="write an avatar for other programs: PLY, GLB, a PLY per frame, a web page",
        description="docs/export.md says what each format holds and what opens it.",
    )  # fmt: skip
    export.add_argument("avatar", type=to_path, help="an avatar.safetensors")
    words = f"splat, rigged, frames, animated, glb, glb_mesh, glb_splats or {PAGE}"
    export.add_argument("--format", required=True, help=words)
    export.add_argument("--output", type=to_path, help="file or, of frames, folder (default: beside the avatar)")
    export.add_argument("--overwrite", action="store_true", help="replace what is there")
    words = f"of frames, animated, glb, glb_mesh and {PAGE}: 'stress clip', none, or a file or folder with a motion "
    words += "(docs/animation.md; default: 'stress clip')"
    export.add_argument("--motion", default=MOTIONS[0], help=words)
    words = "frames per second of the motion (default: the file's own; 25 for the stress clip)"
    export.add_argument("--fps", type=float, default=0.0, help=words)
    words = "texels per side of a GLB's texture; 0 for none (default: 1024)"
    export.add_argument("--texture-size", type=int, help=words)
    export.add_argument("--expressions", type=int, help="expression coefficients as morph targets (default: up to 50)")
    words = f"of {PAGE}: Gaussians at most, those that colour the pictures least are left out (default: all)"
    export.add_argument("--budget", type=int, help=words)
    export.add_argument("--body", type=to_path, help="SMPL-X file, for an avatar that does not contain its body")
    export.add_argument("--assets", type=to_path, help="body assets of that file (default: made from it)")
    words = "write the template of a licensed body too; its licence must allow what you do with the file"
    export.add_argument("--include-licensed-body", action="store_true", help=words)
    words = "corrected or legacy, of rigged (default: corrected)"
    export.add_argument("--quaternion-order", default="corrected", help=words)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from ..animation.arkit import arkit_map
    from ..avatar.io import load_avatar
    from ..embedded.corner_uvs import corner_uvs_of
    from ..export.formats import ExportSources, export_avatar, export_format
    from ..workflow.console import ProgressBar

    kind = options.format
    path = _target(options)
    avatar = load_avatar(options.avatar, _body(options))
    if kind == PAGE:
        notes = _write_page(options, avatar, path)
    else:
        held = export_format(kind)
        motion, notes = _motion(options, avatar) if held.has_head or held.needs_motion else (None, ())
        sources = ExportSources(motion)
        if held.has_head:
            sources = ExportSources(motion, corner_uvs_of(avatar.body), arkit_map(avatar.body))
        with ProgressBar(quiet=options.quiet or options.json) as bar:
            notes += export_avatar(avatar, path, kind, sources, _settings(options), bar.stage(kind))
    if options.json:
        print(json.dumps({"file": str(path), "notes": list(notes)}))
    elif not options.quiet:
        print("\n".join([str(path), *notes]))
    return EXIT_DONE


def _write_page(options: argparse.Namespace, avatar: RiggedAvatar, path: Path) -> tuple[str, ...]:
    from ..animation.arkit import arkit_map
    from ..export import write_avatar_page

    motion, notes = _motion(options, avatar)
    report = write_avatar_page(
        avatar, path, {} if motion is None else {"motion": motion}, options.budget, arkit_map(avatar.body).matrix,
        options.include_licensed_body, options.overwrite,
    )  # fmt: skip
    return (*notes, report.words())


def _target(options: argparse.Namespace) -> Path:
    """Where the export goes; refused if something is there, before any work."""
    from ..export.formats import FORMATS, export_format, export_name

    if options.format not in (*FORMATS, PAGE):
        raise InvalidInput(f"export: no format '{options.format}', expected one of {', '.join((*FORMATS, PAGE))}.")
    page = options.format == PAGE
    suffix = f".{PAGE}" if page else export_format(options.format).suffix
    name = options.avatar.stem if page else export_name(options.avatar.stem, options.format)
    beside = options.avatar.with_name(name + suffix)
    path: Path = options.output or beside
    if suffix and path.suffix.lower() != suffix:
        raise InvalidInput(f"export: '{path}' does not end in {suffix}, the suffix of the format '{options.format}'.")
    if path.exists() and not options.overwrite:
        raise InvalidInput(f"export: '{path}' is there already; choose another --output, or add --overwrite.")
    return path


def _body(options: argparse.Namespace) -> BodyModel | None:
    if options.body is None:
        return None
    from ..body.model import load_body_model

    return load_body_model(options.body, options.assets)


def _motion(options: argparse.Namespace, avatar: RiggedAvatar) -> tuple[Motion | None, tuple[str, ...]]:
    """The motion that was asked for, and what there is to know of how a file was read."""
    from ..animation import stress_clip
    from ..animation.clips import DEFAULT_FPS
    from ..animation.files import ReadSettings, read_motion

    if options.motion == "none":
        return None, ()
    if options.motion == "stress clip":
        return stress_clip(avatar.body, avatar.parameters, options.fps or DEFAULT_FPS), ()
    path = to_path(options.motion)
    if not path.exists():
        raise InvalidInput(f"export: no motion '{path}', expected {', '.join(MOTIONS)}, or a file or folder with one.")
    loaded = read_motion(path, avatar.body, avatar.parameters, ReadSettings(options.fps))
    return loaded.motion, loaded.notes


def _settings(options: argparse.Namespace) -> ExportSettings:
    from ..export.formats import ExportSettings

    given = {"texture_size": options.texture_size, "expressions": options.expressions}
    return ExportSettings(
        quaternion_order=options.quaternion_order,
        include_licensed_body=options.include_licensed_body,
        **{name: value for name, value in given.items() if value is not None},
    )
