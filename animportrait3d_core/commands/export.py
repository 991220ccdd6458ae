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


def add_export(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    export = commands.add_parser(
        "export", parents=[common], help="write an avatar for other programs: PLY, GLB, a PLY per frame",
        description="docs/export.md says what each format holds and what opens it.",
    )  # fmt: skip
    export.add_argument("avatar", type=to_path, help="an avatar.safetensors")
    words = "splat, rigged, frames, animated, glb, glb_mesh or glb_splats"
    export.add_argument("--format", required=True, help=words)
    export.add_argument("--output", type=to_path, help="file or, of frames, folder (default: beside the avatar)")
    export.add_argument("--overwrite", action="store_true", help="replace what is there")
    words = "of frames, animated, glb and glb_mesh: 'stress clip' or none (default: 'stress clip')"
    export.add_argument("--motion", default=MOTIONS[0], help=words)
    export.add_argument("--fps", type=float, default=25.0, help="frames per second of the motion (default: 25)")
    words = "texels per side of a GLB's texture; 0 for none (default: 1024)"
    export.add_argument("--texture-size", type=int, help=words)
    export.add_argument("--expressions", type=int, help="expression coefficients as morph targets (default: up to 50)")
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
    held = export_format(kind)
    sources = ExportSources(_motion(options, avatar) if held.has_head or held.needs_motion else None)
    if held.has_head:
        sources = ExportSources(sources.motion, corner_uvs_of(avatar.body), arkit_map(avatar.body))
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        notes = export_avatar(avatar, path, kind, sources, _settings(options), bar.stage(kind))
    if options.json:
        print(json.dumps({"file": str(path), "notes": list(notes)}))
    elif not options.quiet:
        print("\n".join([str(path), *notes]))
    return EXIT_DONE


def _target(options: argparse.Namespace) -> Path:
    """Where the export goes; refused if something is there, before any work."""
    from ..export.formats import export_format, export_name

    suffix = export_format(options.format).suffix
    beside = options.avatar.with_name(export_name(options.avatar.stem, options.format) + suffix)
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


def _motion(options: argparse.Namespace, avatar: RiggedAvatar) -> Motion | None:
    from ..animation import stress_clip

    if options.motion == "none":
        return None
    if options.motion == "stress clip":
        return stress_clip(avatar.body, avatar.parameters, options.fps)
    raise InvalidInput(f"export: no motion '{options.motion}', expected one of {', '.join(MOTIONS)}.")


def _settings(options: argparse.Namespace) -> ExportSettings:
    from ..export.formats import ExportSettings

    given = {"texture_size": options.texture_size, "expressions": options.expressions}
    return ExportSettings(
        quaternion_order=options.quaternion_order,
        include_licensed_body=options.include_licensed_body,
        **{name: value for name, value in given.items() if value is not None},
    )
