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
HEADS = ("glb", "glb_mesh")
MOVING = ("frames", "animated", *HEADS, PAGE)
ONLY_OF = {
    "motion": MOVING,
    "fps": MOVING,
    "motion_expressions": MOVING,
    "texture_size": HEADS,
    "expressions": HEADS,
    "include_licensed_body": ("animated", *HEADS, PAGE),
    "quaternion_order": ("rigged",),
}
"""Options that only some formats have; None until they are given."""


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
    words = f"of {', '.join(MOVING)}: 'stress clip', none, or a file or folder with a motion "
    words += "(docs/animation.md; default: 'stress clip')"
    export.add_argument("--motion", help=words)
    words = "frames per second of the motion (default: the file's own; 25 for the stress clip)"
    export.add_argument("--fps", type=float, help=words)
    words = "expression coefficients of a motion's file: taken if their basis is the body's, always, or never"
    export.add_argument("--motion-expressions", help=f"{words} (default: matching)")
    words = "of glb, glb_mesh: texels per side of the texture; 0 for none (default: 1024)"
    export.add_argument("--texture-size", type=int, help=words)
    words = "of glb, glb_mesh: expression coefficients as morph targets (default: up to 50)"
    export.add_argument("--expressions", type=int, help=words)
    words = "Gaussians at most, those that colour the pictures least are left out; says how many dB that costs"
    export.add_argument("--budget", type=int, help=f"{words} (default: all)")
    words = "training steps after the pruning, towards pictures of the whole avatar (default: 0; 300 are good)"
    export.add_argument("--refit", type=int, metavar="STEPS", help=words)
    export.add_argument("--seed", type=int, default=0, help="of the re-fit (default: 0)")
    export.add_argument("--body", type=to_path, help="SMPL-X file, for an avatar that does not contain its body")
    export.add_argument("--assets", type=to_path, help="body assets of that file (default: made from it)")
    words = f"of animated, glb, glb_mesh, {PAGE}: write the template of a licensed body too; its licence must allow "
    words += "what you do with the file"
    export.add_argument("--include-licensed-body", action="store_const", const=True, help=words)
    export.add_argument("--quaternion-order", help="of rigged: corrected or legacy (default: corrected)")
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from ..animation.arkit import arkit_map
    from ..avatar.io import load_avatar
    from ..embedded.corner_uvs import corner_uvs_of
    from ..export.formats import ExportSources, export_avatar, export_format
    from ..workflow.console import ProgressBar

    kind = options.format
    path = _target(options)
    _check_options(options)
    avatar, told = _reduced(options, load_avatar(options.avatar, _body(options)))
    if kind == PAGE:
        notes = told + _write_page(options, avatar, path)
    else:
        held = export_format(kind)
        motion, notes = _motion(options, avatar) if held.has_head or held.needs_motion else (None, ())
        notes = told + notes
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
        avatar, path, {} if motion is None else {"motion": motion}, arkit=arkit_map(avatar.body).matrix,
        include_licensed_body=bool(options.include_licensed_body), overwrite=options.overwrite,
    )  # fmt: skip
    return (*notes, report.words())


def _reduced(options: argparse.Namespace, avatar: RiggedAvatar) -> tuple[RiggedAvatar, tuple[str, ...]]:
    """The avatar within the budget, and what that cost; as it is where none was given."""
    from ..export.reduce import ReduceSettings, reduce_avatar
    from ..workflow.console import ProgressBar

    if options.budget is None:
        if options.refit is not None:
            raise InvalidInput("export: --refit trains what a budget leaves; add --budget N, or leave it out.")
        return avatar, ()
    settings = ReduceSettings(options.budget, options.refit or 0)
    with ProgressBar(quiet=options.quiet or options.json) as bar:
        done = reduce_avatar(avatar, settings, options.seed, bar.stage)
    return done.avatar, (done.words(),)


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


def _check_options(options: argparse.Namespace) -> None:
    """Refuse what was asked for and would do nothing."""
    for name, formats in ONLY_OF.items():
        if getattr(options, name) is not None and options.format not in formats:
            flag = "--" + name.replace("_", "-")
            raise InvalidInput(
                f"export: {flag} is of {', '.join(formats)}; the format '{options.format}' has no such thing. Leave "
                "it out, or choose one of them."
            )
    if options.fps is not None and options.motion == "none":
        raise InvalidInput("export: --fps is of a motion, but --motion is none; leave one of them out.")
    if options.motion_expressions is not None and (options.motion or MOTIONS[0]) in MOTIONS:
        raise InvalidInput("export: --motion-expressions is of a file with a motion; name one with --motion.")
    if options.assets is not None and options.body is None:
        raise InvalidInput("export: --assets belong to the file of --body, but none was given; add --body.")


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

    asked = options.motion or MOTIONS[0]
    if asked == "none":
        return None, ()
    if asked == "stress clip":
        return stress_clip(avatar.body, avatar.parameters, options.fps or DEFAULT_FPS), ()
    path = to_path(asked)
    if not path.exists():
        raise InvalidInput(f"export: no motion '{path}', expected {', '.join(MOTIONS)}, or a file or folder with one.")
    settings = ReadSettings(options.fps or 0.0, options.motion_expressions or "matching")
    loaded = read_motion(path, avatar.body, avatar.parameters, settings)
    return loaded.motion, loaded.notes


def _settings(options: argparse.Namespace) -> ExportSettings:
    """Those that were given, over the defaults."""
    from ..export.formats import ExportSettings

    names = ("quaternion_order", "texture_size", "expressions", "include_licensed_body")
    given = {name: getattr(options, name) for name in names}
    return ExportSettings(**{name: value for name, value in given.items() if value is not None})
